"""What ultralytics is told: its settings for a job, and options of the user that are refused.

Licence: AGPL-3.0; see this package's docstring. ultralytics is imported when a job is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth_yolo.agpl.engine import engine, silent_stdout
from gansynth_yolo.detectors import DetectorJob

OURS: Mapping[str, str] = {
    **{
        key: f"--set {key}="
        for key in ("model", "epochs", "imgsz", "batch", "workers", "cache", "device", "resume")
    },
    "data": "--data",
    "seed": "--seed",
    **dict.fromkeys(("project", "name", "exist_ok", "save_dir"), "--set output="),
}
"""Options of ultralytics that gansynth sets, and where the user says what to."""

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
"""Option -> the one value it may have, and why."""

NO_AUGMENTATION: Mapping[str, Any] = {
    **dict.fromkeys(("hsv_h", "hsv_s", "hsv_v"), 0.0),
    **dict.fromkeys(("degrees", "translate", "scale", "shear", "perspective"), 0.0),
    **dict.fromkeys(("flipud", "fliplr", "bgr", "multi_scale"), 0.0),
    **dict.fromkeys(("mosaic", "mixup", "cutmix", "copy_paste", "erasing"), 0.0),
    "auto_augment": None,
    "augmentations": [],
}
"""Every augmentation of a detector's training off, those of albumentations, if installed, too."""

_DEFAULTS: Mapping[str, Any] = {"amp": False, "plots": False, "pretrained": False}
_LOCAL_FILES = ("pretrained", "distill_model")


def settings(job: DetectorJob) -> dict[str, Any]:
    """What ultralytics is told for a job.

    Raises:
        UsageFault: an option or a value it does not know, or that would break the ratio.
    """
    engine()
    _check_options(job.options)
    model = find_model(job.model)
    pretrained = {"pretrained": True} if model.endswith(".pt") else {}
    told = {
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
    _check_values(told)
    return told


def find_model(name: str) -> str:
    """A model's description, ``yolo11n.yaml``, or the weights to start from, a file ``.pt``.

    Raises:
        UsageFault: there is neither; weights are never downloaded.
    """
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
            known = sorted(f"{stem}.yaml" for stem in _models())
            raise UsageFault(
                f"--set model={name}: ultralytics has no such model, expected one like "
                f"yolo11n.yaml, or a file .pt.{did_you_mean(described, known)}"
            ) from None
    if task != "detect" or head not in _HEADS:
        raise UsageFault(f"--set model={name}: its head is {head}, expected {' or '.join(_HEADS)}")
    return described


_HEADS = ("Detect", "v10Detect")


def device_name(name: str) -> str:
    """A device as ultralytics names it; ``cuda:1`` is its ``1``.

    Raises:
        UsageFault: it is several, which would draw every place several times.
    """
    if "," in name:
        raise UsageFault(
            f"--set device={name}: expected one device, e.g. cuda:0; one trains at a time"
        )
    return {"cuda": "0"}.get(name, name.removeprefix("cuda:"))


def _models() -> set[str]:
    """Stems of the models it has, each of a family with the letter of its size."""
    from ultralytics.cfg import __file__ as cfg

    stems = {path.stem for path in (Path(cfg).parent / "models").rglob("*.yaml")}
    sized = {
        f"{family}{size}{'-' if rest else ''}{rest}"
        for family, _, rest in (stem.partition("-") for stem in stems)
        if family[-1:].isdigit()
        for size in "nsmlx"
    }
    return stems | sized


def _check_options(options: Mapping[str, Any]) -> None:
    from ultralytics.cfg import DEFAULT_CFG_DICT

    known = set(DEFAULT_CFG_DICT) - set(OURS) - set(REFUSED)
    for name, value in options.items():
        if name in OURS:
            raise UsageFault(f"-- {name}={value}: gansynth sets it, give {OURS[name]} instead")
        if name in REFUSED and value != REFUSED[name][0]:
            allowed, why = REFUSED[name]
            raise UsageFault(f"-- {name}={value}: expected {name}={allowed}: {why}")
        if name not in known and name not in REFUSED:
            raise UsageFault(
                f"-- {name}={value}: ultralytics has no such option.{did_you_mean(name, known)}"
            )
        if name in _LOCAL_FILES and isinstance(value, str) and not Path(value).is_file():
            raise DataFault(f"-- {name}={value}: no such file; weights are not downloaded")


def _check_values(told: Mapping[str, Any]) -> None:
    """Have ultralytics look at types and ranges."""
    from ultralytics.cfg import get_cfg

    with silent_stdout():
        try:
            get_cfg(overrides=dict(told))
        except (TypeError, ValueError, SyntaxError) as error:
            text = " ".join(str(error).split())
            raise UsageFault(f"ultralytics refuses an option: {text}") from error
