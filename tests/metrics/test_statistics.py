"""Runs, mean squares and the test of them. ``bench_statistics.py`` simulates more."""

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit, logit

from benchmarks.measure.simulated_runs import SimulationDesign, simulated
from gansynth.metrics.statistics import (
    ArmComparison,
    Interval,
    MeanSquares,
    RunValues,
    VarianceComponents,
    compare,
    components,
    detectable,
    false_claim,
    holm,
    interval_of_mean,
    paired,
    variance,
    wilcoxon,
    within,
)
from tests.expected import raises_fault

NONE = float("nan")
DESIGN = SimulationDesign(3, 2, 20)
TRUTH = VarianceComponents(draw=1.0, seed=0.5, case=4.0, draw_case=0.5, rest=2.0)
PILOT = VarianceComponents(0.09, 0.25, 4, 0.25, 2.25)  # of a pilot, in points of Dice


def runs(values, draws=(0, 0, 1), seeds=(0, 1, 0), subjects=("a", "b")) -> RunValues:
    return RunValues(np.array(values, float), draws, seeds, subjects)


def test_values_are_paired_by_run_and_subject_and_those_of_one_side_are_dropped_and_counted():
    arm = runs([[1, 2], [3, 4], [5, 6]])
    found = paired(arm, runs([[50, 10], [40, 20]], (1, 0), (0, 1), ("b", "a")))
    assert (found.keys, found.subjects) == (((0, 1), (1, 0)), ("a", "b"))
    assert found.values.tolist() == [[3 - 20, 4 - 40], [5 - 10, 6 - 50]]
    found = paired(arm, runs([[1, 2]] * 3, subjects=("b", "c")))
    assert (found.subjects, found.dropped) == (("b",), 2)
    arm.values[1, 0] = NONE
    found = paired(arm, runs([[0, 0]] * 3))
    assert (found.subjects, found.dropped) == (("b",), 1)


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"values": np.zeros((2, 2))}, "metrics.run-values-shape-differs"),
        ({"seeds": (0, 1)}, "metrics.run-values-shape-differs"),
        ({"seeds": (0, 0, 0)}, "metrics.run-value-occurs-twice"),
        ({"subjects": ("a", "a")}, "metrics.run-value-occurs-twice"),
        ({"values": np.array([[1, 2], [3, np.inf], [5, 6]])}, "metrics.run-value-infinite"),
    ],
)
def test_what_is_no_table_of_runs_is_refused_by_name(change, expected):
    with raises_fault(expected):
        runs(**{"values": np.ones((3, 2)), **change})


def test_one_run_is_the_t_test():
    values = np.random.default_rng(0).normal(0.6, 2, 15)
    test, peer = MeanSquares.of(values[None]), stats.ttest_1samp(values, 0)
    assert float(test.df) == pytest.approx(14)
    assert float(test.p()) == pytest.approx(peer.pvalue)
    ends = float(test.mean - test.reach(0.05)), float(test.mean + test.reach(0.05))
    assert ends == pytest.approx(tuple(peer.confidence_interval()))


def test_degrees_of_freedom_are_satterthwaites_by_hand():
    mean, run, case, cross = np.array([0.0, 50.0, 60.0, 5.0])
    test = MeanSquares(mean, run, case, cross, 4, 11)
    expected = (50 + 60 - 5) ** 2 / (50**2 / 3 + 60**2 / 10 + 5**2 / 30)
    assert float(test.df) == pytest.approx(expected)
    assert float(test.error) == pytest.approx(math.sqrt(105 / 44))


@pytest.mark.parametrize(
    ("design", "truth"), [(DESIGN, PILOT), (SimulationDesign(10, 1, 30), TRUTH)], ids=str
)
def test_a_null_arm_is_called_different_in_five_and_the_detectable_effect_in_eighty_of_100(
    design, truth
):
    values = simulated(truth, design, np.random.default_rng(1), number=3000)
    test, effect = MeanSquares.of(values.mean(axis=2)), detectable(truth, *design)
    assert abs((test.p() <= 0.05).mean() - 0.05) < 0.012
    moved = replace(test, mean=test.mean + effect)
    assert abs((moved.p() <= 0.05).mean() - 0.8) < 0.04
    assert ((test.p() <= 0.05) == (np.abs(test.mean) > test.reach(0.05))).all()
    shown = replace(test, mean=test.mean + 2 * effect).equivalence(2 * effect) <= 0.05
    assert abs(shown.mean() - 0.05) < 0.012
    printed = test.detectable(0.05, 0.8)
    assert np.sqrt((printed**2).mean()) == pytest.approx(effect, rel=0.08)


