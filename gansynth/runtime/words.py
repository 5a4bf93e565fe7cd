"""Values of Python as the texts that a user would type for them."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

Texts = str | Sequence[str]
"""One text, or several: what a repeatable option takes."""


def as_tuple(value: Texts | None) -> tuple[str, ...]:
    """Return the values of a repeatable option; a text alone is one of them."""
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def as_texts(values: Mapping[str, Any] | None) -> dict[str, str]:
    """Return settings as typed after ``--set``: ``yes``, ``none``, ``64,64``, ``0.5``."""
    return {key: _text(value) for key, value in (values or {}).items()}


def as_path(folder: str | os.PathLike[str] | None) -> str | None:
    """Return an absolute path, or None."""
    return None if folder is None else os.path.abspath(os.path.expanduser(folder))


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ",".join(map(_text, value))
    return "none" if value is None else str(value)
