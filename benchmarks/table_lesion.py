"""The rows of ``bench_lesion.py`` in the table of results."""

from __future__ import annotations

from statistics import median
from typing import Any


def lesion(doc: dict[str, Any]) -> list[str]:
    """Faithfulness and seam of lesions put into real images, each arm."""
    rows = []
    for arm, found in doc["arms"].items():
        what = f"{doc['data']}, lesions by {arm}"
        for judge, told in found["faithfulness"].items():
            new, apart = told["lesion"], found["above_copypaste"].get(judge)
            said = f"{new['ratio']:.3f} ({new['low']:.3f} to {new['high']:.3f})"
            if apart is not None:
                ends = f"{apart['low']:+.3f} to {apart['high']:+.3f}"
                said += f"; above copy-paste's by {apart['difference']:+.3f} ({ends})"
            rows.append(
                f"| {what}, judge {judge}: Dice in and around new lesions / real "
                f"({new['real']:.3f}) | {said} "
                f"| {'>= 0.8, above copy-paste' if arm == 'both' else ''} |"
            )
        seam, seconds = found["seam"], median(found["seconds_per_sample"])
        rows.append(
            f"| {what}: share in the range of real lesions' rims (real ones themselves); seconds "
            f"a sample | {seam['in range']:.2f} ({seam['real in range']:.2f}); {seconds:.2f} | |"
        )
    return rows