SHARE, LENGTH, ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("middle", "half", "bounds", "expected"),
    [
        (0.5, 0.4, SHARE, (expit(-1.6), expit(1.6))),
        (0.9, 0.3, SHARE, (expit(logit(0.9) - 0.3 / 0.09), expit(logit(0.9) + 0.3 / 0.09))),
        (0.5, 1e9, SHARE, (0, 1)),
        (1.0, 0, SHARE, (1, 1)),  # on a bound
        (1.0, 0.1, SHARE, (None, None)),
        (7.1, 8.9, LENGTH, (7.1 * math.exp(-8.9 / 7.1), 7.1 * math.exp(8.9 / 7.1))),
        (15.0, 75.0, LENGTH, (None, None)),  # says nothing
        (0.2, 4.2, ANY, (-4, 4.4)),
    ],
)
def test_an_interval_that_reaches_beyond_is_brought_within(middle, half, bounds, expected):
    assert within(middle, middle - half, middle + half, bounds) == pytest.approx(expected)


UNBALANCED = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]


@pytest.mark.parametrize("kept", [None, UNBALANCED], ids=["balanced", "unbalanced"])
def test_components_are_right_on_average(kept):
    design = SimulationDesign(4, 3, 8)
    found: list[Any] = []
    for values in simulated(TRUTH, design, np.random.default_rng(1), number=400):
        every = design.runs(values)
        found.append(components(every if kept is None else every.chosen(kept, every.subjects)))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - list(asdict(TRUTH).values())) < 3.5 * error).all()


@pytest.mark.parametrize(
    ("design", "known"),
    [
        ((400, 1, 50), {"draw": 1.5, "rest": 2.5}),
        ((1, 400, 50), {"seed": 0.5, "rest": 2.0}),
        ((1, 1, 5), {}),
        ((2, 2, 1), {"draw": None, "seed": None}),
        ((1, 1, 1), {}),
    ],
)
def test_what_cannot_be_told_apart_is_part_of_the_rest_and_too_little_is_none(design, known):
    shape = SimulationDesign(*design)
    values = simulated(TRUTH, shape, np.random.default_rng(0))[0]
    found = asdict(variance(shape.runs(values)))
    case = {"case"} if shape.subjects > 1 else set()
    assert {name for name, value in found.items() if value is not None} == {*known, *case}
    for name, value in known.items():
        if value is not None:
            assert found[name] == pytest.approx(value, rel=0.1 if name == "rest" else 0.3)


def arms(design: SimulationDesign = DESIGN, gain: float = 0.0) -> tuple[RunValues, RunValues]:
    control, arm = simulated(PILOT, design, np.random.default_rng(0), number=2)
    return design.runs(80 + arm + gain), design.runs(80 + control)


def of(differences) -> ArmComparison:
    values = np.array(differences, float)
    draws, subjects = tuple(range(len(values))), tuple(map(str, range(values.shape[1])))
    arm = runs(values, draws, (0,) * len(draws), subjects)
    return compare(arm, replace(arm, values=np.zeros_like(values)), margin=0.5)


def test_the_difference_is_that_of_the_means_and_wilcoxon_is_scipys_over_subjects():
    arm, control = arms(gain=0.5)
    found = compare(arm, control, margin=0.5)
    assert found.difference == pytest.approx((found.mean_arm or 0) - (found.mean_control or 0))
    mean = (arm.values - control.values).mean(axis=0)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(mean, method="exact").pvalue)
    # Of three subjects that are all better: one of 2^3 signs, on either side.
    assert wilcoxon(np.array([[1.0, 2.0, 3.0]])) == pytest.approx(2 / 8)
    one = interval_of_mean(arm)
    assert (found.runs, found.draws, found.seeds, found.subjects) == (6, 3, 2, 20)
    assert (one.low or 99) < arm.values.mean() < (one.high or 0)
    assert interval_of_mean(runs([[1.0]], (0,), (0,), ("a",))) == Interval(None, None)


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([None, 0.02, None, 0.04], [None, 0.04, None, 0.04]),
    ],
)
def test_holm_by_hand(ps, corrected):
    assert holm(ps) == [p if p is None else pytest.approx(p) for p in corrected]
    with raises_fault("metrics.holm-p-out-of-range"):
        holm([*ps, 1.5])


