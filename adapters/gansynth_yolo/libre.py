"""LibreYOLO's detectors (MIT), and its training set with slots filled from a sample bank.

LibreYOLO has colour inputs only. Grey files and grey samples become three equal channels. Importing
this module imports LibreYOLO, also in worker processes. Two names of its trainer module are
replaced while a training is set up and runs.
"""

# ruff: noqa: D103 - the functions of Detector

from __future__ import annotations

import contextlib
import importlib
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints
from unittest.mock import patch

import cv2
import numpy as np
from pydantic import TypeAdapter, ValidationError
from torch.utils.data import DataLoader, Dataset, RandomSampler, Sampler

from gansynth import DataFault, DetectedBoxes, TrainingFault, UsageFault
from gansynth.runtime.errors import did_you_mean
from gansynth.runtime.files import verify_zip, write_bytes_atomic
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

if TYPE_CHECKING:
    from gansynth import Job
    from gansynth_yolo.mixed import EpochSlots

_libreyolo: Any = import_library("libreyolo")
_data: Any = importlib.import_module("libreyolo.data.dataset")
_trainer: Any = importlib.import_module("libreyolo.training.trainer")
_ANNOTATED = np.zeros((1, 5), np.float32)
COPY = "last.copy.pt"  # of the last epoch's weights, beside them
FAMILIES: Mapping[str, tuple[str, str]] = {
    "yolox": ("LibreYOLOX", "ntsmlx"),
    "yolo9": ("LibreYOLO9", "tsmc"),
}
"""Supported model families -> the class in LibreYOLO, and its letters of sizes."""
REFUSED: Mapping[str, tuple[Any, str]] = {
    **SAME_CLASSES,
    "class_balanced": (False, "it draws some images more often, which the ratio counts"),
    "min_samples": (0, "it draws images at random, which the ratio counts"),
    "precise_bn": (0, "it draws images that nothing is trained on, which the ratio counts"),
    "profile_then_stop": (False, "it ends a training within its first epoch"),
    "allow_download_scripts": (False, "nothing is downloaded"),
}
"""Option -> its only allowed value, and why."""
_STRENGTHS = (
    "mosaic_prob mixup_prob hsv_prob flip_prob degrees translate shear perspective flipud "
    "copy_paste rot90"
)
NO_AUGMENTATION: Mapping[str, Any] = dict.fromkeys(_STRENGTHS.split(), 0.0)
"""Options that turn off every augmentation; a family has some of them."""
ALIASES = {"mosaic", "mixup", "fliplr"}
"""Names of ``mosaic_prob``, ``mixup_prob`` and ``flip_prob`` in LibreYOLO's own command."""


def train(job: DetectorJob, slots: EpochSlots, session: Job) -> Path:
    values, last = settings(job), job.weights / "last.pt"
    resume = job.resume and last.is_file()
    if resume and _epochs_done(last) >= job.epochs:
        return job.best()
    begin = last if resume else find_model(job.model)[2]
    # The second draws new weights, those that a model was opened with included.
    values |= {"resume": resume} if begin else {"pretrained": False}
    with (
        contextlib.redirect_stdout(sys.stderr),
        one_line("libreyolo"),
        patch.object(_trainer, "YOLODataset", partial(MixedLibreDataset, slots)),
        patch.object(_trainer, "create_dataloader", partial(make_loader, session)),
    ):
        open_model(job, begin).train(**values, callbacks=_Callbacks(slots, session, last))
    return job.best()


def predict(
    job: DetectorJob, weights: Path, images: Sequence[Path], progress: Callable[[int, int], None]
) -> list[DetectedBoxes]:
    """Detect objects in image files, read as in training: BGR, the upper 8 bits of 16."""
    flags, found = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION, []
    with contextlib.redirect_stdout(sys.stderr):
        # Opened anew: after a training that was never validated a model is still in training
        # mode, where its head gives tensors of two axes that LibreYOLO cannot decode.
        model = open_model(job, weights)
        model.model.eval()
        for path in images:
            image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
            if image is None:
                raise TrainingFault(
                    "yolo.libreyolo-cannot-read-image",
                    f"{path}: LibreYOLO cannot read it, expected an image",
                )
            result = model.predict(image, **job.prediction(), color_format="bgr")
            found.append(found_by(result))
            progress(len(found), len(images))
    return found


class _Callbacks:
    """LibreYOLO's callbacks: report epochs, and synchronise slots with epochs."""

    def __init__(self, slots: EpochSlots, session: Job, last: Path) -> None:
        self._slots, self._session, self._last = slots, session, last

    def on_train_start(self, event: Any) -> None:
        begin = event.start_epoch - 1  # LibreYOLO counts them from 1
        self._slots.rewind(begin)
        self._session.begin_round(begin)

    def on_train_epoch_end(self, event: Any) -> None:
        self._slots.rewind(event.epoch)
        if self._last.is_file():  # LibreYOLO writes the next ones over it, which a kill may meet
            write_bytes_atomic(self._last.with_name(COPY), self._last.read_bytes())
        numbers = {"train/loss": event.train_loss}
        numbers |= {f"train/{name}": value for name, value in event.train_loss_items.items()}
        numbers.update(event.val_metrics)
        self._session.end_round(event.epoch, **shown(numbers))


