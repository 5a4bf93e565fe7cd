"""The real DeepMedic: the checkout that GANSYNTH_DEEPMEDIC names, by GANSYNTH_DEEPMEDIC_PYTHON."""

import itertools
import json
import os
import signal
import subprocess
from collections import Counter
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest

from gansynth.bank.draw_log import summarise
from gansynth_deepmedic import program
from tests.adapters.deepmedic.orders import BRIGHT, Training, run, training

pytestmark = [pytest.mark.deepmedic, pytest.mark.slow]
MODES = (-1, 0, 2)
PROBE = Path(__file__).with_name("probe.py")
AFFINE = {"prob": 1.0, "max_rot_xyz": (40.0, 40.0, 40.0), "max_scaling": 0.1}
NORMALISE = {
    "apply_to_all_channels": True,
    "apply_per_channel": None,
    "cutoff_percents": [5.0, 95.0],
    "cutoff_times_std": [3.0, 3.0],
    "cutoff_below_mean": True,
}


@pytest.fixture(scope="module")
def real() -> program.Program:
    if not os.environ.get(program.CHECKOUT):
        pytest.skip(f"{program.CHECKOUT} names no checkout of DeepMedic")
    return program.find_program(None, None)


def content(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file() and ".git" not in path.parts)
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in files}


def train(real: program.Program, made: Training) -> subprocess.CompletedProcess[str]:
    """Train to the end; what is served is written to ``served.jsonl``."""
    python, *launch = program.command(real, made.path)
    words = [python, str(PROBE), str(made.toy.folder / "served.jsonl"), *launch]
    return run(words, program.environ_of(real), seconds=240)


def served(made: Training) -> list[dict[str, Any]]:
    lines = (made.toy.folder / "served.jsonl").read_text().splitlines()
    return sorted(map(json.loads, lines), key=lambda job: (job["subepoch"], job["place"]))


def drawn_by(file: Path) -> Counter[str]:
    """States of the generator from which centres were drawn."""
    lines = Path(f"{file}.draws").read_text().splitlines()
    return Counter(json.loads(line)["state"] for line in lines)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, real) -> Callable[[int], Training]:
    """A training at 1:2 in one of the ways that DeepMedic samples."""
    done: dict[int, Training] = {}

    def make(mode: int) -> Training:
        if mode not in done:
            folder = tmp_path_factory.mktemp(f"real_{mode}")
            made = training(folder / "toy", mode=mode, val=2, checkout=real.checkout)
            before = content(real.checkout)
            ended = train(real, made)
            assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
            assert content(real.checkout) == before
            done[mode] = made
        return done[mode]

    return make


@pytest.fixture
def fails(tmp_path, real) -> Callable[..., str]:
    def fail(code: int, **asked: Any) -> str:
        made = training(tmp_path / "toy", checkout=real.checkout, **asked)
        ended = train(real, made)
        assert ended.returncode == code, ended.stdout[-3000:] + ended.stderr[-3000:]
        assert made.told("end") == []
        return [line for line in ended.stderr.splitlines() if line.startswith("error: ")][-1]

    return fail


# -- what is trained on ----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
def test_every_subepoch_has_the_ratio_in_cases_and_in_segments(trained, mode):
    made = trained(mode)
    jobs = made.told("job")
    found = Counter((job["subepoch"], job["kind"]) for job in jobs)
    wanted = {(k, kind): n for k in range(3) for kind, n in (("real", 2), ("synthetic", 4))}
    assert found == wanted
    assert {job["segments"] for job in jobs} == {10}
    counts = summarise(made.log)
    assert (counts.real, counts.synthetic, counts.fell_back) == (6, 12, 0)
    for job in served(made):
        assert all((value >= BRIGHT) == job["synthetic"] for value in job["centre"])


@pytest.mark.parametrize("mode", MODES)
def test_classes_are_sampled_as_ever(trained, mode):
    """Per class, equal shares: also of a synthetic case."""
    for job in served(trained(mode)):
        assert set(job["middle"]) == {0, 1, 2}


def test_real_cases_are_to_the_bit_what_deepmedic_reads(trained):
    assert all(job["as_stock"] for job in served(trained(-1)))


@pytest.mark.parametrize("mode", MODES)
def test_no_draw_is_repeated(trained, mode):
    jobs = [tuple(job["hash"]) for job in served(trained(mode))]
    assert len(set(jobs)) == len(jobs) == 18
    hashes = [one for job in jobs for one in job]
    # A voxel may be drawn twice of a small class.
    assert len(set(hashes)) > 0.9 * len(hashes)
    states = drawn_by(trained(mode).toy.folder / "served.jsonl")
    assert len(states) == states.total() == 3 * 18
    samples = [job["sample"] for job in trained(mode).told("job") if job["sample"]]
    assert len(set(samples)) > 0.7 * len(samples)


def test_all_ways_of_sampling_train_on_the_same_segments(trained):
    first, second, third = (served(trained(mode)) for mode in MODES)
    assert first == second == third


