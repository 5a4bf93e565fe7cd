"""The real DeepMedic: the checkout that GANSYNTH_DEEPMEDIC names, by GANSYNTH_DEEPMEDIC_PYTHON."""

import json
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.bank.draw_log import summarise
from gansynth.hosts.record import FILE
from gansynth.runtime.files import read_json
from gansynth_deepmedic import program
from tests.adapters.deepmedic.orders import BRIGHT, Training, run, training
from tests.conftest import content
from tests.deepmedic_sets import Toy
from tests.processes import family, until

pytestmark = [pytest.mark.deepmedic, pytest.mark.slow]
MODES = (-1, 0, 2)
PROBE = Path(__file__).with_name("probe.py")
AFFINE = {"affine": {"prob": 1.0, "max_rot_xyz": (40.0, 40.0, 40.0), "max_scaling": 0.1}}
NORMALISE = {
    "apply_to_all_channels": True,
    "apply_per_channel": None,
    "cutoff_percents": [5.0, 95.0],
    "cutoff_times_std": [3.0, 3.0],
    "cutoff_below_mean": True,
}


@pytest.fixture(scope="module")
def real() -> program.DeepMedicProgram:
    return program.find_program(None, None)


@pytest.fixture
def train(real) -> Callable[..., tuple[Training, str]]:
    """Trains to an exit code; what is served is written to ``served.jsonl``."""

    def run_it(folder: Path, code: int = 0, **asked: Any) -> tuple[Training, str]:
        made = training(folder, checkout=real.checkout, **asked)
        return made, ended(real, made, code)

    return run_it


def ended(real: program.DeepMedicProgram, made: Training, code: int = 0) -> str:
    """Train to an exit code: the line that says why it failed."""
    python, *launch = program.command(real, made.path)
    words = [python, str(PROBE), str(made.toy.folder / "served.jsonl"), *launch]
    done = run(words, program.environ_of(real))
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    if code:
        assert made.told("end") == []
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    return said[-1] if said else ""


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
            before = content(real.checkout)
            done[mode] = training(folder / "toy", mode=mode, val=2, checkout=real.checkout)
            ended(real, done[mode])
            assert content(real.checkout) == before
        return done[mode]

    return make


@pytest.mark.parametrize("mode", MODES)
def test_every_subepoch_has_the_ratio_the_classes_and_draws_of_its_own(trained, mode):
    made = trained(mode)
    jobs, given = made.told("job"), served(made)
    found = Counter((job["subepoch"], job["kind"]) for job in jobs)
    assert found == {(k, kind): n for k in range(3) for kind, n in (("real", 2), ("synthetic", 4))}
    assert {job["segments"] for job in jobs} == {10}
    counts = summarise(made.log)
    assert (counts.real, counts.synthetic, counts.fell_back) == (6, 12, 0)
    for job in given:
        assert all((value >= BRIGHT) == job["synthetic"] for value in job["centre"])
        assert set(job["middle"]) == {0, 1, 2}  # equal shares: also of a synthetic case
        assert job["as_stock"]  # to the bit what DeepMedic reads
    hashes = [one for job in given for one in job["hash"]]
    assert len({tuple(job["hash"]) for job in given}) == len(given) == 18
    # A voxel may be drawn twice of a small class.
    assert len(set(hashes)) > 0.9 * len(hashes)
    states = drawn_by(made.toy.folder / "served.jsonl")
    assert len(states) == states.total() == 3 * 18
    samples = [job["sample"] for job in jobs if job["sample"]]
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
        (1, True, {"augm_img_prms_tr": AFFINE}),
        (2, False, {}),
        (3, False, {"augm_img_prms_tr": AFFINE,
                    "proportionOfSamplesToExtractPerCategoryTraining": [0.0, 0.5, 0.5]}),
    ],
    ids=["foreground", "uniform", "whole", "per class"],
)  # fmt: skip
def test_other_ways_to_sample_and_to_augment(tmp_path, train, kind, roi, values):
    made, _ = train(tmp_path / "toy", roi=roi, values={"typeOfSamplingForTraining": kind, **values})
    jobs = served(made)
    assert len(jobs) == 18
    assert all(job["as_stock"] for job in jobs)
    assert {len(job["hash"]) for job in jobs} == {10}
    if "norm_zscore_prms" not in values:
        for job in jobs:
            assert all((value > 0.9 * BRIGHT) == job["synthetic"] for value in job["centre"])