# -- models and options ----------------------------------------------------------------------------


def open_model(job: DetectorJob, weights: Path | None) -> Any:
    """Return LibreYOLO's model of a job, with weights or new."""
    family, size, _ = find_model(job.model)
    model = getattr(_libreyolo, FAMILIES[family][0])
    where = None if weights is None else str(weights)
    return model(where, size=size, nb_classes=len(job.names), device=job.device)


def find_model(name: str) -> tuple[str, str, Path | None]:
    """Return family, size and initial weights (or None) of a model: ``yolox-n``, or a file."""
    family, _, size = name.partition("-")
    weights = None
    if name.endswith(".pt"):
        weights = weights_file(name, "a model such as yolox-n")
        try:
            loaded = _load(weights)
            family, size = str(loaded["model_family"]), str(loaded["size"])
        except Exception as error:  # torch raises anything for a file that is no checkpoint
            raise UsageFault(
                "yolo.libreyolo-weights-not-own",
                f"--set model={name}: not weights that libreyolo wrote "
                f"({type(error).__name__}), expected such a file",
            ) from error
    if family not in FAMILIES or size not in set(FAMILIES[family][1]):
        models = [f"{f}-{letter}" for f, (_, letters) in FAMILIES.items() for letter in letters]
        raise UsageFault(
            "yolo.libreyolo-model-unknown",
            f"--set model={name}: expected one of {', '.join(models)}, or a file of such weights "
            f"that libreyolo wrote. Its other families load images in ways that cannot be mixed "
            f"yet.{did_you_mean(name, models)}",
        )
    return family, size, weights


def _load(weights: Path) -> Any:
    from libreyolo.utils.serialization import load_untrusted_torch_file

    return load_untrusted_torch_file(weights)


def _epochs_done(last: Path) -> int:
    """Return the epochs done; weights that LibreYOLO was killed over are replaced by their copy."""
    copy = last.with_name(COPY)
    try:
        verify_zip(last, ANEW)
        return int(_load(last)["epoch"]) + 1
    except Exception as error:  # torch raises anything for a damaged file
        if copy.is_file():
            shutil.move(copy, last)
            return _epochs_done(last)
        raise TrainingFault(
            "yolo.libreyolo-weights-not-resumable",
            f"{last}: cannot be resumed ({type(error).__name__}), expected weights that "
            f"libreyolo wrote; {ANEW}",
        ) from error


def settings(job: DetectorJob) -> dict[str, Any]:
    """Return the arguments of LibreYOLO's ``train`` for a job."""
    family, _, _ = find_model(job.model)
    config = getattr(_libreyolo, FAMILIES[family][0]).TRAIN_CONFIG
    hints = get_type_hints(config)
    kinds = {f.name: hints[f.name] for f in fields(config)}
    kinds |= {"loggers": Any, "pretrained": Any}
    values: dict[str, Any] = {"eval_interval": 1}  # so that the best weights are the best epoch's
    if not job.augment:
        values |= {key: value for key, value in NO_AUGMENTATION.items() if key in kinds}
    values |= _read_options(job.options, family, kinds)
    if job.data.is_file() and not read_yaml(job.data, "data.yaml")[0].get("val"):
        values["eval_interval"] = 0
    output = job.output.absolute()
    values.update(job.settings())
    values |= {
        "device": job.device,
        "project": str(output.parent),
        "name": output.name,
        "exist_ok": True,
        "allow_download_scripts": False,
    }
    return values


def _read_options(
    options: Mapping[str, Any], family: str, kinds: Mapping[str, Any]
) -> dict[str, Any]:
    """Check and convert the user's options; LibreYOLO itself ignores unknown ones."""
    from libreyolo.data.augment.spec import ignored_aug_params
    from libreyolo.training.config import apply_train_aliases

    try:
        options = apply_train_aliases(dict(options), "detect")
    except ValueError as error:
        raise UsageFault(
            "yolo.libreyolo-refuses-option", f"libreyolo refuses an option: {error}"
        ) from error
    ours = dict(OURS, data_dir="--data", num_classes="--data")
    ours |= {"size": "--set model=", "pretrained": "--set model="}
    available = (set(kinds) - ignored_aug_params(family)) | ALIASES
    refuse_options(options, ours, REFUSED, available, f"libreyolo's {family}")
    read = {}
    for name, value in options.items():
        try:
            read[name] = TypeAdapter(kinds[name]).validate_python(value)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise UsageFault(
                "yolo.libreyolo-rejects-value",
                f"-- {name}={value}: libreyolo rejects the value: {why}",
            ) from error
    return read


# -- the training set ------------------------------------------------------------------------------


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
                "yolo.libreyolo-training-images-differ",
                f"{self.img_files[0].parent}: LibreYOLO finds {self.num_imgs} training images, "
                f"expected {slots.real}; leave the folder alone while a training runs",
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

    session: Job

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        for batch in super().__iter__():
            begin = time.monotonic()
            yield batch
            self.session.log_step(begin, time.monotonic())


def make_loader(
    session: Job,
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
    loader.session = session
    return loader
