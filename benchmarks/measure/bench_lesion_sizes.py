"""Are drawn lesions as large and as whole as training lesions, and are there scars of removed ones?

Of each draw of training people, ``parametric`` draws samples in their own pictures and in those of
the others that show no lesion. Printed are median and 90 % quantile of the sizes of lesions, as
shares of those of the training pictures.

Looks, of lesions of 60 pixels and more: the share that ends in a straight side along an axis (.6
times as long as the lesion in that direction), or at the picture's edge; means of width over height
and of the area over its convex hull; contrast to the ring around, in deviations of it; share of the
pixels that are black. Beside the training lesions of the draw: those of everybody else (blank), and
the training lesions with a tenth cut off straight from one side (planted).

Scars: the training pictures without their lesions. How far the fill lies from the ring around it,
in deviations of the ring (mean, and share above one, brighter or darker). Beside it the same of the
lesion's shape on untouched tissue of the same picture (blank), and of such tissue made brighter by
one deviation (planted).

    python benchmarks/measure/bench_lesion_sizes.py NAME=FOLDER=SUBJECTS ... [--people 5]
        [--draws 8] [--samples 100] [--as STATE]

FOLDER has images/ and labels/; SUBJECTS is a regular expression with one group.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bench_removal import _emptied, _laid, _lesion
from common import known_states, print_table, write
from gain_unlabelled import shows_tissue
from scipy.ndimage import distance_transform_edt, label
from scipy.spatial import ConvexHull

from gansynth.core.body_mask import shown_body
from gansynth.core.case_pool import CasePool, TrainingCases
from gansynth.core.schema import LabelArray, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.batches import CaseCache
from gansynth.data.connected_components import parts
from gansynth.fitting.command import fit
from gansynth.sampling.loaded_run import load
from gansynth.sampling.run_source import open_source

LEAST = 4  # pixels of the smallest part that counts as a lesion
AT = (0.5, 0.9)
SHAPED = 60  # pixels from which a lesion has a shape
STRAIGHT = 0.6  # length of a side, as a share of the lesion's, from which it is straight
CUT = 0.1  # share of a lesion that is cut off where a cut is planted
RING = (2, 5)  # distances in pixels between which the ring around a lesion lies
LOOKS = ("straight", "at the edge", "width/height", "of the hull", "contrast", "black")
BLACK = 0.01  # of a picture's range above its least value


def sizes(maps: Iterable[LabelArray | None], schema: Schema) -> np.ndarray:
    """Return the pixels of each lesion."""
    found = [part.voxels for labels in maps if labels is not None for part in parts(labels, schema)]
    return np.array([size for size in found if size >= LEAST])


def masks(pairs: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield a picture (H, W) with the mask of each of its lesions that has a shape."""
    for image, labels in pairs:
        numbered, count = label(labels > 0)
        for number in range(1, count + 1):
            mask = numbered == number
            if mask.sum() >= SHAPED:
                yield image, mask


def ring_of(mask: Any, body: Any) -> Any:
    """Return the body around a mask."""
    away = distance_transform_edt(~mask)
    return (away > RING[0]) & (away <= RING[1]) & body


def looks(shown: Iterable[tuple[Any, Any]]) -> list[float]:
    """Return the means of ``LOOKS`` over lesions in pictures: see above."""
    rows = []
    for image, mask in shown:
        y, x = np.nonzero(mask)
        height, width = np.ptp(y) + 1, np.ptp(x) + 1
        rows_of, columns_of = mask.sum(axis=1)[y.min() : y.max() + 1], mask.sum(axis=0)
        columns_of = columns_of[x.min() : x.max() + 1]
        sides = [rows_of[end] / width for end in (0, -1)]
        sides += [columns_of[end] / height for end in (0, -1)]
        edge = y.min() == 0 or x.min() == 0 or y.max() == len(mask) - 1
        edge = edge or x.max() == mask.shape[1] - 1
        corners = np.concatenate([np.argwhere(mask) + off for off in np.ndindex(2, 2)])
        ring = image[ring_of(mask, shown_body(image[None]))]
        gap = (image[mask].mean() - ring.mean()) / max(ring.std(), 1e-6) if ring.size else np.nan
        rows.append(
            [
                max(sides) >= STRAIGHT,
                edge,
                width / height,
                mask.sum() / ConvexHull(corners).volume,
                gap,
                (image[mask] <= image.min() + BLACK * np.ptp(image)).mean(),
            ]
        )
    found: list[float] = np.nanmean(np.array(rows, float), axis=0).round(3).tolist()
    return found


def planted(shown: Iterable[tuple[Any, Any]]) -> Iterator[tuple[Any, Any]]:
    """Yield lesions of which a tenth is cut off: above, below, left or right by turns."""
    for number, (image, mask) in enumerate(shown):
        turned = np.rot90(mask, number % 4)
        gone = np.cumsum(turned.sum(axis=1)) < CUT * mask.sum()
        yield image, np.rot90(turned & ~gone[:, None], -(number % 4))


