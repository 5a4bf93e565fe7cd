"""Classes of slices: by foreground or by label, in every place a case passes through."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gansynth.core.hookspecs import hookimpl
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.data.h5_format import Index
from gansynth.data.h5_write import write_h5
from gansynth.data.slices import SliceSource, check_slices
from gansynth.data.views import viewed
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.opening import open_source
from gansynth.testing import ToySource

TOY: Any = ToySource(3)


class Volumes(ToySource):
    """Toy volumes that count how often one is read."""

    reads = 0

    def __init__(self, request: SourceRequest):
        self.__dict__.update(TOY.__dict__)
        self.request = request

    def load(self, case_id):
        Volumes.reads += 1
        return super().load(case_id)

    def shape(self, case_id):
        return (16, 16, 16)


@pytest.fixture(scope="module", autouse=True)
def volumes():
    """Offers ``classed:x``."""

    @hookimpl
    def register_sources(register):
        register("classed", lambda: Volumes)

    @hookimpl
    def register_checks(register):
        from gansynth.core.findings import Checked

        register("classed", lambda: lambda request, progress: Checked("classed:x", 16, []))

    plugin = SimpleNamespace(register_sources=register_sources, register_checks=register_checks)
    installed().add(plugin, "classed")
    assert "classed" not in installed().broken, installed().broken
    yield
    installed().remove("classed")


def request(where: str = "classed:x", **read: str) -> SourceRequest:
    return SourceRequest("slices", where, read=read)


def opened(where: str = "classed:x", **read: str) -> Any:
    return SliceSource(request(where, **read))


def labels_of(case_id: str, axis: int = 0) -> Any:
    case, number = case_id.split("/")
    return TOY.load(case).labels.take(int(number[3:]), axis)


@pytest.mark.parametrize(("plane", "axis"), [("axial", 0), ("sagittal", 2)])
def test_a_slice_is_with_foreground_or_without(plane, axis):
    source = opened(classes="foreground", plane=plane)
    assert source.schema.classes == ("without", "with")
    found = [source.label_class(i) for i in source.train_ids]
    assert found == [int((labels_of(i, axis) > 0).any()) for i in source.train_ids]
    assert set(found) == {0, 1}
    assert [source.load(i).label_class for i in source.train_ids[:16]] == found[:16]


def test_slices_of_too_little_foreground_are_of_no_class():
    source = opened(classes="foreground", min_foreground="20")
    counts = np.array([(labels_of(i) > 0).sum() for i in source.train_ids])
    numbers = np.array([source.label_class(i) for i in source.train_ids])
    np.testing.assert_array_equal(numbers, counts >= 20)
    assert not ((counts > 0) & (counts < 20)).any()
    assert len(source.train_ids) < 12 * 16


def test_a_slice_is_of_the_label_of_most_voxels():
    source = opened(classes="label")
    assert source.schema.classes == ("without", "one", "two")
    for case_id in source.train_ids[:40]:
        counts = [(labels_of(case_id) == value).sum() for value in (1, 2)]
        expected = 0 if not any(counts) else 1 + int(np.argmax(counts))
        assert source.label_class(case_id) == expected
    only = opened(classes="label", foreground="with")
    assert only.schema.classes == ("one", "two")
    assert {only.label_class(i) for i in only.train_ids} == {0, 1}


def test_a_volume_is_read_once_for_the_classes_of_all_its_slices():
    source = opened(classes="label")
    Volumes.reads = 0
    assert len([source.label_class(i) for i in source.train_ids]) == 12 * 16
    assert Volumes.reads == 12


def test_a_cache_of_volumes_tells_classes_without_images(tmp_path, monkeypatch):
    write_h5(Volumes(SourceRequest("classed", "x")), tmp_path / "v.h5", chunk=8)
    cached, source = opened(f"h5:{tmp_path / 'v.h5'}", classes="label"), opened(classes="label")
    monkeypatch.setattr(type(cached.inner), "_image", None)
    assert cached.train_ids == source.train_ids
    some = source.train_ids[:40]
    assert [cached.label_class(i) for i in some] == [source.label_class(i) for i in some]


def test_a_cache_of_slices_has_their_classes(tmp_path):
    source = opened(classes="foreground", slices="6-9", resize="8x8")
    write_h5(source, tmp_path / "s.h5")
    cached = open_source(SourceRequest("h5", str(tmp_path / "s.h5")))
    assert cached.schema.classes == ("without", "with")
    for case_id in source.train_ids[:8]:
        expected = source.label_class(case_id)
        assert cached.label_class(case_id) == cached.load(case_id).label_class == expected
    assert cached.lineage() == source.lineage()


def test_an_index_from_before_there_were_classes_is_read(tmp_path):
    write_h5(opened(slices="6"), tmp_path / "s.h5")
    cached: Any = open_source(SourceRequest("h5", str(tmp_path / "s.h5")))
    doc = json.loads(cached.index.to_bytes())
    assert "label_class" not in doc["cases"][0]
    del doc["ancestors"]
    assert Index.from_bytes(json.dumps(doc).encode()) == cached.index


def test_classes_reach_batches_through_resizing_and_views():
    source = viewed(opened(classes="foreground", resize="8x8"), {"channels": ["second"]})
    assert source.label_class(source.train_ids[7]) is not None
    batches = CaseBatches(CaseCache(source), source.space)
    stage: Any = None
    classes = batches(0, stage, range(12)).classes
    assert classes is not None
    assert set(classes.tolist()) == {0, 1}


def test_records_and_spaces_without_classes_are_what_they_were():
    plain, classed = opened(), opened(classes="foreground")
    assert "classes" not in plain.host["slices"]
    assert classed.host["slices"]["classes"] == "foreground"
    case_id = plain.train_ids[7]
    assert plain.record(case_id) == classed.record(case_id)
    assert replace(classed.schema, classes=()) == plain.schema


@pytest.mark.parametrize(
    "read",
    [
        {"classes": "foreground", "foreground": "with"},
        {"classes": "foreground", "foreground": "without"},
        {"classes": "label", "foreground": "without"},
    ],
)
def test_a_choice_that_leaves_one_class_is_refused(read):
    with pytest.raises(UsageFault, match=r"all slices are of one class.*leave one of the two out"):
        opened(**read)


def test_check_tells_of_classes_without_a_training_case():
    checked = check_slices(request(classes="foreground", slices="8"), lambda done, total: None)
    assert [f.level for f in checked.findings] == ["warning"]
    assert "no training case of fold 0 is of class 'without'" in checked.findings[0].message
