"""The nearest training case: copies are found wherever they lie, and told from what is merely near.

Pictures of 64 pixels are blocks of noise, 8 pixels wide; they are compared on blocks of 4 first.
"""

import zlib
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import Case, FloatArray, Sample, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Placement, Space
from gansynth.metrics.nearest import find_nearest
from gansynth.metrics.nearest_search import CANDIDATES, gap, pool

SIZE = (64, 64)


def noise(key: object, shape: tuple[int, ...], channels: int = 1, grain: int = 8) -> FloatArray:
    """Blocks of noise (C, *shape), the same for a key."""
    rng = np.random.default_rng([zlib.crc32(str(key).encode()), *shape])
    drawn = rng.standard_normal((channels, *(-(-n // grain) for n in shape)))
    for axis in range(1, drawn.ndim):
        drawn = drawn.repeat(grain, axis)
    return np.asarray(drawn[(slice(None), *map(slice, shape))], np.float32)


class Drawn(CaseSource):
    """Cases of noise; counts how often each is read.

    Args:
        space: of samples.
        shape: of every case.
        number: of cases.
        each: cases of one subject, which differ by little.
    """

    def __init__(
        self, space: Space, shape: tuple[int, ...], number: int = 30, each: int = 1
    ) -> None:
        self.request = SourceRequest("drawn", "here")
        self._space, self._shape, self._each = space, shape, each
        self._ids = tuple(f"case_{i:03d}" for i in range(number))
        self.read: Counter[str] = Counter()

    name = "drawn"
    held_out_ids = ()

    @property
    def schema(self) -> Schema:
        axes = "DHW"[-len(self._shape) :]
        return Schema(("a", "b"), {"background": 0}, (1.0,) * len(axes), axes)

    @property
    def space(self) -> Space:
        return self._space

    @property
    def train_ids(self) -> tuple[str, ...]:
        return self._ids

    def subject(self, case_id: str) -> str:
        return f"subject {int(case_id[-3:]) // self._each}"

    def load(self, case_id: str) -> Case:
        self.read[case_id] += 1
        number = int(case_id[-3:])
        image = noise(number // self._each, self._shape, 2)
        image = image + 0.05 * noise(f"own {number}", self._shape, 2)
        image = image * np.array([100, 0.01], np.float32).reshape(2, *[1] * len(self._shape))
        return Case(case_id, self.subject(case_id), np.asarray(image, np.float32))


def spoilt(image: FloatArray, much: float = 0.1) -> Sample:
    """A sample that is a copy with noise on it."""
    grain = noise("spoilt", image.shape[1:], len(image), grain=1)
    return Sample(image + much * grain * image.std(axis=tuple(range(1, image.ndim)), keepdims=True))


def nearest(source: Drawn, *samples: Sample) -> Any:
    return find_nearest(samples, source, source.space, real=12)


def found(source: Drawn, *images: FloatArray) -> Any:
    return nearest(source, *map(spoilt, images))


@pytest.fixture(scope="module")
def plain() -> Drawn:
    return Drawn(Space("crop", SIZE), SIZE)


def test_copies_are_found_and_told(plain):
    ids = plain.train_ids[3:23:4]
    answer = found(plain, *(plain.load(case).image for case in ids))
    assert tuple(one.case for one in answer.near) == ids
    assert all(one.ratio < 0.15 for one in answer.near)
    assert "may be memorising" in answer.hint
    assert answer.compared == 30


def test_new_pictures_are_as_far_as_other_subjects(plain):
    scale = np.array([100, 0.01], np.float32).reshape(2, 1, 1)
    new = [noise(f"new {i}", SIZE, 2) * scale for i in range(8)]
    answer = nearest(plain, *map(Sample, new))
    assert 0.9 < answer.median_ratio < 1.1
    assert answer.hint == ""


def test_what_is_blurred_is_no_copy(plain):
    flat = [np.zeros((2, *SIZE), np.float32)] * 4
    answer = nearest(plain, *map(Sample, flat))
    assert 0.6 < answer.median_ratio < 0.85
    assert answer.hint == ""


def test_channels_count_alike_whatever_their_units(plain):
    """The second channel is a ten-thousandth of the first, and the only one that is a copy."""
    mixed = plain.load("case_007").image.copy()
    mixed[0] = 0
    (near,) = found(plain, mixed).near
    assert near.case == "case_007"


@pytest.mark.parametrize("shift", [(3, -2), (-5, 4)])
def test_a_shifted_copy_is_found(plain, shift):
    moved = np.roll(plain.load("case_011").image, shift, axis=(1, 2))
    (near,) = found(plain, moved).near
    assert (near.case, near.placement.corner) == ("case_011", tuple(-s for s in shift))
    assert near.ratio < 0.5


@pytest.mark.parametrize("corner", [(0, 0), (37, 11), (56, 56)])
def test_a_copy_is_found_wherever_it_was_cut(corner):
    source = Drawn(Space("crop", SIZE), (120, 120))
    at = Placement(corner)
    (near,) = found(source, source.space.to_generator(source.load("case_004"), at).image).near
    assert (near.case, near.placement) == ("case_004", at)


def test_a_copy_of_a_padded_case_is_found():
    source = Drawn(Space("crop", SIZE), (50, 64))
    padded = source.space.to_generator(source.load("case_004"))
    (near,) = found(source, padded.image).near
    assert (near.case, near.placement.corner) == ("case_004", (-7, 0))


def test_slices_of_volumes_are_looked_at_one_by_one():
    source = Drawn(Space("slice", SIZE), (9, 80, 70), number=4)  # the last slice is unlike others
    at = Placement((9, 2), 8)
    answer = found(source, source.space.to_generator(source.load("case_002"), at).image)
    assert (answer.near[0].case, answer.near[0].placement) == ("case_002", at)
    assert answer.compared == 36


def test_volumes_are_compared_too():
    source = Drawn(Space("crop", (16, 24, 24)), (20, 30, 30), number=6)
    at = Placement((3, 1, 5))
    (near,) = found(source, source.space.to_generator(source.load("case_005"), at).image).near
    assert (near.case, near.placement) == ("case_005", at)


def test_resampled_cases_are_compared_as_samples_are():
    source = Drawn(Space("resample", (40, 40)), (60, 80), number=6)
    (near,) = found(source, source.space.to_generator(source.load("case_001")).image).near
    assert (near.case, near.placement) == ("case_001", Placement())
    assert near.ratio < 0.2


def test_a_windowed_space_is_searched_in_its_own_units(plain):
    source = Drawn(replace(plain.space, window=((-200.0, 200.0), (-0.02, 0.02))), SIZE)
    (near,) = found(source, source.space.to_generator(source.load("case_009")).image).near
    assert (near.case, near.ratio < 0.2) == ("case_009", True)


def test_what_is_usual_is_the_distance_to_another_subject():
    """Cases of one subject are nearly the same: near to each other is not near to a stranger."""
    twins = Drawn(Space("crop", SIZE), SIZE, each=3)
    answer = found(twins, twins.load("case_000").image)
    assert answer.usual > 0.7
    assert answer.near[0].ratio < 0.2


def test_of_one_subject_nothing_is_usual():
    alone = Drawn(Space("crop", SIZE), SIZE, number=4, each=4)
    answer = found(alone, alone.load("case_002").image)
    assert (answer.usual, answer.median_ratio, answer.hint) == (None, None, "")
    assert answer.near[0].case == "case_002"


def test_no_case_is_read_again_for_every_sample():
    source = Drawn(Space("crop", SIZE), SIZE, number=CANDIDATES + 20)
    samples = [Sample(noise(i, SIZE, 2)) for i in range(12)]
    nearest(source, *samples)
    assert max(source.read.values()) <= 3  # to tell what is usual, on the coarse grid, and in full


def test_the_table_names_cases_and_ratios(plain):
    document: Any = found(plain, plain.load("case_003").image).to_json()
    assert document["samples"][0]["case"] == "case_003"
    assert document["median_ratio"] == pytest.approx(document["samples"][0]["ratio"], abs=1e-3)


def test_blocks_are_means_and_a_rest_is_left_out():
    image = np.arange(10, dtype=np.float32).reshape(1, 2, 5)
    assert pool(image, (2, 2)).tolist() == [[[3.0, 5.0]]]


def test_a_gap_is_of_what_lies_on_each_other():
    one, other = np.zeros((1, 2, 2), np.float32), np.full((1, 3, 3), 9, np.float32)
    other[0, 0, 0] = 2
    assert gap(one, other, (-1, -1)) == 2
    assert gap(one, other, (1, 1)) == 9
