"""``copypaste``: real lesions pasted into real images, the baseline of every lesion GAN."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl, lazily

if TYPE_CHECKING:
    from gansynth.core.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``copypaste``."""
    register("copypaste", lazily("gansynth_copypaste.model:CopyPaste"))
