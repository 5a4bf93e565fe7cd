"""What is wrong with a data set, file by file: findings, and how a kind of source makes them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from gansynth.core.source import SourceRequest


@dataclass(frozen=True)
class Finding:
    """One thing found; with an ``error`` the data set cannot be used as it is."""

    level: Literal["error", "warning"]
    case: str | None
    file: Path
    message: str


@dataclass(frozen=True)
class Checked:
    """All that was found in one pass. ``findings``: errors first."""

    name: str
    cases: int
    findings: Sequence[Finding]


Check = Callable[["SourceRequest", Callable[[int, int], None]], Checked]
"""(request, progress(done, total)) -> everything that is wrong, in one pass over every file."""
