"""Runs: what is paired with what, what is left out, what is refused."""

import numpy as np
import pytest

from gansynth.metrics.stats.runs import Runs, paired
from gansynth.runtime.errors import UsageFault

NONE = float("nan")


def runs(values, draws=(0, 0, 1), seeds=(0, 1, 0), subjects=("a", "b")) -> Runs:
    return Runs(np.array(values, float), draws, seeds, subjects)


def test_values_are_paired_by_run_and_subject_whatever_their_order():
    arm = runs([[1, 2], [3, 4], [5, 6]])
    control = runs([[50, 10], [40, 20]], (1, 0), (0, 1), ("b", "a"))
    found = paired(arm, control)
    assert found.keys == ((0, 1), (1, 0))
    assert found.subjects == ("a", "b")
    assert found.values.tolist() == [[3 - 20, 4 - 40], [5 - 10, 6 - 50]]


def test_a_subject_without_a_value_in_one_run_is_dropped_and_counted():
    control = runs([[0, 0], [0, 0], [0, 0]])
    found = paired(runs([[1, 2], [NONE, 4], [5, 6]]), control)
    assert (found.subjects, found.dropped) == (("b",), 1)


def test_a_missing_value_in_a_run_that_is_not_compared_drops_nobody():
    control = runs([[0, 0]], (0,), (0,))
    found = paired(runs([[1, 2], [NONE, 4], [5, 6]]), control)
    assert (found.subjects, found.dropped) == (("a", "b"), 0)


def test_subjects_that_only_one_side_has_are_counted():
    found = paired(runs([[1, 2]] * 3), runs([[1, 2]] * 3, subjects=("b", "c")))
    assert (found.subjects, found.dropped) == (("b",), 2)


def test_nothing_in_common_is_an_empty_pairing():
    found = paired(runs([[1, 2]] * 3), runs([[1, 2]], (7,), (0,)))
    assert found.values.shape == (0, 2)


def test_draws_weigh_the_same_however_many_seeds_they_have():
    assert runs([[1, 2], [3, 4], [10, 20]]).table().tolist() == [[2, 3], [10, 20]]


def test_of_one_draw_the_seeds_are_the_repetitions():
    alone = runs([[1, 2], [3, 4]], (5, 5), (0, 1))
    assert alone.table().tolist() == [[1, 2], [3, 4]]


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
    good = {"values": np.ones((3, 2)), "draws": (0, 0, 1), "seeds": (0, 1, 0)}
    with pytest.raises(UsageFault) as caught:
        Runs(**{**good, "subjects": ("a", "b"), **change})
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)
