"""Does an arm differ from its control, also for other draws, seeds and subjects?

A value is mean + draw + seed (in draw) + case + draw x case + rest, all of them random. The
repetitions of an experiment are its draws, or the seeds of one draw. docs/statistics.md explains
the numbers, and shows how often they err.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.serialise import Document

Floats = npt.NDArray[np.float64]
ANY = (-math.inf, math.inf)
LEVEL = 0.05  # share of the intervals that may miss
NOWHERE = "nothing"
"""What a result generalises to that has no interval."""
REPETITIONS = 3
"""Least number of trainings of an arm that tell how far chance moves one: draws, or seeds of one
draw. Of fewer, arms that do not differ look as if they did: ``bench_shuffled.py`` counts it."""
EXACT = 1e-12
"""A standard error below this share of the largest value is rounding error and counts as 0."""
FAR = 20.0  # an upper limit beyond this multiple of the mean, above a bound, is uninformative
STEEP = 700.0  # larger scores overflow; they count as the bound


# -- values ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunValues:
    """Values of one measure, float64 (runs, subjects): means over a subject's volumes, NaN for
    none.

    A run is a draw (a training subset) and a seed nested in it. Raises UsageFault: inconsistent
    sizes, duplicate runs or subjects, infinite values.
    """

    values: Floats
    draws: tuple[int, ...]
    seeds: tuple[int, ...]
    subjects: tuple[str, ...]
    dropped: int = 0

    def __post_init__(self) -> None:
        values = np.asarray(self.values, np.float64)
        object.__setattr__(self, "values", values)
        expected = (len(self.draws), len(self.subjects))
        if values.shape != expected or len(self.seeds) != len(self.draws):
            raise UsageFault(
                "metrics.run-values-shape-differs",
                f"runs: values are {values.shape}, {len(self.draws)} draws, {len(self.seeds)} "
                f"seeds, {len(self.subjects)} subjects; expected values (runs, subjects) and a "
                "draw and a seed for each run",
            )
        for kind, names in (("run (draw, seed)", self.keys), ("subject", self.subjects)):
            if len(set(names)) < len(names):
                [twice, *_] = [name for n, name in enumerate(names) if name in names[:n]]
                raise UsageFault(
                    "metrics.run-value-occurs-twice",
                    f"runs: {kind} {twice!r} occurs twice, expected once; merge them",
                )
        if np.isinf(values).any():
            run, subject = np.argwhere(np.isinf(values))[0]
            raise UsageFault(
                "metrics.run-value-infinite",
                f"runs: value of run {self.keys[run]}, subject {self.subjects[subject]!r} is "
                "infinite, expected a number, or NaN for none",
            )

    @property
    def keys(self) -> tuple[tuple[int, int], ...]:
        """(draw, seed) of each run."""
        return tuple(zip(self.draws, self.seeds, strict=False))

    def chosen(
        self, keys: Sequence[tuple[int, int]], subjects: Sequence[str], dropped: int = 0
    ) -> RunValues:
        """Select runs and subjects in the given order; all must exist."""
        rows = [self.keys.index(key) for key in keys]
        columns = [self.subjects.index(name) for name in subjects]
        values = self.values[np.ix_(rows, columns)]
        draws, seeds = [draw for draw, _ in keys], [seed for _, seed in keys]
        return RunValues(values, tuple(draws), tuple(seeds), tuple(subjects), dropped)

    def complete(self) -> RunValues:
        """Drop and count the subjects without a value in one of the runs."""
        lacking = np.asarray(np.isnan(self.values).any(axis=0))
        names = [name for name, lacks in zip(self.subjects, lacking, strict=True) if not lacks]
        return self.chosen(self.keys, names, self.dropped + int(lacking.sum()))

    def table(self) -> Floats:
        """Means over the seeds of each draw (draws, subjects); with one draw its runs."""
        draws = list(dict.fromkeys(self.draws))
        if len(draws) < 2:
            return self.values
        owner = np.array(self.draws)
        return np.stack([self.values[owner == draw].mean(axis=0) for draw in draws])


def paired(arm: RunValues, control: RunValues) -> RunValues:
    """Differences arm - control over shared complete runs and subjects; others are ``dropped``."""
    keys = [key for key in arm.keys if key in set(control.keys)]
    shared = [name for name in arm.subjects if name in set(control.subjects)]
    ours, theirs = arm.chosen(keys, shared), control.chosen(keys, shared)
    alone = len(set(arm.subjects) ^ set(control.subjects))
    values = ours.values - theirs.values
    return RunValues(values, ours.draws, ours.seeds, ours.subjects, alone).complete()


# -- the test --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class MeanSquares:
    """Mean squares of tables (..., repetitions, subjects), and the test of their mean.

    Expectations, with R repetitions, S subjects, variances v: ``run`` S v_run + v_cross, ``case`` R
    v_case + v_cross, ``cross`` v_cross (Cornfield & Tukey 1956). So the variance of the mean is
    (run + case - cross) / (R S). Its degrees of freedom are those of Satterthwaite 1946, "An
    approximate distribution of estimates of variance components". A mean square below ``cross``
    counts as that, and one of a single repetition as 0.
    """

    mean: Floats
    run: Floats
    case: Floats
    cross: Floats
    runs: int
    cases: int

    @classmethod
    def of(cls, tables: Floats, largest: float | None = None) -> MeanSquares:
        """Compute from tables of at least one of each, without NaN.

        ``largest``: absolute value against which rounding errors count as 0; of the tables' own.
        """
        runs, cases = tables.shape[-2:]
        mean = tables.mean(axis=(-2, -1))
        rows, columns = tables.mean(axis=-1), tables.mean(axis=-2)
        left = tables - rows[..., None] - columns[..., None, :] + mean[..., None, None]
        size = np.abs(tables).max(axis=(-2, -1), initial=0) if largest is None else largest
        least = runs * cases * (EXACT * size) ** 2

        def mean_square(deviations: Floats, freedom: int) -> Floats:
            square = (deviations**2).sum(axis=-1) / max(freedom, 1)
            return np.where(square <= least, 0.0, square)

        return cls(
            mean,
            cases * mean_square(rows - mean[..., None], runs - 1),
            runs * mean_square(columns - mean[..., None], cases - 1),
            mean_square(left.reshape(*left.shape[:-2], -1), (runs - 1) * (cases - 1)),
            runs,
            cases,
        )

    @property
    def total(self) -> Floats:
        """R S times the variance of the mean."""
        return np.maximum(self.run, self.cross) + np.maximum(self.case, self.cross) - self.cross

    @property
    def error(self) -> Floats:
        """Standard error of the mean over other repetitions and other subjects."""
        return np.sqrt(self.total / (self.runs * self.cases))

    @property
    def df(self) -> Floats:
        """Satterthwaite's degrees of freedom; 1 where there is no error."""
        parts = [(np.maximum(self.case, self.cross), self.cases - 1)]
        if self.runs > 1:
            parts += [(np.maximum(self.run, self.cross), self.runs - 1)]
            parts += [(self.cross, (self.runs - 1) * (self.cases - 1))]
        spread = sum(square**2 / count for square, count in parts)
        return np.where(self.total > 0, self.total**2 / np.where(spread > 0, spread, 1.0), 1.0)

    def t(self, truth: float = 0.0) -> Floats:
        """t of the hypothesis that the true mean is ``truth``."""
        away = self.mean - truth
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(away == 0, 0.0, away / self.error)

    def p(self, truth: float = 0.0) -> Floats:
        """Two-sided p of the hypothesis that the true mean is ``truth``."""
        from scipy.special import stdtr

        return np.asarray(2 * stdtr(self.df, -np.abs(self.t(truth))))

    def equivalence(self, margin: float) -> Floats:
        """p of two one-sided tests that the true mean is beyond +-margin (Schuirmann 1987)."""
        from scipy.special import stdtr

        below, above = -self.t(-margin), self.t(margin)
        return np.asarray(np.maximum(stdtr(self.df, below), stdtr(self.df, above)))

    def reach(self, level: float) -> Floats:
        """Distance of both confidence limits from the mean."""
        from scipy.special import stdtrit

        return np.asarray(-stdtrit(self.df, level / 2) * self.error)

    def detectable(self, level: float, power: float) -> Floats:
        """Effect that a test at ``level`` finds with this power, by the noncentral t."""
        from scipy.special import nctdtrinc, stdtrit

        return np.asarray(nctdtrinc(self.df, 1 - power, -stdtrit(self.df, level / 2)) * self.error)


