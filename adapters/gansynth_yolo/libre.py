"""LibreYOLO's detectors as a ``Detector``.

LibreYOLO (MIT) is imported when a job is checked. It has colour inputs only. Grey files and grey
samples become three equal channels.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_type_hints

import numpy as np
from pydantic import TypeAdapter, ValidationError

from gansynth.runtime.errors import DataFault, TrainingFault, UsageFault, did_you_mean
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.yaml_text import read_yaml
from gansynth_yolo.detectors import (
    KEPT,
    MOST_FOUND,
    NMS_IOU,
    OURS,
    SAME_CLASSES,
    DetectedImage,
    DetectorJob,
    TrainingWatch,
    check_job,
    finite,
    import_library,
    one_line,
    refuse_options,
)

if TYPE_CHECKING:
    from gansynth_yolo.mixed import EpochSlots

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
NO_AUGMENTATION: Mapping[str, Any] = {
    **dict.fromkeys(("mosaic_prob", "mixup_prob", "hsv_prob", "flip_prob"), 0.0),
    **dict.fromkeys(("degrees", "translate", "shear", "perspective", "flipud"), 0.0),
    **dict.fromkeys(("copy_paste", "rot90"), 0.0),
}
"""Options that turn off every augmentation; a family has some of them."""
ALIASES = {"mosaic", "mixup", "fliplr"}
"""Names of ``mosaic_prob``, ``mixup_prob`` and ``flip_prob`` in LibreYOLO's own command."""


class LibreDetector:
    """LibreYOLO (MIT): YOLOX and YOLOv9."""

    name = "libreyolo"

    def check(self, job: DetectorJob) -> None:
        """See ``Detector.check``; LibreYOLO is imported."""
        import_library("libreyolo")
        check_job(job)
        settings(job)

    def train(self, job: DetectorJob, slots: EpochSlots, watch: TrainingWatch) -> Path:
        """Train, and return the weights of the epoch that LibreYOLO rates best."""
        values, last = settings(job), job.weights / "last.pt"
        resume = job.resume and last.is_file()
        if resume and _restored(last) >= job.epochs:
            return job.best()
        begin = last if resume else find_model(job.model)[2]
        # The second draws new weights, those that a model was opened with included.
        values |= {"resume": resume} if begin else {"pretrained": False}
        with contextlib.redirect_stdout(sys.stderr):
            from gansynth_yolo.libre_dataset import mixed_training

            with one_line("libreyolo"), mixed_training(slots, watch):
                callbacks = _TrainingCallbacks(slots, watch, last)
                open_model(job, begin).train(**values, callbacks=callbacks)
        return job.best()

    def predict(
        self, job: DetectorJob, weights: Path, images: Sequence[Path]
    ) -> list[DetectedImage]:
        """Detect objects in image files, read as in training."""
        with contextlib.redirect_stdout(sys.stderr):
            # Opened anew: after a training that was never validated a model is still in training
            # mode, where its head gives tensors of two axes that LibreYOLO cannot decode.
            model = open_model(job, weights)
            model.model.eval()
            how: dict[str, Any] = {
                "conf": KEPT,
                "iou": NMS_IOU,
                "max_det": MOST_FOUND,
                "imgsz": job.imgsz,
            }
            results = (model.predict(_read(p), **how, color_format="bgr") for p in images)
            return [DetectedImage.of(result) for result in results]


class _TrainingCallbacks:
    """LibreYOLO's callbacks: report to the watch, and synchronise slots with epochs."""

    def __init__(self, slots: EpochSlots, watch: TrainingWatch, last: Path) -> None:
        self._slots, self._watch, self._last = slots, watch, last

    def on_train_start(self, event: Any) -> None:
        self._slots.rewind(event.start_epoch - 1)  # LibreYOLO counts them from 1

    def on_train_epoch_end(self, event: Any) -> None:
        self._slots.rewind(event.epoch)
        if self._last.is_file():  # LibreYOLO writes the next ones over it, which a kill may meet
            write_bytes_atomic(self._last.with_name(COPY), self._last.read_bytes())
        losses = {f"train/{name}": value for name, value in event.train_loss_items.items()}
        numbers = {"train/loss": event.train_loss, **losses, **event.val_metrics}
        self._watch.epoch(event.epoch, finite(numbers))


# -- models ----------------------------------------------------------------------------------------


def open_model(job: DetectorJob, weights: Path | None) -> Any:
    """Return LibreYOLO's model of a job, with weights or new."""
    family, size, _ = find_model(job.model)
    model = getattr(import_library("libreyolo"), FAMILIES[family][0])
    where = None if weights is None else str(weights)
    return model(where, size=size, nb_classes=len(job.names), device=job.device)


