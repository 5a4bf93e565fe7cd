"""``gansynth.check``, and the request of a source in the words of the command line."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gansynth.core.findings import CheckReport
from gansynth.core.registry import installed
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.listing import stem
from gansynth.data.picture_files import SUFFIXES
from gansynth.data.read_options import refuse_idle_read
from gansynth.runtime.errors import GansynthError, UsageFault
from gansynth.runtime.progress import RichReporter, counting
from gansynth.runtime.words import as_path, as_texts


def check(
    data: str,
    *,
    subjects: str | None = None,
    read: Mapping[str, Any] | None = None,
    root: str | None = None,
    quiet: bool = False,
) -> CheckReport:
    """Find what is wrong with a data set, file by file: ``gansynth check``.

    Args:
        data: KIND:WHERE, or a folder or file whose kind is found.
        subjects: CSV (``case,subject``), or a regular expression with one group.
        read: how to read the cases; ``gansynth.options(KIND)`` has the keys.
        root: folder with the framework's own folders.
        quiet: show no progress.

    Returns:
        Name, number of cases, and findings, errors first. It raises nothing for what is found.

    Raises:
        GansynthError: the data set cannot be opened.
    """
    named = data if ":" in data else find_kind(data, root)
    request = source_request(named, subjects=subjects, read=read, root=root)
    with counting(RichReporter(quiet=quiet), "check") as progress:
        return installed().check(request.kind)(request, progress)


def find_kind(where: str, root: str | None = None) -> str:
    """Return KIND:WHERE of a folder or file that only one kind of source can open.

    Where none opens it, because of its faults, its files tell the kind.
    """
    opened: dict[str, CaseSource] = {}
    registry = installed()
    if not Path(where).exists():
        raise UsageFault(f"{where}: no such file or folder, expected one, or KIND:WHERE")
    for kind in registry.names("checks"):
        with suppress(GansynthError):
            opened[kind] = registry.load("sources", kind)(
                SourceRequest(kind, where, root=as_path(root))
            )
    kinds = list(opened)
    if len(kinds) > 1:  # those that find labels or boxes win over those that find images only
        kinds = [kind for kind in kinds if _annotated(opened[kind])] or kinds
    if not kinds and (likely := _kind_of_files(Path(where))):  # whose check says more
        return f"{likely}:{where}"
    if len(kinds) != 1:
        found = f"can be read as {' or '.join(kinds)}" if kinds else "no kind of source opens it"
        example = f"gansynth check {[*kinds, 'nifti'][0]}:{where}"
        raise UsageFault(f"{where}: {found}; name its kind, as in {example}")
    return f"{kinds[0]}:{where}"


def _annotated(source: CaseSource) -> bool:
    with suppress(GansynthError):
        return len(source.schema.labels) > 1 or bool(source.schema.box_classes)
    return True


def _kind_of_files(where: Path) -> str | None:
    for _, _, names in os.walk(where):
        if any(map(stem, names)):
            return "nifti"
        if any(Path(name).suffix.lower() in SUFFIXES for name in names):
            return "pictures"
    return None


def source_request(
    data: str | SourceRequest,
    *,
    read: Mapping[str, Any] | None = None,
    fold: int | str | None = None,
    root: str | None = None,
    synthetic_source: str | None = None,
    idle: bool = True,
    **words: str | None,
) -> SourceRequest:
    """Return the request of ``--data`` and the options beside it.

    Args:
        idle: whether keys of ``read`` without effect are refused.

    Raises:
        UsageFault: no KIND:WHERE, an unknown kind, or a key without effect.
    """
    if isinstance(data, SourceRequest):
        return data
    texts, place = as_texts(read), as_path(root)
    request = SourceRequest.parse(
        data,
        **words,
        fold="0" if fold is None else str(fold),
        root=place,
        synthetic=as_path(synthetic_source),
        read=texts,
    )
    if idle:
        refuse_idle_read(request, texts)
    return request