def within(
    middle: float, low: float, high: float, bounds: tuple[float, float]
) -> tuple[float | None, float | None]:
    """Bring the ends of an interval within bounds (least, most; infinite for none).

    The interval is formed on an unbounded scale (logit, logarithm) by the delta method, and
    transformed back (Korn & Graubard 1998, Survey Methodology 24:193). A mean on a bound, where all
    values agree, has that bound. Both ends are None if uninformative.
    """
    least, most = bounds
    if not math.isfinite(least):
        return low, high
    if not least < middle < most:
        return (low, high) if least <= low and high <= most else (None, None)
    above = middle - least
    if math.isinf(most):
        scores = [(end - middle) / above for end in (low, high)]
        if scores[1] > math.log(FAR):
            return None, None
        return least + above * math.exp(scores[0]), least + above * math.exp(scores[1])
    share = above / (most - least)
    score, slope = math.log(share / (1 - share)), 1 / (above * (1 - share))
    scores = [score + slope * (end - middle) for end in (low, high)]
    ends = [least + (most - least) / (1 + math.exp(min(-x, STEEP))) for x in scores]
    return ends[0], ends[1]


# -- variance components ---------------------------------------------------------------------------


@dataclass(frozen=True)
class VarianceComponents:
    """Variance components in squared units of the measure; None if not estimable.

    With one seed a draw, ``draw`` includes the seeds' part and ``rest`` that of ``draw_case``. With
    one draw, ``case`` includes ``draw_case``. With one run, ``case`` is everything.
    """

    draw: float | None
    seed: float | None
    case: float | None
    draw_case: float | None
    rest: float | None