def find_model(name: str) -> tuple[str, str, Path | None]:
    """Return family, size and initial weights (or None) of a model: ``yolox-n``, or a file."""
    weights = Path(name).absolute() if name.endswith(".pt") else None
    family, _, size = name.partition("-")
    if weights is not None:
        if not weights.is_file():
            raise DataFault(
                f"--set model={name}: no such file; weights are not downloaded: name a file that "
                "is there, or a model such as yolox-n to train from scratch"
            )
        try:
            loaded = _load(weights)
            family, size = str(loaded["model_family"]), str(loaded["size"])
        except Exception as error:  # torch raises anything for a file that is no checkpoint
            raise UsageFault(
                f"--set model={name}: not weights that libreyolo wrote "
                f"({type(error).__name__}), expected such a file"
            ) from error
    if family not in FAMILIES or size not in set(FAMILIES[family][1]):
        models = [f"{f}-{letter}" for f, (_, letters) in FAMILIES.items() for letter in letters]
        raise UsageFault(
            f"--set model={name}: expected one of {', '.join(models)}, or a file of such weights "
            f"that libreyolo wrote. Its other families load images in ways that cannot be mixed "
            f"yet.{did_you_mean(name, models)}"
        )
    return family, size, weights


def _load(weights: Path) -> Any:
    import_library("libreyolo")
    from libreyolo.utils.serialization import load_untrusted_torch_file

    return load_untrusted_torch_file(weights)


def epochs_done(weights: Path) -> int:
    """Return the epochs done when these weights were written."""
    try:
        return int(_load(weights)["epoch"]) + 1
    except Exception as error:  # torch raises anything for a damaged file
        raise TrainingFault(
            f"{weights}: cannot be resumed ({type(error).__name__}), expected weights that "
            "libreyolo wrote; remove the folder to begin anew"
        ) from error


def _restored(last: Path) -> int:
    """Return the epochs done; weights that LibreYOLO was killed over are replaced by their copy."""
    try:
        return epochs_done(last)
    except TrainingFault:
        if not last.with_name(COPY).is_file():
            raise
    shutil.copyfile(last.with_name(COPY), last)
    return epochs_done(last)


def _read(path: Path) -> Any:
    """Read an image as in training: uint8 (H, W, 3), BGR, the upper 8 bits of 16."""
    import cv2

    flags = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION
    image = cv2.imdecode(np.fromfile(path, np.uint8), flags)
    if image is None:
        raise TrainingFault(f"{path}: not an image that LibreYOLO can read, expected one")
    return image


# -- options ---------------------------------------------------------------------------------------


def settings(job: DetectorJob) -> dict[str, Any]:
    """Return the arguments of LibreYOLO's ``train`` for a job.

    Raises:
        UsageFault: an unknown option or value, or one that would break the ratio.
    """
    family, _, _ = find_model(job.model)
    config = getattr(import_library("libreyolo"), FAMILIES[family][0]).TRAIN_CONFIG
    kinds = get_type_hints(config)
    kinds = {**{f.name: kinds[f.name] for f in fields(config)}, "loggers": Any, "pretrained": Any}
    values: dict[str, Any] = {"eval_interval": 1}  # so that the best weights are the best epoch's
    if not job.augment:
        values |= {key: value for key, value in NO_AUGMENTATION.items() if key in kinds}
    values |= _read_options(job.options, family, kinds)
    if job.data.is_file() and not read_yaml(job.data, "data.yaml")[0].get("val"):
        values["eval_interval"] = 0
    output = job.output.absolute()
    return {
        **values,
        **job.settings(),
        "device": job.device,
        "project": str(output.parent),
        "name": output.name,
        "exist_ok": True,
        "allow_download_scripts": False,
    }


def _read_options(
    options: Mapping[str, Any], family: str, kinds: Mapping[str, Any]
) -> dict[str, Any]:
    """Check and convert the user's options; LibreYOLO itself ignores unknown ones."""
    from libreyolo.data.augment.spec import ignored_aug_params
    from libreyolo.training.config import apply_train_aliases

    try:
        options = apply_train_aliases(dict(options), "detect")
    except ValueError as error:
        raise UsageFault(f"libreyolo refuses an option: {error}") from error
    ours = {**OURS, **dict.fromkeys(("data_dir", "num_classes"), "--data")}
    ours |= dict.fromkeys(("size", "pretrained"), "--set model=")
    available = (set(kinds) - ignored_aug_params(family)) | ALIASES
    refuse_options(options, ours, REFUSED, available, f"libreyolo's {family}")
    read = {}
    for name, value in options.items():
        try:
            read[name] = TypeAdapter(kinds[name]).validate_python(value)
        except ValidationError as error:
            why = error.errors()[0]["msg"]
            raise UsageFault(f"-- {name}={value}: libreyolo rejects the value: {why}") from error
    return read