@pytest.mark.parametrize(
    ("design", "said"),
    [
        ((3, 1, 20), "draws, seeds, subjects"),
        ((1, 3, 20), "seeds, subjects"),
        ((3, 2, 1), "nothing"),
        ((1, 1, 20), "nothing"),
        ((1, 2, 20), "nothing"),
        ((2, 3, 20), "nothing"),
    ],
)
def test_it_says_for_what_it_holds(design, said):
    found = compare(*arms(SimulationDesign(*design)), margin=0.5)
    assert found.generalises == said
    assert (found.p is None) == (said == "nothing")


def test_a_claim_of_a_blank_arm_is_as_often_false_as_is_said_and_one_of_a_real_gain_is_not():
    design, said = SimulationDesign(10, 1, 30), dict[str, list[tuple[Any, Any]]]()
    values = simulated(PILOT, design, np.random.default_rng(1), number=600)
    nothing, gain = design.runs(0 * values[0]), 2 * detectable(PILOT, *design)
    for name, true in (("blank", 0.0), ("gain", gain)):
        found = [compare(design.runs(each + true), nothing, margin=0.5) for each in values]
        said[name] = [(each.false_claim, each.false_claim_of_cases) for each in found]
    blank, ours = np.array(said["blank"]).T, np.array(said["gain"])[:, 0]
    quarters = np.histogram(blank[0], (0, 0.125, 0.25, 0.375, 0.5))[0] / len(values)
    assert quarters == pytest.approx([0.25] * 4, abs=0.06)  # whichever looks better is claimed
    assert (blank[0] < 0.05).mean() == pytest.approx(0.1, abs=0.03)
    assert (blank[1] < 0.05).mean() > (blank[0] < 0.05).mean()  # trainings count as given
    assert np.median(ours) < 0.001
    assert (ours > 0.05).mean() < 0.02


def test_the_probability_of_a_false_claim_is_that_of_the_published_formula():
    a, b = np.random.default_rng(0).normal(0.8, 0.1, (2, 12))
    spread = a.var(ddof=1) + b.var(ddof=1) - 2 * np.cov(a, b)[0, 1]  # s_A s_B r_AB
    t = math.sqrt(12) * -abs(a.mean() - b.mean()) / math.sqrt(spread)
    assert false_claim(a - b) == pytest.approx(stats.t.cdf(t, 11))
    assert [false_claim(np.full(4, level)) for level in (0.0, 0.1)] == [0.5, 0.0]


def test_arms_that_agree_in_all_differ_by_nothing():
    found = of(np.zeros((3, 20)))
    assert (found.difference, found.interval, found.p) == (0, Interval(0, 0), 1)
    assert (found.wilcoxon_p, found.mde, found.equivalent) == (1, 0, True)


@pytest.mark.parametrize(
    "values",
    [np.full((3, 20), np.nan), np.ones((3, 1)), np.zeros((3, 0)), np.zeros((0, 4))],
    ids=["nan", "one subject", "no subject", "no run"],
)
def test_too_little_to_tell_is_none_and_no_crash(values):
    found = of(values)
    assert found.interval == Interval(None, None)
    assert (found.p, found.mde, found.df, found.equivalence_p) == (None,) * 4
    assert (found.false_claim, found.false_claim_of_cases) == (None, None)
    assert not found.equivalent
    json.dumps(found.to_json(), allow_nan=False)


@pytest.mark.parametrize(
    ("option", "value", "expected"),
    [
        ("margin", 0.0, "metrics.compare-margin-not-positive"),
        ("margin", NONE, "metrics.compare-margin-not-positive"),
        ("confidence", 1.0, "metrics.confidence-or-power-wrong"),
        ("confidence", 95.0, "metrics.confidence-or-power-wrong"),
        ("power", 0.0, "metrics.confidence-or-power-wrong"),
    ],
)
def test_an_option_out_of_range_is_refused_by_name_and_value(option, value, expected):
    with raises_fault(expected, names=f"{option} is {value}"):
        compare(*arms(), **{"margin": 0.5, option: value})
    with raises_fault("metrics.design-counts-too-small"):
        detectable(PILOT, 3, 2, 1)
    with raises_fault("metrics.design-counts-too-small"):
        detectable(PILOT, 1, 2, 20)