NOWHERE = ("-dev", "cpu", "-load", "/nowhere/none.model.ckpt")
REFUSES = "rejects its configuration"


@pytest.mark.parametrize(
    ("code", "asked", "words"),
    [
        (5, {"mode": 0, "model": {"numberOfOutputClasses": 2}}, ["GT labels include value [2]"]),
        (5, {"mode": 2, "model": {"numberOfOutputClasses": 2}}, ["GT labels include value [2]"]),
        (2, {"values": {"typeOfLearningRateSchedule": None}}, [REFUSES, "LR_SCH_TYPE"]),
        (2, {"values": {"batchsize_train": None}}, [REFUSES, "batch"]),
        (5, {"arguments": NOWHERE}, ["DeepMedic failed"]),
    ],
    ids=["thread", "process", "assertion", "exit", "checkpoint"],
)
def test_a_failure_is_not_exit_0(tmp_path, train, code, asked, words):
    _, said = train(tmp_path / "toy", code, **asked)
    assert [word for word in words if word not in said] == []


def command(data: Toy, run: Path, output: Path, *more: object) -> list[str]:
    """``gansynth augment`` at 1:2 as a process of its own."""
    words = (
        *(sys.executable, "-m", "gansynth_cli", "augment", "--target", "deepmedic"),
        *("--data", f"deepmedic:{data.train}", "--ratio", "1:2", "--generator", run),
        *("--device", "cpu", "--bank-size", 8, "-o", output, "--json", *more),
        *("--", "-model", data.model, "-dev", "cpu"),
    )
    return [str(word) for word in words]


def document_of(output: Path) -> Any:
    return read_json(output / FILE)


@pytest.mark.parametrize(
    "more",
    [*(f"--set=processes={mode}" for mode in MODES), "--real-in-generator-space"],
)
def test_it_trains_on_the_fly_by_one_command(shared_deepmedic, crop_run, tmp_path, more):
    before, output = content(shared_deepmedic.folder), tmp_path / "out"
    done = run(command(shared_deepmedic, crop_run, output, "--set=epochs=1", more), {})
    assert done.returncode == 0, done.stderr
    said, document = json.loads(done.stdout), document_of(output)
    assert document["complete"]
    (session,) = document["sessions"]
    for one in session["per_subepoch"]:
        assert (one["cases_real"], one["cases_synthetic"], one["trained"]) == (2, 4, True)
        assert (one["segments_real"], one["segments_synthetic"]) == (20, 40)
    assert (said["drawn_real"], said["drawn_synthetic"], said["fell_back"]) == (6, 12, 0)
    assert said["metrics_on_real_cases"]["dice"].keys() >= {"1", "2"}
    assert session["versions"]["tensorflow"]
    assert list((output / "saved_models" / "toy").glob("*.final.*.index"))
    assert content(shared_deepmedic.folder) == before
    assert not family(output)
    assert not Path(json.loads((output / "gansynth_producer.json").read_text())["bank"]).exists()


def test_a_killed_training_leaves_nobody_and_is_gone_on_with(shared_deepmedic, crop_run, tmp_path):
    output, log = tmp_path / "out", tmp_path / "said"
    words = command(shared_deepmedic, crop_run, output, "--set=epochs=4")
    with log.open("w") as stream, subprocess.Popen(words, stdout=stream, stderr=stream) as process:
        try:
            reached = re.compile(r"^epoch: [23]/4 ", re.MULTILINE)
            until(lambda: bool(reached.search(log.read_text())) or process.poll() is not None)
            assert process.poll() is None, log.read_text()
        finally:
            process.kill()
    bank = Path(json.loads((output / "gansynth_producer.json").read_text())["bank"])
    until(lambda: not family(output))
    until(lambda: not bank.exists())
    assert not document_of(output)["complete"]
    assert run(words, {}).returncode == 0
    document = document_of(output)
    assert document["complete"]
    first, second = document["sessions"]
    assert second["epochs"] == [first["epochs"][1], 4]
    numbers = [one["subepoch"] for one in second["per_subepoch"]]
    assert numbers == list(range(3 * first["epochs"][1] + 1, 13))
