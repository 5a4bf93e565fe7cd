"""A training step waits for none but earlier ones, and launches few operators.

It may wait for the last but two to end, by an event: batches of more would fill the device.

An operator is one that PyTorch dispatches below autograd and that launches at least one kernel or
copy: no view, no allocation; one that takes lists of tensors counts once. A GPU launches more:
cuDNN adds kernels of its own.
"""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

import pytest
import torch

from gansynth.core.generator import Batch, Generator, Stage
from gansynth.core.schema import Schema
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.whole import CGAN3D
from gansynth_cpggan.model import CPGGAN
from gansynth_dcgan.model import DCGAN
from tests.pretend_cuda.waiting import Counts, counting

pytestmark = pytest.mark.pretend_cuda
TINY: dict[type[Generator], dict[str, Any]] = {
    CGAN3D: {"width": 4, "d_width": 4},
    DCGAN: {"width": 4, "latent": 8},
    CPGGAN: {"width": 2, "max_width": 4, "latent": 8},
}
"""Few features: they change no count."""


@dataclass(frozen=True)
class Training:
    """A training whose steps are counted.

    Attributes:
        cls: the generator; its options are the defaults but for these and the widths.
        loop: options of the loop.
        period: steps after which it does the same again.
    """

    cls: type[Generator]
    options: dict[str, Any] = field(default_factory=dict)
    loop: dict[str, Any] = field(default_factory=dict)
    period: int = 1

    def counts(self, size: int) -> Counts:
        """Return the counts of one step, the mean of a period, for a size in voxels per axis."""
        short, long = (self._run(size, periods * self.period) for periods in (1, 3))
        return Counts(*(_share(a, b, 2 * self.period) for a, b in zip(short, long, strict=True)))

    def _run(self, size: int, steps: int) -> tuple[Counter[str], Counter[str]]:
        dims = 3 if self.cls is CGAN3D else 2
        boxes = ("lesion",) if self.cls is CPGGAN else ()
        names = {"background": 0, "one": 1}
        schema = Schema(("T1", "T2"), names, (1.0,) * dims, "DHW"[-dims:], box_classes=boxes)
        torch.manual_seed(0)
        chosen = self.cls.Options.model_validate({**TINY[self.cls], **self.options})
        generator = self.cls(schema, (size,) * dims, chosen)

        def batches(step: int, stage: Stage, which: range) -> Batch:
            image = torch.randn(len(which), 2, *(size,) * dims)
            box = torch.tensor([[[2.0, 2, 6, 6]]]).expand(len(which), 1, 4) if boxes else None
            label = torch.zeros(len(which), 1, dtype=torch.int64) if boxes else None
            return Batch(image, (image[:, 0] > 0).long(), boxes=box, box_labels=label)

        loop = {"batch_size": 2, "precision": "fp32", "log_every": 1000, "diversity": 0}
        loop_options = FitOptions.model_validate({**loop, **self.loop, "steps": steps})
        # No preview after so many seconds: a slow machine would count it.
        with counting() as counts, mock.patch("gansynth.training.loop.FIRST_PREVIEW", float("inf")):
            stages = generator.stages()[-1:]
            train(generator, batches, loop_options, device=torch.device("cuda"), stages=stages)
        return counts.waits, counts.operators


TRAININGS = {
    "cgan3d": Training(CGAN3D),
    "cgan3d, bf16": Training(CGAN3D, loop={"precision": "bf16"}),
    "cgan3d, fp16": Training(CGAN3D, loop={"precision": "fp16"}),
    "cgan3d, perceptual": Training(CGAN3D, {"perceptual": 1}),
    "cgan3d, cubic": Training(CGAN3D, {"style": {"up": "cubic"}}),
    "dcgan": Training(DCGAN, period=5),
    "cpggan": Training(CPGGAN, {"stage_images": 2, "fade_images": 0}),
}


def _share(short: Counter[str], long: Counter[str], steps: int) -> Counter[str]:
    shares = {key: (count - short[key]) / steps for key, count in long.items()}
    return Counter({key: share for key, share in shares.items() if share})


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
def test_a_step_waits_for_earlier_ones_alone_and_launches_no_more_than_it_did(name, size):
    counts = TRAININGS[name].counts(size)
    assert {where.partition(" ")[2] for where in counts.waits} <= {"event.synchronize"}
    assert counts.waits.total() <= 1
    assert counts.operators.total() <= MOST[name, size] + 0.01, counts.operators.most_common()
