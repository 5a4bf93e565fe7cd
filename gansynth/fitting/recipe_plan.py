"""Plan of a recipe on a data set: its sets, each with data, settings and folder.

A set may be a composite run that also learns from further sources. Shin et al. 2018 learn tissues
of T1 on patients without tumours: ``--extra-source tissues=nifti:adni/``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from types import MappingProxyType
from typing import Any

from gansynth.conditions.condition_source import check_spacing
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.read_options import refuse_idle_read
from gansynth.data.slices import split_read
from gansynth.fitting.composite_spec import (
    ChainSpec,
    PartSpec,
    PerChannel,
    PerClass,
    Spec,
    named_twice,
    texts,
)
from gansynth.fitting.pipeline import PipelineStep
from gansynth.fitting.recipe import CHANNEL, Recipe, RunSpec, check_settings, filled
from gansynth.runtime.errors import GansynthError, UsageFault, describe_error, did_you_mean
from gansynth.runtime.files import folder_name
from gansynth.runtime.options import overlay
from gansynth.runtime.version import __version__
from gansynth.sampling.run_source import open_source

GRID = ("frame", "whole", "resampling", "size", "spacing")
"""Keys of ``read`` that all sources of a recipe share."""
ASKED = ("fold", "configuration", "plans", "subjects")
"""Keys of ``--extra-source-read`` that are fields of the request."""


@dataclass(frozen=True)
class PlannedSet(PipelineStep):
    """One set, resolved.

    Attributes:
        composite: its composite run, if it is one.
        edits: condition edits; None: the generator's own.
        reports: the paper's numbers.
        sentence: name of recipe, set and scale.
    """

    composite: Spec | None
    edits: tuple[str, ...] | None
    reports: Mapping[str, Any]
    sentence: str

    @cached_property
    def asked(self) -> str:
        """Return the SHA-256 of everything that is fitted, but for the cases' content."""
        request, edits = self.request.to_json(), self.edits
        inputs = [self.generator, repr(self.composite), request, dict(self.settings), edits]
        return _digest([__version__, *inputs])


@dataclass(frozen=True)
class RecipePlan:
    """A recipe on a data set.

    Attributes:
        sets: those to fit, in order.
        source: the cases, read with options common to all sets.
        alone: whether it is a single run without a folder of its own.
        request: typed data, scale and settings, as JSON.
        notes: for the user.
    """

    recipe: Recipe
    sets: tuple[PlannedSet, ...]
    source: CaseSource
    alone: bool
    request: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @cached_property
    def split(self) -> str:
        """Return the SHA-256 of the ids of training and held-out cases."""
        source = self.source
        return _digest([source.name, source.request.fold, source.train_ids, source.held_out_ids])


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
    """Open the source and plan the recipe's sets on it; nothing is written.

    ``settings`` and the request's ``read`` override the recipe's. ``edits`` None: the recipe's.
    ``only``: names of sets, all if empty. ``others``: KIND:WHERE of further sources, by name.
    ``others_read``: how these are read, NAME.KEY -> text.
    """
    spec, scaled = recipe.spec, recipe.scaled(scale)
    overrides = dict(scaled.read) | dict(request.read)
    read: Mapping[str, str] = recipe.read_of(request.kind) | overrides
    notes, runs, flat = list[str](), spec.runs, None
    try:
        wrapped = _wrapped(recipe, request, read)
        source = open_source(wrapped)
        refuse_idle_read(wrapped, request.read)
    except UsageFault as fault:
        flat = _flat(recipe, request)
        if flat is None:
            raise _with_recipe_keys(fault, recipe, request, read) from fault
        source, runs, read = flat, (RunSpec.model_validate({}),), request.read
        notes.append(
            f"cases of {request.kind}: are 2D already, so recipe {recipe.name} gives its settings "
            "only: there is one set, and --read alone says how its cases are read"
        )
    if flat is None:
        spec = recipe.named(source.schema.channels)
        runs = spec.runs
    own_edits = spec.edits if edits is None else tuple(edits)
    alone = recipe.alone or (flat is not None)
    sets = []
    for name, run, picking in _picked(recipe, runs, source.schema.channels, only):
        # A key that picks a channel narrows the typed value, and does not replace it.
        run_keys = {k: v for k, v in run.read.items() if k not in overrides or k in picking}
        reading = dict(read) | run_keys
        further = _others_of(recipe, others, others_read, reading, source)
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


def _with_recipe_keys(
    fault: UsageFault, recipe: Recipe, request: SourceRequest, read: Mapping[str, str]
) -> UsageFault:
    recipe_keys = [f"{key}={value}" for key, value in read.items() if key not in request.read]
    own_source = recipe.spec.source is not None or recipe.spec.kinds
    if not recipe_keys or own_source or "--read" not in str(fault):
        return fault
    return UsageFault(
        "fitting.recipe-read-keys-not-taken",
        f"{str(fault).rstrip('.')}; recipe {recipe.name} reads its cases by "
        f"{', '.join(recipe_keys)}: it takes unprocessed volumes, such as nifti: or msd:",
    )


