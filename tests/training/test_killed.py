"""Killed with SIGKILL at random moments, a run ends as if it had never been: to the bit."""
# mypy: disallow-untyped-calls=False

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gansynth.training.loop import train
from tests.training.zoo.killing import FIRST_KILL
from tests.training.zoo.members import loop, member

ROOT = Path(__file__).parents[2]


def killed(folder: Path, kills: int) -> tuple[str, list[dict[str, Any]]]:
    """Kill runs so many times; how to do it again, and what came of each run."""
    seed = random.SystemRandom().randrange(10**6)
    command = [
        sys.executable,
        "-m",
        "tests.training.zoo.killing",
        str(folder),
        str(seed),
        str(kills),
    ]
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    again = f"python -m tests.training.zoo.killing FOLDER {seed} {kills}"
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=280, cwd=ROOT, env=environment
    )
    assert done.returncode == 0, f"{again}\n{done.stderr}"
    return again, [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("kills", [5, pytest.param(60, marks=pytest.mark.slow)])
def test_killed_runs_end_as_if_never_killed(tmp_path, kills):
    again, runs = killed(tmp_path, kills)
    for run in runs:
        assert run["differing"] == [], f"{again}\n{run}"
        # A third is left where the kill came between the last one and the dropping of old ones.
        assert 2 <= len(run["checkpoints"]) <= 3, f"{again}\n{run}"
        assert all(name.startswith("step-") for name in run["checkpoints"]), f"{again}\n{run}"
        assert run["logged"], f"{again}\n{run}"
    assert sum(len(run["kills"]) for run in runs) >= kills
    seen = [(run["name"], k["newest"]) for run in runs for k in run["kills"]]
    # Mid-fade, and with a full pool; and, of many kills, some that left half a checkpoint.
    assert {"cpggan", "mmgan"} <= {name for name, newest in seen if newest in FIRST_KILL[name]}
    assert kills < 20 or any(k["torn"] for run in runs for k in run["kills"]), again


def test_a_start_that_is_gone_on_from_is_not_written_again(tmp_path):
    """Else a second kill could come while the only checkpoint is being replaced."""

    def killed(*key):
        raise KeyboardInterrupt

    seen = []
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train(member("wgan_gp"), killed, loop("wgan_gp"), folder=tmp_path)
        seen.append((tmp_path / "checkpoints" / "step-00000000").stat().st_ino)
    assert seen[0] == seen[1]
