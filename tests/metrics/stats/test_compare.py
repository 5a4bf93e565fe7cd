import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from gansynth.metrics.stats.anova import VarianceComponents
from gansynth.metrics.stats.compare import (
    ArmComparison,
    Interval,
    compare,
    holm,
    interval_of_mean,
    wilcoxon,
)
from gansynth.metrics.stats.inference import Inference
from gansynth.metrics.stats.runs import RunValues
from gansynth.metrics.stats.simulation import SimulationDesign, simulated
from gansynth.runtime.errors import DataFault, UsageFault

DESIGN = SimulationDesign(3, 2, 20)
TRUTH = VarianceComponents(0.25, 0.25, 4, 0.25, 2)


def arms(design: SimulationDesign = DESIGN, gain: float = 0.0) -> tuple[RunValues, RunValues]:
    control, arm = simulated(TRUTH, design, np.random.default_rng(0), number=2)
    return design.runs(80 + arm + gain), design.runs(80 + control)


def small(values) -> RunValues:
    table = np.array(values, float)
    names = tuple(map(str, range(table.shape[1])))
    return RunValues(table, tuple(range(len(table))), (0,) * len(table), names)


def of(differences, **options) -> ArmComparison:
    arm = small(differences)
    return compare(arm, replace(arm, values=np.zeros_like(arm.values)), margin=0.5, **options)


def finite(*values) -> bool:
    return all(value is not None and math.isfinite(value) for value in values)


@pytest.mark.parametrize("seed", range(3))
def test_one_run_of_symmetric_differences_is_the_t_test(seed):
    half = np.random.default_rng(seed).normal(0.6, 2, 15)
    both = np.concatenate([half, 1.2 - half])  # symmetric around 0.6: nothing to correct
    found, peer = of([both], resamples=50_000), stats.ttest_1samp(both, 0)
    assert found.standard_error == pytest.approx(float(np.std(both, ddof=1) / math.sqrt(30)))
    assert found.df == pytest.approx(29)
    assert found.p == pytest.approx(peer.pvalue, rel=0.1)
    low, high = map(float, peer.confidence_interval())
    assert found.interval.low == pytest.approx(low, abs=0.05 * (high - 0.6))


def test_p_is_the_level_whose_interval_ends_at_zero():
    arm, control = arms(gain=2)
    found = compare(arm, control, margin=0.5)
    assert found.p is not None
    assert 1e-4 < found.p < 0.5
    edge = compare(arm, control, margin=0.5, confidence=1 - found.p).interval
    assert min(abs(edge.low or 9), abs(edge.high or 9)) < 0.05 * abs(found.difference or 0)


def inference(seed: int) -> Inference:
    tables = simulated(TRUTH, DESIGN, np.random.default_rng(seed), number=200).mean(axis=2)
    return Inference.of(tables, 0.05, 1000, np.random.default_rng(0))


def test_interval_and_test_agree_on_every_truth():
    one = inference(1)
    low, high = one.interval()
    for truth in (-1.0, 0.0, 0.7):
        assert ((one.p(truth) <= 0.05) == ((truth < low) | (truth > high))).mean() > 0.995


def test_equivalence_is_shown_where_the_interval_at_twice_the_level_is_within_the_margin():
    one = inference(2)
    low, high = replace(one, level=0.1).interval()
    shown = one.equivalence(2.0) <= 0.05
    assert 0.2 < shown.mean() < 0.8
    assert (shown == ((low > -2) & (high < 2))).mean() > 0.98


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


def test_the_same_seed_gives_the_same_json_which_comes_back_or_is_refused_with_what_it_lacks():
    found = compare(*arms(), margin=0.5)
    assert compare(*arms(), margin=0.5) == found
    doc = json.loads(json.dumps({**found.to_json(), "arm": "elastic"}, allow_nan=False))
    assert ArmComparison.from_json(doc) == found
    del doc["mde"]
    with pytest.raises(DataFault, match="mde"):
        ArmComparison.from_json(doc)


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


def test_an_effect_of_draws_counts_as_such_only_where_draws_are_known():
    values = np.array([2.0, 3.0, 4.0])[:, None] + np.random.default_rng(0).normal(0, 0.1, (3, 20))
    assert (of(values).standard_error or 0) > 10 * (of(values[:1]).standard_error or 9)


def test_arms_that_agree_in_all_differ_by_nothing():
    found = of(np.zeros((3, 20)))
    assert (found.difference, found.interval, found.p) == (0, Interval(0, 0), 1)
    assert (found.wilcoxon_p, found.mde, found.equivalent) == (1, 0, True)


def test_differences_that_are_all_the_same_leave_no_doubt():
    found = of(np.full((3, 20), 0.7))
    assert [found.interval.low, found.interval.high] == pytest.approx([0.7, 0.7])
    assert (found.p, found.standard_error, found.equivalent) == (0, 0, False)
    assert of(np.full((3, 20), 0.3)).equivalent


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


@pytest.mark.parametrize("subjects", [2, 3, 8])
@pytest.mark.parametrize("runs", [1, 2, 3])
def test_few_runs_and_subjects_give_finite_numbers(runs, subjects):
    found = of(np.random.default_rng(runs).normal(size=(runs, subjects)))
    assert finite(found.interval.low, found.interval.high, found.p, found.mde)


def test_one_subject_that_changed_among_many_that_did_not():
    values = np.zeros((3, 20))
    values[:, 4] = 1
    assert 0.1 < (of(values).p or 0) < 1


def test_an_interval_of_one_arms_mean():
    arm, _ = arms()
    found = interval_of_mean(arm)
    assert finite(found.low, found.high)
    assert (found.low or 99) < arm.values.mean() < (found.high or 0)
    assert interval_of_mean(small([[1.0]])) == Interval(None, None)


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("margin", 0.0), ("margin", -1.0), ("margin", float("nan"))],
        *[("confidence", 1.0), ("confidence", 95.0), ("power", 0.0), ("resamples", 10)],
    ],
)
def test_an_option_out_of_range_is_refused_by_name_and_value(option, value):
    with pytest.raises(UsageFault, match=f"{option} is {value}"):
        compare(*arms(), **{"margin": 0.5, option: value})


def test_a_p_out_of_range_is_refused():
    with pytest.raises(UsageFault, match=r"1\.5"):
        holm([0.1, 1.5])
