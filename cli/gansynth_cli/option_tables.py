"""``gansynth.options``: the options of generators, hosts and other plugins, as tables."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from typing import Any

from pydantic import BaseModel

from gansynth.conditions.boxes import JitterOptions
from gansynth.conditions.lesion_placement import LesionOptions
from gansynth.core.generator import capabilities_of
from gansynth.core.registry import installed
from gansynth.core.requests.arguments import with_checked_arguments
from gansynth.data.read_options import VolumeOptions
from gansynth.data.slices import SliceOptions
from gansynth.fitting.composite_spec import texts
from gansynth.fitting.recipe import read_recipe
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth.runtime.option_kinds import option_rows
from gansynth.runtime.parts import refuse_absent
from gansynth.training.loop import FitOptions, loop_options

KINDS = {
    "generators": "generator",
    "hosts": "host",
    "sources": "source",
    "edits": "edit",
    "filters": "filter",
    "metrics": "metric",
    "writers": "format",
}
"""Registered kind -> its name for users."""
OTHERS: dict[str, tuple[str, str, type[BaseModel]]] = {
    "lesions": ("placement of", "--lesions KEY=VALUE,...", LesionOptions),
    "boxes": ("jittered", "--boxes jitter:KEY=VALUE,...", JitterOptions),
}
"""Options of what is not registered: name -> kind, how they are typed, the model."""
COLUMNS = ("key", "default", "meaning")
COMMANDS = {
    "import": "gansynth import SOURCE {}:WHERE --set KEY=VALUE",
    "prepare": "gansynth prepare {}:WHERE --set KEY=VALUE",
    "doctor": "gansynth doctor --KEY VALUE",
}
"""Command of a host -> how its options are given."""


@dataclass(frozen=True)
class OptionTable:
    """Options that are given together."""

    kind: str  # of their owner: `generator`, `host`, `source`, ...
    name: str
    typed: str  # how they are given on the command line
    rows: tuple[tuple[str, str, str], ...]  # key, default and meaning of each

    @property
    def title(self) -> str:
        """Return the owner, and how its options are given."""
        return f"{self.kind} {self.name}: {self.typed if self.rows else 'has no options'}"


class OptionTables(tuple[OptionTable, ...]):
    """All options of a name; printed as tables, in a notebook too."""

    def __repr__(self) -> str:
        parts = []
        for table in self:
            lines = [table.title] + [f"  {'  '.join(row)}" for row in _aligned(table.rows)]
            parts.append("\n".join(lines))
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        parts = []
        for table in self:
            rows = "".join(map(_row, (COLUMNS, *table.rows)))
            parts.append(f"<p>{escape(table.title)}</p><table>{rows}</table>")
        return "".join(parts)

    def to_json(self) -> list[dict[str, Any]]:
        return [
            {
                "kind": table.kind,
                "typed": table.typed,
                "options": [dict(zip(COLUMNS, row, strict=True)) for row in table.rows],
            }
            for table in self
        ]


def tables_of(name: str) -> OptionTables:
    """Return the options of a generator, host, source, edit, filter or metric; what a recipe sets.

    Args:
        name: as registered (``gansynth plugins list``), or ``lesions``, ``boxes``.
    """
    registry = installed()
    kinds = [kind for kind in KINDS if name in registry.loaders[kind]]
    usual: dict[str, Any] = {}  # a generator's own defaults of the training loop
    found = []
    for kind in kinds:
        loaded = registry.load(kind, name)
        if kind == "generators":
            usual.update(capabilities_of(loaded).loop)
        for typed, model in _models_of(kind, name, loaded):
            found.append((KINDS[kind], typed, model))
    recipe = list(_recipe(name)) if name in registry.loaders["recipes"] else []
    if name in OTHERS:
        found.append(OTHERS[name])
    elif not kinds and not recipe:
        refuse_absent("options", name)
        names = list(OTHERS)
        for kind in (*KINDS, "recipes"):
            names += registry.names(kind)
        raise UsageFault(
            "command.options-of-unknown-name",
            f"options {name!r}: nothing is registered under that name.{did_you_mean(name, names)} "
            "See: gansynth plugins list",
        )
    tables = [
        OptionTable(kind, name, typed, () if model is None else tuple(option_rows(model, usual)))
        for kind, typed, model in found
    ]
    return OptionTables([*tables, *recipe])


options = with_checked_arguments(tables_of, name="options")
"""``gansynth.options``: the same, whose errors speak Python."""


def _recipe(name: str) -> Iterator[OptionTable]:
    """Yield what a recipe sets: for all of its sets, for one of them or a part, for a scale."""
    registry = installed()
    spec = read_recipe(registry.load("recipes", name), name).spec
    typed = f"gansynth fit {spec.generator} --recipe {name}"
    values = [(f"{typed}; {spec.summary}", texts(spec.set)), (f"{typed} --read", spec.read)]
    values.append((f"{typed} --edit", dict.fromkeys(spec.edits or (), "")))
    owners = {spec.generator}
    for run in spec.runs:
        values.append((f"{typed} --only {run.name}", dict(run.read) | texts(run.set)))
        for part in run.parts or ():
            owners.add(part.generator)
            values.append((f"the same, part {part.name} ({part.generator})", texts(part.set)))
    for scale, over in spec.scale.items():
        values.append((f"{typed} --scale {scale}", dict(over.read) | texts(over.set)))
    models: list[type[BaseModel]] = [FitOptions, VolumeOptions, SliceOptions]
    models += [registry.generator(owner).Options for owner in owners]
    meanings = {key: meaning for model in models for key, _, meaning in option_rows(model)}
    for how, settings in values:
        if settings:
            rows = [(key, value, meanings.get(key, "")) for key, value in settings.items()]
            yield OptionTable("recipe", name, how, tuple(rows))


def _models_of(kind: str, name: str, loaded: Any) -> Iterator[tuple[str, type[BaseModel] | None]]:
    if kind == "generators":
        yield f"gansynth fit {name} --set KEY=VALUE", loaded.Options
        trains = capabilities_of(loaded).trains
        of = "the training loop of every generator" if trains else "of every generator"
        yield f"the same; {of}", loop_options(loaded)
    elif kind == "hosts":
        yield f"gansynth augment --target {name} --KEY VALUE, or --set KEY=VALUE", loaded.Options
        registry = installed()
        for verb, typed in COMMANDS.items():
            if name in registry.hosts_with(verb):
                model = registry.command_options(verb, name)
                yield from [(typed.format(name), model)] if model.model_fields else []
    elif kind == "sources":
        yield f"--data {name}:WHERE --read KEY=VALUE", getattr(loaded, "read_options", None)
    elif kind == "metrics":
        yield f"--metric {name}", None
    elif kind == "writers":
        yield f"gansynth sample RUN --format {name} --set KEY=VALUE", loaded.Options
    else:
        yield f"--{KINDS[kind]} {name}:KEY=VALUE,...", loaded.Options


def _aligned(rows: tuple[tuple[str, str, str], ...]) -> Iterator[tuple[str, ...]]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for key, default, meaning in rows:
        yield key.ljust(widths[0]), default.ljust(widths[1]), meaning


def _row(cells: tuple[str, ...]) -> str:
    columns = [f"<td>{escape(cell)}</td>" for cell in cells]
    return f"<tr>{''.join(columns)}</tr>"
