"""Identifiers of patients and sources: known names, and patterns such as paths.

A name is compared word by word. A word is a run of letters and digits: ``p1_left`` is found in
``p1-left_0000.nii.gz`` and in ``P1 left``, but not in ``p1_lefty``. A name must be specific: at
least three letters and digits with a letter among them (folders: five), or six digits. Shorter ones
(``1``, ``004``, ``p1``) count only as the whole value of a key with such a name: case,
subject, patient, person, participant or donor.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from itertools import pairwise
from typing import Any, NamedTuple

from gansynth.core.lineage import Lineage
from gansynth.core.registry import installed
from gansynth.core.schema import Schema

LEAST_LETTERS, LEAST_FOLDER, LEAST_DIGITS = 3, 5, 6
"""Fewest letters and digits of a name with a letter, of a folder, and of a name without letters."""
PERSONAL = frozenset({"case", "subject", "patient", "person", "participant", "donor"})
"""Words of a key whose whole value counts, however short."""
NEUTRAL = re.compile(r"(sample|synth|synthetic\d*)[-_]?\d*", re.IGNORECASE)
"""File names that exports choose themselves."""
COMMON = frozenset(
    """
    admin annotations archive axial background bank box boxes build case cases cfg channel
    channels class classes cohort content csv data database dataset datasets description
    download downloads export exported exports file files first fold folder foreground gansynth
    generator h5 hdf5 home host html https image images imagestr imagests index input jpeg jpg
    json label labels labelstr labelsts library lines list local localhost log machine main
    manifest mask masks md media mixed model models name names nifti nii npy npz nrrd
    original other output outputs overlay overlays patient patients phantom png preprocessed
    private project projects provenance public raw read real record region result results root
    run runner runs sample samples scan scans scratch seed seg segmentation server set sets
    share shared size slice slices source sources spacing split splits srv state storage study
    subject subjects synth synthetic target task temp test testing tests tif tiff tmp toy train
    training true tsv txt type ubuntu unit units user users usr val valid validation value
    values var version volume volumes window work workspace xml yaml yml
    """.split()  # noqa: SIM905  # a list of words
)
"""Words that exports contain anyway: alone they identify nobody."""

_WORD = re.compile(r"[^\W_]+")
_BETWEEN = re.compile(r"[-_. /\\]|\\\\|%20")
_FOLDER = r"[^\s/\\\"'<>|:;,*?()\[\]{}=]+"
_MARKS = (
    ("a path", re.compile(rf"(?<![\w.:/<#~\\-])/(?:{_FOLDER}/)+(?:{_FOLDER})?")),
    ("a path", re.compile(rf"(?<!\w)[A-Za-z]:[\\/]+(?:{_FOLDER}[\\/]*)+")),
    ("a path", re.compile(rf"(?<![\w\\])\\\\(?:{_FOLDER}\\+)+(?:{_FOLDER})?")),
    ("a path", re.compile(rf"(?<![\w/])(?:file://|~)/(?:{_FOLDER}/?)+")),
    ("a DICOM identifier", re.compile(r"(?<![\w.])[0-2](?:\.(?:0|[1-9]\d*)){6,}(?![\w.])")),
    (
        "a DICOM field",
        re.compile(
            r"(?<![^\W_])(?:Patient(?:Name|ID|BirthDate|Birth|Sex|Age|Weight|Size|Address)|"
            r"Patient'?s (?:Name|ID|Birth)|(?:Study|Series|SOP|Frame)[A-Za-z]*(?:UID|ID|Date|Time)|"
            r"Acquisition(?:Date|Time|DateTime)|Content(?:Date|Time)|AccessionNumber|"
            r"Institution(?:Name|Address|alDepartmentName)|ReferringPhysicianName|StationName|"
            r"OperatorsName|DeviceSerialNumber|ProtocolName)(?![^\W_])"
        ),
    ),
)
_OWN = re.compile(r"^/(?:dev|proc)/")


class Identifier(NamedTuple):
    """A name to search for, and its kind: ``case``, ``subject``, ``folder`` ..."""

    text: str
    what: str

    def __str__(self) -> str:
        return f"{self.what} {self.text!r}"


def words_of(text: str) -> tuple[str, ...]:
    """Return a text's runs of letters and digits in lower case."""
    return tuple(word.casefold() for word in _WORD.findall(text))


def leaks(words: tuple[str, ...]) -> bool:
    """Return whether a name of these words is specific in any context."""
    whole = "".join(words)
    return len(whole) >= (LEAST_DIGITS if whole.isdigit() else LEAST_LETTERS)


