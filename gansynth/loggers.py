"""Loggers besides ``metrics.csv`` (placeholder until the real ones are written)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Loggers:
    """Nothing yet."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Log named values."""

    def picture(self, step: int, path: Path) -> None:
        """Log a picture."""


@contextmanager
def open_loggers(names: Sequence[str], folder: Path, config: Mapping[str, Any]) -> Iterator[Loggers]:
    """Open loggers by name."""
    yield Loggers()
