"""Search every file of an export for names of patients or sources.

The search covers ids of cases and subjects, the source's files and folders, paths, the user and the
machine. It reads file names, texts, NIfTI headers and PNG metadata. Grids that gansynth drew are
reported, since they show real cases; other kinds of files as not read. An empty result does not
prove that nobody can be identified: images are not compared here. See docs/sharing.md.
"""

from __future__ import annotations

import contextlib
import csv
import getpass
import itertools
import json
import os
import platform
import re
import stat
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError
from PIL import Image

from gansynth.core.lineage import Lineage
from gansynth.core.run_folder import RunDescription, RunFolder
from gansynth.core.source import CaseSource, places_of
from gansynth.core.synthetic import MARK
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import reading
from gansynth.runtime.serialise import Document
from gansynth.sampling.deidentify import (
    Identifier,
    Identifiers,
    marks,
    names_of,
    names_of_case,
    words_of_schema,
)
from gansynth.sampling.manifest import PARTS

MOST_OF_A_KIND = 20  # findings listed of one kind; the others are counted
MOST_FOLDERS = 3
"""A file name in so many folders of the source, such as ``flair.nii.gz``, identifies no case."""
_IMAGE = re.compile(
    r"(.+?)(?:_\d{4})?\.(?:nii(?:\.gz)?|png|jpe?g|tiff?|h5|hdf5|np[yz]|b2nd|pkl|mh[ad]|nrrd|dcm|img)",
    re.IGNORECASE,
)
"""An image file; its name without extension and channel number."""
_GRID = re.compile(r"(?:preview|sheet|nearest|composite|step-\d+)\.png")
"""What gansynth names its grids. Those of earlier versions have no mark."""


@dataclass(frozen=True)
class AuditReport(Document, optional=("state_bits",)):
    """The findings in a folder."""

    folder: str
    files: int  # number of files, including links and files that were not read
    # one line each, naming the file, the position in it, and the finding. They quote what they
    # found: keep them where the patients' names may be.
    findings: tuple[str, ...]
    # most that the run's state can hold of a training case; None of a bank
    state_bits: float | None = None


def audit_export(
    folder: Path,
    lineage: Lineage,
    *,
    sources: CaseSource | None = None,
    harmless: Collection[str] = (),
) -> AuditReport:
    """Search every file of a folder that is to be shared.

    Args:
        lineage: of the samples; its ids, subjects and data sets are searched for.
        sources: the source; its held-out cases, files and folders are searched for, too.
        harmless: words that identify nobody, even as names of folders or users. Names of channels
            and labels of ``sources`` are added.
    """
    if not folder.is_dir():
        raise DataFault(
            "evaluate.shared-folder-missing", f"{folder}: no such folder, expected one to be shared"
        )
    paths = sorted(folder.rglob("*"))
    files = [path for path in paths if path.is_symlink() or not path.is_dir()]
    if not files:
        raise UsageFault(
            "evaluate.export-without-files",
            f"{folder}: holds no files, expected an export; name another folder",
        )
    names_sought = [*names_of(lineage), *_this_machine()]
    if sources is not None:
        names_sought += _names_of_source(sources, folder.resolve())
        harmless = (*harmless, *words_of_schema(sources.schema))
    names, findings = Identifiers(names_sought, harmless), list[AuditFinding]()
    for path in paths:
        inspect_file(path, FileInspection(str(path.relative_to(folder)), names, findings))
    return AuditReport(folder.resolve().name, len(files), tuple(_listed(findings)))


