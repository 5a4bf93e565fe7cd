"""Filters learn once, from training cases only; what they learnt is checked before it counts."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import pytest

from gansynth.core.filter import Filter, FilterOptions, FilterResult
from gansynth.core.lineage import Lineage
from gansynth.core.run_folder import RunFolder, read_manifest
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import digest_of
from gansynth.sampling.filters.fitted import (
    build_filters,
    ensure_learnt,
    folder_of,
    split_by_subject,
    to_learn,
)
from gansynth.sampling.quality_gate import reject_reason_of
from gansynth.testing import ToySource
from tests.offered import offered
from tests.sampling.filters.drawing import as_asked, drawer, reject_reasons


class BrightOptions(FilterOptions):
    most: float = 3.0
    case: str = "toy_00"


class Bright(Filter):
    """A stranger's filter: nothing may be brighter than a training case and a bit."""

    name = "bright"
    Options = BrightOptions
    options: BrightOptions
    learnt: ClassVar[list[Path]] = []

    def learn(self, learning, folder):
        Bright.learnt.append(folder)
        image = learning.cases(self.options.case).image
        (folder / "weights.bin").write_bytes(b"12345")
        return {"brightest": float(image.max())}

    def load(self, state, folder, schema, device):
        self.most = state["brightest"] + self.options.most

    def judge(self, sample, request):
        found = float(sample.image.max())
        return FilterResult(f"too bright ({found:g}), expected less" * (found > self.most))


@pytest.fixture(autouse=True)
def plugin():
    Bright.learnt.clear()
    with offered("stranger", filters={"bright": Bright}):
        yield


def state_of(run: Path, text: str = "bright") -> Path:
    (one,) = build_filters([text])
    return folder_of(run, one) / "filter.json"


def rewrite(path: Path, **changes: Any) -> None:
    """Change what a filter has learnt, so that nothing looks damaged."""
    doc = {**json.loads(path.read_text()), **changes}
    path.write_text(json.dumps({**doc, "sha256": digest_of(doc, "sha256")}))


def test_a_strangers_filter_keeps_samples_out_and_says_why(run):
    good = drawer(run, ["bright"]).draw(0, 3)
    assert reject_reasons(good) == ["", "", ""]
    bad = drawer(run, ["bright:most=0"], lambda c, rng: 100 + as_asked(c, rng)).draw(0, 1)
    assert [reject_reason_of(reject_reason) for reject_reason in reject_reasons(bad)] == [
        "filter 'bright': too bright"
    ]


def test_a_filter_learns_once_and_other_options_are_another_filter(run):
    source = ToySource(2)
    assert [one.name for one in to_learn(run, ["bright"])] == ["bright"]
    for text in ("bright", "bright:most=3.0", "bright", "bright:most=4"):
        ensure_learnt(RunFolder(run), source, [text])
    assert len(Bright.learnt) == 2
    assert to_learn(run, ["bright"]) == []
    left = [path.name for path in (run / "filters").iterdir() if path.name != ".lock"]
    assert len(left) == 2, left


def test_two_at_once_learn_once(run):
    asked = (RunFolder(run), ToySource(2), ["bright"])
    threads = [Thread(target=ensure_learnt, args=asked) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Bright.learnt) == 1


def test_the_lineage_is_of_the_cases_that_were_looked_at(run):
    found = ensure_learnt(RunFolder(run), ToySource(2), ["bright", "range:crops=2"])
    seen = Lineage.from_json(read_manifest(run)["lineage"])
    assert found.lineage is not None
    assert found.lineage.within(seen)
    assert "toy_00" in {case.id for case in found.lineage.cases}
    assert len(found.lineage.cases) < len(seen.cases)
    joined = drawer(run, ["bright"]).lineage
    assert [[c.id for c in one.cases] for one in joined.ancestors] == [["toy_00"]]


def test_a_case_that_is_not_what_it_was_is_refused(run):
    with pytest.raises(IntegrityFault, match=r"case .toy_00. .* is not the one the run was fitted"):
        ensure_learnt(RunFolder(run), ToySource(2, seed=1), ["bright"])


@pytest.mark.parametrize(
    ("harm", "says"),
    [
        ("state", "damaged"),
        ("json", "not valid JSON"),
        ("weights", r"weights\.bin: SHA-256 is"),
        ("gone", r"weights\.bin: SHA-256 is of no file"),
        ("options", "cannot be loaded"),
    ],
)
def test_what_is_damaged_is_refused(run, harm, says):
    ensure_learnt(RunFolder(run), ToySource(2), ["bright"])
    path = state_of(run)
    text = path.read_text()
    if harm == "state":
        path.write_text(text.replace('"brightest": ', '"brightest": 1'))
    elif harm == "json":
        path.write_text(text[:40])
    elif harm == "weights":
        path.with_name("weights.bin").write_bytes(b"54321")
    elif harm == "gone":
        path.with_name("weights.bin").unlink()
    else:
        rewrite(path, state={})
    with pytest.raises(IntegrityFault, match=says):
        ensure_learnt(RunFolder(run), ToySource(2), ["bright"])


def test_what_was_learnt_on_other_cases_is_refused(run):
    ensure_learnt(RunFolder(run), ToySource(2), ["bright"])
    path = state_of(run)
    doc = json.loads(path.read_text())
    seen = Lineage.from_json(doc["lineage"])
    other = replace(seen.cases[0], id="toy_13")
    rewrite(path, lineage=replace(seen, cases=(other,)).to_json())
    with pytest.raises(IntegrityFault, match=r"1 case\(s\), first toy_13, new to the run"):
        ensure_learnt(RunFolder(run), ToySource(2), ["bright"])
    rewrite(path, lineage=doc["lineage"], space={**doc["space"], "size": [8, 8]})
    with pytest.raises(IntegrityFault, match="learnt in another space than the run's"):
        ensure_learnt(RunFolder(run), ToySource(2), ["bright"])
    shutil.rmtree(path.parent)
    ensure_learnt(RunFolder(run), ToySource(2), ["bright"])


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (["brigth"], "filter 'brigth' is unknown.*Did you mean 'bright'"),
        (["bright:mots=1"], "--filter bright:mots=1: 'mots=1' is not one of.*mean 'most'"),
        (["bright:most=x"], "--filter bright:most=x: most: "),
        (["bright", "bright:most=1"], "bright is given twice"),
    ],
)
def test_a_slip_is_one_line(text, says):
    with pytest.raises(UsageFault, match=says):
        build_filters(text)


def test_cases_are_set_apart_by_subject():
    people = {"a1": "a", "a2": "a", "b1": "b", "c1": "c", "c2": "c"}
    train, apart = split_by_subject(sorted(people), people)
    assert sorted(train + apart) == sorted(people)
    assert {people[i] for i in train}.isdisjoint({people[i] for i in apart})
    assert split_by_subject(["a1", "a2"], people) == (["a1", "a2"], ["a1", "a2"])
    pair = split_by_subject(["a1", "b1"], people)
    assert sorted(map(len, pair)) == [1, 1]
