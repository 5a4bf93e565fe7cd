"""What a recipe comes to on a data set: its sets, each with its data, settings and folder.

A set may be a composite run that learns from further sources, too. Shin et al. 2018 learn tissues
of T1 on people without tumours: ``--with tissues=nifti:adni/``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.reading import refuse_idle_read
from gansynth.data.slice_options import split_read
from gansynth.fitting.composite_spec import ChainSpec, PartSpec, PerChannel, PerClass, Spec, texts
from gansynth.fitting.pipeline import Step
from gansynth.fitting.recipe import CHANNEL, Recipe, RunSpec, check_settings, filled
from gansynth.runtime.errors import GansynthError, UsageFault, did_you_mean, said_of
from gansynth.runtime.files import folder_name
from gansynth.runtime.options import overlay
from gansynth.runtime.version import __version__
from gansynth.sampling.opening import open_source

GRID = ("frame", "whole", "resampling", "size", "spacing")
"""Keys of ``read`` that all sources of a recipe share."""
ASKED = ("fold", "configuration", "plans", "subjects")
"""Keys of ``--with-read`` that are the request's own."""


@dataclass(frozen=True)
class PlannedSet(Step):
    """One set, resolved.

    Attributes:
        composite: what composite run it is, if it is one.
        edits: condition edits; None takes the generator's own.
        reports: what the paper reports of it.
        sentence: the recipe it was asked for by, in words.
    """

    composite: Spec | None
    edits: tuple[str, ...] | None
    reports: Mapping[str, Any]
    sentence: str

    @cached_property
    def asked(self) -> str:
        """SHA-256 of all that decides what is fitted, but for the cases' content."""
        request, edits = self.request.to_json(), self.edits
        what = [self.generator, repr(self.composite), request, dict(self.settings), edits]
        return _digest([__version__, *what])


@dataclass(frozen=True)
class RecipePlan:
    """A recipe on a data set.

    Attributes:
        sets: those to fit, in order.
        source: the cases, read as all sets have in common.
        alone: whether its one run needs no folder of its own.
        asked: what was typed: data, scale and settings, as JSON.
        notes: what the user should know.
    """

    recipe: Recipe
    sets: tuple[PlannedSet, ...]
    source: CaseSource
    alone: bool
    asked: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @cached_property
    def split(self) -> str:
        """SHA-256 of which cases are trained on and which are held out."""
        source = self.source
        return _digest([source.name, source.fold, source.train_ids, source.held_out_ids])


def plan_recipe(
    recipe: Recipe,
    request: SourceRequest,
    *,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    scale: str | None = None,
    only: Sequence[str] = (),
    others: Mapping[str, str] = MappingProxyType({}),
    others_read: Mapping[str, str] = MappingProxyType({}),
) -> RecipePlan:
    """Open the source and find the recipe's sets on it; nothing is written.

    ``settings`` and the request's ``read`` are put over the recipe's; ``edits`` None takes the
    recipe's. ``only`` names sets, all if none. ``others`` are KIND:WHERE of the further sources it
    needs by name, and ``others_read`` how these are read, NAME.KEY -> text.

    Raises:
        UsageFault: a scale, set or setting that is not there, or data that do not fit the recipe.
    """
    spec, scaled = recipe.spec, recipe.scaled(scale)
    read: Mapping[str, str] = {**recipe.read_of(request.kind), **scaled.read, **request.read}
    notes, runs, flat = list[str](), spec.runs, None
    try:
        asked = _wrapped(recipe, request, read)
        source = open_source(asked)
        refuse_idle_read(asked, request.read)
    except UsageFault as fault:
        flat = _flat(recipe, request)
        if flat is None:
            raise _told_of_recipe(fault, recipe, request, read) from fault
        source, runs, read = flat, (RunSpec(),), request.read
        notes.append(
            f"cases of {request.kind}: are 2D already, so recipe {recipe.name} gives its settings "
            "only: there is one set, and --read alone says how its cases are read"
        )
    if flat is None:
        spec = recipe.named(source.schema.channels)
        runs = spec.runs
    over = {**scaled.read, **request.read}
    own_edits = spec.edits if edits is None else tuple(edits)
    alone = recipe.alone or (flat is not None)
    sets = []
    for name, run, picking in _picked(recipe, runs, source.schema.channels, only):
        # What picks a channel narrows what was typed, and does not stand in its place.
        own = {k: v for k, v in run.read.items() if k not in over or k in picking}
        reading = {**read, **own}
        further = _others_of(recipe, others, others_read, reading, source.schema.channels)
        chosen = overlay(texts(spec.set), texts(run.set))
        chosen = overlay(overlay(chosen, texts(scaled.set)), settings)
        if run.parts is None:
            check_settings(spec.generator, chosen, typed=settings)
        sets.append(
            PlannedSet(
                name=name,
                folder="." if alone else name,
                generator=spec.generator,
                composite=_composite_of(run, spec.generator, own_edits, further),
                request=replace(source.request, read=reading),
                settings=chosen,
                edits=own_edits,
                reports=run.reports,
                sentence=f"{recipe.name}, set {name}" + (f", scale {scale}" if scale else ""),
            )
        )
    typed = {"scale": scale, "data": request.to_json(), "settings": dict(settings)}
    return RecipePlan(recipe, tuple(sets), source, alone, typed, tuple(notes))


