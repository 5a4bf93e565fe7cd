"""What an nnU-Net training came to: our record of it, and nnU-Net's own validation."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from gansynth.adapter import Outcome
from gansynth.integrity import read_json
from gansynth.sessions import outcome_of
from gansynth_nnunet.record import read_sessions


def read_outcome(folder: Path) -> Outcome:
    """Counts over all sessions of a training, and its validation on held-out cases.

    Args:
        folder: nnU-Net's output folder.
    """
    return outcome_of(read_sessions(folder), folder, _metrics(folder))


def _metrics(folder: Path) -> dict[str, Any]:
    """``dice`` and ``dice_per_label`` of nnU-Net's validation on real held-out cases."""
    path = folder / "validation" / "summary.json"
    if not path.is_file():
        return {}
    summary = read_json(path)
    per_label = {str(k): _number(v["Dice"]) for k, v in summary["mean"].items()}
    return {"dice": _number(summary["foreground_mean"]["Dice"]), "dice_per_label": per_label}


def _number(value: float) -> float | None:
    """None where nnU-Net says NaN (a label that no held-out case has)."""
    return float(value) if math.isfinite(value) else None
