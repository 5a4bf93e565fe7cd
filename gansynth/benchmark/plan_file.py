"""Reads a plan, and refuses what it names and is not there, before anything long starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

from pydantic import ValidationError

from gansynth.benchmark.arms import PRESET_GENERATORS
from gansynth.benchmark.plan import ArmPlan, GeneratorPlan, Plan
from gansynth.core.registry import installed
from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean, refuse_unknown
from gansynth.runtime.files import read_yaml

SHOWN = "a plan in YAML: see docs/benchmark.md"
Found = TypeVar("Found")


def read_plan(path: Path, data: str | None = None) -> Plan:
    """Read a plan; relative paths in it start at its folder.

    Args:
        data: KIND:WHERE in place of the plan's; a relative path in it starts where we are.

    Raises:
        UsageFault: it is none: naming the file and the key.
    """
    values, _ = read_yaml(path, SHOWN)
    if not isinstance(values, dict):
        raise UsageFault(f"{path}: holds {type(values).__name__}, expected {SHOWN}")
    if data is not None:
        values["data"] = data
    try:
        plan = Plan(**values)
    except ValidationError as error:
        raise UsageFault(f"{path}: {_first(error)}") from None
    except TypeError as error:
        raise UsageFault(f"{path}: {error}; expected {SHOWN}") from None
    changes = {"data": _placed_data(plan.data, path.parent if data is None else Path())}
    for key in ("root", "subjects"):
        value = getattr(plan, key)
        if value is not None and (path.parent / value).exists():
            changes[key] = str((path.parent / value).absolute())
    plan = plan.model_copy(update=changes)
    check_names(plan, path)
    return plan


def _placed_data(text: str, folder: Path) -> str:
    """KIND:WHERE whose WHERE is an existing path relative to a folder, made absolute."""
    kind, colon, where = text.partition(":")
    if colon and where and not Path(where).is_absolute() and (folder / where).exists():
        return f"{kind}:{(folder / where).absolute()}"
    return text


def _first(error: ValidationError) -> str:
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    said = first["msg"].removeprefix("Value error, ")
    found = "" if isinstance(first["input"], dict | list) else f" (found {first['input']!r})"
    return f"{key}: {said}{found}; expected {SHOWN}" if key else f"{said}; expected {SHOWN}"


def check_names(plan: Plan, path: Path) -> None:
    """Refuse hosts, generators, recipes, settings, edits, lesions and filters that nobody knows.

    Raises:
        UsageFault: naming the file and the key.
    """
    _check_host(plan, path)
    _check_generators(plan, path)
    for arm in plan.arms:
        _check_asked(arm, f"{path}: arms.{arm.name}")


def _check_host(plan: Plan, path: Path) -> None:
    target = plan.host.target
    adapter = _under(f"{path}: host.target", partial(installed().adapter, target))
    told = {"host": plan.host.set, **{f"arms.{arm.name}": arm.set for arm in plan.arms}}
    for where, settings in told.items():

        def named(key: str, where: str = where) -> str:
            return f"{path}: {where}.set.{key}: {told[where][key]!r}"

        refuse_unknown(settings, adapter.Options.model_fields, of=target, named=named)


def _check_generators(plan: Plan, path: Path) -> None:
    known = set(installed().names("generators"))
    for arm in plan.arms:
        name = arm.generator
        if name is None:
            continue
        generator = plan.generator(name)
        if generator.plugin in known:
            _under(f"{path}: generators.{name}", partial(_check_options, generator))
            continue
        if name in plan.generators:
            raise UsageFault(
                f"{path}: generators.{name}.plugin: {generator.plugin!r} is not installed, "
                f"expected one of {', '.join(sorted(known))}."
                f"{did_you_mean(generator.plugin, known)}"
            )
        others = sorted({*plan.generators, *PRESET_GENERATORS, *known})
        raise UsageFault(
            f"{path}: arms.{arm.name}.generator: {name!r} is neither a generator of the plan nor "
            f"installed, expected one of {', '.join(others)}.{did_you_mean(name, others)}"
        )


def _check_options(asked: GeneratorPlan) -> None:
    """A recipe must be there; without one, all that is set must be an option."""
    from gansynth.fitting.recipe import find_recipe
    from gansynth.runtime.options import split_settings
    from gansynth.training.loop import FitOptions

    if asked.recipe is not None:
        find_recipe(asked.recipe)
        return
    options = installed().generator(asked.plugin).Options
    split_settings(asked.set, FitOptions, options, generator=asked.plugin, typed=asked.set)


def _check_asked(arm: ArmPlan, where: str) -> None:
    from gansynth.sampling.request_parsing import read_request

    asked = partial(read_request, edits=arm.edits, lesions=arm.lesions, filters=arm.filters)
    _under(where, asked)


def _under(where: str, look: Callable[[], Found]) -> Found:
    """Look something up; where it is asked for stands before what is said against it."""
    try:
        return look()
    except (DataFault, UsageFault) as fault:
        raise type(fault)(f"{where}: {str(fault).replace('--set ', 'set: ')}") from None
