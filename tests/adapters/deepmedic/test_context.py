from __future__ import annotations

import itertools
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.engine.configs import read_model_config
from gansynth_deepmedic.engine.geometry import (
    SegmentGeometry,
    corner_mean,
    high_segment,
    low_context,
    low_start,
    padded,
    padding,
    tiles,
)
from tests.adapters.deepmedic.orders import run
from tests.adapters.deepmedic.reference.formula import digest, label_map, volume
from tests.deepmedic_sets import toy_deepmedic

HERE = Path(__file__).parent
REFERENCE = json.loads((HERE / "reference/reference.json").read_text())
Array = npt.NDArray[Any]


@pytest.mark.parametrize(
    ("segment", "receptive", "factors", "head"),
    [
        ((13, 13, 13), (6, 7, 7), (), (0, 0, 0)),
        ((13, 13, 6), (7, 7, 7), (), (0, 0, 0)),
        ((13, 13, 8), (7, 7, 7), (), (2, 2, 2)),
        ((13, 13, 13), (7, 7, 7), (), (1, 2, 2)),
        ((13, 13, 13), (7, 7, 7), ((3, 0, 3),), (0, 0, 0)),
    ],
)
def test_sizes_that_cannot_be_are_refused(segment, receptive, factors, head):
    with pytest.raises(ValueError, match="expected"):
        SegmentGeometry(segment, receptive, factors, head)


def test_sizes_come_from_the_model(tmp_path):
    model = read_model_config(toy_deepmedic(tmp_path, train=1, val=0).model)
    assert SegmentGeometry.from_model(model) == SegmentGeometry.cubes(13, 7, (3,))
    assert SegmentGeometry.from_model(model, "inference").segment == (19, 19, 19)
    small = model.model_copy(update={"segment_validation": (9, 11, 13)})
    assert SegmentGeometry.from_model(small, "validation").output == (3, 5, 7)
    losing = model.model_copy(update={"fc_kernels": ((3, 3, 3), (1, 1, 1)), "fc_pads": None})
    found = SegmentGeometry.from_model(losing)
    assert (found.output, found.margin) == ((5, 5, 5), ((4, 4),) * 3)
    assert found.predicted((0, 0, 0)) == (slice(4, 9),) * 3
    kept = losing.model_copy(update={"fc_pads": ("mirror", None)})
    assert SegmentGeometry.from_model(kept) == SegmentGeometry.from_model(model)
    even = model.model_copy(update={"kernels": ((2, 3, 3), *model.kernels[1:])})
    for odd in (model.model_copy(update={"pads": ("mirror", None, None)}), even):
        with pytest.raises(DataFault, match=r"modelConfig\.cfg: segmentsDimTrain .*padType"):
            SegmentGeometry.from_model(odd)


def geometry_of(entry: dict[str, Any]) -> SegmentGeometry:
    segment, receptive, factor = (tuple(entry[key]) for key in ("segment", "receptive", "factor"))
    return SegmentGeometry(segment, receptive, (factor,))


def gathered(image: Array, positions: Sequence[Sequence[int]]) -> Array:
    """Voxels at these positions along each axis, one by one; the corners' mean outside."""
    found = np.empty((len(image), *(len(axis) for axis in positions)), np.float32)
    found[:] = corner_mean(image)[:, None, None, None]
    within = [
        [(n, at) for n, at in enumerate(axis) if 0 <= at < length]
        for axis, length in zip(positions, image.shape[1:], strict=True)
    ]
    for (i, x), (j, y), (k, z) in itertools.product(*within):
        found[:, i, j, k] = image[:, x, y, z]
    return found


def moved(first: int, count: int, factor: int) -> list[int]:
    """Where DeepMedic takes the voxels of a context that begins before the volume."""
    if first >= 0:
        return list(range(first, first + count * factor, factor))
    skipped = -first // factor
    return [-1] * min(skipped, count) + [n * factor for n in range(count - skipped)]


