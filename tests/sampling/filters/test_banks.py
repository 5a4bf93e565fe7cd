"""Filters on the way into a bank: counted, pictured, in its lineage; a bad generator is stopped."""

import itertools
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gansynth
from gansynth.bank.reader import BankReader
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Condition, FloatArray
from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.filters.fitted import ensure_learnt, learn_ahead, planned_filters
from gansynth.sampling.sample import sample
from gansynth.testing import ToySource
from tests.producers import fill_here
from tests.sampling.filters.drawing import TINY, as_asked, drawer

SOME = 6


@pytest.fixture(scope="module")
def taught(fitted, tmp_path_factory) -> Path:
    """A run whose filters have learnt."""
    folder = Path(shutil.copytree(fitted, tmp_path_factory.mktemp("taught") / "run"))
    ensure_learnt(RunFolder(folder), ToySource(2), [TINY, "range"])
    return folder


def fill(run: Path, folder: Path, filters: list[str], drawing: Any = as_asked) -> BankReader:
    drawn = drawer(run, filters, drawing)
    return fill_here(folder, drawn, SOME, rejected=str(folder / "rejected"))


def noise(condition: Condition, rng: np.random.Generator) -> FloatArray:
    assert condition.labels is not None
    return rng.standard_normal((2, *condition.labels.shape)).astype(np.float32)


def every_third() -> Any:
    """Conditions come in the order of their index, each once."""
    indices = itertools.count()
    return lambda *given: (as_asked if next(indices) % 3 else noise)(*given)


def test_what_is_flawed_is_counted_and_pictured_and_the_rest_enters(taught, tmp_path):
    reader = fill(taught, tmp_path, [TINY, "range"], every_third())
    found = [reader.read(name) for name in reader.ids()]
    indices = [sample.provenance["index"] for sample in found]
    assert len(found) == SOME
    assert [i for i in indices if i % 3 == 0] == []
    assert all(set(s.provenance["admitted"]) == {"faithful", "range"} for s in found)
    counts = read_json(tmp_path / "counts.json")
    assert counts
    assert set(counts) == {
        "filter 'faithful': too low a Dice of its labels with what a segmenter finds"
    }
    lines = (tmp_path / "rejected" / "rejected.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert len(told) == sum(counts.values())
    assert all((tmp_path / "rejected" / line["picture"]).is_file() for line in told)
    assert all(line["index"] % 3 == 0 for line in told)


def test_a_banks_lineage_has_the_filters_cases(taught, tmp_path):
    reader = fill(taught, tmp_path, [TINY])
    seen = reader.spec.lineage
    filtered = [one for one in seen.everyone() if one is not seen]
    learnt = {case.id for one in (seen, *filtered) for case in one.cases}
    assert learnt == set(ToySource(2).train_ids)


@pytest.mark.fault(39)
def test_a_bad_generator_is_stopped_and_the_filter_named(taught, tmp_path):
    with pytest.raises(TrainingFault, match=r"samples were rejected \(\d+ times filter 'faithful'"):
        fill(taught, tmp_path, [TINY], noise)


def test_without_filters_all_enter(run, tmp_path):
    reader = fill(run, tmp_path, [], noise)
    found = [reader.read(name) for name in reader.ids()]
    assert [s.provenance["index"] for s in found] == list(range(SOME))
    assert "admitted" not in found[0].provenance
    assert not (run / "filters").exists()


def test_a_dry_run_says_what_would_be_learnt(run):
    filters = ("range:crops=2", "novel:crops=2")
    said = planned_filters(RunFolder(run), filters)["filters"]
    assert all("would learn first" in text for text in said.values())
    learn_ahead(RunFolder(run), filters[:1], ToySource(2), device="cpu", reporter=NullReporter())
    said = planned_filters(RunFolder(run), filters)["filters"]
    assert said["range"] == "learnt"
    assert "would learn" in said["novel"]
    assert planned_filters(RunFolder(run), ()) == planned_filters(None, filters) == {}
    with pytest.raises(UsageFault, match="is unknown"):
        planned_filters(RunFolder(run), ["nvel"])


def test_drawn_samples_are_judged_too(run, tmp_path):
    where = {"out": tmp_path / "out", "device": "cpu", "quiet": True}
    report = sample(run, n=2, filter="range:tolerance=0", **where)
    assert report["rejected"] == sum(report["reject_reasons"].values()) == 2
    assert all(reason.startswith("filter 'range': ") for reason in report["reject_reasons"])
    told = read_json(tmp_path / "out" / "provenance.json")["samples"]["sample-0000"]
    assert told["reject_reason"].startswith("filter 'range': ")


@pytest.mark.slow
def test_a_producer_with_a_filter_stops_a_generator_that_has_learnt_nothing(tmp_path):
    run, settings = tmp_path / "run", {"steps": "1", "batch_size": "1", "width": "4"}
    fit(
        *("cgan3d", SourceRequest("example", "2d"), run), settings=settings, edits=(),
        device="cpu", reporter=NullReporter(),
    )  # fmt: skip
    told: dict[str, Any] = {"samples": 4, "device": "cpu"}
    with pytest.raises(TrainingFault, match="filter 'faithful': too low a Dice") as caught:
        gansynth.fill_bank(run, tmp_path / "one", request=SampleRequest(filters=(TINY,)), **told)
    assert caught.value.exit_code == 5
    taken = gansynth.fill_bank(
        run, tmp_path / "two", request=SampleRequest(keep_flawed=True), **told
    )
    assert BankReader(taken).count() == 4
