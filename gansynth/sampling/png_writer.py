"""Slices as PNG files with a table, for viewing and for other software.

``pictures:FOLDER`` reads the folder back. ``images/`` holds the images (several channels: a folder
for each), ``masks/`` label numbers, ``overlays/`` optional overlays. ``manifest.csv`` has the
content of each file, ``dataset.json`` names, window and spacing.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, TypeAdapter, field_validator

from gansynth.core.schema import Schema
from gansynth.core.synthetic import marked_pixels
from gansynth.core.writer import Item, Writer, WriterOptions
from gansynth.data.case_writer import names_of
from gansynth.data.connected_components import boxes_of
from gansynth.data.listing import FILE
from gansynth.data.picture_files import IntensityWindow, Windows
from gansynth.report.png import outlined, png_bytes, scaled
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import folder_name, write_json_atomic
from gansynth.runtime.tables import cell

COLOUR = ("red", "green", "blue")
LARGE = 512  # pixels along the longest edge of a picture with outlines, about
COLUMNS = ("case", "file", "mask", "overlay", "class", "areas", "boxes", "reject_reason")
"""Columns of ``manifest.csv``; ``pictures:`` takes classes from ``case`` and ``class``."""
_WINDOWS: TypeAdapter[tuple[IntensityWindow, ...]] = TypeAdapter(Windows)


class PictureOptions(WriterOptions):
    """How intensities become pixels."""

    bits: Literal[8, 16] = Field(8, description="of a pixel")
    window: str = Field(
        "0.5%:99.5%",
        description="black and white: intensities, or percentiles of training cases "
        "(`1%:99%`); one for all channels, or one for each, separated by commas",
    )

    @field_validator("window")
    @classmethod
    def _readable(cls, text: str) -> str:
        _WINDOWS.validate_python(text)
        return text

    @property
    def windows(self) -> tuple[IntensityWindow, ...]:
        """The window of each channel, or one for all."""
        return _WINDOWS.validate_python(self.window)


class PngOptions(PictureOptions):
    """How samples become pictures."""

    overlay: bool = Field(
        False, description="also write images with outlines of labels, or of boxes without them"
    )


class PictureWriter(Writer):
    """What formats of PNG files share: one window for all images of a folder."""

    ndim = frozenset({2})
    Options: ClassVar[type[PictureOptions]] = PictureOptions

    def __init__(
        self, folder: Path, schema: Schema, options: Any = None, intensities: Any = tuple
    ) -> None:
        super().__init__(folder, schema, options, intensities)
        channels = len(schema.channels)
        windows = self.options.windows
        windows = windows * (channels // len(windows))
        of_cases = [window for window in windows if window.percent]
        asked = intensities() if of_cases else [None] * channels
        self.windows = [w.bounds(values) for w, values in zip(windows, asked, strict=True)]
        # Three colours fit into one file, but Pillow supports none of 16 bits.
        self.one_file = channels == 1 or (schema.channels == COLOUR and self.options.bits == 8)
        self.pixels, self.clipped = 0, 0

    @classmethod
    def check(cls, schema: Schema, options: Any) -> None:
        """Refuse a number of windows that is not the channels'."""
        channels = len(schema.channels)
        if len(options.windows) not in (1, channels):
            raise UsageFault(
                "sampling.window-count-differs",
                f"--set window: {len(options.windows)} for {channels} channel(s), expected one for "
                "all, or one for each, separated by commas",
            )

    def pictures(self, item: Item) -> list[npt.NDArray[Any]]:
        """Return the pixels of each file of an item's image: (H, W) or (H, W, 3)."""
        pixels, beyond = scaled(item.image, self.windows, self.options.bits)
        self.pixels += pixels.size
        self.clipped += beyond
        if self.one_file and len(pixels) > 1:
            pixels = np.moveaxis(pixels, 0, -1)[None]
        return [marked_pixels(picture) if item.synthetic else picture for picture in pixels]

    def save(self, name: str, pixels: npt.NDArray[Any], synthetic: bool) -> str:
        """Write a PNG file, and return its name."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png_bytes(pixels, synthetic=synthetic))
        return name

    def report(self) -> dict[str, Any]:
        """Return the window, and the share of pixels outside of it."""
        window = {c: list(w) for c, w in zip(self.schema.channels, self.windows, strict=True)}
        return {"window": window, "clipped": round(self.clipped / max(1, self.pixels), 5)}


class PngWriter(PictureWriter):
    """Images, masks and overlays, and a table of them."""

    name = "png"
    Options: ClassVar[type[PictureOptions]] = PngOptions
    for_sharing = True
    flawed = False

    def __init__(
        self, folder: Path, schema: Schema, options: Any = None, intensities: Any = tuple
    ) -> None:
        super().__init__(folder, schema, options, intensities)
        self.rows: list[dict[str, Any]] = []
        names = [folder_name(channel) for channel in schema.channels]
        if len({name.casefold() for name in names}) < len(names):
            names = [f"{number}_{name}" for number, name in enumerate(names)]
        self.folders = ["images"] if self.one_file else [f"images/{name}" for name in names]

    def add(self, item: Item) -> None:
        labels, boxes, mask = item.labels, item.boxes, item.mask
        file = f"{item.name}.png"
        row = {"case": item.name}
        for key in COLUMNS[4:]:
            row[key] = item.facts.get(key) or ""
        files = []
        for folder, picture in zip(self.folders, self.pictures(item), strict=True):
            files.append(self.save(f"{folder}/{file}", picture, item.synthetic))
        row["file"] = ";".join(files)
        if mask is not None:
            dtype = np.uint8 if mask.max() < 256 else np.uint16
            row["mask"] = self.save(f"masks/{file}", mask.astype(dtype), True)
        if self.options.overlay and (labels is not None or boxes is not None):
            grey = scaled(item.image, self.windows, 8)[0][0]
            drawn = boxes if labels is None else None
            picture = outlined(grey, labels, self.schema.foreground, edge=LARGE, boxes=drawn)
            row["overlay"] = self.save(f"overlays/{file}", picture, True)
        names = {value: name for name, value in self.schema.labels.items()}
        if mask is not None:
            values, counts = np.unique(mask[mask > 0], return_counts=True)
            pairs = zip(values.tolist(), counts.tolist(), strict=True)
            row["areas"] = ";".join([f"{names[value]}:{count}" for value, count in pairs])
        box_names = names
        if boxes is None and labels is not None:
            boxes = boxes_of(labels, self.schema)
        elif self.schema.box_classes:
            box_names = dict(enumerate(self.schema.box_classes))
        if boxes is not None:
            texts = []
            for value, box in zip(boxes.labels.tolist(), boxes.coords, strict=True):
                ends = [f"{round(float(end), 2):g}" for end in box]
                texts.append(f"{box_names.get(value, value)}:{' '.join(ends)}")
            row["boxes"] = ";".join(texts)
        self.rows.append(row)

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        with open(self.folder / "manifest.csv", "w", encoding="utf-8", newline="") as stream:
            table = csv.DictWriter(stream, COLUMNS, restval="", lineterminator="\n")
            table.writeheader()
            for row in self.rows:
                table.writerow({column: cell(value) for column, value in row.items()})
        masked = any("mask" in row for row in self.rows)
        document: dict[str, Any] = {}
        if self.one_file:  # no reader finds several channels by their names alone
            document.update(names_of(self.schema, masked, len(self.rows), ".png"))
        document.update(read=self._read(masked), bits=self.options.bits)
        document.update(self.report())
        document.update(about)
        write_json_atomic(self.folder / FILE, document)
        return self.report()

    def _read(self, masked: bool) -> list[dict[str, str]]:
        """Return the ``--read`` keys for ``pictures:FOLDER``, for each image folder."""
        common = {"spacing": ",".join(map(str, self.schema.spacing))}
        if masked:
            labels = [f"{name}:{value}" for name, value in self.schema.labels.items()]
            common |= {"masks": "masks", "labels": ",".join(labels)}
        if any(row["class"] for row in self.rows):
            common["classes"] = "manifest.csv"
        channels = [",".join(self.schema.channels)] if self.one_file else self.schema.channels
        return [
            {"images": folder, "channels": channel} | common
            for folder, channel in zip(self.folders, channels, strict=True)
        ]
