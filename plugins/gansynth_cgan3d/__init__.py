"""3D conditional GANs as gansynth generators: ``cgan3d``, and a recipe for it: ``lesion``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl, lazily, offer_recipes

if TYPE_CHECKING:
    from gansynth.core.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``cgan3d``."""
    register("cgan3d", lazily("gansynth_cgan3d.model:CGAN3D"))


@hookimpl
def register_recipes(register: Callable[[str, Callable[[], Path]], None]) -> None:
    """Register ``lesion`` (lesions in context) and the recipes of papers."""
    offer_recipes(register, Path(__file__).parent / "recipes")
