"""Requests and reports of a host's data set commands (methods of ``Adapter``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gansynth.core.source import SourceRequest

if TYPE_CHECKING:
    from gansynth.runtime.progress import Reporter


@dataclass(frozen=True)
class CommandReport:
    """A command's report, to read and as JSON; ``then``: arguments of the next command."""

    document: Mapping[str, Any]
    lines: Sequence[str] = ()
    then: Sequence[str] = ()


@dataclass(frozen=True)
class ImportRequest:
    """``gansynth import SOURCE HOST:WHERE``.

    ``where``: the text behind the host's name and the colon: its data set, or a folder. ``folds``:
    number of folds to write; None if not given. ``settings``: ``--set`` values of
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
        """The source, if its kind is registered; UsageFault if the text has no kind."""
        return SourceRequest.parse(self.source, **self.reading)


@dataclass(frozen=True)
class PrepareRequest:
    """``gansynth prepare HOST:WHERE``.

    ``configurations``: those of the host to preprocess; none for its usual ones. ``settings``:
    ``--set`` values, see ``Adapter.PrepareOptions``.
    """

    request: SourceRequest
    configurations: Sequence[str]
    settings: Mapping[str, str]
    processes: int
    force: bool
    reporter: Reporter


@dataclass(frozen=True)
class SplitsRequest:
    """``gansynth splits HOST:WHERE``. ``folds``: number of folds, at least 2."""

    request: SourceRequest
    folds: int
    seed: int
    overwrite: bool


@dataclass(frozen=True)
class DoctorRequest:
    """``gansynth doctor``, which checks every host.

    ``quick``: skip checks that take seconds. ``settings``: of any host; each ignores those of
    others.
    """

    root: str | None
    quick: bool
    settings: Mapping[str, str]
