from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gansynth.core.sample_request import SampleRequest
from tests.gpu.conftest import apart, drawer_on, fitted

pytestmark = pytest.mark.usefixtures("toy_source")
SETTINGS: dict[str, object] = {
    "rim_mm": 2,
    "standardise": "no",
    "width": 4,
    "levels": 2,
    "d_width": 4,
    "d_levels": 2,
}
SETTINGS |= {"local_size": 8, "steps": 6, "batch_size": 2}
ROOMY = SampleRequest(lesions="what=one,inside=0.5,apart_mm=0")
"""Toy cases are small, their own lesions large."""


@pytest.fixture(scope="module")
def run(toy_source, tmp_path_factory) -> Path:
    return fitted(
        tmp_path_factory.mktemp("lesion-gpu") / "run", SETTINGS, ("elastic",), "cgan3d-lesion"
    )


def drawing(run: Path, device: str, asking: SampleRequest = ROOMY) -> Any:
    return drawer_on(run, device, replace(asking, keep_flawed=True))


def test_the_background_comes_back_to_the_bit_beyond_the_rim(run, device):
    import torch

    from gansynth.core.schema import lesion_mask
    from gansynth.imaging.blending import hole, rim_voxels

    drawer = drawing(run, device.type)
    changed = 0
    for index, sample in enumerate(drawer.draw_raw(0, 4)):
        condition = drawer.sampler.draw(index)
        mask = torch.from_numpy(lesion_mask(condition))[None, None]
        beyond = ~hole(mask, rim_voxels(2, (1.0, 1.0, 1.0)))[0, 0].numpy()
        np.testing.assert_array_equal(sample.image[:, beyond], condition.background[:, beyond])
        changed += int((sample.image != condition.background).sum())
    assert changed


def test_gpu_and_cpu_refine_nearly_alike(run, device):
    """Noise is drawn on the CPU for both; bf16 on one of them costs digits."""
    pairs = [drawing(run, where).draw_raw(0, 2) for where in (device.type, "cpu")]
    for one, two in zip(*pairs, strict=True):
        assert apart(one.image, two.image) < 0.05


def test_a_filter_learns_and_judges_on_the_device(run, device):
    asked = ("faithful:steps=4,width=4,levels=2,crops=4",)
    asking = SampleRequest(lesions=ROOMY.lesions, filters=asked)
    samples = drawing(run, device.type, asking).draw_raw(0, 3)
    assert all("admitted" in s.provenance or "reject_reason" in s.provenance for s in samples)
    assert list((run / "filters").glob("faithful-*"))
