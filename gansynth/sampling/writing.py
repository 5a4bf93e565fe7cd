"""The one driver of all writers: a folder is written whole, or not at all.

Here and nowhere else samples for sharing are refused, redacted and dated, generated files are
found to have the mark, and the origin of each sample is kept. ``provenance.json`` has it, which
``--replay FILE:NAME`` reads; of samples for sharing, a record outside of the folder. It also says
what was asked for and which files were written: the same command finds them there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.case_pool import TrainingCases
from gansynth.core.lineage import Lineage
from gansynth.core.schema import FloatArray, Schema
from gansynth.core.synthetic import KEY, is_marked
from gansynth.core.writer import Item, Writer, WriterOptions
from gansynth.runtime.errors import GansynthError, IntegrityFault, UsageFault
from gansynth.runtime.files import (
    check_sha256,
    disk_errors,
    elsewhere,
    path_inside,
    read_own,
    remove_dead,
    sha256_file,
    whole_folder,
    write_bytes_atomic,
)
from gansynth.runtime.serialise import differences
from gansynth.runtime.version import __version__
from gansynth.sampling.deidentify import SharedSamples, check_new

PROVENANCE = "provenance.json"
TIME = 315_532_800  # 1980-01-01, in seconds since 1970: the date of shared files
LOOKED_AT = 64  # training cases whose intensities a writer is told
MARKABLE = (".nii", ".nii.gz", ".png")


def write(
    begin: Callable[[Path], Writer],
    items: Iterable[Item],
    schema: Schema,
    out: Path,
    *,
    made: Mapping[str, Any],
    shared: SharedSamples | None = None,
    lineage: Lineage | None = None,
    private: Mapping[str, Any] | None = None,
    files: bool = False,
    anew: bool = False,
    request: Mapping[str, Any] | None = None,
    counts: Callable[[], Mapping[str, Any]] = dict,
) -> dict[str, Any]:
    """Write items in a format.

    Args:
        begin: returns the writer of a folder.
        items: their ``facts`` are the samples' whole provenance; written where nothing is shared.
        out: must be empty or missing, or is replaced if ``anew``.
        made: how the items were made; JSON that may be shared if they are. Its ``synthetic`` counts
            where not all cases of the folder are items.
        shared: watches items for sharing, whose origins are then kept in its record.
        files: ``provenance.json`` also has ``made``, and the SHA-256 of every other file.
        lineage, private: further facts for ``provenance.json`` or that record.
        request: JSON of what was asked for, by which ``held`` knows the folder again.
        counts: called when all is written; of the items, for the report.

    Returns:
        What the writer and ``counts`` report.
    """
    origins: dict[str, Mapping[str, Any]] = {}
    public_facts: dict[str, Mapping[str, Any]] = {}
    generated, placed = True, True
    with whole_folder(out, anew=anew) as folder, disk_errors(out):
        writer = begin(folder)
        for item in items:
            facts = item.facts
            if shared is not None:
                facts = shared.add(item.name, item.image, facts)
            if item.facts:
                origins[item.name] = dict(item.facts)
                public_facts[item.name] = dict(facts)
            generated = generated and item.synthetic
            placed = placed and item.affine is not None
            item = replace(item, image=np.asarray(item.image, np.float32), facts=facts)
            writer.add(_fitting(item, writer.ndim, schema))
        about: dict[str, Any] = {"gansynth": __version__}
        if generated:
            about[KEY] = True
        about.update(made)
        if not placed:
            about["spacing"] = [float(mm) for mm in schema.spacing]
        report = {**counts(), **(writer.finish(about) or {})}
        public = {key: about[key] for key in (KEY, "gansynth") if key in about}
        if files:
            public.update(about)
            public["files"] = hashes_of(folder)
        kept: dict[str, Any] = {}  # in the record alone, if the folder is shared
        if lineage is not None:
            kept["lineage"] = lineage.to_json()
        kept.update(private or {})
        kept["samples"] = origins
        inside = kept if shared is None else {"samples": public_facts}
        if origins and shared is not None:
            _write_json(folder / PROVENANCE, public | inside)
        if request is not None:
            kept |= {"request": request, "written": hashes_of(folder), "report": report}
        if (origins or request is not None) and shared is None:
            _write_json(folder / PROVENANCE, public | inside)
        if about.get(KEY):
            _check_marks(folder, writer.name)
        if shared is not None:
            shared.finish(len(origins))
            for path in (*folder.rglob("*"), folder):
                os.utime(path, (TIME, TIME))
            # First, since a folder without its record is one that nobody knows.
            _write_json(shared.record, public | {"folder": os.path.abspath(out)} | kept)
    return report


def held(
    out: Path, request: Mapping[str, Any], record: Path | None = None, *, anew: bool = False
) -> dict[str, Any] | None:
    """Return what ``write`` reported of a folder that holds what is asked for, whole.

    Args:
        record: of samples for sharing; else the folder has it.
        anew: other content is replaced, instead of refused.

    Returns:
        None if nothing is there, or if it is to be replaced.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return None
    try:
        return _held(out, json.loads(json.dumps(request)), record or out / PROVENANCE)
    except GansynthError:
        if anew:
            return None
        raise


