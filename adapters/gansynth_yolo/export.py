"""``gansynth augment --target yolo --export DIR``: a folder that stock detectors train on."""

from __future__ import annotations

import os
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gansynth import (
    BankReader,
    BankSample,
    DataSetExport,
    Item,
    Ratio,
    UsageFault,
    Writer,
    write_json_atomic,
)
from gansynth.sampling.png_writer import PictureOptions
from gansynth_yolo.intake import YoloIntake
from gansynth_yolo.mirror import check_path, names_of, parts, place
from gansynth_yolo.mixed import pixels
from gansynth_yolo.source import YoloSource
from gansynth_yolo.writer import YoloWriter

REAL, SYNTHETIC = "real", "synth"  # folders in `images` and `labels`
MOST_REPEATS = 8  # most times that a real image is listed to reach R:S exactly
NOT_ANONYMOUS = (
    "synthetic is not anonymous: boxes resemble those of training images, and a generator can "
    "reproduce memorised images. Look at the images before you share them"
)
LINKED = (
    "real images and labels are links to your own: keep those where they are; detectors write "
    "their caches into this folder only"
)


class YoloExport(DataSetExport):
    """A folder of images and labels, and its ``data.yaml``."""

    unit = "image"
    notes: ClassVar[Mapping[str, str]] = {"mixed": LINKED, "synthetic": NOT_ANONYMOUS}
    source: YoloSource

    def folder_for(self, name: str) -> Path:
        folder, home = self.new_folder(name), Path(os.path.realpath(self.source.file.home))
        if Path(os.path.realpath(folder)).is_relative_to(home):
            raise UsageFault(
                "yolo.export-inside-data-set",
                f"--export {folder}: lies in the data set's own folder {home}. Its images might "
                "be mixed up with the data set's; choose a folder outside of it",
            )
        check_path(folder, "--export ")
        return folder

    def measure(self) -> int:
        """Return the bytes of one uncompressed sample: float32 images."""
        if self.manifest is not None:
            return 2 * YoloIntake(self.source, self.target).sample_bytes(self.manifest)
        assert self.request.bank is not None
        reader = BankReader(self.request.bank)
        return sum(reader.read(held).image.size * 4 for held in reader.ids()[:1])

    @property
    def alone(self) -> bool:
        return super().alone or (self.content == "synthetic" and self.size is not None)

    def count(self, alone: int | None) -> tuple[int, int]:
        if alone is not None:
            return 0, alone
        images, request = len(self.source.train_ids), self.request
        return exact_counts(images, request.mix.ratio, nearest=request.round_ratio)

    def room(self) -> int:
        """Return the most bytes of the files (one per value) and of the bank."""
        made = 0 if self.request.bank is not None else self.sample_bytes
        return self.samples * (self.sample_bytes // 4 + made)

    def describe(self) -> dict[str, Any]:
        real = len(self.source.train_ids) if self.repeats else 0
        listed = self.repeats * real
        document = super().describe()
        document |= {
            "ratio_written": f"{listed}:{self.samples}",
            "real_images": real,
            "images_per_epoch": listed + self.samples,
        }
        if self.content == "mixed":
            document["then"] = f"any YOLO detector, with data={self.folder / 'data.yaml'}"
        return document

    def begin(self, folder: Path) -> Writer:
        return _ExportWriter(folder, self)

    def item(self, number: int, sample: BankSample) -> Item:
        picture = np.moveaxis(pixels(sample.image, len(self.source.schema.channels)), -1, 0)
        image = np.asarray(picture / np.float32(255), np.float32)
        name = f"synth_{number:0{len(str(self.samples))}d}"
        boxes = None if sample.boxes is None else sample.boxes.in_plane
        return Item(name, image, boxes=boxes, part=SYNTHETIC, facts=dict(sample.provenance))

    def private(self, reader: BankReader) -> dict[str, Any]:
        return dict(super().private(reader), data_file=str(self.source.file.path))


class _ExportWriter(YoloWriter):
    """Also links real images, and counts both kinds."""

    def __init__(self, folder: Path, export: YoloExport) -> None:
        super().__init__(
            folder, export.source.schema, PictureOptions.model_validate({"window": "0:1"})
        )
        self.export, self.home = export, export.folder
        self.mixed, self.splits = export.content == "mixed", dict[str, list[str]]()
        for split, images in parts(export.source).items() if self.mixed else ():
            if images and (split != "train" or export.repeats):
                self.splits[split] = names_of(images)
                place(images, folder, REAL if split == "train" else split)

    def where(self) -> dict[str, str]:
        if not self.mixed:
            return {"train": f"images/{SYNTHETIC}"}
        where = {"path": str(self.home), "train": "train.txt"}
        where |= {split: f"images/{split}" for split in self.splits if split != "train"}
        return where

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        super().finish(about)
        source, repeats = self.export.source, self.export.repeats
        if self.mixed:
            listed = [f"images/{REAL}/{name}" for name in self.splits.get("train", ())] * repeats
            drawn = sorted((self.folder / "images" / SYNTHETIC).glob("*.png"))
            listed += [f"images/{SYNTHETIC}/{path.name}" for path in drawn]
            lines = [f"{self.home / name}\n" for name in listed]
            (self.folder / "train.txt").write_text("".join(lines), "utf-8")
        images, lesions = {"synthetic": self.images.total()}, {"synthetic": self.boxes.total()}
        if self.mixed:
            images["real"] = repeats * len(source.train_ids)
            boxes = [len(source.image(case).rows) for case in source.train_ids]
            lesions["real"] = repeats * sum(boxes)
        document = dict(about)
        document |= {"names": list(source.file.names), "images": images, "lesions": lesions}
        document["lesion_free"] = self.lesion_free
        write_json_atomic(self.folder / "manifest.json", document)
        free = len(self.lesion_free)
        return {"ratio_of_images": images, "ratio_of_lesions": lesions, "lesion_free": free}


def exact_counts(images: int, ratio: Ratio, *, nearest: bool = False) -> tuple[int, int]:
    """Return how often each real image is listed, and the synthetic images, for an exact R:S."""
    repeats, count, even = ratio.listed(images, MOST_REPEATS)
    if not even and not nearest:
        parts = ratio.whole_parts()
        exact = Fraction(images * parts[1], parts[0])
        raise UsageFault(
            "yolo.export-repeats-too-often",
            f"--export with --ratio {ratio}: {images} real images need {float(exact):.6g} "
            f"synthetic ones, so each would be listed {exact.denominator} times, expected at most "
            f"{MOST_REPEATS}. The nearest is --ratio {repeats * images}:{count}; take it, or add "
            "--round-ratio",
        )
    return repeats, count