def audit_exported(
    folder: Path,
    *,
    run: Path | None = None,
    bank: Path | None = None,
    sources: CaseSource | None = None,
) -> AuditReport:
    """Search samples exported from a run or a sample bank, which provide lineage and source.

    Args:
        run: run folder; its source is opened unless ``sources`` is given.
        bank: folder of a bank. It does not know its source: ``sources`` adds its held-out cases,
            files and folders to the search.
        sources: the source, if it is open already.

    Raises:
        UsageFault: neither run nor bank, or both; or as ``audit_export``.
        GansynthError: what opening the source raises.
    """
    if (run is None) == (bank is None):
        raise UsageFault(
            "evaluate.not-one-of-run-bank",
            f"{folder}: expected either a run or a sample bank that it came from; name one of them",
        )
    from gansynth.bank.store import load_spec
    from gansynth.sampling.run_source import open_source

    if bank is not None:
        spec = load_spec(bank)
        words = (*words_of_schema(spec.schema), spec.run_id)
        return audit_export(folder, spec.lineage, sources=sources, harmless=words)
    assert run is not None
    drew = RunFolder(run)
    if sources is None:
        sources = open_source(drew.request)
    words = (*words_of_schema(drew.schema), str(drew.manifest["generator"]), drew.run_id)
    audit = audit_export(folder, drew.lineage, sources=sources, harmless=words)
    return replace(audit, state_bits=state_bits(drew))


def state_bits(run: RunDescription) -> float:
    """Return the bits of a run's packed ``state`` for each training case; not of its weights."""
    parts = [RunFolder(run.folder / PARTS / part["name"]) for part in run.manifest.get(PARTS, ())]
    states = [each.manifest.get("state") for each in (run, *parts)]
    packed = zlib.compress(json.dumps(states).encode(), 9)
    return 8 * len(packed) / max(1, len(run.lineage.cases))


def _names_of_source(source: CaseSource, export: Path) -> Iterator[Identifier]:
    """Names of all cases, including held-out ones, image files, and parent folders."""
    for case_id in (*source.train_ids, *source.held_out_ids):
        yield from names_of_case(case_id, source.header(case_id).subject)
    homes = defaultdict[str, set[Path]](set)
    places = _places(source)
    for place in places:
        for path in (place, *place.rglob("*")):
            image = _IMAGE.fullmatch(path.name)
            if image and export not in path.resolve().parents:  # the export may be in the source
                homes[image[1]].add(path.parent)
    for stem, at in homes.items():
        if len(at) < MOST_FOLDERS:
            yield Identifier(stem, "file")
    request = source.request
    texts = (request.where, request.root, request.subjects, *request.read.values())
    written = [text.rpartition(":")[2] for text in texts if text]
    for place in [*places] + [Path(text) for text in written if os.path.isabs(text)]:
        for part in Path(os.path.abspath(place)).parts[1:]:
            yield Identifier(part, "folder")


def _places(source: CaseSource) -> list[Path]:
    """The files and folders of a source's cases, as far as known."""
    places = set(places_of(source.request))
    for case_id in (*source.train_ids, *source.held_out_ids):
        files = source.files(case_id)
        places |= set() if files is None else set(files.folders)
    return sorted(places)


def _this_machine() -> Iterator[Identifier]:
    """The user and the machine."""
    with contextlib.suppress(OSError, KeyError, ImportError):
        yield Identifier(getpass.getuser(), "user")
    with contextlib.suppress(RuntimeError):
        yield Identifier(Path.home().name, "user")
    node = platform.node()
    if node:
        yield Identifier(node, "machine")


def _listed(findings: Iterable[AuditFinding]) -> Iterator[str]:
    """One line for each finding; of many that differ in names and numbers only the first."""
    kinds: dict[str, dict[str, str]] = {}
    for finding in findings:
        kind = re.sub(r"'[^']*'|\d+", "#", finding.text)
        kinds.setdefault(kind, {})[str(finding)] = finding.file
    for lines in kinds.values():
        yield from itertools.islice(lines, MOST_OF_A_KIND)
        omitted = len(lines) - MOST_OF_A_KIND
        if omitted > 0:
            files = len(set(lines.values()))
            yield f"{omitted} more findings like the last one, {files} file(s) in all"


# -- files -----------------------------------------------------------------------------------------

