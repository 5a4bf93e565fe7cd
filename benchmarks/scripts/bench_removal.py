"""How well is a lesion taken out? Tissue whose truth is known is taken out in a lesion's place.

A training lesion's shape is laid on lesion-free tissue of another picture, and taken out as if it
were the lesion (``gansynth.conditions.removal``): by the most similar place, and by mirrored
tissue. Printed by the difference of rims (or the share that mirrored tissue covers), in deviations
of the body: the error of the mean and of the worst tenth of the tissue (smoothed over 3 voxels),
each with its 90 % quantile (a real lesion's contrast beside), and the spread within over the true
one. The share of real lesions filled by each of the two, or kept.

    python benchmarks/scripts/bench_removal.py [--pictures 400]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import machine, print_table, write
from scipy.ndimage import uniform_filter

from gansynth.conditions import removal
from gansynth.core.body_mask import shown_body
from gansynth.core.geometry import bounding_box
from gansynth.core.source import SourceRequest
from gansynth.sampling.run_source import open_source

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
SETS = {"busi256": r"(G[0-9]+)_", "lgg_flair256": r"(TCGA_[A-Z]+_[A-Z0-9]+)_"}
PLACES = 40  # places that are tried for a shape on lesion-free tissue
BINS = {"place": (0.0, 0.25, 0.5, 0.75, 1.0, 9.0), "mirrored": (0.0, 0.25, 0.5, 0.75, 1.01)}


def measured(folder: Path, subjects: str, most: int) -> dict[str, Any]:
    """Take out tissue and lesions of up to ``most`` pictures of a folder."""
    request = SourceRequest("pictures", str(folder), subjects=subjects, read={"resize": "64x64"})
    source, rng = open_source(request), np.random.default_rng(0)
    cases = [
        source.load(case_id) for case_id in source.train_ids[:: len(source.train_ids) // most + 1]
    ]
    shapes = [
        case.labels > 0 for case in cases if case.labels is not None and (case.labels > 0).any()
    ]
    rows: dict[str, list[tuple[float, ...]]] = {"place": [], "mirrored": []}
    kept, contrasts, times = {"place": 0, "mirrored": 0, "stays": 0}, [], []
    for case in cases:
        assert case.labels is not None, "these pictures have labels"
        body, lesion = shown_body(case.image), case.labels > 0
        if lesion.any():
            contrasts.append(abs(_contrast(case.image, lesion, body)))
            start = time.process_time()
            way = _way(case.image, removal.grown(lesion), body & ~removal.grown(lesion), rng)
            times.append(time.process_time() - start)
            kept[way] += 1
        hole = _laid(shapes[int(rng.integers(len(shapes)))], body & ~removal.grown(lesion), rng)
        if hole is None:
            continue
        free = body & ~removal.grown(lesion) & ~hole
        found = removal.similar_place(case.image, hole, free, rng, np.inf)
        if found is not None:
            shift, unlike = found
            rows["place"].append((unlike, *_errors(case.image, hole, shift, free, body)))
        covered = float(removal.mirrored(hole, free)[1][hole[bounding_box(hole, 1)]].mean())
        rows["mirrored"].append((covered, *_errors(case.image, hole, [], free, body)))
    table = [
        {"set": folder.name, "by": by, "from": low, "to": high, "shapes": len(at), **_summary(at)}
        for by, found_rows in rows.items()
        for low, high in zip(BINS[by], BINS[by][1:], strict=False)
        if len(at := [row for row in found_rows if low <= row[0] < high]) >= 10
    ]
    lesions = sum(kept.values())
    return {
        "errors": table,
        "lesions": {way: round(count / lesions, 3) for way, count in kept.items()},
        "contrast of real lesions": np.quantile(contrasts, (0.1, 0.5, 0.9)).round(2).tolist(),
        "ms": round(1000 * float(np.mean(times)), 1),
    }


def _way(image: Any, hole: Any, free: Any, rng: Any) -> str:
    shift = removal.find_tissue(image, hole, free, rng)
    return "stays" if shift is None else "place" if shift else "mirrored"


def _laid(shape: Any, free: Any, rng: Any) -> Any:
    """Return a shape at a random place where all of it is free, grown as a lesion is; or None."""
    held, at = np.argwhere(shape), np.argwhere(free)
    for centre in at[rng.integers(len(at), size=PLACES)] if len(at) else ():
        moved = held - held.mean(axis=0).round().astype(int) + centre
        inside = ((moved >= 0) & (moved < shape.shape)).all()
        if inside and free[tuple(moved.T)].all():
            out = np.zeros(shape.shape, bool)
            out[tuple(moved.T)] = True
            return removal.grown(out) & free
    return None


def _errors(image: Any, hole: Any, shift: Any, free: Any, body: Any) -> tuple[float, ...]:
    deviation = image[:, body].std()
    filled = removal.filled(image, hole, shift, free)
    error = abs(filled[:, hole].mean() - image[:, hole].mean()) / deviation
    local = abs(uniform_filter(filled - image, (0, 3, 3))[:, hole]).mean(axis=0) / deviation
    worst = local[local >= np.quantile(local, 0.9)].mean()
    spread = filled[:, hole].std() / max(image[:, hole].std(), 1e-6)
    return float(error), float(worst), float(spread)


def _contrast(image: Any, lesion: Any, body: Any) -> float:
    ring = removal.grown(removal.grown(removal.grown(lesion))) & ~removal.grown(lesion) & body
    around = image[:, ring if ring.any() else body].mean()
    return float((image[:, lesion].mean() - around) / image[:, body].std())


def _summary(rows: list[tuple[float, ...]]) -> dict[str, float]:
    _, errors, worst, spreads = np.array(rows).T
    return {
        "error of the mean": round(float(errors.mean()), 2),
        "90 %": round(float(np.quantile(errors, 0.9)), 2),
        "of the worst tenth": round(float(worst.mean()), 2),
        "its 90 %": round(float(np.quantile(worst, 0.9)), 2),
        "spread": round(float(np.median(spreads)), 2),
    }


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=400)
    args = parser.parse_args()
    document = {name: measured(DATA / name, who, args.pictures) for name, who in SETS.items()}
    rows = [row for result in document.values() for row in result["errors"]]
    print_table([list(rows[0]), *(list(row.values()) for row in rows)])
    for name, result in document.items():
        print(name, {key: value for key, value in result.items() if key != "errors"})
    write("removal", {"machine": machine(), **document})


if __name__ == "__main__":
    main()
