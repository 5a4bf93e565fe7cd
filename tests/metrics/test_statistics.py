"""Runs, mean squares and the test of them. ``bench_statistics.py`` simulates more."""

import json
import math
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.scripts.simulated_runs import SimulationDesign, simulated
from gansynth.metrics.statistics import (
    ArmComparison,
    Floats,
    Interval,
    MeanSquares,
    RunValues,
    VarianceComponents,
    compare,
    components,
    detectable,
    holm,
    interval_of_mean,
    paired,
    variance,
    wilcoxon,
    within,
)
from gansynth.runtime.errors import UsageFault

NONE = float("nan")
DESIGN = SimulationDesign(3, 2, 20)
TRUTH = VarianceComponents(draw=1.0, seed=0.5, case=4.0, draw_case=0.5, rest=2.0)
PILOT = VarianceComponents(0.09, 0.25, 4, 0.25, 2.25)  # of a pilot, in points of Dice


# -- runs ------------------------------------------------------------------------------------------


def runs(values, draws=(0, 0, 1), seeds=(0, 1, 0), subjects=("a", "b")) -> RunValues:
    return RunValues(np.array(values, float), draws, seeds, subjects)


def test_values_are_paired_by_run_and_subject_whatever_their_order():
    arm = runs([[1, 2], [3, 4], [5, 6]])
    control = runs([[50, 10], [40, 20]], (1, 0), (0, 1), ("b", "a"))
    found = paired(arm, control)
    assert (found.keys, found.subjects) == (((0, 1), (1, 0)), ("a", "b"))
    assert found.values.tolist() == [[3 - 20, 4 - 40], [5 - 10, 6 - 50]]


GAPPED = runs([[1, 2], [NONE, 4], [5, 6]])


@pytest.mark.parametrize(
    ("arm", "control", "subjects", "dropped"),
    [
        (GAPPED, runs([[0, 0]] * 3), ("b",), 1),
        (GAPPED, runs([[0, 0]], (0,), (0,)), ("a", "b"), 0),
        (runs([[1, 2]] * 3), runs([[1, 2]] * 3, subjects=("b", "c")), ("b",), 2),
    ],
    ids=["no value", "no value in a run that is not compared", "on one side"],
)
def test_subjects_that_not_all_runs_have_are_dropped_and_counted(arm, control, subjects, dropped):
    found = paired(arm, control)
    assert (found.subjects, found.dropped) == (subjects, dropped)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"values": np.zeros((2, 2))}, "(2, 2)"),
        ({"seeds": (0, 1)}, "2 seeds"),
        ({"seeds": (0, 0, 0)}, "(0, 0)"),
        ({"subjects": ("a", "a")}, "'a'"),
        ({"values": np.array([[1, 2], [3, np.inf], [5, 6]])}, "(0, 1), subject 'b'"),
    ],
)
def test_what_is_no_table_of_runs_is_refused_by_name(change, named):
    with pytest.raises(UsageFault) as caught:
        runs(**{"values": np.ones((3, 2)), **change})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


# -- the test --------------------------------------------------------------------------------------


def tables(design: SimulationDesign, truth: VarianceComponents, number: int = 3000) -> Floats:
    values = simulated(truth, design, np.random.default_rng(1), number=number)
    return np.asarray(values.mean(axis=2))


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


def test_of_two_equal_parts_it_is_welchs_t_test():
    a, b = np.random.default_rng(0).normal(0, [[1], [3]], (2, 12))
    run, case = 12 * np.array([a.var(ddof=1), b.var(ddof=1)])
    # Welch's variance of a - b is a sum of two mean squares, as that of a mean without cross.
    test = MeanSquares(np.array(a.mean() - b.mean()), run, case, np.array(0.0), 12, 12)
    peer = stats.ttest_ind(a, b, equal_var=False)
    assert float(test.df) == pytest.approx(peer.df)
    assert float(test.p()) == pytest.approx(peer.pvalue)


