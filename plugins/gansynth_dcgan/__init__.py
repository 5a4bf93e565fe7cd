"""2D GANs that draw from noise: ``dcgan`` (DCGAN, WGAN and WGAN-GP), and papers' recipes for it."""

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
    """Register ``dcgan``."""
    register("dcgan", _load)


@hookimpl
def register_recipes(register: Callable[[str, Callable[[], Path]], None]) -> None:
    """Register ``han2018-dcgan`` and ``han2018-wgan``."""
    for path in sorted((Path(__file__).parent / "recipes").glob("*.yaml")):
        register(path.stem, partial(Path, path))


def _load() -> type[Generator]:
    from gansynth_dcgan.model import DCGAN

    return DCGAN