def scars(folder: Path, subjects: str) -> dict[str, list[float]]:
    """Return how far fills lie from what is around them, and the controls: see above."""
    source = open_source(SourceRequest("pictures", str(folder), subjects=subjects, fold="all"))
    pool, found = CasePool(TrainingCases(CaseCache(source)), source.space), defaultdict(list)
    for number, name in enumerate(source.train_ids):
        case = source.load(name)
        lesion: Any = _lesion(case)
        body = shown_body(case.image)
        if lesion.sum() < SHAPED:
            continue
        emptied = _emptied(case, pool, number)
        if emptied is not None:
            found["fills"].append(gap_to_ring(emptied[0], lesion, body))
        near = distance_transform_edt(~lesion) <= 2 * RING[1]
        other = _laid(lesion, body & ~near, np.random.default_rng(number), anew=True)
        if other is not None:
            gap = gap_to_ring(case.image[0], other, body)
            found["blank"].append(gap)
            found["planted"].append(gap + 1)
    return {
        name: [float(np.mean(gaps)), float((np.abs(gaps) > 1).mean())]
        for name, gaps in found.items()
    }


def gap_to_ring(image: Any, mask: Any, body: Any) -> float:
    """Return how much brighter a place is than the ring around it, in deviations of the ring."""
    ring = image[ring_of(mask, body)]
    return float((image[mask].mean() - ring.mean()) / max(ring.std(), 1e-6))


def write_draw(folder: Path, ill: list[str], free: list[str], out: Path) -> None:
    """Copy the training pictures of some people, and lesion-free pictures of the others."""
    for kind, cases, kinds in (("ill", ill, ("images", "labels")), ("free", free, ("images",))):
        for part in kinds:
            (out / kind / part).mkdir(parents=True)
            for case in cases:
                shutil.copy(folder / part / f"{case}.png", out / kind / part)


def draw(
    folder: Path, source: CaseSource, subjects: str, number: int, args: argparse.Namespace
) -> dict[str, Any]:
    """Return the shares of sizes of one draw of people."""
    rng = np.random.default_rng(number)
    people = defaultdict(list)
    for case in source.train_ids:
        people[source.header(case).subject].append(case)
    bare = {case for case in source.train_ids if not args.maps[case].any()}
    names = sorted(name for name in people if not bare.issuperset(people[name]))
    chosen = rng.choice(names, args.people, replace=False).tolist()
    ill = [case for name in chosen for case in people[name]]
    others = sorted(case for case in bare if source.header(case).subject not in chosen)
    others = [case for case in others if shows_tissue(source.load(case).image)]
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch)
        write_draw(folder, ill, others, out)
        data = f"pictures:{out / 'ill'}"
        fit("parametric", data=data, subjects=subjects, fold="all", out=out / "run", quiet=True)
        run = load(out / "run")
        real = np.quantile(sizes([args.maps[case] for case in ill], source.schema), AT)
        found: dict[str, Any] = {"training": real.tolist()}
        real_ones = list(masks((source.load(case).image[0], args.maps[case]) for case in ill))
        strangers = [c for c in source.train_ids if c not in bare and c not in ill]
        found["looks"] = {
            "training": looks(real_ones),
            "blank": looks(masks((source.load(c).image[0], args.maps[c]) for c in strangers)),
            "planted": looks(planted(real_ones)),
        }
        found["scars"] = scars(out / "ill", subjects)
        scans: dict[str, Any] = {
            "unlabelled": f"pictures:{out / 'free'}",
            "backgrounds": "unlabelled",
        }
        for where, words in (("own", {}), ("others", scans)):
            drawn = run.sample(args.samples, **words)
            taken = [one for one in drawn if not one.provenance.get("reject_reason")]
            each = sizes([one.labels for one in taken], source.schema)
            found["looks"][where] = looks(masks((one.image[0], one.labels) for one in taken))
            found[where] = {
                "shares": (np.quantile(each, AT) / real).round(3).tolist(),
                "rejected": len(drawn) - len(taken),
                "lesions": len(each),
            }
    return found


def spread(values: Any) -> list[str]:
    """Return the mean of each column, and its error over rows, as text."""
    errors = values.std(axis=0, ddof=1) / np.sqrt(len(values)) if len(values) > 1 else [0] * 9
    return [f"{m:.2f} ({e:.2f})" for m, e in zip(values.mean(axis=0), errors, strict=False)]


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", nargs="+", metavar="NAME=FOLDER=SUBJECTS")
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--draws", type=int, default=8)
    parser.add_argument("--samples", type=int, default=100)
    parser.add_argument("--as", dest="state", default="now")
    args = parser.parse_args()
    results: dict[str, object] = {}
    for text in args.data:
        name, where, subjects = text.split("=", 2)
        source = open_source(SourceRequest("pictures", where, subjects=subjects, fold="all"))
        args.maps = {case: source.labels_of(case) for case in source.train_ids}
        rows = [draw(Path(where), source, subjects, n, args) for n in range(args.draws)]
        results[name] = rows
        table = []
        for kind in ("own", "others"):
            shares = np.array([row[kind]["shares"] for row in rows])
            rejected = np.mean([row[kind]["rejected"] for row in rows]) / args.samples
            below = int((shares[:, 0] < 1).sum())
            table.append([kind, *spread(shares), f"{below} of {len(rows)}", f"{rejected:.0%}"])
        head = [name, "median (SE)", "90 % quantile (SE)", "smaller in", "rejected"]
        print_table([head, *table])
        for what, columns in (("looks", LOOKS), ("scars", ("mean", "above one"))):
            lines = []
            for kind in dict.fromkeys(kind for row in rows for kind in row[what]):
                known = [row[what][kind] for row in rows if kind in row[what]]
                lines.append([kind, *spread(np.array(known))])
            print_table([[f"{name}, {what}", *columns], *lines])
    write("lesion_sizes", {"states": known_states("lesion_sizes") | {args.state: results}})


if __name__ == "__main__":
    main()
