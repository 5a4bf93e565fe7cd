"""Every extension point of gansynth, one sentence each.

A plugin is a module named in the entry-point group ``gansynth``. It implements any of these hooks
with ``@hookimpl``. Each hook calls the ``register`` function that it receives.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pluggy

API_VERSION = 4
"""Version of these hooks and of the classes they exchange; docs/plugin_names.md has the policy."""
OLDEST_API = 4  # the oldest API version that plugins may be written for

hookspec = pluggy.HookspecMarker("gansynth")
hookimpl = pluggy.HookimplMarker("gansynth")


Register = Callable[[str, Callable[[], Any]], None]
"""``register(name, load)``: nothing is imported before ``load()`` is called."""
RegisterCommand = Callable[[str, str, Callable[[], Any]], None]
VERBS = ("import", "prepare", "splits", "doctor")
"""Commands for data sets of a host, and for what a host needs of the machine."""


@hookspec
def register_generators(register: Register) -> None:
    """Register generators; ``load()`` returns the subclass of ``Generator``."""


@hookspec
def register_hosts(register: Register) -> None:
    """Register hosts, the frameworks to train; ``load()`` returns the subclass of ``Framework``."""


@hookspec
def register_trials(register: Register) -> None:
    """Register what benchmarks ask of a host, by its name; ``load()`` returns ``Trials``' subclass.

    Optional: without it, a benchmark asks ``Trials`` or, of a ``CropHost``, ``CropTrials``.
    """


@hookspec
def register_commands(register: RegisterCommand) -> None:
    """Register commands of a host, ``register(verb, host, load)``; ``load()`` returns a function.

    It takes the request of the verb (one of ``VERBS``), and ``options`` if it has any: their
    annotation is a model of the keys of ``--set``. The requests: ``gansynth.core.requests.hosts``.
    """


@hookspec
def register_sources(register: Register) -> None:
    """Register ways to read cases; ``load()`` returns a function SourceRequest -> CaseSource."""


@hookspec
def register_readers(register: Register) -> None:
    """Register formats of volumes; ``load()`` returns the subclass of ``VolumeReader``."""


@hookspec
def register_edits(register: Register) -> None:
    """Register edits of conditions; ``load()`` returns the subclass of ``Edit``."""


@hookspec
def register_checks(register: Register) -> None:
    """Register checks of a source; ``load()`` returns (request, progress) -> CheckReport."""


@hookspec
def register_filters(register: Register) -> None:
    """Register filters that reject samples; ``load()`` returns the subclass of ``Filter``."""


@hookspec
def register_writers(register: Register) -> None:
    """Register formats of samples on disk; ``load()`` returns the subclass of ``Writer``."""


@hookspec
def register_metrics(register: Register) -> None:
    """Register metrics; ``load()`` returns the subclass of ``Metric``."""


@hookspec
def register_recipes(register: Register) -> None:
    """Register settings of papers; ``load()`` returns the path of a YAML file."""


@hookspec
def register_arms(register: Register) -> None:
    """Register arms for plans of benchmarks; ``load()`` returns the path of a YAML file."""


# -- for implementations: nothing is imported before it is used -----------------------------------


def lazily(target: str) -> Callable[[], Any]:
    """Return a function that imports ``module:name`` when called."""
    module, _, name = target.partition(":")
    return lambda: getattr(import_module(module), name)


def offer_files(register: Register, folder: Path) -> None:
    """Register the YAML files of a folder by their names."""
    for path in sorted(folder.glob("*.yaml")):
        register(path.stem, partial(Path, path))
