"""Known truth: how often the statistics err. ``benchmarks/bench_statistics.py`` does more of it.

Shares are held to what they ought to be within 3.5 standard errors of the simulation. The same seed
draws the same experiments, so a test fails always or never. One design and scenario is quick.
"""

from dataclasses import replace
from operator import attrgetter
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from gansynth.metrics.stats.anova import MeanSquares, VarianceComponents
from gansynth.metrics.stats.bootstrap import SkewCorrection
from gansynth.metrics.stats.compare import holm
from gansynth.metrics.stats.inference import Inference
from gansynth.metrics.stats.reference import degrees, quantile
from gansynth.metrics.stats.runs import Floats
from gansynth.metrics.stats.simulation import SimulationDesign, detectable, simulated
from gansynth.runtime.errors import UsageFault

LEVEL = 0.05
DESIGNS = [
    SimulationDesign(3, 2, 20),
    SimulationDesign(3, 2, 40),
    SimulationDesign(5, 2, 20),
    SimulationDesign(10, 1, 30),
]
SCENARIOS = {
    # In points of Dice: 0.3 between draws, 0.5 between seeds, 2 between test subjects.
    "pilot": VarianceComponents(0.09, 0.25, 4, 0.25, 2.25),
    "draws dominate": VarianceComponents(1, 0.09, 0.25, 0.09, 0.25),
    "seeds dominate": VarianceComponents(0.01, 1, 0.25, 0.09, 0.25),
    "cases dominate": VarianceComponents(0.01, 0.01, 4, 0.09, 1),
    "balanced": VarianceComponents(0.25, 0.25, 4, 0.25, 2.25),
}


def first_is_quick(name, values):
    """Parameters of which all but the first are slow."""
    marks: list[Any] = [(), *[pytest.mark.slow] * (len(values) - 1)]
    pairs = zip(values, marks, strict=True)
    return pytest.mark.parametrize(name, [pytest.param(v, marks=m, id=str(v)) for v, m in pairs])


each_design = first_is_quick("design", DESIGNS)
each_scenario = first_is_quick("name", list(SCENARIOS))


def near(found: npt.NDArray[np.bool_], expected: float, spare: float = 0.0) -> bool:
    """Whether a share of experiments is ``expected``, within ``spare`` and the simulation's own."""
    error = np.sqrt(expected * (1 - expected) / found.size)
    return bool(abs(found.mean() - expected) <= spare + 3.5 * error)


def tables(
    variance: VarianceComponents, design: SimulationDesign, number: int = 1000, **skewness: float
) -> Floats:
    rng = np.random.default_rng(design.draws * 1000 + design.subjects)
    values = simulated(variance, design, rng, number=number, skewness=skewness)
    return np.asarray(values.mean(axis=2))


def infer(values: Floats, resamples: int = 400) -> Inference:
    """Of many tables; a few share their random numbers."""
    rng = np.random.default_rng(0)
    parts = [Inference.of(part, LEVEL, resamples, rng) for part in np.array_split(values, 30)]

    def joined(name: str) -> Floats:
        return np.concatenate([attrgetter(name)(part) for part in parts])

    one = parts[0].squares
    mean, run, case, cross = (joined(f"squares.{k}") for k in ("mean", "run", "case", "cross"))
    return replace(
        parts[0],
        squares=MeanSquares(mean, run, case, cross, one.runs, one.cases),
        error=joined("error"),
        bend=SkewCorrection(joined("bend.shift"), joined("bend.bend")),
    )


def moved(one: Inference, by: float) -> Inference:
    return replace(one, squares=replace(one.squares, mean=one.squares.mean + by))


@pytest.mark.parametrize("skewness", [0.0, 2.0, -1.0])
def test_simulated_values_have_the_variance_and_skewness_asked_for(skewness):
    only, rng = VarianceComponents(None, None, 4, None, None), np.random.default_rng(0)
    skewed = {"case": skewness}
    found = simulated(only, SimulationDesign(1, 1, 100_000), rng, skewness=skewed).ravel()
    assert found.mean() == pytest.approx(0, abs=0.03)
    assert found.var() == pytest.approx(4, rel=0.03)
    assert stats.skew(found) == pytest.approx(skewness, abs=0.1)


def test_the_mean_varies_as_the_components_say():
    means = tables(SCENARIOS["pilot"], SimulationDesign(3, 2, 20), 4000).mean(axis=(1, 2))
    expected = 0.09 / 3 + 0.25 / 6 + 4 / 20 + 0.25 / 60 + 2.25 / 120
    assert means.var() == pytest.approx(expected, rel=0.1)


def squares_of(
    truth: tuple[float, float, float], design: SimulationDesign, number: int
) -> MeanSquares:
    """Mean squares as normal values have them, of true ones (run, case, cross)."""
    rng = np.random.default_rng(1)
    freedom = (design.draws - 1, design.subjects - 1, (design.draws - 1) * (design.subjects - 1))
    run, case, cross = (
        t * rng.chisquare(f, number) / f for t, f in zip(truth, freedom, strict=True)
    )
    return MeanSquares(np.zeros(number), run, case, cross, design.draws, design.subjects)


