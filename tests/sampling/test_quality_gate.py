"""What may enter a bank."""

import math
from dataclasses import replace

import numpy as np
import pytest

from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.runtime.errors import DataFault
from gansynth.sampling.quality_gate import validate_sample

SCHEMA = Schema(("T1", "FLAIR"), {"background": 0, "tumour": 1}, (1.0, 1.0, 1.0), has_outside=True)
SIZE = (4, 4, 4)


def good() -> Sample:
    image = np.random.default_rng(0).normal(size=(2, *SIZE)).astype(np.float32)
    return Sample(image, (image[0] > 1).astype(np.int16), None, {"case": "c0"})


def spoilt(**changes) -> Sample:
    return replace(good(), **changes)


def image_with(value: float) -> np.ndarray:
    image = good().image.copy()
    image[1, 2, 3, 0] = value
    return image


def one_box(*coords: float) -> Boxes:
    return Boxes(np.array([coords], np.float32), np.ones(1, np.int16))


OUTSIDE_ONLY_VARIES = np.where(np.arange(4)[:, None, None] > 1, 0.5, good().image)
HALF_OUTSIDE = np.where(np.arange(4)[:, None, None] > 1, 1, np.full(SIZE, -1)).astype(np.int16)


@pytest.mark.fault(17, 39)
@pytest.mark.parametrize(
    ("sample", "words"),
    [
        (spoilt(image=good().image[:1]), "1 channel"),
        (spoilt(image=good().image[:, 0]), "axes"),
        (spoilt(image=image_with(math.nan)), "NaN"),
        (spoilt(labels=np.full(SIZE, 7, np.int16)), r"label value\(s\) \[7\]"),
        (spoilt(labels=np.zeros((4, 4, 3), np.int16)), "shape"),
        (spoilt(image=good().image[:, :3], labels=None), "at least"),
        (spoilt(image=np.full((2, *SIZE), 0.3, np.float32)), "constant"),
        (spoilt(image=OUTSIDE_ONLY_VARIES, labels=HALF_OUTSIDE), "constant"),
        (spoilt(labels=np.full(SIZE, -1, np.int16)), "constant"),
        (spoilt(image=image_with(70000)), "float16"),
        (spoilt(boxes=one_box(0, 0, 0, 2, 2, 5)), "leave"),
        (spoilt(boxes=one_box(0, 0, 2, 2)), "expected 6"),
    ],
)
def test_a_bad_sample_is_not_admitted_and_the_reason_named(sample, words):
    with pytest.raises(DataFault, match=words):
        validate_sample(sample, SCHEMA, SIZE)


@pytest.mark.parametrize(
    "sample",
    [
        good(),
        spoilt(labels=None),
        spoilt(image=np.concatenate([good().image[:1], np.zeros((1, *SIZE), np.float32)])),
        spoilt(labels=HALF_OUTSIDE),
        spoilt(boxes=one_box(0, 0, 0, 4, 4, 4)),
    ],
    ids=["plain", "unlabelled", "one-empty-channel", "outside", "box"],
)
def test_a_good_sample_is_admitted(sample):
    validate_sample(sample, SCHEMA, SIZE)
    validate_sample(replace(sample, image=sample.image * 70000), SCHEMA, SIZE, "float32")
