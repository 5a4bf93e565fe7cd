"""What is cut of a volume, against what DeepMedic's own functions cut (``reference``)."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from gansynth_deepmedic.engine.cutting import read_volume
from gansynth_deepmedic.engine.geometry import (
    Geometry,
    corner_mean,
    high_segment,
    low_context,
    low_start,
    padded,
    padding,
    tiles,
)
from tests.adapters.deepmedic.reference.formula import digest, label_map, volume
from tests.deepmedic_brats import BRATS, FILES

REFERENCE = json.loads((Path(__file__).parent / "reference/reference.json").read_text())
Array = npt.NDArray[Any]


def geometry_of(entry: dict[str, Any]) -> Geometry:
    triples = (tuple(entry[key]) for key in ("segment", "receptive", "factor"))
    segment, receptive, factor = triples
    return Geometry(segment, receptive, (factor,))


def gathered(image: Array, positions: Sequence[Sequence[int]]) -> Array:
    """Voxels at these positions along each axis, one by one; the corners' mean outside."""
    corners = [
        [channel[x, y, z] for z in (0, -1) for y in (0, -1) for x in (0, -1)] for channel in image
    ]
    found = np.empty((len(image), *(len(axis) for axis in positions)), np.float32)
    found[:] = np.mean(corners, axis=1)[:, None, None, None]
    within = [
        [(n, at) for n, at in enumerate(axis) if 0 <= at < length]
        for axis, length in zip(positions, image.shape[1:], strict=True)
    ]
    for (i, x), (j, y) in itertools.product(*within[:2]):
        for k, z in within[2]:
            found[:, i, j, k] = image[:, x, y, z]
    return found


def moved(first: int, count: int, factor: int) -> list[int]:
    """Where DeepMedic takes the voxels of a context that begins before the volume."""
    skipped = -first // factor if first < 0 else 0
    return [
        at if first >= 0 else (-1 if number < skipped else (number - skipped) * factor)
        for number, at in enumerate(range(first, first + count * factor, factor))
    ]


@pytest.mark.parametrize("number", range(len(REFERENCE["contexts"])))
def test_segments_and_contexts_are_deepmedics(number: int) -> None:
    entry = REFERENCE["contexts"][number]
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


def test_contexts_differ_from_deepmedics_by_the_grid_at_low_borders_only() -> None:
    looked = 0
    for entry in REFERENCE["contexts"][:2] + REFERENCE["contexts"][4:6]:
        geometry, image = geometry_of(entry), volume(entry["shape"])
        (factor,), (size,) = geometry.factors, geometry.low
        for known in entry["segments"]:
            start = geometry.start(known["centre"])
            first = low_start(start, factor, geometry.receptive)
            axes = list(zip(first, size, factor, strict=True))
            grid = [range(n, n + count * times, times) for n, count, times in axes]
            ours = low_context(image, start, factor, geometry)
            np.testing.assert_array_equal(ours, gathered(image, grid))
            theirs = gathered(image, [moved(*axis) for axis in axes])
            assert digest(theirs) == known["low"]
            shifts = [
                at - ours
                for axis, own in zip(axes, grid, strict=True)
                for at, ours in zip(moved(*axis), own, strict=True)
                if at >= 0
            ]
            assert all(0 <= shift < max(factor) for shift in shifts)
            looked += any(shifts)
    assert looked >= 10


def test_a_context_beyond_the_volume_is_its_corners_mean() -> None:
    image = volume((9, 10, 11)).astype(np.float32)
    geometry = Geometry.cubes(9, 7, (5,))
    context = low_context(image, (0, 0, 1), (5, 5, 5), geometry)
    fill = corner_mean(image)
    assert context.shape == (2, 7, 7, 7)
    np.testing.assert_array_equal(context[:, 0, 0, 0], fill)
    np.testing.assert_array_equal(context[:, -1, -1, -1], fill)
    np.testing.assert_array_equal(
        fill, image[:, [0, -1]][:, :, [0, -1]][..., [0, -1]].mean(axis=(1, 2, 3))
    )
    given = low_context(image, (0, 0, 1), (5, 5, 5), geometry, np.array([-5, 7], np.float32))
    np.testing.assert_array_equal(given[:, 0, 0, 0], [-5, 7])


