"""Writes slices of labelled volumes as a YOLO data set: PNG files, label files, ``data.yaml``."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import yaml
from pydantic import Field

from gansynth.core.adapter import HostOptions
from gansynth.core.host_commands import CommandReport, ImportRequest
from gansynth.core.lineage import CaseRecord
from gansynth.core.schema import Case, FloatArray
from gansynth.core.source import CaseSource, case_record
from gansynth.data.read_options import refuse_idle_read
from gansynth.report.png import png_bytes, scaled
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import disk_errors, whole_folder, write_json_atomic
from gansynth.runtime.progress import counting
from gansynth.runtime.version import __version__
from gansynth.sampling.run_source import open_source
from gansynth_yolo.labels import as_rows, label_text

MANIFEST = "manifest.json"
VOLUMES = "(.+)_z([0-9]+)"  # `--read volumes=` for the data sets written here
DRAWN = 4096  # random pixels of each training slice to which the window is fitted
PERCENTILES = (0.1, 99.9)
Windows = tuple[tuple[float, float], ...]


class ImportSettings(HostOptions):
    """``gansynth import slices:KIND:WHERE yolo:FOLDER --set``."""

    bits: Literal[8, 16] = Field(8, description="of a pixel")
    backgrounds: float = Field(
        1.0, ge=0, le=1, description="share of training slices without a box that is kept"
    )


@dataclass
class SliceImportReport:
    """Counts of the written data set."""

    folder: str
    train: int = 0  # images of the fold's training volumes; `val` of its held-out ones
    val: int = 0
    boxes: dict[str, int] = field(default_factory=dict)
    backgrounds: int = 0  # images without a box
    # slices of one constant value, and backgrounds beyond the requested share
    left_out: dict[str, int] = field(default_factory=lambda: {"constant": 0, "background": 0})
    window: Windows = ()  # for each channel the intensities mapped to 0 and to the largest number
    clipped: float = 0.0  # share of pixels beyond the window


def import_slices(request: ImportRequest, options: ImportSettings) -> CommandReport:
    """Run ``gansynth import slices:KIND:WHERE yolo:FOLDER``: all is written, or nothing.

    ``train`` has the training cases of its fold, ``val`` those held out, so subjects do not
    overlap. All images share one window: that of the source (``--read window=``), else from the 0.1
    to the 99.9 percentile of all training pixels.

    Raises:
        UsageFault: the source has no boxes, other channels or no held-out cases, or the folder is
            not empty.
        DataFault: a case cannot be read, or no training case has a box.
        EnvironmentFault: the disk refuses.
    """
    if request.folds is not None:
        raise UsageFault(
            f"--folds {request.folds}: a YOLO data set has one split, expected folds of the "
            f"source; say --read folds={request.folds}"
        )
    refuse_idle_read(request.request, request.request.read)
    source = open_source(request.request)
    _check(source, options.bits)
    folder = Path(request.where)
    report = SliceImportReport(str(folder))
    cases = {"train": source.train_ids, "val": source.held_out_ids}
    total = 2 * len(cases["train"]) + len(cases["val"])
    with counting(request.reporter, "import") as progress, whole_folder(folder) as temporary:
        writer = _SliceWriter(source, temporary, options, request.seed, report)
        writer.fit(_counted(cases["train"], 0, total, progress))
        done = len(cases["train"])
        for split, ids in cases.items():
            for case_id in _counted(ids, done, total, progress):
                writer.add(split, case_id)
            done += len(ids)
        writer.finish()
        progress(total, total)
    data = str(folder / "data.yaml")
    then = ("check", f"yolo:{data}", "--read", f"volumes={VOLUMES}")
    return CommandReport({**vars(report), "data": data}, then=then)


def _counted(
    ids: tuple[str, ...], done: int, total: int, progress: Callable[[int, int], None]
) -> Iterator[str]:
    for number, case_id in enumerate(ids):
        progress(done + number, total)
        yield case_id


class _SliceWriter:
    """Writes one data set."""

    def __init__(
        self,
        source: CaseSource,
        folder: Path,
        settings: ImportSettings,
        seed: int,
        report: SliceImportReport,
    ) -> None:
        self.source = source
        self.folder = folder
        self.settings = settings
        self.rng = np.random.default_rng(seed)
        self.report = report
        self.report.boxes = dict.fromkeys(source.schema.box_classes, 0)
        self.rows: list[dict[str, Any]] = []
        self.names: dict[str, str] = {}
        self._pixels = self._beyond = 0
        self._empty: set[str] = set()

    def fit(self, ids: Iterator[str]) -> None:
        """Fit the window to the training cases, and select the backgrounds to keep."""
        drawn: list[FloatArray] = []
        empty: list[str] = []
        for case_id in ids:
            case = self.source.load(case_id)
            has_box = case.boxes is not None and len(case.boxes.labels) > 0
            if not has_box and case.image.min() < case.image.max():
                empty.append(case_id)
            flat = case.image.reshape(len(case.image), -1)
            at = self.rng.integers(flat.shape[1], size=min(DRAWN, flat.shape[1]))
            drawn.append(flat[:, at])
        edges = np.percentile(np.concatenate(drawn, axis=1), PERCENTILES, axis=1).T
        if self.source.request.read.get("window"):
            edges = np.tile([0.0, 1.0], (len(edges), 1))
        if not (edges[:, 1] > edges[:, 0]).all():
            raise DataFault(
                f"{self.source.name}: the training slices hold one value only, expected images; "
                "choose others with --read slices="
            )
        self.report.window = tuple((float(low), float(high)) for low, high in edges)
        chosen = self.rng.permutation(len(empty))[: round(self.settings.backgrounds * len(empty))]
        self._empty = set(empty) - {empty[n] for n in chosen}

    def add(self, split: str, case_id: str) -> None:
        """Write one case, unless it is left out."""
        if split == "train" and case_id in self._empty:
            self.report.left_out["background"] += 1
            return
        case = self.source.load(case_id)
        if case.image.min() == case.image.max():
            self.report.left_out["constant"] += 1
            return
        record = case_record(self.source, case_id, lambda _: case)
        self._write(split, case, record)

    def _write(self, split: str, case: Case, record: CaseRecord) -> None:
        name = file_name(case.id)
        if name in self.names:
            raise DataFault(
                f"{self.source.name}: cases {self.names[name]!r} and {case.id!r} would both be "
                f"called {name}, expected unique names; rename a case"
            )
        self.names[name] = case.id
        pixels, beyond = scaled(case.image, self.report.window, self.settings.bits)
        self._beyond += beyond
        self._pixels += pixels.size
        assert case.boxes is not None
        rows = as_rows(case.boxes.coords, case.boxes.labels, case.image.shape[1:])
        image = self.folder / "images" / split / f"{name}.png"
        label = self.folder / "labels" / split / f"{name}.txt"
        with disk_errors(image):
            image.parent.mkdir(parents=True, exist_ok=True)
            label.parent.mkdir(parents=True, exist_ok=True)
            image.write_bytes(
                png_bytes(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0))
            )
            label.write_text(label_text(rows), "utf-8")
        setattr(self.report, split, getattr(self.report, split) + 1)
        self.report.backgrounds += not len(rows)
        classes = [self.source.schema.box_classes[int(n)] for n in case.boxes.labels]
        for box_class in classes:
            self.report.boxes[box_class] += 1
        self.rows.append(
            {
                "file": f"images/{split}/{name}.png",
                "case": case.id,
                "subject": record.subject,
                "boxes": len(rows),
                "sha256": record.sha256,
            }
        )

    def finish(self) -> None:
        """Write ``data.yaml``, ``subjects.csv`` and the manifest."""
        if not any(row["boxes"] for row in self.rows if row["file"].startswith("images/train/")):
            raise DataFault(
                f"{self.source.name}: no training slice has a box, expected one at least; choose "
                "other --read slices=, or labels that are there: --read boxes="
            )
        self.report.clipped = self._beyond / max(1, self._pixels)
        names = self.source.schema.box_classes
        document = {
            "train": "images/train",
            "val": "images/val",
            "names": dict(enumerate(names)),
            "nc": len(names),
            "channels": len(self.report.window),
        }
        lines = ["case,subject"]
        for row in self.rows:
            case = Path(row["file"]).relative_to("images").with_suffix("").as_posix()
            lines.append(f'{case},"{row["subject"]}"' if "," in row["subject"] else
                         f"{case},{row['subject']}")  # fmt: skip
        with disk_errors(self.folder):
            text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
            (self.folder / "data.yaml").write_text(text, "utf-8")
            (self.folder / "subjects.csv").write_text("\n".join(lines) + "\n", "utf-8")
        write_json_atomic(self.folder / MANIFEST, self._manifest())

    def _manifest(self) -> dict[str, Any]:
        report = self.report
        return {
            "version": 1,
            "gansynth": __version__,
            "dataset": self.source.name,
            "fold": self.source.request.fold,
            "host": dict(self.source.space.host),
            "channels": list(self.source.schema.channels),
            "spacing": list(self.source.schema.spacing),
            "bits": self.settings.bits,
            "window": [list(pair) for pair in report.window],
            "clipped": report.clipped,
            "boxes": report.boxes,
            "backgrounds": report.backgrounds,
            "left_out": report.left_out,
            "volumes": VOLUMES,
            "images": self.rows,
        }


def file_name(case_id: str) -> str:
    """Turn ``brats_03/axi080`` into ``brats_03_z080``, and replace odd letters of other names."""
    match = re.fullmatch(r"(.+)/(?:axi|cor|sag)(\d+)(/.+)?", case_id)
    if match is not None:
        case_id = f"{match[1]}{(match[3] or '').replace('/', '_')}_z{match[2]}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", case_id)[-200:]


def _check(source: CaseSource, bits: int) -> None:
    schema = source.schema
    if schema.axes != "HW":
        raise UsageFault(
            f"{source.name}: its cases are volumes, expected slices: slices:{source.request.kind}:"
            f"{source.request.where}"
        )
    if not schema.box_classes:
        raise UsageFault(
            f"{source.name}: its cases have no boxes, expected --read boxes=yes, or for example "
            "--read boxes=tumour:1+2+4"
        )
    if len(schema.channels) not in (1, 3) or (len(schema.channels) == 3 and bits == 16):
        raise UsageFault(
            f"{source.name}: {len(schema.channels)} channels ({', '.join(schema.channels)}) of "
            f"{bits} bits, expected one, or three of 8 bits; choose with --read channels=NAME"
        )
    if not source.held_out_ids:
        raise UsageFault(
            f"--fold {source.request.fold}: nothing is held out, expected cases for val; choose a "
            "number"
        )
