"""``cpggan``: a progressive GAN that is told where lesions are to be, by bounding boxes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``cpggan``."""
    register("cpggan", _load)


def _load() -> type[Generator]:
    from gansynth_cpggan.model import CPGGAN

    return CPGGAN
