"""ultralytics' training set with slots that are filled from a sample bank, and its trainer.

Licence: AGPL-3.0; see this package's docstring. Importing this module imports ultralytics.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import cv2
import numpy as np
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer

from gansynth.core.schema import FloatArray
from gansynth.data.picture_files import picture_header
from gansynth.runtime.errors import DataFault
from gansynth.runtime.yaml_text import read_yaml
from gansynth_yolo.dataset_file import SPLITS, read_labels
from gansynth_yolo.detectors import shown

if TYPE_CHECKING:
    from gansynth.hosts.host import Job
    from gansynth_yolo.mixed import Classes, EpochSlots, ImageDraw


@contextlib.contextmanager
def own_readers() -> Iterator[None]:
    """Let ultralytics read data sets by our functions in this context.

    Its own ones run what a ``download:`` in ``data.yaml`` says, rewrite JPEG files, and leave out
    images whose labels they dislike.
    """
    with (
        patch("ultralytics.engine.trainer.check_det_dataset", read_data),
        patch("ultralytics.engine.validator.check_det_dataset", read_data),
        patch("ultralytics.data.dataset.verify_image_label", read_image_label),
    ):
        yield


def read_data(file: str, *_: Any, **__: Any) -> dict[str, Any]:
    """Return a mirror's ``data.yaml`` in place of ``check_det_dataset``."""
    document, _text = read_yaml(Path(file), "data.yaml of a mirror")
    home = Path(document["path"])
    places = {split: str(home / document[split]) for split in SPLITS if split in document}
    return {**document, **places, "path": home, "yaml_file": file}


def read_image_label(task: tuple[Any, ...]) -> list[Any]:
    """Return shape and labels of an image in place of ``verify_image_label``."""
    image, label, classes = Path(task[0]), Path(task[1]), int(task[4])
    rows, faults = read_labels(label, [str(number) for number in range(classes)], 0.5)
    for fault in faults:
        raise fault
    shape, empty = picture_header(image).shape, int(not len(rows))
    return [str(image), rows.astype(np.float32), shape, [], None, 0, 1 - empty, empty, 0, ""]


@dataclass(frozen=True)
class LoadedImage:
    """The content of a slot, in the form of a loaded image of ultralytics."""

    drawn: ImageDraw  # without its image
    label: Mapping[str, Any]
    # uint8 (H, W, C), BGR if C is 3, its long side `imgsz`; its shape before and after scaling
    loaded: tuple[Any, tuple[int, int], tuple[int, int]]