def _told_of_recipe(
    fault: UsageFault, recipe: Recipe, request: SourceRequest, read: Mapping[str, str]
) -> UsageFault:
    """What is wrong with how cases are read, with what of it nobody has typed."""
    own = [f"{key}={value}" for key, value in read.items() if key not in request.read]
    own_source = recipe.spec.source is not None or recipe.spec.kinds
    if not own or own_source or "--read" not in str(fault):
        return fault
    return UsageFault(
        f"{str(fault).rstrip('.')}; recipe {recipe.name} reads its cases by {', '.join(own)}: it "
        "takes volumes as their files hold them, nifti:, msd:, nnunet-raw: or deepmedic:"
    )


def _wrapped(recipe: Recipe, request: SourceRequest, read: Mapping[str, str]) -> SourceRequest:
    """The request for the recipe's source, around the one that was asked for."""
    source = recipe.spec.source
    if source is None or request.kind == source:
        return replace(request, read=read)
    where = f"{request.kind}:{request.where}"
    return replace(request, kind=source, where=where, read=read)


def _flat(recipe: Recipe, request: SourceRequest) -> CaseSource | None:
    """The source as it was asked for, if its cases are 2D by themselves."""
    if recipe.spec.source is None or request.kind == recipe.spec.source:
        return None
    _, inner = split_read(replace(request, where=f"{request.kind}:{request.where}"))
    try:
        if open_source(inner).schema.ndim != 2:
            return None
    except GansynthError:
        return None
    return open_source(request)


def _picked(
    recipe: Recipe, runs: Sequence[RunSpec], channels: Sequence[str], only: Sequence[str]
) -> list[tuple[str, RunSpec, frozenset[str]]]:
    """The sets to fit: name, run with its channel filled in, keys of ``read`` that pick a channel.

    Raises:
        UsageFault: none, two of one name, or one of ``only`` that is not there.
    """
    found = []
    for run in (run for run in runs if len(channels) >= run.least_channels):
        picking = frozenset(k for k, v in run.read.items() if CHANNEL in v)
        for channel in channels if run.each == "channel" else ("",):
            document = run.model_dump(exclude={"name", "each"})
            of_channel = RunSpec(**filled(document, {CHANNEL: channel})) if channel else run
            found.append((folder_name(run.name.replace(CHANNEL, channel)), of_channel, picking))
    known = [name for name, _, _ in found]
    folded = [name.casefold() for name in known]
    twice = next((name for name in known if folded.count(name.casefold()) > 1), None)
    if not found or twice is not None:
        told = "has no set" if twice is None else f"has two sets named {twice!r}"
        raise UsageFault(
            f"--recipe {recipe.name}: {told} for channels {', '.join(channels)}, expected sets of "
            "different names; choose channels by --read channels=..."
        )
    for name in only:
        if name not in known:
            raise UsageFault(
                f"--only {name}: recipe {recipe.name} has no such set here, expected among: "
                f"{', '.join(known)}.{did_you_mean(name, known)}"
            )
    return [one for one in found if (one[0] in only if only else not one[1].optional)]


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _others_of(
    recipe: Recipe,
    data: Mapping[str, str],
    read: Mapping[str, str],
    common: Mapping[str, str],
    channels: Sequence[str],
) -> dict[str, dict[str, Any]]:
    """The further sources of a recipe by name, each as fields of the ``PartSpec`` that has it.

    ``data`` and ``read`` were typed after ``--with`` and ``--with-read``; ``common`` is how the
    set's own cases are read, ``channels`` are theirs.

    Raises:
        UsageFault: one that is missing, or that the recipe does not know.
    """
    needs = recipe.spec.needs
    for option, name in [
        *(("--with", name) for name in data),
        *(("--with-read", key.partition(".")[0]) for key in read),
    ]:
        if name not in needs:
            raise UsageFault(
                f"{option} {name}: recipe {recipe.name} needs no such source, expected one of: "
                f"{', '.join(needs) or 'none'}.{did_you_mean(name, needs)}"
            )
    missing = next((name for name in needs if name not in data), None)
    if missing is not None:
        raise UsageFault(
            f"--recipe {recipe.name}: needs {missing}: {needs[missing]}; name it: --with "
            f"{missing}=KIND:WHERE"
        )
    found: dict[str, dict[str, Any]] = {}
    for name in needs:
        # Nothing of it is held out, and its grid is that of the set's own cases.
        asked, reading = {"fold": "all"}, {key: common[key] for key in GRID if key in common}
        for key, value in read.items():
            of, _, rest = key.partition(".")
            if of == name:
                (asked if rest in ASKED else reading)[rest] = value
        found[name] = {"data": data[name], "read": reading, **asked}
        if recipe.spec.channels:
            with said_of("--read ", f"--with-read {name}."):
                source = open_source(SourceRequest.parse(data[name], read=reading, **asked))
            theirs = recipe.called(source.schema.channels, of=data[name])
            ours = recipe.called(channels)
            found[name]["names"] = {theirs[c]: ours[c] for c in ours if theirs[c] != ours[c]}
    return found


def _with_data(part: PartSpec, others: Mapping[str, dict[str, Any]]) -> PartSpec:
    """A part with the source that it names."""
    name = (part.data or "").removeprefix("{").removesuffix("}")
    if part.data != f"{{{name}}}":
        return part
    other = others[name]
    return part.model_copy(update={"names": {}, **other, "read": {**part.read, **other["read"]}})


def _composite_of(
    run: RunSpec, generator: str, edits: Sequence[str] | None, others: Mapping[str, dict[str, Any]]
) -> Spec | None:
    """The composite run that a set is; None for a run of one generator."""
    if run.parts is not None:
        parts = tuple(_with_data(part, others) for part in run.parts)
        return ChainSpec(parts=parts, edits=None if edits is None else tuple(edits))
    if run.per_class is not None:
        return PerClass(generator, run.per_class)
    return None if run.per_channel is None else PerChannel(generator, run.per_channel)
