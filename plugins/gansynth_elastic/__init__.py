"""``elastic``: real cases, image and labels deformed together, the control of every GAN."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl, lazily

if TYPE_CHECKING:
    from gansynth.core.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``elastic``."""
    register("elastic", lazily("gansynth_elastic.model:ElasticGenerator"))
