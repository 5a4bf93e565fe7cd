"""What a host's commands for data sets are told, and what they report.

``gansynth import``, ``prepare``, ``splits`` and ``doctor`` are methods of ``Adapter``; these are
their arguments. The command line checks ``settings`` for unknown keys, the host their values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gansynth.core.source import SourceRequest

if TYPE_CHECKING:
    from gansynth.runtime.progress import Reporter


@dataclass(frozen=True)
class Report:
    """What a command did.

    Attributes:
        document: for ``--json``.
        lines: the same to read; none shows the document, key by key.
        then: words of the command of gansynth to run next; none if there is no usual one.
    """

    document: Mapping[str, Any]
    lines: Sequence[str] = ()
    then: Sequence[str] = ()


@dataclass(frozen=True)
class ImportRequest:
    """``gansynth import SOURCE HOST:WHERE``.

    Attributes:
        source: as typed, ``KIND:WHERE``.
        reading: what was said of how to read it, attributes of a ``SourceRequest``: any of
            ``fold``, ``subjects``, ``read``, ``root``.
        where: what follows the host's name and the colon: its data set, or a folder.
        folds: how many to write; None if nobody said.
        seed: of every random choice.
        settings: ``--set`` values, see ``Adapter.ImportOptions``.
        reporter: shows progress.
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
        """The source, where its kind is a registered one.

        Raises:
            UsageFault: the text has no kind.
        """
        return SourceRequest.parse(self.source, **self.reading)


@dataclass(frozen=True)
class PrepareRequest:
    """``gansynth prepare HOST:WHERE``.

    Attributes:
        request: which data set, with ``plans``, ``subjects`` and ``root`` where they were said.
        configurations: of the host, to preprocess; none for its usual ones.
        settings: ``--set`` values, see ``Adapter.PrepareOptions``.
        processes: workers.
        force: do again what is done.
        reporter: shows progress.
    """

    request: SourceRequest
    configurations: Sequence[str]
    settings: Mapping[str, str]
    processes: int
    force: bool
    reporter: Reporter


@dataclass(frozen=True)
class SplitsRequest:
    """``gansynth splits HOST:WHERE``.

    Attributes:
        request: which data set, with ``subjects`` and ``root`` where they were said.
        folds: how many, at least 2.
        seed: deals out the subjects.
        overwrite: replace a different split.
    """

    request: SourceRequest
    folds: int
    seed: int
    overwrite: bool


@dataclass(frozen=True)
class DoctorRequest:
    """``gansynth doctor``, which asks every host.

    Attributes:
        root: folder of the host's folders, instead of its environment.
        quick: leave out what takes seconds.
        settings: of ``gansynth augment --set``, any host's; those of others are to be passed over.
    """

    root: str | None
    quick: bool
    settings: Mapping[str, str]