HEADER_TEXTS = ("descrip", "aux_file", "db_name", "intent_name", "data_type")
"""Free text fields of a NIfTI header."""
HEADER_NUMBERS = (
    "cal_min",
    "cal_max",
    "toffset",
    "slice_duration",
    "slice_start",
    "slice_end",
    "slice_code",
)
"""Fields that describe a scan: its range of intensities, its timing."""
PNG_PLAIN = frozenset({"interlace", "gamma", "srgb", "chromaticity", "transparency", "dpi"})
"""Pillow's keys of the pixel coding."""
DAMAGED = (
    OSError,
    EOFError,
    ValueError,
    LookupError,
    SyntaxError,
    RecursionError,
    csv.Error,
    zlib.error,
    struct.error,
    ImageFileError,
    HeaderDataError,
    Image.DecompressionBombError,
)
"""Errors that readers raise for files of another kind."""
_GZIP_HEAD = 512


class AuditFinding(NamedTuple):
    """One problem in a file."""

    file: str
    text: str

    def __str__(self) -> str:
        return " ".join(f"{self.file}: {self.text}".split())


@dataclass(frozen=True)
class FileInspection:
    """The search of one file: its path in the folder, the names, and the findings."""

    file: str
    names: Identifiers
    findings: list[AuditFinding]

    def odd(self, place: str, problem: str) -> None:
        """Record a problem, whoever it names."""
        self.findings.append(AuditFinding(self.file, f"{place}: {problem}"))

    def text(self, place: str, text: str, *, key: str = "", odd: str = "") -> None:
        """Search the value of a key; ``odd`` is the problem if any text is present."""
        problems = [odd] if odd else []
        found_marks, named = marks(text), self.names.valued(key, text)
        # The folders of a path that is quoted as a whole are not repeated.
        problems += [
            f"names {name}" for name in named if not (found_marks and name.what == "folder")
        ]
        problems += [f"holds {mark}" for mark in found_marks]
        if problems:
            self.odd(place, "; ".join(problems))


def inspect_file(path: Path, look: FileInspection) -> None:
    """Search the name of a file, folder or link, and the file itself; links are not followed."""
    look.text("name", path.name)
    mode = path.lstat().st_mode
    if stat.S_ISLNK(mode):
        target = os.readlink(path)
        look.text("link", target, odd=f"leads to {target!r}, expected a file: not read")
    elif stat.S_ISDIR(mode):
        with reading(path):
            os.listdir(path)
    else:
        ending = "".join(path.suffixes[-2:] if path.suffix.lower() == ".gz" else path.suffixes[-1:])
        kind, read = KINDS.get(ending.lower(), ("", None))
        if read is None or not stat.S_ISREG(mode):
            look.odd("not read", "gansynth exports no files of this kind; look at it, or remove it")
            return
        with reading(path), open(path, "rb"):
            pass
        try:
            read(path, look)
        except DAMAGED as error:
            look.odd("not read", f"damaged, or no {kind} file: {error!s:.200}")


# -- texts ----------------------------------------------------------------------------------------


def _read_text(path: Path, look: FileInspection) -> None:
    """Search a text line by line; a line ``key: value`` is treated as YAML."""
    for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
        look.text(f"line {number}", line)
        key, _, value = line.partition(":")
        for short in set(look.names.valued(key, value)) - set(look.names.within(line)):
            look.odd(f"line {number}", f"names {short}")


def _read_json(path: Path, look: FileInspection) -> None:
    _walk(json.loads(path.read_text("utf-8")), "", look)


def _walk(value: Any, place: str, look: FileInspection, key: str = "") -> None:
    """Search a JSON document; a list's entries are values of its key."""
    if isinstance(value, dict):
        for name, entry in value.items():
            where = f"{place}.{name}" if place else name
            look.text(f"key {where!r:.200}", name)
            _walk(entry, where, look, name)
    elif isinstance(value, list):
        for number, entry in enumerate(value):
            _walk(entry, f"{place}[{number}]", look, key)
    elif isinstance(value, str | int) and not isinstance(value, bool):
        look.text(f"value of {place!r:.200}", str(value), key=key)


