"""Faults of a data set, file by file: findings, and the check of a kind of source."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from gansynth.core.source import SourceRequest


@dataclass(frozen=True)
class Finding:
    """One finding; one with an ``error`` makes the data set unusable as it is."""

    level: Literal["error", "warning"]
    case: str | None
    file: Path
    message: str


@dataclass(frozen=True)
class CheckReport:
    """The findings of one pass, errors first; ``will_it_harm``: of samples beside the cases."""

    name: str
    cases: int
    findings: Sequence[Finding]
    will_it_harm: Mapping[str, Any] = field(default_factory=dict)


Check = Callable[["SourceRequest", Callable[[int, int], None]], CheckReport]
"""(request, progress(done, total)) -> all findings, in one pass over every file."""
