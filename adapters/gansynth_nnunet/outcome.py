"""What an nnU-Net training came to: our record of it, and nnU-Net's own validation."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.adapter import Outcome
from gansynth.integrity import read_json
from gansynth_nnunet.record import read_sessions

_MEANS = ("refresh_seconds", "overhead", "overhead_low", "overhead_high", "duty")
"""What is averaged over sessions, weighed by what each has drawn."""


def read_outcome(folder: Path) -> Outcome:
    """Counts over all sessions of a training, and its validation on held-out cases.

    Args:
        folder: nnU-Net's output folder.
    """
    sessions = read_sessions(folder)
    drawn = [session["drawn"] for session in sessions]
    total = {k: sum(d[k] for d in drawn) for k in ("real", "synthetic", "fell_back")}
    reasons: Counter[str] = Counter()
    for counts in drawn:
        reasons.update(counts["reasons"])
    return Outcome(
        folder=folder,
        drawn_real=total["real"],
        drawn_synthetic=total["synthetic"],
        fell_back=total["fell_back"],
        metrics=_metrics(folder),
        reasons=dict(reasons),
        asked=_mean(sessions, [session.get("asked") for session in sessions]),
        supply=_supply(sessions),
        warnings=tuple(text for session in sessions for text in session.get("changes", ())),
    )


def _supply(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the producers of all sessions did."""
    each = [session.get("supply", {}) for session in sessions]
    document: dict[str, Any] = {}
    distinct = sum(session["drawn"].get("distinct_synthetic", 0) for session in sessions)
    if distinct:
        synthetic = sum(session["drawn"]["synthetic"] for session in sessions)
        document["draws_per_sample"] = round(synthetic / distinct, 4)
    for key in _MEANS:
        mean = _mean(sessions, [one.get(key) for one in each])
        if mean is not None:
            document[key] = mean
    if any("restarts" in one for one in each):
        document["restarts"] = sum(one.get("restarts", 0) for one in each)
    ended = [one["ended"] for one in each if one.get("ended")]
    return document | ({"ended": ended[-1]} if ended else {})


def _mean(sessions: Sequence[Mapping[str, Any]], values: Sequence[float | None]) -> float | None:
    """Mean of what is known, weighed by draws; None if nothing is."""
    weights = [s["drawn"]["real"] + s["drawn"]["synthetic"] for s in sessions]
    known = [(w, v) for w, v in zip(weights, values, strict=True) if v is not None]
    total = sum(weight for weight, _ in known)
    return round(sum(w * v for w, v in known) / total, 6) if total else None


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
