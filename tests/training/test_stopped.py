"""Trainings that are told to stop, or killed: they go on from there as if they had never ended."""
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
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loop import train
from tests.processes import until
from tests.training.zoo.members import STEPS, differing, loop, member, newest, toy_batches

ROOT = Path(__file__).parents[2]


class Child:
    """A training in a process of its own."""

    def __init__(self, server: "subprocess.Popen[str]", out: Path, slow: Any, asked: Any) -> None:
        self.server, self.out = server, out
        self.mark, self.stderr = out.with_suffix(".slow"), out.with_suffix(".stderr")
        self.mark.unlink(missing_ok=True)
        files = {"stdout": str(out.with_suffix(".stdout")), "stderr": str(self.stderr)}
        self.pid = int(self._ask({**asked, **files, "slow": {"mark": str(self.mark), **slow}}))

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


# Of MM-GAN with its pool full; of cpggan within its second fade.
@pytest.mark.fault(28)
@pytest.mark.slow
@pytest.mark.parametrize("name", ["mmgan", "cpggan"])
def test_killed_again_and_again_a_run_ends_as_if_never_killed(server, tmp_path, name):
    """In a step, with a checkpoint half written, and before old checkpoints are dropped."""
    steps = STEPS.get(name, 12)

    def start(folder: str, where: str = "", at: int = 0) -> Child:
        out, every = tmp_path / folder, 100 if folder == "whole" else 2
        asked = {"name": name, "folder": str(out), "steps": steps, "checkpoint_every": every}
        return Child(server, out, {"where": where, "at": at}, {"learn": asked})

    for where, at in (("step", steps - 5), ("torn", steps - 4), ("old", steps - 2)):
        child = start("killed", where, at)
        until(child.mark.exists)
        child.tell(signal.SIGKILL)
        assert child.end() == -signal.SIGKILL
        torn = [path.name for path in (child.out / "checkpoints").glob(".step-*")]
        assert bool(torn) == (where == "torn")
        assert len(child.saved()) == 2 + (where == "old")
    child, whole = start("killed"), start("whole")
    assert (child.end(), whole.end()) == (0, 0)
    assert differing(newest(child.out), newest(whole.out)) == []
    assert [path.name[:5] for path in (child.out / "checkpoints").iterdir()] == ["step-"] * 2
    assert read_metrics(child.out / "metrics.csv")["step"] == list(range(1, steps + 1))


@pytest.mark.fault(28)
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


@pytest.fixture
def fit(server, tmp_path) -> Callable[..., Child]:
    """Starts ``gansynth fit``: ``fit("run", steps=20)``."""

    def start(name: str, slow: str = "", **settings: Any) -> Child:
        chosen = {"steps": 100_000, "batch_size": 2, "precision": "fp32", "log_every": 1}
        chosen |= {"checkpoint_every": 1000, "sample_every": 100_000, **settings}
        words = [f"--set={key}={value}" for key, value in chosen.items()]
        run = ["fit", "zoo_slow", "--data", "zoo:16", "--device", "cpu", "-q", "-o"]
        asked = {"arguments": [*run, str(tmp_path / name), *words]}
        return Child(server, tmp_path / name, {"where": slow}, asked)

    return start


@pytest.mark.fault(30)
@pytest.mark.slow
def test_a_run_told_to_stop_checkpoints_the_very_step_and_goes_on_to_the_bit(fit):
    reading = fit("run", "read")
    until(reading.mark.exists)
    reading.tell(signal.SIGTERM)
    assert reading.stopped() == 143
    assert reading.saved() == []

    run = fit("run")
    until(lambda: run.steps() >= 5)
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


@pytest.mark.fault(30)
@pytest.mark.slow
def test_ctrl_c_gives_up_a_preview_for_the_checkpoint(fit):
    run = fit("run", "preview", sample_every=5)
    until(run.mark.exists)
    run.tell(signal.SIGINT)
    assert run.stopped() == 130
    assert run.saved() == [0, 5]


@pytest.mark.slow
def test_the_second_signal_ends_it_at_once(fit):
    run = fit("run", "step", checkpoint_every=3)
    until(run.mark.exists)
    run.tell(signal.SIGTERM)
    time.sleep(SAME_REQUEST + 0.2)  # later, it is another request
    run.tell(signal.SIGTERM)
    assert run.stopped() == 143
    assert run.saved() == [0, 3]


def stopped_by(folder: Path, **callbacks: Any) -> None:
    """Train until a callback has had a signal sent to this process."""
    options = loop("mmgan", steps=12, decay="none", sample_every=5, checkpoint_every=100)
    with stop_request() as stop:
        calls = TrainingCallbacks(stop=stop, **callbacks)
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


@pytest.mark.fault(30)
def test_one_request_may_come_as_two_signals_and_draws_no_preview_first(tmp_path):
    """From a scheduler to all processes, and again from the parent that passes it on."""
    drawn: list[int] = []

    def metrics(step, values):
        if step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    stopped_by(tmp_path, metrics=metrics, preview=drawn.append)
    assert (tmp_path / "checkpoints" / "step-00000005").is_dir()
    assert drawn == []
