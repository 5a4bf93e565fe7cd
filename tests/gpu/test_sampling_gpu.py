from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from gansynth.core.generator import Batch, Generator, Stage
from gansynth.core.schema import Case
from gansynth.data.batches import batch_of
from gansynth.testing import check_generator
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.whole import CGAN3D
from tests.gpu.conftest import apart, drawer_on, fitted

pytestmark = pytest.mark.usefixtures("toy_source")
SETTINGS = {"width": 8, "levels": 2, "d_width": 8, "d_levels": 2, "steps": 6, "batch_size": 2}


@pytest.fixture(scope="module")
def run(toy_source, whole_fits, tmp_path_factory) -> Path:
    return fitted(tmp_path_factory.mktemp("gpu") / "run", SETTINGS, ("flip",))


def drawn(run: Path, device: str, first: int = 0, count: int = 3) -> list[np.ndarray]:
    return [sample.image for sample in drawer_on(run, device).draw(first, count)]


def test_a_fit_leaves_a_sheet_and_a_whole_run(run):
    assert list((run / "samples").glob("step-*.png"))
    assert list((run / "checkpoints").glob("step-00000006"))


def test_the_same_seed_draws_the_same_sample_twice_and_in_any_company(run, device):
    once, again = drawn(run, device.type), drawn(run, device.type)
    for one, two in zip(once, again, strict=True):
        np.testing.assert_array_equal(one, two)
    assert apart(drawn(run, device.type, 2, 1)[0], once[2]) < 0.02


@pytest.mark.parametrize(("other", "most"), [("cpu", 0.05), ("cuda:1", 1e-3)])
def test_another_device_draws_nearly_the_same(run, device, request, other, most):
    """Noise is drawn on the CPU for both; bf16 on one of them costs digits."""
    if other != "cpu":
        request.getfixturevalue("second")
    for one, two in zip(drawn(run, device.type), drawn(run, other), strict=True):
        assert apart(one, two) < most


def test_the_plugin_keeps_its_contract(device):
    def fit(generator: Generator, cases: Sequence[Case], steps: int) -> object:
        def batches(step: int, stage: Stage, which: range) -> Batch:
            return batch_of([cases[(step + i) % len(cases)] for i in which], generator.context)

        return train(generator, batches, FitOptions(steps=steps, precision="fp32"), device=device)

    small = {"width": 8, "levels": 3, "d_width": 8}
    check_generator(CGAN3D, options=small, ndim=(2,), fit=fit).raise_if_failed()
