"""Filters as text: ``faithful``, ``faithful:quantile=0.1,steps=800``."""

from __future__ import annotations

from collections.abc import Sequence

from gansynth.core.filter import Filter
from gansynth.core.registry import installed
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import read_options


def build_filters(texts: Sequence[str]) -> list[Filter]:
    """Filters as they are asked for, in order; none of them is ready to judge yet.

    Args:
        texts: each ``NAME`` or ``NAME:KEY=VALUE,...``; several values of a key as ``1+2``.

    Raises:
        UsageFault: a filter or option that is not there, a value that does not fit, or a filter
            that is asked for twice.
    """
    built: list[Filter] = []
    for text in texts:
        name, colon, rest = text.partition(":")
        if any(name == one.name for one in built):
            raise UsageFault(f"--filter {text}: {name} is asked for twice, expected each once")
        cls = installed().filter(name)
        built.append(cls(read_options(cls.Options, rest, f"--filter {text}")) if colon else cls())
    return built
