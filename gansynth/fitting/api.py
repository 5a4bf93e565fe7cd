"""``gansynth.fit``: the command in Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from gansynth.core.source import SourceRequest
from gansynth.data.api import source_request
from gansynth.fitting.composite_fit import fit_composite
from gansynth.fitting.composite_spec import asked_for
from gansynth.fitting.cost import parse_bytes
from gansynth.fitting.fit import fit as fit_one
from gansynth.fitting.recipe import Recipe, find_recipe
from gansynth.fitting.recipe_fit import fit_recipe
from gansynth.fitting.recipe_plan import plan_recipe
from gansynth.runtime.devices import why_cpu
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.progress import RichReporter
from gansynth.runtime.words import Given, Texts, as_path, as_texts, as_tuple, changed
from gansynth.sampling.api import FittedRun
from gansynth.training.loggers import check_loggers

NEEDS = dict.fromkeys(("only", "scale", "extra_source", "extra_source_read"), "recipe")


def fit(
    generator: str,
    *,
    data: str | SourceRequest,
    out: str | os.PathLike[str],
    configuration: str | None = None,
    plans: str | None = None,
    fold: int | str | None = None,
    subjects: str | None = None,
    read: Mapping[str, Any] | None = None,
    synthetic_source: str | None = None,
    root: str | None = None,
    recipe: str | None = None,
    only: Texts = (),
    scale: str | None = None,
    extra_source: Mapping[str, str] | None = None,
    extra_source_read: Mapping[str, Any] | None = None,
    edit: Texts = (),
    device: str = "auto",
    resume: bool = True,
    fit_memory: str | None = None,
    init_from: str | os.PathLike[str] | None = None,
    per_channel: str | None = None,
    per_class: str | None = None,
    log: Texts = (),
    dry_run: bool = False,
    quiet: bool = False,
    set: Mapping[str, Any] | None = None,
    **settings: Any,
) -> FittedRun:
    """Fit a generator on the training cases of one fold: ``gansynth fit``.

    Each argument is the option of that name; ``gansynth fit --help`` explains them.

    Args:
        generator: registered name, or the YAML file of a chain.
        data: KIND:WHERE of the cases, e.g. ``nnunet:004``.
        out: run folder; an unfinished run of the same settings is resumed.
        set, settings: what follows ``--set``, e.g. ``steps=2000``; ``gansynth.options(NAME)`` has
            the keys.

    Returns:
        The run. Its ``report`` has cases, steps, seconds, losses and paths, or a dry run's cost.

    Raises:
        GansynthError: typed by cause, see ``gansynth.runtime.errors``.
        Interrupted: by SIGTERM or SIGINT, after a checkpoint.
    """
    words = dict(locals())
    Given(words, changed(words, fit)).refuse_idle(NEEDS)
    check_loggers(as_tuple(log))
    texts = as_texts({**(set or {}), **settings})
    request = source_request(
        data,
        configuration=configuration,
        plans=plans,
        fold=fold,
        subjects=subjects,
        read=read,
        synthetic_source=synthetic_source,
        root=root,
        idle=recipe is None,  # a recipe has its own reading options
    )
    parts, folder = asked_for(generator, per_channel, per_class), Path(out)
    arguments: dict[str, Any] = {"settings": texts, "edits": as_tuple(edit) or None}
    begin: Callable[..., dict[str, Any]]
    if recipe is not None:
        arguments |= {"only": as_tuple(only), "scale": scale}
        arguments |= {"others": extra_source or {}, "others_read": as_texts(extra_source_read)}
        planned = plan_recipe(
            _named_recipe(recipe, generator, parts is not None), request, **arguments
        )
        begin = partial(fit_recipe, planned, folder)
    elif parts is None:
        begin = partial(fit_one, generator, request, folder, typed=texts, **arguments)
    else:
        begin = partial(fit_composite, parts, request, folder, **arguments)
    reporter = RichReporter(quiet=quiet)
    if (why := why_cpu(device)) is not None:
        reporter.say(why)
    parent = as_path(init_from)
    report = begin(
        device=device,
        memory=None if fit_memory is None else parse_bytes(fit_memory),
        init_from=None if parent is None else Path(parent),
        resume=resume,
        dry_run=dry_run,
        log=as_tuple(log),
        reporter=reporter,
    )
    return FittedRun(folder, device=device, report=report)


def _named_recipe(name: str, generator: str, composite: bool) -> Recipe:
    if composite:
        raise UsageFault(
            f"--recipe {name}: the recipe defines its runs; leave out --per-channel and "
            "--per-class, and name a generator, not a chain's file"
        )
    recipe = find_recipe(name)
    expected = recipe.spec.generator
    if generator != expected:
        raise UsageFault(
            f"--recipe {recipe.name}: its generator is {expected}, got {generator}; use: "
            f"gansynth fit {expected} --recipe {recipe.name}"
        )
    return recipe
