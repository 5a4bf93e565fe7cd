"""Rows 28 and 29: commands that are killed at any moment lose nothing."""

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from gansynth.training import checkpoint
from tests.faults.kills import Campaign, run, write
from tests.training.zoo.members import newest

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0), pytest.mark.filterwarnings("ignore")]
FEW = {"fit": 8, "augment": 8, "benchmark": 4}
"""Kills of each command where ``--kills`` asks for no other number."""


@pytest.fixture
def killed(request, tmp_path):
    """Runs a campaign and writes down what became of it."""

    def campaign(what: Campaign, share: int = 1) -> None:
        asked = dict(word.split("=") for word in request.config.getoption("--kills", []) or [])
        kind = what.name.partition(" ")[0]
        outcome = run(what, int(asked.get(kind, FEW[kind])) // share, tmp_path / "killed")
        if file := request.config.getoption("--kills-json", None):
            write(Path(file), outcome)
        assert outcome.lost == []

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
        rows = [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(stream)]
    return {name: t.numpy().tobytes() for name, t in newest(folder).items()}, rows


@pytest.mark.fault(28)
def test_a_fit_that_is_killed_goes_on_to_the_bit(toy_source, killed):
    own = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1, "precision": "fp32"}
    loop = {"steps": 40, "checkpoint_every": 4, "log_every": 1, "sample_every": 20, "batch_size": 1}
    settings = [f"--set={key}={value}" for key, value in (own | loop).items()]

    def words(folder: Path, again: bool) -> list[str]:
        fit = ["fit", "cgan3d", "--data", "toy:2", "-o", str(folder), "--device", "cpu", "-q"]
        return [*fit, *settings]

    killed(Campaign("fit", words, trained, unreadable))
