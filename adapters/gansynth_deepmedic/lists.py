"""Reads list files and csv tables: the cases of a configuration.

Line i of every list of a part is case i. DeepMedic silently cuts all lists to the shortest. Here
lists of unequal length are rejected.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.insertion import MISSING
from gansynth_deepmedic.keys import ConfigKeys, joined
from gansynth_deepmedic.literals import excerpt, read_text

MOST_BYTES = 16 << 20  # most bytes of a list or csv
_CHANNEL = "channel_"
_LABELS, _ROI, _PREDICTION = "ground_truth", "roi_mask", "prediction_filename"
_MARK = "\ufeff"


@dataclass(frozen=True)
class ListedCase:
    """One case of the list files (or the csv): absolute paths, not opened."""

    # file of each channel; None for a missing one (``-``)
    channels: tuple[Path | None, ...]
    # ground truth; None where the lists name none (validation by whole volumes)
    labels: Path | None
    roi: Path | None  # region of interest; None where there is none
    line: int  # number of the entry, from 1, for messages

    @property
    def files(self) -> tuple[Path, ...]:
        """All files of the case."""
        named = (*self.channels, self.labels, self.roi)
        return tuple(file for file in named if file is not None)


@dataclass(frozen=True)
class CaseLists:
    """The cases of training or of validation."""

    where: Path  # file that names the first channels
    channels: tuple[str, ...]  # names of the channels, from the files
    cases: tuple[ListedCase, ...]  # in the order of the lists, each once
    repeated: tuple[ListedCase, ...] = ()  # entries that repeat a case
    predictions: tuple[str, ...] = ()  # names of the cases' predictions; empty if there are none


def read_part(keys: ConfigKeys, part: str, table: str, names: str | None = None) -> CaseLists:
    """Read the cases of ``Training`` or ``Validation``."""
    if keys.has(table):
        return _once(_read_table(keys.file(table)), names=None)
    lists = keys.files(f"channels{part}", "a list of files, one for each channel, that list paths")
    each = [read_list(path) for path in lists]
    columns: list[tuple[Path, list[str]]] = list(zip(lists, each, strict=True))
    labels, roi = keys.file(f"gtLabels{part}"), None
    columns.append((labels, read_list(labels)))
    if keys.has(f"roiMasks{part}"):
        roi = keys.file(f"roiMasks{part}")
        columns.append((roi, read_list(roi)))
    called: tuple[str, ...] | None = None
    if names is not None and keys.has(names):
        path = keys.file(names)
        columns.append((path, read_list(path)))
        called = tuple(columns[-1][1])
    _equally_long(columns)
    if not each[0]:
        raise DataFault(f"{lists[0]}: lists no case, expected a path on each line; add some")
    cases = [
        _listed(columns[: len(lists) + 1 + (roi is not None)], len(lists), number)
        for number in range(len(each[0]))
    ]
    return _once(CaseLists(lists[0], told_apart(lists), tuple(cases)), called)


def read_list(path: Path) -> list[str]:
    """Return the entries of a list file: paths, or ``-`` for a missing channel."""
    text = read_text(path, MOST_BYTES)
    if text.startswith(_MARK):
        raise DataFault(
            f"{path}: begins with a byte order mark, which DeepMedic reads as part of the first "
            "path; save it as UTF-8 without"
        )
    entries = []
    for number, line in enumerate(text.split("\n"), start=1):
        entry = line.strip()
        if not entry or line.startswith("#"):
            continue
        if not entry.isprintable():
            raise DataFault(
                f"{path}: line {number}: {excerpt(entry)!a} holds unprintable characters, expected "
                "a path; correct the line"
            )
        entries.append(entry)
    return entries


def _equally_long(columns: Sequence[tuple[Path, list[str]]]) -> None:
    first, entries = columns[0]
    for path, others in columns[1:]:
        if len(others) != len(entries):
            raise DataFault(
                f"{path}: lists {len(others)} case(s), but {first} lists {len(entries)}; expected "
                "as many, because line i is case i (DeepMedic silently cuts the longer list). "
                "Complete it"
            )


def _listed(columns: Sequence[tuple[Path, list[str]]], channels: int, number: int) -> ListedCase:
    files: list[Path | None] = []
    for index, (path, entries) in enumerate(columns):
        if entries[number] != MISSING:
            files.append(joined(path.parent, entries[number]))
            continue
        if index == 0 or index >= channels:
            role = "first channel" if index == 0 else "label map or region of interest"
            raise DataFault(
                f"{path}: entry {number + 1} is '-', a missing {role}, which DeepMedic needs, "
                "expected a path; add the file, or remove the case from every list"
            )
        files.append(None)
    others = files[channels:]
    roi = others[1] if len(others) > 1 else None
    return ListedCase(tuple(files[:channels]), others[0], roi, number + 1)


def _once(part: CaseLists, names: Sequence[str] | None) -> CaseLists:
    """Remove repeated cases together with their names of predictions."""
    names = part.predictions if names is None else names
    keys: set[tuple[object, ...]] = set()
    cases: list[ListedCase] = []
    repeated: list[ListedCase] = []
    called: list[str] = []
    for index, case in enumerate(part.cases):
        key = (case.channels, case.labels, case.roi)
        if key in keys:
            repeated.append(case)
            continue
        keys.add(key)
        cases.append(case)
        called += names[index : index + 1]
    return CaseLists(part.where, part.channels, tuple(cases), tuple(repeated), tuple(called))


def _read_table(path: Path) -> CaseLists:
    header, rows = _table(path)
    channels = sorted(name for name in header if name.startswith(_CHANNEL))
    for lacking in ([] if channels else [_CHANNEL + "NAME"]) + [_LABELS][_LABELS in header :]:
        raise DataFault(
            f"{path}: columns are {header}, expected one called {lacking}; add it, or rename one"
        )
    cases = []
    columns = [*channels, _LABELS, *([_ROI] if _ROI in header else [])]
    for number, (line, row) in enumerate(rows, start=1):
        cell = dict(zip(header, row, strict=True))
        for name in columns:
            if cell[name] in ("", MISSING) or not cell[name].isprintable():
                raise DataFault(
                    f"{path}: line {line}: {name} is {excerpt(cell[name])!a}, expected a path (a "
                    "table cannot leave a channel out); complete it, or use list files"
                )
        files = [joined(path.parent, cell[name]) for name in columns]
        roi = files[-1] if _ROI in header else None
        cases.append(ListedCase(tuple(files[: len(channels)]), files[len(channels)], roi, number))
    if not cases:
        raise DataFault(f"{path}: has no rows, expected one for each case; add some")
    column = header.index(_PREDICTION) if _PREDICTION in header else None
    called = () if column is None else tuple(row[column] for _, row in rows)
    names = tuple(name.removeprefix(_CHANNEL) for name in channels)
    return CaseLists(path, names, tuple(cases), predictions=called)


def _table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """Return the header, and (line, cells) of each row."""
    text = read_text(path, MOST_BYTES).removeprefix(_MARK)
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True)
    try:
        rows = [(reader.line_num, row) for row in reader if row]
    except csv.Error as error:
        raise DataFault(
            f"{path}: line {reader.line_num}: not readable as CSV: {error}; save it again"
        ) from None
    header = rows[0][1] if rows else []
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataFault(
            f"{path}: column {excerpt(twice[0])!a} occurs twice, expected once; rename one"
        )
    for line, row in rows[1:]:
        if len(row) != len(header):
            raise DataFault(
                f"{path}: line {line}: {len(row)} cell(s), expected {len(header)} as in its header;"
                " correct the line"
            )
    return header, rows[1:]


def told_apart(paths: Sequence[Path]) -> tuple[str, ...]:
    """Return the distinguishing parts of file names, else with folders, else ``channel 0``, ...

    For example ``flair`` and ``t1c`` of ``trainChannels_flair.cfg`` and ``trainChannels_t1c.cfg``.
    """
    for depth in (1, 2) if len(paths) > 1 else ():
        names = ["/".join((*path.parts[-depth:-1], path.stem)) for path in paths]
        each = [[word for word in re.split(r"[\W_]+", name) if word] for name in names]
        while min(map(len, each)) > 1 and len({words[0] for words in each}) == 1:
            each = [words[1:] for words in each]
        while min(map(len, each)) > 1 and len({words[-1] for words in each}) == 1:
            each = [words[:-1] for words in each]
        joined = ["_".join(words) for words in each]
        if all(joined) and len({name.casefold() for name in joined}) == len(joined):
            return tuple(joined)
    return tuple(f"channel {number}" for number in range(len(paths)))
