"""Which cases a generator, a filter or a bank has seen, and the guard that keeps test cases unseen.

Everything here fails closed: a held-out case that shares an id, a subject or its very content with
a training case stops the command with exit 6, and the message names the cases.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from gansynth.errors import IntegrityFault


@dataclass(frozen=True)
class CaseRecord:
    """One case as lineage remembers it: its id, its subject, the SHA-256 of its arrays."""

    id: str
    subject: str
    sha256: str


@dataclass(frozen=True)
class Lineage:
    """What a run has seen.

    Attributes:
        dataset: the source's name, e.g. ``nnunet:Dataset004_Hippocampus``.
        fold: the fold whose *training* cases were used; ``"all"`` has no held-out cases.
        cases: every case seen, sorted by id.
        host: the source's space (plans, configuration, spacing ...) the cases were read in.
        ancestors: lineages of the runs it started from or had labels drawn by.
    """

    dataset: str
    fold: str
    cases: tuple[CaseRecord, ...]
    host: Mapping[str, Any] = field(default_factory=dict)
    ancestors: tuple[Lineage, ...] = ()

    def everyone(self) -> Iterator[Lineage]:
        """This lineage, then every ancestor's, however far back."""
        yield self
        for ancestor in self.ancestors:
            yield from ancestor.everyone()

    def joined(self, *others: Lineage) -> Lineage:
        """This lineage with others' as ancestors; what is in it already is not added again."""
        known = {(one.dataset, one.fold, one.cases) for one in self.everyone()}
        added: list[Lineage] = []
        for other in (one for lineage in others for one in lineage.everyone()):
            if (other.dataset, other.fold, other.cases) not in known:
                known.add((other.dataset, other.fold, other.cases))
                added.append(replace(other, ancestors=()))
        return replace(self, ancestors=(*self.ancestors, *added))

    def within(self, other: Lineage) -> bool:
        """Whether another lineage, without its ancestors, holds all cases of this one."""
        same = (self.dataset, self.fold) == (other.dataset, other.fold)
        return same and set(self.cases) <= set(other.cases)

    def to_json(self) -> dict[str, Any]:
        """A JSON document that ``from_json`` reads back."""
        doc = {
            "dataset": self.dataset,
            "fold": self.fold,
            "cases": [asdict(c) for c in self.cases],
            "host": dict(self.host),
        }
        if self.ancestors:
            doc["ancestors"] = [ancestor.to_json() for ancestor in self.ancestors]
        return doc

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Lineage:
        """Read what ``to_json`` wrote."""
        return cls(
            dataset=doc["dataset"],
            fold=str(doc["fold"]),
            cases=tuple(CaseRecord(**c) for c in doc["cases"]),
            host=dict(doc["host"]),
            ancestors=tuple(cls.from_json(a) for a in doc.get("ancestors", ())),
        )


def guard(
    seen: Lineage,
    held_out: Iterable[CaseRecord],
    *,
    what: str = "generator",
    dataset: str | None = None,
    way_out: str = "Fit a generator on this fold: gansynth fit ... --fold FOLD",
) -> None:
    """Refuse if anything seen is held out, by id, by subject, or by content; ancestors count too.

    Content is compared with everything. Ids and subjects mean something within one data set only:
    two data sets may each have a ``case_001``. So they are compared with what was seen of the
    held-out cases' own data set, however it was read (``msd:Task04_Hippocampus`` is
    ``nnunet:Dataset004_Hippocampus``), and of data sets without a name. A case of the same scan
    that was preprocessed in another way, in a data set of another name, is *not* noticed.

    Args:
        seen: the lineage of the generator or bank.
        held_out: validation and test cases of the host's fold.
        what: how to name the culprit in the message.
        dataset: the held-out cases' data set; that of ``seen`` if None.
        way_out: what the user may do.

    Raises:
        IntegrityFault: naming the cases (the first eight of each kind).
    """
    held_out = tuple(held_out)
    own = seen.dataset if dataset is None else dataset
    for lineage in seen.everyone():
        leaks = _leaks(lineage, held_out, same_data(lineage.dataset, own))
        if leaks:
            maker = what if lineage is seen else f"{what}'s ancestor"
            raise IntegrityFault(
                f"leakage: the {maker} of {lineage.dataset or 'unknown data'} fold {lineage.fold} "
                f"has seen {len(leaks)} held-out case(s): {_some(leaks)}; expected none. {way_out}"
            )


