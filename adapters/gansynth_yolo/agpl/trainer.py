"""ultralytics' detection trainer with a mixed training set; validation and test stay its own.

Licence: AGPL-3.0; see this package's docstring. Importing this module imports ultralytics.
"""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.utils import colorstr

from gansynth_yolo.agpl.dataset import MixedDataset

if TYPE_CHECKING:
    from collections.abc import Mapping

    from gansynth_yolo.detectors import Watch
    from gansynth_yolo.mixed import Slots

STRIDE = 32


class MixedTrainer(DetectionTrainer):  # type: ignore[misc]  # Any to mypy
    """Trains on places instead of images, and tells how it goes."""

    def __init__(self, slots: Slots, watch: Watch, settings: Mapping[str, Any]) -> None:
        self.slots, self.watch = slots, watch
        self._began, self._open = 0.0, False
        super().__init__(overrides=dict(settings))
        # Without a GPU it takes no workers, whatever was asked for.
        self.args.workers = settings["workers"]
        self.add_callback("on_train_start", MixedTrainer._start)
        self.add_callback("on_train_batch_start", MixedTrainer._begin_step)
        self.add_callback("on_train_batch_end", MixedTrainer._end_step)
        self.add_callback("on_train_epoch_end", MixedTrainer._end_training)
        self.add_callback("on_fit_epoch_end", MixedTrainer._end_epoch)

    def build_dataset(self, img_path: Any, mode: str = "train", batch: int | None = None) -> Any:
        """A mixed set for training, ultralytics' own for anything else."""
        if mode != "train":
            return super().build_dataset(img_path, mode, batch)
        model: Any = self.model
        return MixedDataset(
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

    def _start(self) -> None:
        self.slots.rewind(self.start_epoch)

    def _begin_step(self) -> None:
        self._began = time.perf_counter()

    def _end_step(self) -> None:
        self.watch.step(self._began, time.perf_counter())

    def _end_training(self) -> None:
        self._open = True

    def _end_epoch(self) -> None:
        """Told after each epoch's weights are saved, and once more for the best, which is none."""
        if self._open:
            self._open = False
            numbers = {**self.label_loss_items(self.tloss), **(self.metrics or {})}
            told = {name: float(value) for name, value in numbers.items()}
            self.watch.epoch(self.epoch + 1, {k: v for k, v in told.items() if math.isfinite(v)})
