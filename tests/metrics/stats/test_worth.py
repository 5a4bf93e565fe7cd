"""Worth in real cases: by hand where nothing is random, and its interval's coverage where it is."""

import json
from dataclasses import replace

import numpy as np
import pytest

from gansynth.metrics.stats.anova import Variance
from gansynth.metrics.stats.runs import Runs
from gansynth.metrics.stats.simulation import Design, simulated
from gansynth.metrics.stats.worth import Worth, worth
from gansynth.runtime.errors import UsageFault

DESIGN = Design(3, 2, 20)
TRUTH = Variance(0.25, 0.25, 4, 0.25, 2.25)
LITTLE = Variance(1e-4, 1e-4, 1e-4, 1e-4, 1e-4)


def runs(mean: float, variance: Variance = LITTLE, seed: int = 0, design: Design = DESIGN) -> Runs:
    return design.runs(mean + simulated(variance, design, np.random.default_rng(seed))[0])


def curve(means: dict[int, float], variance: Variance = LITTLE) -> dict[int, Runs]:
    return {size: runs(mean, variance, seed=size) for size, mean in means.items()}


RISING = curve({6: 80, 12: 84, 24: 86})


# -- by hand ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mean", "n", "cases"),
    [
        (80, 6, 0),
        (82, 6, 6 * 2**0.5 - 6),  # half way in log N
        (84, 6, 6),
        (85, 12, 12 * 2**0.5 - 12),
        (82, 12, 6 * 2**0.5 - 12),  # worse than 12 real ones
    ],
)
def test_it_is_read_off_the_line_in_log_n(mean, n, cases):
    found = worth(RISING, runs(mean + 0.01, seed=99), n)
    assert found.cases == pytest.approx(cases, abs=0.1)


def test_its_interval_is_around_it():
    found = worth(RISING, runs(82, seed=99), 6)
    assert found.low is not None
    assert found.high is not None
    assert found.cases is not None
    assert found.low < found.cases < found.high < found.low + 0.3
    assert found.reason is None


def test_beyond_the_curve_nothing_is_extrapolated():
    found = worth(RISING, runs(90, seed=99), 6)
    assert (found.cases, found.low, found.high, found.beyond) == (None, 24 - 6, None, "above")
    assert found.reason == "beyond the curve, which ends at N = 24"


def test_below_the_curve_likewise():
    found = worth(RISING, runs(70, seed=99), 12)
    assert (found.cases, found.low, found.high, found.beyond) == (None, None, 6 - 12, "below")
    assert found.reason == "below the curve, which begins at N = 6"


@pytest.mark.parametrize("means", [{6: 80, 12: 80, 24: 80}, {6: 82, 12: 85, 24: 80}])
def test_a_curve_that_does_not_rise_says_nothing_and_why(means):
    exact = {
        size: replace(runs(mean), values=np.full((6, 20), mean)) for size, mean in means.items()
    }
    found = worth(exact, runs(81, seed=99), 6)
    assert (found.cases, found.low, found.high) == (None, None, None)
    assert "does not get better from N = 6 to N = 24" in (found.reason or "")


def test_a_rise_that_is_not_shown_is_told():
    found = worth(curve({6: 80, 12: 80.8}, TRUTH), runs(80.4, TRUTH, seed=99), 6)
    assert "is not shown (p = " in (found.reason or "")
    assert (found.low, found.high) == (None, None)


def test_a_dip_of_the_curve_is_levelled():
    # 85 and 81 are noise around 83, which is reached on the way from 80 at 6 to 83 at 12.
    found = worth(curve({6: 80, 12: 85, 24: 81, 48: 90}), runs(81.5, seed=99), 6)
    assert found.cases == pytest.approx(6 * 2**0.5 - 6, abs=0.1)


def test_less_is_better_for_a_distance():
    mirrored = {size: replace(each, values=-each.values) for size, each in RISING.items()}
    arm = runs(82, seed=99)
    found = worth(mirrored, replace(arm, values=-arm.values), 6, better="lower")
    assert found == worth(RISING, arm, 6)


