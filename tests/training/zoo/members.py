"""The zoo: a stranger's GAN and ours in many guises, tiny; and how to train and compare them."""

import signal
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gansynth.core.generator import Generator
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.nn.diff_augment import DiscriminatorAugment
from gansynth.runtime.signals import StopRequest
from gansynth.testing import ToySource
from gansynth.training import checkpoint
from gansynth.training.loop import FitOptions
from gansynth_cgan3d.whole import CGAN3D
from gansynth_cpggan.model import CPGGAN
from gansynth_dcgan.model import DCGAN
from tests.training.zoo.paired import MMGAN


@dataclass(frozen=True)
class Member:
    """A generator of the zoo; ``loop``: what its paper says of the loop.

    ``shared``: a batch that is shared out gives the same gradients (no batch norm, no dropout, no
    pool of a process's own). ``mute``: biases that a norm takes away again: their gradient is 0 but
    for rounding, which Adam makes as large as its rate. ``boxes``: it learns from boxes.
    """

    cls: type[Generator]
    own: Mapping[str, Any] = field(default_factory=dict)
    size: tuple[int, ...] = (16, 16)
    loop: Mapping[str, Any] = field(default_factory=dict)
    shared: bool = False
    mute: tuple[str, ...] = ()
    boxes: bool = False


class ADA(DCGAN):
    """Karras et al. 2020: what the discriminator sees is changed, as often as it is too sure."""

    name = "zoo_ada"

    def networks(self):
        nets = super().networks()
        moved: Any = {"target": -1.0, "speed": 20, "interval": 2}
        self.objective.augment = DiscriminatorAugment(self.options.augment, "adaptive", **moved)
        self.buffers["augment"] = self.objective.augment
        return nets


CGAN = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1, "spectral_norm": False}
PIX2PIX = {**CGAN, "style": {"noise": False, "dropout": 0.5}, "l1": 100, "l1_lowpass": 1}
MUTE = tuple(f"net/generator/{name}.bias" for name in ("down.0.0", "middle.0", "up.0"))
NOISE = {"width": 4, "latent": 8, "n_critic": 2, "g_norm": "instance", "d_norm": "instance"}
WGAN = {**NOISE, "objective": "wgan", "n_critic": 3, "clip": 0.05, "lr_discriminator": 5e-4}
CHANGES = {"augment": ["flip", "brightness", "translation", "cutout"], "augment_p": "adaptive"}
# Four steps at 4 x 4; eight at 8 x 8, of which four fade in; four fade in at 16 x 16, then on.
GROWING = {"width": 4, "max_width": 8, "latent": 8, "stage_images": 8, "fade_images": 8}
ZOO = {
    "pix2pix3d": Member(CGAN3D, PIX2PIX, (8, 8, 8)),
    "mmgan": Member(MMGAN, loop={"decay": "linear"}),
    "dcgan": Member(DCGAN, {"width": 4, "latent": 8, "objective": "gan"}),
    "wgan": Member(DCGAN, WGAN, shared=True),
    "wgan_gp": Member(DCGAN, NOISE, shared=True),
    "wgan_gp_mask": Member(DCGAN, {**NOISE, "with_mask": True}, shared=True),
    "ada": Member(ADA, {**NOISE, **CHANGES, "objective": "gan", "n_critic": 1}, shared=True),
    "cgan3d": Member(CGAN3D, CGAN, (8, 8, 8), shared=True, mute=MUTE),
    "cpggan": Member(CPGGAN, {**GROWING, "minibatch": 2, "flips": "hv"}, shared=True, boxes=True),
    "progressive": Member(CPGGAN, {**GROWING, "minibatch": 2, "spp": True}, boxes=True),
}
STEPS = {"cpggan": 18, "progressive": 18}
"""Of those that grow; others take fewer."""


class ZooSource(ToySource):
    """Toy cases by their size, for the command line: ``zoo:16`` in 2D, ``zoo:8x8x8`` in 3D."""

    def __init__(self, request: SourceRequest) -> None:
        sides = tuple(map(int, request.where.split("x")))
        self.size = sides if len(sides) == 3 else (sides[0], sides[-1])
        super().__init__(len(self.size))
        self.request = request

    @property
    def space(self) -> Space:
        return Space("crop", self.size)


def member(name: str, base: type[Generator] | None = None, **changes: Any) -> Generator:
    """A fresh generator of the zoo, of the same weights every time; ``base``: a class of the same
    networks, in place of the zoo's own; ``changes``: attributes that differ.
    """
    chosen, cls = ZOO[name], base or ZOO[name].cls
    cls = type(cls.__name__, (cls,), changes)
    schema = toy_cases(name).schema
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        made = cls(schema, chosen.size, cls.Options.model_validate(chosen.own))
    assert isinstance(made, Generator)
    return made


def toy_batches(name: str) -> CaseBatches:
    """Real crops of toy cases, as large as a generator of the zoo wants them."""
    return CaseBatches(CaseCache(toy_cases(name)), Space("crop", ZOO[name].size))


def toy_cases(name: str) -> ToySource:
    """What a generator of the zoo learns from."""
    return ToySource(len(ZOO[name].size), boxes=ZOO[name].boxes)


def loop(name: str, **changes: Any) -> FitOptions:
    """Options of the loop: those of its paper, a few steps, small batches."""
    plain = {"steps": 8, "batch_size": 2, "precision": "fp32", "checkpoint_every": 4}
    return FitOptions.model_validate({**plain, "log_every": 1, **ZOO[name].loop, **changes})


class StopAfter(StopRequest):
    def __init__(self, steps: int) -> None:
        super().__init__()
        self.left = steps

    def __call__(self) -> int:
        """SIGTERM's number when the steps are done, 0 before."""
        self.left -= 1
        return 0 if self.left else signal.SIGTERM


def newest(folder: Path) -> dict[str, Tensor]:
    """Every tensor of a run's newest checkpoint."""
    found = checkpoint.latest(folder / "checkpoints")
    assert found is not None
    return found.tensors


def differing(one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> list[str]:
    """Names of tensors that are not equal to the bit, or are in one only."""
    return sorted(
        k
        for k in one.keys() | two.keys()
        if k not in one or k not in two or not torch.equal(one[k], two[k])
    )


def apart(name: str, one: Mapping[str, Tensor], two: Mapping[str, Tensor]) -> float:
    """How far the networks' tensors of two checkpoints lie apart at most."""
    nets = [k for k in one if k.startswith("net/") and k not in ZOO[name].mute]
    return max(float((one[k].double() - two[k].double()).abs().max()) for k in nets)
