"""Checkpoints that nnU-Net itself can use, where gansynth is not installed.

A checkpoint names its trainer class, which nnU-Net looks up before it predicts. So it carries the
name of the extended variant, whose network it has.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gansynth.runtime.files import disk_errors


def stock_name(trainer: type[Any], mixin: type[Any]) -> str:
    """Return the name of a trainer's first base that is not gansynth's and builds its network."""
    for base in trainer.__mro__:
        if not issubclass(base, mixin) and hasattr(base, "build_network_architecture"):
            same = base.build_network_architecture is trainer.build_network_architecture
            return base.__name__ if same else trainer.__name__
    return trainer.__name__


@contextlib.contextmanager
def called(trainer: type[Any], name: str) -> Iterator[None]:
    """Rename a class temporarily: nnU-Net writes the name into its checkpoint."""
    class_name = trainer.__name__
    trainer.__name__ = name
    try:
        yield
    finally:
        trainer.__name__ = class_name


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path; a file written there replaces ``path`` at the end."""
    temporary = path.with_name(f".{path.name}.tmp")  # overwrites what a killed process left
    with disk_errors(path):
        try:
            yield temporary
            if temporary.exists():
                os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
