"""``check_metric`` and ``check_source``: each breach is found."""

import itertools
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
import pytest
from threadpoolctl import threadpool_info

from gansynth import (
    Metric,
    Quantity,
    SourceRequest,
    ToySource,
    UsageFault,
    check_metric,
    check_source,
)


class Means(Metric):
    """Means of the channels; the parts of a breach are class attributes."""

    name = "means"
    shift: Any = itertools.repeat(0)
    words: ClassVar[str] = "mean"
    writes = False

    def compute(self, samples, real, schema):
        if self.writes:
            samples[0].image[:] = 0
        means = np.mean([sample.image.mean() for sample in samples])
        return {"mean": float(means) + next(self.shift)}

    def quantity(self, name):
        return Quantity(self.words, "real")


def nothing(self, samples, real, schema):
    return {"mean": float("nan")}


def constant(self, samples, real, schema):
    return {"mean": 1.0}


@pytest.mark.parametrize(
    ("members", "failed"),
    [
        ({}, set()),
        ({"compute": nothing}, {"gives named numbers"}),
        ({"compute": constant}, {"tells samples apart"}),
        ({"shift": itertools.count()}, {"same numbers twice"}),
        ({"words": ""}, {"says what they are"}),
        ({"writes": True}, {"images untouched"}),
    ],
)
def test_each_breach_of_a_metric_is_found(members, failed):
    report = check_metric(type("Breach", (Means,), members), ndim=(2,))
    assert {check.name.removeprefix("2d: ") for check in report.failed} >= failed
    assert report.passed == (not failed)


COUNT = itertools.count()


class Toys(ToySource):
    """Toy cases of a request, as a plugin opens them."""

    def __init__(self, request: SourceRequest) -> None:
        super().__init__(2)
        self.request = request
        if request.where != "toys":
            raise UsageFault(
                "test.fault", f"--data {request.where}: no such toys, expected toys:toys"
            )


def other_again(self, case_id):
    case = ToySource.load(self, case_id)
    return replace(case, image=case.image + next(COUNT))


def opens_anything(self, request):
    ToySource.__init__(self, 2)
    self.request = request


def _threads() -> int:
    return max([pool["num_threads"] for pool in threadpool_info()], default=1)


def threads_added(self, case_id):
    case = ToySource.load(self, case_id)
    return replace(case, image=case.image + _threads())


@pytest.mark.parametrize(
    ("members", "failed"),
    [
        ({}, set()),
        pytest.param(
            {"load": threads_added},
            {"known with one thread"},
            marks=pytest.mark.skipif(_threads() == 1, reason="there is one thread here"),
        ),
        ({"load": lambda self, _: ToySource.load(self, "toy_00")}, {"cases are read"}),
        ({"load": other_again}, {"cases are read"}),
        ({"train_ids": ("toy_01", "toy_00")}, {"cases are listed"}),
        ({"train_ids": ("toy_00", "toy_15")}, {"cases are listed", "nobody is on both sides"}),
        ({"header": lambda self, _: ToySource.header(self, "toy_00")}, {"headers agree"}),
        ({"__init__": opens_anything}, {"refuses what is not there"}),
        ({"name": property(lambda self: str(id(self)))}, {"opened again"}),
    ],
)
def test_each_breach_of_a_source_is_found(members, failed):
    report = check_source(type("Breach", (Toys,), members), SourceRequest("toys", "toys"))
    assert {check.name for check in report.failed} >= failed
    assert report.passed == (not failed)
