"""Mean squares by hand, and variance components that are right on average."""

from dataclasses import asdict

import numpy as np
import pytest

from gansynth.metrics.stats.anova import Squares, Variance, components, variance
from gansynth.metrics.stats.runs import Runs
from gansynth.metrics.stats.simulation import Design, simulated

TRUTH = Variance(draw=1.0, seed=0.5, case=4.0, draw_case=0.5, rest=2.0)
NAMES = tuple(asdict(TRUTH))


def test_mean_squares_of_a_table_of_two_by_two_by_hand():
    found = Squares.of(np.array([[1.0, 2.0], [3.0, 8.0]]))
    # Means 3.5; rows 1.5, 5.5; columns 2, 5; what is left is +-1.
    assert [float(x) for x in (found.mean, found.run, found.case, found.cross)] == [3.5, 16, 9, 4]
    assert found.standard_error == pytest.approx(np.sqrt((16 + 9 - 4) / 4))


def test_many_tables_at_once_are_as_each_alone():
    tables = np.random.default_rng(0).normal(size=(3, 4, 5))
    together = Squares.of(tables)
    for index, table in enumerate(tables):
        alone = Squares.of(table)
        assert together.cross[index] == pytest.approx(float(alone.cross))
        assert together.run[index] == pytest.approx(float(alone.run))


def test_a_component_that_comes_out_negative_does_not_shrink_the_error():
    quiet = Squares.of(np.array([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]))
    assert quiet.run == 0
    assert quiet.total == quiet.cross > 0


def estimates(design: Design, kept: list[tuple[int, int]] | None, number: int) -> np.ndarray:
    found = []
    for values in simulated(TRUTH, design, np.random.default_rng(1), number=number):
        runs = design.runs(values)
        found.append(components(runs if kept is None else runs.chosen(kept, runs.subjects)))
    return np.array(found, float)


@pytest.mark.parametrize(
    ("design", "kept"),
    [
        (Design(4, 2, 8), None),
        (Design(4, 3, 8), [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (2, 0), (3, 0), (3, 1)]),
    ],
    ids=["balanced", "unbalanced"],
)
def test_components_are_right_on_average(design, kept):
    found = estimates(design, kept, 1500)
    error = found.std(axis=0) / np.sqrt(len(found))
    away = (found.mean(axis=0) - list(asdict(TRUTH).values())) / error
    assert dict(zip(NAMES, np.abs(away) < 3.5, strict=True)) == dict.fromkeys(NAMES, True)


def test_a_negative_estimate_becomes_zero():
    design = Design(3, 2, 4)
    noise = Variance(0, 0, 0, 0, 1)
    for values in simulated(noise, design, np.random.default_rng(0), number=20):
        runs = design.runs(values)
        raw, kept = components(runs), variance(runs)
        assert list(asdict(kept).values()) == [max(value, 0) for value in raw if value is not None]


def test_with_one_seed_a_draw_seeds_are_part_of_draws():
    values = simulated(TRUTH, Design(400, 1, 50), np.random.default_rng(0))[0]
    found = variance(Design(400, 1, 50).runs(values))
    assert found.seed is None
    assert found.draw_case is None
    assert found.draw == pytest.approx(1.5, rel=0.3)
    assert found.rest == pytest.approx(2.5, rel=0.1)


def test_with_one_draw_nothing_is_said_of_draws():
    values = simulated(TRUTH, Design(1, 400, 50), np.random.default_rng(0))[0]
    found = variance(Design(1, 400, 50).runs(values))
    assert found.draw is None
    assert found.draw_case is None
    assert found.seed == pytest.approx(0.5, rel=0.3)
    assert found.rest == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize(
    ("shape", "known"),
    [((1, 1, 5), {"case"}), ((2, 2, 1), {"draw", "seed"}), ((1, 1, 1), set()), ((1, 1, 0), set())],
)
def test_too_little_is_none_and_not_zero(shape, known):
    values = np.random.default_rng(0).normal(size=shape)
    draws, seeds, subjects = shape
    owner = tuple(draw for draw in range(draws) for _ in range(seeds))
    names = tuple(map(str, range(subjects)))
    runs = Runs(values.reshape(draws * seeds, subjects), owner, tuple(range(seeds)) * draws, names)
    found = asdict(variance(runs))
    assert {name for name, value in found.items() if value is not None} == known
