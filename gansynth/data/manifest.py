"""List volumes of a CSV or JSON manifest: a row per case, a column per channel."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gansynth.data.listing import CaseFiles, Collector, VolumeSet, like_labels, stem
from gansynth.data.read_options import VolumeOptions
from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth.runtime.files import MAX_JSON_BYTES, read_json, reading

SUBJECT = ("subject", "subject_group")
PARTS = ("train", "val", "test")
_COLUMNS = ("case", "label", "split", "fold", *SUBJECT)


def list_manifest(kind: str, path: Path, options: VolumeOptions) -> VolumeSet:
    """List what a manifest says; without a column ``label`` its cases are unlabelled.

    Raises DataFault: not readable, without images, or a column that looks like ``label`` only;
    UsageFault: channels are named that it does not have.
    """
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    channels = _channels(path, rows, options)
    labelled = any("label" in row for _, row in rows)
    collector = Collector(path, options.allow_absolute)
    for number, row in rows:
        entry = _entry(collector, number, row, channels, labelled)
        if entry is not None:
            collector.add(entry)
    expected = "rows with an image per channel, and a label if there are any"
    return collector.volumes(f"{kind}:{path.stem}", expected, channels=channels)


Rows = Sequence[tuple[str, dict[str, str]]]  # (place in the file, column -> text) of each row


def _csv_rows(path: Path) -> Rows:
    with reading(path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataFault(f"{path}: larger than {MAX_JSON_BYTES} bytes, expected a manifest")
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
        table = list(csv.reader(io.StringIO(text), delimiter="\t" if "\t" in text else ","))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFault(f"{path}: not readable as CSV: {error}; save it as UTF-8") from error
    header = [name.strip() for name in table[0]] if table else []
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataFault(f"{path}: column {twice[0]!r} occurs twice, expected once; rename one")
    return [
        (f"line {number}", dict(zip(header, (cell.strip() for cell in row), strict=False)))
        for number, row in enumerate(table[1:], start=2)
        if any(row)
    ]


def _json_rows(path: Path) -> Rows:
    doc = read_json(path, expected=object, hint="see: gansynth help sources nifti")
    rows = doc.get("cases") if isinstance(doc, dict) else doc
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataFault(
            f"{path}: expected a list of objects, or one under 'cases', each with 'label' and a "
            "key per channel; see: gansynth help sources nifti"
        )
    return [
        (f"entry {number}", {str(k): _text(path, number, k, v) for k, v in row.items()})
        for number, row in enumerate(rows)
    ]


def _text(path: Path, number: int, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise DataFault(
            f"{path}: entry {number}: {key} is {value!r:.80}, expected a text or a whole number"
        )
    return "" if value is None else str(value)


def _channels(path: Path, rows: Rows, options: VolumeOptions) -> tuple[str, ...]:
    header = list(dict.fromkeys(key for _, row in rows for key in row))
    images = tuple(
        name
        for name in header
        if name not in _COLUMNS and any(stem(Path(row.get(name, "")).name) for _, row in rows)
    )
    unknown = [name for name in options.channels or () if name not in images]
    if unknown:
        raise UsageFault(
            f"--read channels={','.join(options.channels or ())}: {path} has no column "
            f"{unknown[0]!r} of images, expected among: {', '.join(images) or 'none'}."
            f"{did_you_mean(unknown[0], images)}"
        )
    if rows and not images:
        raise DataFault(
            f"{path}: columns are {header}, expected one for each channel that names .nii or "
            ".nii.gz files; see: gansynth help sources nifti"
        )
    meant = None if options.channels or "label" in header else like_labels(images)
    if meant is not None:
        raise DataFault(
            f"{path}: columns are {header}, expected label maps in one called label; rename "
            f"{meant!r}, or if it is a channel, name them all: --read channels={','.join(images)}"
        )
    return options.channels or images or ("image",)


def _entry(
    collector: Collector,
    number: str,
    row: dict[str, str],
    channels: tuple[str, ...],
    labelled: bool,
) -> CaseFiles | None:
    """Return a row's case; None, and a fault, if it is incomplete or leads out of the folder."""
    path = collector.where
    label = row.get("label", "")
    named_by = label if labelled else row.get(channels[0], "")
    case = row.get("case") or stem(Path(named_by).name) or ""
    empty = [k for k in (("label",) if labelled else ()) + channels if not row.get(k)]
    if empty or not case:
        text = f"{path}: {number}: {empty[0] if empty else 'case'} is empty, expected a value; "
        collector.fault(case or None, path, DataFault(f"{text}complete the row, or remove it"))
        return None
    part = row.get("fold") or ""
    if row.get("split") and (row["split"] == "test" or not part):
        part = row["split"]
    if part and not part.isdecimal() and part not in PARTS:
        key = "split" if part == row.get("split") else "fold"
        expected = "train, val or test" if key == "split" else "a whole number"
        message = f"{path}: {number}: {key} is {part!r}, expected {expected}; correct it"
        collector.fault(case, path, DataFault(message))
        return None
    where = f"{path}: {number}"
    files = [collector.file(row[c], f"{where}: {c}", case) for c in channels]
    drawn = collector.file(label, f"{where}: label", case) if labelled else None
    images = tuple(file for file in files if file is not None)
    if (labelled and drawn is None) or len(images) < len(channels):
        return None
    subject = next((row[s] for s in SUBJECT if row.get(s)), None)
    return CaseFiles(case, images, drawn, subject, part)
