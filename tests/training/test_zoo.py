from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Phase, Stage, TrainingStep
from gansynth.report.figures import read_metrics
from gansynth.training.loop import FitOptions, train
from tests.expected import raises_fault
from tests.training.zoo.members import STEPS, ZOO, loop, member, newest, toy_batches


def run(name: str, folder: Path | None, changes=None, **options):
    """Train a fresh member of the zoo."""
    chosen = loop(name, **{"steps": STEPS.get(name, 8), **options})
    train(member(name, **(changes or {})), toy_batches(name), chosen, folder=folder)


def test_parts_of_a_batch_add_up_to_the_batch(tmp_path):
    """Up to rounding, by plain gradient descent: Adam does not mind the scale of gradients."""

    def descent(self, player, parameters):
        return torch.optim.SGD(parameters, lr=0.1)

    for parts in (1, 2):
        changes = {"optimizer": descent}
        run("wgan", tmp_path / str(parts), changes, accumulate=parts, batch_size=4, steps=2)
    whole, shared = (newest(tmp_path / str(parts)) for parts in (1, 2))
    for key in whole:
        if key.startswith("net/"):
            torch.testing.assert_close(shared[key], whole[key], rtol=1e-4, atol=1e-6)


def test_parts_meet_the_same_pool_as_the_batch(tmp_path):
    """The same labels exactly; images nearly, for each part moves a spectral norm's iteration."""
    for parts in (1, 2):
        run("mmgan", tmp_path / str(parts), accumulate=parts, batch_size=4)
    one, two = (newest(tmp_path / str(parts)) for parts in (1, 2))
    assert one["memory/pool/count"] == 4
    assert torch.equal(one["memory/pool/stored1"], two["memory/pool/stored1"])
    assert torch.allclose(one["memory/pool/stored0"], two["memory/pool/stored0"], atol=1e-2)


@pytest.mark.parametrize(
    ("decay", "begin", "rates"),
    [
        ("none", 0.5, [1, 1, 1, 1, 1, 1, 1, 1]),
        ("linear", 0.5, [1, 1, 1, 1, 1, 0.75, 0.5, 0.25]),
        ("linear", 0, [1, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]),
        ("cosine", 0.5, [1, 1, 1, 1, 1, 0.853553, 0.5, 0.1464466]),
    ],
)
def test_rates_fall_as_asked(decay, begin, rates):
    options = FitOptions(steps=8, decay=decay, decay_from=begin)
    assert [options.rate(index) for index in range(8)] == pytest.approx(rates)


def test_rates_of_all_players_fall(tmp_path):
    made: list[Any] = []
    seen: list[list[float]] = []

    def optimizer(self, player, parameters):
        made.append(ZOO["mmgan"].cls.optimizer(self, player, parameters))
        return made[-1]

    def paint(self, step):
        seen.append([one.param_groups[0]["lr"] for one in made])
        return ZOO["mmgan"].cls._paint(self, step)  # type: ignore[attr-defined]

    changes = {"_paint": paint, "optimizer": optimizer}
    run("mmgan", tmp_path, changes, decay="linear", decay_from=0, steps=4)
    assert read_metrics(tmp_path / "metrics.csv")["rate"] == pytest.approx([1, 0.75, 0.5, 0.25])
    assert np.array(seen) == pytest.approx(np.outer([1, 0.75, 0.5, 0.25], [1e-4, 4e-4]), rel=1e-5)


def test_a_stages_batch_that_cannot_be_shared_out_is_refused_before_training():
    steps = list[TrainingStep]()
    phase, stages = Phase("generator", steps.append), (Stage((4, 4), 4, 12), Stage((8, 8), 3))  # type: ignore[arg-type]
    changes = {"stages": lambda self: stages, "phases": lambda self: (phase,)}
    with raises_fault("distributed.batch-shares-not-equal"):
        run("cpggan", None, changes, accumulate=2)
    assert steps == []