class MixedUltralyticsDataset(YOLODataset):  # type: ignore[misc]  # Any to mypy
    """The real images, then a slot for each synthetic one. An index is a slot.

    ultralytics calls ``__getitem__`` for the images of an epoch: primaries, counted exactly. It
    calls ``get_image_and_label`` for the other images of a mosaic, MixUp or CutMix: partners.

    A mosaic takes its partners from ``buffer``. In stock ultralytics an image enters it when it is
    read from disk, which never happens to samples. Here each slot's primary enters once. So
    partners have the ratio of the primaries, and need no further draw.
    """

    def __init__(self, *args: Any, slots: EpochSlots, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        if len(self.labels) != slots.real:
            raise DataFault(
                f"{self.img_path}: ultralytics reads {len(self.labels)} training images, expected "
                f"{slots.real}; leave the folder alone while a training runs"
            )
        self.slots = slots
        # By place, oldest first; a mosaic lists the keys.
        self.buffer: dict[int, LoadedImage] = {}
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (0, 0)
        for place in range(len(self.labels), len(self.slots)):
            self.im_files.append(f"synthetic://{place}")
            label = {"im_file": self.im_files[-1], "shape": (0, 0), **_annotated(*nothing)}
            self.labels.append(label)
        self.max_buffer_length = min(len(self.labels), self.batch_size * 8, 1000)

    def __getitem__(self, index: int) -> dict[str, Any]:
        loaded = self._load(self.slots.primary(index))
        if self.cache != "ram":
            self.buffer[index] = loaded
            if 1 < len(self.buffer) >= self.max_buffer_length:
                del self.buffer[next(iter(self.buffer))]
        return dict(self.transforms(self._label(loaded)))

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Return a partner: image and boxes of one draw, before augmentation."""
        partner = self.buffer.get(index)
        if partner is None or not self.slots.again(partner.drawn):
            partner = self._load(self.slots.partner(index))
        return self._label(partner)

    def _load(self, drawn: ImageDraw) -> LoadedImage:
        """Return a drawn entry; a sample is scaled as ultralytics scales an image."""
        if drawn.image is None:
            buffer, self.buffer = self.buffer, []  # type: ignore[assignment]  # it appends
            loaded, self.buffer = self.load_image(drawn.real), buffer
            if self.cache != "ram":
                self.ims[drawn.real] = None
            return LoadedImage(drawn, self.labels[drawn.real], loaded)
        height, width = shape = drawn.image.shape[:2]
        scale = self.imgsz / max(height, width)
        image: Any = np.ascontiguousarray(drawn.image[..., ::-1])
        if scale != 1:
            size = [min(math.ceil(side * scale), self.imgsz) for side in (width, height)]
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        image = image if image.ndim == 3 else image[..., None]
        annotated = _annotated(drawn.boxes, drawn.labels, shape)
        label = {"im_file": f"synthetic://{drawn.id}", **annotated}
        return LoadedImage(replace(drawn, image=None), label, (image, shape, image.shape[:2]))

    def _label(self, loaded: LoadedImage) -> dict[str, Any]:
        """Return ultralytics' label of an image, new each time because it is modified."""
        image, before, after = loaded.loaded
        label = {key: deepcopy(value) for key, value in loaded.label.items() if key != "shape"}
        label |= {"img": image, "ori_shape": before, "resized_shape": after}
        label["ratio_pad"] = (after[0] / before[0], after[1] / before[1])
        return dict(self.update_labels_info(label))


def _annotated(boxes: FloatArray, classes: Classes, shape: tuple[int, int]) -> dict[str, Any]:
    """Return boxes x1, y1, x2, y2 (pixels) in ultralytics' form: centre and size, 0 to 1."""
    height, width = (max(1, side) for side in shape)
    centre = (boxes[:, :2] + boxes[:, 2:]) / 2
    around = np.concatenate([centre, boxes[:, 2:] - boxes[:, :2]], axis=1)
    return {
        "cls": classes.astype(np.float32).reshape(-1, 1),
        "bboxes": (around / [width, height, width, height]).astype(np.float32),
        "segments": [],
        "keypoints": None,
        "normalized": True,
        "bbox_format": "xywh",
    }


class MixedTrainer(DetectionTrainer):  # type: ignore[misc]  # Any to mypy
    """Trains on slots instead of images, and reports progress."""

    def __init__(self, slots: EpochSlots, session: Job, settings: Mapping[str, Any]) -> None:
        self.slots, self.session = slots, session
        self._began, self._trained = 0.0, False
        super().__init__(overrides=dict(settings))
        # Without a GPU ultralytics ignores the number of workers.
        self.args.workers = settings["workers"]
        self.add_callback("on_train_start", lambda trainer: slots.rewind(trainer.start_epoch))
        self.add_callback("on_train_batch_start", MixedTrainer._begin_step)
        self.add_callback("on_train_batch_end", MixedTrainer._end_step)
        self.add_callback("on_fit_epoch_end", MixedTrainer._end_epoch)

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        """Build a mixed set for training, and ultralytics' own otherwise."""
        if mode != "train":
            return super().build_dataset(img_path, mode, batch)
        with patch(
            "ultralytics.data.build.YOLODataset", partial(MixedUltralyticsDataset, slots=self.slots)
        ):
            return super().build_dataset(img_path, mode, batch)

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        # What its workers have drawn ahead is thrown away with them.
        self.train_loader.reset()
        self.slots.rewind(self.epoch)

    def _begin_step(self) -> None:
        self._began = time.monotonic()

    def _end_step(self) -> None:
        self.session.took(self._began, time.monotonic())
        self._trained = True

    def _end_epoch(self) -> None:
        """Report an epoch after its weights are saved, and not again after the best weights are."""
        if self._trained:
            self._trained = False
            numbers = {**self.label_loss_items(self.tloss), **(self.metrics or {})}
            self.session.round(self.epoch + 1, **shown(numbers))
