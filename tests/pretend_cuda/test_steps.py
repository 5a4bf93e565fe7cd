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
"""Operators of a step at 16 voxels per axis; ``step_counts 64`` prints those at 64."""


@pytest.mark.parametrize("name", MOST)
def test_a_step_never_waits_and_launches_no_more_than_it_did(name):
    counts = TRAININGS[name].counts(16)
    assert not counts.waits
    assert counts.operators.total() <= MOST[name] + 0.01, counts.operators.most_common()
