"""Can one see where a lesion was taken out, and what is left of it?

Filled or not: the shape of another picture's lesion is laid on the tissue of a picture without
lesions, and taken out as a lesion is (``gansynth.conditions.removal``). A small network tells the
filled place from the same place untouched, on people that it was not trained on; .5 is chance. The
error of the fill's mean is in deviations of the body.

Volumes: everybody has a lesion. So the whole shape of another person's lesion, or of half its
lengths where it has no room, is laid where all of it is body, farther from the person's own lesion
than the tissue that a removal compares. The own lesion stays, with what is left of it beyond its
mask: it is the same in both pictures, and counts as unlabelled, so that it is never copied (taken
out, too, it would put a second fill into the windows). The network sees three slices through a
hole; of each plane another network.

The instrument, by the same network. Blank: two untouched places of the same picture, one of which,
by the toss of a coin, is called filled: .5; mean, least and most of four times that all coins are
tossed. Planted: the hole filled by the mean of the body, or by another place as it is, without
blending: 1 where such traces can be seen.

Steps: of real lesions, mean absolute difference of neighbours across the border of what was filled,
as a multiple of that of the tissue up to 8 voxels around: the median over lesions, and the share
with hard edges. Of volumes also between slices alone.

Left: of real lesions, how far the ring 1 to 4 voxels beyond the mask lies towards the lesion from
the tissue 9 to 12 voxels away, in deviations of the body, before and after; mean over lesions.

    python benchmarks/measure/bench_removal.py [--pictures 240] [--side 128] [--name removal]

Networks learn other numbers on other processors, by .01 or so. Those of the results, on newer ones:
``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2``.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import machine, print_table, write
from scipy.ndimage import binary_dilation, distance_transform_edt

from gansynth.conditions.removal import AWAY, BORDER, whole_lesions, without_lesions
from gansynth.core.body_mask import shown_body
from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases
from gansynth.core.geometry import neighbours
from gansynth.core.schema import Case
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Placement
from gansynth.data.batches import CaseCache
from gansynth.imaging.box_contrast import roc_area
from gansynth.metrics.c2st import Classifier
from gansynth.sampling.run_source import open_source

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
SETS = {
    "lgg_flair256": r"(TCGA_[A-Z]+_[A-Z0-9]+)_",
    "busi256": r"(G[0-9]+)_",
    "phe_ct256": r"(P[0-9]+)_",
}
VOLUMES: dict[str, dict[str, str]] = {
    "lgg_flair3d128": {},
    "brats2015_deepmedic": {
        "image": "{case}/{channel}_subtrMeanDivStd.nii.gz",
        "label": "{case}/OTMultiClass.nii.gz",
        "modality": "none",
    },
}
"""Volumes, and how they are read."""
PLACES = 40  # places that are tried for a shape on tissue
AROUND, HARD, FLAT = 8, 2.0, 0.01
"""Voxels around a fill with which its border is compared; steps across the border, as a multiple of
those, from which it is an edge; what is added to both, in deviations of the body."""
WINDOW, STEPS, BATCH, DRAWN = 48, 250, 32, 1000
"""Pixels of a window that the network sees; steps, pairs a step; bootstrap samples of people."""
HOLES = {"lgg_flair3d128": 2, "brats2015_deepmedic": 12}  # a person
PLANES = ("axial", "coronal", "sagittal")  # across the axes of a volume, in their order
SLICES = (0.25, 0.5, 0.75)  # of a hole, from one end of its voxels to the other
TOSSES = 4  # of all coins


def pictures(name: str, args: argparse.Namespace) -> dict[str, Any]:
    """Take out shapes and lesions of a folder's pictures."""
    read = {"resize": f"{args.side}x{args.side}"}
    request = SourceRequest("pictures", str(DATA / name), subjects=SETS[name], read=read)
    source = open_source(request)
    cases = _cases(source)
    bare = [case for case in cases if not _lesion(case).any()][: args.pictures]
    ill = [case for case in cases if _lesion(case).any()][: args.pictures]
    return measured(source, bare, ill)


def volumes(name: str) -> dict[str, Any]:
    """Take out shapes and lesions of a folder's volumes."""
    request = SourceRequest("nifti", str(DATA / name), fold="all", read=VOLUMES[name])
    source = open_source(request)
    cases = _cases(source)
    return measured(source, cases, cases, HOLES[name])


def _cases(source: CaseSource) -> list[Case]:
    ids = np.random.default_rng(0).permutation(source.train_ids).tolist()
    return [source.load(case_id) for case_id in ids]


