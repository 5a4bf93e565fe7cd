"""Real cases that have been through a generator's space: what is written, and what stays."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
import pytest

from gansynth.core.resample import resample
from gansynth.core.schema import Sample
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.runtime.errors import EnvironmentFault
from gansynth.runtime.progress import NullReporter
from gansynth_deepmedic.insertion import MISSING, misfit, seat_of
from gansynth_deepmedic.layout import write_case
from gansynth_deepmedic.real_space import bring_real, whole_space
from gansynth_deepmedic.source import DeepMedicSource, open_deepmedic
from tests.conftest import content
from tests.deepmedic_sets import toy_deepmedic

TURNED = np.array([[0, 0, 2.0, 5], [-1, 0, 0, 7], [0, 3, 0, 1], [0, 0, 0, 1]])
"""Axes of the files that are none of gansynth's."""
WINDOW = ((-0.5, 1.0), (-1.0, 2.0))


def opened(folder: Path, **read: str) -> DeepMedicSource:
    return open_deepmedic(SourceRequest("deepmedic", str(folder / "trainConfig.cfg"), read=read))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data")
    toy_deepmedic(folder, train=2, val=1, shape=(20, 16, 14), affine=TURNED)
    (folder / "training_t1c.cfg").write_text("./data/pat_00/t1c.nii.gz\n-\n")
    return folder


def stored(file: str | None) -> npt.NDArray[Any]:
    assert file is not None
    image: Any = nib.load(file)
    return np.asarray(image.dataobj)


def brought(data: Path, space: Space, out: Path, **read: str) -> Any:
    return bring_real(opened(data, **read), space, out, NullReporter())


def test_of_crops_only_the_window_counts(data, tmp_path):
    before = content(data)
    cases = brought(data, Space("crop", (8, 8, 8), window=WINDOW), tmp_path)
    assert content(data) == before
    for case, original in zip(cases, (opened(data).host_case(c.id) for c in cases), strict=True):
        for (low, high), new, old in zip(WINDOW, case.channels, original.channels, strict=True):
            assert (new == MISSING) == (old == MISSING)
            if old == MISSING:
                continue
            np.testing.assert_allclose(stored(new), stored(old).clip(low, high), atol=1e-6)
            assert stored(old).max() > high
            assert stored(new).dtype == np.float32
        assert np.array_equal(stored(case.labels), stored(original.labels))
        assert np.array_equal(stored(case.roi), stored(original.roi))
        assert replace(case, channels=(), labels="", roi="") == replace(
            original, channels=(), labels="", roi=""
        )


def test_whole_volumes_go_to_the_generators_shape_and_back(data, tmp_path):
    cases = brought(data, Space("resample", (7, 8, 10), pad_label=-1), tmp_path)
    source = opened(data)
    for case in cases:
        seen, original = source.load(case.id), source.host_case(case.id)
        small, small_labels = resample(seen.image, seen.labels, (7, 8, 10))
        image, labels = resample(small, small_labels, case.shape)
        assert labels is not None
        outside = case.view(stored(original.roi)) == 0
        for number, file in enumerate(case.channels):
            if file != MISSING:
                np.testing.assert_allclose(case.view(stored(file)), image[number], atol=1e-5)
        found, before = case.view(stored(case.labels)), case.view(stored(original.labels))
        inside = labels != -1
        assert np.array_equal(found[inside], labels[inside])
        assert np.array_equal(found[~inside], before[~inside])
        assert not np.array_equal(found, before)
        assert np.array_equal(stored(case.roi), stored(original.roi))
        assert outside.any()


def test_files_keep_their_units_and_headers(data, tmp_path):
    space = opened(data, modality="mr").space
    cases = brought(data, replace(space, window=None), tmp_path, modality="mr")
    for case, original in zip(cases, (opened(data).host_case(c.id) for c in cases), strict=True):
        found: Any = nib.load(case.channels[0])
        old: Any = nib.load(original.channels[0])
        assert np.array_equal(found.affine, old.affine)
        np.testing.assert_allclose(found.dataobj, old.dataobj, atol=1e-5)
        assert case.units[0] != (1.0, 0.0)


def test_validation_cases_are_not_touched(data, tmp_path):
    cases = brought(data, Space("crop", (8, 8, 8), window=WINDOW), tmp_path)
    assert [case.id for case in cases] == list(opened(data).train_ids)
    names = sorted(path.name for path in (tmp_path / "real").iterdir())
    assert names == [*opened(data).train_ids, "real.json"]


def test_what_is_there_of_the_same_order_is_taken(data, tmp_path):
    space = Space("crop", (8, 8, 8), window=WINDOW)
    first = brought(data, space, tmp_path)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "real").rglob("*")}
    assert brought(data, replace(space, size=(4, 4, 4)), tmp_path) == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "real").rglob("*")} == times


def test_what_is_there_of_another_order_is_written_anew(data, tmp_path):
    brought(data, Space("crop", (8, 8, 8), window=WINDOW), tmp_path)
    wide = Space("crop", (8, 8, 8), window=((-9.0, 9.0),) * 2)
    (case, _) = brought(data, wide, tmp_path)
    old = stored(opened(data).host_case(case.id).channels[0])
    np.testing.assert_allclose(stored(case.channels[0]), old, atol=1e-5)
    assert json.loads((tmp_path / "real" / "real.json").read_text())["space"] == (
        whole_space(wide).to_json()
    )


def test_half_of_it_leaves_nothing(data, tmp_path, monkeypatch):
    write, calls = write_case, []

    def once(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) > 1:
            raise OSError(28, "No space left on device")
        return write(*arguments)

    monkeypatch.setattr("gansynth_deepmedic.real_space.write_case", once)
    with pytest.raises(EnvironmentFault, match="the disk is full"):
        brought(data, Space("crop", (8, 8, 8), window=WINDOW), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_of_a_frame_the_middle_goes_through_the_space_and_the_rest_stays(data, tmp_path):
    source = opened(data, frame="10,10,10", whole="5,5,5", resampling="nearest")
    assert source.space.frame == (10, 10, 10)
    case = source.host_case(source.train_ids[0])
    (new, *_) = bring_real(source, source.space, tmp_path, NullReporter())
    before, after = (case.view(stored(c.channels[0])) for c in (case, new))
    corner = source.space.frame_corner(case.shape)
    there = tuple(slice(first, first + 10) for first in corner)
    beyond = np.ones(case.shape, bool)
    beyond[there] = False
    assert np.array_equal(after[beyond], before[beyond])
    middle = after[there]
    assert not np.array_equal(middle, before[there])
    # Twice the nearest voxel: blocks of two alike along each axis.
    assert np.array_equal(middle[::2], middle[1::2])
    assert set(np.unique(middle)) <= set(np.unique(before))


def test_a_frame_is_seated_as_a_crop_is(data):
    source = opened(data, frame="10,10,10", whole="5,5,5")
    case = source.load(source.train_ids[0])
    placement = source.space.place(case, np.random.default_rng(0))
    inside = source.space.to_generator(case, placement)
    told = {"case": case.id, "placement": placement.to_json(), "shape": case.image.shape[1:]}
    sample = source.space.to_host(Sample(inside.image, inside.labels, None, told))
    host = source.host_case(case.id)
    assert misfit(host, sample) == ""
    seat = seat_of(told)
    assert seat is not None
    assert seat.corner == source.space.frame_corner(host.shape)
