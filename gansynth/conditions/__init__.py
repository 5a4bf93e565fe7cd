"""The room of conditions: what a generator is asked to draw. One edit a file.

This module is itself a plugin: it registers the edits that come with gansynth, exactly as a
stranger's plugin would.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.core.edit import Edit

BUILT_IN = {
    "identity": "Identity",
    "elastic": "Elastic",
    "flip": "Flip",
    "rotate": "Rotate",
    "scale": "Scale",
    "shift": "Shift",
    "enlarge": "Enlarge",
    "shrink": "Shrink",
    "components": "Components",
    "drop": "Drop",
    "clip": "Clip",
    "transplant": "Transplant",
    "interpolate": "Interpolate",
    "merge": "Merge",
    "place": "Place",
    "size": "Size",
}
"""Edit name -> class; the module has the edit's name."""


@hookimpl
def register_edits(register: Callable[[str, Callable[[], type[Edit]]], None]) -> None:
    """Register the edits of this folder."""
    for name, class_name in BUILT_IN.items():
        register(name, _loader(name, class_name))


def _loader(name: str, class_name: str) -> Callable[[], type[Edit]]:
    def load() -> type[Edit]:
        edit: type[Edit] = getattr(
            importlib.import_module(f"gansynth.conditions.edits.{name}"), class_name
        )
        return edit

    return load