@pytest.mark.parametrize(
    ("design", "truth"),
    [(DESIGN, PILOT), (SimulationDesign(5, 2, 20), TRUTH), (SimulationDesign(10, 1, 30), TRUTH)],
    ids=str,
)
def test_a_null_arm_is_called_different_in_five_and_the_detectable_effect_in_eighty_of_100(
    design, truth
):
    test, effect = MeanSquares.of(tables(design, truth)), detectable(truth, *design)
    assert abs((test.p() <= 0.05).mean() - 0.05) < 0.012
    moved = replace(test, mean=test.mean + effect)
    assert abs((moved.p() <= 0.05).mean() - 0.8) < 0.04
    assert ((test.p() <= 0.05) == (np.abs(test.mean) > test.reach(0.05))).all()
    shown = replace(test, mean=test.mean + 2 * effect).equivalence(2 * effect) <= 0.05
    assert abs(shown.mean() - 0.05) < 0.012
    printed = test.detectable(0.05, 0.8)
    assert np.sqrt((printed**2).mean()) == pytest.approx(effect, rel=0.08)


def test_more_draws_detect_less():
    effects = [detectable(PILOT, draws, 2, 20) for draws in (2, 3, 5, 10)]
    assert effects == sorted(effects, reverse=True)
    with pytest.raises(UsageFault, match="1 test subject"):
        detectable(PILOT, 3, 2, 1)


SHARE, LENGTH, ANY = (0.0, 1.0), (0.0, math.inf), (-math.inf, math.inf)


@pytest.mark.parametrize(
    ("middle", "low", "high", "bounds"),
    [
        (0.584, 0.101, 1.09, SHARE),
        (0.708, -40.1, 0.818, SHARE),
        (7.1, -1.8, 16.0, LENGTH),
        (0.5, -1e9, 1e9, SHARE),
    ],
)
def test_an_interval_that_reaches_beyond_is_brought_within(middle, low, high, bounds):
    ends = within(middle, low, high, bounds)
    assert ends[0] is not None
    assert ends[1] is not None
    assert bounds[0] <= ends[0] < middle < ends[1] <= bounds[1]


@pytest.mark.parametrize(
    ("middle", "low", "high", "bounds", "expected"),
    [
        (0.5, 0.49, 0.51, SHARE, (0.49, 0.51)),
        (0.9, 0.898, 0.902, SHARE, (0.898, 0.902)),
        (8.0, 7.9, 8.1, LENGTH, (7.9, 8.1)),
        (0.2, -4.0, 4.0, ANY, (-4.0, 4.0)),
        (1.0, 1.0, 1.0, SHARE, (1.0, 1.0)),
        (15.0, -60.0, 90.0, LENGTH, (None, None)),
    ],
    ids=["narrow", "near 1", "length", "no bounds", "on a bound", "says nothing"],
)
def test_any_other_interval_stays_nearly_as_it_is_or_is_none(middle, low, high, bounds, expected):
    ends = within(middle, low, high, bounds)
    assert ends == expected or ends == pytest.approx(expected, abs=0.01 * (high - low))


# -- variance components ---------------------------------------------------------------------------


UNBALANCED = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]


@pytest.mark.parametrize("kept", [None, UNBALANCED], ids=["balanced", "unbalanced"])
def test_components_are_right_on_average(kept):
    design = SimulationDesign(4, 3, 8)
    found: list[Any] = []
    for values in simulated(TRUTH, design, np.random.default_rng(1), number=600):
        every = design.runs(values)
        found.append(components(every if kept is None else every.chosen(kept, every.subjects)))
    error = np.std(found, axis=0) / np.sqrt(len(found))
    assert (np.abs(np.mean(found, axis=0) - list(asdict(TRUTH).values())) < 3.5 * error).all()


@pytest.mark.parametrize(
    ("design", "known"),
    [
        (SimulationDesign(400, 1, 50), {"draw": 1.5, "rest": 2.5}),
        (SimulationDesign(1, 400, 50), {"seed": 0.5, "rest": 2.0}),
    ],
)
def test_what_cannot_be_told_apart_is_part_of_the_rest(design, known):
    values = simulated(TRUTH, design, np.random.default_rng(0))[0]
    found = asdict(variance(design.runs(values)))
    assert {name for name, value in found.items() if value is not None} == {"case", *known}
    for name, value in known.items():
        assert found[name] == pytest.approx(value, rel=0.1 if name == "rest" else 0.3)


