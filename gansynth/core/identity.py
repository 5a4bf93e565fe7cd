"""Who is held out, and has he been seen: the one question of identity that every command asks.

One side is what a fold holds out (``HeldOut``). The other is a lineage: of a run, a bank, a filter,
or of a source that an option names. They are compared by people, as far as either side names them,
and always by contents, images and their looks. A held-out case that was seen stops the command with
exit 6 (``refuse_seen``). What ids alone suggest is said in a warning.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from gansynth.core.fingerprint import COPIED, EARLIER, Prints, alike, same_looks
from gansynth.core.lineage import CaseRecord, Lineage, look_alike, some_names
from gansynth.runtime.errors import IntegrityFault

T = TypeVar("T")
COMPARED = 8
"""Most cases by which two data sets are compared."""
FEWEST_PEOPLE, LARGEST_SHARE = 4, 1 / 3
"""Leading parts of ids may be people if there are so many, and none has more of all cases."""


@dataclass(frozen=True)
class HeldOut:
    """What a fold holds out, which nothing that a training learns from may have seen.

    Attributes:
        records: of its held-out cases; of slices, of their volumes, too.
        same: whether a lineage is of the fold's own data set, whatever that is called; see
            ``same_data``. None: not known; then ids and subjects always count.
        person_of: case id -> person, by the rule that names the people of the data set; empty if
            the rule is not meant for such an id. It finds people where another source names none.
        naming: that rule, as the user has typed it.
    """

    records: tuple[CaseRecord, ...]
    same: Callable[[Lineage], bool] | None = None
    person_of: Callable[[str], str] = field(default=lambda case_id: "")
    naming: str = ""


@dataclass(frozen=True)
class Door:
    """By what images come into a training; for messages.

    Attributes:
        name: e.g. ``generator`` or ``--unlabelled``.
        hint: the way out, if a held-out case was seen.
        naming: returns how its cases get subjects by a rule, as it is typed.
        own_naming: how the cases of the fold's own data set get theirs.
    """

    name: str = "generator"
    hint: str = "Fit a generator on this fold: gansynth fit ... --fold FOLD"
    naming: Callable[[str], str] = "gansynth fit ... --subjects '{}'".format
    own_naming: str = "--subjects FILE"


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


def matches(seen: Lineage, held_out: HeldOut) -> dict[str, LineageMatch]:
    """Return the held-out cases that are among those seen, ancestors excluded.

    Contents, images and prints are always compared. Subjects are in one data set, and between two
    as far as either side names people. Ids are in one data set. Only pictures of one data set whose
    subjects are not named may look alike, as neighbouring slices do, but no more.

    Returns:
        Id -> first match of id, content, image, print and subject.
    """
    return _compare(seen, held_out).matched


def refuse_seen(seen: Lineage, held_out: HeldOut, door: Door) -> Compared:
    """Refuse held-out cases among those seen (see ``matches``), ancestors included.

    Returns:
        What was compared, and warnings of what it could not decide.
    """
    found = [_compare(lineage, held_out) for lineage in seen.everyone()]
    for each in found:
        if each.matched:
            leaks = [f"{case} ({match})" for case, match in each.matched.items()]
            raise IntegrityFault(
                "lineage.held-out-case-seen",
                f"leakage: {_subject(each, seen, door)} {len(leaks)} held-out case(s): "
                f"{some_names(leaks)}; expected none. {_way_out(each, held_out, door)}; see: "
                "gansynth help faq",
            )
    warnings = [text for each in found for text in _warnings(each, held_out, door)]
    return Compared(tuple(found), tuple(warnings))


def refuse_cases(seen: Lineage, cases: Iterable[CaseRecord]) -> None:
    """Refuse held-out cases of the lineage's own data set among those seen; see ``refuse_seen``."""
    refuse_seen(seen, HeldOut(tuple(cases)), Door())


