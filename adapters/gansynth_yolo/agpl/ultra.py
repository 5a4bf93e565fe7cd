"""The ultralytics detectors, and their training set with slots filled from a sample bank.

Licence: AGPL-3.0; see this package's docstring. Importing this module imports ultralytics, silently
and offline.
"""

# ruff: noqa: D103 - the functions of Detector

from __future__ import annotations

import contextlib
import importlib
import logging
import math
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import cv2
import numpy as np

from gansynth import DataFault, DetectedBoxes, FloatArray, TrainingFault, UsageFault
from gansynth.data.picture_files import picture_header
from gansynth.runtime.errors import did_you_mean
from gansynth.runtime.files import verify_zip
from gansynth.runtime.yaml_text import read_yaml
from gansynth_yolo.detectors import (
    ANEW,
    OURS,
    SAME_CLASSES,
    DetectorJob,
    found_by,
    import_library,
    one_line,
    refuse_options,
    shown,
    weights_file,
)
from gansynth_yolo.source import SPLITS, read_labels

if TYPE_CHECKING:
    from gansynth import Job
    from gansynth_yolo.mixed import Classes, EpochSlots, ImageDraw

_SERVICES = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
_HEADS = ("Detect", "v10Detect")
REFUSED: Mapping[str, tuple[Any, str]] = {
    **SAME_CLASSES,
    "task": ("detect", "only detectors are trained"),
    "mode": ("train", "only training is mixed"),
    "split": ("val", "validation keeps its own images"),
    "rect": (False, "it sorts images by shape, and places have none beforehand"),
    "fraction": (1.0, "it would leave out real images that the ratio counts"),
    "compile": (False, "it drops an epoch's last places, which the ratio counts"),
    "time": (None, "the length of a training is given in epochs"),
    "cfg": (None, "name its options one by one"),
}
"""Option -> its only allowed value, and why."""
_STRENGTHS = (
    "hsv_h hsv_s hsv_v degrees translate scale shear perspective flipud fliplr bgr multi_scale "
    "mosaic mixup cutmix copy_paste erasing"
)
NO_AUGMENTATION: Mapping[str, Any] = dict.fromkeys(_STRENGTHS.split(), 0.0) | {
    "auto_augment": None,
    "augmentations": [],
}
"""Options that turn off every augmentation, also those of albumentations."""


def engine() -> Any:
    """Import ultralytics without network access and without changing the user's settings."""
    if "ultralytics" not in sys.modules:
        # Read once, when it is imported: no look for a network, no pip, settings of its own.
        os.environ.update(YOLO_OFFLINE="1", YOLO_AUTOINSTALL="false")
        os.environ["YOLO_CONFIG_DIR"] = _settings_folder().name
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # it would tell where it keeps the settings that we throw away
    try:
        module = import_library("ultralytics")
        utils: Any = importlib.import_module("ultralytics.utils")
    finally:
        logging.disable(disabled)
    # In memory only: its own way of setting one writes a file, perhaps the user's.
    dict.update(utils.SETTINGS, dict.fromkeys(_SERVICES, False))
    utils.ONLINE = False
    return module


@contextlib.contextmanager
def silent_stdout() -> Iterator[None]:
    """Redirect output, logs and progress of ultralytics to stderr."""
    with contextlib.redirect_stdout(sys.stderr):
        for handler in logging.getLogger("ultralytics").handlers:
            if isinstance(handler, logging.StreamHandler):
                handler.setStream(sys.stderr)
        yield


@cache
def _settings_folder() -> tempfile.TemporaryDirectory[str]:
    """Create a temporary settings folder with the fonts that it would download."""
    from matplotlib import get_data_path

    home = tempfile.TemporaryDirectory(prefix="gansynth-ultralytics-")
    folder = Path(home.name) / "Ultralytics"
    folder.mkdir()
    font = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in ("Arial.ttf", "Arial.Unicode.ttf"):
        shutil.copyfile(font, folder / name)
    return home


_ultralytics: Any = engine()
with silent_stdout():
    _cfg: Any = importlib.import_module("ultralytics.cfg")
    _dataset: Any = importlib.import_module("ultralytics.data.dataset")
    _detect: Any = importlib.import_module("ultralytics.models.yolo.detect")
    _patches: Any = importlib.import_module("ultralytics.utils.patches")
    _tasks: Any = importlib.import_module("ultralytics.nn.tasks")


def train(job: DetectorJob, slots: EpochSlots, session: Job) -> Path:
    values, last = settings(job), job.weights / "last.pt"
    if job.resume and last.is_file():
        verify_zip(last, ANEW)
        # Of a training that has ended they hold no state to resume from.
        if int(_patches.torch_load(last, map_location="cpu").get("epoch", -1)) < 0:
            return job.best()
        values["resume"] = str(last)
    with silent_stdout(), one_line("ultralytics"), own_readers():
        MixedTrainer(slots, session, values).train()
    return job.best()


def predict(
    job: DetectorJob, weights: Path, images: Sequence[Path], progress: Callable[[int, int], None]
) -> list[DetectedBoxes]:
    """Detect objects in image files, read as in training: BGR, the upper 8 bits of 16."""
    model, size = _ultralytics.YOLO(str(weights)), max(1, job.batch)
    how = dict(job.prediction(), device=device_name(job.device))
    flags = cv2.IMREAD_GRAYSCALE if job.channels == 1 else cv2.IMREAD_COLOR
    detections = []
    with silent_stdout():
        for first in range(0, len(images), size):
            batch = []
            for path in images[first : first + size]:
                batch.append(_patches.imread(path, flags))
                if batch[-1] is None:
                    raise TrainingFault(
                        "yolo.ultralytics-cannot-read-image",
                        f"{path}: ultralytics cannot read it, expected an image",
                    )
            found = model.predict(batch, **how, verbose=False, save=False)
            detections += [found_by(result) for result in found]
            progress(len(detections), len(images))
    return detections


