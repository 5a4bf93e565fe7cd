"""A fit as it was asked for: source, space, generator and options, resolved and not yet begun."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from gansynth.conditions.case_pool import Room
from gansynth.conditions.edit_chain import AskedMaps, build_edits
from gansynth.core.generator import Generator
from gansynth.core.registry import installed
from gansynth.core.schema import Case
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.data.opening import open_source
from gansynth.data.views import needed
from gansynth.fitting.warm_start import Ancestor
from gansynth.runtime.devices import pick_device, seeded
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import overlay, split_settings
from gansynth.sampling.drawer import check_edits
from gansynth.training.loop import Batches, FitOptions, steps_for

OBSERVED = 256
"""Crops that a generator which draws label maps sees at least of them before training."""


@dataclass
class Job:
    """Everything a fit needs.

    Attributes:
        source: the training cases.
        cache: those at hand.
        space: the generator's space; samples are of its size.
        generator: built with fresh weights.
        options: of the training loop.
        edits: of the conditions that previews and samples are drawn from.
        batches: training crops, of ``options.patch`` if that is given.
        crops: cases cut in the whole space, for previews and statistics.
        device: where to train.
        ancestor: the run whose weights it starts from, if any.
        recipe: the recipe it was asked for by, in words; empty if by none.
    """

    source: CaseSource
    cache: CaseCache
    space: Space
    generator: Generator
    options: FitOptions
    edits: tuple[str, ...]
    batches: Batches
    crops: CaseBatches
    device: torch.device
    ancestor: Ancestor | None = None
    recipe: str = ""

    def config(self) -> dict[str, Any]:
        """The resolved settings, as ``config.yaml`` holds them."""
        config = {
            "generator": self.generator.name,
            "data": self.source.request.to_json(),
            "size": list(self.space.size),
            "edits": list(self.edits),
            "fit": self.options.model_dump(mode="json"),
            "options": self.generator.options.model_dump(mode="json"),
        }
        if self.ancestor is not None:
            config["init_from"] = self.ancestor.run_id
        return {**config, "recipe": self.recipe} if self.recipe else config

    def observed(self, rng: np.random.Generator) -> Iterator[Case]:
        """What a generator observes before training: a crop of each training case.

        One that draws label maps sees several of each where there are few cases: their slices or
        places differ, and what it has not seen it takes for a flaw.
        """
        least = OBSERVED if self.generator.labelling == "drawn" else 0
        return self.shown(self.source.train_ids, rng, least)

    def shown(self, ids: Sequence[str], rng: np.random.Generator, least: int) -> Iterator[Case]:
        """A crop of each case, and more of those that have several, up to some ``least`` in all."""
        yield from (self.crops.cut(case_id, rng) for case_id in ids)
        if len(ids) >= least:
            return
        several = [case_id for case_id in ids if self._has_several(case_id)]
        for index in range(least - len(ids) if several else 0):
            yield self.crops.cut(several[index % len(several)], rng)

    def _has_several(self, case_id: str) -> bool:
        """Whether crops of a case can show different voxels."""
        if self.space.grid not in ("crop", "slice"):
            return False
        shape = self.source.shape(case_id)
        plane = shape[-len(self.space.size) :]
        return (self.space.grid == "slice" and shape[0] > 1) or any(
            n > size for n, size in zip(plane, self.space.size, strict=True)
        )


def resolve(
    name: str,
    request: SourceRequest,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str,
    typed: Collection[str] = (),
) -> Job:
    """Open the source and build the generator; nothing is written.

    Args:
        name: registered generator.
        request: where the training cases come from.
        settings: ``--set`` values.
        edits: condition edits by name; None takes the generator's own.
        device: ``auto``, ``cpu``, ``cuda:0``.
        typed: those of the settings that must have an effect: what a user typed.
    """
    cls = installed().generator(name)
    usual = {key: json.dumps(value) for key, value in cls.loop.items()}
    texts = overlay(usual, settings)
    loop, own = split_settings(texts, FitOptions, cls.Options, generator=name, typed=typed)
    names = cls.default_edits if edits is None else tuple(edits)
    build_edits(names)
    picked = pick_device(device)
    source = open_source(needed(request, own))
    cache = CaseCache(source)

    def build(space: Space) -> Generator:
        with seeded(loop.seed):
            return cls(space.generator_schema(source.schema), space.size, own)

    space = source.space
    built = build(space)
    check_labels(built, source)
    check_edits(built, edits or ())
    _refuse_untrained(built, {key: settings[key] for key in typed})
    if built.intensity == "tanh":
        space = space.with_window(cache(i) for i in source.train_ids)
        built = build(space)
    if loop.epochs is not None:
        images = loop.epochs * len(source.train_ids)
        steps = steps_for(images, list(built.stages()), loop.batch_size)
        loop = loop.model_copy(update={"steps": steps, "epochs": None})
    cut = partial(CaseBatches, cache, seed=loop.seed, context=built.context, accepts=built.accepts)
    crops = cut(space)
    small = space if loop.patch is None else _patch_space(space, loop.patch)
    asked = _asked_maps(built, small, cache)
    # One and the same where it can be: whole cases are kept at hand once.
    batches = crops if loop.patch is None and asked is None else cut(small, asked=asked)
    return Job(source, cache, space, built, loop, names, batches, crops, picked)


def _refuse_untrained(built: Generator, typed: Mapping[str, str]) -> None:
    """Refuse settings of a training that there is none of."""
    for key in () if built.phases() else typed.keys() & (FitOptions.model_fields.keys() - {"seed"}):
        raise UsageFault(
            f"--set {key}={typed[key]}: has no effect, as {built.name} learns by no training steps "
            f"here; leave {key} out"
        )


def _asked_maps(generator: Generator, space: Space, cache: CaseCache) -> AskedMaps | None:
    """What makes the label maps that are asked for while training, if they are not the cases'."""
    if not generator.fit_edits:
        return None
    edits = build_edits(generator.fit_edits)
    turns = next((edit.name for edit in edits if edit.in_turns), None)
    if turns is not None:
        raise UsageFault(
            f"fit_edits: {turns} has cases take turns, and a step draws its cases at random; "
            f"expected {turns} without it, for example {turns}:pairs=any"
        )
    room = Room(cache.source, space, cache)
    follows = generator.context_follows
    return AskedMaps(room, edits, context=generator.context, follows=follows)


