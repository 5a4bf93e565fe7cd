"""What a source's fold holds out, for ``gansynth.core.identity``."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from gansynth.core.identity import HeldOut, few, recurring_ids
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.source import (
    CaseSource,
    SourceRequest,
    case_record,
    held_out_records,
    places_of,
    same_data_as,
)
from gansynth.data.folds import EACH, SubjectRule, is_table, read_column

TEST_IMAGES = frozenset({"imagests"})
"""Names of folders, in lower case, with the test images of a data set."""


def held_out_of(source: CaseSource, records: Sequence[CaseRecord] | None = None) -> HeldOut:
    """Return what a source's fold holds out.

    ``records``: of its held-out cases, where they are known; else these are read.
    """
    records = held_out_records(source) if records is None else records
    ids = (*source.train_ids, *source.held_out_ids)
    naming = source.request.subjects or ""
    person_of = _person_finder(naming, ids)
    return HeldOut(tuple(records), same_data_as(source, records), person_of, naming)


def named_by(
    naming: str, ids: Iterable[str], records: Iterable[CaseRecord]
) -> tuple[CaseRecord, ...]:
    """Return records with the people that a data set's rule names, where they name none.

    ``naming``: the rule, that is meant for ``ids``.
    """
    person_of = _person_finder(naming, ids)
    return tuple(
        [
            record
            if record.person
            else replace(record, subject=person_of(record.id) or record.subject)
            for record in records
        ]
    )


def _person_finder(naming: str, ids: Iterable[str]) -> Callable[[str], str]:
    """Return what finds people in ids of any source, by the rule that is meant for these ids.

    A rule like ``([0-9]+)`` finds something everywhere, so what is before a person's name must look
    as in these ids.
    """
    if naming in ("", EACH):
        return lambda case_id: ""
    if is_table(naming):
        if not Path(naming).is_file():  # of a record, on another machine
            return lambda case_id: ""
        table = read_column(Path(naming), "subject", "subject_group")
        return lambda case_id: table.get(case_id, "")
    rule = SubjectRule.parse(naming)
    usual = {rule.before(case_id) for case_id in ids}
    return lambda case_id: rule.subject_of(case_id) if rule.before(case_id) in usual else ""


def unnamed_people(source: CaseSource) -> str:
    """Return a warning if ids on both sides of a fold begin alike, or nobody is named, or ""."""
    naming = source.request.subjects
    if naming == EACH:
        return ""
    seen, held_out = [
        {case_id: CaseRecord(case_id, source.header(case_id).subject, "").person for case_id in ids}
        for ids in (source.train_ids, source.held_out_ids)
    ]
    found = recurring_ids(seen, held_out)
    if found is not None:
        rule = f"--subjects {found.rule}"
        return f"{source.name}: {found}. If they are one person's, name people: {rule}"
    seen |= held_out
    made = all(source.files(case_id) is None for case_id in seen)  # of no file, as toy cases
    if naming is not None or made or any(seen.values()):
        return ""
    return (
        "every case is a subject of its own; name people with --subjects, or say so: --subjects "
        f"{EACH}"
    )


def is_same_place(first: SourceRequest, second: SourceRequest) -> bool:
    """Whether two requests name one file, folder or data set, however it is typed."""
    if first.kind != second.kind:
        return False
    places = places_of(first)
    return first.where == second.where or (bool(places) and places == places_of(second))


def is_same_data(first: CaseSource, second: CaseSource) -> bool:
    """Whether two sources are of one data set: of one place, or alike in cases of equal ids."""
    if is_same_place(first.request, second.request):
        return True
    known = {*second.train_ids, *second.held_out_ids}
    common = [i for i in sorted({*first.train_ids, *first.held_out_ids}) if i in known]
    records = tuple([case_record(first, case_id) for case_id in few(common)])
    return same_data_as(second)(Lineage("", "", records))


def test_images_of(request: SourceRequest, own: CaseSource) -> str:
    """Return in words that images of a request are the test images of a data set, if they are."""
    for place in places_of(request):
        folder = place.parent
        name = own.name.rpartition(":")[2].rpartition("/")[2]
        if place.name.casefold() in TEST_IMAGES and (
            folder in places_of(own.request) or folder.name in (name, own.request.where)
        ):
            return (
                f"{place}: these are test images of {own.name} itself; what is evaluated on them "
                "later has seen them"
            )
    return ""
