"""A small program that goes about its work as DeepMedic does, by the same names; ours, no network.

``write_fake(folder)`` writes a checkout. It samples cases in the main thread, in a thread or in
forked processes, trains nothing, logs and exits as DeepMedic does. ``FAKE`` in its environment
makes it fail, wait or sleep in some place.
"""

import sys
from pathlib import Path

from gansynth_deepmedic.program import PACKAGES

IO = """
import nibabel as nib
import numpy as np

def load_volume(filepath):
    raise RuntimeError("an old nibabel would do this")

def saveImgToNiiWithOriginalHdr(image, path):
    nib.save(nib.Nifti1Image(image, np.diag([-1, -1, 1, 1])), path)
"""

TYPE = """
import numpy as np

class SamplingType:
    def get_perc_to_sample_per_cat(self):
        return [1 / 3] * 3

    def derive_sampling_maps_per_cat(self, wmaps, labels, roi, dims):
        inside = np.ones(dims, bool) if roi is None else roi > 0
        return [((labels == c) & inside).astype("int8") for c in range(3)]
"""

SAMPLING = """
import multiprocessing, os, random, signal
import numpy as np
from deepmedic.dataManagement import samplingType
from deepmedic.dataManagement.io import load_volume

FAKE = os.environ.get("FAKE", "")

def get_samples_for_subepoch(log, train_val_or_test, num_parallel_proc, max_n_cases, n_samples,
                             sampling_type, paths_per_chan_per_subj, paths_to_lbls_per_subj,
                             paths_to_masks_per_subj, augm_sample_prms):
    idxs = list(range(len(paths_per_chan_per_subj)))
    random.shuffle(idxs)
    idxs = idxs[:max_n_cases]
    args = [log, train_val_or_test, sampling_type, paths_per_chan_per_subj, paths_to_lbls_per_subj,
            paths_to_masks_per_subj, augm_sample_prms, idxs, n_samples // len(idxs)]
    if num_parallel_proc <= 0:
        found = [load_subj_and_sample(*([n] + args)) for n in range(len(idxs))]
    else:
        quiet = signal.SIGINT, signal.SIG_IGN
        pool = multiprocessing.Pool(num_parallel_proc, signal.signal, quiet)
        try:
            jobs = [pool.apply_async(load_subj_and_sample, [n] + args) for n in range(len(idxs))]
            found = [job.get(timeout=60) for job in jobs]
        finally:
            pool.terminate()
            pool.join()
    return sum((segments for segments, _ in found), []), sum((labels for _, labels in found), [])

def constrain_sampling_maps_near_edges(sample_maps_per_cat, dims_sample):
    mask = np.zeros(sample_maps_per_cat[0].shape, "int8")
    mask[tuple(slice(n // 2, -(n // 2)) for n in dims_sample)] = 1
    return [np.multiply(one, mask, dtype=one.dtype) for one in sample_maps_per_cat]

def augment_imgs_of_case(channels, labels, roi, wmaps, augm_img_prms):
    return channels, labels, roi, wmaps

def augment_sample(channels, labels, augm_sample_prms):
    shift = 0 if augm_sample_prms is None else np.random.normal(0, 0.05)
    return channels + shift, labels

def load_subj_and_sample(job_idx, log, train_val_or_test, sampling_type, channels, labels, masks,
                         augm_sample_prms, idxs, n_samples):
    kind = "TRA" if train_val_or_test == "train" else "VAL"
    job_id = f"[{kind}|JOB:{job_idx}|PID:{os.getpid()}]"
    image, target, roi, wmaps = load_imgs_of_subject(
        log, job_id, idxs[job_idx], channels, labels, None, masks)
    if FAKE == "exit":
        log.print3("ERROR: Two weight maps were expected! Exiting!")
        samplingType.exit(1)
    maps = sampling_type.derive_sampling_maps_per_cat(wmaps, target, roi, image[0].shape)
    maps = constrain_sampling_maps_near_edges(maps, [5, 5, 5])
    there = [one for one in maps if one.sum() > 0]
    if not there:
        raise ValueError("probabilities contain NaN")
    segments, truths = [], []
    for n in range(n_samples):
        spots = np.argwhere(there[n % len(there)])
        cut = tuple(slice(c - 2, c + 3) for c in spots[np.random.choice(len(spots))])
        segment, truth = augment_sample(image[(slice(None), *cut)], target[cut], augm_sample_prms)
        segments.append(segment)
        truths.append(truth)
    log.print3(f"{job_id} Done. Samples per category: [Class-1: {n_samples}/{n_samples}] ")
    return [segments], truths

def load_imgs_of_subject(log, job_id, subj_i, paths_per_chan_per_subj, paths_to_lbls_per_subj,
                         paths_to_wmaps_per_sampl_cat_per_subj, paths_to_masks_per_subj):
    if FAKE == "loading":
        raise ValueError("could not broadcast")
    channels = np.stack([load_volume(path) for path in paths_per_chan_per_subj[subj_i]])
    mask = None if paths_to_masks_per_subj is None else load_volume(paths_to_masks_per_subj[subj_i])
    return channels.astype("float64"), load_volume(paths_to_lbls_per_subj[subj_i]), mask, None
"""

