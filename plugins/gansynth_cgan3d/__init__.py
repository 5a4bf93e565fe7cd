"""3D conditional GANs as gansynth generators: ``cgan3d``, and a recipe for it: ``lesion``."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.core.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``cgan3d``."""
    register("cgan3d", _load)


@hookimpl
def register_recipes(register: Callable[[str, Callable[[], Path]], None]) -> None:
    """Register ``lesion``: lesions in context."""
    for path in sorted((Path(__file__).parent / "recipes").glob("*.yaml")):
        register(path.stem, partial(Path, path))


def _load() -> type[Generator]:
    from gansynth_cgan3d.model import CGAN3D

    return CGAN3D