def check_labels(generator: Generator, source: CaseSource) -> None:
    """Refuse cases without labels, or without boxes, for a generator that learns from them.

    Raises:
        UsageFault: with the way out.
    """
    if "boxes" in generator.heeds and not source.schema.box_classes:
        raise UsageFault(
            f"{source.name}: its cases have no boxes, expected some, which {generator.name} draws "
            "images for; read a yolo: data set, or boxes of label maps: --data slices:... --read "
            "boxes=yes"
        )
    if generator.labelling == "none" or source.schema.foreground:
        return
    if generator.labelling == "drawn":
        raise UsageFault(
            f"{source.name}: its cases have no label maps, expected some for {generator.name} to "
            "draw with the images; add them, or leave --with-mask out"
        )
    raise UsageFault(
        f"{source.name}: its cases have no label maps, expected some, which {generator.name} draws "
        "images for; add them, or fit a generator that draws images from noise, such as dcgan"
    )


def _patch_space(space: Space, patch: tuple[int, ...]) -> Space:
    """The space training crops are cut in."""
    typed = f"--set patch={','.join(map(str, patch))}"
    if space.grid not in ("crop", "slice"):
        raise UsageFault(
            f"{typed}: cases of grid {space.grid!r} are trained on whole; leave patch out"
        )
    fits = len(patch) == len(space.size) and all(
        1 <= p <= n for p, n in zip(patch, space.size, strict=True)
    )
    if not fits:
        most = ",".join(map(str, space.size))
        raise UsageFault(
            f"{typed}: expected {len(space.size)} whole numbers of voxels, none above {most}, as "
            f"patch={','.join(str(min(32, n)) for n in space.size)}"
        )
    return replace(space, size=patch)
