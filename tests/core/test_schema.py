import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.schema import OUTSIDE, Boxes, Case, Sample, Schema, content_hash
from tests.expected import raises_fault

BRAIN = Schema(
    channels=("T1", "FLAIR"),
    labels={"background": 0, "oedema": 1, "core": 2, "unsure": 3},
    spacing=(1.0, 0.5, 0.5),
    has_outside=True,
    outside_fill=(0.0, -1.5),
    ignore=3,
)
SLICE = Schema(("CT",), {"background": 0, "liver": 1}, (0.7, 0.7), axes="HW")


def case(**changes: Any) -> Case:
    labels = np.zeros((3, 4, 5), np.int16)
    labels[0, 0, :4] = (OUTSIDE, 1, 2, 3)
    return replace(
        Case("case_7", "person_7", np.zeros((2, 3, 4, 5), np.float32), labels), **changes
    )


@pytest.mark.parametrize("schema", [BRAIN, SLICE])
def test_a_schema_comes_back_from_json(schema):
    assert Schema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"spacing": [1.0, None, 1.0]}, "spacing: None, expected float"),
        ({"labels": {"background": "0"}}, "labels: '0', expected int"),
        ({"has_outside": 1}, "has_outside: 1, expected bool"),
        ({"colour": 1}, "unexpected 'colour'"),
    ],
)
def test_a_value_of_another_type_and_an_unknown_key_are_refused_by_name(changes, words):
    with pytest.raises(TypeError, match=f"^{words}$"):
        Schema.from_json({**BRAIN.to_json(), **changes})
    with pytest.raises(KeyError, match="has_outside"):
        Schema.from_json({k: v for k, v in BRAIN.to_json().items() if k != "has_outside"})


def test_label_values_start_with_outside_and_leave_out_the_ignore_label():
    assert BRAIN.label_values == (OUTSIDE, 0, 1, 2)
    assert SLICE.label_values == (0, 1)
    assert BRAIN.foreground == (1, 2)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"axes": "XYZ"}, "schema.axes-unknown"),
        ({"spacing": (1.0, 1.0)}, "schema.spacing-count-differs"),
        ({"channels": ()}, "schema.no-channels"),
        ({"labels": {"tumour": 1}}, "schema.no-background"),
    ],
)
def test_a_schema_that_cannot_be_is_refused(change, expected):
    with raises_fault(expected):
        replace(BRAIN, **change)


def image_with(value: float) -> np.ndarray[Any, Any]:
    image = np.zeros((2, 3, 4, 5), np.float32)
    image[1, 2, 3, 4] = value
    return image


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"image": np.zeros((3, 4, 5), np.float32)}, "schema.image-axes-differ"),
        ({"image": np.zeros((1, 3, 4, 5), np.float32)}, "schema.image-channels-differ"),
        ({"image": image_with(np.nan)}, "schema.image-not-finite"),
        ({"image": image_with(-np.inf)}, "schema.image-not-finite"),
        ({"labels": np.zeros((3, 4, 4), np.int16)}, "schema.labels-shape-differs"),
        ({"labels": np.full((3, 4, 5), 7, np.int16)}, "schema.label-values-unknown"),
    ],
)
def test_a_wrong_case_is_refused_by_name_with_what_was_found(change, expected):
    case().validate(BRAIN)
    with raises_fault(expected):
        case(**change).validate(BRAIN)
    with raises_fault(expected):
        Sample(**{"image": case().image, **change}).validate(BRAIN)


def test_outside_needs_a_schema_that_has_it():
    with raises_fault("schema.label-values-unknown"):
        case().validate(replace(BRAIN, has_outside=False))


@pytest.mark.fault(17)
@pytest.mark.parametrize(
    ("coords", "labels", "expected"),
    [
        (np.zeros((1, 5)), np.zeros(1), "schema.box-arrays-malformed"),
        (np.ones((2, 4)), np.zeros(1), "schema.box-arrays-malformed"),
        (np.array([[0, 0, 2, 0]]), np.zeros(1), "schema.box-empty"),
    ],
)
def test_wrong_boxes_are_refused(coords, labels, expected):
    with raises_fault(expected):
        Boxes(coords.astype(np.float32), labels.astype(np.int16))


def test_a_hash_is_of_shape_type_values_and_place_and_not_of_memory():
    array = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    turned = np.ascontiguousarray(array.transpose(2, 1, 0)).transpose(2, 1, 0)
    assert content_hash(array, None) == content_hash(turned, None)
    others: list[Any] = [(array.reshape(3, 2, 4), None), (array.astype(np.int32), None)]
    others += [(array + np.float32(1e-6), None), (None, array), (array,)]
    assert content_hash(array, None) not in {content_hash(*other) for other in others}
