"""Which cases a generator, a filter or a bank has seen, and the guard against leakage.

A held-out case that shares an id or a subject with a training case stops the command with exit 6.
So does one that shows an identical or near-identical image.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from math import isclose
from pathlib import Path
from typing import Any

from gansynth.core.fingerprint import COPIED, EARLIER, Prints, alike, same_looks, sharing
from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth.runtime.files import check_digest, read_json
from gansynth.runtime.serialise import Document

RECORDS = ("manifest.json", "bank.json")
"""Files of a run and of a bank that hold the lineage of their maker."""
MAX_RECORD_BYTES = 256 << 20  # size limit of such a file: some 250,000 cases
ROUNDED = 2e-4
"""Relative and absolute difference of numbers that count as equal: those that are learnt from cases
may differ in their last digits from machine to machine, and are recorded with four decimals."""


@dataclass(frozen=True)
class CaseRecord(Document, optional=("image", "prints", "as_stored")):
    """Lineage record of one case.

    Attributes:
        sha256: of all that its files hold.
        image: SHA-256 of its image alone; empty for constant images and in old records.
        prints: see ``gansynth.core.fingerprint``; empty as ``image``.
        as_stored: whether all three are of what the files hold, which is the same on every machine.
            Records of earlier versions are of the arrays that a generator is given.
    """

    id: str
    subject: str
    sha256: str
    image: str = ""
    prints: Prints = ()
    as_stored: bool = False

    @property
    def plain(self) -> CaseRecord:
        """Return the record without what tells its image."""
        return replace(self, image="", prints=(), as_stored=False)


@dataclass(frozen=True)
class Lineage(Document, optional=("ancestors",), strict=True):
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

    @property
    def as_stored(self) -> bool:
        """Whether the records of all cases, ancestors' included, are of what their files hold."""
        return all(case.as_stored for each in self.everyone() for case in each.cases)

    def joined(self, *others: Lineage) -> Lineage:
        """Return this lineage with others as ancestors, without duplicates."""
        present = {(each.dataset, each.fold, each.cases) for each in self.everyone()}
        added: list[Lineage] = []
        for each in [each for lineage in others for each in lineage.everyone()]:
            if (each.dataset, each.fold, each.cases) not in present:
                present.add((each.dataset, each.fold, each.cases))
                added.append(replace(each, ancestors=()))
        return replace(self, ancestors=(*self.ancestors, *added))

    def within(self, larger: Lineage) -> bool:
        """Whether another lineage, without its ancestors, holds all cases of this one."""
        same = (self.dataset, self.fold) == (larger.dataset, larger.fold)
        return same and {c.plain for c in self.cases} <= {c.plain for c in larger.cases}


def read_lineage(folder: Path) -> Lineage:
    """Read the lineage of a run's or bank's maker from ``manifest.json`` or ``bank.json``."""
    paths = [folder / name for name in RECORDS if (folder / name).is_file()]
    if not paths:
        raise DataFault(
            "lineage.neither-run-nor-bank",
            f"{folder}: holds neither {' nor '.join(RECORDS)}, expected a run or a bank",
        )
    path = paths[0]
    document = read_json(path, most=MAX_RECORD_BYTES)
    check_digest(path, document, "restore it from a copy")
    try:
        return Lineage.from_json(document["lineage"])
    except (KeyError, TypeError, AttributeError) as error:
        raise DataFault(
            "lineage.lineage-missing-or-invalid",
            f"{path}: key 'lineage' is missing or invalid, expected the cases its maker has seen",
        ) from error


