"""The checks of edits and filters: gansynth's own pass, each kind of cheat fails by name."""

import contextlib
import itertools
from typing import Any

import numpy as np
import pytest

from gansynth.core import case_pool
from gansynth.core.edit import CaseEdit, Edit, EditResult
from gansynth.core.filter import Filter, FilterResult
from gansynth.core.registry import installed
from gansynth.runtime.errors import IntegrityFault
from gansynth.testing import ConformanceReport, check_edit, check_filter

QUICK: dict[str, dict[str, Any]] = {
    "faithful": {"steps": 2, "width": 4, "levels": 2, "crops": 4},
    "novel": {"search": 2, "crops": 4},
    "contrast": {"crops": 16},
    "range": {"crops": 8},
}
HELD_OUT = "toy_12"


@pytest.mark.parametrize("name", installed().names("edits"))
def test_a_registered_edit_keeps_the_contract(name):
    check_edit(installed().edit(name)).raise_if_failed()


@pytest.mark.parametrize("name", installed().names("filters"))
def test_a_registered_filter_keeps_the_contract(name):
    check_filter(installed().filter(name), options=QUICK.get(name)).raise_if_failed()


class Roll(CaseEdit):
    """Moves the labels within the body."""

    name = "roll"

    def draw(self, context, rng):
        return {"by": int(rng.integers(1, 5))}

    def apply(self, context, params):
        rolled = np.roll(context.labels, params["by"], -1)
        return EditResult(np.where((rolled < 0) | (context.labels < 0), context.labels, rolled))


class Brightest(Filter):
    name = "brightest"

    def learn(self, learning, folder):
        return {"most": max(float(learning.cases(i).image.max()) for i in learning.train_ids)}

    def load(self, state, folder, schema, device):
        self.most = state["most"]

    def judge(self, sample, request):
        bright = bool(sample.image.max() > 2 * self.most)
        return FilterResult("too bright, expected less" * bright)


def quietly(cases: Any) -> None:
    with contextlib.suppress(IntegrityFault):
        cases(HELD_OUT)


def peeks(self, context, rng):
    quietly(self.case_context(context).case_pool.cases)
    return Roll.draw(self, context, rng)


def reaches(self, context, rng):
    cases = self.case_context(context).case_pool.cases
    quietly(case_pool._READERS[cases].source.load)
    return Roll.draw(self, context, rng)


def keeps_a_file(self, learning, folder):
    np.save(folder / "crop.npy", learning.cases("toy_00").image)
    return Brightest.learn(self, learning, folder)


def keeps_state(self, learning, folder):
    image = learning.cases("toy_00").image
    return {**Brightest.learn(self, learning, folder), "image": image.tolist()}


def studies(self, learning, folder):
    quietly(learning.cases)
    return Brightest.learn(self, learning, folder)


def signs(self, sample, request):
    sample.provenance["case"] = "nobody"
    return Brightest.judge(self, sample, request)


SEEDS = itertools.count()
EDITS: dict[str, tuple[dict[str, Any], str]] = {
    "honest": ({}, ""),
    "peeks": ({"draw": peeks}, "reads training cases only"),
    "reaches": ({"draw": reaches}, "reads training cases only"),
    "unseeded": ({"draw": lambda *_: {"by": next(SEEDS)}}, "edits"),
    "moves outside": ({"apply": lambda self, c, p: EditResult(np.roll(c.labels, 1, -1))}, "edits"),
    "other type": ({"apply": lambda self, c, p: EditResult(c.labels.astype(int))}, "edits"),
}
FILTERS: dict[str, tuple[dict[str, Any], str]] = {
    "honest": ({}, ""),
    "keeps a file": ({"learn": keeps_a_file}, "files and state do not grow"),
    "keeps state": ({"learn": keeps_state}, "files and state do not grow"),
    "studies": ({"learn": studies}, "reads training cases only"),
    "signs": ({"judge": signs}, "core's provenance kept"),
}


def failed(report: ConformanceReport) -> set[str]:
    return {check.name.removeprefix("2d: ") for check in report.failed}


@pytest.mark.parametrize(("methods", "name"), EDITS.values(), ids=EDITS)
def test_an_edit_that_cheats_fails_by_name(methods, name):
    cheat: type[Edit] = type("Cheat", (Roll,), methods)
    assert failed(check_edit(cheat, ndim=(2,))) == {name} - {""}


@pytest.mark.parametrize(("methods", "name"), FILTERS.values(), ids=FILTERS)
def test_a_filter_that_cheats_fails_by_name(methods, name):
    cheat: type[Filter] = type("Cheat", (Brightest,), methods)
    assert failed(check_filter(cheat, ndim=(2,))) == {name} - {""}
