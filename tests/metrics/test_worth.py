import json
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.measure.simulated_runs import SimulationDesign, simulated
from gansynth.metrics.statistics import RunValues, VarianceComponents
from gansynth_benchmark.worth import WorthInCases, worth
from tests.expected import raises_fault

DESIGN = SimulationDesign(3, 2, 20)
TRUTH = VarianceComponents(0.25, 0.25, 4, 0.25, 2.25)
LITTLE = VarianceComponents(1e-4, 1e-4, 1e-4, 1e-4, 1e-4)


def runs(mean, variance=LITTLE, seed=99, design: SimulationDesign = DESIGN) -> RunValues:
    return design.runs(mean + simulated(variance, design, np.random.default_rng(seed))[0])


def curve(means, variance=LITTLE, design: SimulationDesign = DESIGN) -> dict[int, RunValues]:
    return {size: runs(mean, variance, size, design) for size, mean in means.items()}


def exactly(mean: float) -> RunValues:
    return replace(runs(mean), values=np.full((6, 20), mean))


RISING = curve({6: 80, 12: 84, 24: 86})


@pytest.mark.parametrize(
    ("mean", "n", "cases"),
    [
        (85, 12, 12 * 2**0.5 - 12),  # half way in log N
        (82, 12, 6 * 2**0.5 - 12),  # worse than 12 real ones
    ],
)
def test_worth_is_read_off_the_line_in_log_n_within_its_interval(mean, n, cases):
    found = worth(RISING, runs(mean + 0.01), n)
    assert found.cases == pytest.approx(cases, abs=0.1)
    assert found.low is None or found.low < (found.cases or 0)
    if mean == 82:
        assert (found.low or 0) < (found.cases or 0) < (found.high or 0) < (found.low or 0) + 0.3
        assert found.reason is None


@pytest.mark.parametrize(
    ("mean", "n", "limits", "beyond", "reason"),
    [
        (90, 6, (24 - 6, None), "above", "beyond the curve, which ends at N = 24"),
        (70, 12, (None, 6 - 12), "below", "below the curve, which begins at N = 6"),
    ],
)
def test_beyond_the_curve_nothing_is_extrapolated(mean, n, limits, beyond, reason):
    found = worth(RISING, runs(mean), n)
    assert (found.cases, (found.low, found.high)) == (None, limits)
    assert (found.beyond, found.reason) == (beyond, reason)


NOT_BETTER = "does not get better from N = 6 to N = 24"
FALLING = {6: exactly(82), 12: exactly(85), 24: exactly(80)}
STEEP = curve({6: 80, 12: 84, 24: 88}, TRUTH)
OTHERS = replace(runs(82), subjects=tuple(f"other {index}" for index in range(20)))


RUN, SUBJECT = SimulationDesign(1, 1, 20), SimulationDesign(3, 2, 1)


@pytest.mark.parametrize(
    ("points", "arm", "says", "known"),
    [
        (dict.fromkeys((6, 12, 24), exactly(80)), runs(81), NOT_BETTER, set()),
        (FALLING, runs(81), NOT_BETTER, set()),
        (curve({6: 80, 12: 80.8}, TRUTH), runs(80.4, TRUTH), "is not shown (p = ", {"cases"}),
        (RISING, OTHERS, "no run and test subject", set()),
        (STEEP, runs(81, TRUTH), "no lower limit, the curve begins at N = 6", {"cases", "high"}),
        (curve({6: 80, 24: 86}), runs(82), "far apart", {"cases", "low", "high"}),
        (curve({6: 80, 12: 84}, design=RUN), runs(82, design=RUN), "no limits", {"cases"}),
        (curve({6: 80, 12: 84}, design=SUBJECT), runs(82, design=SUBJECT), "no limits", {"cases"}),
    ],
    ids=[
        *("flat", "falls", "rise not shown", "nothing in common", "open end", "far apart"),
        *("run", "subject"),
    ],
)
def test_worth_says_what_weakens_it_and_has_no_number_then(points, arm, says, known):
    found = worth(points, arm, 6)
    assert says in (found.reason or "")
    numbers = {"cases": found.cases, "low": found.low, "high": found.high}
    assert {name for name, value in numbers.items() if value is not None} == known


def test_less_is_better_for_a_distance_and_without_noise_worth_is_exact():
    found = worth({6: exactly(80.0), 12: exactly(84.0)}, exactly(82.0), 6)
    assert [found.low, found.high] == pytest.approx([found.cases] * 2, abs=0.02)
    mirrored = {size: replace(each, values=-each.values) for size, each in RISING.items()}
    arm = runs(82)
    found = worth(mirrored, replace(arm, values=-arm.values), 6, better="lower")
    assert found == worth(RISING, arm, 6)
    assert WorthInCases(**json.loads(json.dumps(found.to_json(), allow_nan=False))) == found


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"curve": {6: RISING[6]}}, "benchmark.worth-curve-too-short"),
        ({"n": 0}, "benchmark.worth-size-below-one"),
        ({"better": "bigger"}, "benchmark.worth-better-unknown"),
        ({"confidence": 95}, "benchmark.worth-confidence-out-of-range"),
    ],
)
def test_bad_input_is_refused_by_name(change, expected):
    with raises_fault(expected):
        worth(**{"curve": RISING, "arm": RISING[6], "n": 6, **change})
