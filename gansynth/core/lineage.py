"""Which cases a generator, a filter or a bank has seen, and how records of them are compared.

Whether a held-out case is among them: see ``gansynth.core.identity``.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import zip_longest
from math import isclose
from pathlib import Path
from typing import Any

from gansynth.core.fingerprint import Prints, alike, sharing
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
class CaseRecord(Document, optional=("image", "prints", "as_stored", "site")):
    """Lineage record of one case.

    Attributes:
        sha256: of all that its files hold.
        image: SHA-256 of its image alone; empty for constant images and in old records.
        prints: see ``gansynth.core.fingerprint``; empty as ``image``.
        as_stored: whether all three are of what the files hold, which is the same on every machine.
            Records of earlier versions are of the arrays that a generator is given.
        site: where it comes from, if the fit was told (``--sites``).
    """

    id: str
    subject: str
    sha256: str
    image: str = ""
    prints: Prints = ()
    as_stored: bool = False
    site: str = ""

    @property
    def person(self) -> str:
        """The subject, if it names somebody: the id of a case, or of a slice's volume, does not."""
        return "" if self.subject in (self.id, self.id.split("/")[0]) else self.subject

    @property
    def plain(self) -> CaseRecord:
        """Return the record without what tells its image, and its site."""
        return replace(self, image="", prints=(), as_stored=False, site="")


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
    made_for: Mapping[str, Any],
    host: Mapping[str, Any],
    *,
    kind: str = "generator",
    cure: str = "Fit one on these data, read as they are here",
) -> None:
    """Refuse (IntegrityFault) a space other than the host's, whatever the data set's name.

    ``cure``: a command that makes one of the host's space, where it is known.
    """
    differing = list(_differences(made_for, host))
    if differing:
        raise IntegrityFault(
            "lineage.space-of-other-host",
            f"space: the {kind} was made for data read otherwise "
            f"({'; '.join(differing[:4])}); expected as here. {cure}",
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
            yield f"{key}: {_as_typed(plain.get(key))}, here {_as_typed(other.get(key))}"


def _as_typed(value: Any) -> str:
    """Return a value of a ``host`` record as it is typed."""
    if isinstance(value, dict):
        return ",".join([f"{key}:{entry}" for key, entry in value.items()])
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "not given" if value is None else str(value)


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
