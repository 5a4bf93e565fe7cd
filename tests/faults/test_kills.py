"""Rows 28 and 29: commands that are killed at any moment lose nothing."""

import csv
from pathlib import Path
from typing import Any

import pytest

from gansynth.runtime.files import read_json
from gansynth.training import checkpoint
from gansynth.training.loggers import CLOCKS
from gansynth_benchmark import tuning
from tests.adapters.kits import HOSTS, in_this_process, kit_of
from tests.benchmark.test_end_to_end import plan_in
from tests.conftest import content
from tests.faults.kills import Campaign, Outcome, run, write
from tests.training.zoo.members import newest

pytestmark = [pytest.mark.timeout(0), pytest.mark.filterwarnings("ignore")]
HERE = ("--executor", "here")
FEW = {"fit": 8, "augment": 2, "export": 4, "benchmark": 4, "tune": 4, "sample": 4, "cache": 4}
"""Kills of each command where ``--kills`` asks for no other number."""


@pytest.fixture
def killed(request, tmp_path):
    """Runs a campaign and writes down what became of it."""

    def campaign(what: Campaign) -> None:
        asked = dict(word.split("=") for word in request.config.getoption("--kills", []) or [])
        kind = what.name.partition(" ")[0]
        file = request.config.getoption("--kills-json", None)

        def note(outcome: Outcome) -> None:
            if file:
                write(Path(file), outcome)

        kills = int(asked.get(kind, FEW[kind]))
        assert run(what, kills, tmp_path / "killed", note).lost == []

    return campaign


def unreadable(folder: Path) -> list[str]:
    """Published checkpoints that do not load."""
    where = folder / "checkpoints"
    if not any(where.glob("step-*")):
        return []
    found = checkpoint.latest(where)
    return ["no checkpoint loads"] if found is None else list(map(str, found.passed_over))


def trained(folder: Path) -> Any:
    """Every tensor of the newest checkpoint, and every loss."""
    with (folder / "metrics.csv").open() as stream:
        rows = [{k: v for k, v in row.items() if k not in CLOCKS} for row in csv.DictReader(stream)]
    return {name: t.numpy().tobytes() for name, t in newest(folder).items()}, rows


@pytest.mark.slow
@pytest.mark.fault(28)
def test_a_fit_that_is_killed_goes_on_to_the_bit(toy_source, killed):
    own = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1, "precision": "fp32"}
    loop = {"steps": 40, "checkpoint_every": 4, "log_every": 1, "sample_every": 20, "batch_size": 1}
    settings = [f"--set={key}={value}" for key, value in (own | loop).items()]

    def words(folder: Path) -> list[str]:
        fit = ["fit", "cgan3d", "--data", "toy:2", "-o", str(folder), "--device", "cpu", "-q"]
        return [*fit, *settings]

    killed(Campaign("fit", words, trained, unreadable))


@pytest.mark.slow
@pytest.mark.fault(28)
@pytest.mark.parametrize("host", HOSTS)
def test_a_training_with_samples_that_is_killed_goes_on(
    request, tmp_path, killed, monkeypatch, host
):
    """To the bit where the loop is ours; nnU-Net and detectors go on as these do.

    What was trained on is counted once, whatever was drawn for steps that were lost.
    """
    in_this_process(monkeypatch)
    made = kit_of(host, tmp_path / "made", request.getfixturevalue)
    bank = made.bank()

    def words(folder: Path) -> list[str]:
        kit = kit_of(host, folder, request.getfixturevalue)
        return [*kit.words(*kit.where, "--bank", bank, *kit.lasting(4))]

    def result(folder: Path) -> Any:
        kit = kit_of(host, folder, request.getfixturevalue)
        sessions, files = kit.sessions(), content(kit.output)
        weights = {name: h for name, h in files.items() if name.endswith(".safetensors")}
        kinds = ("real", "synthetic", "fell_back")
        drawn = [sum(each["drawn"][kind] for each in sessions) for kind in kinds]
        return sessions[-1]["complete"], sessions[-1]["epochs"][1], drawn, weights

    killed(Campaign(f"augment {host}", words, result))


