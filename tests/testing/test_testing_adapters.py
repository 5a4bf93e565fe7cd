"""The checks that every adapter must pass: an honest one passes, each wrong one fails by name."""
# mypy: disallow-untyped-calls=False

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.bank.reader import BankReader
from gansynth.core.adapter import Adapter
from gansynth.core.ratio import Ratio
from gansynth.core.space import Space
from gansynth.hosts.checks import check_mixing
from gansynth.hosts.mixer import Mixer
from gansynth.runtime.errors import UsageFault
from gansynth.testing import ConformanceReport, ToySource, check_adapter


class Mixed:
    def __init__(self, real, plan, batch_size):
        self.real, self.mixer, self.batch_size = real, Mixer(plan), batch_size
        self.reader = BankReader(plan.bank, rescan_seconds=0)

    def __getitem__(self, index):
        slot = self.mixer.slot(index, self.batch_size)
        if slot.sample is not None:
            return slot.sample.image, slot.sample.labels
        return self.real[index % len(self.real)]


class ToyAdapter(Adapter):
    name = "toy"
    mixed: Any = Mixed

    @property
    def sample_size(self):
        return (12, 12)

    def finalise(self, sample):
        return {"volume": np.array([np.count_nonzero(sample.labels)])}

    def validate(self):
        pass

    def check(self, request):
        check_mixing(self, request.mix_config)

    def start(self, request):
        raise NotImplementedError


def report_of(folder, adapter=ToyAdapter, source=ToySource) -> ConformanceReport:
    cases = [ToySource(2).load(i) for i in ToySource(2).train_ids]
    return check_adapter(
        adapter(source(2)),
        workspace=folder,
        dataset=lambda plan: adapter.mixed(
            [(c.image.copy(), np.array(c.labels)) for c in cases], plan, 2
        ),
        draw=lambda data, slot: data[slot],
    )


def other(base: Any, **members: Any) -> Any:
    return type("Other", (base,), members)


def mixing(**methods: Any) -> Any:
    """An adapter whose data set differs in some methods."""
    return other(ToyAdapter, mixed=other(Mixed, **methods))


def by_other_batches(self, real, plan, batch_size):
    """Right on average, but by batches of its own."""
    Mixed.__init__(self, real, plan, batch_size + 1)


def too_many(self, real, plan, batch_size):
    Mixed.__init__(self, real, replace(plan, ratio=Ratio(0, 1)), batch_size)


def raises_when_empty(self, index):
    if self.reader.count() == 0:
        raise RuntimeError("empty")
    return Mixed.__getitem__(self, index)


def raises_when_damaged(self, index):
    self.reader.draw(np.random.default_rng(0))
    return Mixed.__getitem__(self, index)


def gives_views(self, index):
    if not hasattr(self, "kept"):
        self.kept = Mixed.__getitem__(self, index)
    return self.kept


def refuse(self):
    raise UsageFault("no such configuration")


BANKS = {"data: empty bank", "data: vanished bank", "data: damaged bank"}
WRONG = {
    "other batches": (mixing(__init__=by_other_batches), {"data: ratio"}),
    "too many": (mixing(__init__=too_many), {"data: ratio", *BANKS}),
    "raises when empty": (mixing(__getitem__=raises_when_empty), BANKS - {"data: damaged bank"}),
    "raises when damaged": (mixing(__getitem__=raises_when_damaged), {"data: damaged bank"}),
    "gives views": (mixing(__getitem__=gives_views), {"data: copies", "data: ratio"}),
    "too small samples": (other(ToyAdapter, sample_size=(40, 40)), {"sample size"}),
    "lists for arrays": (
        other(ToyAdapter, finalise=lambda self, sample: {"volume": [1, 2]}),
        {"finalise"},
    ),
    "random arrays": (
        other(ToyAdapter, finalise=lambda *_: {"volume": np.random.default_rng().random(3)}),
        {"finalise"},
    ),
    "trusts": (other(ToyAdapter, check=lambda *_: None), {"refuses a leak"}),
    "refuses": (other(ToyAdapter, validate=refuse), {"validates"}),
}


@pytest.mark.parametrize(("adapter", "names"), WRONG.values(), ids=WRONG)
def test_a_wrong_adapter_fails_the_checks_that_are_meant_for_it(adapter, names, tmp_path):
    assert {check.name for check in report_of(tmp_path, adapter).failed} == names


def with_nan(self, case_id):
    case = ToySource.load(self, case_id)
    return replace(case, image=np.where(np.arange(32) == 0, np.float32("nan"), case.image))


def mirrored(self):
    space = ToySource(2).space
    object.__setattr__(space, "to_host", lambda s, shape: replace(s, image=s.image[:, ::-1]))
    return space


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"held_out_ids": property(lambda self: self.train_ids[:1])}, "split by id"),
        ({"subject": lambda self, case_id: "one and the same"}, "split by subject"),
        ({"load": with_nan}, "loads"),
        ({"space": property(mirrored)}, "round trip"),
    ],
)
def test_a_wrong_source_fails_the_check_that_is_meant_for_it(members, name, tmp_path):
    report = report_of(tmp_path, source=other(ToySource, **members))
    assert name in {check.name for check in report.failed}
    assert name != "round trip" or len(report.failed) == 1


@pytest.mark.parametrize("pad", [-1, 0])
def test_crops_beyond_a_case_are_padded_as_the_space_says(pad, tmp_path):
    space = Space("crop", (40, 40), pad_label=pad)
    report = report_of(tmp_path, source=other(ToySource, space=space))
    assert report.passed, report.failed


def test_what_a_check_raised_is_reported(tmp_path):
    report = report_of(tmp_path, WRONG["refuses"][0])
    assert report.failed[0].message == "raised UsageFault: no such configuration"


def test_an_honest_adapter_passes_everything_and_makes_banks_in_the_workspace_only(tmp_path):
    report = report_of(tmp_path)
    assert report.passed, report.failed
    assert {check.verdict for check in report.checks} == {"passed"}
    banks = ("leak", "ratio", "empty", "damaged", "vanished", "copies")
    assert {path.name for path in tmp_path.iterdir()} == {f"bank-{name}" for name in banks}


def test_a_window_may_clip_and_still_comes_back(tmp_path):
    def windowed(self):
        return ToySource(2).space.with_window(self.cases(), 5, 95)

    assert report_of(tmp_path, source=other(ToySource, space=property(windowed))).passed
