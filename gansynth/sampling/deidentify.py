"""Samples for sharing: uniform file dates, no source cases, no images of patients.

Generators that declare to take real images are refused at once. Of all others every sample is
measured (``repeated_share``), and a few are searched for in the training cases. The source case of
a sample is recorded in the run's folder instead, and stays there. The limits are
described in docs/sharing.md.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from gansynth.core.capabilities import REAL
from gansynth.core.fingerprint import COPIED, Prints, alike, prints_of, sharing
from gansynth.core.lineage import Lineage
from gansynth.core.registry import installed
from gansynth.core.run_folder import RunDescription, RunFolder
from gansynth.core.schema import FloatArray, Sample, Schema
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.version import __version__

if TYPE_CHECKING:
    from gansynth.core.source import CaseSource
    from gansynth.core.space import Space
    from gansynth.runtime.progress import Reporter


# -- copies of real images: measured where a sample is drawn, searched for before sharing ----------
# Both compare blocks of voxels by the square of their correlation, so gain and shift do not matter.


REPEATED = "repeats_real"
"""Provenance key of ``repeated_share``, which samples for sharing need."""
EDGE, EDGE_2D = 6, 10  # edge of a block in voxels, and in pixels of slices
TEXTURED = 0.1
"""A block counts if its deviation is at least this share of the whole image's ..."""
FILLED = 0.1
"""... and at most this share of it has the image's most frequent value (air, padding)."""
EQUAL = 0.99  # squared correlation above which one block repeats another
SOUGHT, ORIENTATIONS = 7, 8  # blocks of a sample that are searched for, each in so many ways
EXACT = 0.999  # squared correlation from which a block is one of a real image, place for place
MOST_EXACT = 3
"""Most such blocks of a sample in one real image; chance has shown 1, docs/sharing.md."""
VALUES, SMOOTH = 16, 0.99
"""What few values or a curved surface describe is found anywhere: a block tells of an image by at
least so many values, of which a surface of second order explains at most this share."""


def repeated_share(image: FloatArray, real: Iterable[npt.NDArray[np.generic]]) -> float:
    """Return the share of a real image's textured blocks that a sample repeats at their places.

    0 to 1; the largest share of all real images and their channels.

    Args:
        image: the sample's, (C, D, H, W) or (C, H, W).
        real: images on the same grid, with or without an axis of channels.
    """
    edges, shares = _edges(image.shape[1:]), [0.0]
    drawn = _unit(np.stack([_blocks(channel, edges) for channel in image]))
    for channels in real:
        for channel in channels.reshape(-1, *image.shape[1:]):
            blocks = _blocks(channel, edges)
            textured = _textured(channel, blocks)
            equal = np.einsum("cnv,nv->cn", drawn, _unit(blocks)) ** 2 > EQUAL
            if textured.any():
                shares.append(float(equal.any(axis=0)[textured].mean()))
    return max(shares)