@pytest.mark.parametrize("number", range(len(REFERENCE["tiles"])))
def test_tiles_are_deepmedics(number: int) -> None:
    entry = REFERENCE["tiles"][number]
    geometry = Geometry(tuple(entry["segment"]), tuple(entry["receptive"]))
    roi = None
    if entry["roi"]:
        roi = np.zeros(entry["shape"], np.int16)
        roi[3:12, 4:9, 2:8] = 1
    starts = tiles(entry["shape"], geometry, roi)
    assert len(starts) == entry["count"]
    known = entry["starts"]
    assert (digest(starts, "i8") if isinstance(known, str) else [*map(list, starts)]) == known


@pytest.mark.parametrize("number", range(len(REFERENCE["padding"])))
def test_padding_is_deepmedics(number: int) -> None:
    entry = REFERENCE["padding"][number]
    receptive, shape = entry["receptive"], entry["shape"]
    geometry = Geometry(tuple(receptive), tuple(receptive))
    widths = padding(shape, geometry)
    assert widths == list(geometry.margin)
    labels = padded(label_map(shape), widths)
    assert list(labels.shape) == entry["padded"]
    assert digest(labels, "i2") == entry["labels"]
    assert digest(padded(volume(shape), widths)) == entry["image"]


def test_a_small_volume_is_padded_to_a_segment() -> None:
    geometry = Geometry.cubes(19, 7)
    assert padding((10, 12, 30), geometry) == [(3, 6), (3, 4), (3, 3)]
    assert padding((10, 19, 30), geometry, pad=False) == [(0, 9), (0, 0), (0, 0)]


@pytest.mark.data
@pytest.mark.skipif(not BRATS.is_dir(), reason="no BRATS 2015 subjects in ../shared/data")
def test_segments_of_a_real_subject_are_deepmedics() -> None:
    known = REFERENCE["brats"]
    channels, geometry = ("flair", "t1c"), Geometry.cubes(25, 17, (3,))
    files = {name: str(BRATS / known["case"] / FILES[name]) for name in (*channels, "labels")}
    image = np.stack([read_volume(files[name]) for name in channels]).astype(np.float32)
    image = padded(image, geometry.margin)
    labels = padded(read_volume(files["labels"]), geometry.margin)
    for entry in known["segments"]:
        start = geometry.start(entry["centre"])
        assert digest(high_segment(image, start, geometry)) == entry["high"]
        assert digest(low_context(image, start, (3, 3, 3), geometry)) == entry["low"]
        assert digest(labels[geometry.predicted(start)], "i2") == entry["labels"]


@pytest.mark.deepmedic
def test_the_reference_is_what_deepmedic_gives(tmp_path: Path) -> None:
    checkout = os.environ.get("GANSYNTH_DEEPMEDIC")
    if not checkout:
        pytest.skip("GANSYNTH_DEEPMEDIC names no checkout of DeepMedic")
    script = "tests.adapters.deepmedic.reference.make_reference"
    python = os.environ.get("GANSYNTH_DEEPMEDIC_PYTHON", "python")
    command = [python, "-m", script, checkout, "-o", str(tmp_path / "made.json")]
    root = Path(__file__).parents[3]
    done = subprocess.run(command, capture_output=True, text=True, cwd=root)
    if "has no attribute" in done.stderr:
        pytest.skip("GANSYNTH_DEEPMEDIC_PYTHON has another numpy than DeepMedic is written for")
    assert done.returncode == 0, done.stderr
    made = json.loads((tmp_path / "made.json").read_text())
    for key in ("contexts", "shares", "maps", "tiles", "padding", "changes"):
        assert made[key] == REFERENCE[key]
