"""The watch on mode collapse: when it warns, when it is quiet, and what it leaves in the run."""
# mypy: disallow-untyped-calls=False

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from gansynth.core.capabilities import Capabilities, Input
from gansynth.core.generator import Generator, GeneratorOptions, Phase
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.fitting.mode_collapse import PATIENCE, DiversityMonitor, DiversityReading, collapsed
from gansynth.fitting.setup import open_folder, resolve
from gansynth.metrics.diversity import MeanSimilarity
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.run import Run
from gansynth.testing import ToySource
from tests.offered import offered
from tests.recorder import Recorder


class StubOptions(GeneratorOptions):
    begin: int = 1000
    end: int = 1000
    objective: str = "gan"
    condition: str = "none"
    kinds: int = 1


class Stub(Generator):
    """Draws real cases that nobody trains on; from ``begin`` steps until ``end``, one image."""

    name = "stub"
    Options: ClassVar[type[GeneratorOptions]] = StubOptions
    options: StubOptions

    def networks(self):
        self.unseen, net = ToySource(2, seed=7), nn.Linear(1, 1)
        net.register_buffer("count", torch.zeros((), dtype=torch.int64))
        return {"generator": net}

    @property
    def count(self) -> torch.Tensor:
        return self.nets["generator"].get_buffer("count")

    @property
    def capabilities(self):
        takes = {"foreground": frozenset[Input]({"foreground"})}
        taken, remedies = takes.get(self.options.condition, frozenset()), {"collapse": "more cases"}
        return Capabilities(taken, trains=True, remedies=remedies)

    def phases(self):
        loss = lambda step: {"loss": self.nets["generator"].get_parameter("weight").sum()}  # noqa: E731
        return (Phase("generator", loss, after=self.add),)

    def add(self):
        self.count.add_(1)

    def sample(self, conditions, seeds):
        o, drawn = self.options, []
        few = o.begin <= int(self.count) < o.end
        for seed in seeds:
            rng = np.random.default_rng(seed)
            kind = int(rng.integers(2 if o.condition == "foreground" else o.kinds))
            image = self.unseen.load(f"toy_{kind if few else rng.integers(16):02d}").image
            image = image + rng.normal(0, 0.01, image.shape).astype(np.float32)
            drawn.append(Sample(image, notes={"foreground": ("without", "with")[kind]}))
        return drawn


@pytest.fixture(autouse=True)
def stub(toy_source):
    with offered("stub", generators={"stub": Stub}):
        yield


class Watch:
    """A monitor, called without a fit around it."""

    def __init__(self, out: Path, name: str = "stub", **own: Any) -> None:
        settings = {"steps": "8", "batch_size": "4", **{k: str(v) for k, v in own.items()}}
        self.job = job = resolve(name, SourceRequest("toy", "2"), settings, None, "cpu")
        manifest = open_folder(job, out, True, NullReporter())
        self.told = Recorder()
        self.monitor = DiversityMonitor(job, Run(out, job.generator, manifest), self.told)

    def __call__(self, *steps: int) -> dict[str, float]:
        for step in steps:
            self.job.generator.nets["generator"].get_buffer("count").fill_(step)
            seen = self.monitor(step)
        return seen


@pytest.mark.fault(38)
def test_a_collapse_is_told_once_and_that_it_is_over(tmp_path):
    watch = Watch(tmp_path, begin=3, end=7)
    watch(*range(1, 9))
    (warning,), (end,) = watch.told.warned, watch.told.said
    assert warning.startswith("diversity: step 4, mean MS-SSIM of pairs of samples 1.00 +- 0.00")
    assert all(words in warning for words in ("1 different", "fit again with more cases"))
    assert "\n" not in warning
    assert end.startswith("diversity: step 7, ")
    assert end.endswith("the collapse is over")


