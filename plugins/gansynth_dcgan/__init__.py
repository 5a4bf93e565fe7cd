"""``dcgan``: unconditional GANs (DCGAN, WGAN and WGAN-GP), and recipes of papers for it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl, lazily, offer_recipes

if TYPE_CHECKING:
    from gansynth.core.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``dcgan``."""
    register("dcgan", lazily("gansynth_dcgan.model:DCGAN"))


@hookimpl
def register_recipes(register: Callable[[str, Callable[[], Path]], None]) -> None:
    """Register ``han2018-dcgan`` and ``han2018-wgan``."""
    offer_recipes(register, Path(__file__).parent / "recipes")