@first_is_quick("truth", [(10, 10, 1), (40, 3, 1), (3, 20, 1), (8, 1, 1), (1, 20, 1)])
@each_design
def test_t_errs_about_as_often_as_its_level_says(design, truth):
    squares = squares_of(truth, design, 8000)
    total = truth[0] + truth[1] - truth[2]
    # Given the mean squares, the chance of rejecting is known: nothing else is left to chance.
    for level, least, most in ((0.1, 0.076, 0.122), (0.05, 0.038, 0.061), (0.01, 0, 0.0135)):
        errs = 2 * stats.norm.sf(quantile(squares, level) * np.sqrt(squares.total / total))
        assert least < errs.mean() < most


def test_many_repetitions_and_subjects_leave_satterthwaites_degrees_of_freedom():
    run, case = 50.0, 60.0
    squares = MeanSquares(np.array(0.0), np.array(run), np.array(case), np.array(0.0), 41, 51)
    expected = (run + case) ** 2 / (run**2 / 40 + case**2 / 50)
    assert degrees(squares, 0.05) == pytest.approx(expected, rel=0.01)


@each_scenario
@each_design
def test_five_percent_of_null_arms_are_called_different(design, name):
    one = infer(tables(SCENARIOS[name], design))
    assert near(one.p() <= LEVEL, 0.05, spare=0.01)
    low, high = one.interval()
    assert near((low <= 0) & (high >= 0), 0.95, spare=0.01)


def test_without_the_bootstraps_correction_skewed_subjects_err_on_one_side():
    one = infer(tables(SCENARIOS["cases dominate"], SimulationDesign(5, 2, 20), case=2.0))
    nothing = np.zeros(1000)
    straight = replace(one, bend=replace(one.bend, shift=nothing, bend=nothing))
    above = [((x.p() <= LEVEL) & (x.t() > 0)).mean() for x in (straight, one)]
    below = [((x.p() <= LEVEL) & (x.t() < 0)).mean() for x in (straight, one)]
    assert above[0] < 0.6 * above[1]
    assert below[0] > 1.4 * below[1]


@pytest.mark.parametrize("design", [DESIGNS[0], pytest.param(DESIGNS[2], marks=pytest.mark.slow)])
@each_scenario
def test_equivalence_is_seldom_shown_at_the_margin_and_the_least_effect_in_four_of_five(
    design, name
):
    variance = SCENARIOS[name]
    effect, one = detectable(variance, design), infer(tables(variance, design))
    for side in (-1, 1):
        shown = moved(one, side * 2 * effect).equivalence(2 * effect) <= LEVEL
        assert 0.02 < shown.mean() < 0.055 + 3.5 * np.sqrt(0.05 * 0.95 / 1000)
    found = np.concatenate([moved(one, side * effect).p() <= LEVEL for side in (-1, 1)])
    assert near(found, 0.8, spare=0.015)


@each_scenario
def test_what_is_printed_of_it_is_about_that_of_the_true_variances(name):
    variance, design = SCENARIOS[name], SimulationDesign(5, 2, 20)
    rng = np.random.default_rng(0)
    printed = Inference.of(tables(variance, design, 200), LEVEL, 1000, rng).detectable(0.8)
    assert np.sqrt((printed**2).mean()) == pytest.approx(detectable(variance, design), rel=0.12)


def test_more_draws_detect_less():
    effects = [
        detectable(SCENARIOS["pilot"], SimulationDesign(draws, 2, 20)) for draws in (2, 3, 5, 10)
    ]
    assert effects == sorted(effects, reverse=True)
    with pytest.raises(UsageFault, match="1 test subject"):
        detectable(SCENARIOS["pilot"], SimulationDesign(3, 2, 1))


def test_wilcoxon_errs_in_five_percent_of_case_noise_and_far_more_often_where_draws_differ():
    def wrong(variance: VarianceComponents) -> npt.NDArray[np.bool_]:
        means = tables(variance, SimulationDesign(3, 2, 20)).mean(axis=-2)
        return np.asarray(stats.wilcoxon(means, axis=-1).pvalue <= LEVEL)

    assert near(wrong(VarianceComponents(0, 0, 4, 0, 2.25)), 0.05, spare=0.005)
    assert wrong(SCENARIOS["draws dominate"]).mean() > 0.5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["seeds dominate", "pilot"])
def test_holm_keeps_a_family_of_arms_with_one_control_at_five_percent(name):
    arms, design, number = 6, SimulationDesign(3, 2, 20), 600
    half = VarianceComponents(*(value / 2 for value in vars(SCENARIOS[name]).values()))
    every = tables(half, design, number * (arms + 1)).reshape(number, arms + 1, 3, 20)
    values = (every[:, 1:] - every[:, :1]).reshape(-1, 3, 20)
    ps = infer(values, resamples=200).p().reshape(number, arms)
    wrong = np.array([min(p for p in holm(one.tolist()) if p is not None) <= 0.05 for one in ps])
    assert wrong.mean() < 0.06 + 3.5 * np.sqrt(0.05 * 0.95 / number)
    assert (ps.min(axis=1) <= 0.05).mean() > 0.1, "a correction would not have been needed"