def _subject(found: _Comparison, seen: Lineage, door: Door) -> str:
    """Return who has seen the cases, with the verb."""
    if door.name.startswith("--"):
        return f"{door.name} {found.name} shows"
    maker = door.name if found.seen is seen else f"{door.name}'s ancestor"
    return f"the {maker} of {found.name} fold {found.seen.fold} has seen"


def _way_out(found: _Comparison, held_out: HeldOut, door: Door) -> str:
    kinds = {match.kind for match in found.matched.values()}
    if found.same and kinds == {"print"}:
        return (
            f"If these show one patient, give them one subject ({door.own_naming}); if they are "
            "copies, remove one side's. Then fit again, not before"
        )
    if found.same is False and kinds == {"subject"}:
        named = held_out.naming
        rule = named if named and not named.endswith(".csv") else "(.*)"
        prefixed = door.naming(f"other:{rule.partition(':')[2] or rule}")
        return (
            f"{door.hint}. If they are other people of the same number, give these a prefix: "
            f"{prefixed}"
        )
    return door.hint


# -- one lineage -----------------------------------------------------------------------------------


class _Comparison(NamedTuple):
    """A lineage that was compared with what is held out.

    ``people``: whether either side names any. ``close``: held-out case -> one seen, where pictures
    of one data set look alike without being refused.
    """

    seen: Lineage
    same: bool | None
    people: bool
    matched: dict[str, LineageMatch]
    close: dict[str, str]

    @property
    def name(self) -> str:
        return self.seen.dataset or "unknown data"


def _compare(seen: Lineage, held_out: HeldOut) -> _Comparison:
    same = None if held_out.same is None else held_out.same(seen)
    people = _People(seen, held_out)
    ids = {} if same is False else {c.id: c.id for c in seen.cases}
    contents = {c.sha256: c.id for c in seen.cases}
    images = {c.image: c.id for c in seen.cases if c.image}
    sides = [c.prints for c in seen.cases], [c.prints for c in held_out.records]
    volumes, pictures = same_looks(*sides, 3), same_looks(*sides, 2)
    copies = alike(*sides, (2,), COPIED) if same else {}
    matched: dict[str, LineageMatch] = {}
    close: dict[str, str] = {}
    for index, case in enumerate(held_out.records):
        near = volumes.get(index)
        if near is None and index in pictures:
            other = seen.cases[pictures[index]]
            if same and not (case.person or other.person):
                near = copies.get(index)
                close[case.id] = other.id
            else:
                near = pictures[index]
        ways = (
            ("id", ids.get(case.id)),
            ("content", contents.get(case.sha256)),
            ("image", images.get(case.image)),
            ("print", None if near is None else seen.cases[near].id),
            ("subject", people.same_as(case, one_numbering=same is not False)),
        )
        found = [LineageMatch(way, case_id) for way, case_id in ways if case_id is not None]
        if found:
            matched[case.id] = found[0]
    return _Comparison(seen, same, people.named, matched, close)


class _People:
    """The people of the cases seen: named by their own source, or else as the held-out ones are."""

    def __init__(self, seen: Lineage, held_out: HeldOut) -> None:
        self._known: dict[str, str] = {}
        self._subjects = {case.subject: case.id for case in seen.cases}
        for case in seen.cases:
            person = case.person or held_out.person_of(case.id)
            if person:
                self._known[person] = case.id
        self.named = bool(self._known) or any(case.person for case in held_out.records)

    def same_as(self, case: CaseRecord, *, one_numbering: bool) -> str | None:
        """Return a case of a held-out case's person.

        Where neither side names anybody, subjects are ids. They count in one data set.
        """
        if one_numbering or case.person:
            return self._known.get(case.subject) or self._subjects.get(case.subject)
        return self._known.get(case.subject)


# -- whether two data sets are one -----------------------------------------------------------------


def same_data(seen: Lineage, ids: Iterable[str], read: Callable[[str], CaseRecord]) -> bool:
    """Whether a lineage is of cases of a data set, whatever both are called.

    Up to ``COMPARED`` cases whose id both have are compared: by content, image and prints.

    Args:
        ids: all cases of the data set.
        read: returns the record of one of them, which may take long.
    """
    known = set(ids)
    common = [case for case in seen.cases if case.id in known]
    return any(_is_one(case, read(case.id)) for case in few(common))