def _wrapped(recipe: Recipe, request: SourceRequest, read: Mapping[str, str]) -> SourceRequest:
    source = recipe.spec.source
    if source is None or request.kind == source:
        return replace(request, read=read)
    where = f"{request.kind}:{request.where}"
    return replace(request, kind=source, where=where, read=read)


def _flat(recipe: Recipe, request: SourceRequest) -> CaseSource | None:
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
    """Return the sets to fit: name, run with its channel, keys of ``read`` that pick a channel."""
    sets = []
    for run in runs:
        if len(channels) < run.least_channels:
            continue
        picking = frozenset([k for k, v in run.read.items() if CHANNEL in v])
        for channel in channels if run.each == "channel" else ("",):
            document = run.model_dump(exclude={"name", "each"})
            of_channel = RunSpec(**filled(document, {CHANNEL: channel})) if channel else run
            sets.append((folder_name(run.name.replace(CHANNEL, channel)), of_channel, picking))
    names = [name for name, _, _ in sets]
    twice = named_twice(names, str.casefold)
    if not sets or twice is not None:
        problem = "has no set" if twice is None else f"has two sets named {twice!r}"
        raise UsageFault(
            "fitting.recipe-sets-missing-or-twice",
            f"--recipe {recipe.name}: {problem} for channels {', '.join(channels)}, expected sets "
            "of different names; choose channels by --read channels=...",
        )
    for name in only:
        if name not in names:
            raise UsageFault(
                "fitting.recipe-set-unknown",
                f"--only {name}: recipe {recipe.name} has no such set here, expected among: "
                f"{', '.join(names)}.{did_you_mean(name, names)}",
            )
    return [entry for entry in sets if (entry[0] in only if only else not entry[1].optional)]


def _digest(document: Any) -> str:
    return hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()


def _others_of(
    recipe: Recipe,
    data: Mapping[str, str],
    read: Mapping[str, str],
    common: Mapping[str, str],
    own: CaseSource,
) -> dict[str, dict[str, Any]]:
    needs = recipe.spec.needs
    named = [("--extra-source", name) for name in data]
    named += [("--extra-source-read", key.partition(".")[0]) for key in read]
    for option, name in named:
        if name not in needs:
            raise UsageFault(
                "fitting.recipe-source-not-needed",
                f"{option} {name}: recipe {recipe.name} needs no such source, expected one of: "
                f"{', '.join(needs) or 'none'}.{did_you_mean(name, needs)}",
            )
    for missing, what in needs.items():
        if missing not in data:
            raise UsageFault(
                "fitting.recipe-source-missing",
                f"--recipe {recipe.name}: needs {missing}: {what}; name it: --extra-source "
                f"{missing}=KIND:WHERE",
            )
    sources: dict[str, dict[str, Any]] = {}
    for name in needs:
        # No case of it is held out, and its grid is that of the set's cases.
        fields, reading = {"fold": "all"}, {key: common[key] for key in GRID if key in common}
        for key, value in read.items():
            of, _, field = key.partition(".")
            if of == name:
                (fields if field in ASKED else reading)[field] = value
        sources[name] = {"data": data[name], "read": reading} | fields
        if recipe.spec.channels:
            with describe_error("--read ", f"--extra-source-read {name}."):
                source = open_source(SourceRequest.parse(data[name], read=reading, **fields))
            with (
                describe_error("--label-source-read ", f"--extra-source-read {name}."),
                describe_error("--label-source ", f"--extra-source {name}="),
            ):
                check_spacing(source, own)
            theirs = recipe.called(source.schema.channels, of=data[name])
            ours = recipe.called(own.schema.channels)
            sources[name]["names"] = {theirs[c]: ours[c] for c in ours if theirs[c] != ours[c]}
    return sources


def _with_data(part: PartSpec, others: Mapping[str, dict[str, Any]]) -> PartSpec:
    name = (part.data or "").removeprefix("{").removesuffix("}")
    if part.data != f"{{{name}}}":
        return part
    source = others[name]
    update = {"names": {}} | source
    update["read"] = part.read | source["read"]
    return part.model_copy(update=update)


def _composite_of(
    run: RunSpec, generator: str, edits: Sequence[str] | None, others: Mapping[str, dict[str, Any]]
) -> Spec | None:
    if run.parts is not None:
        parts = tuple(_with_data(part, others) for part in run.parts)
        return ChainSpec(parts=parts, edits=None if edits is None else tuple(edits))
    if run.per_class is not None:
        return PerClass(generator, run.per_class)
    return None if run.per_channel is None else PerChannel(generator, run.per_channel)
