"""What is looked for: the people and data sets of a lineage, the ways to them, this machine."""

from __future__ import annotations

import contextlib
import getpass
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from gansynth.lineage import Lineage
from gansynth.quality.traces.names import Name, Names
from gansynth.schema import Schema
from gansynth.sources.base import CaseSource, SourceRequest


def words_of_schema(schema: Schema) -> tuple[str, ...]:
    """Names of channels, labels and classes: they name nobody."""
    return (*schema.channels, *schema.labels, *schema.classes, *schema.box_classes)


def names_in(lineage: Lineage, schema: Schema) -> Names:
    """What samples of a lineage must not name, for texts that are handed on to be blanked."""
    names = (*people_of(lineage, None), *data_sets(lineage, None))
    return Names(names, words_of_schema(schema))


def people_of(lineage: Lineage, sources: CaseSource | None) -> Iterator[Name]:
    """Cases and subjects, those that are held out too."""
    for one in lineage.everyone():
        for case in one.cases:
            yield from _case(case.id, case.subject)
            for known in filter(None, (case.sha256, case.image, *case.prints)):
                yield Name(known, "content hash of a case")
    if sources is not None:
        for case_id in (*sources.train_ids, *sources.held_out_ids):
            yield from _case(case_id, sources.subject(case_id))


def _case(case_id: str, subject: str) -> Iterator[Name]:
    yield Name(case_id, "case")
    if "/" in case_id:  # a slice, which is called after its volume
        yield Name(case_id.split("/", 1)[0], "case")
    if subject != case_id:
        yield Name(subject, "subject")


def data_sets(lineage: Lineage, request: SourceRequest | None) -> Iterator[Name]:
    """Data sets, and the folders that lead to them."""
    for one in lineage.everyone():
        name = one.dataset.rpartition(":")[2].replace("\\", "/").rstrip("/").rpartition("/")[2]
        yield Name(name, "data set")
    if request is None:
        return
    for text in (request.where, request.root, request.subjects, *request.read.values()):
        if text and os.path.isabs(text.rpartition(":")[2]):
            yield from folder_names(Path(text.rpartition(":")[2]))


def this_machine() -> Iterator[Name]:
    """The user and the machine."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        yield Name(getpass.getuser(), "user")
    with contextlib.suppress(RuntimeError):
        yield Name(Path.home().name, "user")
    if node := platform.node():
        yield Name(node, "machine")


def folder_names(place: Path) -> Iterator[Name]:
    """Names of the folders on the way to a place, and of the place itself."""
    for part in Path(os.path.abspath(place)).parts[1:]:
        yield Name(part, "folder")
