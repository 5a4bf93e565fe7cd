"""Every extension point of gansynth, one sentence each.

A plugin is a module named in the entry-point group ``gansynth``; it implements any of these hooks
with ``@hookimpl`` and calls the ``register`` function it is handed.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from gansynth.core.adapter import Adapter
    from gansynth.core.edit import Edit
    from gansynth.core.filter import Filter
    from gansynth.core.findings import Check
    from gansynth.core.generator import Generator
    from gansynth.core.metric import Metric
    from gansynth.core.source import CaseSource, SourceRequest

API_VERSION = 2
"""Version of these hooks and of the classes they hand over; docs/plugins.md has the policy."""
OLDEST_API = 2
"""The oldest version that plugins may still be written for."""

hookspec = pluggy.HookspecMarker("gansynth")
hookimpl = pluggy.HookimplMarker("gansynth")


@hookspec
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Offer generators: call ``register(name, load)``; ``load()`` imports and returns the class."""


@hookspec
def register_adapters(register: Callable[[str, Callable[[], type[Adapter]]], None]) -> None:
    """Offer host frameworks to augment: call ``register(target, load)``."""


@hookspec
def register_sources(
    register: Callable[[str, Callable[[], Callable[[SourceRequest], CaseSource]]], None],
) -> None:
    """Offer ways to read cases: call ``register(kind, load)``; ``load()`` returns an opener."""


@hookspec
def register_edits(register: Callable[[str, Callable[[], type[Edit]]], None]) -> None:
    """Offer edits of conditions: call ``register(name, load)``; ``load()`` returns the class."""


@hookspec
def register_checks(register: Callable[[str, Callable[[], Check]], None]) -> None:
    """Offer to find what is wrong with a kind of source: call ``register(kind, load)``."""


@hookspec
def register_filters(register: Callable[[str, Callable[[], type[Filter]]], None]) -> None:
    """Offer to keep samples out of banks: call ``register(name, load)``."""


@hookspec
def register_metrics(register: Callable[[str, Callable[[], Metric]], None]) -> None:
    """Offer measures of samples beside real cases: call ``register(name, load)``."""


@hookspec
def register_recipes(register: Callable[[str, Callable[[], Path]], None]) -> None:
    """Offer papers' settings by name: call ``register(name, load)``; ``load()`` returns a file."""


# -- for what registers: nothing is imported before it is asked for --------------------------------


def lazily(target: str) -> Callable[[], Any]:
    """What imports ``module:name`` when it is called."""
    module, _, name = target.partition(":")
    return lambda: getattr(import_module(module), name)


def offer_recipes(register: Callable[[str, Callable[[], Path]], None], folder: Path) -> None:
    """Register the YAML files of a folder by their names."""
    for path in sorted(folder.glob("*.yaml")):
        register(path.stem, partial(Path, path))
