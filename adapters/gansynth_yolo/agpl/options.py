"""The ultralytics package, imported silently and offline, and its settings for a job.

Licence: AGPL-3.0; see this package's docstring. ultralytics is imported when a job is looked at.
"""

from __future__ import annotations

import atexit
import contextlib
import importlib
import importlib.metadata
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth_yolo.detectors import DetectorJob
from gansynth_yolo.libraries import check_release, refuse_options

LEAST, BELOW = (8, 4), (8, 5)  # supported releases: at least, and below
_ENVIRONMENT = {"YOLO_OFFLINE": "1", "YOLO_AUTOINSTALL": "false"}
_SERVICES = ("sync", "clearml", "comet", "dvc", "mlflow", "raytune", "tensorboard", "wandb")
_FONTS = ("Arial.ttf", "Arial.Unicode.ttf")
_HEADS = ("Detect", "v10Detect")

OURS: Mapping[str, str] = {
    **{
        key: f"--set {key}="
        for key in ("model", "epochs", "imgsz", "batch", "workers", "cache", "device")
    },
    "data": "--data",
    "seed": "--seed",
    "resume": "the same command again, which goes on by itself,",
    **dict.fromkeys(("project", "name", "exist_ok", "save_dir"), "--set output="),
}
"""Options of ultralytics that gansynth sets -> the user's option."""

REFUSED: Mapping[str, tuple[Any, str]] = {
    "task": ("detect", "only detectors are trained"),
    "mode": ("train", "only training is mixed"),
    "split": ("val", "validation keeps its own images"),
    "rect": (False, "it sorts images by shape, and places have none beforehand"),
    "fraction": (1.0, "it would leave out real images that the ratio counts"),
    "single_cls": (False, "samples keep their classes; merge them in the data set instead"),
    "classes": (None, "samples keep their classes; leave some out of the data set instead"),
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

_DEFAULTS: Mapping[str, Any] = {"amp": False, "plots": False, "pretrained": False}
_LOCAL_FILES = ("pretrained", "distill_model")


def settings(job: DetectorJob) -> dict[str, Any]:
    """Return the settings of ultralytics for a job.

    Raises:
        UsageFault: an unknown option or value, or one that would break the ratio.
    """
    engine()
    _check_options(job.options)
    model = find_model(job.model)
    pretrained = {"pretrained": True} if model.endswith(".pt") else {}
    values = {
        **_DEFAULTS,
        **pretrained,
        **({} if job.augment else NO_AUGMENTATION),
        **job.options,
        "task": "detect",
        "mode": "train",
        "model": model,
        "data": str(job.data),
        "epochs": job.epochs,
        "imgsz": job.imgsz,
        "batch": job.batch,
        "workers": job.workers,
        "cache": False if job.cache == "off" else job.cache,
        "device": device_name(job.device),
        "seed": job.seed,
        "save_dir": str(job.output.absolute()),
    }
    _check_values(values)
    return values


def find_model(name: str) -> str:
    """Return a model's description, ``yolo11n.yaml``, or the initial weights, a ``.pt`` file."""
    if name.endswith(".pt"):
        if not Path(name).is_file():
            raise DataFault(
                f"--set model={name}: no such file; weights are not downloaded: name a file that "
                f"is there, or {Path(name).stem}.yaml to train from scratch"
            )
        return str(Path(name).absolute())
    described = name if name.endswith((".yaml", ".yml")) else f"{name}.yaml"
    with silent_stdout():
        from ultralytics.nn.tasks import guess_model_task, yaml_model_load

        try:
            text = yaml_model_load(described)
            task, head = guess_model_task(text), str(text["head"][-1][-2])
        except (OSError, KeyError, IndexError, TypeError, ValueError, SyntaxError):
            models = sorted(f"{stem}.yaml" for stem in _models())
            raise UsageFault(
                f"--set model={name}: ultralytics has no such model, expected one like "
                f"yolo11n.yaml, or a file .pt.{did_you_mean(described, models)}"
            ) from None
    if task != "detect" or head not in _HEADS:
        raise UsageFault(f"--set model={name}: its head is {head}, expected {' or '.join(_HEADS)}")
    return described


def device_name(name: str) -> str:
    """Return a device as ultralytics names it; ``cuda:1`` becomes ``1``."""
    if "," in name:
        raise UsageFault(
            f"--set device={name}: expected one device, e.g. cuda:0; one trains at a time"
        )
    return {"cuda": "0"}.get(name, name.removeprefix("cuda:"))


def _models() -> set[str]:
    """Return the names of its models, each family with all letters of sizes."""
    from ultralytics.cfg import __file__ as cfg

    stems = {path.stem for path in (Path(cfg).parent / "models").rglob("*.yaml")}
    sized = {
        f"{family}{size}{'-' if suffix else ''}{suffix}"
        for family, _, suffix in (stem.partition("-") for stem in stems)
        if family[-1:].isdigit()
        for size in "nsmlx"
    }
    return stems | sized


def _check_options(options: Mapping[str, Any]) -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT

    refuse_options(options, OURS, REFUSED, DEFAULT_CFG_DICT, "ultralytics")
    for name, value in options.items():
        if name in _LOCAL_FILES and isinstance(value, str) and not Path(value).is_file():
            raise DataFault(f"-- {name}={value}: no such file; weights are not downloaded")


def _check_values(values: Mapping[str, Any]) -> None:
    """Let ultralytics check types and ranges."""
    from ultralytics.cfg import get_cfg

    with silent_stdout():
        try:
            get_cfg(overrides=dict(values))
        except (TypeError, ValueError, SyntaxError) as error:
            text = " ".join(str(error).split())
            raise UsageFault(f"ultralytics refuses an option: {text}") from error


# -- the package ----------------------------------------------------------------------------------


def version() -> str:
    """Return the installed release of ultralytics without importing it."""
    return check_release("ultralytics", LEAST, BELOW)


def engine() -> Any:
    """Import ultralytics without network access and without changing the user's settings."""
    version()
    if "ultralytics" not in sys.modules:
        # Read once, when it is imported: no look for a network, no pip, settings of its own.
        os.environ.update(_ENVIRONMENT, YOLO_CONFIG_DIR=str(_settings_folder()))
    _cure_torchvision()
    disabled = logging.root.manager.disable
    logging.disable(logging.INFO)  # it would tell where it keeps the settings that we throw away
    try:
        with silent_stdout():
            module = importlib.import_module("ultralytics")
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


def _settings_folder() -> Path:
    """Create a temporary settings folder with the fonts that it would download."""
    from matplotlib import get_data_path

    folder = Path(tempfile.mkdtemp(prefix="gansynth-ultralytics-"))
    owner = os.getpid()

    def remove() -> None:  # workers inherit this by fork
        if os.getpid() == owner:
            shutil.rmtree(folder, ignore_errors=True)

    atexit.register(remove)
    (folder / "Ultralytics").mkdir()
    font = Path(get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf"
    for name in _FONTS:
        shutil.copyfile(font, folder / "Ultralytics" / name)
    return folder


def _cure_torchvision() -> None:
    from gansynth.runtime import torchvision_compat

    torchvision_compat.apply()
