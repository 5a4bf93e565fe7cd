"""2D GANs that draw from noise as gansynth generators: ``dcgan`` (DCGAN, WGAN and WGAN-GP)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``dcgan``."""
    register("dcgan", _load)


def _load() -> type[Generator]:
    from gansynth_dcgan.model import DCGAN

    return DCGAN
