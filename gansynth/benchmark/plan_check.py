"""What a plan names that is not there, found before anything long starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import TypeVar

from gansynth.benchmark.arms import PRESET_GENERATORS
from gansynth.benchmark.plan_parts import ArmPlan, GeneratorPlan, HostPlan
from gansynth.errors import UsageFault, did_you_mean
from gansynth.registry import installed

Found = TypeVar("Found")


def check_host(host: HostPlan, arms: Iterable[ArmPlan], path: Path) -> None:
    """Refuse hosts that nobody knows, and settings that they do not have.

    Args:
        host: of the plan.
        arms: whose settings are put over the host's.
        path: of the plan, for messages.

    Raises:
        UsageFault: naming the file and the key.
    """
    known = _under(f"{path}: host.target", partial(installed().adapter, host.target)).settings
    told: dict[str, Mapping[str, str]] = {"host": host.set}
    told |= {f"arms.{arm.name}": arm.set for arm in arms}
    for where, settings in told.items():
        for key, value in settings.items():
            if key not in known:
                raise UsageFault(
                    f"{path}: {where}.set.{key}: {value!r}: {host.target} has no such setting, "
                    f"expected one of {', '.join(sorted(known)) or 'none'}."
                    f"{did_you_mean(key, known)}"
                )


def check_generators(
    arms: Iterable[ArmPlan],
    own: Mapping[str, GeneratorPlan],
    meant: Callable[[str], GeneratorPlan],
    path: Path,
) -> None:
    """Refuse generators, recipes and options that nobody knows.

    Args:
        arms: that draw from them, or not.
        own: the plan's.
        meant: a generator by the name that an arm has for it.
        path: of the plan, for messages.

    Raises:
        UsageFault: naming the file and the key.
    """
    known = set(installed().names("generators"))
    names = [arm for arm in arms if arm.generator is not None]
    for arm in names:
        name = str(arm.generator)
        plugin = meant(name).plugin
        if plugin in known:
            continue
        if name in own:
            raise UsageFault(
                f"{path}: generators.{name}.plugin: {plugin!r} is not installed, expected one of "
                f"{', '.join(sorted(known))}.{did_you_mean(plugin, known)}"
            )
        others = sorted({*own, *PRESET_GENERATORS, *known})
        raise UsageFault(
            f"{path}: arms.{arm.name}.generator: {name!r} is neither a generator of the plan nor "
            f"installed, expected one of {', '.join(others)}.{did_you_mean(name, others)}"
        )
    for name in sorted({str(arm.generator) for arm in names}):
        _under(f"{path}: generators.{name}", partial(_check_options, meant(name)))


def check_asked(arms: Iterable[ArmPlan], path: Path) -> None:
    """Refuse edits, lesions and filters that no generator could be asked for.

    Args:
        arms: that ask for them.
        path: of the plan, for messages.

    Raises:
        UsageFault: naming the file and the arm.
    """
    from gansynth.asking_text import read_asking
    from gansynth.conditions.asked import build_edits

    for arm in arms:
        where = f"{path}: arms.{arm.name}"
        _under(where, partial(build_edits, arm.edits))
        _under(where, partial(read_asking, lesions=arm.lesions, filters=arm.filters))


def _check_options(asked: GeneratorPlan) -> None:
    """A recipe must be there; without one, all that is set must be an option."""
    from gansynth.recipes import find_recipe
    from gansynth.settings import split_settings
    from gansynth.training import FitOptions

    if asked.recipe is not None:
        find_recipe(asked.recipe)
        return
    options = installed().generator(asked.plugin).Options
    split_settings(asked.set, FitOptions, options, generator=asked.plugin)


def _under(where: str, look: Callable[[], Found]) -> Found:
    """Look something up; where it is asked for stands before what is said against it."""
    try:
        return look()
    except UsageFault as fault:
        raise UsageFault(f"{where}: {fault}") from None
