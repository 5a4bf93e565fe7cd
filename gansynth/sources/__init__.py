"""Reading labelled cases: the CaseSource contract, what every source shares, and our own kinds.

Sources are named ``kind:where`` (``nnunet:004``). A kind is registered by a plugin's
``register_sources`` hook; ``gansynth.registry`` opens it from a ``SourceRequest``. What finds the
faults of a kind is registered by ``register_checks``, under the same name. docs/sources.md has each
kind's layout and its ``--read`` keys.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gansynth.hookspecs import hookimpl
from gansynth.sources.base import CaseSource, SourceRequest

if TYPE_CHECKING:
    from gansynth.findings import Check

__all__ = ["BUILT_IN", "CaseSource", "SourceRequest"]

BUILT_IN = {
    "nifti": ("gansynth.sources.nifti:open_nifti", "gansynth.sources.nifti:check_nifti"),
    "msd": ("gansynth.sources.msd:open_msd", "gansynth.sources.msd:check_msd"),
    "h5": ("gansynth.sources.h5:open_h5", "gansynth.sources.h5:check_h5"),
    "slices": ("gansynth.sources.slices:open_slices", "gansynth.sources.slice_check:check_slices"),
    "pictures": (
        "gansynth.sources.pictures:open_pictures",
        "gansynth.sources.picture_check:check_pictures",
    ),
}
"""Kind -> what opens it, and what finds its faults; imported when it is asked for."""


@hookimpl
def register_sources(
    register: Callable[[str, Callable[[], Callable[[SourceRequest], CaseSource]]], None],
) -> None:
    """Register the kinds of this folder."""
    for kind, (opener, _) in BUILT_IN.items():
        register(kind, functools.partial(_load, opener))


@hookimpl
def register_checks(register: Callable[[str, Callable[[], Check]], None]) -> None:
    """Register what finds their faults."""
    for kind, (_, check) in BUILT_IN.items():
        register(kind, functools.partial(_load, check))


def _load(name: str) -> Any:
    module, _, function = name.partition(":")
    return getattr(importlib.import_module(module), function)
