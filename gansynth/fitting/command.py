"""``gansynth.fit``: the command in Python."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gansynth.core.requests.base import absolute, function_of
from gansynth.core.requests.fit import FitRequest
from gansynth.data.kinds import read_named, source_of
from gansynth.fitting.composite_fit import fit_composite
from gansynth.fitting.composite_spec import asked_for
from gansynth.fitting.fit import fit as fit_one
from gansynth.fitting.recipe import Recipe, find_recipe
from gansynth.fitting.recipe_fit import fit_recipe
from gansynth.fitting.recipe_plan import plan_recipe
from gansynth.runtime.devices import why_cpu
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.machine import hold_cases_in
from gansynth.runtime.progress import Reporter
from gansynth.runtime.sizes import bytes_of
from gansynth.sampling.loaded_run import FittedRun
from gansynth.training.loggers import check_tensorboard


def run_fit(request: FitRequest, reporter: Reporter | None = None) -> FittedRun:
    """Fit a generator on the training cases of one fold: ``gansynth fit``.

    Other arguments are settings, e.g. ``steps=2000``; ``gansynth.options(NAME)`` has the keys.

    Returns:
        The run. Its ``report`` has cases, steps, seconds, losses and paths, or a dry run's cost.

    Raises:
        GansynthError: typed by cause, see ``gansynth.runtime.errors``.
        Interrupted: by SIGTERM or SIGINT, after a checkpoint.
    """
    hold_cases_in(request.cache_memory)
    if request.tensorboard:
        check_tensorboard()
    source = source_of(request, idle=request.recipe is None)  # a recipe has its own reading options
    source = replace(source, sites=request.sites)
    parts = asked_for(request.generator, request.per_channel, request.per_class)
    folder, settings = Path(request.out), request.set
    arguments: dict[str, Any] = {"settings": settings, "edits": request.edit or None}
    scans = read_named(request.target_scans, request.target_scans_read, "--target-scans")
    if scans is not None and (parts is not None or request.recipe is not None):
        raise UsageFault(
            "fitting.target-scans-of-several-runs",
            f"--target-scans {request.target_scans}: expected one generator, without --recipe, "
            "--per-channel, --per-class or a chain's file; leave it or these out",
        )
    begin: Callable[..., dict[str, Any]]
    if request.recipe is not None:
        recipe = _named_recipe(request.recipe, request.generator, parts is not None)
        arguments |= {"only": request.only, "scale": request.scale}
        arguments |= {"others": request.extra_source, "others_read": request.extra_source_read}
        begin = partial(fit_recipe, plan_recipe(recipe, source, **arguments), folder)
    elif parts is None:
        arguments |= {"typed": settings, "target_scans": scans}
        begin = partial(fit_one, request.generator, source, folder, **arguments)
    else:
        begin = partial(fit_composite, parts, source, folder, **arguments)
    reporter = reporter or request.reporter
    why = why_cpu(request.device)
    if why is not None:
        reporter.say(why)
    parent, most = absolute(request.init_from), request.max_memory
    report = begin(
        device=request.device,
        memory=None if most is None else bytes_of(most, "--max-memory"),
        init_from=None if parent is None else Path(parent),
        resume=request.resume,
        dry_run=request.dry_run,
        tensorboard=request.tensorboard,
        reporter=reporter,
    )
    return FittedRun(folder, device=request.device, report=report)


fit = function_of(FitRequest, run_fit)


def _named_recipe(name: str, generator: str, composite: bool) -> Recipe:
    if composite:
        raise UsageFault(
            "fitting.recipe-defines-its-runs",
            f"--recipe {name}: the recipe defines its runs; leave out --per-channel and "
            "--per-class, and name a generator, not a chain's file",
        )
    recipe = find_recipe(name)
    expected = recipe.spec.generator
    if generator != expected:
        raise UsageFault(
            "fitting.recipe-of-other-generator",
            f"--recipe {recipe.name}: its generator is {expected}, got {generator}; use: "
            f"gansynth fit {expected} --recipe {recipe.name}",
        )
    return recipe
