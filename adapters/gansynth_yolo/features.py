"""What a trained detector of LibreYOLO's makes of images: the features that enter its last layers.

There is one last layer for classes and one for boxes at each of three resolutions. What enters them
is averaged over the image at each, and put side by side.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from gansynth.adapter import Mask
from gansynth.errors import DataFault, IntegrityFault, UsageFault
from gansynth.last_layer import Entering, check_fit
from gansynth.precision import pick_device
from gansynth.schema import FloatArray, Schema
from gansynth_yolo.config import WEIGHTS, YoloConfig
from gansynth_yolo.libraries import best_of
from gansynth_yolo.libre_options import FAMILIES, engine, silent_stdout
from gansynth_yolo.mixed import pixels

CHANNELS = (1, 3)
"""LibreYOLO sees colours; a grey image as three equal channels."""
LOWEST, HIGHEST = -0.5, 1.5
"""Beyond these an image is not between 0 and 1, as a detector's source reads it."""


def features(
    folder: Path,
    config: Path,
    images: Sequence[FloatArray],
    schema: Schema,
    where: Sequence[Mask | None] | None,
    device: str,
) -> tuple[FloatArray, str]:
    """See ``Adapter.features``; ``config`` is the file that says which detector has trained."""
    detector = YoloConfig.read(config).choices.detector
    if detector != "libreyolo":
        raise UsageFault(
            f"{folder}: {detector} has trained there, whose networks are not looked into, expected "
            "a training of libreyolo's; name one"
        )
    if where is not None:
        raise UsageFault(
            f"{folder}: a detector's features are averaged over whole images, expected no label "
            "maps; leave them out"
        )
    weights = best_of(folder / WEIGHTS / "weights")
    said = _said(weights)
    _check(folder, images, schema)
    model = _open(weights, said, str(pick_device(device)))
    rows = [_look(model, image, int(said["imgsz"])) for image in images]
    return np.stack(rows), (
        f"LibreYOLO {said['model_family']}-{said['size']} {folder.name} ({weights.stem} weights)"
    )


def last_layers(head: nn.Module, family: str) -> list[nn.Module]:
    """The convolutions that make a head's output: of classes, then of boxes, by resolution."""
    if family == "yolox":
        return [*_modules(head, "cls_preds"), *_modules(head, "reg_preds")]
    towers = [*_modules(head, "cv3"), *_modules(head, "cv2")]
    return [list(tower.children())[-1] for tower in towers]


@torch.inference_mode()
def _look(model: Any, image: FloatArray, size: int) -> FloatArray:
    """Features (K,) of one image (C, H, W)."""
    seen, ratio = model._get_preprocess_numpy()(pixels(image, 3), size)
    # It lies in the upper left corner of a square, all of which the network sees.
    shares = [n * ratio / size for n in image.shape[1:]]
    layers = last_layers(model.model.head, model.FAMILY)
    with Entering(*layers) as entering, silent_stdout():
        model.model(torch.from_numpy(np.ascontiguousarray(seen))[None].float().to(model.device))
    means = []
    for found in entering.last:
        rows, columns = (ceil(s * n) for s, n in zip(shares, found.shape[2:], strict=True))
        means.append(found[0, :, :rows, :columns].float().mean(dim=(1, 2)))
    return np.asarray(torch.cat(means).cpu().numpy(), np.float32)


def _check(folder: Path, images: Sequence[FloatArray], schema: Schema) -> None:
    channels = len(schema.channels)
    if schema.ndim != 2:
        raise UsageFault(
            f"{folder}: a detector sees slices, the images are volumes, expected slices; name a "
            "host of volumes"
        )
    check_fit(folder, images, schema, channels=channels if channels in CHANNELS else 3, ndim=2)
    low, high = min(float(i.min()) for i in images), max(float(i.max()) for i in images)
    if low < LOWEST or high > HIGHEST:
        raise DataFault(
            f"{folder}: the images hold {low:.3g} to {high:.3g}, expected 0 to 1, as yolo: reads "
            "what detectors train on; bring samples back to their source's units"
        )


def _said(weights: Path) -> Mapping[str, Any]:
    """What a file of weights says of its network; nothing that it says is run."""
    engine()
    from libreyolo.utils.serialization import load_untrusted_torch_file

    if not weights.is_file():
        raise UsageFault(f"{weights}: missing, expected a trained detector's; train it to its end")
    try:
        loaded = load_untrusted_torch_file(weights)
        said = {key: loaded[key] for key in ("model_family", "size", "nc", "imgsz")}
    except Exception as error:  # whatever a damaged file makes torch raise
        raise IntegrityFault(
            f"{weights}: not weights that libreyolo wrote ({type(error).__name__}), expected such "
            "a file; restore it, or train again"
        ) from error
    if said["model_family"] not in FAMILIES:
        raise UsageFault(
            f"{weights}: weights of {said['model_family']}, expected {' or '.join(FAMILIES)}"
        )
    return said


def _open(weights: Path, said: Mapping[str, Any], device: str) -> Any:
    made = getattr(engine(), FAMILIES[said["model_family"]][0])
    with silent_stdout(), torch.random.fork_rng(devices=[]):
        model = made(str(weights), size=said["size"], nb_classes=int(said["nc"]), device=device)
    model.model.eval()
    return model


def _modules(head: nn.Module, name: str) -> list[nn.Module]:
    return list(head.get_submodule(name).children())