def measured(
    source: CaseSource, hosts: Sequence[Case], ill: Sequence[Case], each: int = 1
) -> dict[str, Any]:
    """Take ``each`` shapes out of every host, and lesions out of those who have them."""
    pool = CasePool(TrainingCases(CaseCache(source)), source.space)
    seen, errors, sizes = Seen(len(SLICES) if source.schema.ndim == 3 else 1), [], []
    for index, case in enumerate(hosts):
        body, own = shown_body(case.image), _lesion(case)
        scale = case.image[:, body].std()
        if not scale:
            continue
        if own.any():
            own = whole_lesions(case.image, own, body)
        room = body & ~binary_dilation(own, iterations=AWAY + BORDER)
        others = [other for other in ill if other is not case]
        for number in range(index * each, (index + 1) * each):
            rng = np.random.default_rng(number)
            shape = _lesion(others[int(rng.integers(len(others)))])
            hole = _laid(shape, room, rng)
            if hole is None and body.ndim == 3:
                hole = _laid(shape[::2, ::2, ::2], room, rng)
            if hole is None:
                continue
            ignored = own if own.any() else None
            marked = replace(case, labels=hole.astype(np.int16), ignored=ignored)
            emptied = _emptied(marked, pool, number)
            if emptied is None:
                continue
            errors.append(abs(emptied[:, hole].mean() - case.image[:, hole].mean()) / scale)
            sizes.append(int(hole.sum()))
            seen.add(case, body, hole, emptied)
            seen.plant(case, body, hole, _laid(hole, room, rng, anew=True))
    left, seconds, stays, steps, between = [], [], 0, [], []
    for number, case in enumerate(ill):
        start = time.process_time()
        emptied = _emptied(case, pool, number)
        seconds.append(time.process_time() - start)
        stays += emptied is None
        if emptied is not None:
            left.append([_left(image, case) for image in (case.image, emptied)])
            steps.append(_steps(case, emptied, range(case.image.ndim - 1)))
            if case.image.ndim == 4:
                between.append(_steps(case, emptied, (0,)))
    value, low, high = seen.told(PLANES[0])
    before, after = np.nanmean(left, axis=0).round(2).tolist()
    found = {
        "places": len(sizes),
        "people": len(set(seen.owners[PLANES[0]])),
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
    found["blank"] = list(seen.blank())
    for name in ("planted mean", "planted paste", *PLANES[1:]):
        found[name] = list(seen.told(name)) if name in seen.owners else None
    found["voxels of a hole"] = int(np.median(sizes))
    found["voxels of a lesion"] = int(np.median([_lesion(case).sum() for case in ill]))
    found["steps between slices"] = round(float(np.median(between)), 2) if between else None
    return found


class Seen:
    """What networks see: pairs of windows, untouched and filled, and their people, by question."""

    def __init__(self, slices: int) -> None:
        self.slices = slices  # of a place
        self.pairs: dict[str, list[Any]] = {}
        self.owners: dict[str, list[str]] = {}

    def _add(self, name: str, owner: str, first: Sequence[Any], second: Sequence[Any]) -> None:
        self.pairs.setdefault(name, []).extend(zip(first, second, strict=True))
        self.owners.setdefault(name, []).extend([owner] * len(first))

    def add(self, case: Case, body: Any, hole: Any, emptied: Any) -> None:
        """Add a hole that was filled, in each plane."""
        scale = case.image[:, body].std()
        for axis, plane in enumerate(PLANES if hole.ndim == 3 else PLANES[:1]):
            sides = [_windows(image, hole, scale, axis) for image in (case.image, emptied)]
            self._add(plane, case.subject, *sides)

    def plant(self, case: Case, body: Any, hole: Any, other: Any) -> None:
        """Add fills that anybody sees, and an untouched place beside another one."""
        image, scale = case.image, case.image[:, body].std()
        untouched = _windows(image, hole, scale)
        flat = image.copy()
        flat[:, hole] = image[:, body].mean(axis=1)[:, None]
        self._add("planted mean", case.subject, untouched, _windows(flat, hole, scale))
        if other is None:
            return
        pasted = image.copy()
        pasted[:, hole] = image[:, other]
        self._add("planted paste", case.subject, untouched, _windows(pasted, hole, scale))
        self._add("blank", case.subject, untouched, _windows(image, other, scale))

    def told(self, name: str) -> tuple[float, float, float]:
        """How well a network tells the sides apart, with a 95 % interval."""
        pairs, owners = np.array(self.pairs[name], np.float32), self.owners[name]
        return _told(owners, _scores(pairs, owners))

    def blank(self) -> tuple[float, float, float]:
        """How well networks tell untouched places apart: mean, least and most."""
        pairs, owners = np.array(self.pairs["blank"], np.float32), self.owners["blank"]
        values, rng = [], np.random.default_rng(0)
        for _ in range(TOSSES):
            tossed = (rng.random(len(pairs) // self.slices) < 0.5).repeat(self.slices)
            scores = _scores(np.where(tossed[:, *[None] * 4], pairs[:, ::-1], pairs), owners)
            values.append(roc_area(scores[:, 1], scores[:, 0]))
        mean, least, most = np.array([np.mean(values), min(values), max(values)]).round(2).tolist()
        return mean, least, most


def _lesion(case: Case) -> Any:
    return np.zeros(case.image.shape[1:], bool) if case.labels is None else case.labels > 0


def _emptied(case: Case, pool: CasePool, seed: int) -> Any:
    """Return the image without what is labelled, or None, also where it shows what is ignored."""
    body = shown_body(case.image)
    context = CaseContext(case, Placement(), case.image.shape[1:], 0, pool, find_body=lambda: body)
    removal = without_lesions(context, pool.schema.foreground, (seed,))
    emptied = removal.made_in(context, (0,) * body.ndim)
    return None if emptied is None or len(removal.unknown) else emptied[0].case.image


def _laid(shape: Any, room: Any, rng: Any, *, anew: bool = False) -> Any:
    """Return a shape where there is room for all of it, in its own place or a random one; or None.

    ``anew``: not in its own place.
    """
    held, at = np.argwhere(shape), np.argwhere(room)
    if not len(at):
        return None
    middle = held.mean(axis=0).round().astype(int)
    drawn = at[rng.integers(len(at), size=PLACES)]
    for centre in drawn if anew else (middle, *drawn):
        moved = held - middle + centre
        inside = ((moved >= 0) & (moved < room.shape)).all()
        if inside and room[tuple(moved.T)].all():
            out = np.zeros(room.shape, bool)
            out[tuple(moved.T)] = True
            return out
    return None


def _windows(image: Any, hole: Any, scale: float, axis: int = 0) -> list[Any]:
    """Return windows of a picture, or of slices of a volume across an axis: see ``_window``."""
    if hole.ndim == 2:
        return [_window(image, hole, scale)]
    at = np.quantile(np.nonzero(hole)[axis], SLICES, method="nearest")
    return [_window(image.take(i, axis + 1), hole.take(i, axis), scale) for i in at]


def _window(image: Any, hole: Any, scale: float) -> Any:
    """Return image and hole in a window around the hole, (1 + C, WINDOW, WINDOW)."""
    lacking = [(0, max(0, WINDOW - side)) for side in hole.shape]  # of few slices
    image, hole = np.pad(image, [(0, 0), *lacking], "edge"), np.pad(hole, lacking)
    middle = np.argwhere(hole).mean(axis=0).round().astype(int)
    starts = np.clip(middle - WINDOW // 2, 0, np.array(hole.shape) - WINDOW)
    cut = (slice(None), *(slice(a, a + WINDOW) for a in starts))
    return np.concatenate([image / scale, hole[None]])[cut]


def _steps(case: Case, emptied: Any, axes: Sequence[int]) -> float:
    """Return the steps across the border of what was filled, as a multiple of those around it."""
    filled = (emptied != case.image).any(axis=0)
    body = shown_body(case.image)
    around = binary_dilation(filled, iterations=AROUND) & ~binary_dilation(filled) & body
    flat = FLAT * case.image[:, body].std()
    border, tissue = [], []
    for axis in axes:
        step = np.abs(np.diff(emptied, axis=axis + 1))
        low, high = neighbours(axis)
        border.append(step[:, (filled[low] != filled[high]) & body[low] & body[high]].ravel())
        tissue.append(step[:, around[low] & around[high]].ravel())
    return float((np.concatenate(border).mean() + flat) / (np.concatenate(tissue).mean() + flat))


def _scores(pairs: Any, owners: list[str]) -> Any:
    """Score pairs (N, 2, C, H, W) by networks of other people: (N, 2), untouched and filled."""
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
    return scores


def _told(owners: list[str], scores: Any) -> tuple[float, float, float]:
    """Share of pairs told apart by their scores; 95 % interval over people."""
    people = np.array(owners)
    names = np.random.default_rng(0).permutation(np.unique(people))
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
    found = {name: pictures(name, args) for name in SETS}
    found |= {name: volumes(name) for name in VOLUMES}
    keys = next(iter(found.values()))
    print_table([("", *found), *((key, *(row[key] for row in found.values())) for key in keys)])
    write(args.name, {"machine": machine(), "sets": found})


if __name__ == "__main__":
    main()