@pytest.mark.fault(29)
@pytest.mark.parametrize("host", [pytest.param("deepmedic", marks=pytest.mark.slow), "yolo"])
def test_an_export_that_is_killed_is_whole_or_absent(request, tmp_path, killed, host):
    """Not nnU-Net's: its writer, blosc2, waits for ever for threads that a fork does not copy."""
    bank = kit_of(host, tmp_path / "made", request.getfixturevalue).bank(samples=8)

    def kit(folder: Path) -> Any:
        return kit_of(host, folder, request.getfixturevalue)

    def result(folder: Path) -> Any:
        target, here = kit(folder).target, str(folder).encode()  # some files name where they lie
        files = (path for path in target.rglob("*") if path.is_file())
        return {
            str(path.relative_to(target)): path.read_bytes().replace(here, b"")
            for path in files
            if path.name not in ("manifest.json", "gansynth.json", "provenance.json")
        }

    words = lambda folder: [*kit(folder).export(bank)]  # noqa: E731
    killed(Campaign(f"export {host}", words, result, there=2))


WRITTEN = {
    "nifti": ("--sheet",),
    "hdf5": ("--format=hdf5",),
    "png": ("--format=png",),
    "sharing": ("--deidentify",),
}


@pytest.mark.fault(29)
@pytest.mark.parametrize(
    "format", [*(pytest.param(name, marks=pytest.mark.slow) for name in WRITTEN), "cache"]
)
def test_samples_and_caches_that_are_killed_are_whole_or_absent(toy_fit, tmp_path, killed, format):
    toy_fit(tmp_path / "run", steps=1)

    def words(folder: Path) -> list[str]:
        if format == "cache":
            folder.mkdir(exist_ok=True)
            return ["cache", "toy:2", "-o", str(folder / "toy.h5"), "-q"]
        asked = ["-n", "3", "--device", "cpu", "-o", str(folder / "out"), "-q"]
        return ["sample", str(tmp_path / "run"), *asked, *WRITTEN[format]]

    name = "cache" if format == "cache" else f"sample {format}"
    killed(Campaign(name, words, content))


@pytest.fixture
def jobs_here(monkeypatch):
    """Jobs of a study run in the process that is killed, one after the other."""
    in_this_process(monkeypatch)


def frozen_plan(home: Path) -> Path:
    """A plan whose samples are drawn once: what a live bank holds depends on speed."""
    arm = {"name": "copy-paste", "from": "copy-paste", "offline": "yes", "bank_size": "8"}
    return plan_in(home, "pictures", arm)


def scores(document: Any) -> Any:
    return [(run["arm"], run["status"], run["scores"]) for run in document["runs"]]


@pytest.mark.slow
@pytest.mark.fault(28)
def test_a_benchmark_that_is_killed_goes_on_to_the_same_scores(tmp_path, killed, jobs_here):
    plan = frozen_plan(tmp_path)
    words = lambda folder: ["benchmark", str(plan), "-o", str(folder), *HERE]  # noqa: E731
    killed(Campaign("benchmark", words, lambda folder: scores(read_json(folder / "results.json"))))


@pytest.mark.slow
@pytest.mark.fault(28)
def test_a_choice_that_is_killed_goes_on_to_the_same_one(tmp_path, killed, jobs_here):
    plan = frozen_plan(tmp_path)

    def result(folder: Path) -> Any:
        found = read_json(folder / tuning.CHOICE)
        return found["chosen"], [rung["scores"] for rung in found["rungs"]]

    words = lambda folder: ["tune", str(plan), "-o", str(folder), *HERE]  # noqa: E731
    killed(Campaign("tune", words, result))
