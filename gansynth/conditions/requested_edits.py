"""Edits as text: ``elastic``, ``shift:max_mm=12,classes=1+2``.

One text says all, so that a command line, a run, a bank and a producer process can hand it on.
"""

from __future__ import annotations

from collections.abc import Sequence

from gansynth.core.edit import Edit
from gansynth.core.registry import installed
from gansynth.runtime.option_text import read_options


def build_edits(texts: Sequence[str]) -> list[Edit]:
    """Edits as they are asked for, in order.

    Raises:
        UsageFault: an edit or option that is not there, or a value that does not fit.
    """
    return [build_edit(text) for text in texts]


def build_edit(text: str) -> Edit:
    """One edit: ``NAME`` or ``NAME:KEY=VALUE,...``; several values of a key as ``1+2``.

    Raises:
        UsageFault: see ``build_edits``.
    """
    name, colon, rest = text.partition(":")
    cls = installed().edit(name)
    return cls(read_options(cls.Options, rest, f"--edit {text}")) if colon else cls()
