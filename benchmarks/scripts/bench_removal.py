"""Can one see where a lesion was taken out, and what is left of it?

Filled or not: the shape of another picture's lesion is laid on the tissue of a picture without
lesions, and taken out as a lesion is (``gansynth.conditions.removal``). A small network tells the
filled place from the same place untouched, on people that it was not trained on; .5 is chance. The
error of the fill's mean is in deviations of the body.

Steps: of real lesions, mean absolute difference of neighbours across the border of what was filled,
as a multiple of that of the tissue up to 8 voxels around: the median over lesions, and the share
with hard edges.

Left: of real lesions, how far the ring 1 to 4 voxels beyond the mask lies towards the lesion from
the tissue 9 to 12 voxels away, in deviations of the body, before and after; mean over lesions.

    python benchmarks/scripts/bench_removal.py [--pictures 240] [--side 128] [--name removal]
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, print_table, write
from scipy.ndimage import binary_dilation, distance_transform_edt

from gansynth.conditions.removal import without_lesions
from gansynth.core.body_mask import shown_body
from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases
from gansynth.core.geometry import neighbours
from gansynth.core.schema import Case
from gansynth.core.source import SourceRequest
from gansynth.core.space import Placement
from gansynth.data.batches import CaseCache
from gansynth.data.lesion_contrast import roc_area
from gansynth.metrics.c2st import Classifier
from gansynth.sampling.run_source import open_source

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
SETS = {
    "lgg_flair256": r"(TCGA_[A-Z]+_[A-Z0-9]+)_",
    "busi256": r"(G[0-9]+)_",
    "phe_ct256": r"(P[0-9]+)_",
}
PLACES = 40  # places that are tried for a shape on tissue
AROUND, HARD, FLAT = 8, 2.0, 0.01
"""Voxels around a fill with which its border is compared; steps across the border, as a multiple of
those, from which it is an edge; what is added to both, in deviations of the body."""
WINDOW, STEPS, BATCH, DRAWN = 48, 250, 32, 1000
"""Pixels of a window that the network sees; steps, pairs a step; bootstrap samples of people."""


def measured(folder: Path, subjects: str, args: argparse.Namespace) -> dict[str, Any]:
    """Take out shapes and lesions of pictures of a folder."""
    read = {"resize": f"{args.side}x{args.side}"}
    source = open_source(SourceRequest("pictures", str(folder), subjects=subjects, read=read))
    ids = np.random.default_rng(0).permutation(source.train_ids).tolist()
    cases = [source.load(case_id) for case_id in ids]
    bare = [case for case in cases if not _lesion(case).any()][: args.pictures]
    ill = [case for case in cases if _lesion(case).any()][: args.pictures]
    pool = CasePool(TrainingCases(CaseCache(source)), source.space)
    pairs, owners, errors, steps = [], [], [], []
    for number, case in enumerate(bare):
        rng = np.random.default_rng(number)
        body = shown_body(case.image)
        if not case.image[:, body].std():
            continue
        hole = _laid(_lesion(ill[int(rng.integers(len(ill)))]), body, rng)
        if hole is None:
            continue
        emptied = _emptied(replace(case, labels=hole.astype(np.int16)), pool, number)
        if emptied is not None:
            scale = case.image[:, body].std()
            errors.append(abs(emptied[:, hole].mean() - case.image[:, hole].mean()) / scale)
            pairs.append([_window(image, hole, scale) for image in (case.image, emptied)])
            owners.append(case.subject)
    left, seconds, stays = [], [], 0
    for number, case in enumerate(ill):
        start = time.process_time()
        emptied = _emptied(case, pool, number)
        seconds.append(time.process_time() - start)
        stays += emptied is None
        if emptied is not None:
            left.append([_left(image, case) for image in (case.image, emptied)])
            steps.append(_steps(case, emptied))
    value, low, high = _told(np.array(pairs, np.float32), owners)
    before, after = np.nanmean(left, axis=0).round(2).tolist()
    return {
        "places": len(pairs),
        "people": len(set(owners)),
        "told apart (AUC)": value,
        "low": low,
        "high": high,
        "error of the mean": round(float(np.mean(errors)), 2),
        "lesions": len(ill),
        "steps": round(float(np.median(steps)), 2),
        "hard edges": round(float(np.mean(np.array(steps) > HARD)), 2),
        "stay": round(stays / len(ill), 2),
        "left before": before,
        "left after": after,
        "ms": round(1000 * float(np.mean(seconds)), 1),
    }


def _lesion(case: Case) -> Any:
    return np.zeros(case.image.shape[1:], bool) if case.labels is None else case.labels > 0


def _emptied(case: Case, pool: CasePool, seed: int) -> Any:
    """Return the image without what is labelled, or None."""
    body = shown_body(case.image)
    context = CaseContext(case, Placement(), case.image.shape[1:], 0, pool, find_body=lambda: body)
    removal = without_lesions(context, pool.schema.foreground, (seed,))
    emptied = removal.made_in(context, (0,) * body.ndim)
    return None if emptied is None else emptied[0].case.image


def _laid(shape: Any, body: Any, rng: Any) -> Any:
    """Return a shape where all of it is body, in its own place or a random one; or None."""
    held, at = np.argwhere(shape), np.argwhere(body)
    middle = held.mean(axis=0).round().astype(int)
    for centre in (middle, *at[rng.integers(len(at), size=PLACES)]):
        moved = held - middle + centre
        inside = ((moved >= 0) & (moved < shape.shape)).all()
        if inside and body[tuple(moved.T)].all():
            out = np.zeros(shape.shape, bool)
            out[tuple(moved.T)] = True
            return out
    return None


def _window(image: Any, hole: Any, scale: float) -> Any:
    """Return image and hole in a window around the hole, (1 + C, WINDOW, WINDOW)."""
    middle = np.argwhere(hole).mean(axis=0).round().astype(int)
    starts = np.clip(middle - WINDOW // 2, 0, np.array(hole.shape) - WINDOW)
    cut = (slice(None), *(slice(a, a + WINDOW) for a in starts))
    return np.concatenate([image / scale, hole[None]])[cut]


def _steps(case: Case, emptied: Any) -> float:
    """Return the steps across the border of what was filled, as a multiple of those around it."""
    filled = (emptied != case.image).any(axis=0)
    body = shown_body(case.image)
    around = binary_dilation(filled, iterations=AROUND) & ~binary_dilation(filled) & body
    flat = FLAT * case.image[:, body].std()
    border, tissue = [], []
    for axis in range(filled.ndim):
        step = np.abs(np.diff(emptied, axis=axis + 1))
        low, high = neighbours(axis)
        border.append(step[:, (filled[low] != filled[high]) & body[low] & body[high]].ravel())
        tissue.append(step[:, around[low] & around[high]].ravel())
    return float((np.concatenate(border).mean() + flat) / (np.concatenate(tissue).mean() + flat))


def _told(pairs: Any, owners: list[str]) -> tuple[float, float, float]:
    """Share of pairs (N, 2, C, H, W) told apart by networks of other people; 95 % interval."""
    people = np.array(owners)
    names = np.random.default_rng(0).permutation(np.unique(people))
    first = np.isin(people, names[: len(names) // 2])
    scores = np.zeros((len(pairs), 2))
    for train in (first, ~first):
        torch.manual_seed(0)
        net, rng = Classifier(pairs.shape[2]), np.random.default_rng(0)
        optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.01)
        for _ in range(STEPS):
            chosen = pairs[rng.choice(np.flatnonzero(train), BATCH)]
            if rng.random() < 0.5:
                chosen = chosen[..., ::-1].copy()
            untouched, filled = (net(torch.from_numpy(chosen[:, side])) for side in (0, 1))
            loss = torch.nn.functional.softplus(untouched - filled).mean()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            for side in (0, 1):
                scores[~train, side] = net(torch.from_numpy(pairs[~train, side])).numpy()
    drawn, rng = [], np.random.default_rng(0)
    rows = [np.flatnonzero(people == name) for name in names]
    for _ in range(DRAWN):
        held = np.concatenate([rows[i] for i in rng.integers(len(rows), size=len(rows))])
        drawn.append(roc_area(scores[held, 1], scores[held, 0]))
    value = roc_area(scores[:, 1], scores[:, 0])
    low, high = np.quantile(drawn, (0.025, 0.975)).round(2).tolist()
    return round(value, 2), low, high


def _left(image: Any, case: Case) -> float:
    """How far the ring beyond a mask lies towards the lesion; in the channel where that differs."""
    body, lesion = shown_body(case.image), _lesion(case)
    away = distance_transform_edt(~lesion)
    near, far = body & (away > 0) & (away <= 4), body & (away > 9) & (away <= 12)
    if not near.any() or not far.any():
        return float("nan")
    contrast = case.image[:, lesion].mean(axis=1) - case.image[:, far].mean(axis=1)
    channel = int(np.abs(contrast).argmax())
    gap = image[channel, near].mean() - case.image[channel, far].mean()
    return float(np.sign(contrast[channel]) * gap / case.image[:, body].std())


def main() -> None:
    """Print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=120)
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--name", default="removal", help="of the file of results")
    args = parser.parse_args()
    if not DATA.is_dir():
        print("skipped, ../shared/data is not there")
        return
    found = {name: measured(DATA / name, who, args) for name, who in SETS.items()}
    keys = list(next(iter(found.values())))
    print_table([("set", *keys), *((name, *row.values()) for name, row in found.items())])
    write(args.name, {"machine": machine(), "sets": found})


if __name__ == "__main__":
    main()
