"""Rows of ``results/TABLE.md`` about differential privacy."""

from __future__ import annotations

from typing import Any


def privacy(doc: dict[str, Any]) -> list[str]:
    """Distances of samples to unseen people's slices, and the attacker's area, by epsilon."""
    rows = []
    for number, found in doc["sizes"].items():
        for name, fit in found["fits"].items():
            how = "without privacy" if name == "without" else f"epsilon {name}"
            spectrum, histogram = (found["distances"][name][m] for m in ("spectrum", "histogram"))
            rows.append(
                f"| `dcgan` of {number} phantoms, {how}: spectrum; histogram; members' AUC of D | "
                f"{_interval(spectrum)}; {_interval(histogram)}; {_interval(fit['members_auc'])} "
                "| |"
            )
    return rows


def _interval(found: dict[str, float]) -> str:
    return f"{found['value']:.2f} ({found['low']:.2f} to {found['high']:.2f})"
