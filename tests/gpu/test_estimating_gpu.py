"""Simulated memory beside what a GPU's allocator held, and fake steps beside real ones."""
# mypy: disallow-untyped-calls=False

from typing import Any

import pytest
import torch

from gansynth.core.generator import Batch, Generator, Stage
from gansynth.core.schema import Schema
from gansynth.fitting.cost_estimate import fake_batch, simulate_steps
from gansynth.fitting.fake_tensors import CountingMode
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.model import CGAN3D

pytestmark = pytest.mark.usefixtures("real_cuda")
SIZE = (64, 64, 64)
SCHEMA = Schema(("T1", "T2"), {"background": 0, "one": 1}, (1.0, 1.0, 1.0), "DHW")
BELOW, ABOVE = 0.35, 0.05
"""Shares by which the simulation may be below the allocator's peak, and above it.

Below: the allocator's peak holds the kernels' workspaces too. Above: it should hardly ever be.
"""


def cgan(**own: Any) -> Generator:
    torch.manual_seed(0)
    return CGAN3D(SCHEMA, SIZE, CGAN3D.Options.model_validate({"width": 32, "d_width": 32, **own}))


def batches(step: int, stage: Stage, which: range) -> Batch:
    rng = torch.Generator().manual_seed(step)
    image = torch.randn(len(which), 2, *SIZE, generator=rng)
    return Batch(image, (image[:, 0] > 0).long())


DEEP = {"double": True, "skip": "concat", "up": "nearest", "down": "maxpool", "d_norm": "instance"}


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("own", [{}, DEEP], ids=["usual", "deep"])
def test_the_simulated_peak_is_near_the_allocators(cuda, precision, checkpointing, own):
    options = FitOptions(steps=3, batch_size=2, precision=precision)
    changes = {**own, "checkpointing": checkpointing}
    expected = fake_batch(cgan(**changes), batches, options, precision == "bf16").peak
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(cuda)
    torch.cuda.reset_peak_memory_stats(cuda)
    train(cgan(**changes), batches, options, device=cuda)
    happened = torch.cuda.max_memory_allocated(cuda) - before
    assert (1 - BELOW) * happened <= expected <= (1 + ABOVE) * happened, (expected, happened)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("own", [{}, DEEP], ids=["usual", "deep"])
def test_simulated_steps_make_the_tensors_that_real_ones_make(cuda, precision, own):
    """Counted alike, so workspaces are no excuse."""
    options, half = FitOptions(steps=3, batch_size=2), precision == "bf16"
    expected = fake_batch(cgan(**own), batches, options, half)
    generator = cgan(**own).to(cuda)
    happened = simulate_steps(generator, batches, options, CountingMode(cuda), half)
    assert expected.flops == happened.flops
    assert expected.peak == pytest.approx(happened.peak, rel=0.03)
