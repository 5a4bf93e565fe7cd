"""A folder of images, label files and ``data.yaml`` that YOLO detectors train on."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from gansynth import DataFault, Item, Schema, UsageFault, yolo_lines
from gansynth.sampling.png_writer import PictureWriter

FOLDS = 5  # one in so many images of an undivided set is for validation


class YoloWriter(PictureWriter):
    """``images/PART/NAME.png`` and ``labels/PART/NAME.txt``; PART is ``train`` or ``val``."""

    name = "yolo"
    needs = frozenset({"boxes"})
    reader = "yolo"
    flawed = False

    def __init__(
        self, folder: Path, schema: Schema, options: Any = None, intensities: Any = tuple
    ) -> None:
        super().__init__(folder, schema, options, intensities)
        self.one_file = True
        self.images, self.boxes = Counter[str](), Counter[str]()
        self.lesion_free: list[str] = []

    @classmethod
    def check(cls, schema: Schema, options: Any) -> None:
        super().check(schema, options)
        if len(schema.channels) not in (1, 3) or (len(schema.channels) == 3 and options.bits == 16):
            raise UsageFault(
                "yolo.channels-not-for-yolo",
                f"{len(schema.channels)} channels ({', '.join(schema.channels)}) of {options.bits} "
                "bits, expected one, or three of 8 bits, for YOLO; "
                "choose with --read channels=NAME",
            )

    def add(self, item: Item) -> None:
        """Write an image and its label file, which is empty without boxes."""
        if item.boxes is None:
            raise DataFault(
                "yolo.sample-without-boxes",
                f"sample {item.name}: has no boxes, expected a list of them, which may be empty; "
                "use a generator that takes boxes, such as cpggan",
            )
        part = item.part or ("train" if self.images.total() % FOLDS else "val")
        (picture,) = self.pictures(item)
        self.save(f"images/{part}/{item.name}.png", picture, item.synthetic)
        label = self.folder / "labels" / part / f"{item.name}.txt"
        label.parent.mkdir(parents=True, exist_ok=True)
        label.write_text(yolo_lines(item.boxes, item.image.shape[1:]), "utf-8")
        self.images[part] += 1
        self.boxes.update(self.schema.box_classes[int(n)] for n in item.boxes.labels)
        if not len(item.boxes.labels):
            self.lesion_free.append(item.name)

    def where(self) -> dict[str, str]:
        """Return the entries of ``data.yaml`` that say where the images are."""
        return {part: f"images/{part}" for part in ("train", "val") if self.images[part]}

    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any]:
        names, channels = self.schema.box_classes, len(self.schema.channels)
        write_data_file(self.folder, self.where(), names, channels)
        return self.report()


def write_data_file(
    folder: Path, where: Mapping[str, str], names: Sequence[str], channels: int
) -> None:
    """Write ``data.yaml``; ``where`` says where the images are."""
    document: dict[str, Any] = dict(where)
    document |= {"nc": len(names), "names": dict(enumerate(names)), "channels": channels}
    text = yaml.safe_dump(document, sort_keys=False, allow_unicode=True)
    (folder / "data.yaml").write_text(text, "utf-8")
