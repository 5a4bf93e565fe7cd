"""The ultralytics detectors as a ``Detector``, imported silently and offline.

Licence: AGPL-3.0; see this package's docstring. Making the detector imports ultralytics.
"""

# ruff: noqa: D102 - the methods of Detector

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.metrics.detection.record import DetectedBoxes
from gansynth.runtime.errors import TrainingFault, UsageFault, did_you_mean
from gansynth_yolo.detectors import (
    OURS,
    SAME_CLASSES,
    DetectorJob,
    found_by,
    import_library,
    one_line,
    refuse_options,
    weights_file,
)

if TYPE_CHECKING:
    from gansynth.hosts.host import Job
    from gansynth_yolo.mixed import EpochSlots

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
NO_AUGMENTATION: Mapping[str, Any] = {
    **dict.fromkeys(("hsv_h", "hsv_s", "hsv_v"), 0.0),
    **dict.fromkeys(("degrees", "translate", "scale", "shear", "perspective"), 0.0),
    **dict.fromkeys(("flipud", "fliplr", "bgr", "multi_scale"), 0.0),
    **dict.fromkeys(("mosaic", "mixup", "cutmix", "copy_paste", "erasing"), 0.0),
    "auto_augment": None,
    "augmentations": [],
}
"""Options that turn off every augmentation, also those of albumentations."""


class UltralyticsDetector:
    """ultralytics (AGPL-3.0)."""

    def __init__(self) -> None:
        self._library = engine()

    def check(self, job: DetectorJob) -> None:
        settings(job)

    def train(self, job: DetectorJob, slots: EpochSlots, session: Job) -> Path:
        values, last = settings(job), job.weights / "last.pt"
        if job.resume and last.is_file():
            from ultralytics.utils.patches import torch_load

            # Of a training that has ended they hold no state to resume from.
            if int(torch_load(last, map_location="cpu").get("epoch", -1)) < 0:
                return job.best()
            values["resume"] = str(last)
        with silent_stdout():
            from gansynth_yolo.agpl.trainer import MixedTrainer, own_readers

            with one_line("ultralytics"), own_readers():
                MixedTrainer(slots, session, values).train()
        return job.best()

    def predict(
        self, job: DetectorJob, weights: Path, images: Sequence[Path]
    ) -> list[DetectedBoxes]:
        """Detect objects in image files, read as in training: BGR, the upper 8 bits of 16."""
        import cv2
        from ultralytics.utils.patches import imread

        model, size = self._library.YOLO(str(weights)), max(1, job.batch)
        how = {**job.prediction(), "device": device_name(job.device)}
        flags = cv2.IMREAD_GRAYSCALE if job.channels == 1 else cv2.IMREAD_COLOR
        detections = []
        with silent_stdout():
            for first in range(0, len(images), size):
                batch = []
                for path in images[first : first + size]:
                    batch.append(imread(path, flags))
                    if batch[-1] is None:
                        raise TrainingFault(
                            f"{path}: ultralytics cannot read it, expected an image"
                        )
                found = model.predict(batch, **how, verbose=False, save=False)
                detections += [found_by(result) for result in found]
        return detections


def settings(job: DetectorJob) -> dict[str, Any]:
    """Return the settings of ultralytics for a job.

    Raises:
        UsageFault: an unknown option or value, or one that would break the ratio.
    """
    from ultralytics.cfg import DEFAULT_CFG_DICT, get_cfg

    ours = {**OURS, "model": "--set model=", "save_dir": "--set output="}
    refuse_options(job.options, ours, REFUSED, DEFAULT_CFG_DICT, "ultralytics")
    model = find_model(job.model)
    values = {
        **{"amp": False, "plots": False, "pretrained": model.endswith(".pt")},
        **({} if job.augment else NO_AUGMENTATION),
        **job.options,
        **job.settings(),
        "task": "detect",
        "mode": "train",
        "model": model,
        "device": device_name(job.device),
        "save_dir": str(job.output.absolute()),
    }
    with silent_stdout():
        try:
            get_cfg(overrides=dict(values))  # it checks types and ranges
        except (TypeError, ValueError, SyntaxError) as error:
            text = " ".join(str(error).split())
            raise UsageFault(f"ultralytics refuses an option: {text}") from error
    return values


def find_model(name: str) -> str:
    """Return a model's description, ``yolo11n.yaml``, or the initial weights, a ``.pt`` file."""
    if name.endswith(".pt"):
        return str(weights_file(name, f"{Path(name).stem}.yaml"))
    described = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    with silent_stdout():
        from ultralytics.cfg import __file__ as cfg
        from ultralytics.nn.tasks import guess_model_task, yaml_model_load

        try:
            text = yaml_model_load(described)
            task, head = guess_model_task(text), str(text["head"][-1][-2])
        except (OSError, KeyError, IndexError, TypeError, ValueError, SyntaxError):
            models = [path.name for path in (Path(cfg).parent / "models").rglob("*.yaml")]
            models += [m.replace(".yaml", "n.yaml") for m in models if m[-6].isdigit()]
            raise UsageFault(
                f"--set model={name}: ultralytics has no such model, expected one like "
                f"yolo11n.yaml, or a file .pt.{did_you_mean(described, sorted(models))}"
            ) from None
    if task != "detect" or head not in _HEADS:
        raise UsageFault(f"--set model={name}: its head is {head}, expected {' or '.join(_HEADS)}")
    return described


def device_name(name: str) -> str:
    """Return a device as ultralytics names it; ``cuda:1`` becomes ``1``."""
    return {"cuda": "0"}.get(name, name.removeprefix("cuda:"))


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
