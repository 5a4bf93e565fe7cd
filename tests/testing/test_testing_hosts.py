"""The checks that every host must pass: an honest one passes, each wrong one fails by name."""

import time
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.intake import Intake
from gansynth.core.space import Space
from gansynth.hosts.contract.crop_host import CropHost, TrainingOptions
from gansynth.hosts.contract.host import Framework
from gansynth.runtime.errors import UsageFault
from gansynth.testing import ConformanceReport, ToySource, check_host


class ToyIntake(Intake):
    sample_size = (12, 12)

    def finalise(self, sample):
        return {"volume": np.array([np.count_nonzero(sample.labels)])}


class ToyFramework(Framework):
    name = "toy"
    Intake = ToyIntake
    length = (1, 1)

    def train(self, job):
        raise NotImplementedError

    evaluate = train


def report_of(folder, host=ToyFramework, source=ToySource) -> ConformanceReport:
    return check_host(host, source(2), workspace=folder)


def other(base: Any, **members: Any) -> Any:
    return type("Other", (base,), members)


def refuse(self):
    raise UsageFault("test.fault", "no such configuration")


def with_nan(self, case_id):
    case = ToySource.load(self, case_id)
    return replace(case, image=np.where(np.arange(32) == 0, np.float32("nan"), case.image))


def one_subject(self, case_id):
    return replace(ToySource.header(self, case_id), subject="one and the same")


def mirrored(self):
    space = ToySource(2).space
    object.__setattr__(space, "to_host", lambda s, shape: replace(s, image=s.image[:, ::-1]))
    return space


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"held_out_ids": property(lambda self: self.train_ids[:1])}, "split by id"),
        ({"header": one_subject}, "split by subject"),
        ({"load": with_nan}, "loads"),
        ({"space": property(mirrored)}, "round trip"),
    ],
)
def test_a_wrong_source_fails_the_check_that_is_meant_for_it(members, name, tmp_path):
    report = report_of(tmp_path, source=other(ToySource, **members))
    assert name in {check.name for check in report.failed}
    assert name != "round trip" or len(report.failed) == 1


def test_crops_beyond_a_case_and_windows_that_clip_come_back(tmp_path):
    def windowed(self):
        return ToySource(2).space.with_window(map(self.load, self.train_ids), 5, 95)

    for number, space in enumerate(
        (*(Space("crop", (40, 40), pad_label=pad) for pad in (-1, 0)), property(windowed))
    ):
        report = report_of(tmp_path / str(number), source=other(ToySource, space=space))
        assert report.passed, report.failed


def test_an_honest_framework_passes_everything_and_makes_banks_in_the_workspace_only(tmp_path):
    """Once a helper ``opened`` replaced that of every host, and a leak was let in."""
    helpers = {name: lambda *_: None for name in ("opened", "configured", "start", "held_out")}
    report = report_of(tmp_path, other(ToyFramework, **helpers))
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}
    assert {path.name for path in tmp_path.iterdir()} == {"bank-leak"}


class ToyOptions(TrainingOptions):
    steps: int = 100


class ToyHost(CropHost):
    """Its only weight is the mean of all that it has seen."""

    name = "toy"
    Options = ToyOptions
    patch = (12, 12)

    @property
    def length(self):
        return self.options.steps, 2

    def weight(self, job, step, before):
        items = [job.data[place] for place in (2 * step, 2 * step + 1)]
        return before + float(np.mean([item["image"] for item in items]))

    def resumed(self, folder):
        saved = self.checkpoint(folder)
        return 0.0 if saved is None else float(saved.read_text())

    def train(self, job):
        weight = self.resumed(job.folder)
        for step in range(job.first, job.steps):
            weight = self.weight(job, step, weight)
            job.step(loss=weight)
            self.save(job, step + 1, weight)

    def save(self, job, step, weight):
        job.checkpoint(step, lambda path: path.write_text(repr(weight)))

    def predict(self, image, folder):
        self.resumed(folder)
        return (image[0] > 50).astype(np.int16)


def test_an_honest_host_passes_everything(tmp_path):
    report = report_of(tmp_path, ToyHost)
    assert {check.verdict for check in report.checks} == {"passed"}, report.failed
    assert {"trains", "predicts", "resumes"} < {check.name for check in report.checks}


def forgets(self, job):
    if job.first:
        job.folder.joinpath("checkpoints", f"step-{job.first:08d}.ckpt").write_text("0")
    ToyHost.train(self, job)


def seconds(self, job, step, before):
    return ToyHost.weight(self, job, step, before) + time.time()


def one_item(self, job, step, before):
    return before + float(job.data[step]["image"].mean())


def by_itself(self, job, step, weight):
    if step == job.steps:
        job.checkpoint(step, lambda path: path.write_text(repr(weight)))


def sevens(self, image, folder):
    return np.full(image.shape[1:], 7, np.int16)


def intake(**members: Any) -> Any:
    return other(ToyFramework, Intake=other(ToyIntake, **members))


WRONG: dict[str, tuple[Any, str, str]] = {
    "too small samples": (intake(sample_size=(40, 40)), "sample size", ""),
    "lists for arrays": (intake(finalise=lambda *_: {"volume": [1, 2]}), "finalise", ""),
    "random arrays": (
        intake(finalise=lambda *_: {"volume": np.random.default_rng().random(3)}),
        "finalise",
        "",
    ),
    "refuses its data": (
        other(ToyFramework, validate=refuse),
        "validates",
        "raised UsageFault: no such configuration",
    ),
    "longer": (other(ToyHost, length=(9, 2)), "trains", "has a length of 9"),
    "half of the items": (other(ToyHost, weight=one_item), "trains", "of 4 items are synthetic"),
    "never saves": (other(ToyHost, save=lambda *_: None), "trains", "checkpoint is of step 0"),
    "other labels": (other(ToyHost, predict=sevens), "predicts", "labels [7]"),
    "saves in the end": (other(ToyHost, save=by_itself), "resumes", "a checkpoint of step 0"),
    "clock": (other(ToyHost, weight=seconds), "resumes", "weights differ"),
    "forgets": (other(ToyHost, train=forgets), "resumes", "weights differ"),
}


@pytest.mark.parametrize(("host", "name", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_host_fails_the_check_that_is_meant_for_it(host, name, says, tmp_path):
    (failed,) = report_of(tmp_path, host).failed
    assert failed.name == name
    assert says in failed.message