def guard(
    maker_lineage: Lineage,
    held_out: Iterable[CaseRecord],
    *,
    kind: str = "generator",
    same: Callable[[Lineage], bool] | None = None,
    hint: str = "Fit a generator on this fold: gansynth fit ... --fold FOLD",
    one_subject: str = "--subjects FILE",
) -> None:
    """Refuse held-out cases among those seen (see ``matches``), ancestors included.

    Args:
        same: whether a maker has seen cases of the data set that these are of, by content; see
            ``same_data``. None if there is no data set to look at.
        one_subject: how cases are given one subject, which the same command would not.

    Raises:
        IntegrityFault: naming them.
    """
    held_out = tuple(held_out)
    for lineage in maker_lineage.everyone():
        own = None if same is None else same(lineage)
        leaked = matches(lineage, held_out, own)
        if leaked:
            if own and all(match.kind == "print" for match in leaked.values()):
                hint = (
                    f"If these show one patient, give them one subject ({one_subject}); if they "
                    "are copies, remove one side's. Then fit again, not before"
                )
            leaks = [f"{case} ({match})" for case, match in leaked.items()]
            maker = kind if lineage is maker_lineage else f"{kind}'s ancestor"
            raise IntegrityFault(
                "lineage.held-out-case-seen",
                f"leakage: the {maker} of {lineage.dataset or 'unknown data'} fold {lineage.fold} "
                f"has seen {len(leaks)} held-out case(s): {some_names(leaks)}; expected none. "
                f"{hint}; see: gansynth help faq",
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


def matches(
    maker: Lineage, cases: Iterable[CaseRecord], same: bool | None
) -> dict[str, LineageMatch]:
    """Return the cases that share an id, image or subject with a case seen, ancestors excluded.

    Contents, images and prints are always compared. Only pictures of one data set whose subjects
    are not named may look alike, as neighbouring slices do, but no more; see ``neighbours``.

    Args:
        same: whether the maker has seen cases of their data set. If not, ids and subjects mean
            nothing. None: not known; then everything is compared.

    Returns:
        Id -> first match of id, content, image, print and subject.
    """
    cases = tuple(cases)
    ids = {} if same is False else {c.id: c.id for c in maker.cases}
    subjects = {} if same is False else {c.subject: c.id for c in maker.cases}
    contents = {c.sha256: c.id for c in maker.cases}
    images = {c.image: c.id for c in maker.cases if c.image}
    sides = [c.prints for c in maker.cases], [c.prints for c in cases]
    volumes, pictures = same_looks(*sides, 3), same_looks(*sides, 2)
    copies = alike(*sides, (2,), COPIED) if same else {}
    matched: dict[str, LineageMatch] = {}
    for index, case in enumerate(cases):
        near = volumes.get(index)
        if near is None and index in pictures:
            seen = maker.cases[pictures[index]]
            named = case.subject != case.id or seen.subject != seen.id
            near = pictures[index] if named or not same else copies.get(index)
        ways = (
            ("id", ids.get(case.id)),
            ("content", contents.get(case.sha256)),
            ("image", images.get(case.image)),
            ("print", None if near is None else maker.cases[near].id),
            ("subject", subjects.get(case.subject)),
        )
        found = [LineageMatch(way, case_id) for way, case_id in ways if case_id is not None]
        if found:
            matched[case.id] = found[0]
    return matched


def neighbours(seen: Mapping[str, Prints], held_out: Mapping[str, Prints], *, named: bool) -> str:
    """Return in words which held-out pictures look like training ones; empty if there are none.

    Both map cases to prints, of one data set.

    Args:
        named: whether its subjects are; then ``guard`` refuses such pictures, else it cannot.
    """
    found = same_looks(list(seen.values()), list(held_out.values()), 2)
    if not found:
        return ""
    index, other = next(iter(found.items()))
    of, way_out = "training ones", "name the patients (--subjects)"
    if named:
        of, way_out = "training ones of other subjects", "give them one subject (--subjects)"
    way_out += ": gansynth check --write-subjects subjects.csv makes a table of such"
    return (
        f"{len(found)} held-out picture(s) are nearly identical to {of}, "
        f"{list(held_out)[index]} to {list(seen)[other]} first. If they show one patient, {way_out}"
    )


def claim(maker: Lineage) -> str:
    """Return in words what a passed ``guard`` has shown."""
    bare, earlier = set[str](), set[str]()
    for lineage in maker.everyone():
        name = lineage.dataset or "unknown data"
        if any(not case.image for case in lineage.cases):
            bare.add(name)
        elif any(text.startswith(EARLIER) for case in lineage.cases for text in case.prints):
            earlier.add(name)
    if bare:
        return (
            "none found: compared by ids, subjects and contents; images could not be compared with "
            f"all of {', '.join(sorted(bare))}, whose record has none of theirs"
        )
    if earlier:
        return (
            "none found: compared by ids, subjects, identical images and prints of whole images; "
            f"not by landmarks, as of turned, cut or equalised images: those of "
            f"{', '.join(sorted(earlier))} are an earlier version's. Fit it again to compare them"
        )
    if not maker.as_stored:
        return "none found: compared by ids, subjects and near-identical images"
    return "none found: compared by ids, subjects, identical and near-identical images"


COMPARED = 8
"""Most cases by which two data sets are compared."""


def same_data(maker: Lineage, ids: Iterable[str], read: Callable[[str], CaseRecord]) -> bool:
    """Whether a maker has seen cases of a data set, whatever both are called.

    Up to ``COMPARED`` cases whose id both have are compared: by content, image and prints.

    Args:
        ids: all cases of the data set.
        read: returns the record of one of them, which may take long.
    """
    known = set(ids)
    common = [case for case in maker.cases if case.id in known]
    return any(_alike(case, read(case.id)) for case in common[:: -(-len(common) // COMPARED) or 1])


def _alike(first: CaseRecord, second: CaseRecord) -> bool:
    identical = bool(first.image) and first.image == second.image
    return first.sha256 == second.sha256 or identical or look_alike(first.prints, second.prints)


def look_alike(first: Prints, second: Prints) -> bool:
    """Whether two images share landmarks, or look the same as a whole."""
    sides = [first], [second]
    return bool(alike(*sides) or sharing(*sides))


LOOKS_ALONE = (
    "the record of its cases is an earlier version's, whose hashes depend on the machine: where "
    "they differ, images are compared by their looks, and label maps are not. Fit again, and all is"
)


def same_content(recorded: CaseRecord, found: CaseRecord) -> bool:
    """Whether a case that was found holds what was recorded.

    Hashes of an earlier version's record depend on the machine; see ``as_stored``. Where they
    differ, the images must look the same.
    """
    if recorded.sha256 == found.sha256:
        return True
    return not recorded.as_stored and look_alike(recorded.prints, found.prints)


def other_records(recorded: Sequence[CaseRecord], found: Sequence[CaseRecord]) -> Iterator[str]:
    """Yield in words how recorded cases differ from those that are found in the data now."""
    known, there = {case.id: case for case in recorded}, {case.id: case for case in found}
    both = sorted(known.keys() & there.keys())
    ways = {
        "trained on, but not recorded": sorted(there.keys() - known.keys()),
        "recorded, but not trained on": sorted(known.keys() - there.keys()),
        "of other content": [c for c in both if not same_content(known[c], there[c])],
        "of another subject": [c for c in both if known[c].subject != there[c].subject],
        "of another image, or recorded without its prints": [
            c for c in both if not _same_image(known[c], there[c])
        ],
    }
    for way, cases in ways.items():
        if cases:
            yield f"{len(cases)} case(s) {way}: {some_names(cases)}"


def _same_image(first: CaseRecord, second: CaseRecord) -> bool:
    if bool(first.prints) != bool(second.prints):
        return False
    if first.image == second.image:
        return True
    return not first.as_stored and look_alike(first.prints, second.prints)


def same_training_cases(recorded: Lineage, found: Lineage) -> bool:
    """Whether two lineages, ancestors included, are of the same cases, read alike.

    Names of data sets may differ.
    """
    pairs = list(zip_longest(recorded.everyone(), found.everyone()))
    if any(one is None or other is None for one, other in pairs):
        return False
    return all(
        one.fold == other.fold
        and same_host(one.host, other.host)
        and not any(other_records(one.cases, other.cases))
        for one, other in pairs
    )


def guard_split(
    train: Sequence[tuple[str, str]], held_out: Sequence[tuple[str, str]], *, fold: str, repair: str
) -> None:
    """Refuse (IntegrityFault) a split, (id, subject) of both sides, that leaks by subject."""
    subjects = {subject: case for case, subject in train}
    leaks = [f"{c} and {subjects[s]} (subject {s})" for c, s in held_out if s in subjects]
    if leaks:
        raise IntegrityFault(
            "lineage.subject-in-training-and-validation",
            f"split: fold {fold} has {len(leaks)} validation case(s) whose subject is also in "
            f"training: {some_names(leaks)}; expected none. Repair it: {repair}",
        )


def guard_host(
    made_for: Mapping[str, Any], host: Mapping[str, Any], *, kind: str = "generator"
) -> None:
    """Refuse (IntegrityFault) a space other than the host's, whatever the data set's name."""
    differing = list(_differences(made_for, host))
    if differing:
        raise IntegrityFault(
            "lineage.space-of-other-host",
            f"space: the {kind} was made for other plans, configuration or reading of the data "
            f"({'; '.join(differing[:4])}); expected the host's. Fit one with the same --data, "
            "--plans and --configuration",
        )


def same_host(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two ``host`` records describe one space."""
    return not any(_differences(first, second))


def _differences(first: Mapping[str, Any], second: Mapping[str, Any]) -> Iterator[str]:
    """Yield in words where two ``host`` records differ, but for the data set's name."""
    # As JSON reads them: one of the two often comes from a file.
    plain, other = [json.loads(json.dumps(dict(record))) for record in (first, second)]
    for key in sorted((plain.keys() | other.keys()) - {"dataset"}):
        if not _same_value(plain.get(key), other.get(key)):
            yield f"{key}: {plain.get(key)!r} != {other.get(key)!r}"


def _same_value(first: Any, second: Any) -> bool:
    """Whether two JSON values are equal; fractions, which may be learnt from cases, nearly so."""
    if isinstance(first, dict) and isinstance(second, dict):
        same_keys = first.keys() == second.keys()
        return same_keys and all(_same_value(first[key], second[key]) for key in first)
    if isinstance(first, list) and isinstance(second, list):
        pairs = zip(first, second, strict=False)
        return len(first) == len(second) and all(_same_value(*pair) for pair in pairs)
    if first != second and isinstance(first, float | int) and isinstance(second, float | int):
        learnt = isinstance(first, float) or isinstance(second, float)
        return learnt and isclose(first, second, rel_tol=ROUNDED, abs_tol=ROUNDED)
    return bool(first == second)


def some_names(names: Sequence[str], most: int = 8) -> str:
    """Join the first of many names."""
    text = ", ".join(names[:most])
    return text if len(names) <= most else f"{text}, and {len(names) - most} more"
