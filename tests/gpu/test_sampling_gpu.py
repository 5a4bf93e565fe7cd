from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch, Generator, Stage, move
from gansynth.core.schema import Case, Condition
from gansynth.training.loop import FitOptions, train
from tests.gpu.conftest import drawer_on, fitted
from tests.training.zoo.members import member

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


def test_gpu_and_cpu_draw_nearly_the_same(run, device):
    """Noise is drawn on the CPU for both; bf16 on one of them costs digits."""
    for one, two in zip(drawn(run, device.type), drawn(run, "cpu"), strict=True):
        assert apart(one, two) < 0.05


def test_images_from_noise_are_the_same_to_the_bit_in_any_company(device):
    """They are drawn in batches of one size, whatever is asked for."""
    generator = member("wgan_gp_mask")
    move(generator, device)
    together = generator.sample([Condition()] * 5, list(range(5)))
    for seed in (3, 0):
        alone = generator.sample([Condition()], [seed])[0]
        np.testing.assert_array_equal(alone.image, together[seed].image)
        np.testing.assert_array_equal(alone.labels, together[seed].labels)


def apart(one: np.ndarray, two: np.ndarray) -> float:
    """Root mean square of the difference, in standard deviations."""
    return float(np.sqrt(np.mean((one - two) ** 2)) / one.std())


def test_a_bank_is_filled_on_the_gpu_and_read_on_the_cpu(run, device, tmp_path):
    from tests.producers import fill_here

    drawer = drawer_on(run, device.type)
    reader = fill_here(tmp_path, drawer, 7, device=device.type)
    assert len(reader.ids()) == 7
    assert all(np.isfinite(reader.read(i).image).all() for i in reader.ids())


def test_the_plugin_keeps_its_contract(device):
    from gansynth.core.registry import installed
    from gansynth.testing import check_generator

    def fit(generator: Generator, cases: Sequence[Case], steps: int) -> object:
        def batches(step: int, stage: Stage, which: range) -> Batch:
            chosen = [cases[int(np.random.default_rng((7, step, i)).integers(12))] for i in which]
            images = torch.stack([torch.tensor(case.image) for case in chosen])
            labels = torch.stack([torch.tensor(case.labels, dtype=torch.int64) for case in chosen])
            return Batch(images, labels)

        options = FitOptions.model_validate({"steps": steps, "precision": "fp32"})
        return train(generator, batches, options, device=device)

    cls = installed().generator("cgan3d")
    small = {"width": 8, "levels": 3, "d_width": 8}
    check_generator(cls, options=small, ndim=(2,), fit=fit).raise_if_failed()