class CopySearch:
    """Searches at every place of real images for blocks of samples, in eight orientations."""

    def __init__(self) -> None:
        self._blocks: list[FloatArray] = []
        self._best: list[FloatArray] = []
        self._telling: list[npt.NDArray[np.bool_]] = []

    def add(self, image: FloatArray) -> None:
        """Take some textured blocks of a sample's image, (C, D, H, W) or (C, H, W)."""
        self.edges = _edges(image.shape[1:])
        found = []
        for channel in image:
            blocks = _blocks(channel, self.edges)
            found.append(blocks[_textured(channel, blocks)])
        every = np.concatenate(found)
        chosen = np.linspace(0, len(every) - 1, min(SOUGHT, len(every))).round().astype(int)
        self._telling.append(_telling(every[chosen], self.edges))
        turned = [_orientations(block.reshape(self.edges)) for block in _unit(every[chosen])]
        blocks = np.array(turned, np.float32).reshape(-1, every.shape[1])
        self._blocks.append(blocks)
        self._best.append(np.zeros(len(blocks), np.float32))

    def look_in(self, image: FloatArray) -> list[int]:
        """Compare with a real image, (C, D, H, W) or (C, H, W), each channel with each.

        Returns:
            For each sample how many of its blocks the image has, place for place.
        """
        for length, edge in zip(image.shape[1:], self.edges, strict=True):
            if length < edge:
                return [0] * len(self._blocks)  # no block has a place in it
        sought = np.concatenate(self._blocks).T
        best = np.zeros(sought.shape[1], np.float32)
        for channel in image:
            least = TEXTURED * float(channel.std())
            for slab in sliding_window_view(channel, self.edges):
                windows = slab.reshape(-1, sought.shape[0])
                windows = _unit(windows[windows.std(axis=1) > least])
                if len(windows):
                    found = windows @ sought
                    np.maximum(best, found.max(axis=0), out=best)
                    np.maximum(best, -found.min(axis=0), out=best)
        found_here = np.split(best, np.cumsum([len(part) for part in self._best])[:-1])
        self._best = [np.maximum(*both) for both in zip(self._best, found_here, strict=True)]
        exact = [_of_blocks(here) >= EXACT for here in found_here]
        return [int((e & t).sum()) for e, t in zip(exact, self._telling, strict=True)]

    def similarities(self) -> list[float]:
        """Return for each sample the median of its blocks' best squared correlations; 0 to 1."""
        each = [_of_blocks(best) for best in self._best]
        return [float(np.median(best)) if len(best) else 0.0 for best in each]


def _of_blocks(best: FloatArray) -> FloatArray:
    """Return the squared correlation of each block in the best of its orientations."""
    return np.asarray(best.reshape(-1, ORIENTATIONS).max(axis=1) ** 2)


def _orientations(block: FloatArray) -> list[FloatArray]:
    """Return eight: a cube mirrored along any axes, a slice also with its axes swapped."""
    turned = [block]
    for axis in range(block.ndim):
        flat = block.shape[axis] == 1
        turned += [np.swapaxes(b, -1, -2) if flat else np.flip(b, axis) for b in turned]
    if block.ndim == 2:
        turned += [b.T for b in turned]
    return turned


def _edges(shape: Sequence[int]) -> tuple[int, ...]:
    edge = EDGE_2D if len(shape) == 2 or min(shape) == 1 else EDGE
    return tuple(min(edge, length) for length in shape)


def _blocks(channel: npt.NDArray[np.generic], edges: Sequence[int]) -> FloatArray:
    """Cut (D, H, W) or (H, W) into blocks: float32 (blocks, voxels); the rest is left out."""
    every = [slice(None, None, edge) for edge in edges]
    windows = sliding_window_view(channel, edges)[*every]
    return windows.reshape(-1, int(np.prod(edges))).astype(np.float32)


