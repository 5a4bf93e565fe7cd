"""``fit --init-from RUN``: start from another run's weights, and remember what that run has seen.

Networks that draw samples start from the other run's averaged weights, the others from its newest
checkpoint. A tensor is taken over if its name and shape are the same. Where an axis holds named
channels (``Generator.channel_axes``), channels of the same name are taken over, wherever they
stand, and the others stay fresh: a model of T1 and FLAIR starts from one of T1.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gansynth.core.generator import Generator
from gansynth.core.lineage import Lineage, guard
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource
from gansynth.data.views import behind
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.open_run import build_generator, check_weights
from gansynth.training import checkpoint

LEAST = 0.01
"""Share of the weights that must fit; biases of one number fit everything."""
Axes = Mapping[str, tuple[int, Sequence[str]]]


@dataclass(frozen=True)
class Ancestor(RunFolder):
    """A run that another one starts from; ``weights`` is the file of its averages, checked."""

    weights: Path

    @classmethod
    def open(cls, folder: Path) -> Ancestor:
        """Open a run to start from.

        Raises:
            UsageFault: no run there, none with weights of its own, or none yet.
            IntegrityFault: its weights are not the manifest's.
        """
        run = RunFolder(folder)
        if parts := run.manifest.get("parts"):
            names = ", ".join(part["name"] for part in parts)
            raise UsageFault(
                f"--init-from {folder}: a composite run, expected one of its parts ({names}); for "
                f"example --init-from {folder / parts[0]['folder']}"
            )
        return cls(folder, check_weights(run))

    def tensors(self) -> dict[str, Tensor]:
        """Its weights, ``network/tensor`` by name: averages where there are any."""
        found = checkpoint.latest(self.folder / "checkpoints")
        live = {} if found is None else found.tensors
        tensors = {k.removeprefix("net/"): v for k, v in live.items() if k.startswith("net/")}
        tensors.update(checkpoint.load_tensors(self.weights, self.manifest["weights"]["sha256"]))
        return tensors


@dataclass
class Inherited:
    """What a generator took over.

    Attributes:
        whole: tensors taken over as they are.
        partial: tensors of which some channels were, with the channels' names.
        fresh: tensors that start anew.
        share: of all numbers in all tensors, how many were taken over, 0 to 1.
    """

    whole: list[str] = field(default_factory=list)
    partial: dict[str, list[str]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    share: float = 0.0

    def __str__(self) -> str:
        """For the user."""
        text = f"{len(self.whole)} tensor(s) whole, {len(self.partial)} in part"
        if self.partial:
            parts = (f"{name}: {', '.join(names)}" for name, names in self.partial.items())
            text += f" ({'; '.join(parts)})"
        text += f", {len(self.fresh)} fresh"
        if self.fresh:
            text += f" ({', '.join(self.fresh[:3])}{', ...' if len(self.fresh) > 3 else ''})"
        return f"{text}: {self.share:.0%} of all weights"


def descend(source: CaseSource, own: Lineage, ancestor: Ancestor) -> Lineage:
    """The lineage of what starts from an ancestor and learns from a source.

    Reads the source's held-out cases. Raises IntegrityFault: the ancestor has seen one of them.
    """
    whole = behind(source)
    held_out = whole.records(whole.held_out_ids)
    what = f"run {ancestor.run_id}"
    guard(ancestor.lineage, held_out, kind=what, dataset=source.name)
    here = {case.sha256 for case in own.cases}
    if any(case.sha256 in here for case in ancestor.lineage.cases):  # the same data set, renamed
        guard(ancestor.lineage, held_out, kind=what)
    return own.joined(ancestor.lineage)


def inherit(generator: Generator, ancestor: Ancestor) -> Inherited:
    """Take over an ancestor's weights, in place.

    Raises:
        UsageFault: nothing fits.
    """
    other = build_generator(ancestor)
    taken = take_over(generator, named_axes(other), ancestor.tensors())
    if generator.nets and taken.share < LEAST:
        raise UsageFault(
            f"--init-from {ancestor.folder}: {taken.share:.1%} of the weights fit"
            f"{_options(generator, other)}; expected a run of the same generator and width, at "
            f"least {LEAST:.0%}. Leave --init-from out, or set the same options"
        )
    return taken


@torch.no_grad()
def take_over(generator: Generator, theirs: Axes, tensors: Mapping[str, Tensor]) -> Inherited:
    """Take over tensors by name, and by channel where axes are named, in place.

    ``tensors`` are called ``network/tensor``; ``theirs`` are the channel axes of their owner.
    """
    mine, taken = named_axes(generator), Inherited()
    numbers, kept = 0, 0.0
    for name, net in generator.nets.items():
        vectors = _spectral_vectors(net)
        for key, own in net.state_dict().items():
            full = f"{name}/{key}"
            if key in vectors:
                continue
            axes = mine.get(plain_name(full)), theirs.get(plain_name(full))
            channels = _copy(own, tensors.get(full), *axes)
            numbers += own.numel()
            if channels is None:
                taken.whole.append(full)
                kept += own.numel()
            elif channels:
                taken.partial[full] = channels
                kept += own.numel() * len(channels) / own.shape[mine[plain_name(full)][0]]
            else:
                taken.fresh.append(full)
        _settle(net)
    taken.share = kept / max(numbers, 1)
    return taken


def _copy(
    own: Tensor,
    found: Tensor | None,
    mine: tuple[int, Sequence[str]] | None,
    theirs: tuple[int, Sequence[str]] | None,
) -> list[str] | None:
    """Take over a tensor: None if whole, else the names of the channels that were."""
    if found is None or own.ndim != found.ndim:
        return []
    if mine is None or theirs is None:
        if own.shape != found.shape or mine is not theirs:
            return []
        own.copy_(found)
        return None
    axis, names = mine
    others = list(theirs[1])
    if axis != theirs[0] or own.select(axis, 0).shape != found.select(axis, 0).shape:
        return []
    if own.shape[axis] != len(names) or found.shape[axis] != len(others):
        return []
    shared = [name for name in names if name in others]
    for name in shared:
        own.select(axis, list(names).index(name)).copy_(found.select(axis, others.index(name)))
    return None if len(shared) == len(names) else shared


def named_axes(generator: Generator) -> Axes:
    """A generator's channel axes; a label is named by what it is, not by its value.

    Label 1 is an organ in one data set and a lesion in the next; CSF is 1 where tissues are all
    there is, and 4 where a part of a chain has drawn it beside three tumour classes.
    """
    meanings = label_meanings(generator.schema.labels)
    return {
        key: (axis, tuple(meanings.get(name, name) for name in names))
        for key, (axis, names) in generator.channel_axes().items()
    }


def label_meanings(labels: Mapping[str, int]) -> dict[str, str]:
    """``label:VALUE`` -> ``label:NAME``.

    A label that a part of a chain has drawn (``tissues:CSF``) is called as that part calls it,
    unless another one is called so.
    """
    short = [name.rpartition(":")[2] for name in labels]
    return {
        f"label:{value}": f"label:{own if short.count(own) == 1 else name}"
        for (name, value), own in zip(labels.items(), short, strict=True)
    }


def plain_name(key: str) -> str:
    """A tensor's name without what spectral normalisation makes of it."""
    return key.replace(".parametrizations.weight.original", ".weight")