def _leaks(seen: Lineage, held_out: Iterable[CaseRecord], same: bool) -> list[str]:
    ids = {c.id for c in seen.cases} if same else set()
    subjects = {c.subject: c.id for c in seen.cases} if same else {}
    hashes = {c.sha256: c.id for c in seen.cases}
    leaks: list[str] = []
    for case in held_out:
        if case.id in ids:
            leaks.append(f"{case.id} (the case itself)")
        elif case.sha256 in hashes:
            leaks.append(f"{case.id} (same content as {hashes[case.sha256]})")
        elif case.subject in subjects:
            leaks.append(f"{case.id} (same subject as {subjects[case.subject]})")
    return leaks


def same_data(one: str, other: str) -> bool:
    """Whether two names may stand for one data set: equal but for kind, folder and number."""
    return not _core(one) or not _core(other) or _core(one) == _core(other)


def _core(name: str) -> str:
    """What is left of ``nnunet:Dataset004_Hippocampus``: ``hippocampus``."""
    last = re.split(r"[:/\\]", name.rstrip("/\\"))[-1]
    return re.sub(r"^(dataset|task)\d+_", "", last.casefold())


def guard_split(
    train: Sequence[tuple[str, str]], held_out: Sequence[tuple[str, str]], *, fold: str, repair: str
) -> None:
    """Refuse a host's split that leaks by subject.

    Args:
        train: (id, subject) of the fold's training cases.
        held_out: (id, subject) of its validation and test cases.
        fold: the fold's name, for the message.
        repair: the command that repairs the split.

    Raises:
        IntegrityFault: naming the pairs that share a subject.
    """
    subjects = {subject: case for case, subject in train}
    leaks = [f"{c} and {subjects[s]} (subject {s})" for c, s in held_out if s in subjects]
    if leaks:
        raise IntegrityFault(
            f"split: fold {fold} has {len(leaks)} validation case(s) whose subject is also in "
            f"training: {_some(leaks)}; expected none. Repair it: {repair}"
        )


def guard_host(
    seen: Mapping[str, Any], wanted: Mapping[str, Any], *, what: str = "generator"
) -> None:
    """Refuse if the generator's space is not the host's; what the data set is called is no matter.

    Args:
        seen: the ``host`` record of the generator's lineage.
        wanted: the ``host`` record of the adapter.
        what: how to name the culprit in the message.

    Raises:
        IntegrityFault: naming every key that differs with both values.
    """
    seen, wanted = plain_host(seen), plain_host(wanted)
    keys = sorted(set(seen) | set(wanted))
    differing = [
        f"{k}: {seen.get(k)!r} != {wanted.get(k)!r}" for k in keys if seen.get(k) != wanted.get(k)
    ]
    if differing:
        raise IntegrityFault(
            f"space: the {what} was made for other plans, configuration or reading of the data "
            f"({'; '.join(differing[:4])}); expected the host's. Fit one with the same --data, "
            "--plans and --configuration"
        )


def same_host(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two ``host`` records stand for one space."""
    return plain_host(one) == plain_host(other)


def plain_host(record: Mapping[str, Any]) -> dict[str, Any]:
    """A record as JSON gives it back (tuples become lists), so that only values are compared.

    Without the data set's name: a folder may be renamed, and two data sets may have one name.
    """
    plain: dict[str, Any] = json.loads(json.dumps(dict(record)))
    plain.pop("dataset", None)
    return plain


def _some(names: Sequence[str], most: int = 8) -> str:
    shown = ", ".join(names[:most])
    return shown if len(names) <= most else f"{shown}, and {len(names) - most} more"