def variance(runs: RunValues) -> VarianceComponents:
    """Variance components by the method of moments; negative estimates become 0.

    Draws weigh the same (unweighted means): the harmonic mean of b_i seeds stands for their number.
    Incomplete subjects are excluded.
    """
    estimates = [None if value is None else max(value, 0.0) for value in components(runs)]
    return VarianceComponents(*estimates)


def components(runs: RunValues) -> tuple[float | None, ...]:
    """Unbiased variance components, as in ``variance``, without truncation at 0."""
    runs = runs.complete()
    owner = np.array(runs.draws)
    counts = np.unique(owner, return_counts=True)[1]
    subjects, several = len(runs.subjects), len(counts) > 1
    if not runs.values.size:
        return (None,) * 5
    seeds = float(1 / np.mean(1 / counts))
    within_draws = _within_draws(runs.values, owner)
    seed_square, residual = within_draws or (0.0, 0.0)
    table = MeanSquares.of(runs.table())
    run, crossed = float(table.run), float(table.cross)
    draw = seed = case = draw_case = left = None
    if within_draws:
        seed = (seed_square - residual) / subjects
    if several:
        draw = (run - crossed - (seed_square - residual) / seeds) / subjects
    if subjects > 1:
        case = (float(table.case) - crossed) / table.runs
        draw_case = crossed - residual / seeds if several and within_draws else None
        left = residual if within_draws else crossed if several else None
    return draw, seed, case, draw_case, left


def _within_draws(values: Floats, owner: npt.NDArray[np.int64]) -> tuple[float, float] | None:
    """Mean squares of seeds, and of seeds by subjects, within draws; None without seeds."""
    seed = residual = 0.0
    freedom, subjects = 0, values.shape[1]
    for draw in np.unique(owner):
        squares = MeanSquares.of(values[owner == draw])
        freedom += squares.runs - 1
        seed += float(squares.run) * (squares.runs - 1)
        residual += float(squares.cross) * (squares.runs - 1) * (subjects - 1)
    if not freedom:
        return None
    return seed / freedom, residual / freedom / max(subjects - 1, 1)