def _held(out: Path, asked: dict[str, Any], record: Path) -> dict[str, Any]:
    document: dict[str, Any] = {}
    if record.is_file():
        document = read_own(record, hint=f"remove {out}, or choose another: {elsewhere(out)}")
    if not {"request", "written", "report"} <= document.keys():  # of others, or an earlier version
        check_new(out)
    differing = "; ".join(differences(document["request"], asked))
    if differing:
        raise UsageFault(
            "sampling.folder-holds-other-samples",
            f"-o {out}: holds other samples, with {differing}; expected the same command, which "
            f"finds them there, or a new folder: {elsewhere(out)}; or remove it",
        )
    for name, digest in document["written"].items():
        path = path_inside(out, name, key=f"{record}: written")
        hint = f"remove {out} to write it again, or choose another: {elsewhere(out)}"
        check_sha256(path, digest, f"{record}; {hint}")
    remove_dead(out)
    report: dict[str, Any] = document["report"]
    return report


def hashes_of(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of every file below a folder, by relative path; links are followed."""
    files: list[Path] = []
    for here, _, names in os.walk(folder):
        files += [Path(here, name) for name in names]
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(files)}


def check_writer(
    writer_class: type[Writer], options: WriterOptions, schema: Schema, what: object
) -> None:
    """Refuse what a format cannot hold, before anything is generated.

    Args:
        what: of which samples, for messages.
    """
    name, ndim = writer_class.name, writer_class.ndim
    if schema.ndim == 3 and 3 not in ndim:
        raise UsageFault(
            "sampling.writer-needs-slices",
            f"--format {name}: samples of {what} are volumes, expected slices; choose another "
            "--format, or fit on slices: --data slices:KIND:WHERE",
        )
    if "boxes" in writer_class.needs and not schema.box_classes:
        raise UsageFault(
            "sampling.writer-needs-boxes",
            f"--format {name}: samples of {what} have no boxes, expected some; choose another "
            "--format, or fit on a data set with boxes: --read boxes=yes",
        )
    writer_class.check(schema, options)


def intensities_of(cases: TrainingCases) -> list[FloatArray]:
    """Return intensities of at most 64 training cases, always the same ones, for each channel."""
    rng = np.random.default_rng(0)
    ids = cases.ids
    chosen = sorted(rng.choice(len(ids), min(LOOKED_AT, len(ids)), replace=False).tolist())
    parts = []
    for number in chosen:
        image = cases(ids[number]).image
        values = image.reshape(len(image), -1)
        parts.append(values[:, :: max(1, values.shape[1] // 10**5)])
    return list(np.concatenate(parts, axis=1))


def _fitting(item: Item, ndim: frozenset[int], schema: Schema) -> Item:
    """Return the item with a place, as a slice or a volume, whichever the format has."""
    spacing = (1.0, *schema.spacing)[-3:]
    if item.affine is None:
        item = replace(item, affine=np.diag([*spacing[::-1], 1.0]))
    labels, boxes = item.labels, item.boxes
    if item.image.ndim == 3 and 2 not in ndim:
        labels = None if labels is None else labels[None]
        return replace(item, image=item.image[:, None], labels=labels)
    if item.image.ndim == 4 and 3 not in ndim:  # a host's volume of one slice
        boxes = None if boxes is None else boxes.in_plane
        labels = None if labels is None else labels[0]
        return replace(item, image=item.image[:, 0], labels=labels, boxes=boxes)
    return item


def _check_marks(folder: Path, name: str) -> None:
    for path in folder.rglob("*"):
        if path.name.endswith(MARKABLE) and not is_marked(path):
            raise IntegrityFault(
                "sampling.written-file-not-marked",
                f"writer {name!r}: {path.relative_to(folder)} has no mark of "
                "generated files, expected it, so that it never counts as a real case; nothing is "
                "written. Use gansynth.write_volume or gansynth.png_bytes with synthetic=True",
            )


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, (json.dumps(document, indent=1) + "\n").encode())
