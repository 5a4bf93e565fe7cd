"""The contract of a generator plugin.

A generator names its options, builds networks, defines each player's loss and generates samples.
The training loop does the rest. One that defines no phases (copy-paste) trains nothing: its fit has
no steps, no curves and no options of the loop.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from gansynth.core.capabilities import OF_LABELS, Capabilities
from gansynth.core.geometry import bounding_box
from gansynth.core.schema import Case, Condition, FloatArray, Sample, Schema, lesion_mask
from gansynth.runtime.devices import Precision, adam, autocast, resolve
from gansynth.runtime.errors import IntegrityFault
from gansynth.runtime.options import OptionModel


class GeneratorOptions(OptionModel):
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
            (``Capabilities.fit_edits``). None where they are the cases' own.
        scans: float32 like ``image``: as many crops of unlabelled scans of another site
            (``Capabilities.scans``), drawn by themselves. None without such scans.
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
    scans: Tensor | None = None

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
        alpha: fade-in of the stage's new layers, 0 to 1; a tensor () while they fade in on a GPU.
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
    alpha: float | Tensor = 1.0
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
        chance: the values of terms of ``loss`` where a discriminator guesses.
    """

    player: str
    loss: Callable[[TrainingStep], Mapping[str, Tensor]]
    interval: int = 1
    offset: int = 0
    after: Callable[[], None] | None = None
    chance: Mapping[str, float] = field(default_factory=dict)

    def due(self, index: int) -> bool:
        """Whether the phase runs in a step."""
        return index % self.interval == self.offset


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
        buffers: its training state beside the weights, saved in checkpoints; ``networks`` may fill
            it.
    """

    name: ClassVar[str]
    Options: ClassVar[type[GeneratorOptions]] = GeneratorOptions

    def __init__(self, schema: Schema, size: Sequence[int], options: GeneratorOptions) -> None:
        self.schema = schema
        self.size = tuple(size)
        self.options = options
        self.buffers: dict[str, TrainingBuffer] = {}
        self.nets: dict[str, nn.Module] = self.networks()
        self.device = torch.device("cpu")
        self.precision: Precision = "auto"  # of sampling

    # -- what a plugin may use -------------------------------------------------------------------

    adam = staticmethod(adam)

    def autocast(self, device: torch.device) -> AbstractContextManager[object]:
        """Within this, networks sample at the generator's precision: bf16, or as their weights."""
        return autocast(device, resolve(self.precision, device) == "bf16")

    # -- what a plugin must define ---------------------------------------------------------------

    @abstractmethod
    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Generate one sample per condition; equal seeds give equal samples at any batch size.

        ``seeds``: one per condition. Returns samples in the generator's space: image float32 (C, D,
        H, W) or (C, H, W), labels as conditioned.
        """

    # -- what a plugin may define ----------------------------------------------------------------

    @property
    def capabilities(self) -> Capabilities:
        """What it takes, draws and needs; made from ``options`` alone, before it is built."""
        return Capabilities()

    def networks(self) -> dict[str, nn.Module]:
        """Build the networks by name, e.g. ``generator`` and ``discriminator``; none by default."""
        return {}

    def phases(self) -> Sequence[Phase]:
        """Return the phases of each step, in order; not defined by a generator without training."""
        return ()

    def accepts(self, case: Case) -> bool:
        """Whether to learn from a case at its place; if not, another one is drawn."""
        return True

    def stages(self) -> Sequence[Stage]:
        """Return the stages of training: one by default, several for progressive growing."""
        return (Stage(),)

    def players(self) -> Mapping[str, tuple[str, ...]]:
        """Map players to the networks they update; one player per network by default."""
        return {name: (name,) for name in self.nets}

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """Return the optimiser of a player."""
        return self.adam(parameters, 2e-4, (0.5, 0.999))

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

    def lesion_margin(self) -> int | None:
        """Return how many voxels around a lesion its samples depend on, along each axis.

        It then gets conditions cut to the lesion's box with this margin, at least 1, and returns
        samples of that size; elsewhere a sample is its background. None: it gets whole conditions.
        """
        return None

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        """Return plain statistics of the training cases (generator's space), before training.

        As JSON, which ``load_state`` gets next; they hold no patient's image. At most 128 KiB,
        whatever the size of images: more is refused.
        """
        return {}

    def observe_scans(self, scans: Iterable[Case]) -> dict[str, Any]:
        """Return plain statistics of unlabelled scans of another site, as ``observe`` does.

        Called after ``observe``, if its capabilities have ``scans``; keys differ from those there.
        If it trains, each step has crops of them (``Batch.scans``).
        """
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:  # noqa: B027 (optional)
        """Take what ``observe`` has returned, now or in an earlier process."""

    def context(self, case: Case) -> Any:
        """Return context channels int16 (D, H, W) of a case in the generator's space, or None.

        At most 64 distinct values; used if it takes ``context``. Several threads may call it.
        """
        return None

    def whole_context(self, case: Case) -> Any:
        """Return what contexts of crops are cut from, int8 (D, H, W), or None for nothing.

        Made once for a whole case, in the generator's voxels and intensities. Useful where a
        voxel's context depends on few voxels around it.
        """
        return None

    def whole_context_key(self) -> str:
        """Return what whole contexts depend on beside the case; empty, as here: none are kept."""
        return ""

    def cut_context(self, case: Case, whole: Any, corner: Sequence[int]) -> Any:
        """Return what ``context`` returns of a crop, bit for bit, from ``whole_context``.

        ``corner``: the crop's first voxel in the whole case, negative where it begins beyond it.
        """
        return self.context(case)

    def reject_reason(self, sample: Sample) -> str:
        """Return why to reject a sample of this generator, or nothing.

        Called for every sample, in the generator's space. The reason is written into the sample's
        provenance as ``reject_reason``, and the sample enters no bank. Begin with the observation
        and continue with ``, expected ...``: equal beginnings count as one reason.
        """
        return ""

    def realness(self, batch: Batch, stage: Stage) -> Tensor | None:
        """Return the discriminator's score of real cases, (B,) float32; higher is more real.

        A case's score does not depend on the batch: no augmentation, no randomness, networks
        ``at_rest``, means over patches, scales and discriminators. For membership inference
        (Hayes et al. 2019, arXiv:1705.07663, sec. 4). None without such a score. ``stage``: the
        last of a growing generator.
        """
        return None


# -- what the core does with a generator -----------------------------------------------------------


def capabilities_of(cls: type[Generator], options: GeneratorOptions | None = None) -> Capabilities:
    """Return the capabilities of a generator that is not built; None: of its usual options."""
    bare = cls.__new__(cls)
    bare.options = cls.Options() if options is None else options
    return bare.capabilities


def learn(
    generator: Generator, cases: Iterable[Case], scans: Iterable[Case] = ()
) -> dict[str, Any]:
    """Let a generator observe its training cases, and scans; return what it has learnt, as JSON."""
    learnt = dict(generator.observe(cases))
    if generator.capabilities.scans:
        learnt |= generator.observe_scans(scans)
    state: dict[str, Any] = json.loads(json.dumps(learnt))
    generator.load_state(state)
    return state


@dataclass(frozen=True)
class ContextOf:
    """Makes a generator's context of cases, as ``context_of`` does, whole or cut."""

    generator: Generator

    def __call__(self, case: Case) -> Any:
        """Return the context of a case."""
        return context_of(self.generator, case)

    @property
    def key(self) -> str:
        """See ``Generator.whole_context_key``."""
        return self.generator.whole_context_key()

    def whole(self, case: Case) -> Any:
        """Return what ``cut`` needs of a whole case; None if contexts are not cut from it."""
        if "context" not in self.generator.capabilities.takes:
            return None
        return self.generator.whole_context(case)

    def cut(self, case: Case, whole: Any, corner: Sequence[int]) -> Any:
        """Return the context of a crop that begins at ``corner`` of a whole case."""
        return _checked(self.generator, self.generator.cut_context(case, whole, corner))


def context_of(generator: Generator, case: Case) -> Any:
    """Return a generator's context of a case, int16 (D, H, W); None if it takes none."""
    takes_context = "context" in generator.capabilities.takes
    return _checked(generator, generator.context(case) if takes_context else None)


def _checked(generator: Generator, context: Any) -> Any:
    if context is None:
        return None
    array = np.asarray(context)
    whole = array.dtype.kind in "iub"
    if whole and array.size and int(array.max()) - int(array.min()) < MOST_VALUES:
        return context  # of every case of a training: without sorting its voxels
    values = np.unique(array)
    if len(values) > MOST_VALUES or not whole:
        raise IntegrityFault(
            "generator.context-too-many-values",
            f"{generator.name}: context() of a case has {len(values)} distinct values of "
            f"{context.dtype}, expected integers and at most {MOST_VALUES}: more could be its "
            "image. Give clusters or regions",
        )
    return context


def given_of(generator: Generator, case: Case) -> FloatArray | None:
    """Return the channels of a case that its conditions hold, float32 (K, D, H, W), or None."""
    names = generator.capabilities.channels
    if not names:
        return None
    return np.ascontiguousarray(case.image[[generator.schema.channels.index(n) for n in names]])


def handed(generator: Generator, condition: Condition) -> Condition:
    """Return a condition as a generator gets it: no label map, no class but a taken one, no case.

    The other parts are made only for a generator that takes them; see ``sampler_for``.
    """
    takes = generator.capabilities.takes
    return replace(
        condition,
        labels=condition.labels if takes & OF_LABELS else None,
        label_class=condition.label_class if "class" in takes else None,
        provenance={},
    )


def generated(
    generator: Generator, conditions: Sequence[Condition], seeds: Sequence[int]
) -> list[Sample]:
    """Generate samples of whole conditions; a generator with a margin gets windows of them."""
    margin, asked = generator.lesion_margin(), [handed(generator, c) for c in conditions]
    if margin is None:
        return generator.sample(asked, seeds)
    boxes = [bounding_box(lesion_mask(c), margin) for c in conditions]
    windows = [_cut(*pair) for pair in zip(asked, boxes, strict=True)]
    samples = zip(generator.sample(windows, seeds), asked, boxes, strict=True)
    return [_laid(generator, *row) for row in samples]


def _cut(condition: Condition, box: tuple[slice, ...]) -> Condition:
    """Return a window of a condition of a lesion, with arrays of its own."""
    voxels, channels = dict[str, Any](), dict[str, Any]()
    for name in ("labels", "lesion", "body", "region", "context", "ignored"):
        array = getattr(condition, name)
        voxels[name] = None if array is None else array[box].copy()
    for name in ("background", "donor", "moved", "given"):
        array = getattr(condition, name)
        channels[name] = None if array is None else array[(slice(None), *box)].copy()
    return replace(condition, **voxels, **channels)


def _laid(
    generator: Generator, sample: Sample, condition: Condition, box: tuple[slice, ...]
) -> Sample:
    """Lay the sample of a window over the condition's background."""
    image = np.array(condition.required("background"), np.float32)
    if sample.image.shape != image[(slice(None), *box)].shape:
        raise IntegrityFault(
            "generator.sample-shape-differs",
            f"{generator.name}: a sample has shape {sample.image.shape}, expected "
            f"{image[(slice(None), *box)].shape}, as its condition: "
            f"its lesion_margin() is a number",
        )
    image[(slice(None), *box)] = sample.image
    return replace(sample, image=image, labels=condition.required("labels").copy())


@contextmanager
def at_rest(generator: Generator) -> Iterator[None]:
    """Put every network into evaluation mode without gradients; restore its mode after."""
    modes = [(m, m.training) for net in generator.nets.values() for m in net.modules()]
    try:
        for net in generator.nets.values():
            net.eval()
        with torch.no_grad():
            yield
    finally:
        for module, training in modes:
            module.training = training


def move(generator: Generator, device: torch.device) -> None:
    """Move every network to a device."""
    generator.device = device
    for net in generator.nets.values():
        net.to(device)
        if device.type == "cpu":
            # Convolutions are faster so on a CPU: docs/decisions/066-channels-innermost.md.
            channels_last(net, generator.schema.ndim)


def channels_last(net: nn.Module, ndim: int) -> None:
    """Lay out a network's weights with channels innermost, and with them what it computes."""
    form = torch.channels_last_3d if ndim == 3 else torch.channels_last
    net.to(memory_format=form)  # type: ignore[call-overload]
