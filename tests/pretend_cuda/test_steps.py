"""A training step does not wait for its device, and launches few operators."""

import pytest

from tests.pretend_cuda.step_counts import TRAININGS

pytestmark = pytest.mark.pretend_cuda
MOST = {
    ("cgan3d", 32): 325,
    ("cgan3d, bf16", 32): 359,
    ("cgan3d", 16): 295,
    ("cgan3d, bf16", 16): 327,
    ("cgan3d, fp16", 16): 347,
    ("cgan3d, perceptual", 16): 430,
    ("cgan3d, cubic", 16): 309,
    ("dcgan", 16): 225,
    ("cpggan", 16): 645,
}
"""Operators of a step by training and voxels per axis. From 32 on, networks have all levels."""


@pytest.mark.parametrize(("name", "size"), MOST)
def test_a_step_never_waits_and_launches_no_more_than_it_did(name, size):
    counts = TRAININGS[name].counts(size)
    assert not counts.waits
    assert counts.operators.total() <= MOST[name, size] + 0.01, counts.operators.most_common()
