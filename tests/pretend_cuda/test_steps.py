"""Waits and operators of a training step: no more than today's."""

import pytest

from tests.pretend_cuda.step_counts import TRAININGS

pytestmark = pytest.mark.pretend_cuda
MOST: dict[str, tuple[float, float]] = {
    "cgan3d": (2, 526),
    "cgan3d, bf16": (2, 646),
    "cgan3d, fp16": (4, 700),
    "cgan3d, clipping": (2, 542),
    "cgan3d, perceptual": (3, 691),
    "cgan3d, cubic": (8, 546),
    "dcgan": (3.2, 238),
    "cpggan": (4, 665),
}
"""Waits and operators per step at 16 voxels per axis; ``step_counts 64`` prints those at 64."""


@pytest.mark.parametrize("name", MOST)
def test_a_step_waits_and_launches_no_more_than_it_did(name):
    counts = TRAININGS[name].counts(16)
    waits, operators = MOST[name]
    assert counts.waits.total() <= waits + 0.01, counts.waits
    assert counts.operators.total() <= operators, counts.operators.most_common()
