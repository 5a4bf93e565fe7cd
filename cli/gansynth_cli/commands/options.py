"""``gansynth options``: print the options of generators, frameworks and other plugins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth_cli.common import Output, examples, table, with_output

if TYPE_CHECKING:
    from pydantic import BaseModel

KINDS = {
    "generators": "generator",
    "adapters": "host",
    "sources": "source",
    "edits": "edit",
    "filters": "filter",
    "metrics": "metric",
}
"""Registered kind -> its name for users."""


@click.command(epilog=examples("gansynth options cgan3d", "gansynth options nnunet --json"))
@click.argument("name", metavar="NAME")
@with_output
def command(name: str, out: Output) -> None:
    """Print the options of a generator, framework, source, edit or filter.

    NAME is a registered name (see: gansynth plugins), or lesions, boxes, failures. Each option has
    its key, its default and its meaning.
    """
    from gansynth.runtime.option_kinds import option_rows

    option_models = list(models(name))
    document, lines = [], []
    for kind, typed, model in option_models:
        rows = [] if model is None else option_rows(model)
        keys = [dict(zip(("key", "default", "meaning"), row, strict=True)) for row in rows]
        document.append({"kind": kind, "typed": typed, "options": keys})
        lines += ["", f"{kind} {name}: {typed}" if rows else f"{kind} {name}: has no options"]
        lines += table((f"  {key}", default, meaning) for key, default, meaning in rows)
    out.result({"name": name, "tables": document}, lines[1:])


def models(name: str) -> Iterator[tuple[str, str, type[BaseModel] | None]]:
    """Yield all plugins of a name: kind, how their options are typed, and their model.

    Raises:
        UsageFault: the name is not registered.
    """
    from gansynth.core.registry import installed

    registry = installed()
    kinds = [kind for kind in KINDS if name in registry.loaders[kind]]
    for kind in kinds:
        loaded = registry.load(kind, name)
        for typed, model in _models_of(kind, name, loaded):
            yield KINDS[kind], typed, model
    if name in (others := _others()):
        yield others[name]
    elif not kinds:
        names = [*others, *(each for kind in KINDS for each in registry.names(kind))]
        raise UsageFault(
            f"options {name!r}: nothing is registered under that name.{did_you_mean(name, names)} "
            "See: gansynth plugins list"
        )


def _models_of(kind: str, name: str, loaded: Any) -> Iterator[tuple[str, type[BaseModel] | None]]:
    if kind == "generators":
        from gansynth.training.loop import FitOptions

        yield f"gansynth fit {name} --set KEY=VALUE", loaded.Options
        yield "the same; the training loop of every generator", FitOptions
    elif kind == "adapters":
        yield f"gansynth augment --target {name} --set KEY=VALUE", loaded.Options
        if loaded.ImportOptions.model_fields:
            yield f"gansynth import SOURCE {name}:WHERE --set KEY=VALUE", loaded.ImportOptions
        if loaded.PrepareOptions.model_fields:
            yield f"gansynth prepare {name}:WHERE --set KEY=VALUE", loaded.PrepareOptions
    elif kind == "sources":
        yield f"--data {name}:WHERE --read KEY=VALUE", getattr(loaded, "read_options", None)
    elif kind == "metrics":
        yield f"--metric {name}", None
    else:
        yield f"--{KINDS[kind]} {name}:KEY=VALUE,...", loaded.Options


def _others() -> dict[str, tuple[str, str, type[BaseModel]]]:
    """Return models of options that are not registered."""
    from gansynth.conditions.box_drawers import JitterOptions
    from gansynth.conditions.lesion_placement import LesionOptions
    from gansynth.evaluation.hard_cases.job import FailureOptions

    return {
        "lesions": ("placement of", "--lesions KEY=VALUE,...", LesionOptions),
        "boxes": ("jittered", "--boxes jitter:KEY=VALUE,...", JitterOptions),
        "hard-cases": ("command", "gansynth hard-cases --set KEY=VALUE", FailureOptions),
    }
