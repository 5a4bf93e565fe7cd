"""All numbers of some arms as one document."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace

import numpy as np
import pytest

from gansynth.metrics.detection import Asked, froc, match, measure_arms, pooled
from gansynth.metrics.detection.report import number
from tests.metrics.detection.simulated import document, drawn, seen

FOUND = drawn(1, 60, per_subject=4)


@pytest.fixture(scope="module")
def measured():
    return measure_arms({"a": FOUND}, Asked(resamples=300, confidence=0.3))


def estimates(part):
    """Every number with an interval in a document."""
    if isinstance(part, dict):
        if part.keys() == {"value", "low", "high"}:
            yield part
        for inner in part.values():
            yield from estimates(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from estimates(inner)


def test_intervals_hold_their_numbers(measured):
    (arm,) = measured["arms"]
    found = list(estimates(arm))
    assert len(found) > 20
    assert all(each["low"] <= each["value"] <= each["high"] for each in found)
    assert sum(each["low"] < each["high"] for each in found) > 15


def test_the_drawn_curve_is_the_curve_within_its_band_up_to_its_end(measured):
    at = measured["arms"][0]["at"]["0.5"]
    pool = pooled(FOUND)
    curve = froc(pool, match(pool, (0.5,))[0])
    line = at["drawn"]
    np.testing.assert_allclose(line["sensitivity"], curve.at(line["fps"])[0])
    assert line["fps"][-1] <= curve.end[0] == at["froc"]["end"]
    inside = np.array(line["low"]) <= line["sensitivity"]
    inside &= np.array(line["high"]) >= line["sensitivity"]
    assert inside.all()
    assert np.diff(line["low"]).min() >= 0


def test_a_document_is_json_even_where_nothing_is_defined():
    empty = document(seen("x"), names=("a", "b"))
    document_ = measure_arms({"a": empty, "b": empty}, Asked(resamples=20))
    text = json.dumps(document_, allow_nan=False)
    assert json.loads(text)["arms"][0]["map"]["value"] is None
    assert "nothing to compare" in document_["equal_fps"][0]["verdict"]


def test_progress_is_told_to_the_end():
    told = []
    measure_arms(
        {"a": FOUND, "b": FOUND},
        Asked(resamples=0),
        progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


def test_curves_that_end_at_the_working_point_are_said_to():
    short = replace(FOUND, confidence=0.3)
    said = measure_arms({"a": short, "b": short}, Asked(confidence=0.3, resamples=0))["warnings"]
    assert any("no arm can be asked" in text for text in said)
    said = measure_arms({"a": short, "b": short}, Asked(confidence=0.4, resamples=0))["warnings"]
    assert said == []


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (None, "–"),
        (0.51, "0.510"),
        ({"value": None, "low": None, "high": None}, "–"),
        ({"value": 0.5, "low": None, "high": None}, "0.500"),
        ({"value": 0.5, "low": 0.4, "high": 0.61}, "0.500 [0.400, 0.610]"),
    ],
)
def test_numbers_are_shown_with_their_intervals(found, text):
    assert number(found) == text
