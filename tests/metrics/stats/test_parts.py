import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from gansynth.metrics.stats.anova import MeanSquares, VarianceComponents, components, variance
from gansynth.metrics.stats.bootstrap import FEW, BootstrapResamples, SkewCorrection, resample
from gansynth.metrics.stats.bounds import within
from gansynth.metrics.stats.compare import interval_of_mean
from gansynth.metrics.stats.runs import Floats, RunValues, paired
from gansynth.metrics.stats.simulation import SimulationDesign, simulated
from gansynth.runtime.errors import UsageFault

NONE = float("nan")


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


def test_draws_weigh_the_same_and_seeds_of_one_draw_are_the_repetitions():
    assert runs([[1, 2], [3, 4], [10, 20]]).table().tolist() == [[2, 3], [10, 20]]
    assert runs([[1, 2], [3, 4]], (5, 5), (0, 1)).table().tolist() == [[1, 2], [3, 4]]


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


TRUTH = VarianceComponents(draw=1.0, seed=0.5, case=4.0, draw_case=0.5, rest=2.0)


def test_mean_squares_of_a_table_of_two_by_two_by_hand():
    found = MeanSquares.of(np.array([[1.0, 2.0], [3.0, 8.0]]))
    # Means 3.5; rows 1.5, 5.5; columns 2, 5; what is left is +-1.
    assert [float(x) for x in (found.mean, found.run, found.case, found.cross)] == [3.5, 16, 9, 4]
    assert found.standard_error == pytest.approx(np.sqrt((16 + 9 - 4) / 4))


def test_a_component_that_comes_out_negative_does_not_shrink_the_error():
    quiet = MeanSquares.of(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]))
    assert quiet.run == 0
    assert quiet.total == quiet.cross > 0


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


def test_a_negative_estimate_becomes_zero():
    design = SimulationDesign(3, 2, 4)
    rng, noise = np.random.default_rng(0), VarianceComponents(0, 0, 0, 0, 1)
    for values in simulated(noise, design, rng, number=20):
        raw, kept = components(design.runs(values)), variance(design.runs(values))
        assert list(asdict(kept).values()) == [max(value, 0) for value in raw if value is not None]


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


def drawn(table: Floats, number: int = 20_000) -> BootstrapResamples:
    rng = np.random.default_rng(0)
    return resample(MeanSquares.of(table), table.mean(axis=-2), number, rng)


def table(design: SimulationDesign, variance: tuple[float, ...], skewness: float = 0.0) -> Floats:
    rng = np.random.default_rng(0)
    values = simulated(VarianceComponents(*variance), design, rng, skewness={"case": skewness})
    return np.asarray(values[0].mean(axis=1))


USUAL = (0.3, 0.3, 4, 0.3, 2)


@pytest.mark.parametrize(
    "design", [SimulationDesign(4, 2, 30), SimulationDesign(3, 2, FEW - 2)], ids=str
)
def test_means_spread_as_the_standard_error_says(design):
    values = table(design, USUAL)
    spread = drawn(values).squares.mean.std()
    assert spread == pytest.approx(float(MeanSquares.of(values).standard_error), rel=0.03)


def test_mean_squares_are_on_average_those_of_the_table():
    values = table(SimulationDesign(4, 2, 30), USUAL)
    found, own = drawn(values).squares, MeanSquares.of(values)
    for name in ("run", "case", "cross"):
        assert getattr(found, name).mean() == pytest.approx(float(getattr(own, name)), rel=0.03)


def test_the_bend_is_nearly_that_of_an_edgeworth_expansion():
    # Hall 1992: P(t <= x) = Phi(x) + skewness / 6 (2 x^2 + 1) phi(x), the mean's skewness.
    values = table(SimulationDesign(6, 2, 60), (0.01, 0.01, 4, 0.01, 0.1), skewness=3)
    columns = values.mean(axis=0) - values.mean()
    third = (columns**3).mean() / len(columns) ** 2
    skewness = third / float(MeanSquares.of(values).standard_error) ** 3
    assert skewness > 0.1
    found = drawn(values, 100_000).bend(0.05)
    assert found.bend == pytest.approx(-skewness / 3, rel=0.25)
    assert found.shift == pytest.approx(-skewness / 6, rel=0.4)


def test_too_few_subjects_have_no_skewness_and_a_seed_is_a_seed():
    values = table(SimulationDesign(4, 2, FEW - 1), USUAL, skewness=2)
    found = drawn(values, 500)
    bend = found.bend(0.05)
    assert not bend.shift.any()
    assert not bend.bend.any()
    assert (found.t == drawn(values, 500).t).all()


@pytest.mark.parametrize("bend", [-0.15, -0.05, 0.0, 0.05, 0.15])
def test_scores_come_back_and_keep_their_order(bend):
    it = SkewCorrection(np.array(0.1), np.array(bend))
    scores = np.linspace(-6, 6, 201)
    bent = it.bent(scores)
    assert it.straight(bent) == pytest.approx(scores, abs=1e-9)
    assert (np.diff(bent) > 0).all()


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


@pytest.mark.parametrize("number", [30, pytest.param(200, marks=pytest.mark.slow)])
def test_of_few_runs_the_interval_of_a_mean_holds_the_truth_and_lies_within(number):
    """Scores near 1 of 3 draws x 2 seeds, whose plain intervals reach beyond 1."""
    rng, held, wide = np.random.default_rng(0), 0, 0
    truth = (1 / (1 + np.exp(-rng.normal(3, math.sqrt(0.65), 400_000)))).mean()
    for _ in range(number):
        score = 3 + rng.normal(0, 0.3, (3, 1, 1)) + rng.normal(0, 0.2, (3, 2, 1))
        score = score + rng.normal(0, 0.6, 10) + rng.normal(0, 0.4, (3, 2, 10))
        values = 1 / (1 + np.exp(-score.reshape(6, 10)))
        every = RunValues(values, (0, 0, 1, 1, 2, 2), (0, 1) * 3, tuple("abcdefghij"))
        plain = interval_of_mean(every, resamples=200)
        found = interval_of_mean(every, bounds=SHARE, resamples=200)
        assert found.low is not None
        assert found.high is not None
        assert 0 <= found.low <= found.high <= 1
        wide += (plain.high or 0) > 1
        held += found.low <= truth <= found.high
    assert wide > 0.05 * number
    assert held >= 0.92 * number  # of 95 %: 190 +- 3 of 200
