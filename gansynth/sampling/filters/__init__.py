"""Admission filters, which reject unsuitable samples. One filter per file.

This module is itself a plugin: it registers gansynth's own filters like any third-party plugin.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl, lazily

if TYPE_CHECKING:
    from gansynth.core.filter import Filter

BUILT_IN: dict[str, str] = {
    "contrast": "ContrastFilter",
    "faithful": "FaithfulFilter",
    "novel": "NovelFilter",
    "range": "RangeFilter",
}
"""Filter name -> class; the module has the filter's name."""


@hookimpl
def register_filters(register: Callable[[str, Callable[[], type[Filter]]], None]) -> None:
    """Register the filters of this folder."""
    for name, class_name in BUILT_IN.items():
        register(name, lazily(f"gansynth.sampling.filters.{name}:{class_name}"))