def few(cases: Sequence[T]) -> Sequence[T]:
    """Return at most ``COMPARED`` of some cases, evenly spaced."""
    return cases[:: -(-len(cases) // COMPARED) or 1]


def _is_one(first: CaseRecord, second: CaseRecord) -> bool:
    identical = bool(first.image) and first.image == second.image
    return first.sha256 == second.sha256 or identical or look_alike(first.prints, second.prints)


# -- what was compared, and what it leaves open ----------------------------------------------------


@dataclass(frozen=True)
class Compared:
    """What passed comparisons have shown; its text says by what was compared, and by what not."""

    found: tuple[_Comparison, ...] = ()
    warnings: tuple[str, ...] = ()

    def joined(self, other: Compared) -> Compared:
        """Return both, as one."""
        warnings = dict.fromkeys((*self.warnings, *other.warnings))
        return Compared((*self.found, *other.found), tuple(warnings))

    def __str__(self) -> str:
        """Return in words that none was found, and how each was looked for."""
        bare, earlier, rounded = set[str](), set[str](), False
        for each in self.found:
            cases = each.seen.cases
            if any(not case.image for case in cases):
                bare.add(each.name)
            if any(text.startswith(EARLIER) for case in cases for text in case.prints):
                earlier.add(each.name)
            rounded = rounded or not all(case.as_stored for case in cases)
        ways, limits = list[str](), list[str]()
        if any(each.same is not False for each in self.found):
            ways.append("ids")
        elsewhere = {each.name for each in self.found if each.same is False}
        if ways and elsewhere:
            limits.append(f"ids say nothing of {_listed(elsewhere)}, another data set")
        nameless = {each.name for each in self.found if not each.people and each.seen.cases}
        if any(each.people for each in self.found):
            ways.append("subjects")
        if nameless:
            limits.append(f"not by subjects with {_listed(nameless)}, for none are named")
        if bare:
            ways.append("contents")
            limits.append(
                f"images could not be compared with all of {_listed(bare)}, whose record has none "
                "of theirs"
            )
        elif earlier:
            ways += ["identical images", "prints of whole images"]
            limits.append(
                "not by landmarks, as of turned, cut or equalised images: those of "
                f"{_listed(earlier)} are an earlier version's. Fit it again to compare them"
            )
        else:
            ways.append(
                "near-identical images" if rounded else "identical and near-identical images"
            )
        return "; ".join([f"none found: compared by {', '.join(ways)}", *limits])


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names))


def _warnings(found: _Comparison, held_out: HeldOut, door: Door) -> list[str]:
    """Return what a comparison could not decide, in words."""
    texts = []
    if found.close:
        texts.append(f"{found.name}: {_look_alike_text(found.close, named=False)}")
    people = {case.id: case.person for case in found.seen.cases}
    others = {case.id: case.person for case in held_out.records}
    recurring = recurring_ids(people, others)
    if recurring is not None:
        of, ways = found.name, [door.own_naming.replace("FILE", recurring.rule)]
        if found.same is False:
            of = f"{door.name} {of}"
            ways.append(door.naming(recurring.expression))
        way_out = " and ".join(ways)
        texts.append(f"{of}: {recurring}. If they are one person's, name people: {way_out}")
    return texts


def neighbours(seen: Mapping[str, Prints], held_out: Mapping[str, Prints], *, named: bool) -> str:
    """Return in words which held-out pictures look like training ones; empty if there are none.

    Both map cases to prints, of one data set.

    Args:
        named: whether its subjects are; then such pictures are refused, else they cannot be.
    """
    found = same_looks(list(seen.values()), list(held_out.values()), 2)
    known, others = list(seen), list(held_out)
    close = {others[index]: known[row] for index, row in found.items()}
    return _look_alike_text(close, named=named) if close else ""


