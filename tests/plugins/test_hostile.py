"""Plugins of a stranger that reach for held-out cases, or for what the core records."""

import gc
import json
from pathlib import Path
from types import FunctionType, ModuleType
from typing import Any, ClassVar

import numpy as np
import pytest

from gansynth.core.edit import CaseEdit, EditOptions, EditResult
from gansynth.core.filter import Filter, FilterOptions, FilterResult
from gansynth.core.generator import Generator
from gansynth.core.schema import OUTSIDE, Sample
from gansynth.core.source import CaseSource
from gansynth.core.space import Placement
from gansynth.core.writer import Writer
from gansynth.data.batches import CaseCache
from gansynth.sampling.filters.fitted import folder_of
from tests.expected import raises_fault
from tests.offered import offered

HELD_OUT = "toy_12"
WAYS: dict[str, Any] = {
    "cases": lambda pool: pool.cases(HELD_OUT),
    "place": lambda pool: pool.cases.place(HELD_OUT, pool.space, np.random.default_rng(0)),
    "subject": lambda pool: pool.cases.subject(HELD_OUT),
    "label_map": lambda pool: pool.label_map(HELD_OUT),
    "uncut": lambda pool: pool.uncut(HELD_OUT),
    "cut": lambda pool: pool.cut(HELD_OUT, Placement((0, 0))),
}
HANDED: list[Any] = []
"""Whatever the plugins were handed."""


class Grey(Generator):
    """Paints labels in greys, and says that somebody else did."""

    name = "grey"

    def observe(self, cases):
        HANDED.append(cases)
        list(cases)
        return {}

    def sample(self, conditions, seeds):
        HANDED.extend(conditions)
        return [self.paint(c, s) for c, s in zip(conditions, seeds, strict=True)]

    def paint(self, condition, seed):
        case = "toy_00"  # it has seen it, and is not told which case a condition is of
        noise = np.random.default_rng(seed).normal(0, 0.2, (2, *self.size))
        image = np.where(condition.labels == OUTSIDE, 0, condition.labels + noise)
        told = {"class": case, "edits": [{"edit": case}], "case": "nobody", "index": 9}
        condition.provenance.update(told)
        return Sample(image.astype(np.float32), condition.labels, None, told, notes={"of": case})

    def reject_reason(self, sample):
        sample.provenance["class"] = sample.provenance["case"]
        return ""


class Peek(CaseEdit):
    name = "peek"

    class Options(EditOptions):
        by: str = ""

    options: Options

    def draw(self, context, rng):
        HANDED.append(context)
        if self.options.by:
            WAYS[self.options.by](self.case_context(context).case_pool)
        return {}

    def apply(self, context, params):
        return EditResult(context.labels)


class Study(Filter):
    name = "study"
    read: ClassVar[tuple[str, ...]] = ("toy_02", "toy_05")

    class Options(FilterOptions):
        when: str = ""

    options: Options

    def learn(self, learning, folder):
        HANDED.append(learning)
        cases, crops, rng = learning.cases, learning.crops, np.random.default_rng(0)
        if self.options.when == "cut":
            crops.cut(HELD_OUT, rng)
        if self.options.when == "learn":
            cases(HELD_OUT)
        crops.cut(self.read[0], rng)
        cases(self.read[1])
        return {}

    def load(self, state, folder, schema, device):
        pass

    def judge(self, sample, request):
        HANDED.append(request)
        if self.options.when == "judge":
            request.case_pool.cases(HELD_OUT)
        return FilterResult()


class Listing(Writer):
    name = "stranger"

    def add(self, item):
        HANDED.append(self)

    def finish(self, about):
        return None


@pytest.fixture(scope="module")
def run(toy_fit, tmp_path_factory):
    HANDED.clear()
    folder = tmp_path_factory.mktemp("hostile") / "run"
    edits = {"peek": Peek, "toy_03": type("Named", (Peek,), {"name": "toy_03"})}  # a patient's name
    kinds: dict[str, Any] = {
        "generators": {"grey": Grey},
        "edits": edits,
        "filters": {"study": Study},
    }
    with offered("stranger", **kinds, writers={"stranger": Listing}):
        toy_fit(folder, generator="grey", own={}, edits=())
        yield folder


