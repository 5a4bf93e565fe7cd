"""The manifest of exported pictures: the content of each file, without its origin."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.schema import Sample, Schema
from gansynth.core.synthetic import KEY
from gansynth.data.connected_components import boxes_of
from gansynth.runtime.files import folder_name, write_bytes_atomic, write_json_atomic

VERSION = 2
COLUMNS = (
    *(
        "case",
        "file",
        "mask",
        "overlay",
        "index",
        "seed",
        "class",
        "areas",
        "boxes",
        "reject_reason",
    ),
    *("window", "run", "generator", "gansynth", "sha256", "mask_sha256"),
)
"""Columns of ``manifest.csv``; ``pictures:`` takes classes from ``case`` and ``class``."""

Files = Mapping[str, Sequence[tuple[str, str]]]
"""Kind (``images``, ``mask``, ``labels``, ``overlay``) -> name and SHA-256 of each file."""


@dataclass
class PngManifest:
    """Content of ``manifest.json`` and ``manifest.csv``."""

    made: Mapping[str, str]  # run, generator, version of gansynth
    schema: Schema
    windows: Mapping[str, tuple[float, float]]  # channel -> intensities that are black and white
    bits: int
    one_file: bool  # all channels of a sample are in one file; else each has a folder
    rows: list[dict[str, Any]] = field(default_factory=list)
    # reason -> number of samples, written or not
    reject_reasons: Counter[str] = field(default_factory=Counter)
    # number of pixels written, and of those outside the window
    pixels: list[int] = field(default_factory=lambda: [0, 0])

    @property
    def folders(self) -> list[str]:
        """Folders of the images, by channel; one for all of them if they are in one file."""
        if self.one_file:
            return ["images"]
        names = [folder_name(channel) for channel in self.windows]
        if len({name.casefold() for name in names}) < len(names):
            names = [f"{number}_{name}" for number, name in enumerate(names)]
        return [f"images/{name}" for name in names]

    @property
    def clipped(self) -> float:
        """Share of pixels outside the window."""
        return round(self.pixels[1] / max(1, self.pixels[0]), 5)

    def add(self, case: str, sample: Sample, files: Files) -> None:
        """Add a sample, with only the part of its provenance that names no patient."""
        provenance, labels = sample.provenance, sample.labels
        names = {value: name for name, value in self.schema.labels.items()}
        areas = {}
        if labels is not None:
            values, counts = np.unique(labels[labels > 0], return_counts=True)
            areas = {names[v]: n for v, n in zip(values.tolist(), counts.tolist(), strict=True)}
        boxes = sample.boxes
        if boxes is not None and self.schema.box_classes:
            names = dict(enumerate(self.schema.box_classes))
        elif boxes is None and labels is not None:
            boxes = boxes_of(labels, self.schema)
        pairs = [] if boxes is None else zip(boxes.labels.tolist(), boxes.coords, strict=True)
        self.rows.append(
            {
                "case": case,
                "index": provenance["index"],
                "seed": provenance["seed"],
                "class": provenance.get("class"),
                "areas": areas,
                "boxes": [
                    {"label": names.get(value, str(value)), "box": [round(float(e), 2) for e in b]}
                    for value, b in pairs
                ],
                "reject_reason": provenance.get("reject_reason", ""),
                **{
                    kind: [{"file": name, "sha256": digest} for name, digest in listed]
                    for kind, listed in files.items()
                },
            }
        )

    def write(self, folder: Path) -> None:
        """Write ``manifest.json`` and ``manifest.csv``."""
        document = {
            "version": VERSION,
            KEY: True,
            **self.made,
            "channels": list(self.windows),
            "labels": dict(self.schema.labels),
            "spacing": list(self.schema.spacing),
            "bits": self.bits,
            "window": {name: list(window) for name, window in self.windows.items()},
            "clipped": self.clipped,
            "reject_reasons": dict(self.reject_reasons),
            "read": self._read(),
            "samples": self.rows,
        }
        write_json_atomic(folder / "manifest.json", document)
        stream = io.StringIO()
        table = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
        table.writeheader()
        table.writerows(map(self._line, self.rows))
        write_bytes_atomic(folder / "manifest.csv", stream.getvalue().encode())

    def _read(self) -> list[dict[str, str]]:
        """Return the ``--read`` keys for ``pictures:FOLDER``, for each image folder."""
        labels = ",".join(f"{name}:{value}" for name, value in self.schema.labels.items())
        common = {"spacing": ",".join(map(str, self.schema.spacing))}
        if any("mask" in row for row in self.rows):
            common |= {"masks": "masks", "labels": labels}
        if any(row["class"] for row in self.rows):
            common["classes"] = "manifest.csv"
        each = [self.schema.channels] if self.one_file else [(c,) for c in self.schema.channels]
        return [
            {"images": folder, "channels": ",".join(channels), **common}
            for folder, channels in zip(self.folders, each, strict=True)
        ]

    def _line(self, row: Mapping[str, Any]) -> dict[str, Any]:

        def listed(kind: str, key: str) -> str:
            return ";".join(entry[key] for entry in row.get(kind, ()))

        low_high = (f"{low:.6g}:{high:.6g}" for low, high in self.windows.values())
        return {
            **{key: row[key] for key in ("case", "index", "seed", "class", "reject_reason")},
            **self.made,
            "file": listed("images", "file"),
            "mask": listed("mask", "file"),
            "overlay": listed("overlay", "file"),
            "areas": ";".join(f"{name}:{area}" for name, area in row["areas"].items()),
            "boxes": ";".join(
                f"{box['label']}:{' '.join(f'{edge:g}' for edge in box['box'])}"
                for box in row["boxes"]
            ),
            "window": ";".join(low_high),
            "sha256": listed("images", "sha256"),
            "mask_sha256": listed("mask", "sha256"),
        }
