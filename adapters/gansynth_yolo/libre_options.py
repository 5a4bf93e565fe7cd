"""Settings of LibreYOLO for a job, and the user's options that are rejected.

LibreYOLO is imported when a job is checked.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, get_type_hints

from pydantic import TypeAdapter, ValidationError

from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth.runtime.yaml_text import read_yaml
from gansynth_yolo.detectors import DetectorJob
from gansynth_yolo.libraries import check_release, refuse_options

LEAST, BELOW = (1, 6), (1, 7)  # supported releases: at least, and below
FAMILIES: Mapping[str, tuple[str, str]] = {
    "yolox": ("LibreYOLOX", "ntsmlx"),
    "yolo9": ("LibreYOLO9", "tsmc"),
}
"""Supported model families -> the class in LibreYOLO, and its letters of sizes."""

OURS: Mapping[str, str] = {
    **{key: f"--set {key}=" for key in ("epochs", "imgsz", "batch", "workers", "cache", "device")},
    **dict.fromkeys(("size", "pretrained"), "--set model="),
    **dict.fromkeys(("data", "data_dir", "num_classes"), "--data"),
    "seed": "--seed",
    "resume": "the same command again, which goes on by itself,",
    **dict.fromkeys(("project", "name", "exist_ok"), "--set output="),
}
"""Options of LibreYOLO that gansynth sets -> the user's option."""

REFUSED: Mapping[str, tuple[Any, str]] = {
    "class_balanced": (False, "it draws some images more often, which the ratio counts"),
    "min_samples": (0, "it draws images at random, which the ratio counts"),
    "precise_bn": (0, "it draws images that nothing is trained on, which the ratio counts"),
    "profile_then_stop": (False, "it ends a training within its first epoch"),
    "single_cls": (False, "samples keep their classes; merge them in the data set instead"),
    "classes": (None, "samples keep their classes; leave some out of the data set instead"),
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
_LOCAL_FILES = ("distill_model",)


def check_version() -> str:
    """Return the installed release of LibreYOLO without importing it."""
    return check_release("libreyolo", LEAST, BELOW)


def engine() -> Any:
    """Import LibreYOLO, also with a CPU build of torch."""
    check_version()
    from gansynth.runtime import torchvision_compat

    torchvision_compat.apply()
    with silent_stdout():
        return importlib.import_module("libreyolo")


@contextlib.contextmanager
def silent_stdout() -> Iterator[None]:
    """Redirect the output of LibreYOLO to stderr, where its log is."""
    with contextlib.redirect_stdout(sys.stderr):
        yield


def settings(job: DetectorJob) -> dict[str, Any]:
    """Return the arguments of LibreYOLO's ``train`` for a job.

    Raises:
        UsageFault: an unknown option or value, or one that would break the ratio.
    """
    family, _, _ = find_model(job.model)
    hints = _options(family)
    values = {} if job.augment else {k: v for k, v in NO_AUGMENTATION.items() if k in hints}
    values |= _read_options(job.options, family, hints)
    output = job.output.absolute()
    if not _has_validation(job.data):
        values["eval_interval"] = 0
    return {
        "eval_interval": 1,  # so that the best weights are the best epoch's
        **values,
        "data": str(job.data),
        "epochs": job.epochs,
        "imgsz": job.imgsz,
        "batch": job.batch,
        "workers": job.workers,
        "cache": False if job.cache == "off" else job.cache,
        "device": job.device,
        "seed": job.seed,
        "project": str(output.parent),
        "name": output.name,
        "exist_ok": True,
        "allow_download_scripts": False,
    }


def _has_validation(data: Path) -> bool:
    return not data.is_file() or bool(read_yaml(data, "data.yaml")[0].get("val"))


def find_model(name: str) -> tuple[str, str, Path | None]:
    """Return family, size and initial weights (or None) of a model: ``yolox-n``, or a file."""
    if name.endswith(".pt"):
        return *_read_model(name), Path(name).absolute()
    family, _, size = name.partition("-")
    if family not in FAMILIES or size not in set(FAMILIES[family][1]):
        models = [f"{f}-{letter}" for f, (_, letters) in FAMILIES.items() for letter in letters]
        raise UsageFault(
            f"--set model={name}: expected one of {', '.join(models)}, or a file of such weights "
            f"that libreyolo wrote. Its other families load images in ways that cannot be mixed "
            f"yet.{did_you_mean(name, models)}"
        )
    return family, size, None


def _read_model(name: str) -> tuple[str, str]:
    if not Path(name).is_file():
        raise DataFault(
            f"--set model={name}: no such file; weights are not downloaded: name a file that is "
            "there, or a model such as yolox-n to train from scratch"
        )
    engine()
    from libreyolo.utils.serialization import load_untrusted_torch_file

    try:
        loaded = load_untrusted_torch_file(name)
        model = str(loaded["model_family"]), str(loaded["size"])
    except Exception as error:  # torch raises anything for a file that is no checkpoint
        raise UsageFault(
            f"--set model={name}: not weights that libreyolo wrote "
            f"({type(error).__name__}), expected such a file"
        ) from error
    if model[0] not in FAMILIES or model[1] not in FAMILIES[model[0]][1]:
        raise UsageFault(
            f"--set model={name}: weights of {'-'.join(model)}, expected one of "
            f"{' or '.join(FAMILIES)}"
        )
    return model


def _options(family: str) -> dict[str, Any]:
    """Return the training options of a family and their types."""
    model = getattr(engine(), FAMILIES[family][0])
    config = model.TRAIN_CONFIG
    hints = get_type_hints(config)
    return {**{f.name: hints[f.name] for f in fields(config)}, "loggers": Any, "pretrained": Any}


def _read_options(
    options: Mapping[str, Any], family: str, hints: Mapping[str, Any]
) -> dict[str, Any]:
    """Check and convert the user's options."""
    from libreyolo.data.augment.spec import ignored_aug_params
    from libreyolo.training.config import apply_train_aliases

    try:
        options = apply_train_aliases(dict(options), "detect")
    except ValueError as error:
        raise UsageFault(f"libreyolo refuses an option: {error}") from error
    available = (set(hints) - ignored_aug_params(family)) | ALIASES
    refuse_options(options, OURS, REFUSED, available, f"libreyolo's {family}")
    read = {}
    for name, value in options.items():
        if name in _LOCAL_FILES and not Path(str(value)).is_file():
            raise DataFault(f"-- {name}={value}: no such file; weights are not downloaded")
        read[name] = _convert(name, value, hints[name])
    return read


def _convert(name: str, value: Any, hint: Any) -> Any:
    try:
        return TypeAdapter(hint).validate_python(value)
    except ValidationError as error:
        why = error.errors()[0]["msg"]
        raise UsageFault(f"-- {name}={value}: libreyolo rejects the value: {why}") from error
