"""A small program that goes about its work as DeepMedic does, by the same names; ours, no network.

``write_fake(folder)`` writes a checkout. It chooses, opens and samples cases in the main thread, in
a thread or in forked processes, "trains" by writing down what it was fed, and lies about how it
ended, all as the real program does. ``FAIL`` in its configuration makes it fail in some place.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gansynth_deepmedic.program import PACKAGES

IO = """
def load_volume(filepath):
    raise RuntimeError("an old nibabel would do this")

def saveImgToNiiWithOriginalHdr(imgToSave, filepathTarget):
    pass
"""

SAMPLING = '''
import multiprocessing, random, signal, time, traceback
import numpy as np
from deepmedic.dataManagement.io import load_volume

FAIL = ""

class SamplingType:
    """Per class."""
    def get_perc_to_sample_per_cat(self):
        return [1 / 3] * 3

    def derive_sampling_maps_per_cat(self, wmaps_to_sample_per_cat, gt_lbl_img, roi_mask, dims):
        if wmaps_to_sample_per_cat is not None:
            return wmaps_to_sample_per_cat
        inside = np.ones(dims, bool) if roi_mask is None else roi_mask > 0
        return [((gt_lbl_img == c) & inside).astype("int8") for c in range(3)]

def get_samples_for_subepoch(log, train_val_or_test, num_parallel_proc, sampling_type, max_n_cases,
                             n_samples, inp_shapes_per_path, paths, augm_sample_prms):
    idxs = choose_random_subjects(len(paths[0]), max_n_cases)
    counts = get_n_samples_per_subj(n_samples, len(idxs))
    args = [log, train_val_or_test, sampling_type, paths, None, augm_sample_prms, idxs, counts,
            inp_shapes_per_path]
    if num_parallel_proc <= 0:
        found = [load_subj_and_sample(*([n] + args)) for n in range(len(idxs))]
    else:
        pool = multiprocessing.Pool(num_parallel_proc, initializer=init_sampling_proc)
        try:
            jobs = [pool.apply_async(load_subj_and_sample, [n] + args) for n in range(len(idxs))]
            found = [job.get(timeout=60) for job in jobs]
        except Exception as e:
            log.print3("ERROR: Caught exception in get_samples_for_subepoch(): " + str(e))
            log.print3(traceback.format_exc())
            raise e
        finally:
            pool.terminate()
            pool.join()
    return shuffle_samples(*[sum(parts, []) for parts in zip(*found)])

def init_sampling_proc():
    signal.signal(signal.SIGINT, signal.SIG_IGN)

def choose_random_subjects(n_total_subjects, max_subjects_on_gpu_for_subepoch):
    idxs = list(range(n_total_subjects))
    random.shuffle(idxs)
    return idxs[:max_subjects_on_gpu_for_subepoch]

def get_n_samples_per_subj(n_samples, n_subjects):
    counts = np.ones([n_subjects], dtype="int32") * (n_samples // n_subjects)
    for _ in range(n_samples % n_subjects):
        counts[random.randint(0, n_subjects - 1)] += 1
    return counts

def comp_valid_sampling_mask_excluding_edges(dims_of_segment, shape):
    mask = np.zeros(shape, "int8")
    mask[tuple(slice(n // 2, m - n // 2) for n, m in zip(dims_of_segment, shape))] = 1
    return mask

def load_subj_and_sample(job_idx, log, train_val_or_test, sampling_type, paths, augm_img_prms,
                         augm_sample_prms, idxs_of_subjs_for_subep, n_samples_per_subj,
                         inp_shapes_per_path):
    channels, labels, roi, wmaps = load_imgs_of_subject(
        log, str(job_idx), idxs_of_subjs_for_subep[job_idx], paths, None)
    if FAIL == "waiting":
        log.print3("waiting")
        time.sleep(600)
    if FAIL == "exit":
        log.print3("ERROR: Two weight maps were expected! Exiting!")
        exit(1)
    segment = inp_shapes_per_path[0]
    maps = sampling_type.derive_sampling_maps_per_cat(wmaps, labels, roi, channels[0].shape)
    mask = comp_valid_sampling_mask_excluding_edges(segment, maps[0].shape)
    maps = [np.multiply(m, mask, dtype=m.dtype) for m in maps]
    there = [n for n, m in enumerate(maps) if m.sum() > 0]
    if not there:
        raise ValueError("probabilities contain NaN")
    segments, gts = [], []
    for n in range(n_samples_per_subj[job_idx]):
        spots = np.argwhere(maps[there[n % len(there)]])
        at = spots[np.random.choice(len(spots))]
        cut = tuple(slice(c - s // 2, c + s // 2 + 1) for c, s in zip(at, segment))
        # What it was cut from, where, how it was augmented, and what is in its middle.
        shift = 0.0 if augm_sample_prms is None else float(np.random.normal(0, 0.05))
        segments.append([float(channels[0][tuple(at)]), float(channels[0][cut].mean()),
                         *map(int, at), shift, channels[0].size, random.random()])
        gts.append(int(labels[tuple(at)]))
    return segments, gts

def load_imgs_of_subject(log, job_id, subj_i, paths, paths_to_wmaps_per_sampl_cat_per_subj):
    log.print3(job_id + " Loading " + paths[0][subj_i][0])
    if FAIL == "loading":
        raise ValueError("could not broadcast")
    channels = np.stack([load_volume(p) for p in paths[0][subj_i]])
    return (channels.astype("float64"), load_volume(paths[1][subj_i]),
            None if paths[2] is None else load_volume(paths[2][subj_i]), None)

def shuffle_samples(channs_of_samples_per_path, lbls_predicted_part_of_samples):
    both = list(zip(channs_of_samples_per_path, lbls_predicted_part_of_samples))
    random.shuffle(both)
    return [a for a, b in both], [b for a, b in both]
'''

TESTING = """
from deepmedic.dataManagement.sampling import load_imgs_of_subject

