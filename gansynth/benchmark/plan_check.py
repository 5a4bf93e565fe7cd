"""What a plan names that is not there, found before anything long starts."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gansynth.benchmark.arms import PRESET_GENERATORS
from gansynth.benchmark.plan_parts import ArmPlan, GeneratorPlan
from gansynth.core.registry import installed
from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean, refuse_unknown

if TYPE_CHECKING:
    from gansynth.benchmark.plan import Plan

Found = TypeVar("Found")


def check_names(plan: Plan, path: Path) -> None:
    """Refuse hosts, generators, recipes, settings, edits, lesions and filters that nobody knows.

    Args:
        plan: whose names are looked up.
        path: of its file, for messages.

    Raises:
        UsageFault: naming the file and the key.
    """
    _check_host(plan, path)
    _check_generators(plan, path)
    for arm in plan.arms:
        _check_asked(arm, f"{path}: arms.{arm.name}")


def _check_host(plan: Plan, path: Path) -> None:
    target = plan.host.target
    known = _under(f"{path}: host.target", partial(installed().adapter, target)).settings
    told = {"host": plan.host.set, **{f"arms.{arm.name}": arm.set for arm in plan.arms}}
    for where, settings in told.items():

        def named(key: str, where: str = where) -> str:
            return f"{path}: {where}.set.{key}: {told[where][key]!r}"

        refuse_unknown(settings, known, of=target, named=named)


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
    from gansynth.conditions.edit_chain import build_edits
    from gansynth.sampling.request_parsing import read_asking

    _under(where, partial(build_edits, arm.edits))
    _under(where, partial(read_asking, lesions=arm.lesions, filters=arm.filters))


def _under(where: str, look: Callable[[], Found]) -> Found:
    """Look something up; where it is asked for stands before what is said against it."""
    try:
        return look()
    except (DataFault, UsageFault) as fault:
        raise type(fault)(f"{where}: {str(fault).replace('--set ', 'set: ')}") from None
