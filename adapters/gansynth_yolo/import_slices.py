"""Writes slices of labelled volumes as a YOLO data set: PNG files, label files, ``data.yaml``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from gansynth import (
    CaseSource,
    CommandReport,
    DataFault,
    FloatArray,
    HostOptions,
    ImportRequest,
    Item,
    Schema,
    UsageFault,
    case_records,
    open_source,
)
from gansynth.data.folds import table_text
from gansynth.data.read_options import refuse_idle_read
from gansynth.data.slices import inner_read
from gansynth.runtime.files import new_or_same
from gansynth.sampling.png_writer import PictureOptions
from gansynth.sampling.writing import write
from gansynth_yolo.writer import YoloWriter

Advance = Callable[[float], None]  # tells how many more of a task are done
VOLUMES = "(.+)_z([0-9]+)"  # `--read volumes=` for the data sets written here
DRAWN = 4096  # random pixels of each training slice to which the window is fitted
PERCENTILES = (0.1, 99.9)


class ImportSettings(HostOptions):
    """``gansynth import slices:KIND:WHERE yolo:FOLDER --set``."""

    bits: Literal[8, 16] = Field(8, description="of a pixel")
    backgrounds: float = Field(
        1.0, ge=0, le=1, description="share of training slices without a box that is kept"
    )


def import_slices(request: ImportRequest, options: ImportSettings) -> CommandReport:
    """Run ``gansynth import slices:KIND:WHERE yolo:FOLDER``: all is written, or nothing.

    ``train`` has the training cases of its fold, ``val`` those held out, so subjects do not
    overlap. All images share one window: that of the source (``--read window=``), else from the 0.1
    to the 99.9 percentile of all training pixels.
    """
    if request.folds is not None:
        raise UsageFault(
            "yolo.import-has-one-split",
            f"--folds {request.folds}: a YOLO data set has one split, expected folds of the "
            f"source; say --read folds={request.folds}",
        )
    refuse_idle_read(request.request, request.request.read)
    source, folder = open_source(request.request), Path(request.where)
    schema, data = source.schema, str(folder / "data.yaml")
    if schema.axes != "HW" or not schema.box_classes:
        raise UsageFault(
            "yolo.import-not-slices-with-boxes",
            f"{source.name}: expected slices with boxes, as by: "
            f"{boxed_import(source, request.target)}",
        )
    YoloWriter.check(schema, PictureOptions.model_validate({"bits": options.bits}))
    if not source.held_out_ids:
        raise UsageFault(
            "yolo.import-nothing-held-out",
            f"--fold {source.request.fold}: nothing is held out, expected cases for val; choose a "
            "number",
        )
    # Slices of one constant value, and backgrounds beyond the requested share.
    left_out = {"constant": 0, "background": 0}
    total = 2 * len(source.train_ids) + len(source.held_out_ids)
    taken = (
        f"{folder}: holds other files than this import writes, expected the same or none; choose "
        "another folder, or remove it"
    )
    again = folder.is_dir() and any(folder.iterdir())
    with request.reporter.task(total, "import") as bar, new_or_same(folder, taken) as place:
        rng = np.random.default_rng(request.seed)
        window, dropped = _fit(source, options.backgrounds, rng, bar.advance)
        text = ",".join([f"{low!r}:{high!r}" for low, high in window])
        pictures = PictureOptions(bits=options.bits, window=text)
        written = write(
            partial(_ImportWriter, schema=schema, options=pictures),
            _items(source, dropped, left_out, bar.advance),
            schema,
            place,
            made={
                "dataset": source.name,
                "fold": source.request.fold,
                "host": dict(source.space.host),
                "channels": list(schema.channels),
                "volumes": VOLUMES,
                "left_out": left_out,
            },
            files=True,
        )
    then = ("check", f"yolo:{data}", "--read", f"volumes={VOLUMES}")
    document = {"imported_already": again, "folder": str(folder), "left_out": left_out}
    document["window"] = window
    document.update(written)
    document["data"] = data
    return CommandReport(document, then=then, already=again)


def boxed_import(source: CaseSource, target: str) -> str:
    """Return the command that makes a YOLO data set of cases, of slices where they are volumes.

    Of channels that no detector takes, the first one is chosen.
    """
    asked, schema, read = source.request, source.schema, {"boxes": "yes"}
    if schema.axes == "DHW":
        where, known = f"{asked.kind}:{asked.where}", inner_read(asked.read)
        asked = replace(asked, kind="slices", where=where, read=known)
    if asked.kind == "slices" and len(schema.channels) not in (1, 3):
        read["channels"] = schema.channels[0]
    asked = replace(asked, read=dict(asked.read) | read)
    return ImportRequest.command_for(asked, target)


def _fit(
    source: CaseSource, backgrounds: float, rng: np.random.Generator, advance: Advance
) -> tuple[tuple[tuple[float, float], ...], set[str]]:
    """Fit the window to the training cases, and select the backgrounds to drop."""
    drawn: list[FloatArray] = []
    empty: list[str] = []
    boxed = False
    for case_id in source.train_ids:
        advance(1)
        decoded = source.decode(case_id)
        case = decoded.prepare()
        if case.boxes is not None and len(case.boxes.labels):
            boxed = True
        elif case.image.min() < case.image.max():
            empty.append(case_id)
        flat = case.image.reshape(len(case.image), -1)
        at = rng.integers(flat.shape[1], size=min(DRAWN, flat.shape[1]))
        drawn.append(flat[:, at])
    edges = np.percentile(np.concatenate(drawn, axis=1), PERCENTILES, axis=1).T
    if source.request.read.get("window"):
        edges = np.tile([0.0, 1.0], (len(edges), 1))
    if not boxed or not (edges[:, 1] > edges[:, 0]).all():
        raise DataFault(
            "yolo.import-training-slices-empty",
            f"{source.name}: the training slices have no box, or one value only; expected "
            "images, and a box at least; choose others with --read slices= or --read boxes=",
        )
    kept = rng.permutation(len(empty))[: round(backgrounds * len(empty))]
    window = tuple([(float(low), float(high)) for low, high in edges])
    return window, set(empty) - {empty[n] for n in kept}


def _items(
    source: CaseSource, dropped: set[str], left_out: dict[str, int], advance: Advance
) -> Iterator[Item]:
    """Yield the cases that are not left out, under their files' names."""
    names: dict[str, str] = {}
    parts = dict.fromkeys(source.train_ids, "train")
    parts |= dict.fromkeys(source.held_out_ids, "val")
    for case_id, part in parts.items():
        advance(1)
        if case_id in dropped:
            left_out["background"] += 1
            continue
        decoded = source.decode(case_id)
        case = decoded.prepare()
        if case.image.min() == case.image.max():
            left_out["constant"] += 1
            continue
        name = file_name(case_id)
        if names.setdefault(name, case_id) != case_id:
            raise DataFault(
                "yolo.import-names-not-unique",
                f"{source.name}: cases {names[name]!r} and {case_id!r} would both be called "
                f"{name}, expected unique names; rename a case",
            )
        (record,) = case_records(source, (case_id,), {case_id: decoded}.__getitem__)
        facts = {
            "case": case_id,
            "subject": record.subject,
            "sha256": record.sha256,
            "part": part,
            "boxes": 0 if case.boxes is None else len(case.boxes.labels),
        }
        yield Item(name, case.image, None, case.boxes, part=part, synthetic=False, facts=facts)


class _ImportWriter(YoloWriter):
    """Also writes ``subjects.csv``."""

    def __init__(self, folder: Path, schema: Schema, options: PictureOptions) -> None:
        super().__init__(folder, schema, options)
        self.subjects = list[tuple[str, str]]()

    def add(self, item: Item) -> None:
        super().add(item)
        self.subjects.append((f"{item.part}/{item.name}", str(item.facts["subject"])))

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        text = table_text(("case", "subject"), self.subjects)
        (self.folder / "subjects.csv").write_text(text, "utf-8")
        written = super().finish(about)
        return {
            "train": self.images["train"],
            "val": self.images["val"],
            "boxes": {name: self.boxes[name] for name in self.schema.box_classes},
            "backgrounds": len(self.lesion_free),
            "clipped": written["clipped"],
        }


def file_name(case_id: str) -> str:
    """Turn ``brats_03/axi080`` into ``brats_03_z080``, and replace odd letters of other names."""
    match = re.fullmatch(r"(.+)/(?:axi|cor|sag)(\d+)(/.+)?", case_id)
    if match is not None:
        case_id = f"{match[1]}{(match[3] or '').replace('/', '_')}_z{match[2]}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", case_id)[-200:]
