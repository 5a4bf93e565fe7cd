"""The contract of a generator plugin.

A generator names its options, builds networks, defines each player's loss and generates samples.
The training loop does the rest. One that defines no phases (copy-paste) trains nothing: its fit has
no steps, no curves and no options of the loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gansynth.core.schema import Case, Condition, Sample, Schema
from gansynth.runtime.devices import Precision, adam
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.options import SetOptions


class GeneratorOptions(SetOptions):
    """Base of every generator's options; description and unit stand beside each field."""


@dataclass(frozen=True)
class Stage:
    """One stage of training; progressive growing has several.

    ``size``: spatial size in voxels at this stage; None keeps the space's. ``batch_size``: samples
    per step; None keeps the run's. ``images``: length in images shown to the discriminator; None
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
        padding: bool, same shape: voxels beyond the case; their constant value would give real
            images away to a discriminator. None if there are none.
        classes: int64 (B,), numbers in the schema's ``classes``; None without classes.
        boxes: float32 (B, M, 4) or (B, M, 6), voxels, ``min..., max...``, half-open. Rows beyond a
            sample's own boxes hold zeros. None where cases have no lists of boxes.
        box_labels: int64 (B, M), their classes; -1 in rows beyond a sample's own.
        asked: int64 like ``labels``: label maps for this step's synthetic samples, where edited
            (``Generator.fit_edits``). None where they are the cases' own.
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
        """Return the batch on a device."""
        moved: dict[str, Any] = {
            name: None if value is None else value.to(device, non_blocking=True)
            for name, value in vars(self).items()
        }
        return Batch(**moved)


@dataclass
class TrainingStep:
    """The current step, as its phases see it.

    A step's batch may be split among processes and accumulated parts. Random numbers from ``randn``
    and ``rand`` belong to the samples of the *whole* batch: a sample gets the same noise however
    the batch is split.

    Attributes:
        batch: this part's real cases.
        index: optimiser step, from 0.
        rng: generator on the batch's device, keyed by seed and step, equal for all parts.
        key: seed of ``rng``; seeds other generators (numpy's, say).
        alpha: fade-in of the stage's new layers, 0 to 1.
        first: number of this part's first sample in the whole batch.
        total: samples of the whole batch; those of this part if 0.
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
        """Return standard normal numbers, float32 (B, *shape) on the batch's device."""
        return self._share(torch.randn, shape)

    def rand(self, *shape: int) -> Tensor:
        """Return uniform numbers in [0, 1), float32 (B, *shape) on the batch's device."""
        return self._share(torch.rand, shape)

    def _share(self, draw: Callable[..., Tensor], shape: tuple[int, ...]) -> Tensor:
        count = len(self.batch.image)
        noise = draw(self.total or count, *shape, generator=self.rng, device=self.rng.device)
        return noise[self.first : self.first + count]


@dataclass(frozen=True)
class Phase:
    """One optimiser step of one player.

    Attributes:
        player: whose networks are updated (a key of ``players``); the others are frozen meanwhile.
        loss: named terms, each a scalar tensor that is a mean over the batch; summed for the
            backward pass.
        interval: steps between runs: for a lazy regulariser, or a generator that waits for n
            critic steps.
        offset: the first step it runs in, less than ``interval``; players that take turns have the
            same interval and different offsets.
        after: called after the optimiser step (WGAN's weight clipping).
    """

    player: str
    loss: Callable[[TrainingStep], Mapping[str, Tensor]]
    interval: int = 1
    offset: int = 0
    after: Callable[[], None] | None = None

    def due(self, index: int) -> bool:
        """Whether the phase runs in a step."""
        return index % self.interval == self.offset


LabelSource = Literal["condition", "generated", "none"]
"""Origin of the samples' label maps; see ``Generator.label_source``."""

Heeded = Literal[
    "labels", "boxes", "class", "foreground", "background", "lesion", "image", "channels", "context"
]
"""Parts of a condition that samples may follow; see ``Generator.conditioned_on``."""


MOST_VALUES = 64  # distinct values of a case's context


class TrainingBuffer(Protocol):
    """Training state beside the weights (an image pool, say); saved in checkpoints."""

    def state(self) -> dict[str, Tensor]:
        """Return the state as tensors by name."""

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the tensors of ``state``."""


class Generator(ABC):
    """Base class of generator plugins.

    Attributes:
        Options: pydantic model of the generator's own options.
        intensity: ``linear`` generates in the source's units; ``tanh`` needs a window to [-1, 1].
        default_edits: condition edits used unless the user names others.
        loop: its usual settings of the training loop; the user's own take precedence.
        if_not_finite: hint for users about losses that are not finite.
        if_labels_fail: hint for users about generated label maps that miss what is in the image.
        memories: its training state beside the weights; ``networks`` may fill it.
    """

    name: ClassVar[str]
    Options: ClassVar[type[GeneratorOptions]] = GeneratorOptions
    ema: ClassVar[tuple[str, ...]] = ("generator",)
    default_edits: ClassVar[tuple[str, ...]] = ()
    loop: ClassVar[Mapping[str, Any]] = {}
    if_not_finite: ClassVar[str] = "Lower the learning rates (--set lr_generator=1e-4)"
    if_labels_fail: ClassVar[str] = "train longer (--set steps=N)"

    def __init__(self, schema: Schema, size: Sequence[int], options: GeneratorOptions) -> None:
        self.schema = schema
        self.size = tuple(size)
        self.options = options
        self.memories: dict[str, TrainingBuffer] = {}
        self.nets: dict[str, nn.Module] = self.networks()
        self.device = torch.device("cpu")
        self.precision: Precision = "auto"  # of sampling

    # -- what a plugin must define ---------------------------------------------------------------

    @abstractmethod
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Generate one sample per condition; equal seeds give equal samples at any batch size.

        ``seeds``: one per condition. Returns samples in the generator's space: image float32 (C, D,
        H, W) or (C, H, W), labels as conditioned.
        """

    # -- what a plugin may define ----------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Build the networks by name, e.g. ``generator`` and ``discriminator``; none by default."""
        return {}

    def phases(self) -> Sequence[Phase]:
        """Return the phases of each step, in order; not defined by a generator without training."""
        return ()

    @classmethod
    def trains(cls) -> bool:
        """Whether fits have training steps: whether the class defines ``phases``."""
        return cls.phases is not Generator.phases

    @property
    def intensity(self) -> Literal["linear", "tanh"]:
        """Intensity range of the generated images."""
        return "linear"

    @property
    def label_source(self) -> LabelSource:
        """Origin of the label maps of its samples.

        ``asked``: the conditions; training needs labelled cases. ``drawn``: generated together with
        the image, so conditions are not edited. ``none``: samples have no label maps, and no host
        that learns from labels takes them.
        """
        return "condition"

    @property
    def conditioned_on(self) -> frozenset[Heeded]:
        """Parts of a condition that its samples follow; other parts are ignored.

        ``labels``: its label map. ``boxes``: its boxes; training needs cases with lists of boxes.
        ``class``: the class of its case. ``foreground``: whether its label map has any.
        ``background``: a real case's image, part of which its samples keep. ``lesion``: the voxels
        of its label map that are new to the background, and another case's image there (``donor``).
        ``image``: the image of its case, moved along with its label map (``moved``); edits are then
        spatial maps only. ``channels``: real channels, those of ``given``. ``context``: those of
        ``context``. Samples for sharing may hold no real image: ``background``, ``lesion``,
        ``image`` and ``channels`` are refused.
        """
        return frozenset({"labels"} if self.label_source == "condition" else ())

    @property
    def default_lesions(self) -> str | None:
        """Default of how lesions are put into real images: see ``lesion_drawer``."""
        return None

    @property
    def fit_edits(self) -> tuple[str, ...]:
        """Edits of the label maps of synthetic samples *during training*.

        Texts as after ``--edit``. None by default: a step's synthetic samples have the label maps
        of its real cases. With edits, ``Batch.asked`` holds the edited maps.
        """
        return ()

    @property
    def context_follows(self) -> bool:
        """Whether edits move the context along; if not, it is computed from the edited case."""
        return True

    def accepts(self, case: Case) -> bool:
        """Whether to learn from a case at its place; if not, another one is drawn."""
        return True

    def stages(self) -> Sequence[Stage]:
        """Return the stages of training: one by default, several for progressive growing."""
        return (Stage(),)

    def players(self) -> Mapping[str, tuple[str, ...]]:
        """Map players to the networks they update; one player per network by default."""
        return {name: (name,) for name in self.nets}

    @property
    def compilable(self) -> Sequence[str]:
        """Networks that option ``compile`` of the loop compiles; those that sample by default.

        Not those whose gradients are differentiated again (a gradient penalty), nor growing ones.
        """
        return self.ema

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of a player."""
        return adam(parameters, 2e-4, (0.5, 0.999))

    def channel_axes(self) -> Mapping[str, tuple[int, Sequence[str]]]:
        """Tensors with an axis of named channels: ``network/tensor`` -> (axis, names in order).

        ``fit --init-from`` matches channels by name there (``generator/stem.weight`` -> (1,
        ("label:0", "label:1", "given:T1"))). A name must mean the same thing in every run.
        """
        return {}

    def automatic_options(self, cases: Iterable[Case]) -> tuple[GeneratorOptions, str]:
        """Return the options with automatic ones determined, and a line about them, or nothing.

        Called once, before a fit. ``cases``: training crops in the generator's space.
        """
        return self.options, ""

    def observe(self, cases: Iterable[Case]) -> None:  # noqa: B027 (optional, not abstract)
        """Compute plain statistics of the training cases (generator's space) before training."""

    def state(self) -> dict[str, Any]:
        """Return the statistics of ``observe`` as JSON; they hold no patient's image.

        At most 128 KiB, whatever the size of images: larger states are refused.
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (optional)
        """Restore ``state``."""

    def context(self, case: Case) -> Any:
        """Return context channels int16 (D, H, W) of a case in the generator's space, or None.

        At most 64 distinct values; used if ``conditioned_on`` has ``context``.
        """
        return None

    def taken_context(self, case: Case) -> Any:
        """Return ``context`` of a case, as the core takes it; None if it is not declared.

        Raises:
            IntegrityFault: it has other values than integers, or more than 64 distinct ones.
        """
        context = self.context(case) if "context" in self.conditioned_on else None
        if context is None:
            return None
        array = np.asarray(context)
        whole = array.dtype.kind in "iub"
        if whole and array.size and int(array.max()) - int(array.min()) < MOST_VALUES:
            return context  # of every case of a training: without sorting its voxels
        values = np.unique(array)
        if len(values) > MOST_VALUES or not whole:
            raise IntegrityFault(
                f"{self.name}: context() of a case has {len(values)} distinct values of "
                f"{context.dtype}, expected integers and at most {MOST_VALUES}: more could be its "
                "image. Give clusters or regions"
            )
        return context

    def given(self, case: Case) -> Any:
        """Return channels float32 (K, D, H, W) of a case that are given as input, or None.

        Used if ``conditioned_on`` has ``channels``.
        """
        return None

    def reject_reason(self, sample: Sample) -> str:
        """Return why to reject a sample of this generator, or nothing.

        Called for every sample, in the generator's space. The reason is written into the sample's
        provenance as ``reject_reason``, and the sample enters no bank. Begin with the observation
        and continue with ``, expected ...``: equal beginnings count as one reason.
        """
        return ""

    def interpolate(self, condition: Condition, ends: tuple[int, int], steps: int) -> list[Sample]:
        """Generate ``steps`` samples along the path between two latents, both ends included.

        ``ends``: the seeds of the first and the last sample. ``steps``: at least 2. Raises
        UsageFault: this generator has no latent space to interpolate in.
        """
        raise UsageFault(
            f"{self.name}: has no latent space to interpolate in, expected a generator that draws "
            "images from noise, such as dcgan"
        )

    def realness(self, batch: Batch, stage: Stage) -> Tensor | None:
        """Return the discriminator's score of real cases, (B,) float32; higher is more real.

        A case's score does not depend on the batch: no augmentation, no randomness, networks
        ``at_rest()``, means over patches, scales and discriminators. For membership inference
        (Hayes et al. 2019, arXiv:1705.07663, sec. 4). None without such a score. ``stage``: the
        last of a growing generator.
        """
        return None

    @property
    def chance_losses(self) -> Mapping[str, float]:
        """Discriminators' losses by name in ``metrics.csv``, and their values for pure guessing."""
        return {}

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Put every network into evaluation mode without gradients; restore its mode after."""
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
            if device.type == "cpu":
                # Convolutions are faster so on a CPU: docs/decisions/066-channels-innermost.md.
                self.channels_last(net)
        return self

    def channels_last(self, net: nn.Module) -> None:
        """Lay out a network's weights with channels innermost, and with them what it computes."""
        form = torch.channels_last_3d if self.schema.ndim == 3 else torch.channels_last
        net.to(memory_format=form)  # type: ignore[call-overload]