@pytest.mark.parametrize("entry", REFERENCE["contexts"])
def test_segments_and_contexts_are_deepmedics(entry):
    geometry, shape = geometry_of(entry), entry["shape"]
    (factor,) = geometry.factors
    image, labels = volume(shape), label_map(shape)
    box = geometry.centres(shape)
    ends = [cut.start for cut in box] + [cut.stop - 1 for cut in box]
    count = int(np.prod([cut.stop - cut.start for cut in box]))
    assert [*ends, count] == entry["allowed"]
    same = differing = 0
    for known in entry["segments"]:
        start = geometry.start(known["centre"])
        low = low_context(image, start, factor, geometry)
        own = labels[geometry.predicted(start)]
        assert [list(low.shape[1:]), list(own.shape)] == [known["low_shape"], known["labels_shape"]]
        assert digest(high_segment(image, start, geometry)) == known["high"]
        assert digest(own, "i2") == known["labels"]
        first = low_start(start, factor, geometry.receptive)
        aligned = all(n >= 0 or -n % f == 0 for n, f in zip(first, factor, strict=True))
        assert (digest(low) == known["low"]) == aligned
        same, differing = same + aligned, differing + (not aligned)
    assert same >= 3
    assert differing >= 3 or max(factor) == 1


def test_contexts_differ_from_deepmedics_by_the_grid_at_low_borders_only():
    looked = 0
    for entry in REFERENCE["contexts"][:2] + REFERENCE["contexts"][4:6]:
        geometry, image = geometry_of(entry), volume(entry["shape"])
        (factor,), (size,) = geometry.factors, geometry.low
        for known in entry["segments"]:
            start = geometry.start(known["centre"])
            first = low_start(start, factor, geometry.receptive)
            axes = list(zip(first, size, factor, strict=True))
            grid = [range(n, n + count * times, times) for n, count, times in axes]
            theirs = [moved(*axis) for axis in axes]
            ours = low_context(image, start, factor, geometry)
            np.testing.assert_array_equal(ours, gathered(image, grid))
            assert digest(gathered(image, theirs)) == known["low"]
            pairs = [
                pair for two in zip(theirs, grid, strict=True) for pair in zip(*two, strict=True)
            ]
            shifts = [at - own for at, own in pairs if at >= 0]
            assert all(0 <= shift < max(factor) for shift in shifts)
            looked += any(shifts)
    assert looked >= 10


@pytest.mark.parametrize("entry", REFERENCE["tiles"])
def test_tiles_are_deepmedics(entry):
    geometry, roi = SegmentGeometry(tuple(entry["segment"]), tuple(entry["receptive"])), None
    if entry["roi"]:
        roi = np.zeros(entry["shape"], np.int16)
        roi[3:12, 4:9, 2:8] = 1
    starts, known = tiles(entry["shape"], geometry, roi), entry["starts"]
    assert len(starts) == entry["count"]
    assert (digest(starts, "i8") if isinstance(known, str) else [*map(list, starts)]) == known


@pytest.mark.parametrize("entry", REFERENCE["padding"])
def test_padding_is_deepmedics(entry):
    receptive, shape = tuple(entry["receptive"]), entry["shape"]
    geometry = SegmentGeometry(receptive, receptive)
    widths = padding(shape, geometry)
    assert widths == list(geometry.margin)
    labels = padded(label_map(shape), widths)
    assert list(labels.shape) == entry["padded"]
    assert digest(labels, "i2") == entry["labels"]
    assert digest(padded(volume(shape), widths)) == entry["image"]


@pytest.mark.deepmedic
def test_the_reference_is_what_deepmedic_gives(tmp_path):
    module, made = "tests.adapters.deepmedic.reference.make_reference", tmp_path / "made.json"
    python, checkout = (os.environ[f"GANSYNTH_DEEPMEDIC{end}"] for end in ("_PYTHON", ""))
    done = run(
        [python, "-m", module, checkout, "-o", str(made)], {"PYTHONPATH": str(HERE.parents[2])}
    )
    if "has no attribute" in done.stderr:
        pytest.skip("GANSYNTH_DEEPMEDIC_PYTHON has another numpy than DeepMedic is written for")
    assert done.returncode == 0, done.stderr
    for key in ("contexts", "shares", "maps", "tiles", "padding", "changes"):
        assert json.loads(made.read_text())[key] == REFERENCE[key]