def inference_on_whole_volumes(log, paths):
    for n in range(len(paths[0])):
        channels, *_ = load_imgs_of_subject(log, "", n, paths, None)
        assert channels.max() < 100, "validated on a synthetic case"
    return {"dice1": [0.1, 0.1, 0.1], "dice2": [0.5, 0.25, "N/A"], "dice3": [0.1, 0.1, 0.1]}
"""

TRAINING = """
import traceback
from multiprocessing.pool import ThreadPool
from deepmedic.dataManagement.sampling import get_samples_for_subepoch
from deepmedic.dataManagement import sampling
from deepmedic.routines.testing import inference_on_whole_volumes

def process_in_batches(log, sessionTf, train_or_val, n_batches, batchsize, channs, lbls):
    for n in range(n_batches):
        batch = slice(n * batchsize, (n + 1) * batchsize)
        sessionTf.run(fetches=["cost"], feed_dict={"x": channs[batch], "y": lbls[batch],
                                                   "kind": train_or_val})

def do_training(sessionTf, saver_all, trainer, log, fileToSaveTrainedCnnModelTo, val_on_samples,
                paths_per_chan_per_subj_train, paths_per_chan_per_subj_val,
                paths_to_lbls_per_subj_train, paths_to_lbls_per_subj_val,
                paths_to_masks_per_subj_train, paths_to_masks_per_subj_val, n_epochs, n_subepochs,
                max_n_cases, n_samples, num_parallel_proc_sampling, batchsize, augm_sample_prms):
    held = (paths_per_chan_per_subj_val, paths_to_lbls_per_subj_val, paths_to_masks_per_subj_val)
    own = (paths_per_chan_per_subj_train, paths_to_lbls_per_subj_train,
           paths_to_masks_per_subj_train)

    def args(kind, paths, augm):
        return (log, kind, num_parallel_proc_sampling, sampling.SamplingType(), max_n_cases,
                n_samples, [[5, 5, 5]], paths, augm)

    tr, va = args("train", own, augm_sample_prms), args("val", held, None)
    pool = ThreadPool(processes=1) if num_parallel_proc_sampling > -1 else None
    try:
        ahead = None
        while (epoch := trainer.get_num_epochs_trained_tfv().eval(session=sessionTf)) < n_epochs:
            for subep in range(n_subepochs):
                if val_on_samples:
                    samples = (pool.apply(get_samples_for_subepoch, va) if pool is not None
                               else get_samples_for_subepoch(*va))
                    process_in_batches(log, sessionTf, "val", 1, batchsize, *samples)
                if pool is None:
                    samples = get_samples_for_subepoch(*tr)
                else:
                    ahead = ahead or pool.apply_async(get_samples_for_subepoch, tr)
                    samples = ahead.get()
                    ahead = pool.apply_async(get_samples_for_subepoch, tr)
                process_in_batches(log, sessionTf, "train", len(samples[0]) // batchsize,
                                   batchsize, *samples)
            trainer.trained += 1
            saver_all.save(sessionTf, fileToSaveTrainedCnnModelTo + ".1.model.ckpt",
                           write_meta_graph=False)
            if val_on_samples:
                inference_on_whole_volumes(log, held)
    except (Exception, KeyboardInterrupt) as e:
        log.print3("\\n\\n ERROR: Caught exception in do_training(): " + str(e) + "\\n")
        log.print3(traceback.format_exc())
        if pool is not None:
            pool.terminate()
            pool.join()
        return 1
    if pool is not None:
        pool.close()
        pool.join()
    if sampling.FAIL != "final":
        saver_all.save(sessionTf, fileToSaveTrainedCnnModelTo + ".final.1.model.ckpt",
                       write_meta_graph=False)
    return 0
