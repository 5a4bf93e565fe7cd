"""What ``fit`` says of the label maps that a generator draws itself."""
# mypy: disallow-untyped-calls=False

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gansynth.core.generator import Generator
from gansynth.core.hookspecs import hookimpl
from gansynth.core.registry import installed
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest
from gansynth.data.label_statistics import LabelPriors
from gansynth.fitting.label_report import report_label_maps, warn_of_label_maps
from gansynth.fitting.setup import OBSERVED, open_folder, resolve
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.run import Run
from gansynth.testing import ToySource
from tests.recorder import Recorder


class Copier(Generator):
    """Draws noise, and with it label maps of its training cases as they are."""

    name = "copier"
    labelling: Any = "drawn"

    def networks(self):
        return {}

    def phases(self):
        return ()

    def observe(self, cases):
        self.maps = [case.labels for case in cases]
        self.priors = LabelPriors.fit(self.maps, self.schema)

    def drawn(self, labels):
        return labels

    def flaw(self, sample):
        return self.priors.flaw(sample.labels)

    def sample(self, conditions, seeds):
        made = []
        for condition, seed in zip(conditions, seeds, strict=True):
            rng = np.random.default_rng(seed)
            labels = self.drawn(self.maps[int(rng.integers(len(self.maps)))])
            image = rng.normal(size=(2, *self.size)).astype(np.float32)
            made.append(Sample(image, labels, None, condition.provenance))
        return made


class Forgetter(Copier):
    """Never draws label 2."""

    name = "forgetter"

    def drawn(self, labels):
        return np.where(labels == 2, np.int16(0), labels)


class Filler(Copier):
    """Draws label 1 all over."""

    name = "filler"

    def drawn(self, labels):
        return np.ones_like(labels)


class Asked(Copier):
    """Is asked for its label maps."""

    name = "asked"
    labelling = "asked"


@pytest.fixture
def reported(toy_source, tmp_path):
    """What is reported of a generator after it has observed, and what was said: by its class."""

    def report(cls):
        @hookimpl
        def register_generators(register):
            register(cls.name, lambda: cls)

        installed().add(SimpleNamespace(register_generators=register_generators), cls.name)
        try:
            job = resolve(cls.name, SourceRequest("toy", "2"), {}, None, "cpu")
        finally:
            installed().remove(cls.name)
        (tmp_path / "run").mkdir()
        manifest = open_folder(job, tmp_path / "run", False, NullReporter())
        recorder = Recorder()
        return report_label_maps(job, Run(tmp_path, job.generator, manifest), recorder), recorder

    return report


def test_label_maps_as_those_of_training_raise_no_warning(reported):
    report, recorder = reported(Copier)
    found = json.loads(json.dumps(report["label_maps"]))
    assert (found["warnings"], found["flawed"], recorder.warned) == ([], 0.0, [])
    cases = map(ToySource(2).load, ToySource(2).train_ids)
    areas = [np.count_nonzero(case.labels == 1) for case in cases]
    assert found["labels"]["one"]["training"]["area"] == np.median(areas)


def test_a_line_for_each_label_is_said(reported):
    said = reported(Copier)[1].said
    assert [text.partition(":")[0].removeprefix("label maps, ") for text in said] == [
        *("one", "two", "outside")
    ]
    assert said[0].startswith("label maps, one: samples in 100%, ")


def test_a_label_that_is_never_drawn_is_warned_of(reported):
    warned = reported(Forgetter)[1].warned
    assert warned[0].startswith("label maps: label 2 (two) is in 0% of 64 samples, expected about")


def test_many_flawed_samples_are_warned_of_with_the_reason(reported):
    report, recorder = reported(Filler)
    assert report["label_maps"]["flaws"] == {"label # (one) covers # voxels": 64}
    assert "100% of 64 samples have a flaw" in recorder.warned[-1]
    assert "64 times label # (one) covers # voxels" in recorder.warned[-1]


@pytest.mark.parametrize("cls", [Filler, Forgetter])
def test_who_uses_the_run_is_warned_in_the_same_words(reported, tmp_path, cls):
    warned, again = reported(cls)[1].warned, Recorder()
    warn_of_label_maps(tmp_path, again)
    assert again.warned == warned
    assert warned


def test_a_generator_that_is_asked_for_labels_has_no_such_report(reported):
    assert reported(Asked)[0] == {}


def test_a_generator_of_label_maps_observes_many_slices_of_few_volumes(toy_nnunet):
    request = toy_nnunet.request(configuration="2d")
    job = resolve("dcgan", request, {"with_mask": "yes"}, None, "cpu")
    found = list(job.observed(np.random.default_rng(0)))
    assert len(found) == OBSERVED > len(job.source.train_ids)
    assert len({case.labels.tobytes() for case in found if case.labels is not None}) > 20


def test_cases_that_are_one_crop_are_observed_once(toy_source):
    job = resolve("dcgan", SourceRequest("toy", "2"), {"with_mask": "yes"}, None, "cpu")
    assert len(list(job.observed(np.random.default_rng(0)))) == len(job.source.train_ids)
