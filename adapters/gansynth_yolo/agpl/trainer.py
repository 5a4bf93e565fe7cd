"""ultralytics' training set with slots that are filled from a sample bank, and its trainer.

Licence: AGPL-3.0; see this package's docstring. Importing this module imports ultralytics.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import cv2
import numpy as np
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import colorstr

from gansynth.core.schema import FloatArray
from gansynth.data.picture_files import picture_header
from gansynth.runtime.errors import DataFault
from gansynth.runtime.yaml_text import read_yaml
from gansynth_yolo.dataset_file import SPLITS
from gansynth_yolo.detectors import STRIDE, TrainingWatch, finite
from gansynth_yolo.labels import read_labels

if TYPE_CHECKING:
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
    # of a sample, uint8 (H, W, C), BGR if C is 3, its long side `imgsz`; None for a real image,
    # whose pixels ultralytics holds
    image: Any = None
    shape: tuple[int, int] = (0, 0)  # of the sample before scaling; its boxes refer to it


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
        self._needed = Counter[int]()  # real image -> places of the buffer that it fills
        for place in range(len(self.labels), len(self.slots)):
            boxes, classes, shape = self.slots.typical(place)  # for class counts and plots
            self.im_files.append(f"synthetic://{place}")
            self.labels.append(
                {"im_file": self.im_files[-1], "shape": shape, **_annotated(boxes, classes, shape)}
            )
        if self.augment:
            self.max_buffer_length = min(len(self.labels), self.batch_size * 8, 1000)

    def __getitem__(self, index: int) -> dict[str, Any]:
        loaded = self._load(self.slots.primary(index))
        self._keep(index, loaded)
        return dict(self.transforms(self._label(loaded)))

    def get_image_and_label(self, index: int) -> dict[str, Any]:
        """Return a partner: image and boxes of one draw, before augmentation."""
        partner = self.buffer.get(index)
        if partner is None or not self.slots.again(partner.drawn):
            partner = self._load(self.slots.partner(index))
        return self._label(partner)

    def load_image(self, i: int, *args: Any, **kwargs: Any) -> Any:
        """Load a real image as ultralytics does, without changing ``buffer``."""
        buffer, self.buffer = self.buffer, []  # type: ignore[assignment]  # it appends to a list
        try:
            return super().load_image(i, *args, **kwargs)
        finally:
            self.buffer = buffer

    def _keep(self, place: int, loaded: LoadedImage) -> None:
        """Store a primary as a possible partner, and drop the oldest one."""
        if not self.augment or self.cache == "ram":
            return
        if place in self.buffer:
            self._forget(self.buffer[place])
        self.buffer[place] = loaded
        if loaded.image is None:
            self._needed[loaded.drawn.real] += 1
        if 1 < len(self.buffer) >= self.max_buffer_length:
            self._forget(self.buffer.pop(next(iter(self.buffer))))

    def _forget(self, loaded: LoadedImage) -> None:
        if loaded.image is None:
            self._needed[loaded.drawn.real] -= 1
            self._release(loaded.drawn.real)

    def _release(self, real: int) -> None:
        """Release a real image's pixels, unless a slot of the buffer needs them."""
        if self.augment and self.cache != "ram" and not self._needed[real]:
            self.ims[real] = self.im_hw0[real] = self.im_hw[real] = None

    def _load(self, drawn: ImageDraw) -> LoadedImage:
        """Return a drawn entry; a sample is scaled as ultralytics scales an image."""
        if drawn.image is None:
            return LoadedImage(drawn)
        height, width = shape = drawn.image.shape[:2]
        scale = self.imgsz / max(height, width)
        image: Any = np.ascontiguousarray(drawn.image[..., ::-1])
        if scale != 1:
            size = [min(math.ceil(side * scale), self.imgsz) for side in (width, height)]
            image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
        image = image if image.ndim == 3 else image[..., None]
        return LoadedImage(replace(drawn, image=None), image, shape)

    def _label(self, loaded: LoadedImage) -> dict[str, Any]:
        """Return ultralytics' label of an image, new each time because it is modified."""
        drawn, image, before = loaded.drawn, loaded.image, loaded.shape
        if image is None:
            label: dict[str, Any] = super().get_image_and_label(drawn.real)
            self._release(drawn.real)
            return label
        shape = image.shape[:2]
        label = {
            "im_file": f"synthetic://{drawn.id}",
            **_annotated(drawn.boxes, drawn.labels, before),
            "img": image,
            "ori_shape": before,
            "resized_shape": shape,
            "ratio_pad": (shape[0] / before[0], shape[1] / before[1]),
        }
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

    def __init__(
        self, slots: EpochSlots, watch: TrainingWatch, settings: Mapping[str, Any]
    ) -> None:
        self.slots, self.watch = slots, watch
        self._began, self._open = 0.0, False
        super().__init__(overrides=dict(settings))
        # Without a GPU ultralytics ignores the number of workers.
        self.args.workers = settings["workers"]
        self.add_callback("on_train_start", lambda trainer: slots.rewind(trainer.start_epoch))
        self.add_callback("on_train_batch_start", MixedTrainer._begin_step)
        self.add_callback("on_train_batch_end", MixedTrainer._end_step)
        self.add_callback("on_train_epoch_end", MixedTrainer._end_training)
        self.add_callback("on_fit_epoch_end", MixedTrainer._end_epoch)

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        """Build a mixed set for training, and ultralytics' own otherwise."""
        if mode != "train":
            return super().build_dataset(img_path, mode, batch)
        model: Any = self.model
        return MixedUltralyticsDataset(
            img_path=img_path,
            imgsz=self.args.imgsz,
            batch_size=batch,
            augment=True,
            hyp=self.args,
            rect=False,
            cache=self.args.cache or None,
            single_cls=False,
            stride=max(int(model.stride.max()), STRIDE),
            pad=0.0,
            prefix=colorstr("train: "),
            task=self.args.task,
            classes=None,
            data=self.data,
            fraction=1.0,
            slots=self.slots,
        )

    def _close_dataloader_mosaic(self) -> None:
        super()._close_dataloader_mosaic()
        # What its workers have drawn ahead is thrown away with them.
        self.train_loader.reset()
        self.slots.rewind(self.epoch)

    # -- what it tells ---------------------------------------------------------------------------

    def _begin_step(self) -> None:
        self._began = time.perf_counter()

    def _end_step(self) -> None:
        self.watch.step(self._began, time.perf_counter())

    def _end_training(self) -> None:
        self._open = True

    def _end_epoch(self) -> None:
        """Report an epoch after its weights are saved, but not after the best weights are."""
        if self._open:
            self._open = False
            numbers = {**self.label_loss_items(self.tloss), **(self.metrics or {})}
            self.watch.epoch(self.epoch + 1, finite(numbers))
