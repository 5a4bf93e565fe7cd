"""The request of a source in the words of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from gansynth.core.registry import installed
from gansynth.core.requests.base import absolute, as_texts
from gansynth.core.requests.sections import CaseData
from gansynth.core.sample_request import read_other
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.volumes import volume_stem
from gansynth.data.listing import files_not_read, read_by
from gansynth.data.picture_files import SUFFIXES
from gansynth.data.read_options import refuse_idle_read
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault, describe_error
from gansynth.runtime.files import walk_all
from gansynth.runtime.nifti import DICOM, holds_dicom

MANIFESTS = (".csv", ".tsv", ".json")
"""Endings of lists of volumes."""


def find_kind(where: str, root: str | None = None) -> str:
    """Return KIND:WHERE as it is typed, or of a folder or file that only one kind can open.

    A folder that describes itself is of the kind that reads the description, whether that opens it
    or not. Where none opens it, because of its faults, its files tell the kind.
    """
    if ":" in where:
        return where
    opened: dict[str, CaseSource] = {}
    registry = installed()
    if not Path(where).exists():
        raise UsageFault(
            "source.path-missing", f"{where}: no such file or folder, expected one, or KIND:WHERE"
        )
    described = kinds_described(Path(where))
    if len(described) == 1:
        return f"{described[0]}:{where}"
    if described:
        raise _not_one(where, described)
    for kind in registry.names("checks"):
        with suppress(GansynthError):
            opened[kind] = registry.load("sources", kind)(
                SourceRequest(kind, where, root=absolute(root))
            )
    kinds = list(opened)
    if len(kinds) > 1:  # those that find labels or boxes win over those that find images only
        kinds = [kind for kind in kinds if _annotated(opened[kind])] or kinds
    if not kinds:
        likely = _kind_of_files(Path(where))  # whose check says more
        if likely:
            return f"{likely}:{where}"
    if len(kinds) != 1:
        raise _not_one(where, kinds)
    return f"{kinds[0]}:{where}"


def read_named(
    text: str | None, how: Mapping[str, str], option: str, root: str | None = None
) -> dict[str, Any] | None:
    """Return another source that an option names, as JSON of a ``SourceRequest``; None for none."""
    if text is None:
        return None
    with describe_error("--label-source", option):
        return read_other(find_kind(text, root), how)


def _not_one(where: str, kinds: Sequence[str]) -> GansynthError:
    path = Path(where)
    if not kinds and holds_dicom(path):
        return DataFault("source.dicom-folder", f"{where}: {DICOM}")
    unread = [] if kinds else list(files_not_read(path, sum(read_by().values(), ())))
    if unread:
        return DataFault(
            "source.files-unreadable", f"no kind of source opens it: {'; '.join(unread)}"
        )
    found = f"can be read as {' or '.join(kinds)}" if kinds else "no kind of source opens it"
    example = SourceRequest([*kinds, "nifti"][0], where).check()
    return UsageFault("source.kind-undecided", f"{where}: {found}; name its kind, as in {example}")


def kinds_described(where: Path) -> list[str]:
    """Return the kinds of source that a folder or file says it is of."""
    kinds = []
    for kind in installed().names("checks"):
        describes = getattr(installed().load("sources", kind), "describes", None)
        if describes is not None and describes(kind, where):
            kinds.append(kind)
    return kinds


def _annotated(source: CaseSource) -> bool:
    with suppress(GansynthError):
        return len(source.schema.labels) > 1 or bool(source.schema.box_classes)
    return True


def _kind_of_files(where: Path) -> str | None:
    if where.is_file() and where.suffix.lower() in MANIFESTS:
        return "nifti"
    for _, _, names in walk_all(where):
        if any(map(volume_stem, names)):
            return "nifti"
        if any(Path(name).suffix.lower() in SUFFIXES for name in names):
            return "pictures"
    return None


def source_of(words: CaseData, *, idle: bool = True) -> SourceRequest:
    """Return the request of ``--data`` and the options beside it; see ``source_request``."""
    return source_request(
        find_kind(words.data, words.root),
        configuration=words.configuration,
        plans=words.plans,
        fold=None if words.fold is None else str(words.fold),
        subjects=words.subjects,
        read=words.read,
        synthetic_source=words.synthetic_source,
        root=words.root,
        idle=idle,
    )


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
    """
    if isinstance(data, SourceRequest):
        return data
    texts, place = as_texts(read), absolute(root)
    request = SourceRequest.parse(
        data,
        **words,
        fold="0" if fold is None else str(fold),
        root=place,
        synthetic=absolute(synthetic_source),
        read=texts,
    )
    if idle:
        refuse_idle_read(request, texts)
    return request