def test_samples_like_real_ones_are_nothing_to_tell(tmp_path):
    watch = Watch(tmp_path)
    seen = watch(*range(1, 9))
    assert seen["diversity/samples"] == pytest.approx(seen["diversity/real"], abs=0.1)
    assert watch.told.warned == []
    assert watch.monitor.report(8)["samples"] == pytest.approx(seen["diversity/samples"], abs=1e-4)


def test_who_ends_alike_is_told_so_however_short_the_run(tmp_path):
    watch = Watch(tmp_path, begin=0)
    assert watch.monitor.report(1)["samples"] == pytest.approx(1, abs=0.01)
    (warning,) = watch.told.warned
    assert "too few steps" in warning


def test_one_image_for_each_kind_is_a_collapse(tmp_path, tmp_path_factory):
    """Two images, one with foreground: half of all pairs differ."""
    watch = Watch(tmp_path, begin=0, condition="foreground")
    assert watch(1)["diversity/samples"] > 0.99
    other = Watch(tmp_path_factory.mktemp("other"), begin=0, kinds=2)
    assert other(1)["diversity/samples"] < 0.9


COURSES: dict[str, tuple[list[float], list[int], float, int]] = {
    "a young one that gets better": (
        *([0.99, 0.97, 0.94, 0.9, 0.86, 0.8, 0.75, 0.7, 0.6, 0.5, 0.3], []),
        *(0.01, 0),
    ),
    "never better": ([0.99] * (PATIENCE + 2), [PATIENCE, PATIENCE + 1], 0.01, 0),
    "sheets follow closely": ([0.99] * 50, [], 0.01, 1000),
    "a chance": ([0.3, 0.9, 0.3, 0.9, 0.3], [], 0.01, 0),
    "late chance": ([*[0.3] * PATIENCE, 0.9, 0.3], [], 0.01, 0),
    "until almost all is regained": ([0.3, 0.9, 0.9, 0.4, 0.25, 0.4], [2, 3], 0.01, 0),
    "within the error": ([0.3, *[0.7] * 9], [], 0.3, 0),
}


@pytest.mark.parametrize(("samples", "told", "error", "steps"), COURSES.values(), ids=COURSES)
def test_a_collapse_is_a_lasting_loss_of_what_was_there(samples, told, error, steps):
    findings = [
        DiversityReading(number, MeanSimilarity(sample, error, 9), MeanSimilarity(0.2, 0.01, 9))
        for number, sample in enumerate(samples, 1)
    ]
    found = [n for n in range(len(findings)) if collapsed(findings[: n + 1], steps)]
    assert found == told


def lines(out: Path) -> list[str]:
    return (out / "diversity.csv").read_text().splitlines()


def test_a_run_that_goes_back_has_every_step_once_and_is_not_told_again(tmp_path):
    watch = Watch(tmp_path, begin=3)
    watch(1, 2, 3, 4, 5)
    whole = lines(tmp_path)
    assert whole[0] == "step,samples,samples_error,real,real_error"
    watch(3, 4, 5)
    assert lines(tmp_path) == whole
    again = Watch(tmp_path, begin=3)
    again(5, 6)
    assert again.told.warned == []
    watch(3)
    assert [line.partition(",")[0] for line in lines(tmp_path)] == ["step", "1", "2", "3"]


@pytest.mark.fault(38)
@pytest.mark.parametrize("looks", [True, False])
def test_a_fit_watches_and_reports_unless_told_not_to(tmp_path, looks):
    told, out = Recorder(), tmp_path / "run"
    settings = {"steps": "1", "sample_every": "1", "batch_size": "1", "begin": "0"}
    settings |= {} if looks else {"diversity": "0"}
    asked: dict[str, Any] = {"settings": settings, "edits": None, "device": "cpu"}
    report = fit("stub", SourceRequest("toy", "2"), out, **asked, reporter=told)
    assert len(told.warned) == looks
    if looks:
        assert len(lines(out)) == 2
        assert report["diversity"]["samples"] > 0.99 > report["diversity"]["real"]
    else:
        assert (report["diversity"], (out / "diversity.csv").exists()) == (None, False)
