"""``cpggan``: a progressive GAN conditioned on the bounding boxes of lesions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl, lazily, offer_recipes

if TYPE_CHECKING:
    from gansynth.core.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``cpggan``."""
    register("cpggan", lazily("gansynth_cpggan.model:CPGGAN"))


@hookimpl
def register_recipes(register: Callable[[str, Callable[[], Path]], None]) -> None:
    """Register ``han2019-cpggan``."""
    offer_recipes(register, Path(__file__).parent / "recipes")
