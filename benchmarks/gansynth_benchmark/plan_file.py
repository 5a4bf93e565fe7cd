"""Read a plan and refuse unknown names in it before any training starts."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from gansynth.core.registry import installed
from gansynth.core.requests.base import in_python
from gansynth.runtime.errors import UsageFault, did_you_mean, refuse_unknown
from gansynth.runtime.version import check_format
from gansynth.runtime.yaml_text import read_yaml
from gansynth_benchmark.arms import preset_generators
from gansynth_benchmark.plan import ArmPlan, BenchmarkPlan, GeneratorPlan

PLAN_HELP = "a plan in YAML, see: gansynth help benchmark_plan"
NEW = "a plan in YAML; write one: gansynth benchmark --new KIND:WHERE"


def read_plan(path: Path, data: str | None = None) -> BenchmarkPlan:
    """Read a plan; relative paths in it start at its folder.

    Args:
        data: KIND:WHERE in place of the plan's; relative to the working directory.
    """
    values, _ = read_yaml(path, NEW)
    if not isinstance(values, dict):
        raise UsageFault(
            "benchmark.plan-not-mapping",
            f"{path}: holds {type(values).__name__}, expected {PLAN_HELP}",
        )
    made = values.get("gansynth")
    check_format(path, None, None, made, "write a new plan: gansynth benchmark --new KIND:WHERE")
    if data is not None:
        values["data"] = data
    try:
        plan = BenchmarkPlan(**values)
    except ValidationError as error:
        raise UsageFault(
            "benchmark.plan-value-refused", f"{path}: {first_error(error, PLAN_HELP)}"
        ) from None
    except UsageFault as fault:
        raise UsageFault("benchmark.plan-section-refused", f"{path}: {fault}") from None
    except TypeError as error:
        raise UsageFault(
            "benchmark.plan-of-wrong-types", f"{path}: {error}; expected {PLAN_HELP}"
        ) from None
    changes: dict[str, Any] = {
        "data": placed_data(plan.data, path.parent if data is None else Path()),
        "arms": tuple([_placed_arm(arm, path.parent) for arm in plan.arms]),
        "generators": {
            name: _placed_generator(one, path.parent) for name, one in plan.generators.items()
        },
    }
    for key in ("root", "subjects"):
        value = getattr(plan, key)
        if value is not None and os.path.exists(path.parent / value):  # an expression may be long
            changes[key] = str((path.parent / value).absolute())
    plan = plan.model_copy(update=changes)
    check_names(plan, path)
    return plan


def _placed_arm(arm: ArmPlan, folder: Path) -> ArmPlan:
    if not arm.unlabelled:
        return arm
    return arm.replace(unlabelled=[placed_data(text, folder) for text in arm.unlabelled])


def _placed_generator(generator: GeneratorPlan, folder: Path) -> GeneratorPlan:
    if generator.target_scans is None:
        return generator
    return generator.replace(target_scans=placed_data(generator.target_scans, folder))


def placed_data(text: str, folder: Path) -> str:
    """Make WHERE of KIND:WHERE absolute if it is an existing path relative to the folder."""
    kind, colon, where = text.partition(":")
    if colon and where and not Path(where).is_absolute() and os.path.exists(folder / where):
        return f"{kind}:{(folder / where).absolute()}"
    return text


def first_error(error: ValidationError, expected: str) -> str:
    """Return the first fault of a file: its key, what is wrong, and what is expected."""
    first = error.errors()[0]
    key = ".".join(map(str, first["loc"]))
    message = first["msg"].removeprefix("Value error, ")
    value = "" if isinstance(first["input"], dict | list) else f" (found {first['input']!r})"
    if key:
        message = f"{key}: {message}{value}"
    return message if message.endswith("?") else f"{message.rstrip('.')}; expected {expected}"


def check_names(plan: BenchmarkPlan, path: Path) -> None:
    """Refuse unknown hosts, generators, recipes, settings, edits, lesions and filters."""
    from gansynth.sampling.request_checks import read_request

    _check_host(plan, path)
    _check_generators(plan, path)
    for arm in plan.arms:
        with in_python(ArmPlan, f"{path}: arms.{arm.name}: "):
            read_request(arm)


def _check_host(plan: BenchmarkPlan, path: Path) -> None:
    sections: dict[str, Mapping[str, Any]] = {"host": plan.host.set}
    for arm in plan.arms:
        sections[f"arms.{arm.name}"] = arm.set
    for where, settings in sections.items():

        def named(key: str, where: str = where) -> str:
            return f"{path}: {where}.set.{key}: {sections[where][key]!r}"

        refuse_unknown(
            settings, plan.host.framework.Options.model_fields, of=plan.host.target, named=named
        )


def _check_generators(plan: BenchmarkPlan, path: Path) -> None:
    plugins = set(installed().names("generators"))
    for arm in plan.arms:
        name = arm.generator
        if name is None:
            continue
        generator = plan.generator(name)
        if generator.generator in plugins:
            with in_python(GeneratorPlan, f"{path}: generators.{name}: "):
                _check_options(generator)
            continue
        if name in plan.generators:
            raise UsageFault(
                "benchmark.plan-generator-not-installed",
                f"{path}: generators.{name}.generator: {generator.generator!r} is not installed, "
                f"expected one of {', '.join(sorted(plugins))}."
                f"{did_you_mean(generator.generator, plugins)}",
            )
        others = sorted({*plan.generators, *preset_generators(), *plugins})
        raise UsageFault(
            "benchmark.arm-generator-unknown",
            f"{path}: arms.{arm.name}.generator: {name!r} is neither a generator of the plan nor "
            f"installed, expected one of {', '.join(others)}.{did_you_mean(name, others)}",
        )


def _check_options(generator: GeneratorPlan) -> None:
    """Check that the recipe exists; without a recipe, that all settings are options."""
    from gansynth.fitting.recipe import check_settings, find_recipe

    if generator.recipe is not None:
        find_recipe(generator.recipe)
        return
    check_settings(generator.generator, generator.set, typed=generator.set)
