import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest

from gansynth.core.run_folder import read_manifest
from gansynth.report.figures import read_metrics
from gansynth.runtime import signals
from gansynth.runtime.signals import Interrupted, stop_request
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loop import train
from tests.offered import offered
from tests.training.zoo.members import ZooSource, differing, loop, member, newest, toy_batches
from tests.training.zoo.paired import MMGAN


@pytest.fixture
def fit(run_cli, tmp_path):
    """``fit("run", "step", signal.SIGTERM)``: in its fifth step a fit is told to stop."""

    def start(name: str, where: str = "", *numbers: int, **settings: Any) -> Any:
        def tell(at: str) -> None:
            for number in numbers if at == where else ():
                os.kill(os.getpid(), number)

        class Told(MMGAN):
            name = "zoo_told"

            def _paint(self, step):
                if step.index == 4:
                    tell("step")
                return super()._paint(step)

        class Source(ZooSource):
            def load(self, case_id):
                tell("read")
                return super().load(case_id)

        chosen = {"batch_size": 2, "precision": "fp32", "log_every": 1, "diversity": 0}
        words = [f"--set={key}={value}" for key, value in {**chosen, **settings}.items()]
        fit = ("fit", "zoo_told", "--data", "zoo:16", "--device", "cpu", "-q", "-o")
        with offered("told", generators={"zoo_told": Told}, sources={"zoo": Source}):
            return run_cli(*fit, tmp_path / name, *words)

    return start


def saved(run: Path) -> list[int]:
    assert list(run.rglob(".*.tmp-*")) == []
    return sorted(int(path.name[5:]) for path in (run / "checkpoints").glob("step-*"))


@pytest.mark.fault(30)
def test_a_run_told_to_stop_checkpoints_the_very_step_and_goes_on_to_the_bit(fit, tmp_path):
    run = tmp_path / "run"
    stopped = fit("run", "step", signal.SIGTERM, steps=8)
    assert (stopped.exit_code, saved(run)) == (143, [0, 5])
    (line,) = stopped.stderr.splitlines()
    assert "stopped after step 5, which is checkpointed; type the same command again" in line
    assert read_manifest(run)["steps"] == 5
    assert [fit(name, steps=8).exit_code for name in ("run", "whole")] == [0, 0]
    assert differing(newest(run), newest(tmp_path / "whole")) == []
    assert read_metrics(run / "metrics.csv")["step"] == list(range(1, 9))


@pytest.mark.parametrize(
    ("where", "numbers", "code", "kept"),
    [("read", [signal.SIGTERM], 143, []), ("step", [signal.SIGINT] * 2, 130, [0, 3])],
    ids=["while cases are read", "at the second request"],
)
def test_it_ends_at_once(fit, tmp_path, monkeypatch, where, numbers, code, kept):
    monkeypatch.setattr(signals, "SAME_REQUEST", 0.0)
    stopped = fit("run", where, *numbers, steps=8, checkpoint_every=3)
    assert (stopped.exit_code, saved(tmp_path / "run")) == (code, kept)


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


def stopped_by(folder: Path, **callbacks: Any) -> None:
    """Train until a callback has had a signal sent to this process."""
    options = loop("mmgan", steps=12, decay="none", sample_every=5, checkpoint_every=100)
    with stop_request() as stop:
        calls = TrainingCallbacks(stop=stop, **callbacks)
        with pytest.raises(Interrupted):
            train(member("mmgan"), toy_batches("mmgan"), options, folder=folder, callbacks=calls)


@pytest.mark.fault(30)
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
