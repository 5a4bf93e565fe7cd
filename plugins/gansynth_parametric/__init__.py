"""``parametric``: lesions sampled from a model of contrast and grain, a rival of lesion GANs."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from gansynth.core.hookspecs import hookimpl, lazily

if TYPE_CHECKING:
    from gansynth.core.generator import Generator


@hookimpl
def register_generators(register: Callable[[str, Callable[[], type[Generator]]], None]) -> None:
    """Register ``parametric``."""
    register("parametric", lazily("gansynth_parametric.model:Parametric"))