def test_an_arm_that_is_the_control_is_worth_nothing():
    found = worth(RISING, RISING[6], 6)
    assert (found.cases, found.beyond) == (0, None)
    assert worth(RISING, RISING[12], 12).cases == pytest.approx(0, abs=1e-9)


def test_an_open_end_is_told():
    found = worth(curve({6: 80, 12: 84, 24: 88}, TRUTH), runs(81, TRUTH, seed=99), 6)
    assert found.low is None
    assert "no lower limit, the curve begins at N = 6" in (found.reason or "")


def test_sizes_far_apart_are_told():
    found = worth(curve({6: 80, 24: 86}), runs(82, seed=99), 6)
    assert "far apart" in (found.reason or "")


def test_draws_and_subjects_that_not_all_have_are_left_out():
    keys, some = [(0, 0), (0, 1), (2, 0)], DESIGN.runs(np.zeros((3, 2, 20))).subjects[:15]
    cut = {**RISING, 24: RISING[24].chosen(keys, some)}
    found = worth(cut, runs(82, seed=99), 6)
    assert (found.repetitions, found.subjects, found.dropped) == (2, 15, 5)


@pytest.mark.parametrize("design", [Design(1, 1, 20), Design(3, 2, 1), Design(1, 1, 1)], ids=str)
def test_one_run_or_subject_has_no_limits(design):
    each = {size: runs(mean, seed=size, design=design) for size, mean in ((6, 80), (12, 84))}
    found = worth(each, runs(82, seed=99, design=design), 6)
    assert found.cases == pytest.approx(2.5, abs=0.3)
    assert (found.low, found.high) == (None, None)
    assert "no limits" in (found.reason or "")


def test_nothing_in_common_says_so():
    arm = runs(82)
    other = replace(arm, subjects=tuple(f"other {index}" for index in range(20)))
    found = worth(RISING, other, 6)
    assert (found.cases, found.rise) == (None, None)
    assert "no run and test subject" in (found.reason or "")


def test_arms_without_any_noise_are_read_off_exactly():
    exact = {n: replace(runs(m), values=np.full((6, 20), m)) for n, m in ((6, 80.0), (12, 84.0))}
    found = worth(exact, replace(runs(82), values=np.full((6, 20), 82.0)), 6)
    assert found.cases == pytest.approx(6 * 2**0.5 - 6)
    assert found.low == pytest.approx(found.cases, abs=0.02)
    assert found.high == pytest.approx(found.cases, abs=0.02)


def test_it_is_json():
    found = worth(RISING, runs(82, seed=99), 6)
    assert Worth(**json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


# -- coverage --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("means", "arm", "n", "true"),
    [
        ({6: 76, 12: 80, 24: 84}, 80, 6, 6),
        ({6: 76, 12: 80, 24: 84}, 78, 12, 6 * 2**0.5 - 12),
        ({n: 90 - 34 / n**0.5 for n in (6, 12, 24)}, 90 - 34 / 10**0.5, 6, 4),
    ],
    ids=["line", "worse", "power law"],
)
def test_the_interval_holds_the_truth_in_95_of_100(means, arm, n, true):
    rng, inside = np.random.default_rng(0), []
    for _ in range(250):
        common = 6 * rng.standard_normal(20)
        every = [
            mean + simulated(TRUTH, DESIGN, rng)[0] + common for mean in (*means.values(), arm)
        ]
        *points, own = map(DESIGN.runs, every)
        found = worth(dict(zip(means, points, strict=True)), own, n)
        low = -np.inf if found.low is None else found.low
        inside.append(low <= true <= (np.inf if found.high is None else found.high))
    assert abs(np.mean(inside) - 0.95) < 0.02 + 3.5 * np.sqrt(0.05 * 0.95 / 250)


# -- refused ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"curve": {6: RISING[6]}}, "1 size"),
        ({"n": 0}, "size is 0"),
        ({"better": "bigger"}, "'bigger'"),
        ({"confidence": 95}, "confidence is 95"),
    ],
)
def test_bad_input_is_refused_by_name(change, named):
    with pytest.raises(UsageFault) as caught:
        worth(**{"curve": RISING, "arm": RISING[6], "n": 6, **change})
    assert named in str(caught.value)