class Identifiers:
    """Names to search for in texts.

    Args:
        names: names to search for; of names that differ in spelling alone the first counts.
        harmless: texts that identify nobody, such as names of channels and labels.
    """

    def __init__(self, names: Iterable[Identifier], harmless: Collection[str] = ()) -> None:
        free = {words_of(text) for text in harmless}
        by_words: dict[tuple[str, ...], Identifier] = {}
        for name in names:
            words = words_of(name.text)
            if words and words not in free and not _says_nothing(words, name):
                by_words.setdefault(words, name)
        self._short = {words: name for words, name in by_words.items() if not leaks(words)}
        self._by_first: dict[str, list[tuple[tuple[str, ...], Identifier]]] = {}
        for words in sorted(by_words.keys() - self._short.keys(), key=lambda w: (-len(w), w)):
            self._by_first.setdefault(words[0], []).append((words, by_words[words]))

    def within(self, text: str) -> list[Identifier]:
        """Return the names in a text, each once, the longest where several begin at one place."""
        return list(dict.fromkeys(name for name, _, _ in self._found(text)))

    def valued(self, key: str, value: str) -> list[Identifier]:
        """Return the names in the value of a key; short ones too if the key is personal."""
        names = self.within(value)
        short = self._short.get(words_of(value))
        if not names and short is not None and not PERSONAL.isdisjoint(_split(key)):
            return [short]
        return names

    def blanked(self, value: Any) -> Any:
        """Replace every name and every path in a JSON-able value's texts by ``?``."""
        if isinstance(value, str):
            for _, begin, end in reversed(list(self._found(value))):
                value = f"{value[:begin]}?{value[end:]}"
            for kind, pattern in _MARKS:
                value = pattern.sub("?", value) if kind == "a path" else value
            return value
        if isinstance(value, Mapping):
            return {self.blanked(key): self.blanked(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [self.blanked(entry) for entry in value]
        return value

    def _found(self, text: str) -> Iterator[tuple[Identifier, int, int]]:
        """Yield the names in a text with begin and end, from left to right."""
        spans = [(m[0].casefold(), *m.span()) for m in _WORD.finditer(text)]
        done = 0
        for at, (word, begin, _) in enumerate(spans):
            if at < done:
                continue
            for words, name in self._by_first.get(word, ()):
                part = spans[at : at + len(words)]
                if tuple(p[0] for p in part) != words or not _together(text, part):
                    continue
                if not (len(words) == 1 and word.isdigit() and _of_a_number(text, part[0])):
                    yield name, begin, part[-1][2]
                    done = at + len(words)
                    break


def words_of_schema(schema: Schema) -> tuple[str, ...]:
    """Return the names of channels, labels and classes, which identify nobody."""
    return (*schema.channels, *schema.labels, *schema.classes, *schema.box_classes)


def names_in(lineage: Lineage, schema: Schema) -> Identifiers:
    """Return the names to remove from the texts of shared samples."""
    return Identifiers(names_of(lineage), words_of_schema(schema))


def names_of(lineage: Lineage) -> Iterator[Identifier]:
    """Yield the cases, subjects and data sets of a lineage and of its ancestors."""
    for parent_run in lineage.everyone():
        yield Identifier(
            parent_run.dataset.rpartition(":")[2].replace("\\", "/").rstrip("/").rpartition("/")[2],
            "data set",
        )
        for case in parent_run.cases:
            yield from names_of_case(case.id, case.subject)
            for digest in filter(None, (case.sha256, case.image, *case.prints)):
                yield Identifier(digest, "content hash of a case")


def names_of_case(case_id: str, subject: str) -> Iterator[Identifier]:
    """Yield the names of a case, of the volume that it is a slice of, and of its subject."""
    yield Identifier(case_id, "case")
    if "/" in case_id:  # a slice, which is named after its volume
        yield Identifier(case_id.split("/", 1)[0], "case")
    if subject != case_id:
        yield Identifier(subject, "subject")


def marks(text: str) -> list[str]:
    """Return identifying patterns in a text: paths, DICOM identifiers."""
    texts: dict[str, None] = {}
    for kind, pattern in _MARKS:
        for match in pattern.finditer(text):
            if not _OWN.match(match[0]):
                texts[f"{kind}, {match[0]!r:.120}"] = None
    return list(texts)


def _says_nothing(words: tuple[str, ...], name: Identifier) -> bool:
    """Return whether exports contain a name anyway; a case's or subject's id counts as a whole."""
    if NEUTRAL.fullmatch(name.text) is not None:
        return True
    if len(words) == 1 or name.what not in ("case", "subject"):
        short = name.what == "folder" and len("".join(words)) < LEAST_FOLDER
        return short or COMMON.union(installed().names("adapters")).issuperset(words)
    return False


def _split(key: str) -> set[str]:
    """Return the words of a key, with ``caseID`` and ``case_id`` alike and plurals as singulars."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)
    return {word.removesuffix("s") for word in words_of(apart)}


def _together(text: str, part: list[tuple[str, int, int]]) -> bool:
    return all(_BETWEEN.fullmatch(text[a[2] : b[1]]) for a, b in pairwise(part))


def _of_a_number(text: str, span: tuple[str, int, int]) -> bool:
    """Return whether digits are part of a decimal number such as 0.123456."""
    _, begin, end = span
    before, after = text[max(0, begin - 2) : begin], text[end : end + 2]
    return bool(re.fullmatch(r"\d\.", before) or re.fullmatch(r"\.\d", after))