# -- an arm and its control ------------------------------------------------------------------------


@dataclass(frozen=True)
class Interval:
    """A confidence interval; None if there are too few values."""

    low: float | None
    high: float | None


@dataclass(frozen=True)
class ArmComparison(Document):
    """An experiment arm and its control: one measure and training size, paired by run and subject.

    None marks what the runs cannot tell: below ``REPETITIONS``, or with a single test subject,
    there is no interval.
    """

    difference: float | None  # mean of arm - control; draws weigh the same
    interval: Interval  # of the difference, 95 % by default
    p: float | None  # two-sided, of the hypothesis that the true difference is 0
    df: float | None
    standard_error: float | None
    # what interval, p, mde and equivalence hold for: `draws, seeds, subjects`; with one draw
    # `seeds, subjects`, given its training subjects; or `nothing`.
    generalises: str
    wilcoxon_p: float | None
    mde: float | None  # minimum detectable effect, of either sign, at 80 % power by default
    margin: float  # differences within +-margin count as none
    equivalent: bool
    equivalence_p: float | None
    # probability that the arm with the better mean is not the better one, below 0.5: over other
    # trainings and subjects, and by the published rule, which takes the trainings as given
    false_claim: float | None
    false_claim_of_cases: float | None
    variance: VarianceComponents
    runs: int
    draws: int
    seeds: int
    subjects: int
    dropped: int
    mean_arm: float | None
    mean_control: float | None


def compare(
    arm: RunValues,
    control: RunValues,
    *,
    margin: float,
    confidence: float = 0.95,
    power: float = 0.8,
) -> ArmComparison:
    """Compare an arm with its control by Satterthwaite's test.

    ``margin``: difference that counts as none, in units of the measure. Raises UsageFault: an
    option out of range.
    """
    for name, value in (("confidence", confidence), ("power", power)):
        if not 0.5 <= value < 1:
            raise UsageFault(
                "metrics.confidence-or-power-wrong",
                f"compare: {name} is {value}, expected at least 0.5 and below 1",
            )
    if not 0 < margin < np.inf:
        raise UsageFault(
            "metrics.compare-margin-not-positive",
            f"compare: margin is {margin}, expected above 0, in units of the measure (0.005 is "
            "half a point of Dice)",
        )
    pairs, level = paired(arm, control), 1 - confidence
    means = [_mean(each.chosen(pairs.keys, pairs.subjects)) for each in (arm, control)]
    test = mean_test(pairs)
    equivalence_p = None if test is None else float(test.equivalence(margin))
    return ArmComparison(
        difference=_mean(pairs),
        interval=_interval(test, level),
        p=None if test is None else float(test.p()),
        df=None if test is None else float(test.df),
        standard_error=None if test is None else float(test.error),
        generalises=generalisation(pairs),
        wilcoxon_p=None if test is None else wilcoxon(pairs.table()),
        mde=None if test is None else float(test.detectable(level, power)),
        margin=margin,
        equivalent=equivalence_p is not None and equivalence_p <= level,
        equivalence_p=equivalence_p,
        false_claim=None if test is None else float(test.p()) / 2,
        false_claim_of_cases=None if test is None else false_claim(pairs.table().mean(axis=0)),
        variance=variance(pairs),
        runs=len(pairs.draws),
        draws=len(set(pairs.draws)),
        seeds=max(Counter(pairs.draws).values(), default=0),
        subjects=len(pairs.subjects),
        dropped=pairs.dropped,
        mean_arm=means[0],
        mean_control=means[1],
    )


