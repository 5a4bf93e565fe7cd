from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from torch import nn

from gansynth.core.capabilities import Capabilities, Input
from gansynth.core.generator import Generator, GeneratorOptions, Phase
from gansynth.core.schema import Sample
from gansynth.testing import ToySource
from tests.offered import offered
from tests.recorder import Recorder


class StubOptions(GeneratorOptions):
    condition: str = "none"
    kinds: int = 16


class Stub(Generator):
    """Draws so many of 16 real cases that nobody trains on."""

    name = "stub"
    Options: ClassVar[type[GeneratorOptions]] = StubOptions
    options: StubOptions

    def networks(self):
        self.unseen = ToySource(2, seed=7)
        return {"generator": nn.Linear(1, 1)}

    @property
    def capabilities(self):
        takes = {"foreground": frozenset[Input]({"foreground"})}
        taken, remedies = takes.get(self.options.condition, frozenset()), {"collapse": "more cases"}
        return Capabilities(taken, trains=True, remedies=remedies)

    def phases(self):
        loss = lambda step: {"loss": self.nets["generator"].get_parameter("weight").sum()}  # noqa: E731
        return (Phase("generator", loss),)

    def sample(self, conditions, seeds):
        drawn = []
        for seed in seeds:
            rng = np.random.default_rng(seed)
            kind = int(rng.integers(self.options.kinds))
            image = self.unseen.load(f"toy_{kind:02d}").image
            image = image + rng.normal(0, 0.01, image.shape).astype(np.float32)
            drawn.append(Sample(image, notes={"foreground": ("without", "with")[kind % 2]}))
        return drawn


@pytest.fixture
def told_of(toy_fit):
    """``told_of(out, **own)``: what a fit of one step reports, and its warnings."""

    def run(out: Path, diversity: int = 32, **own: Any) -> tuple[Any, list[str]]:
        told, asked = Recorder(), {"generator": "stub", "own": own, "edits": None}
        with offered("stub", generators={"stub": Stub}):
            report = toy_fit(out, **asked, steps=1, diversity=diversity, reporter=told)
        return report["diversity"], told.warned

    return run


@pytest.mark.fault(38)
def test_a_fit_that_ends_with_samples_alike_is_told_so(told_of, tmp_path):
    found, (warning,) = told_of(tmp_path, kinds=1)
    assert found["samples"] > 0.99 > found["real"]
    assert warning.startswith("diversity: mean MS-SSIM of pairs of samples 1.00 +- 0.00")
    assert all(words in warning for words in ("1 different", "fit again with more cases"))
    assert "\n" not in warning


def test_samples_like_real_ones_are_nothing_to_tell(told_of, tmp_path):
    found, warned = told_of(tmp_path)
    assert found["samples"] == pytest.approx(found["real"], abs=0.1)
    assert warned == []


def test_one_image_for_each_kind_is_a_collapse(told_of, tmp_path):
    """Two images, one with foreground: half of all pairs differ."""
    assert told_of(tmp_path / "kinds", kinds=2, condition="foreground")[0]["samples"] > 0.99
    assert told_of(tmp_path / "other", kinds=2)[0]["samples"] < 0.9


@pytest.mark.fault(38)
def test_nothing_is_compared_where_it_is_turned_off(told_of, tmp_path):
    assert told_of(tmp_path, kinds=1, diversity=0) == (None, [])
