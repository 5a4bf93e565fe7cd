"""What an nnU-Net training came to: our record of it, and nnU-Net's own validation."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansynth.core.adapter import Outcome
from gansynth.hosts.record import outcome_of
from gansynth.runtime.files import read_json
from gansynth_nnunet.record import read_sessions

OWN = "nnunet_validation"
"""Key of nnU-Net's own summary: Dice is 0 there where the truth has none and it saw some."""


def read_outcome(folder: Path, account: tuple[Mapping[str, Any], str] = ({}, "")) -> Outcome:
    """Counts over all sessions of a training, and its validation on held-out cases.

    Args:
        folder: nnU-Net's output folder.
        account: measures of the held-out cases, and why there are none; see ``account_of``.
    """
    measured, why = account
    own = _own(folder)
    metrics = {**measured, **({OWN: own} if own else {})}
    outcome = outcome_of(read_sessions(folder), folder, metrics)
    return replace(outcome, warnings=(*outcome.warnings, *filter(None, [why])))


def _own(folder: Path) -> dict[str, Any]:
    """``dice`` and ``dice_per_label`` of nnU-Net's validation, by its own rules."""
    path = folder / "validation" / "summary.json"
    if not path.is_file():
        return {}
    summary = read_json(path)
    per_label = {str(k): _number(v["Dice"]) for k, v in summary["mean"].items()}
    return {"dice": _number(summary["foreground_mean"]["Dice"]), "dice_per_label": per_label}


def _number(value: float) -> float | None:
    """None where nnU-Net says NaN (a label that no held-out case has)."""
    return float(value) if math.isfinite(value) else None
