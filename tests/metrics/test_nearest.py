"""The nearest training case: copies are found wherever they lie, and told from what is merely near.

Pictures of 64 pixels are blocks of noise, 8 pixels wide; they are compared on blocks of 4 first.
"""

import zlib
from dataclasses import replace

import numpy as np
import pytest

from gansynth.core.schema import Case, Sample, Schema
from gansynth.core.source import CaseHeader, CaseSource, SourceRequest
from gansynth.core.space import Placement, Space
from gansynth.metrics.nearest import find_nearest

SIZE = (64, 64)
CROP = Space("crop", SIZE)


def noise(key, shape, channels=1, grain=8):
    """Blocks of noise (C, *shape), the same for a key."""
    rng = np.random.default_rng([zlib.crc32(str(key).encode()), *shape])
    drawn = rng.standard_normal((channels, *(-(-n // grain) for n in shape)))
    for axis in range(1, drawn.ndim):
        drawn = drawn.repeat(grain, axis)
    return np.asarray(drawn[(slice(None), *map(slice, shape))], np.float32)


class Drawn(CaseSource):
    """Cases of noise. ``each``: alike cases of one subject."""

    name = "drawn"
    held_out_ids = ()
    space = CROP
    train_ids: tuple[str, ...] = ()

    def __init__(self, space=CROP, shape=SIZE, number=24, each=1):
        self.request = SourceRequest("drawn", "here")
        self.space, self._shape, self._each = space, shape, each
        self.train_ids = tuple(f"case_{i:03d}" for i in range(number))

    @property
    def schema(self):
        axes = "DHW"[-len(self._shape) :]
        return Schema(("a", "b"), {"background": 0}, (1.0,) * len(axes), axes)

    def header(self, case_id):
        subject = f"subject {int(case_id[-3:]) // self._each}"
        return CaseHeader(subject, self._shape, self.schema.spacing)

    def load(self, case_id):
        number = int(case_id[-3:])
        image = noise(number // self._each, self._shape, 2)
        image = image + 0.05 * noise(f"own {number}", self._shape, 2)
        image = image * np.array([100, 0.01], np.float32).reshape(2, *[1] * len(self._shape))
        return Case(case_id, self.header(case_id).subject, np.asarray(image, np.float32))


def spoilt(image):
    """A sample that is a copy with noise on it."""
    grain = noise("spoilt", image.shape[1:], len(image), grain=1)
    return Sample(image + 0.1 * grain * image.std(axis=tuple(range(1, image.ndim)), keepdims=True))


def nearest(source, *samples):
    people = {case: source.header(case).subject for case in source.train_ids}
    return find_nearest(samples, people, source.space, load=source.load, real=12)


def found(source, *images):
    return nearest(source, *map(spoilt, images))


PLAIN = Drawn()


def test_copies_are_found_and_told():
    ids = PLAIN.train_ids[3:23:4]
    answer = found(PLAIN, *(PLAIN.load(case).image for case in ids))
    assert tuple(one.case for one in answer.near) == ids
    assert all(one.ratio < 0.15 for one in answer.near)
    assert "may be memorising" in answer.hint
    assert answer.compared == 24
    told = answer.to_json()
    assert told["samples"][0]["case"] == ids[0]
    assert told["median_ratio"] == pytest.approx(answer.median_ratio)


@pytest.mark.parametrize(("kind", "low", "high"), [("new", 0.9, 1.1), ("flat", 0.6, 0.85)])
def test_new_pictures_are_as_far_as_other_subjects_and_what_is_blurred_is_no_copy(kind, low, high):
    scale = np.array([100, 0.01], np.float32).reshape(2, 1, 1) * (kind == "new")
    answer = nearest(PLAIN, *(Sample(noise(f"new {i}", SIZE, 2) * scale) for i in range(8)))
    assert low < answer.median_ratio < high
    assert answer.hint == ""


WINDOWED = replace(CROP, window=((-200.0, 200.0), (-0.02, 0.02)))


@pytest.mark.parametrize(
    ("space", "shape", "at"),
    [
        (CROP, (120, 120), Placement((37, 11))),
        (CROP, (120, 120), Placement((56, 56))),
        (CROP, (50, 64), Placement((-7, 0))),
        (Space("slice", SIZE), (9, 80, 70), Placement((9, 2), 8)),
        (Space("crop", (16, 24, 24)), (20, 30, 30), Placement((3, 1, 5))),
        (Space("resample", (40, 40)), (60, 80), Placement()),
        (WINDOWED, SIZE, Placement((0, 0))),
    ],
    ids=["inside", "end", "padded", "slice", "volume", "resampled", "windowed"],
)
def test_a_copy_is_found_wherever_it_was_cut_in_every_space(space, shape, at):
    source = Drawn(space, shape, number=6)
    copy = source.space.to_generator(source.load("case_004"), at).image
    answer = found(source, copy)
    assert (answer.near[0].case, answer.near[0].placement) == ("case_004", at)
    assert answer.near[0].ratio < 0.2
    assert answer.compared == 6 * (9 if space.grid == "slice" else 1)


def test_what_is_usual_is_the_distance_to_another_subject():
    """Cases of one subject are nearly the same: near to each other is not near to a stranger."""
    twins = Drawn(each=3)
    answer = found(twins, twins.load("case_000").image)
    assert answer.usual > 0.7
    assert answer.near[0].ratio < 0.2
    alone = Drawn(number=4, each=4)
    answer = found(alone, alone.load("case_002").image)
    assert (answer.usual, answer.median_ratio, answer.hint) == (None, None, "")
    assert answer.near[0].case == "case_002"