def _look_alike_text(close: Mapping[str, str], *, named: bool) -> str:
    of, way_out = "training ones", "name the patients (--subjects)"
    if named:
        of, way_out = "training ones of other subjects", "give them one subject (--subjects)"
    way_out += "; gansynth check writes a table of such with --write-subjects subjects.csv"
    held_out, seen = next(iter(close.items()))
    return (
        f"{len(close)} held-out picture(s) are nearly identical to {of}, {held_out} to {seen} "
        f"first. If they show one patient, {way_out}"
    )


# -- people in ids that nobody has named -----------------------------------------------------------


@dataclass(frozen=True)
class RecurringIds:
    """Held-out ids that begin as ids of cases seen do, or are the same.

    Attributes:
        pairs: held-out case -> case seen.
        expression: finds the common beginning in each of their ids.
    """

    pairs: Mapping[str, str]
    expression: str

    def __str__(self) -> str:
        """Return in words which."""
        held_out, seen = next(iter(self.pairs.items()))
        one = held_out if held_out == seen else f"{held_out} and {seen}"
        return (
            f"{len(self.pairs)} held-out case(s) have ids that begin as those of cases seen: {one}"
        )

    @property
    def rule(self) -> str:
        """The expression, as a shell takes it."""
        return f"'{self.expression}'"


def recurring_ids(seen: Mapping[str, str], held_out: Mapping[str, str]) -> RecurringIds | None:
    """Return which held-out ids may be of a person whose other cases were seen; None if none may.

    An id's leading part, up to a sign between two words, may be a person if it is called so on the
    other side. If neither names people, parts of so many words may be if they are many and none is
    that of a class or a data set; see ``FEWEST_PEOPLE``.

    Args:
        seen: case -> person, empty if nobody is named.
        held_out: the same.
    """
    unnamed = [case for case, person in seen.items() if not person]
    others = [case for case, person in held_out.items() if not person]
    named = {person: case for case, person in seen.items() if person}
    others_named = {person: case for case, person in held_out.items() if person}
    called = {case: named[lead] for case in others for lead in _leads(case) if lead in named}
    called |= {
        others_named[lead]: case
        for case in unnamed
        for lead in _leads(case)
        if lead in others_named
    }
    if called:
        words = len(_ends(next(iter({**named, **others_named}))))
        return RecurringIds(called, _expression(words, [*called, *called.values()]))
    equal = {case: case for case in others if case in set(unnamed)}
    if equal:
        return RecurringIds(equal, "(.*)")
    every = dict.fromkeys((*unnamed, *others))
    for words in range(1, max((len(_ends(case)) for case in every), default=0)):
        leads = {case: _lead(case, words) for case in every}
        counts = Counter([lead for lead in leads.values() if lead])
        if len(counts) < FEWEST_PEOPLE or max(counts.values()) > LARGEST_SHARE * len(every):
            continue
        first_of = {leads[case]: case for case in reversed(unnamed) if leads[case]}
        pairs = {case: first_of[leads[case]] for case in others if leads[case] in first_of}
        if pairs:
            return RecurringIds(pairs, _expression(words, [*pairs, *pairs.values()]))
    return None


def _leads(case_id: str) -> list[str]:
    """Return an id's leading parts."""
    return [case_id[:end] for end in _ends(case_id)[:-1]]


def _ends(case_id: str) -> list[int]:
    return [word.end() for word in re.finditer(r"[^\W_]+", case_id)]


def _lead(case_id: str, words: int) -> str:
    """Return the first words of an id that has more of them, else an empty text."""
    ends = _ends(case_id)
    return case_id[: ends[words - 1]] if len(ends) > words else ""


def _expression(words: int, cases: Iterable[str]) -> str:
    """Return what finds the first words of ids."""
    signs: set[str] = {sign for case in cases for sign in re.findall(r"[\W_]", case)}
    if signs <= {"_"} or signs <= {"-"}:
        sign = min(signs)
        return "^(" + sign.join([f"[^{sign}]+"] * words) + f"){sign}"
    return "^(" + r"[\W_]+".join([r"[^\W_]+"] * words) + r")[\W_]"
