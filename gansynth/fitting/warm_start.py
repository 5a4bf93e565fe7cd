"""``fit --init-from RUN``: start from another run's weights, and inherit its lineage.

Networks that generate samples start from the other run's averaged weights, the others from its
newest checkpoint. A tensor is copied if its name and shape are the same. On an axis with named
channels (``Generator.channel_axes``), channels of the same name are copied at any position. Other
channels stay fresh: a model of T1 and FLAIR can start from one of T1.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gansynth.core.generator import Generator
from gansynth.core.identity import Door, refuse_seen
from gansynth.core.lineage import Lineage
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource
from gansynth.data.held_out import held_out_of
from gansynth.data.views import unwrap
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.open_run import build_generator, check_weights
from gansynth.training import checkpoint

log = logging.getLogger("gansynth")
LEAST_FITTING = 0.01
"""Least share of weights that must fit; single biases always fit."""
Axes = Mapping[str, tuple[int, Sequence[str]]]


@dataclass(frozen=True)
class ParentRun(RunFolder):
    """A run with initial weights; ``weights`` is the checked file of its averages."""

    weights: Path

    @classmethod
    def open(cls, folder: Path) -> ParentRun:
        """Open a run to start from."""
        run = RunFolder(folder)
        parts = run.manifest.get("parts")
        if parts:
            names = ", ".join([part["name"] for part in parts])
            raise UsageFault(
                "fitting.init-from-composite-run",
                f"--init-from {folder}: a composite run, expected one of its parts ({names}); for "
                f"example --init-from {folder / parts[0]['folder']}",
            )
        return cls(folder, check_weights(run))

    def tensors(self) -> dict[str, Tensor]:
        """Return its weights by ``network/tensor``: averages where available."""
        newest = checkpoint.latest(self.folder / "checkpoints")
        live = {} if newest is None else newest.tensors
        tensors = {k.removeprefix("net/"): v for k, v in live.items() if k.startswith("net/")}
        tensors.update(checkpoint.load_tensors(self.weights, self.manifest["weights"]["sha256"]))
        return tensors


@dataclass
class WarmStart:
    """Result of copying weights to a generator.

    Attributes:
        whole: tensors copied as a whole.
        partial: tensors of which some channels were copied, with the channels' names.
        fresh: tensors that were not copied.
        share: share of all weights that was copied, 0 to 1.
    """

    whole: list[str] = field(default_factory=list)
    partial: dict[str, list[str]] = field(default_factory=dict)
    fresh: list[str] = field(default_factory=list)
    share: float = 0.0

    def __str__(self) -> str:
        """Describe it for the user."""
        text = f"{len(self.whole)} tensor(s) whole, {len(self.partial)} in part"
        if self.partial:
            parts = [f"{name}: {', '.join(names)}" for name, names in self.partial.items()]
            text += f" ({'; '.join(parts)})"
        text += f", {len(self.fresh)} fresh"
        if self.fresh:
            text += f" ({', '.join(self.fresh[:3])}{', ...' if len(self.fresh) > 3 else ''})"
        return f"{text}: {self.share:.0%} of all weights"


def extend_lineage(source: CaseSource, lineage: Lineage, parent_run: ParentRun) -> Lineage:
    """Return the lineage of a run with an ancestor.

    Reads the source's held-out cases. Raises IntegrityFault: the ancestor has seen one of them.
    """

    def named(rule: str) -> str:
        return parent_run.fit_again(replace(parent_run.request, subjects=rule))

    door = Door(f"run {parent_run.run_id}", naming=named)
    compared = refuse_seen(parent_run.lineage, held_out_of(unwrap(source)), door)
    for text in compared.warnings:
        log.warning("--init-from %s: %s", parent_run.folder, text)
    return lineage.joined(parent_run.lineage)


def warm_start(generator: Generator, parent_run: ParentRun) -> WarmStart:
    """Copy an ancestor's weights, in place."""
    original = build_generator(parent_run, parent_run.weights)
    taken = copy_weights(generator, named_axes(original), parent_run.tensors())
    if generator.nets and taken.share < LEAST_FITTING:
        raise UsageFault(
            "fitting.init-from-weights-differ",
            f"--init-from {parent_run.folder}: {taken.share:.1%} of the weights fit"
            f"{_options(generator, original)}; expected a run of the same generator and width, at "
            f"least {LEAST_FITTING:.0%}. Leave --init-from out, or set the same options",
        )
    return taken


