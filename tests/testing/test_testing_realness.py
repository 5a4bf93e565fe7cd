"""What ``check_generator`` asks of a discriminator's numbers: each kind of cheat fails."""
# mypy: disallow-untyped-calls=False

import re
from typing import Any

import pytest
import torch
from torch import nn

from gansynth.testing import check_generator
from tests.testing.test_testing import Honest


class Judged(Honest):
    """A discriminator of one number a case, with a layer that training would change."""

    def networks(self):
        net = nn.Sequential(nn.BatchNorm2d(2), nn.Flatten(), nn.LazyLinear(1))
        net(torch.zeros(2, 2, *self.size))
        return {"discriminator": net}

    def realness(self, batch, stage):
        with self.at_rest():
            return self.nets["discriminator"](batch.image)[:, 0]


class ByBatch(Judged):
    def realness(self, batch, stage):
        found = super().realness(batch, stage)
        return found - found.mean()


class ByPlace(Judged):
    def realness(self, batch, stage):
        found = super().realness(batch, stage)
        return found + torch.arange(len(found))


class NoneAtAll(Judged):
    def realness(self, batch, stage):
        return None


class OnePatch(Judged):
    def realness(self, batch, stage):
        return super().realness(batch, stage)[:, None]


class NotANumber(Judged):
    def realness(self, batch, stage):
        return super().realness(batch, stage) * torch.nan


class LeavesItsMode(Judged):
    def realness(self, batch, stage):
        found = super().realness(batch, stage)
        self.nets["discriminator"].eval()
        return found


class Learns(Judged):
    def realness(self, batch, stage):
        with torch.no_grad():
            self.nets["discriminator"](batch.image)  # moves the running statistics
        return super().realness(batch, stage)


class Chance(Judged):
    def realness(self, batch, stage):
        torch.rand(1)
        return super().realness(batch, stage)


def verdict(cls: type[Honest]) -> Any:
    report = check_generator(cls, ndim=(2,))
    assert [check.name for check in report.failed if check.name != "2d: realness"] == []
    return {check.name: check for check in report.checks}["2d: realness"]


def test_an_honest_discriminator_passes():
    assert verdict(Judged).verdict == "passed"


def test_one_that_cannot_be_asked_is_left_out():
    assert verdict(NoneAtAll).verdict == "skipped"


def test_of_a_generator_that_says_nothing_of_it_nothing_is_asked():
    assert "2d: realness" not in {check.name for check in check_generator(Honest, ndim=(2,)).checks}


@pytest.mark.parametrize(
    ("cheat", "said"),
    [
        (ByBatch, "one at a time"),
        (ByPlace, "differ"),
        (OnePatch, r"\(4, 1\) for 4 cases"),
        (NotANumber, "NaN"),
        (LeavesItsMode, "the mode of discriminator"),
        (Learns, "differ"),
        (Chance, "changed torch"),
    ],
    ids=lambda value: getattr(value, "__name__", "said"),
)
def test_a_cheat_is_named(cheat, said):
    found = verdict(cheat)
    assert found.verdict == "failed"
    assert re.search(said, found.message)