@pytest.mark.parametrize(
    ("shape", "known"),
    [((1, 1, 5), {"case"}), ((2, 2, 1), {"draw", "seed"}), ((1, 1, 1), set()), ((1, 1, 0), set())],
)
def test_too_little_is_none_and_not_zero(shape, known):
    draws, seeds, subjects = shape
    values = np.random.default_rng(0).normal(size=(draws * seeds, subjects))
    owner = tuple(draw for draw in range(draws) for _ in range(seeds))
    found = variance(RunValues(values, owner, (0, 1)[:seeds] * draws, tuple("abcde")[:subjects]))
    assert {name for name, value in asdict(found).items() if value is not None} == known


# -- an arm and its control ------------------------------------------------------------------------


def arms(design: SimulationDesign = DESIGN, gain: float = 0.0) -> tuple[RunValues, RunValues]:
    control, arm = simulated(PILOT, design, np.random.default_rng(0), number=2)
    return design.runs(80 + arm + gain), design.runs(80 + control)


def small(values) -> RunValues:
    table = np.array(values, float)
    names = tuple(map(str, range(table.shape[1])))
    return RunValues(table, tuple(range(len(table))), (0,) * len(table), names)


def of(differences, **options) -> ArmComparison:
    arm = small(differences)
    return compare(arm, replace(arm, values=np.zeros_like(arm.values)), margin=0.5, **options)


def test_the_difference_is_that_of_the_means_and_wilcoxon_is_scipys_over_subjects():
    arm, control = arms(gain=0.5)
    found = compare(arm, control, margin=0.5)
    assert found.difference == pytest.approx((found.mean_arm or 0) - (found.mean_control or 0))
    mean = (arm.values - control.values).mean(axis=0)
    assert found.wilcoxon_p == pytest.approx(stats.wilcoxon(mean, method="exact").pvalue)
    # Of three subjects that are all better: one of 2^3 signs, on either side.
    assert wilcoxon(np.array([[1.0, 2.0, 3.0]])) == pytest.approx(2 / 8)


@pytest.mark.parametrize(
    ("ps", "corrected"),
    [
        ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
        ([0.6, 0.7], [1.0, 1.0]),
        ([], []),
        ([None, 0.02, None, 0.04], [None, 0.04, None, 0.04]),
    ],
)
def test_holm_by_hand(ps, corrected):
    assert holm(ps) == [p if p is None else pytest.approx(p) for p in corrected]


def test_counts_are_those_of_the_pairs():
    arm, control = arms()
    arm.values[0, 3] = np.nan
    found = compare(arm.chosen(arm.keys[:5], arm.subjects), control, margin=0.5)
    assert (found.runs, found.draws, found.seeds) == (5, 3, 2)
    assert (found.subjects, found.dropped) == (19, 1)


@pytest.mark.parametrize(
    ("design", "said"),
    [
        (SimulationDesign(3, 2, 20), "draws, seeds, subjects"),
        (SimulationDesign(3, 1, 20), "draws, seeds, subjects"),
        (SimulationDesign(1, 3, 20), "seeds, subjects"),
        (SimulationDesign(1, 1, 20), "subjects"),
        (SimulationDesign(3, 2, 1), "nothing"),
    ],
)
def test_it_says_for_what_it_holds(design, said):
    found = compare(*arms(design), margin=0.5)
    assert found.generalises == said
    assert (found.p is None) == (said == "nothing")


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
    assert not found.equivalent
    json.dumps(found.to_json(), allow_nan=False)


def test_an_interval_of_one_arms_mean():
    arm, _ = arms()
    found = interval_of_mean(arm)
    assert (found.low or 99) < arm.values.mean() < (found.high or 0)
    assert interval_of_mean(small([[1.0]])) == Interval(None, None)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("margin", 0.0), ("margin", -1.0), ("margin", float("nan"))],
        *[("confidence", 1.0), ("confidence", 95.0), ("power", 0.0)],
    ],
)
def test_an_option_out_of_range_is_refused_by_name_and_value(option, value):
    with pytest.raises(UsageFault, match=f"{option} is {value}"):
        compare(*arms(), **{"margin": 0.5, option: value})


def test_a_p_out_of_range_is_refused():
    with pytest.raises(UsageFault, match=r"1\.5"):
        holm([0.1, 1.5])
