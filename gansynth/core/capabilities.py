"""What a generator takes, draws and needs, asked before it is built and without torch.

A generator makes its ``Capabilities`` from its options; the manifest of its runs holds them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.serialise import Document

Input = Literal[
    "labels", "boxes", "class", "foreground", "background", "lesion", "image", "channels", "context"
]
Problem = Literal["not finite", "collapse", "at chance", "labels missed", "no labels", "organs"]
AVERAGED = "generator"
"""The network that samples: its weights are averaged in training."""
REAL: frozenset[Input] = frozenset({"lesion", "background", "image", "channels"})
"""Parts of a condition that are real images: samples that show them are not for sharing."""
OF_LABELS: frozenset[Input] = frozenset({"labels", "foreground", "lesion"})
"""Parts of a condition that its label map says."""
USUAL_REMEDIES: Mapping[Problem, str] = {
    "not finite": "Lower the learning rates",
    "collapse": "lower learning rates",
    "at chance": "it needs a stronger discriminator",
    "labels missed": "train longer (--set steps=N)",
    "no labels": "fit a generator that draws labels",
    "organs": "name the lesions when sampling (--lesions classes=NAME)",
}
"""What helps against a problem, where the generator names nothing else."""


@dataclass(frozen=True)
class Capabilities(Document, strict=True, optional=("replays", "donors", "scans")):
    """What a generator takes, draws and needs under its options.

    Attributes:
        takes: parts of a condition that samples follow; others are not given. ``labels``: its label
            map. ``boxes``: its boxes; training needs cases with lists of boxes. ``class``: that of
            its case. ``foreground``: whether its label map has any. ``background``: a real
            case's image, part of which samples keep. ``lesion``: the voxels of its label map that
            are new to the background, and another case's image there (``donor``). ``image``: its
            case's image, moved along with its label map (``moved``); edits are then spatial maps
            only. ``channels``: real channels, those of ``channels``. ``context``: those of
            ``Generator.context``.
        draws: ``image``: with the label map of its condition if it takes ``labels``, else with
            none. ``both``: image and label map. ``labels``: the label map of an image's channels.
        channels: names of the channels that conditions hold (``given``), in this order.
        trains: whether a fit has training steps; ``phases`` has some then.
        range: ``linear`` draws in the source's units; ``tanh`` needs a window to [-1, 1].
        follows: whether edits move the context along; else it is made of the edited case.
        body_channel: where the context is a body mask, the channel that it is made of, or nothing
            for all channels; parts of a chain share one mask. None for another context.
        in_chain: settings of a part of a chain, whose parts have no context of their own.
        loop: usual settings of the training loop; a user's take precedence.
        edits: edits of conditions, where a user names none.
        fit_edits: edits of the label maps of samples *in training*, as after ``--edit``.
            ``Batch.asked`` then holds the edited maps, else a step has those of its real cases.
        lesions: usual ``--lesions`` of a generator that takes ``lesion``.
        replays: whether a training step may be replayed without Python, as a CUDA graph: its phases
            read no number of the step that changes (``index``, ``images``, ``key``) and change
            nothing but tensors, in place.
        remedies: what helps against a problem, with the generator's own options.
        donors: whether samples show the other case's image where a lesion is drawn; if not, the
            ``donor`` is the background there.
        rim_mm: how far beyond a lesion samples may differ from the background, mm; None: 1 voxel.
        scans: whether it learns of unlabelled scans of another site (``observe_scans``,
            ``Batch.scans``).
    """

    takes: frozenset[Input] = frozenset({"labels"})
    draws: Literal["image", "labels", "both"] = "image"
    channels: tuple[str, ...] = ()
    trains: bool = False
    range: Literal["linear", "tanh"] = "linear"
    follows: bool = True
    body_channel: str | None = None
    in_chain: Mapping[str, Any] = field(default_factory=dict)
    loop: Mapping[str, Any] = field(default_factory=dict)
    edits: tuple[str, ...] = ()
    fit_edits: tuple[str, ...] = ()
    lesions: str | None = None
    replays: bool = False
    remedies: Mapping[str, str] = field(default_factory=dict)
    donors: bool = True
    rim_mm: float | None = 3.0
    scans: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "takes", frozenset(self.takes))
        known = get_args(Input)
        if not self.takes <= set(known):
            raise UsageFault(
                "capabilities.takes-unknown",
                f"capabilities: takes {sorted(self.takes)}, expected some of {', '.join(known)}",
            )
        if ("channels" in self.takes) != bool(self.channels):
            raise UsageFault(
                "capabilities.takes-and-channels-disagree",
                f"capabilities: takes {sorted(self.takes)} and channels {list(self.channels)}, "
                "expected 'channels' among the first and names in the second, or neither",
            )

    @property
    def from_labels(self) -> bool:
        """Whether samples have the label map of their condition, which edits may change."""
        return self.draws == "image" and "labels" in self.takes

    @property
    def labelled(self) -> bool:
        """Whether samples have label maps."""
        return self.draws != "image" or self.from_labels

    @property
    def from_noise(self) -> bool:
        """Whether it draws images that show the anatomy of no case."""
        return self.draws != "labels" and not self.of_a_case

    @property
    def of_a_case(self) -> bool:
        """Whether samples show the anatomy of a case, at a place."""
        return not self.takes.isdisjoint({"labels", "channels"})

    def remedy(self, problem: Problem) -> str:
        """Return what helps against a problem."""
        return self.remedies.get(problem, USUAL_REMEDIES[problem])


def of_parts(parts: Iterable[Capabilities]) -> Capabilities:
    """Return what generators can that draw a sample's channels together, or a class of it each.

    Each takes what all take; channels that one is given are drawn by another. There may be a part
    for each class.
    """
    parts = list(parts)
    each = [part.takes for part in parts]
    takes = frozenset[Input].intersection(*each) - {"channels"}
    context = frozenset[Input]().union(*each) & {"context"}
    own_labels = all(p.labelled for p in parts) and any(p.draws != "image" for p in parts)
    return Capabilities(
        takes=takes | context | {"class"},
        draws="both" if own_labels else "image",
        follows=all(part.follows for part in parts),
    )
