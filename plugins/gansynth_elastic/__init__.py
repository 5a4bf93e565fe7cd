"""The control beside every GAN: real cases deformed, image and labels alike, ``elastic``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl

if TYPE_CHECKING:
    from gansynth.core.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``elastic``."""
    register("elastic", _load)


def _load() -> type[Generator]:
    from gansynth_elastic.model import Elastic

    return Elastic