TRAINING = """
import os, time, traceback
from multiprocessing.pool import ThreadPool
from deepmedic.dataManagement import io, sampling
from deepmedic.dataManagement.sampling import get_samples_for_subepoch
from deepmedic.dataManagement.samplingType import SamplingType

def do_training(log, cfg, first, own, held, models, predictions):
    def args(kind, lists, augm):
        return (log, kind, cfg["num_processes_sampling"], cfg["numOfCasesLoadedPerSubepoch"],
                cfg["numberTrainingSegmentsLoadedOnGpuPerSubep"], SamplingType(), *lists, augm)

    train = args("train", own, cfg.get("augm_sample_prms_tr"))
    pool = ThreadPool(processes=1) if cfg["num_processes_sampling"] > -1 else None
    ahead = None
    try:
        for epoch in range(first, cfg["numberOfEpochs"]):
            if sampling.FAKE == "training" and epoch == 1:
                raise KeyError("NaN")
            for subep in range(cfg["numberOfSubepochs"]):
                validate = args("val", held, None)
                if pool is None:
                    get_samples_for_subepoch(*validate)
                else:
                    pool.apply(get_samples_for_subepoch, validate)
                if pool is None:
                    samples = get_samples_for_subepoch(*train)
                else:
                    samples = (ahead or pool.apply_async(get_samples_for_subepoch, train)).get()
                    ahead = pool.apply_async(get_samples_for_subepoch, train)
                count = len(samples[0]) // cfg["batchsize_train"]
                for done in range(count + 1):
                    log.print3(f"[TRAINING] Processed {done}/{count} batches for this subepoch...")
                time.sleep(0.5 if sampling.FAKE == "slow" else 0)
                log.print3(f"TIMING: Training on batches of this subepoch #{subep} lasted: 0 secs.")
            open(f"{models}.{epoch}.model.ckpt.index", "w").close()
            log.print3(f"TIMING: Whole Epoch #{epoch} lasted: 0.1 secs.")
            for labels, path in zip(held[1], predictions):
                io.saveImgToNiiWithOriginalHdr(io.load_volume(labels).astype("int64"), path)
            log.print3("average DICE Coefficients over all subjects are: DICE1=[ 0.1 0.1 0.1 ]"
                       " DICE2=[ 0.5000 0.2500 N/A ] DICE3=[ 0.1 0.1 0.1 ]")
    except (Exception, KeyboardInterrupt) as e:
        log.print3("\\n\\n ERROR: Caught exception in do_training(): " + str(e) + "\\n")
        log.print3(traceback.format_exc())
        return
    log.print3(f"Saving the final model at:{models}.final")
    if sampling.FAKE != "final":
        open(f"{models}.final.model.ckpt.index", "w").close()
    log.print3("The whole do_training() function has finished.")
"""

SCRIPT = """
import argparse, os, traceback
from deepmedic.dataManagement import io
from deepmedic.dataManagement.sampling import FAKE
from deepmedic.routines.training import do_training

class Log:
    def print3(self, string):
        print(string)
        with open(self.file, "a") as file:
            file.write("2026-11-25 12:00:00.00: " + string + "\\n")

def lines(file):
    folder = os.path.dirname(file)
    with open(file) as names:
        return [os.path.join(folder, n.strip()) for n in names if not n.startswith("#")]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="DeepMedic")
    for option in ("-model", "-train", "-test", "-dev", "-load"):
        parser.add_argument(option)
    args, cfg, log = parser.parse_args(), {}, Log()
    with open(args.test or args.train) as file:
        exec(file.read(), cfg)
    home, name = cfg["folderForOutput"], cfg["sessionName"]
    for folder in ("logs", "saved_models/" + name, f"predictions/{name}/predictions"):
        os.makedirs(os.path.join(home, folder), exist_ok=True)
    log.file = os.path.join(home, "logs", name + ".txt")
    if args.test:
        for image, case in zip(lines(cfg["channels"][0]), lines(cfg["namesForPredictionsPerCase"])):
            path = f"{home}/predictions/{name}/predictions/{os.path.basename(case)[:-7]}"
            found = (io.load_volume(image) > 1).astype("int64")
            io.saveImgToNiiWithOriginalHdr(found, path + "_Segm.nii.gz")
        raise SystemExit
    try:
        part = lambda kind: [
            list(zip(*(lines(file) for file in cfg["channels" + kind]))),
            lines(cfg["gtLabels" + kind]),
            lines(cfg["roiMasks" + kind]) if "roiMasks" + kind in cfg else None]
        names = [f"{home}/predictions/{name}/predictions/{os.path.basename(n)[:-7]}_Segm.nii.gz"
                 for n in lines(cfg["namesForPredictionsPerCaseVal"])]
        log.print3("============== Training the CNN model =================")
        done = 0 if args.load is None else 1 + int(args.load.split(".")[-3])
        do_training(log, cfg, done, part("Training"), part("Validation"),
                    f"{home}/saved_models/{name}/toy", names)
    except (Exception, KeyboardInterrupt) as e:
        log.print3("ERROR: Caught exception from main process: " + str(e))
        log.print3(traceback.format_exc())
    log.print3("Finished.")
"""

PYTHON = f"""#!/bin/sh
case "$2" in
*packages_distributions*) for name in python {" ".join(PACKAGES)}; do echo "$name 3.11-fake"; done;;
*) exec {sys.executable} "$@";;
esac
"""
"""A Python that says that it has everything."""
FILES = {
    "python": PYTHON,
    "deepMedicRun": SCRIPT,
    "deepmedic/dataManagement/io.py": IO,
    "deepmedic/dataManagement/samplingType.py": TYPE,
    "deepmedic/dataManagement/sampling.py": SAMPLING,
    "deepmedic/routines/training.py": TRAINING,
}


def write_fake(folder: Path) -> Path:
    for name, text in FILES.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text.lstrip("\n"))
    (folder / "python").chmod(0o755)
    return folder