def settings(job: DetectorJob) -> dict[str, Any]:
    """Return the settings of ultralytics for a job."""
    ours = dict(OURS, model="--set model=", save_dir="--set output=")
    refuse_options(job.options, ours, REFUSED, _cfg.DEFAULT_CFG_DICT, "ultralytics")
    model = find_model(job.model)
    values: dict[str, Any] = {"amp": False, "plots": False, "pretrained": model.endswith(".pt")}
    if not job.augment:
        values.update(NO_AUGMENTATION)
    values.update(job.options)
    values.update(job.settings())
    values |= {
        "task": "detect",
        "mode": "train",
        "model": model,
        "device": device_name(job.device),
        "save_dir": str(job.output.absolute()),
    }
    with silent_stdout():
        try:
            _cfg.get_cfg(overrides=dict(values))  # it checks types and ranges
        except (TypeError, ValueError, SyntaxError) as error:
            text = " ".join(str(error).split())
            raise UsageFault(
                "yolo.ultralytics-refuses-option", f"ultralytics refuses an option: {text}"
            ) from error
    return values


def find_model(name: str) -> str:
    """Return a model's description, ``yolo11n.yaml``, or the initial weights, a ``.pt`` file."""
    if name.endswith(".pt"):
        return str(weights_file(name, f"{Path(name).stem}.yaml"))
    described = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    with silent_stdout():
        try:
            text = _tasks.yaml_model_load(described)
            task, head = _tasks.guess_model_task(text), str(text["head"][-1][-2])
        except (OSError, KeyError, IndexError, TypeError, ValueError, SyntaxError):
            models = [path.name for path in (Path(_cfg.__file__).parent / "models").rglob("*.yaml")]
            models += [m.replace(".yaml", "n.yaml") for m in models if m[-6].isdigit()]
            raise UsageFault(
                "yolo.ultralytics-model-unknown",
                f"--set model={name}: ultralytics has no such model, expected one like "
                f"yolo11n.yaml, or a file .pt.{did_you_mean(described, sorted(models))}",
            ) from None
    if task != "detect" or head not in _HEADS:
        raise UsageFault(
            "yolo.ultralytics-model-head-unexpected",
            f"--set model={name}: its head is {head}, expected {' or '.join(_HEADS)}",
        )
    return described


def device_name(name: str) -> str:
    """Return a device as ultralytics names it; ``cuda:1`` becomes ``1``."""
    return {"cuda": "0"}.get(name, name.removeprefix("cuda:"))


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
    for split in SPLITS:
        if split in document:
            document[split] = str(home / document[split])
    document |= {"path": home, "yaml_file": file}
    return dict(document)


def read_image_label(task: tuple[Any, ...]) -> list[Any]:
    """Return shape and labels of an image in place of ``verify_image_label``."""
    image, label, classes = Path(task[0]), Path(task[1]), int(task[4])
    rows, _, faults = read_labels(label, [str(number) for number in range(classes)], 0.5)
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


class MixedUltralyticsDataset(_dataset.YOLODataset):  # type: ignore[misc]  # Any to mypy
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
                "yolo.ultralytics-training-images-differ",
                f"{self.img_path}: ultralytics reads {len(self.labels)} training images, expected "
                f"{slots.real}; leave the folder alone while a training runs",
            )
        self.slots = slots
        # By place, oldest first; a mosaic lists the keys.
        self.buffer: dict[int, LoadedImage] = {}
        nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), (0, 0)
        for place in range(len(self.labels), len(self.slots)):
            self.im_files.append(f"synthetic://{place}")
            label: dict[str, Any] = {"im_file": self.im_files[-1], "shape": (0, 0)}
            label.update(_annotated(*nothing))
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
        label: dict[str, Any] = {"im_file": f"synthetic://{drawn.id}"}
        label.update(_annotated(drawn.boxes, drawn.labels, shape))
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
    height, width = [max(1, side) for side in shape]
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


class MixedTrainer(_detect.DetectionTrainer):  # type: ignore[misc]  # Any to mypy
    """Trains on slots instead of images, and reports progress."""

    def __init__(self, slots: EpochSlots, session: Job, settings: Mapping[str, Any]) -> None:
        self.slots, self.session = slots, session
        self._began, self._trained = 0.0, False
        super().__init__(overrides=dict(settings))
        # Without a GPU ultralytics ignores the number of workers.
        self.args.workers = settings["workers"]
        self.add_callback("on_train_start", MixedTrainer._begin)
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

    def _begin(self) -> None:
        self.slots.rewind(self.start_epoch)
        self.session.begin_round(self.start_epoch)

    def _begin_step(self) -> None:
        self._began = time.monotonic()

    def _end_step(self) -> None:
        self.session.log_step(self._began, time.monotonic())
        self._trained = True

    def _end_epoch(self) -> None:
        """Report an epoch after its weights are saved, and not again after the best weights are."""
        if self._trained:
            self._trained = False
            numbers = dict(self.label_loss_items(self.tloss))
            numbers.update(self.metrics or {})
            self.session.end_round(self.epoch + 1, **shown(numbers))
