"""The contract a generator plugin fulfils.

A generator names its options, builds networks, states what each player minimises, and draws
samples; the training loop does the rest. One without networks (copy-paste) has no phases.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from gansynth.core.schema import Case, Condition, Sample, Schema
from gansynth.runtime.devices import Precision
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import SetOptions


class GeneratorOptions(SetOptions):
    """Base of every generator's options; description and unit stand beside each field."""


@dataclass(frozen=True)
class Stage:
    """One stretch of training; progressive growing has several.

    ``size``: spatial size in voxels at this stage; None keeps the space's. ``batch_size``: samples
    a step; None keeps the run's. ``images``: length in images shown to the discriminator; None
    lasts to the end. ``fade``: images over which the stage's new layers fade in; 0 for none.
    """

    size: tuple[int, ...] | None = None
    batch_size: int | None = None
    images: int | None = None
    fade: int = 0


@dataclass
class Batch:
    """Real cases on the device.

    Attributes:
        image: float32 (B, C, D, H, W) or (B, C, H, W).
        labels: int64 (B, D, H, W) or (B, H, W), values as in the schema; None if unlabelled.
        context: int64 (B, D, H, W) or (B, H, W), intensity clusters; None if unused.
        padding: bool, same shape: voxels beyond the case, where the image holds a constant that a
            discriminator would know by; None if there are none.
        classes: int64 (B,), numbers in the schema's ``classes``; None where there are none.
        boxes: float32 (B, M, 4) or (B, M, 6), voxels, ``min..., max...``, half-open; rows beyond a
            sample's own boxes hold zeros; None where cases have no lists of boxes.
        box_labels: int64 (B, M), their classes; -1 in rows beyond a sample's own.
        asked: int64 like ``labels``: the label maps that synthetic samples of this step are asked
            for where these are not the cases' own (``Generator.fit_edits``); None where they are.
    """

    image: Tensor
    labels: Tensor | None = None
    context: Tensor | None = None
    padding: Tensor | None = None
    classes: Tensor | None = None
    boxes: Tensor | None = None
    box_labels: Tensor | None = None
    asked: Tensor | None = None
    asked_context: Tensor | None = None

    def to(self, device: torch.device) -> Batch:
        """The same on a device."""
        moved: dict[str, Any] = {
            name: None if value is None else value.to(device, non_blocking=True)
            for name, value in vars(self).items()
        }
        return Batch(**moved)


