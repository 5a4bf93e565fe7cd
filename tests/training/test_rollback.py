import math

import pytest
import torch

from gansynth.report.figures import read_metrics
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loggers import MetricsLog
from gansynth.training.loop import train
from gansynth.training.state import PendingLosses
from tests.expected import raises_fault
from tests.offered import offered
from tests.recorder import Recorder
from tests.training.zoo.members import ZOO, ZooSource, differing, loop, member, newest, toy_batches
from tests.training.zoo.paired import MMGAN

RATE = 1e-4  # of MM-GAN's generator


class Ill(MMGAN):
    """An MM-GAN whose loss is not a number while ``ill(index)``; ``well`` at half its rate."""

    name = "zoo_ill"

    def optimizer(self, player, parameters):
        made = super().optimizer(player, parameters)
        if player == "generator":
            self.rates = made.param_groups[0]
        return made

    @property
    def well(self):
        return self.rates["lr"] < 0.6 * RATE

    def ill(self, index):
        return index == 5

    def _paint(self, step):
        terms = super()._paint(step)
        return {**terms, "l1": terms["l1"] * (math.nan if self.ill(step.index) else 1)}


class Killed(BaseException):
    """Stands for kill -9: nothing is written after it."""


def run(folder, generator=None, steps=12, **changes):
    """Train an MM-GAN that falls ill; the report, and what was warned of."""
    reporter, generator = Recorder(), generator or member("mmgan", Ill, **changes)
    callbacks = TrainingCallbacks(reporter=reporter)
    options, batches = loop("mmgan", steps=steps, decay="none"), toy_batches("mmgan")
    return train(generator, batches, options, folder=folder, callbacks=callbacks), reporter.warned


@pytest.mark.fault(38)
def test_a_run_that_recovers_at_half_the_rate_says_so_and_meets_other_noise(tmp_path):
    keys = []

    def note(self, step):
        keys.append((step.index, step.key))
        return Ill._paint(self, step)

    report, warned = run(tmp_path, ill=lambda self, i: i == 5 and not self.well, _paint=note)
    assert (report.rollbacks, report.steps, report.images) == (1, 12, 24)
    (warning,) = warned
    for said in ("l1 is nan at step 5", "back to step 4 at 0.5 of", "time 1 of 3"):
        assert said in warning
    metrics = read_metrics(tmp_path / "metrics.csv")
    assert metrics["step"] == list(range(1, 13))
    assert metrics["rate"] == [1.0] * 4 + [0.5] * 8
    assert all(v.isfinite().all() for v in newest(tmp_path).values())
    assert [index for index, _ in keys] == [0, 1, 2, 3, 4, 5, 4, 5, 6, 7, 8, 9, 10, 11]
    assert len({key for _, key in keys}) == len(keys)


@pytest.mark.fault(38)
def test_three_times_at_half_the_rate_and_then_it_gives_up(tmp_path):
    seen = []

    def always(self, index):
        if index == 5:
            seen.append(self.rates["lr"])
        return index == 5

    with raises_fault("training.numbers-not-finite") as caught:
        run(tmp_path, ill=always)
    assert seen == pytest.approx([RATE, RATE / 2, RATE / 4, RATE / 8])
    assert "metrics.csv" in str(caught.value)
    run(tmp_path / "well", steps=4, ill=lambda self, index: False)
    assert differing(newest(tmp_path), newest(tmp_path / "well")) == []


@pytest.mark.fault(28, 38)
@pytest.mark.parametrize(
    ("first", "later"), [(5, 4), (1, 0)], ids=["past a checkpoint", "at the start, at once"]
)
def test_killed_after_a_rollback_it_ends_as_if_never_killed(tmp_path, first, later):
    class Once(Ill):
        tries = 0
        mortal = False

        def ill(self, index):
            if index == first:
                self.tries += 1
            if self.mortal and self.tries > 1 and index == first + later:
                raise Killed
            return index == first and not self.well

    assert run(tmp_path / "whole", member("mmgan", Once))[0].rollbacks == 1
    with pytest.raises(Killed):
        run(tmp_path / "killed", member("mmgan", Once, mortal=True))
    run(tmp_path / "killed", member("mmgan", Once))
    assert differing(newest(tmp_path / "killed"), newest(tmp_path / "whole")) == []


def test_weights_that_are_ill_from_the_start_are_a_fault(tmp_path):
    generator = member("mmgan")
    with torch.no_grad():
        next(generator.nets["generator"].parameters()).fill_(math.nan)
    with raises_fault("training.start-not-finite"):
        run(tmp_path, generator)


@pytest.mark.fault(38)
def test_the_command_gives_up_with_the_curve_drawn_and_named(
    tmp_path, run_cli, whole_fits, one_line
):
    chosen = {"steps": 12, "batch_size": 2, "checkpoint_every": 4, "log_every": 1}
    settings = [f"--set={key}={value}" for key, value in {**chosen, **ZOO["mmgan"].loop}.items()]
    with offered("ill", generators={"zoo_ill": Ill}, sources={"zoo": ZooSource}):
        result = run_cli("fit", "zoo_ill", "--data", "zoo:16", "-o", tmp_path / "run", *settings)
    curves = tmp_path / "run" / "samples" / "curves.png"
    says = ["is nan at step 5 after 3 rollbacks", "precision=fp32", f"Drawn in {curves}"]
    one_line(result.exit_code, result.stderr, 5, says)
    assert result.stderr.count("of the learning rates") == 3
    assert curves.read_bytes().startswith(b"\x89PNG")
    assert "is nan at step 5 after 3 rollbacks" in (tmp_path / "run" / "card.md").read_text()


def test_losses_that_are_read_late_name_the_step_of_the_first_that_is_not_finite():
    log, losses = MetricsLog(None), PendingLosses()
    losses.add(3, "generator", ["l1"], torch.tensor([1.0]))
    losses.add(4, "generator", ["l1", "gan"], torch.tensor([3.0, math.inf]))
    losses.add(5, "generator", ["l1"], torch.tensor([math.nan]))
    assert losses.read_into(log) == "loss generator/gan is inf at step 4"
    assert losses.read_into(log) == ""
