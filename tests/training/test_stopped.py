"""``gansynth fit`` is told to stop: it checkpoints the very step, and goes on from there."""
# mypy: disallow-untyped-calls=False

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.run_folder import read_manifest
from gansynth.report.figures import read_metrics
from gansynth.runtime.signals import SAME_REQUEST, Interrupted, stop_request
from gansynth.training.checkpoint_manager import Callbacks
from gansynth.training.loop import train
from tests.training.zoo.members import differing, loop, member, newest, toy_batches

ROOT = Path(__file__).parents[2]
PATIENCE = 60.0


def wait_for(what: Callable[[], bool]) -> None:
    """Wait until something is so."""
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.005)


class Fit:
    """A ``gansynth fit`` in a process of its own."""

    def __init__(self, server: "subprocess.Popen[str]", out: Path, slow: str, settings: Any):
        self.server, self.out = server, out
        self.mark, self.stderr = out.with_suffix(".slow"), out.with_suffix(".stderr")
        loop = {"steps": 100_000, "batch_size": 2, "precision": "fp32", "log_every": 1}
        loop = {**loop, "checkpoint_every": 1000, "sample_every": 100_000, **settings}
        chosen = [f"--set={key}={value}" for key, value in loop.items()]
        fit = ["fit", "zoo_slow", "--data", "zoo:16", "--device", "cpu", "-q", "-o", str(out)]
        asked = {
            "arguments": [*fit, *chosen],
            "stdout": str(out.with_suffix(".stdout")),
            "stderr": str(self.stderr),
            "slow": {"where": slow, "mark": str(self.mark)},
        }
        self.pid = int(self._ask(asked))

    def _ask(self, asked: Any) -> str:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        print(json.dumps(asked), file=self.server.stdin, flush=True)
        return self.server.stdout.readline()

    def tell(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def end(self) -> int:
        """Wait for its end; the exit code."""
        return int(self._ask({"pid": self.pid}))

    def stopped(self) -> int:
        """The exit code of one that was told to stop; nothing is half-written."""
        code = self.end()
        assert list(self.out.rglob(".*.tmp-*")) == []
        return code

    def steps(self) -> int:
        """Lines of ``metrics.csv``: one a step."""
        path = self.out / "metrics.csv"
        return path.read_bytes().count(b"\n") - 1 if path.exists() else 0

    def saved(self) -> list[int]:
        """Steps that are checkpointed."""
        found = (self.out / "checkpoints").glob("step-*")
        return sorted(int(path.name[5:]) for path in found)


@pytest.fixture(scope="module")
def server() -> Iterator["subprocess.Popen[str]"]:
    """Has everything imported, and forks."""
    path = os.pathsep.join([str(ROOT), *sys.path])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    command, pipe = [sys.executable, "-m", "tests.training.zoo.command", "serve"], subprocess.PIPE
    with subprocess.Popen(
        command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


@pytest.fixture
def fit(server, tmp_path) -> Callable[..., Fit]:
    """Starts one: ``fit("run", steps=20)``."""

    def start(name: str, slow: str = "", **settings: Any) -> Fit:
        return Fit(server, tmp_path / name, slow, settings)

    return start


def test_a_run_told_to_stop_checkpoints_the_very_step_and_goes_on_to_the_bit(fit):
    reading = fit("run", "read")
    wait_for(reading.mark.exists)
    reading.tell(signal.SIGTERM)
    assert reading.stopped() == 143
    assert reading.saved() == []

    run = fit("run")
    wait_for(lambda: run.steps() >= 5)
    run.tell(signal.SIGTERM)
    assert run.stopped() == 143
    steps = run.steps()
    assert run.saved() == [0, steps]
    (line,) = run.stderr.read_text().splitlines()
    assert f"stopped by a signal after step {steps}, which is checkpointed" in line
    assert read_manifest(run.out)["steps"] == steps

    wanted, again = fit("wanted", steps=steps + 5), fit("run", steps=steps + 5)
    assert (again.end(), wanted.end()) == (0, 0)
    assert differing(newest(again.out), newest(wanted.out)) == []
    assert read_metrics(run.out / "metrics.csv")["step"] == list(range(1, steps + 6))


def test_ctrl_c_gives_up_a_preview_for_the_checkpoint(fit):
    run = fit("run", "preview", sample_every=5)
    wait_for(run.mark.exists)
    run.tell(signal.SIGINT)
    assert run.stopped() == 130
    assert run.saved() == [0, 5]


def test_the_second_signal_ends_it_at_once(fit):
    run = fit("run", "step", checkpoint_every=3)
    wait_for(run.mark.exists)
    run.tell(signal.SIGTERM)
    time.sleep(SAME_REQUEST + 0.2)
    run.tell(signal.SIGTERM)
    assert run.stopped() == 143
    assert run.saved() == [0, 3]


# -- in this process -------------------------------------------------------------------------------


def stopped_by(folder: Path, **callbacks: Any) -> None:
    """Train until a callback has had a signal sent to this process."""
    options = loop("mmgan", steps=12, decay="none", sample_every=5, checkpoint_every=100)
    with stop_request() as stop:
        calls = Callbacks(stop=stop, **callbacks)
        with pytest.raises(Interrupted):
            train(member("mmgan"), toy_batches("mmgan"), options, folder=folder, callbacks=calls)


def test_live_weights_are_checkpointed_when_a_preview_is_given_up(tmp_path):
    def preview(step):
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(1000)

    stopped_by(tmp_path / "stopped", preview=preview)
    options = loop("mmgan", steps=5, decay="none")
    train(member("mmgan"), toy_batches("mmgan"), options, folder=tmp_path / "plain")
    assert differing(newest(tmp_path / "stopped"), newest(tmp_path / "plain")) == []


def test_one_request_may_come_as_two_signals(tmp_path):
    """From a scheduler to all processes, and again from the parent that passes it on."""

    def metrics(step, values):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    stopped_by(tmp_path, metrics=metrics)
    assert (tmp_path / "checkpoints" / "step-00000003").is_dir()


def test_who_was_told_to_stop_draws_no_preview_first(tmp_path):
    drawn: list[int] = []

    def metrics(step, values):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    stopped_by(tmp_path, metrics=metrics, preview=drawn.append)
    assert drawn == []