@dataclass
class Step:
    """What a phase sees of the current step.

    A step's batch may be shared out, among processes and among accumulated parts. Random numbers
    that come from ``randn`` and ``rand`` belong to the samples of the *whole* batch: however it is
    shared out, a sample meets the same noise.

    Attributes:
        batch: this share's real cases, already through ``prepare``.
        index: optimiser step, from 0.
        rng: generator on the batch's device, keyed by seed and step, equal for all shares.
        key: what ``rng`` was seeded with; seeds other generators (numpy's, say).
        alpha: how far the stage's new layers have faded in, 0 to 1.
        first: number of this share's first sample in the whole batch.
        total: samples of the whole batch; those of this share if 0.
        mean: the mean of a tensor over the processes that train together; all must call it.
        scratch: carries tensors from one phase of this step to the next (a fake image, say).
    """

    batch: Batch
    stage: Stage
    index: int
    images: int
    rng: torch.Generator
    key: int = 0
    alpha: float = 1.0
    first: int = 0
    total: int = 0
    mean: Callable[[Tensor], Tensor] = lambda values: values
    scratch: dict[str, Any] = field(default_factory=dict)

    def randn(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32 (B, *shape) on the batch's device."""
        return self._share(torch.randn, shape)

    def rand(self, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), float32 (B, *shape) on the batch's device."""
        return self._share(torch.rand, shape)

    def _share(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        count = len(self.batch.image)
        drawn = draw(self.total or count, *shape, generator=self.rng, device=self.rng.device)
        return drawn[self.first : self.first + count]


@dataclass(frozen=True)
class Phase:
    """One optimiser step of one player.

    Attributes:
        player: whose networks are stepped (a key of ``players``); the others are frozen meanwhile.
        loss: named terms, each a scalar tensor that is a mean over the batch; summed for the
            backward pass.
        interval: run every so many steps: a lazy regulariser, or a generator that waits for n
            critic steps.
        offset: the first step it runs in, less than ``interval``; players that take turns have the
            same interval and different offsets.
        after: called after the optimiser has stepped (WGAN's weight clipping).
    """

    player: str
    loss: Callable[[Step], Mapping[str, Tensor]]
    interval: int = 1
    offset: int = 0
    after: Callable[[], None] | None = None

    def due(self, index: int) -> bool:
        """Whether it runs in a step."""
        return index % self.interval == self.offset


Labelling = Literal["asked", "drawn", "none"]
"""Where the label maps of samples come from; see ``Generator.labelling``."""

Heeded = Literal["labels", "boxes", "class", "foreground", "background", "lesion", "image"]
"""What of a condition samples may follow; see ``Generator.heeds``."""


class Memory(Protocol):
    """What a training remembers beside its weights (an image pool, say); checkpointed with them."""

    def state(self) -> dict[str, Tensor]:
        """Everything, as tensors by name."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Take back what ``state`` gave."""


class Generator(ABC):
    """Base class of generator plugins.

    Attributes:
        Options: pydantic model of the generator's own options.
        intensity: ``linear`` draws in the source's units; ``tanh`` needs a window to [-1, 1].
        default_edits: condition edits used where the user names none.
        loop: settings of the training loop that it is usually trained with, under the user's own.
        if_not_finite: what a user may do about losses that are not finite, for messages.
        memories: what its training remembers beside the weights; ``networks`` may fill it.
    """

    name: ClassVar[str]
    Options: ClassVar[type[GeneratorOptions]] = GeneratorOptions
    ema: ClassVar[tuple[str, ...]] = ("generator",)
    default_edits: ClassVar[tuple[str, ...]] = ()
    loop: ClassVar[Mapping[str, Any]] = {}
    if_not_finite: ClassVar[str] = "Lower the learning rates (--set lr_generator=1e-4)"

    def __init__(self, schema: Schema, size: Sequence[int], options: GeneratorOptions) -> None:
        self.schema = schema
        self.size = tuple(size)
        self.options = options
        self.memories: dict[str, Memory] = {}
        self.nets: dict[str, nn.Module] = self.networks()
        self.device = torch.device("cpu")
        self.precision: Precision = "auto"  # of sampling

    # -- what a plugin must say ------------------------------------------------------------------

    @abstractmethod
    def networks(self) -> dict[str, nn.Module]:
        """Build the networks by name, e.g. ``generator`` and ``discriminator``; may be empty."""

    @abstractmethod
    def phases(self) -> Sequence[Phase]:
        """What is minimised in each step, in order; empty for a generator that does not train."""

    @abstractmethod
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Draw one sample per condition; the same seed gives the same sample at any batch size.

        ``seeds``: one per condition. Returns samples in the generator's space: image float32 (C, D,
        H, W) or (C, H, W), labels as conditioned.
        """

    # -- what a plugin may say -------------------------------------------------------------------

    @property
    def intensity(self) -> Literal["linear", "tanh"]:
        """Range of the images this generator draws."""
        return "linear"

    @property
    def labelling(self) -> Labelling:
        """Where the label maps of its samples come from.

        ``asked``: they are the conditions'; only labelled cases can be learnt from. ``drawn``: it
        draws them together with the image, so conditions are not edited. ``none``: its samples have
        no label maps, and no host that learns from labels takes them.
        """
        return "asked"

    @property
    def heeds(self) -> frozenset[Heeded]:
        """What of a condition its samples follow.

        ``labels``: its label map. ``boxes``: its boxes; only cases with lists of boxes can be
        learnt from. ``class``: the class of its case. ``foreground``: whether its label map has
        any. ``background``: a real case's image, part of which its samples keep. ``lesion``: which
        voxels of its label map are new to the background, and what another case shows there
        (``donor``). ``image``: the image of its case, moved along with its label map (``moved``);
        edits are then maps of space alone. The rest of a condition may say what it will.
        """
        return frozenset({"labels"} if self.labelling == "asked" else ())

    @property
    def default_lesions(self) -> str | None:
        """How lesions are put into real images unless told: see ``lesion_drawer``."""
        return None

    @property
    def fit_edits(self) -> tuple[str, ...]:
        """Edits of the label maps that synthetic samples are asked for *while training*.

        Texts as after ``--edit``. None by default: a step's synthetic samples have the label maps
        of its real cases. With some, ``Batch.asked`` holds the edited ones.
        """
        return ()

    @property
    def context_follows(self) -> bool:
        """Whether context is moved along with edits; if not, it is made of the edited case."""
        return True

    def accepts(self, case: Case) -> bool:
        """Whether to learn from a case at its place; if not, another is drawn in its stead."""
        return True

    def stages(self) -> Sequence[Stage]:
        """One stage by default; progressive growing lists several."""
        return (Stage(),)

    def players(self) -> Mapping[str, tuple[str, ...]]:
        """Player -> the networks it steps; one player per network by default."""
        return {name: (name,) for name in self.nets}

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The optimiser of a player."""
        return torch.optim.Adam(parameters, lr=2e-4, betas=(0.5, 0.999))

    def channel_axes(self) -> Mapping[str, tuple[int, Sequence[str]]]:
        """Tensors with an axis of named channels: ``network/tensor`` -> (axis, names in order).

        ``fit --init-from`` takes over channels by name there (``generator/stem.weight`` -> (1,
        ("label:0", "label:1", "given:T1"))). A name must mean the same thing in every run.
        """
        return {}

    def prepare(self, batch: Batch, stage: Stage) -> Batch:
        """Bring a batch to what this stage learns from (resize it, say)."""
        return batch

    def observe(self, cases: Iterable[Case]) -> None:  # noqa: B027 (optional, not abstract)
        """Learn plain statistics from the training cases (generator's space) before training."""

    def state(self) -> dict[str, Any]:
        """JSON of what ``observe`` learnt; no patient's image."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (optional)
        """Read back ``state``."""

    def context(self, case: Case) -> Any:
        """Context channels int16 (D, H, W) of a case in the generator's space, or None."""
        return None

    def given(self, case: Case) -> Any:
        """Channels float32 (K, D, H, W) of a case that are given, not drawn, or None."""
        return None

    def flaw(self, sample: Sample) -> str:
        """Why a sample of this generator should not be learnt from, or nothing.

        Asked of every sample, in the generator's space. What is said is written into the sample's
        provenance as ``flaw``, and such a sample is admitted to no bank. Begin with what was found
        and go on with ``, expected ...``: equal beginnings are counted as one reason.
        """
        return ""

    def interpolate(self, condition: Condition, ends: tuple[int, int], steps: int) -> list[Sample]:
        """Samples on the way from one latent to another, ``steps`` of them with both ends.

        ``ends``: the two seeds, whose own samples are the first and the last. ``steps``: at least
        2. Raises UsageFault: this generator has no latent that could be walked through.
        """
        raise UsageFault(
            f"{self.name}: has no latent space to interpolate in, expected a generator that draws "
            "images from noise, such as dcgan"
        )

    def realness(self, batch: Batch, stage: Stage) -> Tensor | None:
        """How real the discriminator finds real cases, (B,) float32; higher is more real.

        One number a case, whoever else is in the batch: no augmentation, no chance, networks
        ``at_rest()``, means over patches, scales and discriminators; for membership inference
        (Hayes et al. 2019, arXiv:1705.07663, sec. 4). None where it cannot be asked. ``stage``: of
        a generator that grows, its last.
        """
        return None

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Every network in evaluation mode, no gradients; each module's mode as before after."""
        modes = [(m, m.training) for net in self.nets.values() for m in net.modules()]
        try:
            for net in self.nets.values():
                net.eval()
            with torch.no_grad():
                yield
        finally:
            for module, training in modes:
                module.training = training

    def to(self, device: torch.device) -> Generator:
        """Move every network to a device."""
        self.device = device
        for net in self.nets.values():
            net.to(device)
            if device.type == "cpu" and self.schema.ndim == 3:
                # Measured up to 1.8x faster there; on CUDA instance norm makes it slower.
                net.to(memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return self
