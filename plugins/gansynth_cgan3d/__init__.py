"""3D conditional GANs as gansynth generators: ``cgan3d``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``cgan3d``."""
    register("cgan3d", _load)


def _load() -> type[Generator]:
    from gansynth_cgan3d.model import CGAN3D

    return CGAN3D