def _textured(channel: npt.NDArray[np.generic], blocks: FloatArray) -> npt.NDArray[np.bool_]:
    some = channel.ravel()[:: max(1, channel.size // 50_000)]
    values, counts = np.unique(some, return_counts=True)
    filled = (blocks == values[counts.argmax()].astype(np.float32)).mean(axis=1) > FILLED
    return np.asarray((blocks.std(axis=1) > TEXTURED * float(channel.std())) & ~filled)


def _telling(blocks: FloatArray, edges: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Return which blocks (blocks, voxels) tell of an image; see ``VALUES``."""
    values = np.array([len(np.unique(block)) for block in blocks])
    axes = [(axis - axis.mean()).ravel() for axis in np.indices(edges, np.float64)]
    terms = [np.ones_like(axes[0]), *axes]
    for number, axis in enumerate(axes):
        terms += [axis * other for other in axes[number:]]
    surfaces, sizes, _ = np.linalg.svd(np.stack(terms, axis=1), full_matrices=False)
    surfaces = surfaces[:, sizes > 1e-9 * sizes[0]]  # an axis of one voxel has none
    explained = ((_unit(blocks) @ surfaces) ** 2).sum(axis=1)
    return np.asarray((values >= VALUES) & (explained <= SMOOTH), bool)


def _unit(blocks: FloatArray) -> FloatArray:
    """Shift and scale blocks (..., voxels) to mean 0 and length 1; constant ones become 0."""
    centred = blocks - blocks.mean(axis=-1, keepdims=True)
    lengths = np.linalg.norm(centred, axis=-1, keepdims=True)
    return np.asarray(centred / np.where(lengths > 0, lengths, np.inf), np.float32)


# -- identifiers of patients and sources: known names, and patterns such as paths ------------------
# A name is compared word by word. A word is a run of letters and digits: ``p1_left`` is found in
# ``p1-left_0000.nii.gz`` and in ``P1 left``, but not in ``p1_lefty``. A name must be specific: at
# least three letters and digits with a letter among them (folders: five), or six digits. Shorter
# ones (``1``, ``004``, ``p1``) count only as the whole value of a key with such a name: case,
# subject, patient, person, participant or donor.


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
        names = [name for name, _, _ in self._found(text)]
        return list(dict.fromkeys(names))

    def valued(self, key: str, value: str) -> list[Identifier]:
        """Return the names in the value of a key; short ones too if the key is personal."""
        names = self.within(value)
        short = self._short.get(words_of(value))
        if not names and short is not None and not PERSONAL.isdisjoint(_split(key)):
            return [short]
        return names

    def blanked(self, value: Any, *, paths: bool = True) -> Any:
        """Replace every name, and every path, in a JSON-able value's texts by ``?``."""
        if isinstance(value, str):
            for _, begin, end in reversed(list(self._found(value))):
                value = f"{value[:begin]}?{value[end:]}"
            for kind, pattern in _MARKS:
                value = pattern.sub("?", value) if paths and kind == "a path" else value
            return value
        blank = partial(self.blanked, paths=paths)
        if isinstance(value, Mapping):
            return {blank(key): blank(entry) for key, entry in value.items()}
        if isinstance(value, list | tuple):
            return [blank(entry) for entry in value]
        return value

    def _found(self, text: str) -> Iterator[tuple[Identifier, int, int]]:
        """Yield the names in a text with begin and end, from left to right."""
        places = list(_WORD.finditer(text))
        spelt = tuple([place[0].casefold() for place in places])
        done = 0
        for at, first in enumerate(places):
            if at < done:
                continue
            for words, name in self._by_first.get(spelt[at], ()):
                end = at + len(words)
                if spelt[at:end] != words or not _together(text, places[at:end]):
                    continue
                if len(words) == 1 and spelt[at].isdigit() and _of_a_number(text, first):
                    continue
                yield name, first.start(), places[end - 1].end()
                done = end
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
        where = parent_run.dataset.rpartition(":")[2].replace("\\", "/").rstrip("/")
        yield Identifier(where.rpartition("/")[2], "data set")
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
        return short or COMMON.union(installed().names("hosts")).issuperset(words)
    return False


def _split(key: str) -> set[str]:
    """Return the words of a key, with ``caseID`` and ``case_id`` alike and plurals as singulars."""
    snake_case = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", key)
    return {word.removesuffix("s") for word in words_of(snake_case)}


def _together(text: str, words: list[re.Match[str]]) -> bool:
    """Return whether one separator stands between each two words that follow in a text."""
    between = [text[word.end() : after.start()] for word, after in pairwise(words)]
    return all(map(_BETWEEN.fullmatch, between))


def _of_a_number(text: str, digits: re.Match[str]) -> bool:
    """Return whether digits are part of a decimal number such as 0.123456."""
    begin, end = digits.span()
    before, after = text[max(0, begin - 2) : begin], text[end : end + 2]
    return bool(re.fullmatch(r"\d\.", before) or re.fullmatch(r"\.\d", after))


# -- what is shared --------------------------------------------------------------------------------


MOST_REPEATED = 0.02
"""Largest share of a real image's textured blocks that a sample for sharing may repeat."""
SEARCHED = 64  # samples of a folder that are searched for in all training cases
ALIKE = 0.99
"""Similarity from which such a sample is reported: docs/sharing.md has what was measured."""


def check_new(out: Path) -> None:
    """Refuse a folder that is not empty."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageFault(
            "sampling.export-folder-exists",
            f"-o {out}: exists already, expected a new folder: an export is never added to; choose "
            "another, or remove it",
        )


@dataclass(eq=False)
class SharedSamples:
    """Watches the samples of a folder for sharing, and tells what its files may say of them.

    Args:
        out: the folder, for messages.
        source: the training cases, in the samples' space.
        space: the generator's own space, if known.
        lineage: whose names are removed from texts.
        maker: ``run`` and ``generator`` of the samples.
        record: the file that keeps their origins, outside of the folder.
        labels_given: whether label maps are training cases' own unless edited.
    """

    out: Path
    source: CaseSource
    space: Space | None
    lineage: Lineage
    maker: Mapping[str, Any]
    record: Path
    reporter: Reporter
    labels_given: bool = False

    def __post_init__(self) -> None:
        self.unedited = 0
        self.names = names_in(self.lineage, self.source.schema)
        self.search, self.searched = CopySearch(), list[str]()
        self.prints: list[Prints] = []  # of those searched for
        self.subjects: list[str | None] = []  # of their conditions

    def add(self, name: str, image: FloatArray, provenance: Mapping[str, Any]) -> dict[str, Any]:
        """Take a sample in the source's space; return the shareable part of its provenance.

        This has no case, no place, no edit's parameters.
        """
        share = provenance.get(REPEATED)
        if share is None:
            raise IntegrityFault(
                "sampling.no-repeated-share",
                f"{self.out}: {name} has no {REPEATED!r} in its provenance, which the producer of "
                "a frozen bank writes; expected it of every sample for sharing. "
                "Make the bank again",
            )
        if share > MOST_REPEATED:
            raise IntegrityFault(
                "sampling.sample-repeats-patient-image",
                f"{self.out}: {name} repeats {share:.0%} of the textured blocks of a patient's "
                f"image that its condition shows, expected at most {MOST_REPEATED:.0%}; nothing is "
                "written. Fit a generator that draws whole images, or keep its samples",
            )
        if len(self.searched) < SEARCHED:
            self.searched.append(name)
            self.search.add(image)
            case = str(provenance.get("case", ""))
            known = case in self.source.train_ids
            self.subjects.append(self.source.header(case).subject if known else None)
            # A host's volume of one slice has an axis more than the slices of its source.
            spacing = self.source.schema.spacing
            more = (1.0,) * (image.ndim - 1 - len(spacing))
            self.prints.append(prints_of(image, (*more, *spacing)))
        edits = [step["edit"] for step in provenance.get("edits", ())]
        if set(edits) <= {"identity"}:
            self.unedited += 1
        facts = {"sample": provenance.get("index"), "seed": provenance.get("seed")}
        facts.update(self.maker)
        facts["gansynth"] = __version__
        facts["edits"] = self.names.blanked(edits)
        for key in ("class", "reject_reason"):
            if provenance.get(key):
                facts[key] = self.names.blanked(provenance[key])
        return facts

    def _refuse_copies(self) -> None:
        seen = [case for lineage in self.lineage.everyone() for case in lineage.cases]
        sides = [case.prints for case in seen], self.prints
        landmarked, copies = sharing(*sides), alike(*sides, least=COPIED)
        shown: dict[int, int] = {}
        for sample, case in landmarked.items():
            if seen[case].subject == self.subjects[sample]:  # its condition may show as much
                shown[sample] = case
            else:
                copies.setdefault(sample, case)
        if shown and not copies:
            sample, case = next(iter(shown.items()))
            self.reporter.warn(
                f"{self.out}: {self.searched[sample]} has landmarks of training case "
                f"{seen[case].id}, whose label map it was drawn from, as {len(shown)} of "
                f"{len(self.searched)} samples searched for have: such a condition shows a "
                "patient's anatomy, as a context of clusters does (--set context=0). Look at them "
                "before they are shared"
            )
        how = "is training case {}, perhaps turned, flipped, noisy or in other grey values"
        self._refuse({sample: how.format(seen[case].id) for sample, case in copies.items()})

    def _refuse(self, copies: Mapping[int, str]) -> None:
        """Refuse samples, by number, for what is said of them, if there are any."""
        if copies:
            sample, says = next(iter(copies.items()))
            raise IntegrityFault(
                "sampling.samples-copy-training-cases",
                f"{self.out}: {self.searched[sample]} {says}; {len(copies)} of "
                f"{len(self.searched)} samples searched for are such copies, expected none. "
                "Nothing is written. The generator has learnt its training cases by heart: fit it "
                "on more of them, or for fewer steps",
            )

    def finish(self, samples: int) -> None:
        """Search for some of the samples in all training cases; warn of copies, and of own maps."""
        self._refuse_copies()
        parts: dict[int, str] = {}
        space, ids = self.space, self.source.train_ids if self.searched else ()
        with self.reporter.task(len(self.source.train_ids), "compare") as bar:
            for case_id in ids:
                case = self.source.load(case_id)
                image = case.image
                if space is not None and space.grid == "resample":  # there and back, as samples
                    own = Sample(space.to_generator(case).image)
                    image = space.to_host(own, image.shape[1:]).image
                for sample, blocks in enumerate(self.search.look_in(image)):
                    if blocks > MOST_EXACT:
                        how = f"repeats {blocks} of {SOUGHT} parts searched for of training case"
                        parts.setdefault(sample, f"{how} {case_id}, perhaps flipped or moved")
                bar.advance(1)
        self._refuse(parts)
        found = [
            f"{name} ({similarity:.3f})"
            for name, similarity in zip(self.searched, self.search.similarities(), strict=True)
            if similarity >= ALIKE
        ]
        if found:
            self.reporter.warn(
                f"{self.out}: {len(found)} of {len(self.searched)} samples searched for resemble "
                f"a place of a training case as copies do (from {ALIKE}): {', '.join(found[:3])}. "
                "Look at them before you share them, see: gansynth sample --nearest"
            )
        if self.labels_given and self.unedited:
            self.reporter.warn(
                f"{self.out}: {self.unedited} of {samples} label maps are training cases' own, "
                "not edited: they show a patient's anatomy. Draw with --edit, see: gansynth help "
                "sharing"
            )


def record_of(run: Path | None, out: Path) -> Path:
    """Return the file with the source cases of the samples in a folder, inside the run.

    Without a run (samples of a bank) it lies beside the folder.
    """
    digest = hashlib.sha256(os.path.abspath(out).encode()).hexdigest()[:8]
    name = f"{out.name}_{digest}.json"
    return out.with_name(f"gansynth_export_{name}") if run is None else run / "exports" / name


def real_parts(run: RunDescription) -> tuple[str, ...]:
    """Return what of real images a run's generator takes, by its manifest; sorted.

    In a chain, the given channels of one part are generated by another.
    """
    parts = [RunFolder(run.folder / "parts" / p["name"]) for p in run.manifest.get("parts", ())]
    takes = {each for part in parts for each in part.capabilities.takes} - {"channels"}
    return tuple(sorted(takes.union(run.capabilities.takes) & REAL))


def refuse_real_images(
    real: Collection[str] | None, maker: object, option: str, otherwise: str
) -> None:
    """Refuse to share samples with parts of real images in them.

    Args:
        real: ``real_parts`` of the generator; None if unknown.
        maker: its run, or the bank of its samples.
    """
    if real is None:
        does = "does not say whether its generator takes real images"
    elif "channels" in real:
        does = "is given channels of real cases, so its samples hold real images"
    elif real:
        does = "moves real cases" if set(real) == {"image"} else "puts lesions into real cases"
        does += ", so its samples hold real images"
    else:
        return
    raise UsageFault(
        "sampling.samples-hold-real-images",
        f"{option}: {maker} {does}; expected a generator that draws whole images. "
        f"{otherwise[0].upper()}{otherwise[1:]}",
    )