@pytest.mark.parametrize("mode", MODES)
def test_it_ends_with_checkpoints_predictions_and_dice(trained, mode):
    made = trained(mode)
    assert made.told("trained") == [0, 1, 2]
    assert set(made.told("epoch")) == {1}
    assert len(made.told("step")) == 3 * 60 // 5
    (end,) = made.told("end")
    assert set(end["dice"]) == {"foreground", "1", "2"}
    output = made.toy.folder / "output"
    assert len(list(output.glob("saved_models/toy/*.final.*.index"))) == 1
    predicted = sorted(output.glob("predictions/toy/predictions/*Segm.nii.gz"))
    assert len(predicted) == 2
    for path in predicted:
        assert set(np.unique(np.asanyarray(nib.load(path).dataobj))) <= {0, 1, 2}  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("kind", "roi", "values"),
    [
        (0, True, {"norm_zscore_prms": NORMALISE}),
        (1, True, {"augm_img_prms_tr": {"affine": AFFINE}}),
        (2, False, {}),
        (3, False, {"augm_img_prms_tr": {"affine": AFFINE},
                    "proportionOfSamplesToExtractPerCategoryTraining": [0.0, 0.5, 0.5]}),
    ],
    ids=["foreground", "uniform", "whole", "per class"],
)  # fmt: skip
def test_other_ways_to_sample_and_to_augment(tmp_path, real, kind, roi, values):
    wanted = {"typeOfSamplingForTraining": kind, **values}
    made = training(tmp_path / "toy", roi=roi, checkout=real.checkout, values=wanted)
    ended = train(real, made)
    assert ended.returncode == 0, ended.stdout[-3000:] + ended.stderr[-3000:]
    jobs = served(made)
    assert len(jobs) == 18
    assert all(job["as_stock"] for job in jobs)
    assert {len(job["hash"]) for job in jobs} == {10}
    if "norm_zscore_prms" not in values:
        for job in jobs:
            assert all((value > 0.9 * BRIGHT) == job["synthetic"] for value in job["centre"])


def test_a_training_goes_on(tmp_path, real):
    first = training(tmp_path / "a", epochs=1, subepochs=2, mode=0, checkout=real.checkout)
    assert train(real, first).returncode == 0
    (saved,) = (first.toy.folder / "output" / "saved_models" / "toy").glob("*.final.*.index")
    load = ("-dev", "cpu", "-load", str(saved).removesuffix(".index"))
    more = {"epochs": 2, "subepochs": 2, "mode": 0, "checkout": real.checkout}
    second = training(tmp_path / "b", done=1, arguments=load, **more)
    ended = train(real, second)
    assert ended.returncode == 0, ended.stderr
    assert second.told("trained") == [2, 3]
    whole = training(tmp_path / "c", **more)
    assert train(real, whole).returncode == 0
    both = [[job["hash"] for job in served(made)] for made in (first, second)]
    assert list(itertools.chain(*both)) == [job["hash"] for job in served(whole)]


# -- how it ends -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", [0, 2])
def test_a_failure_is_not_exit_0(fails, mode):
    said = fails(5, mode=mode, model={"numberOfOutputClasses": 2})
    assert "GT labels include value [2]" in said


@pytest.mark.parametrize(
    ("values", "word"),
    [({"typeOfLearningRateSchedule": None}, "LR_SCH_TYPE"), ({"batchsize_train": None}, "batch")],
    ids=["assertion", "exit"],
)
def test_a_configuration_that_it_refuses(fails, values, word):
    said = fails(2, values=values)
    assert "refuses its configuration" in said
    assert word in said


def test_a_checkpoint_that_is_not_there(fails, tmp_path):
    said = fails(5, arguments=("-dev", "cpu", "-load", str(tmp_path / "none.model.ckpt")))
    assert "DeepMedic failed" in said


@pytest.mark.parametrize("mode", MODES)
def test_a_signal_ends_it_and_all_that_it_forked(tmp_path, real, mode):
    made = training(tmp_path / "toy", mode=mode, subepochs=500, checkout=real.checkout)
    environ = {**os.environ, **program.environ_of(real), "PYTHONUNBUFFERED": "1"}
    child = subprocess.Popen(
        program.command(real, made.path),
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        assert child.stdout is not None
        for line in child.stdout:
            if "gansynth: " in line and "subepoch 2" in line:
                break
        workers = psutil.Process(child.pid).children(recursive=True)
        child.send_signal(signal.SIGTERM)
        child.stdout.close()
        assert child.wait(timeout=20) == 143
        assert psutil.wait_procs(workers, timeout=10)[1] == []
    finally:
        child.kill()
        child.wait()


# -- the contrast ----------------------------------------------------------------------------------


def test_stock_deepmedic_repeats_its_randomness(tmp_path, real):
    """What is cured: in forked processes every subepoch begins with the same random numbers."""
    made = training(tmp_path / "toy", mode=2, count=4, listed=0, segments=40, subepochs=4)
    written = tmp_path / "stock.jsonl"
    words = [str(real.python), str(PROBE), str(written), "--stock", str(real.checkout)]
    words += ["-model", str(made.toy.model), "-train", str(made.toy.train), "-dev", "cpu"]
    ended = run(words, program.environ_of(real))
    assert ended.returncode == 0, ended.stderr
    states = drawn_by(written)
    assert max(states.values()) >= 4
    assert len(states) < 0.6 * states.total()