"""

SESSION = """
import json, os
from deepmedic.dataManagement import sampling
from deepmedic.routines.training import do_training

class Log:
    def print3(self, string):
        print(string)

class Session:
    graph = "g"

    def __init__(self, file):
        self.file = file

    def run(self, fetches, feed_dict=None):
        if sampling.FAIL == "training":
            raise KeyError("NaN")
        with open(self.file, "a") as f:
            f.write(json.dumps(feed_dict) + "\\n")
        return [0.5, None]

class Saver:
    def save(self, session, path, write_meta_graph=True):
        with open(path + ".index", "w") as f:
            f.write("saved")
        return path

class Trainer:
    def __init__(self, trained):
        self.trained = trained

    def get_num_epochs_trained_tfv(self):
        return self

    def eval(self, session):
        assert session.graph == "g"
        return self.trained

class TrainSession:
    def __init__(self, cfg, folder):
        self.cfg, self.folder = cfg, folder

    def lines(self, name):
        path = os.path.join(self.folder, name)
        with open(path) as f:
            names = [line.strip() for line in f if not line.startswith("#")]
        return [os.path.normpath(os.path.join(os.path.dirname(path), n)) for n in names]

    def run_session(self):
        cfg = self.cfg
        out = os.path.join(self.folder, cfg["folderForOutput"], "saved_models")
        os.makedirs(out, exist_ok=True)
        part = lambda name: [
            list(zip(*map(self.lines, cfg["channels" + name]))), self.lines(cfg["gtLabels" + name]),
            self.lines(cfg["roiMasks" + name]) if "roiMasks" + name in cfg else None]
        channels, labels, masks = part("Training")
        val = part("Validation") if "channelsValidation" in cfg else [None] * 3
        do_training(
            Session(os.path.join(out, "..", "fed.jsonl")), Saver(), Trainer(cfg.get("TRAINED", 0)),
            Log(), os.path.join(out, "toy"), val[0] is not None,
            channels, val[0], labels, val[1], masks, val[2],
            cfg["numberOfEpochs"], cfg["numberOfSubepochs"], cfg["numOfCasesLoadedPerSubepoch"],
            cfg["numberTrainingSegmentsLoadedOnGpuPerSubep"], cfg["num_processes_sampling"],
            cfg["batchsize_train"], cfg.get("AUGMENT"))
"""

SCRIPT = """
import argparse, os, traceback
from deepmedic.dataManagement import sampling
from deepmedic.frontEnd.trainSession import TrainSession

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="DeepMedic")
    for option in ("-model", "-train", "-dev"):
        parser.add_argument(option)
    args = parser.parse_args()
    cfg = {}
    exec(open(args.train).read(), cfg)
    sampling.FAIL = cfg.get("FAIL", "")
    try:
        if sampling.FAIL == "config":
            print("ERROR: Parameter \\"channelsTraining\\" needed but not provided. Exiting.")
            exit(1)
        assert sampling.FAIL != "assertion"
        TrainSession(cfg, os.path.dirname(args.train)).run_session()
    except (Exception, KeyboardInterrupt) as e:
        print("ERROR: Caught exception from main process: " + str(e))
        print(traceback.format_exc())
    print("Finished.")
"""

PYTHON = f"""#!/bin/sh
case "$1" in
-c) echo "python 3.11.0"; echo 'found {json.dumps(dict.fromkeys(PACKAGES, "3.11-fake"))}';;
*) exec {sys.executable} "$@";;
esac
"""
"""A Python that says that it has everything."""
FILES = {
    "python": PYTHON,
    "deepMedicRun": SCRIPT,
    "deepmedic/dataManagement/io.py": IO,
    "deepmedic/dataManagement/sampling.py": SAMPLING,
    "deepmedic/routines/testing.py": TESTING,
    "deepmedic/routines/training.py": TRAINING,
    "deepmedic/frontEnd/trainSession.py": SESSION,
}


def write_fake(folder: Path) -> Path:
    """Write a checkout; returns its folder."""
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.startswith("deepmedic/"):
            (path.parent / "__init__.py").touch()
        path.write_text(text.lstrip("\n"))
    (folder / "deepmedic" / "__init__.py").touch()
    (folder / "python").chmod(0o755)
    return folder
