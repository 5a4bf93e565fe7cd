"""Which cases a generator, a filter or a bank has seen, and the guard against leakage.

A held-out case that shares an id or a subject with a training case stops the command with exit 6.
So does one that shows an identical or near-identical image.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gansynth.core.fingerprint import Prints, alike, sharing
from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth.runtime.files import check_digest, read_json
from gansynth.runtime.serialise import Document

RECORDS = ("manifest.json", "bank.json")
"""Files of a run and of a bank that hold the lineage of their maker."""
MAX_RECORD_BYTES = 256 << 20  # size limit of such a file: some 250,000 cases


@dataclass(frozen=True)
class CaseRecord(Document, later=("image", "prints")):
    """Lineage record of one case.

    ``image``: SHA-256 of its image alone, ``prints``: see ``gansynth.core.fingerprint``; both empty
    for constant images and in old records.
    """

    id: str
    subject: str
    sha256: str
    image: str = ""
    prints: Prints = ()

    @property
    def plain(self) -> CaseRecord:
        """Return the record without what tells its image."""
        return replace(self, image="", prints=())


@dataclass(frozen=True)
class Lineage(Document, later=("ancestors",), whole=True):
    """The cases a run has seen.

    Attributes:
        dataset: the source's name, e.g. ``nnunet:Dataset004_Hippocampus``.
        fold: the fold whose *training* cases were used; ``"all"`` has no held-out cases.
        cases: every case seen, sorted by id.
        host: the source's space (plans, configuration, spacing ...) the cases were read in.
        ancestors: lineages of the runs it started from or took label maps from.
    """

    dataset: str
    fold: str
    cases: tuple[CaseRecord, ...]
    host: Mapping[str, Any] = field(default_factory=dict)
    ancestors: tuple[Lineage, ...] = ()

    def everyone(self) -> Iterator[Lineage]:
        """Yield this lineage, then all ancestors, recursively."""
        yield self
        for parent_run in self.ancestors:
            yield from parent_run.everyone()

    def joined(self, *others: Lineage) -> Lineage:
        """Return this lineage with others as ancestors, without duplicates."""
        present = {(each.dataset, each.fold, each.cases) for each in self.everyone()}
        added: list[Lineage] = []
        for added_lineage in (each for lineage in others for each in lineage.everyone()):
            if (added_lineage.dataset, added_lineage.fold, added_lineage.cases) not in present:
                present.add((added_lineage.dataset, added_lineage.fold, added_lineage.cases))
                added.append(replace(added_lineage, ancestors=()))
        return replace(self, ancestors=(*self.ancestors, *added))

    def within(self, larger: Lineage) -> bool:
        """Whether another lineage, without its ancestors, holds all cases of this one."""
        same = (self.dataset, self.fold) == (larger.dataset, larger.fold)
        return same and {c.plain for c in self.cases} <= {c.plain for c in larger.cases}


def read_lineage(folder: Path) -> Lineage:
    """Read the lineage of a run's or bank's maker from ``manifest.json`` or ``bank.json``."""
    path = next((p for name in RECORDS if (p := folder / name).is_file()), None)
    if path is None:
        raise DataFault(
            f"{folder}: holds neither {' nor '.join(RECORDS)}, expected a run or a bank"
        )
    document = read_json(path, most=MAX_RECORD_BYTES)
    check_digest(path, document, "restore it from a copy")
    try:
        return Lineage.from_json(document["lineage"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataFault(
            f"{path}: key 'lineage' is missing or invalid, expected the cases its maker has seen"
        ) from error


def guard(
    maker_lineage: Lineage,
    held_out: Iterable[CaseRecord],
    *,
    kind: str = "generator",
    dataset: str | None = None,
    hint: str = "Fit a generator on this fold: gansynth fit ... --fold FOLD",
) -> None:
    """Refuse held-out cases among those seen (see ``matches``), ancestors included.

    ``dataset``: of the held-out cases; that of ``maker_lineage`` if None. Raises IntegrityFault:
    naming them.
    """
    held_out = tuple(held_out)
    dataset_name = maker_lineage.dataset if dataset is None else dataset
    for lineage in maker_lineage.everyone():
        leaked = matches(lineage, held_out, dataset_name)
        if leaked:
            leaks = [f"{case} ({match})" for case, match in leaked.items()]
            maker = kind if lineage is maker_lineage else f"{kind}'s ancestor"
            raise IntegrityFault(
                f"leakage: the {maker} of {lineage.dataset or 'unknown data'} fold {lineage.fold} "
                f"has seen {len(leaks)} held-out case(s): {some_names(leaks)}; expected none. "
                f"{hint}; see: gansynth help faq"
            )


@dataclass(frozen=True)
class LineageMatch:
    """How a case matches one seen: ``id``, ``content``, ``image``, ``print``, ``subject``."""

    kind: str
    case_id: str

    def __str__(self) -> str:
        """Return the text for messages."""
        phrases = {"content": "same content as", "image": "identical image of"}
        phrases |= {"print": "near-identical image of", "subject": "same subject as"}
        return f"{phrases[self.kind]} {self.case_id}" if self.kind in phrases else "the case itself"


def matches(maker: Lineage, cases: Iterable[CaseRecord], dataset: str) -> dict[str, LineageMatch]:
    """Return the cases that share an id, image or subject with a case seen, ancestors excluded.

    Contents and images are compared across data sets. Ids and subjects are compared within one data
    set, however it was read, and with unnamed ones. There slices skip the fingerprint: neighbours
    within a subject look alike. Returns id -> first match of id, content, image, print and subject.
    """
    cases, same = tuple(cases), same_data(maker.dataset, dataset)
    ids = {c.id: c.id for c in maker.cases} if same else {}
    subjects = {c.subject: c.id for c in maker.cases} if same else {}
    contents = {c.sha256: c.id for c in maker.cases}
    images = {c.image: c.id for c in maker.cases if c.image}
    sides = [c.prints for c in maker.cases], [c.prints for c in cases]
    axes = (3,) if same else (2, 3)
    prints = {**sharing(*sides, axes), **alike(*sides, axes)}
    matched: dict[str, LineageMatch] = {}
    for index, case in enumerate(cases):
        ways = (
            ("id", ids.get(case.id)),
            ("content", contents.get(case.sha256)),
            ("image", images.get(case.image)),
            ("print", maker.cases[prints[index]].id if index in prints else None),
            ("subject", subjects.get(case.subject)),
        )
        match = next(
            (LineageMatch(way, case_id) for way, case_id in ways if case_id is not None), None
        )
        if match is not None:
            matched[case.id] = match
    return matched


def neighbours(seen: Mapping[str, Prints], held_out: Mapping[str, Prints]) -> str:
    """Return a warning of held-out pictures that look like training ones; empty if there are none.

    Both map cases to prints, of one data set without named subjects.
    """
    found = alike(list(seen.values()), list(held_out.values()), axes=(2,))
    if not found:
        return ""
    index, other = next(iter(found.items()))
    return (
        f"{len(found)} held-out picture(s) are nearly identical to training ones, "
        f"{list(held_out)[index]} to {list(seen)[other]} first. If they show one patient, "
        "name the patients: --subjects"
    )


def claim(maker: Lineage) -> str:
    """Return in words what a passed ``guard`` has shown."""
    bare = [
        lineage for lineage in maker.everyone() if any(not case.image for case in lineage.cases)
    ]
    if not bare:
        return "none found: compared by ids, subjects, identical and near-identical images"
    names = ", ".join(sorted({lineage.dataset or "unknown data" for lineage in bare}))
    return (
        "none found: compared by ids, subjects and contents; images could not be compared with all "
        f"of {names}, whose record has none of theirs"
    )


def same_data(first: str, second: str) -> bool:
    """Whether two names may denote one data set: equal but for kind, folder and number."""
    return not _core(first) or not _core(second) or _core(first) == _core(second)


def _core(name: str) -> str:
    """Reduce ``nnunet:Dataset004_Hippocampus`` to ``hippocampus``."""
    last = re.split(r"[:/\\]", name.rstrip("/\\"))[-1]
    return re.sub(r"^(dataset|task)\d+_", "", last.casefold())


def guard_split(
    train: Sequence[tuple[str, str]], held_out: Sequence[tuple[str, str]], *, fold: str, repair: str
) -> None:
    """Refuse (IntegrityFault) a split, (id, subject) of both sides, that leaks by subject."""
    subjects = {subject: case for case, subject in train}
    leaks = [f"{c} and {subjects[s]} (subject {s})" for c, s in held_out if s in subjects]
    if leaks:
        raise IntegrityFault(
            f"split: fold {fold} has {len(leaks)} validation case(s) whose subject is also in "
            f"training: {some_names(leaks)}; expected none. Repair it: {repair}"
        )


def guard_host(
    made_for: Mapping[str, Any], host: Mapping[str, Any], *, kind: str = "generator"
) -> None:
    """Refuse (IntegrityFault) a space other than the host's, whatever the data set's name."""
    made_for, host = plain_host(made_for), plain_host(host)
    keys = sorted(set(made_for) | set(host))
    differing = [
        f"{k}: {made_for.get(k)!r} != {host.get(k)!r}"
        for k in keys
        if made_for.get(k) != host.get(k)
    ]
    if differing:
        raise IntegrityFault(
            f"space: the {kind} was made for other plans, configuration or reading of the data "
            f"({'; '.join(differing[:4])}); expected the host's. Fit one with the same --data, "
            "--plans and --configuration"
        )


def same_host(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two ``host`` records describe one space."""
    return plain_host(first) == plain_host(second)


def plain_host(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record as JSON reads it, without the data set's name, which may change."""
    plain: dict[str, Any] = json.loads(json.dumps(dict(record)))
    plain.pop("dataset", None)
    return plain


def some_names(names: Sequence[str], most: int = 8) -> str:
    """Join the first of many names."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text}, and {len(names) - most} more"