@torch.no_grad()
def copy_weights(generator: Generator, theirs: Axes, tensors: Mapping[str, Tensor]) -> WarmStart:
    """Copy tensors by name, and by channel where axes are named, in place.

    ``tensors``: by ``network/tensor``. ``theirs``: channel axes of their generator.
    """
    mine, taken = named_axes(generator), WarmStart()
    numbers, inherited = 0, 0.0
    for name, net in generator.nets.items():
        vectors = _spectral_vectors(net)
        for key, target in net.state_dict().items():
            full = f"{name}/{key}"
            if key in vectors:
                continue
            axes = mine.get(plain_name(full)), theirs.get(plain_name(full))
            channels = _copy(target, tensors.get(full), *axes)
            numbers += target.numel()
            if channels is None:
                taken.whole.append(full)
                inherited += target.numel()
            elif channels:
                taken.partial[full] = channels
                inherited += (
                    target.numel() * len(channels) / target.shape[mine[plain_name(full)][0]]
                )
            else:
                taken.fresh.append(full)
        _settle(net)
    taken.share = inherited / max(numbers, 1)
    return taken


def _copy(
    target: Tensor,
    source: Tensor | None,
    target_axis: tuple[int, Sequence[str]] | None,
    source_axis: tuple[int, Sequence[str]] | None,
) -> list[str] | None:
    if source is None or target.ndim != source.ndim:
        return []
    if target_axis is None or source_axis is None:
        if target.shape != source.shape or target_axis is not source_axis:
            return []
        target.copy_(source)
        return None
    axis, names = target_axis
    others = list(source_axis[1])
    if axis != source_axis[0] or target.select(axis, 0).shape != source.select(axis, 0).shape:
        return []
    if target.shape[axis] != len(names) or source.shape[axis] != len(others):
        return []
    shared = [name for name in names if name in others]
    for name in shared:
        target.select(axis, list(names).index(name)).copy_(source.select(axis, others.index(name)))
    return None if len(shared) == len(names) else shared


def named_axes(generator: Generator) -> Axes:
    """Return a generator's channel axes, with labels by name instead of value.

    Label 1 is an organ in one data set and a lesion in another. CSF is 1 among tissues alone, and 4
    beside three tumour classes in a chain.
    """
    meanings = label_meanings(generator.schema.labels)
    axes = {}
    for key, (axis, names) in generator.channel_axes().items():
        axes[key] = (axis, tuple([meanings.get(name, name) for name in names]))
    return axes


def label_meanings(labels: Mapping[str, int]) -> dict[str, str]:
    """Return ``label:VALUE`` -> ``label:NAME``.

    A label from a part of a chain (``tissues:CSF``) has the name that it has in that part, unless
    another label has that name.
    """
    short = [name.rpartition(":")[2] for name in labels]
    return {
        f"label:{value}": f"label:{short_name if short.count(short_name) == 1 else name}"
        for (name, value), short_name in zip(labels.items(), short, strict=True)
    }


def plain_name(key: str) -> str:
    """Return a tensor's name without the suffix of spectral normalisation."""
    return key.replace(".parametrizations.weight.original", ".weight")


# -- spectral normalisation ------------------------------------------------------------------------


def _spectral_vectors(net: nn.Module) -> set[str]:
    return {
        f"{name}.{vector}"
        for name, module in net.named_modules()
        for vector in ("_u", "_v")
        if isinstance(getattr(module, vector, None), Tensor)
    }


def _settle(net: nn.Module) -> None:
    """Set the first singular vectors of every normalised weight; others underestimate its norm."""
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


# -- reports --------------------------------------------------------------------------------------


def apply_warm_start(
    generator: Generator, parent_run: ParentRun | None, reporter: Reporter
) -> dict[str, Any] | None:
    """Copy an ancestor's weights, if there is one; return what was copied for the manifest."""
    if parent_run is None:
        return None
    taken = warm_start(generator, parent_run)
    reporter.say(f"--init-from {parent_run.folder}: {taken}")
    differing = differing_options(generator, parent_run.manifest["options"])
    if differing:
        reporter.warn(f"--init-from {parent_run.folder}: options differ: {'; '.join(differing)}")
    return {
        "run_id": parent_run.run_id,
        "manifest_sha256": parent_run.manifest_sha256,
        "whole": len(taken.whole),
        "partial": {name: list(channels) for name, channels in taken.partial.items()},
        "fresh": len(taken.fresh),
        "share": round(taken.share, 4),
        "options_differ": differing,
    }


def differing_options(generator: Generator, theirs: Mapping[str, Any]) -> list[str]:
    """Return options that differ from the ancestor's, as texts."""
    options = generator.options.model_dump(mode="json")
    return [
        f"{key} is {options[key]!r}, was {theirs[key]!r}"
        for key in sorted(options.keys() & theirs.keys())
        if options[key] != theirs[key]
    ]


def _options(generator: Generator, original: Generator) -> str:
    if generator.name != original.name:
        return f" (it holds a {original.name}, this is a {generator.name})"
    differing = differing_options(generator, original.options.model_dump(mode="json"))
    return f" ({'; '.join(differing[:3])})" if differing else ""
