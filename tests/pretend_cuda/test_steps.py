"""A training step does not wait for its device, and launches few operators."""

import pytest

from tests.pretend_cuda.step_counts import TRAININGS

pytestmark = pytest.mark.pretend_cuda
MOST = {
    "cgan3d": 295,
    "cgan3d, bf16": 327,
    "cgan3d, fp16": 347,
    "cgan3d, clipping": 311,
    "cgan3d, perceptual": 430,
    "cgan3d, cubic": 309,
    "dcgan": 225,
    "cpggan": 645,
}
"""Operators of a step at 16 voxels per axis."""
MOST_LEVELS = {"cgan3d": 325, "cgan3d, bf16": 359}
"""The same at 32, where networks have as many levels as at 64 and launch as many operators."""


@pytest.mark.parametrize("name", MOST)
def test_a_step_never_waits_and_launches_no_more_than_it_did(name):
    check(name, 16, MOST[name])


@pytest.mark.parametrize("name", MOST_LEVELS)
def test_a_step_with_all_levels_launches_at_most_half_of_650_operators_in_fp32(name):
    check(name, 32, MOST_LEVELS[name])


def check(name, size, most):
    counts = TRAININGS[name].counts(size)
    assert not counts.waits
    assert counts.operators.total() <= most + 0.01, counts.operators.most_common()
