"""``gansynth augment --target yolo -o DIR``: a folder that stock detectors train on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import yaml

from gansynth.bank.reader import BankReader, BankSample
from gansynth.core.ratio import Ratio, listed_counts, whole_parts
from gansynth.core.synthetic import KEY, marked_pixels
from gansynth.hosts.export import DataSetExport, hashes_of, new_folder
from gansynth.report.png import png_bytes
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.runtime.version import __version__
from gansynth.sampling.identifiers import names_in
from gansynth_yolo.guards import sample_bytes
from gansynth_yolo.labels import as_rows, label_text
from gansynth_yolo.mirror import names_of, parts, place
from gansynth_yolo.mixed import corners, pixels
from gansynth_yolo.source import YoloSource

MANIFEST = "manifest.json"
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


@dataclass(frozen=True)
class ExportedImage:
    """A synthetic image on disk: its name, its sample's id, its number of boxes."""

    name: str
    id: str
    boxes: int


class YoloExport(DataSetExport):
    """A folder of images and labels, and its ``data.yaml``."""

    target = "yolo"
    unit = "image"
    trains = "a detector trains"
    for_schedules = "Leave -o out to train with a schedule"
    source: YoloSource

    # -- the order -------------------------------------------------------------------------------

    def place(self, name: str) -> Path:
        """Return a new folder whose path detectors can handle."""
        folder, home = new_folder(name), Path(os.path.realpath(self.source.file.home))
        if Path(os.path.realpath(folder)).is_relative_to(home):
            raise UsageFault(
                f"-o {folder}: lies in the data set's own folder {home}. Its images might be mixed "
                "up with the data set's; choose a folder outside of it"
            )
        # Of a path with more than one, libreyolo looks for labels where there are none.
        if any(part in ("images", "labels") for part in folder.parts):
            raise UsageFault(
                f"-o {folder}: a part of this path is called images or labels, by which detectors "
                "find label files; expected none that is; choose another folder"
            )
        return folder

    def measure(self) -> int:
        """Return the bytes of one uncompressed sample: float32 images."""
        if self.manifest is not None:
            return 2 * sample_bytes(self.manifest)
        assert self.mix_config.bank is not None
        reader = BankReader(self.mix_config.bank)
        return sum(reader.read(held).image.size * 4 for held in reader.ids()[:1])

    @property
    def alone(self) -> bool:
        """Whether the user sets the number of images, whatever the ratio."""
        return super().alone or (self.content == "synthetic" and self.size is not None)

    def count(self, alone: int | None) -> tuple[int, int]:
        """Return the copies of each real image, and the synthetic images, for an exact R:S."""
        if alone is not None:
            return 0, alone
        mix_config, images = self.mix_config, len(self.source.train_ids)
        return exact_counts(images, mix_config.ratio, nearest=mix_config.nearest)

    def room(self) -> int:
        """Return the most bytes of the files (one per value) and of the bank."""
        made = 0 if self.mix_config.bank is not None else self.sample_bytes
        return self.samples * (self.sample_bytes // 4 + made)

    # -- what is in it ---------------------------------------------------------------------------

    @property
    def note(self) -> str:
        """The notice for recipients of the folder."""
        return LINKED if self.content == "mixed" else NOT_ANONYMOUS

    def describe(self) -> dict[str, Any]:
        """Return a JSON document for the user."""
        mixed = self.content == "mixed"
        real = len(self.source.train_ids) if self.repeats else 0
        listed = self.repeats * real
        document = {
            "target": "yolo",
            "data": self.source.name,
            "folder": str(self.folder),
            "content": self.content,
            "ratio": str(self.mix_config.ratio),
            "ratio_written": f"{listed}:{self.samples}",
            "synthetic_images": self.samples,
            "real_images": real,
            "each_real_image_listed": self.repeats,
            "images_per_epoch": listed + self.samples,
            "held_out_images": len(self.source.held_out_ids) if mixed else 0,
            "synthetic_share": self.samples / (listed + self.samples),
            "record": str(self.folder / MANIFEST if mixed else self.record),
            "note": self.note,
        }
        if mixed:
            document["then"] = f"any YOLO detector, with data={self.folder / 'data.yaml'}"
        return document

    # -- writing ---------------------------------------------------------------------------------

    def write(
        self, folder: Path, reader: BankReader, rejected: Mapping[str, Any], reporter: Reporter
    ) -> Mapping[str, Any]:
        """See ``DataSetExport.write``."""
        splits = self._write_real(folder)
        ids = reader.ids()[: self.samples]
        written = []
        with reporter.task(len(ids), "write") as bar:
            for number, sample_id in enumerate(ids):
                written.append(self._write_sample(folder, number, reader.read(sample_id)))
                bar.advance(1)
        if self.content == "mixed":
            real = [folder / "images" / REAL / n for n in splits.pop("train")] * self.repeats
            synthetic = [folder / "images" / SYNTHETIC / f"{image.name}.png" for image in written]
            lines = [str(self.folder / p.relative_to(folder)) for p in (*real, *synthetic)]
            (folder / "train.txt").write_text("".join(f"{line}\n" for line in lines), "utf-8")
        (folder / "data.yaml").write_text(self._data_yaml(tuple(splits)), "utf-8")
        manifest = self._manifest(reader, written, rejected) | {"files": hashes_of(folder)}
        private = {
            "data": self.source.name,
            "data_file": str(self.source.file.path),
            "boxes": reader.spec.samples.boxes,
            "judged": not reader.spec.samples.keep_flawed,
            **self.origins(reader, {image.name: image.id for image in written}),
        }
        if self.content == "mixed":
            manifest |= private
        else:
            self.keep({**manifest, **private, "folder": str(self.folder)})
        write_json_atomic(folder / MANIFEST, manifest)
        return {
            "ratio_of_images": manifest["images"],
            "ratio_of_lesions": manifest["lesions"],
            "lesion_free": len(manifest["lesion_free"]),
        }

    def _write_real(self, folder: Path) -> dict[str, list[str]]:
        """Link real images and labels, and return the names of the image files by split."""
        if self.content == "synthetic":
            return {}
        splits = {}
        for split, images in parts(self.source).items():
            if not images or (split == "train" and not self.repeats):
                continue
            home = REAL if split == "train" else split
            splits[split] = names_of(images)
            for name, image in zip(splits[split], images, strict=True):
                place(image, name, folder / "images" / home, folder / "labels" / home)
        splits.setdefault("train", [])
        return splits

    def _write_sample(self, folder: Path, number: int, sample: BankSample) -> ExportedImage:
        if sample.boxes is None:
            raise DataFault(
                f"sample {sample.id}: has no boxes, expected a list of them, which may be empty; "
                "take a generator that is asked for boxes, such as cpggan"
            )
        image = pixels(sample.image, len(self.source.schema.channels))
        boxes, labels = corners(sample.boxes)
        name = f"synth_{number:0{len(str(self.samples))}d}"
        for part in ("images", "labels"):
            (folder / part / SYNTHETIC).mkdir(parents=True, exist_ok=True)
        flat = image[..., 0] if image.shape[2] == 1 else image
        (folder / "images" / SYNTHETIC / f"{name}.png").write_bytes(
            png_bytes(marked_pixels(flat), synthetic=True)
        )
        rows = as_rows(boxes[:, [1, 0, 3, 2]], labels, image.shape[:2])
        (folder / "labels" / SYNTHETIC / f"{name}.txt").write_text(label_text(rows), "utf-8")
        return ExportedImage(name, sample.id, len(boxes))

    def _data_yaml(self, held_out: Sequence[str]) -> str:
        """Return ``data.yaml`` with absolute paths, or relative ones for sharing."""
        file = self.source.file
        if self.content == "mixed":
            where = {"path": str(self.folder), "train": "train.txt"}
            where |= {split: f"images/{split}" for split in held_out}
        else:
            where = {"train": f"images/{SYNTHETIC}"}
        document = {
            **where,
            "nc": len(file.names),
            "names": dict(enumerate(file.names)),
            "channels": file.channels,
        }
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True)

    def _manifest(
        self, reader: BankReader, written: Sequence[ExportedImage], rejected: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Return the manifest that may be shared: without names and numbers of source images."""
        source, mixed = self.source, self.content == "mixed"
        if not mixed:
            rejected = names_in(reader.spec.lineage, source.schema).blanked(rejected)
        counts = {"images": len(written), "lesions": sum(image.boxes for image in written)}
        real = {
            "images": self.repeats * len(source.train_ids),
            "lesions": self.repeats * sum(len(source.image(c).rows) for c in source.train_ids),
        }
        document: dict[str, Any] = {
            "gansynth": __version__,
            KEY: not mixed,
            "content": self.content,
            "names": list(source.file.names),
            **{
                unit: {**({"real": real[unit]} if mixed else {}), "synthetic": count}
                for unit, count in counts.items()
            },
            "lesion_free": [image.name for image in written if not image.boxes],
            **self.made_by(reader),
            "rejected": dict(rejected),
            "note": self.note,
        }
        if mixed:
            document["ratio"] = str(self.mix_config.ratio)
            document["each_real_image_listed"] = self.repeats
        return document


def exact_counts(images: int, ratio: Ratio, *, nearest: bool = False) -> tuple[int, int]:
    """Return how often each real image is listed, and the synthetic images, for an exact R:S."""
    repeats, count, even = listed_counts(images, ratio, MOST_REPEATS)
    if not even and not nearest:
        parts = whole_parts(ratio)
        exact = Fraction(images * parts[1], parts[0])
        raise UsageFault(
            f"-o with --ratio {ratio}: {images} real images need {float(exact):.6g} synthetic "
            f"ones, so each would be listed {exact.denominator} times, expected at most "
            f"{MOST_REPEATS}. The nearest is --ratio {repeats * images}:{count}; take it, or add "
            "--nearest"
        )
    return repeats, count