REACHES = [f"--edit=peek:by={way}" for way in WAYS]
REACHES += [f"--filter=study:when={when}" for when in ("cut", "learn", "judge")]


@pytest.mark.parametrize("reach", REACHES)
def test_a_held_out_case_is_out_of_reach_by_its_id(reach, run, refuse, tmp_path):
    says = ["toy:2: case 'toy_12' is asked for", "expected one of its 12 training cases"]
    refuse("sample", run, "-n", 1, reach, "-o", tmp_path / "out", code=6, says=says)
    assert not (tmp_path / "out").exists()


def test_a_dry_run_of_a_host_does_not_say_that_nothing_leaks(run, run_cli):
    words = ("--target", "segmenter", "--data", "toy:2", "--generator", run, "--ratio", "1:1")
    host = run_cli("augment", *words, "--edit", "peek:by=label_map", "--device", "cpu", "--dry-run")
    assert (host.exit_code, "none found" in host.stdout) == (6, False)
    assert "case 'toy_12' is asked for" in host.stderr


def test_edits_of_training_read_no_held_out_case(run, toy_fit, tmp_path):
    with raises_fault("case-pool.not-a-training-case"):
        toy_fit(tmp_path / "run", fit_edits="peek:by=uncut", feature_matching=0)


def referents(thing: Any) -> list[Any]:
    """All objects that a thing refers to, but those of its module and of its class."""
    if isinstance(thing, ModuleType | type):
        return []
    if isinstance(thing, FunctionType):
        return [*(cell.cell_contents for cell in thing.__closure__ or ()), thing.__defaults__]
    return gc.get_referents(thing)


def test_nothing_that_plugins_are_handed_leads_to_a_held_out_case(run, toy_fit, succeed, tmp_path):
    """Not by a private name, a closure or a frame either."""
    words = ("-n", 1, "--edit", "peek", "--filter", "study", "--format", "stranger")
    HANDED.clear()  # what other tests have asked for is noted there
    for generator in ("grey", "copypaste"):
        toy_fit(tmp_path / generator, generator=generator, own={}, edits=())
        succeed("sample", tmp_path / generator, *words, "-o", tmp_path / f"of_{generator}")
    kinds = {type(thing).__name__ for thing in HANDED}
    assert kinds > {"EditContext", "FilterRequest", "Listing", "FilterTrainingData"}
    seen: dict[int, Any] = {}
    reached = list(HANDED)
    while reached:
        thing = reached.pop()
        if id(thing) in seen:
            continue
        seen[id(thing)] = thing
        assert not isinstance(thing, CaseSource | CaseCache), thing
        assert not (isinstance(thing, str | Path) and HELD_OUT in str(thing)), thing
        reached += referents(thing)
    assert any(isinstance(thing, np.ndarray) for thing in seen.values())


def test_the_cases_that_a_filter_reads_are_its_lineage(run, run_cli, tmp_path):
    run_cli("sample", run, "-n", 1, "--filter", "study", "-o", tmp_path / "out")
    file = folder_of(run, Study()) / "filter.json"
    cases = json.loads(file.read_text())["lineage"]["cases"]
    assert [case["id"] for case in cases] == sorted(Study.read)


def test_provenance_is_the_cores_and_no_case_is_shared(run, succeed, tmp_path):
    out = tmp_path / "out"
    words = ("-n", 2, "--edit", "toy_03", "--deidentify", "-o", out)
    succeed("sample", run, *words)
    shared = (out / "provenance.json").read_text()
    assert "toy_" not in shared
    assert "notes" not in shared
    told = json.loads(shared)["samples"]
    assert [(one["sample"], one["edits"]) for one in told.values()] == [(0, ["?"]), (1, ["?"])]
    (record,) = run.glob("exports/*.json")
    for one in json.loads(record.read_text())["samples"].values():
        assert one["case"].startswith("toy_")
        assert one["notes"] == {"of": "toy_00"}
        assert "class" not in one
