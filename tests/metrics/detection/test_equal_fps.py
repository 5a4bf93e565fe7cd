"""Arms compared at equal false positives per slice, and what is said of it."""
# mypy: disallow-untyped-calls=False

from dataclasses import replace

import numpy as np
import pytest

from gansynth.metrics.detection.free_response import Arm, AtEqualFps, at_equal_fps
from gansynth.metrics.detection.matching import match, pooled
from gansynth.metrics.detection.record import Found
from gansynth.metrics.detection.resampling import Estimate, everyone, resamples, with_interval
from tests.metrics.detection.simulated import document, drawn, seen

A, B, ELSEWHERE = (0, 0, 10, 10), (20, 0, 30, 10), (40, 40, 50, 50)


def arm(name, detections, confidence=0.5):
    pool = pooled(detections)
    return Arm(name, pool, match(pool, (0.5,))[0], confidence)


def weights_of(arm, times=200):
    return resamples(len(arm.pool.subjects), times, np.random.default_rng(0))


def scores_changed(detections, change):
    return replace(
        detections,
        images=tuple(
            replace(s, found=Found(s.found.boxes, change(s.found.scores), s.found.labels))
            for s in detections.images
        ),
    )


def test_by_hand():
    images = seen("x", [A, B], [A, ELSEWHERE, B], [0.9, 0.6, 0.1]), seen("y")
    others = seen("x", [A, B], [A, B, ELSEWHERE], [0.4, 0.3, 0.2]), seen("y")
    held, asked = arm("real", document(*images)), arm("both", document(*others))
    found = at_equal_fps(held, asked, weights_of(held))
    assert (found.fps, found.held_sensitivity, found.asked_sensitivity) == (0.5, 0.5, 1)
    assert found.difference.value == 0.5
    assert found.reached
    back = at_equal_fps(asked, held, weights_of(held))
    assert (back.fps, back.held_sensitivity, back.asked_sensitivity) == (0, 0, 0.5)


def test_more_of_everything_is_not_better():
    """The trap: higher scores all over find more at one confidence, with more false positives."""
    found = drawn(1, 60, per_subject=4)
    plain = arm("real", found)
    eager = arm("both", scores_changed(found, np.sqrt))
    once = everyone(len(plain.pool.subjects))
    assert eager.working(once)[1] > plain.working(once)[1] + 0.02
    assert eager.working(once)[0] > plain.working(once)[0] + 0.5
    for held, asked in ((plain, eager), (eager, plain)):
        compared = at_equal_fps(held, asked, weights_of(plain))
        assert (compared.difference.value, compared.difference.low) == (0, 0)
        assert compared.difference.high == 0
        assert compared.verdict().endswith("no difference shown.")


def test_a_curve_that_ends_before_is_said_to():
    found = drawn(1, 60, per_subject=4)
    cut = replace(
        found,
        images=tuple(
            replace(s, found=Found(*(v[s.found.scores > 0.8] for v in vars(s.found).values())))
            for s in found.images
        ),
    )
    plain, short = arm("real", found), arm("short", cut)
    compared = at_equal_fps(plain, short, weights_of(plain))
    assert (compared.reached, compared.ended) == (False, 1)
    once = everyone(len(plain.pool.subjects))
    assert compared.asked_sensitivity == short.curves(once).sensitivity[0, -1]
    assert "(short does not make so many: this is the most it finds)" in compared.verdict()
    assert "no verdict" in compared.verdict()
    itself = at_equal_fps(short, short, weights_of(plain))
    assert (itself.reached, itself.ended) == (True, 0)


def said(difference, *, units=36, reached=True):
    return AtEqualFps("A", "B", 1, 0.5, 0.6, difference, reached, 0, units, 200).verdict()


@pytest.mark.parametrize(
    ("difference", "options", "says"),
    [
        ((0.1, 0.01, 0.2), {}, "B finds more than A in patients like these 36"),
        ((-0.1, -0.2, -0.01), {}, "A finds more than B in patients like these 36"),
        ((0.1, -0.01, 0.2), {}, "no difference shown"),
        ((0.1, 0.0, 0.2), {}, "no difference shown"),
        ((0.1, 0.05, 0.2), {"units": 9}, "9 patients are too few for a verdict"),
        ((0.1, np.nan, np.nan), {}, "without resamples"),
        ((np.nan, np.nan, np.nan), {}, "nothing to compare"),
        ((-0.1, -0.2, -0.01), {"reached": False}, "not at equal numbers, so no verdict"),
        ((0.1, 0.01, 0.2), {"reached": False}, "B finds more than A"),
    ],
)
def test_the_verdict_claims_no_more_than_the_interval(difference, options, says):
    assert says in said(Estimate(*difference), **options)


def test_without_resamples_there_is_no_interval():
    plain = arm("real", drawn(1, 60))
    compared = at_equal_fps(plain, plain, weights_of(plain, 0))
    assert np.isnan(compared.difference.low)
    assert compared.to_json()["difference"] == {"value": 0, "low": None, "high": None}


def test_differences_are_of_the_same_patients():
    """Paired: an arm that always finds one lesion more has a difference that hardly varies."""
    rng = np.random.default_rng(0)
    less, more = [], []
    for n in range(40):
        both = (seen(f"{n}", [A, B], [A, B], [0.9, s], subject=f"{n}") for s in (0.1, 0.9))
        if rng.random() < 0.5:  # nobody finds A in these
            both = (seen(f"{n}", [A, B], [B], [s], subject=f"{n}") for s in (0.1, 0.9))
        one, other = both
        less.append(one)
        more.append(other)
    held, asked = arm("less", document(*less)), arm("more", document(*more))
    found = at_equal_fps(held, asked, weights_of(held))
    assert vars(found.difference) == pytest.approx({"value": 0.5, "low": 0.5, "high": 0.5})
    spread = [held.working(weights_of(held))[1]]
    alone = with_interval(0, spread)
    assert alone.high - alone.low > 0.1