def _read_table(path: Path, look: FileInspection) -> None:
    with open(path, encoding="utf-8", newline="") as stream:
        rows = list(csv.reader(stream))
    head = rows[0] if rows else []
    for number, row in enumerate(rows, 1):
        for column, cell in enumerate(row):
            key = head[column] if column < len(head) and number > 1 else ""
            look.text(f"line {number}, column {column + 1}", cell, key=key)


# -- images ---------------------------------------------------------------------------------------


def _read_nifti(path: Path, look: FileInspection) -> None:
    """Search the headers: samples have spacing and the mark, nothing else."""
    _look_at_gzip(path, look)
    image: Any = nib.load(path)
    header = image.header
    for name in HEADER_TEXTS:
        if name in header:
            text = header[name].item().rstrip(b"\0").decode("latin-1")
            if text.strip() and text != MARK:
                odd = f"holds {text!r}, expected none"
                look.text(f"NIfTI header, {name}", text, key=name, odd=odd)
    for name in HEADER_NUMBERS:
        value = float(header[name].item())
        if value:
            look.odd(f"NIfTI header, {name}", f"is {value:g}, expected 0")
    for extension in header.extensions:
        text = _as_text(extension.get_content())
        look.text("NIfTI header extension", text, odd=f"holds {text!r:.120}, expected none")
    for form in ("qform", "sform"):
        affine = getattr(header, f"get_{form}")(coded=True)[0]
        if affine is not None and _of_a_scan(affine):
            look.odd(
                f"NIfTI header, {form}", "is a scan's: an origin or turned axes, expected none"
            )


def _of_a_scan(affine: Any) -> bool:
    """Whether an affine (4, 4), voxel to mm, has an origin or rotated axes."""
    return bool(affine[:3, 3].any() or (np.count_nonzero(affine[:3, :3], axis=0) > 1).any())


def _look_at_gzip(path: Path, look: FileInspection) -> None:
    with open(path, "rb") as raw:
        head = raw.read(_GZIP_HEAD)
    if head[:2] == b"\x1f\x8b" and head[3:8] != bytes(5):
        text = head[10:].partition(b"\0")[0].decode("latin-1") if head[3] else ""
        look.text("gzip header", text, odd=f"has a time or a name, {text!r:.80}, expected neither")


def _read_png(path: Path, look: FileInspection) -> None:
    """Search texts and other metadata, including those after the pixels."""
    with Image.open(path, formats=("PNG",)) as picture:
        picture.load()
        unknown = {c[0].decode("latin-1"): c[1] for c in getattr(picture, "private_chunks", ())}
        metadata = dict(picture.info) | unknown
    for key, value in metadata.items():
        text = _as_text(value)
        if key not in PNG_PLAIN and text != MARK:
            odd = f"holds {text!r:.120}, expected none"
            look.text(f"PNG metadata {key!r}", text, key=str(key), odd=odd)
    if _GRID.fullmatch(path.name) and "Source" not in metadata:
        look.odd("name", "is that of gansynth's grids, which show and name real cases")


def _as_text(value: Any) -> str:
    return value.decode("latin-1") if isinstance(value, bytes) else str(value)


_NIFTI, _TEXT = ("NIfTI", _read_nifti), ("text", _read_text)
KINDS: dict[str, tuple[str, Callable[[Path, FileInspection], None]]] = {
    ".nii": _NIFTI,
    ".nii.gz": _NIFTI,
    ".png": ("PNG", _read_png),
    ".json": ("JSON", _read_json),
    ".csv": ("CSV", _read_table),
    ".txt": _TEXT,
    ".md": _TEXT,
    ".html": _TEXT,
    ".yaml": _TEXT,
    ".yml": _TEXT,
    ".cfg": _TEXT,
}
"""File extension -> kind of the file, and its reader."""
