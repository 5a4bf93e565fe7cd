"""Waits and operators of a training step: no more than today's."""

import pytest

from tests.pretend_cuda.step_counts import TRAININGS

pytestmark = pytest.mark.pretend_cuda
MOST: dict[str, tuple[float, float]] = {}
"""Waits and operators per step."""


@pytest.mark.parametrize("name", MOST)
def test_a_step_waits_and_launches_no_more_than_it_did(name):
    counts = TRAININGS[name].counts(32)
    waits, operators = MOST[name]
    assert counts.waits.total() <= waits, counts.waits
    assert counts.operators.total() <= operators, counts.operators.most_common()
