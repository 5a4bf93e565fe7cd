"""LibreYOLO's training set with slots that are filled from a sample bank on access.

Importing this module imports LibreYOLO, also in worker processes. Two names of its trainer module
are replaced while a training is set up and runs.
"""

from __future__ import annotations

import contextlib
import importlib
import math
import time
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler

from gansynth.runtime.errors import DataFault
from gansynth_yolo.detectors import import_library

if TYPE_CHECKING:
    from gansynth_yolo.detectors import TrainingWatch
    from gansynth_yolo.mixed import EpochSlots

import_library("libreyolo")
_data: Any = importlib.import_module("libreyolo.data.dataset")
_trainer: Any = importlib.import_module("libreyolo.training.trainer")
_ANNOTATED = np.zeros((1, 5), np.float32)


@contextlib.contextmanager
def mixed_training(slots: EpochSlots, watch: TrainingWatch) -> Iterator[None]:
    """Let trainings of LibreYOLO use slots in this context; validation never does."""
    stock = _trainer.YOLODataset, _trainer.create_dataloader
    _trainer.YOLODataset = partial(MixedLibreDataset, slots)
    _trainer.create_dataloader = partial(make_loader, watch)
    try:
        yield
    finally:
        _trainer.YOLODataset, _trainer.create_dataloader = stock


class MixedLibreDataset(_data.YOLODataset):  # type: ignore[misc]  # LibreYOLO has no types
    """The real images, sorted by path, then the synthetic slots. An index is a slot.

    LibreYOLO calls ``pull_item`` for the image of an item and for its partners in a mosaic or
    MixUp. ``MosaicDataset`` sets the current item. Partners are chosen uniformly among slots whose
    ``load_anno`` has boxes. Here every slot has boxes, and its content is drawn by the same
    preference. So the preference does not change the ratio.
    """

    def __init__(self, slots: EpochSlots, *args: Any, **kwargs: Any) -> None:
        images, labels = kwargs["img_files"], kwargs["label_files"]
        pairs = sorted(zip(images, labels, strict=True), key=lambda pair: str(pair[0]))
        kwargs["img_files"], kwargs["label_files"] = map(list, zip(*pairs, strict=True))
        super().__init__(*args, **kwargs)
        if self.num_imgs != slots.real:
            raise DataFault(
                f"{self.img_files[0].parent}: LibreYOLO finds {self.num_imgs} training images, "
                f"expected {slots.real}; leave the folder alone while a training runs"
            )
        self.slots = slots
        self._annotated = np.flatnonzero([len(boxes) for boxes, *_ in self.annotations])
        self._primary = -1

    def __len__(self) -> int:
        return len(self.slots)

    def begin(self, index: int) -> None:
        """Mark the next pull of this slot as a primary; all further pulls are partners."""
        self._primary = index

    def load_anno(self, index: int) -> Any:
        """Return dummy boxes, which make every slot a possible partner."""
        return _ANNOTATED

    def pull_item(self, index: int) -> tuple[Any, ...]:
        """Return image, boxes, image size and a number: all of one draw, before augmentation."""
        if self._primary == index:
            self._primary = -1
            drawn = self.slots.primary(index)
        else:
            drawn = self.slots.partner(index, self._annotated)
        if drawn.image is None:
            return tuple(super().pull_item(drawn.real))
        colours = cv2.COLOR_GRAY2BGR if drawn.image.shape[2] == 1 else cv2.COLOR_RGB2BGR
        image: Any = cv2.cvtColor(drawn.image, colours)
        size = image.shape[:2]
        label = np.column_stack([drawn.boxes, drawn.labels]).astype(np.float32)
        if not getattr(self.preproc, "wants_unresized_image", False):
            image = self._resize_decoded(image)
            label[:, :4] *= min(self.img_size[0] / size[0], self.img_size[1] / size[1])
        return image, label, size, index


class MosaicDataset(Dataset):  # type: ignore[type-arg]
    """LibreYOLO's mosaic and MixUp around a mixed set, which is told the current item."""

    def __init__(self, items: Any) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Any:
        self.items.dataset.begin(index)
        return self.items[index]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name == "items":  # not yet unpickled, or some protocol's
            raise AttributeError(name)
        return getattr(self.items, name)


class EvenBatchSampler(Sampler[list[int]]):
    """Every slot once per epoch, in batches of nearly equal size.

    LibreYOLO itself drops an incomplete last batch. A batch of one image fails in batch norm.
    """

    def __init__(self, data: Any, batch: int) -> None:
        self._order = RandomSampler(data)
        self._count = math.ceil(len(data) / batch)

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[list[int]]:
        for places in np.array_split(list(self._order), self._count):
            yield places.tolist()


class TimedLoader(DataLoader):  # type: ignore[type-arg]
    """A loader that reports the time of a step: from handing out a batch to the next request."""

    watch: TrainingWatch

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            begin = time.perf_counter()
            yield batch
            self.watch.step(begin, time.perf_counter())


def make_loader(
    watch: TrainingWatch,
    dataset: Any,
    batch_size: int,
    num_workers: int,
    pin_memory: bool,
    **ignored: Any,
) -> TimedLoader:
    """Replace LibreYOLO's ``create_dataloader``; ``ignored`` are its options for drawing images."""
    data = MosaicDataset(dataset)
    loader = TimedLoader(
        data,
        batch_sampler=EvenBatchSampler(data, batch_size),
        num_workers=num_workers,
        pin_memory=pin_memory,
        collate_fn=_data.yolox_collate_fn,
    )
    loader.watch = watch
    return loader
