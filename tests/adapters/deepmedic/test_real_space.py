import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.resample import resample
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.runtime.progress import NullReporter
from gansynth_deepmedic.insertion import MISSING
from gansynth_deepmedic.real_space import training_cases
from gansynth_deepmedic.source import DeepMedicSource, open_deepmedic
from tests.conftest import content
from tests.deepmedic_sets import stored, toy_deepmedic

TURNED = np.array([[0, 0, 2.0, 5], [-1, 0, 0, 7], [0, 3, 0, 1], [0, 0, 0, 1]])
"""Axes of the files that are none of gansynth's."""
WINDOW = ((-0.5, 1.0), (-1.0, 2.0))
CROP = Space("crop", (8, 8, 8), window=WINDOW)


def opened(folder: Path, **read: str) -> DeepMedicSource:
    return open_deepmedic(SourceRequest("deepmedic", str(folder / "trainConfig.cfg"), read=read))


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("data")
    toy_deepmedic(folder, train=2, val=1, shape=(20, 16, 14), affine=TURNED)
    (folder / "training_t1c.cfg").write_text("./data/pat_00/t1c.nii.gz\n-\n")
    return folder


def brought(data: Path, space: Space, out: Path, **read: str) -> Any:
    """Cases that were written, each with the one it was made of."""
    source = opened(data, **read)
    mix_config: Any = SimpleNamespace(
        real_in_generator_space=True, run=SimpleNamespace(space=space)
    )
    cases = training_cases(source, mix_config, out, NullReporter())
    return [(case, source.host_case(case.id)) for case in cases]


def test_of_crops_only_the_window_counts(data, tmp_path):
    before = content(data)
    pairs = brought(data, CROP, tmp_path)
    assert content(data) == before
    for case, original in pairs:
        for (low, high), new, old in zip(WINDOW, case.channels, original.channels, strict=True):
            assert (new == MISSING) == (old == MISSING)
            if old == MISSING:
                continue
            np.testing.assert_allclose(stored(new), stored(old).clip(low, high), atol=1e-6)
            assert stored(old).max() > high
            assert stored(new).dtype == np.float32
        assert np.array_equal(stored(case.labels), stored(original.labels))
        assert np.array_equal(stored(case.roi), stored(original.roi))
        bare = [replace(one, channels=(), labels="", roi="") for one in (case, original)]
        assert bare[0] == bare[1]
    names = sorted(path.name for path in (tmp_path / "real").iterdir())
    assert names == [*opened(data).train_ids, "real.json"]


def test_whole_volumes_go_to_the_generators_shape_and_back(data, tmp_path):
    for case, original in brought(data, Space("resample", (7, 8, 10), pad_label=-1), tmp_path):
        seen = opened(data).load(case.id)
        image, labels = resample(*resample(seen.image, seen.labels, (7, 8, 10)), case.shape)
        assert labels is not None
        for number, file in enumerate(case.channels):
            if file != MISSING:
                np.testing.assert_allclose(case.view(stored(file)), image[number], atol=1e-5)
        found, before = case.view(stored(case.labels)), case.view(stored(original.labels))
        assert np.array_equal(found, np.where(labels != -1, labels, before))
        assert not np.array_equal(found, before)
        assert np.array_equal(stored(case.roi), stored(original.roi))
        assert (stored(original.roi) == 0).any()


def test_files_keep_their_units_and_headers(data, tmp_path):
    space = replace(opened(data, modality="mr").space, window=None)
    for case, original in brought(data, space, tmp_path, modality="mr"):
        found, old = (nib.Nifti1Image.from_filename(o.channels[0]) for o in (case, original))
        assert np.array_equal(found.affine, old.affine)
        np.testing.assert_allclose(found.dataobj, old.dataobj, atol=1e-5)
        assert case.units[0] != (1.0, 0.0)


def test_what_is_there_of_the_same_order_is_taken_and_else_written_anew(data, tmp_path):
    first = brought(data, CROP, tmp_path)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "real").rglob("*")}
    assert brought(data, replace(CROP, size=(4, 4, 4)), tmp_path) == first
    assert {p: p.stat().st_mtime_ns for p in (tmp_path / "real").rglob("*")} == times
    wide = replace(CROP, window=((-9.0, 9.0),) * 2)
    ((case, old), _) = brought(data, wide, tmp_path)
    np.testing.assert_allclose(stored(case.channels[0]), stored(old.channels[0]), atol=1e-5)
    told = json.loads((tmp_path / "real" / "real.json").read_text())["space"]
    assert told == replace(wide, grid="native", size=()).to_json()


FRAME = {"frame": "10,10,10", "whole": "5,5,5"}


def test_of_a_frame_the_middle_goes_through_the_space_and_the_rest_stays(data, tmp_path):
    read = {**FRAME, "resampling": "nearest"}
    source = opened(data, **read)
    assert source.space.frame == (10, 10, 10)
    ((new, case), _) = brought(data, source.space, tmp_path, **read)
    before, after = (case.view(stored(c.channels[0])) for c in (case, new))
    there = tuple(slice(n, n + 10) for n in source.space.frame_corner(case.shape))
    beyond = np.ones(case.shape, bool)
    beyond[there] = False
    assert np.array_equal(after[beyond], before[beyond])
    middle = after[there]
    assert not np.array_equal(middle, before[there])
    # Twice the nearest voxel: blocks of two alike along each axis.
    assert np.array_equal(middle[::2], middle[1::2])
    assert set(np.unique(middle)) <= set(np.unique(before))
