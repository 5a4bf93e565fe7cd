"""Every extension point of gansynth, one sentence each.

A plugin is a module named in the entry-point group ``gansynth``. It implements any of these hooks
with ``@hookimpl``. Each hook calls the ``register`` function that it receives.
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
"""Version of these hooks and of the classes they exchange; docs/plugins.md has the policy."""
OLDEST_API = 2
"""The oldest API version that plugins may be written for."""

hookspec = pluggy.HookspecMarker("gansynth")
hookimpl = pluggy.HookimplMarker("gansynth")


@hookspec
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register generators: call ``register(name, load)``; ``load()`` returns the class."""


@hookspec
def register_adapters(register: Callable[[str, Callable[[], type[Adapter]]], None]) -> None:
    """Register adapters of frameworks to augment: call ``register(target, load)``."""


@hookspec
def register_sources(
    register: Callable[[str, Callable[[], Callable[[SourceRequest], CaseSource]]], None],
) -> None:
    """Register ways to read cases: call ``register(kind, load)``; ``load()`` returns an opener."""


@hookspec
def register_edits(register: Callable[[str, Callable[[], type[Edit]]], None]) -> None:
    """Register edits of conditions: call ``register(name, load)``; ``load()`` returns the class."""


@hookspec
def register_checks(register: Callable[[str, Callable[[], Check]], None]) -> None:
    """Register checks of the data of a kind of source: call ``register(kind, load)``."""


@hookspec
def register_filters(register: Callable[[str, Callable[[], type[Filter]]], None]) -> None:
    """Register filters that reject samples before admission: call ``register(name, load)``."""


@hookspec
def register_metrics(register: Callable[[str, Callable[[], Metric]], None]) -> None:
    """Register metrics that compare samples with real cases: call ``register(name, load)``."""


@hookspec
def register_recipes(register: Callable[[str, Callable[[], Path]], None]) -> None:
    """Register settings of papers: call ``register(name, load)``; ``load()`` returns a file."""


# -- for implementations: nothing is imported before it is used -----------------------------------


def lazily(target: str) -> Callable[[], Any]:
    """Return a function that imports ``module:name`` when called."""
    module, _, name = target.partition(":")
    return lambda: getattr(import_module(module), name)


def offer_recipes(register: Callable[[str, Callable[[], Path]], None], folder: Path) -> None:
    """Register the YAML files of a folder by their names."""
    for path in sorted(folder.glob("*.yaml")):
        register(path.stem, partial(Path, path))