# -- spectral normalisation ------------------------------------------------------------------------


def _spectral_vectors(net: nn.Module) -> set[str]:
    """Names of the singular vectors in a network's state."""
    return {
        f"{name}.{vector}"
        for name, module in net.named_modules()
        for vector in ("_u", "_v")
        if isinstance(getattr(module, vector, None), Tensor)
    }


def _settle(net: nn.Module) -> None:
    """Give every normalised weight its own first singular vectors, whatever it has become.

    Vectors of another weight would make its norm seem smaller than it is.
    """
    for module in net.modules():
        for parts in getattr(module, "parametrizations", {}).values():
            for part in parts:
                if not isinstance(getattr(part, "_u", None), Tensor):
                    continue
                matrix = parts.original.movedim(part.dim, 0).flatten(1).double()
                u = torch.linalg.eigh(matrix @ matrix.T).eigenvectors[:, -1]
                v = nn.functional.normalize(matrix.T @ u, dim=0)
                part._u.copy_(u)
                part._v.copy_(v)


# -- what to say -----------------------------------------------------------------------------------


def begin(
    generator: Generator, ancestor: Ancestor | None, reporter: Reporter
) -> dict[str, Any] | None:
    """Take over an ancestor's weights, if there is one, and say what was taken; for a manifest."""
    if ancestor is None:
        return None
    taken = inherit(generator, ancestor)
    reporter.say(f"--init-from {ancestor.folder}: {taken}")
    differing = differing_options(generator, ancestor.manifest["options"])
    if differing:
        reporter.warn(f"--init-from {ancestor.folder}: options differ: {'; '.join(differing)}")
    return {
        "run_id": ancestor.run_id,
        "manifest_sha256": ancestor.manifest_sha256,
        "whole": len(taken.whole),
        "partial": {name: list(channels) for name, channels in taken.partial.items()},
        "fresh": len(taken.fresh),
        "share": round(taken.share, 4),
        "options_differ": differing,
    }


def differing_options(generator: Generator, theirs: Mapping[str, Any]) -> list[str]:
    """Options whose values are not the ancestor's, in words."""
    own = generator.options.model_dump(mode="json")
    return [
        f"{key} is {own[key]!r}, was {theirs[key]!r}"
        for key in sorted(own.keys() & theirs.keys())
        if own[key] != theirs[key]
    ]


def _options(generator: Generator, other: Generator) -> str:
    if generator.name != other.name:
        return f" (it holds a {other.name}, this is a {generator.name})"
    differing = differing_options(generator, other.options.model_dump(mode="json"))
    return f" ({'; '.join(differing[:3])})" if differing else ""
