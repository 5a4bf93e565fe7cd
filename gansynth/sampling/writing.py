"""The one driver of all writers: a folder is written whole, or not at all.

Here and nowhere else samples for sharing are refused, redacted and dated, generated files are
found to have the mark, and the origin of each sample is kept. ``provenance.json`` has it, which
``--replay FILE:NAME`` reads; of samples for sharing, a record outside of the folder.
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
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import disk_errors, sha256_file, whole_folder, write_bytes_atomic
from gansynth.runtime.version import __version__
from gansynth.sampling.deidentify import SharedSamples

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

    Returns:
        What the writer reports.

    Raises:
        IntegrityFault: a sample for sharing repeats a real image, or a generated file has no mark.
        EnvironmentFault: the disk refuses.
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
        report = writer.finish(about)
        public = {key: about[key] for key in (KEY, "gansynth") if key in about}
        if files:
            public.update(about)
            public["files"] = hashes_of(folder)
        kept: dict[str, Any] = {}  # in the record alone, if the folder is shared
        if lineage is not None:
            kept["lineage"] = lineage.to_json()
        kept.update(private or {})
        kept["samples"] = origins
        if origins:
            inside = kept if shared is None else {"samples": public_facts}
            _write_json(folder / PROVENANCE, public | inside)
        if about.get(KEY):
            _check_marks(folder, writer.name)
        if shared is not None:
            shared.finish(len(origins))
            for path in (*folder.rglob("*"), folder):
                os.utime(path, (TIME, TIME))
    if shared is not None:
        record = dict(public, folder=os.path.abspath(out))
        record.update(kept)
        _write_json(shared.record, record)
    return dict(report or {})


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
