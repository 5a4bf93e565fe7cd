"""What a training of nnU-Net leaves: checkpoints, its own validation, and predictions."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from gansynth import IntegrityFault, LabelArray, Prediction, UsageFault, read_json
from gansynth.runtime.files import verify_zip
from gansynth_nnunet.dataset import TRUTH
from gansynth_nnunet.source import NnunetSource

FINAL = "checkpoint_final.pth"
LATEST = "checkpoint_latest.pth"
CHECKPOINTS = (FINAL, LATEST, "checkpoint_best.pth")
"""Checkpoints from which nnU-Net continues a training, in order of preference."""
REMOVE = "remove it to resume from an older one, or to start over if there is none"
VALIDATION = "validation"
SUMMARY = Path(VALIDATION) / "summary.json"
OWN = "nnunet_validation"
"""Key of nnU-Net's own summary: Dice is 0 if the truth lacks the label and it is predicted."""


def newest_checkpoint(folder: Path) -> tuple[int, str]:
    """Return the epochs done by nnU-Net's newest checkpoint, and its name; 0 without one."""
    import torch

    scalar: Any = np.float64().__reduce__()[0]
    numbers = [scalar, np.dtype, type(np.dtype("f")), type(np.dtype("d"))]
    found = [(0, "")]
    for name in CHECKPOINTS:
        path = folder / name
        if not path.is_file():
            continue
        try:
            with torch.serialization.safe_globals(numbers):  # nnU-Net's means; nothing else is run
                loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            found.append((int(loaded["current_epoch"]), path.name))
        except Exception as error:  # torch raises anything for a damaged file
            raise IntegrityFault(
                "nnunet.checkpoint-unreadable",
                f"{path}: {type(error).__name__}, expected a checkpoint of nnU-Net; {REMOVE}",
            ) from error
    newest = max(found, key=lambda checkpoint: checkpoint[0])
    if newest[1]:
        verify_zip(folder / newest[1], REMOVE)
    return newest


def own_metrics(folder: Path) -> dict[str, Any]:
    """Return nnU-Net's own validation on held-out cases, if it is there."""
    if not (folder / SUMMARY).is_file():
        return {}
    summary = read_json(folder / SUMMARY)
    scores = {str(k): v["Dice"] for k, v in summary["mean"].items()}
    scores["foreground"] = summary["foreground_mean"]["Dice"]
    scores = {key: float(dice) if math.isfinite(dice) else None for key, dice in scores.items()}
    return {OWN: {"dice": scores.pop("foreground"), "dice_per_label": scores}}


def refuse_unmeasurable(source: NnunetSource) -> None:
    """Refuse a fold that holds no case out."""
    if not source.held_out_ids:
        raise UsageFault(
            "nnunet.fold-holds-no-case-out",
            f"--fold {source.request.fold}: {source.name} holds no case out, expected a fold "
            "with some to measure, such as 0",
        )


def predictions(source: NnunetSource, folder: Path) -> Mapping[str, Prediction]:
    """Return predicted and true label maps of held-out cases, on the grid of the raw files."""
    refuse_unmeasurable(source)
    predicted, truth, ending = folder / VALIDATION, source.plans.folder / TRUTH, source.ending
    files = {
        case: (predicted / f"{case}{ending}", truth / f"{case}{ending}")
        for case in source.held_out_ids
    }
    hint = "let nnU-Net's training come to its end, which validates"
    found = Prediction.of_volumes(source, files, hint)

    def levels(file: Path) -> LabelArray:
        with np.load(file) as arrays:
            probabilities = arrays["probabilities"]  # (K, D, H, W), a file's axes reversed
        first = 0 if source.labels.regions else 1
        return Prediction.levels_of(probabilities, range(first, len(probabilities))).T

    return {
        case: each.with_levels(predicted / f"{case}.npz", levels) for case, each in found.items()
    }
