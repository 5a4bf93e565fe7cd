"""``gansynth augment --target segmenter`` with a live producer, in a process of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.processes import family, until


def command(run: Path, output: Path, *more: str) -> Sequence[str]:
    return (
        *(sys.executable, "-m", "gansynth_cli", "augment", "--target", "segmenter"),
        *("--data", "example:3d", "--generator", str(run), "--device", "cpu", "-o", str(output)),
        *("--set", "width=4", "--set", "levels=2", "--set", "device=cpu", "--set", "log_every=1"),
        *more,
    )


def scratch_of(pid: int) -> list[Path]:
    folders = (Path("/dev/shm"), Path("/tmp"))
    return [found for folder in folders for found in folder.glob(f"gansynth-*-{pid}-*")]


def record_of(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / "gansynth_session.json").read_text())
    return document


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_training_leaves_no_producer_and_no_bank(
    example_run, tmp_path, number, code
):
    output = tmp_path / "out"
    words = command(example_run, output, "--ratio", "1:1", "--set", "steps=100000")
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True, env=environ) as process:
        try:
            until(lambda: (output / "metrics.csv").exists())
            assert len(family(output)) == 2
            assert scratch_of(process.pid)
            process.send_signal(number)
            _, said = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == code, said
    assert "Traceback" not in said
    until(lambda: family(output) == [], 10)
    assert scratch_of(process.pid) == []
    document = record_of(output)
    assert not document["complete"]
    done = document["sessions"][-1]["epochs"][1]
    assert done > 0
    assert (output / "checkpoints" / f"step-{done:08d}").is_dir()


@pytest.mark.slow
def test_a_live_bank_feeds_it_at_the_ratio_asked_for(example_run, tmp_path):
    output = tmp_path / "out"
    words = command(example_run, output, "--ratio", "1:1", "--set", "steps=20", "--json")
    environ = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, capture_output=True, text=True, env=environ, check=False)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert (told["drawn_real"], told["drawn_synthetic"], told["fell_back"]) == (20, 20, 0)
    (session,) = record_of(output)["sessions"]
    drawn = session["drawn"]
    assert drawn["distinct_synthetic"] >= 16
    assert drawn["most_draws"] <= 2
    assert told["folder"] == str(output)
    assert set(told["metrics_on_real_cases"]["dice"]) >= {"foreground", "1"}
    assert record_of(output)["complete"]
    assert family(output) == []