def interval_of_mean(runs: RunValues, *, bounds: tuple[float, float] = ANY) -> Interval:
    """95 % confidence interval of one arm's mean."""
    whole = runs.complete()
    test = mean_test(whole)
    interval, mean = _interval(test, LEVEL), _mean(whole)
    if mean is None or interval.low is None or interval.high is None:
        return interval
    return Interval(*within(mean, interval.low, interval.high, bounds))


def detectable(
    variance: VarianceComponents,
    draws: int,
    seeds: int,
    subjects: int,
    *,
    power: float = 0.8,
    level: float = LEVEL,
) -> float:
    """Smallest effect that a design detects at a level, under true variances; None counts as 0."""
    if min(draws, seeds) < 1 or subjects < 2 or (draws if draws > 1 else seeds) < REPETITIONS:
        raise UsageFault(
            "metrics.design-counts-too-small",
            f"design: {draws} draws, {seeds} seeds, {subjects} test subject(s), expected at least "
            f"{REPETITIONS} draws (or one, with {REPETITIONS} seeds), 1 and 2",
        )
    part = {name: value or 0.0 for name, value in vars(variance).items()}
    if draws > 1:
        runs, run = draws, part["draw"] + part["seed"] / seeds
        case, cross = part["case"], part["draw_case"] + part["rest"] / seeds
    else:
        runs, run = seeds, part["seed"]
        case, cross = part["case"] + part["draw_case"], part["rest"]
    squares = np.array([subjects * run + cross, runs * case + cross, cross])
    test = MeanSquares(np.zeros(()), squares[0], squares[1], squares[2], runs, subjects)
    return float(test.detectable(level, power))


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """p corrected for multiple tests (Holm 1979); None does not count. UsageFault: no p."""
    ranked = sorted((p, index) for index, p in enumerate(ps) if p is not None)
    for p, index in ranked:
        if not 0 <= p <= 1:
            raise UsageFault(
                "metrics.holm-p-out-of-range", f"holm: p number {index} is {p}, expected 0 to 1"
            )
    corrected: list[float | None] = [None] * len(ps)
    least = 0.0
    for rank, (p, index) in enumerate(ranked):
        least = max(least, min(1.0, p * (len(ranked) - rank)))
        corrected[index] = least
    return corrected


def wilcoxon(table: Floats) -> float | None:
    """p of the signed-rank test over subjects of a table (runs, subjects); None if empty."""
    if not table.size:
        return None
    differences = table.mean(axis=0)
    if not differences.any():
        return 1.0
    from scipy import stats

    return float(stats.wilcoxon(differences).pvalue)


def false_claim(differences: Floats) -> float:
    """Probability that the better one of two methods is not the better one, given its test cases.

    ``differences``: (cases,), at least two. Of their true mean, under a flat prior of mean and
    logarithm of the deviation, Student's t is the posterior (Christodoulou et al. 2025,
    arXiv:2505.04720, of segmentation: s_A^2 + s_B^2 - 2 s_A s_B r_AB is their variance).
    """
    from scipy.special import stdtr

    cases, mean = len(differences), float(differences.mean())
    error = float(differences.std(ddof=1)) / math.sqrt(cases)
    if error <= EXACT * float(np.abs(differences).max()):
        return 0.0 if mean else 0.5
    return float(stdtr(cases - 1, -abs(mean) / error))


def generalisation(runs: RunValues) -> str:
    """What a result on these runs generalises to; see ``ArmComparison``."""
    if len(runs.subjects) < 2 or len(runs.table()) < REPETITIONS:
        return NOWHERE
    return "draws, seeds, subjects" if len(set(runs.draws)) > 1 else "seeds, subjects"


def mean_test(runs: RunValues) -> MeanSquares | None:
    """Return the test of the runs' mean, or None where they generalise to nothing."""
    return MeanSquares.of(runs.table()) if generalisation(runs) != NOWHERE else None


def _interval(test: MeanSquares | None, level: float) -> Interval:
    if test is None:
        return Interval(None, None)
    reach = test.reach(level)
    return Interval(float(test.mean - reach), float(test.mean + reach))


def _mean(runs: RunValues) -> float | None:
    table = runs.table()
    return float(table.mean()) if table.size else None
