"""What a host's commands for data sets (methods of ``Adapter``) are told, and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gansynth.core.source import SourceRequest

if TYPE_CHECKING:
    from gansynth.runtime.progress import Reporter


@dataclass(frozen=True)
class Report:
    """What a command did, to read and as JSON; ``then``: words of the next command."""

    document: Mapping[str, Any]
    lines: Sequence[str] = ()
    then: Sequence[str] = ()


@dataclass(frozen=True)
class ImportRequest:
    """``gansynth import SOURCE HOST:WHERE``.

    ``where``: what follows the host's name and the colon: its data set, or a folder. ``folds``: how
    many to write; None if nobody said. ``settings``: ``--set`` values of
    ``Adapter.ImportOptions``.
    """

    source: str
    reading: Mapping[str, Any]
    where: str
    folds: int | None
    seed: int
    settings: Mapping[str, str]
    reporter: Reporter

    @property
    def request(self) -> SourceRequest:
        """The source, where its kind is registered; UsageFault: the text has no kind."""
        return SourceRequest.parse(self.source, **self.reading)


@dataclass(frozen=True)
class PrepareRequest:
    """``gansynth prepare HOST:WHERE``.

    ``configurations``: of the host, to preprocess; none for its usual ones. ``settings``: ``--set``
    values, see ``Adapter.PrepareOptions``.
    """

    request: SourceRequest
    configurations: Sequence[str]
    settings: Mapping[str, str]
    processes: int
    force: bool
    reporter: Reporter


@dataclass(frozen=True)
class SplitsRequest:
    """``gansynth splits HOST:WHERE``. ``folds``: how many, at least 2."""

    request: SourceRequest
    folds: int
    seed: int
    overwrite: bool


@dataclass(frozen=True)
class DoctorRequest:
    """``gansynth doctor``, which asks every host.

    ``quick``: leave out what takes seconds. ``settings``: any host's; those of others are passed
    over.
    """

    root: str | None
    quick: bool
    settings: Mapping[str, str]
