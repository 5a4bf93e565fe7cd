"""Do new lesions lie where real ones do? Pictures of LGG, a few training patients, 64 x 64 pixels.

Of each pixel of a lesion, the surroundings are the nearest pixel of the ring around the lesion.
Printed for each training subset, of new lesions (by the location prior alone, then by tissue and
depth too) and of real lesions of patients who were not trained on:

- in range: share of lesions' pixels whose surroundings are like those of real lesions, tissue and
  depth (``LesionSurroundings``), learnt from half of the other patients; real ones: the other half;
- brain: share of lesions' pixels in ``find_brain`` of the full picture, which knows no lesions;
- outside: share of lesions with less than 0.6 of their pixels there;
- rejected: share of samples for which no likely place was found; milliseconds of processor a draw.

    python benchmarks/measure/bench_places.py [--draws 4] [--patients 5] [--samples 120] [--side 64]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from common import print_table, write
from PIL import Image
from scipy.ndimage import distance_transform_edt
from strip_skulls import find_brain

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.lesion_placement import PlacementRegion, lesion_drawer
from gansynth.conditions.location_prior import NEAREST, RING, LesionSurroundings, frame_of
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.case_pool import CaseContext, CasePool, TrainingCases, body_of
from gansynth.core.schema import Mask
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Placement
from gansynth.data.batches import CaseCache
from gansynth.sampling.run_source import open_source

DATA = Path(__file__).resolve().parents[2] / "../shared/data/lgg_flair256"
PATIENT = r"(TCGA_[A-Z]+_[A-Z0-9]+)_"
EDITS, REAL = ("flip", "rotate", "scale", "elastic"), 240


class Judge:
    """Looks at lesions by what surrounds those of some patients' cases."""

    def __init__(self, everyone: CasePool, ids: Sequence[str]) -> None:
        self.everyone = everyone
        self.known = LesionSurroundings.learn(CasePool(everyone.cases, everyone.space, ids), (1,))

    def __call__(self, case_id: str, lesion: Mask) -> tuple[float, float, int]:
        """Shares of a lesion's pixels, bool (H, W), in range and in the brain; their number."""
        case = self.everyone.uncut(case_id)
        seen = replace(case, labels=np.where(lesion, np.int16(1), case.labels))
        at, body = Placement((0, 0)), body_of(case)
        scene = CaseContext(seen, at, lesion.shape, 0, self.everyone, find_body=lambda: body)
        away = distance_transform_edt(~lesion)
        width = max(RING * float(frame_of(scene).size.max()), 1.5)
        ring = (away > NEAREST) & (away <= NEAREST + width) & ((case.labels == 0) | lesion)
        nearest = distance_transform_edt(~ring, return_distances=False, return_indices=True)
        likely = self.known.likely(scene, (1,))[tuple(axis[lesion] for axis in nearest)]
        picture = np.asarray(Image.open(DATA / "images" / f"{case_id}.png"), np.float32)
        parts = [n for length in picture.shape for n in (len(lesion), length // len(lesion))]
        brain = find_brain(picture).reshape(parts).mean(axis=(1, 3))
        return float(likely.mean()), float(brain[lesion].mean()), int(lesion.sum())


def subset(
    draw: int, args: argparse.Namespace, home: Path
) -> tuple[ConditionSampler, CaseSource, CasePool]:
    """Conditions from some patients, their source, and the pool of all patients' cases."""
    names = sorted(path.stem for path in (DATA / "images").glob("*.png"))
    people = sorted({name.rsplit("_", 1)[0] for name in names})
    chosen = np.random.default_rng(draw).permutation(people)[: args.patients].tolist()
    split = {"train": [], "val": []}
    for name in names:
        split["train" if name.rsplit("_", 1)[0] in chosen else "val"].append(name)
    splits = home / f"splits_{draw}.json"
    splits.write_text(json.dumps([split]), encoding="utf-8")
    read = {"resize": f"{args.side}x{args.side}", "splits": str(splits)}
    source = open_source(SourceRequest("pictures", str(DATA), subjects=PATIENT, read=read))
    drawer = lesion_drawer(None, "apart_mm=3.0")
    sampler = ConditionSampler(source, source.space, build_edits(EDITS), seed=1, lesions=drawer)
    everyone = TrainingCases(CaseCache(source), (*split["train"], *split["val"]))
    return sampler, source, CasePool(everyone, source.space)


def summary(rows: Sequence[tuple[float, float, int]]) -> dict[str, float]:
    """Shares of pixels, and of lesions outside of the brain."""
    likely, brain, pixels = np.array(rows, float).T
    found = {"in range": np.average(likely, weights=pixels)}
    found |= {"brain": np.average(brain, weights=pixels), "outside": (brain < 0.6).mean()}
    return {**{key: float(value) for key, value in found.items()}, "pixels": float(pixels.mean())}


def measure(draw: int, args: argparse.Namespace, home: Path) -> dict[str, dict[str, float]]:
    """New lesions of one training subset, and real lesions of other patients."""
    found = {}
    alone = patch.object(PlacementRegion, "surroundings", None)
    for name, way in (("prior alone", alone), ("prior, tissue, depth", nullcontext())):
        with way:
            sampler, source, everyone = subset(draw, args, home)
            sampler.draw(0)
            began = time.process_time()
            drawn = [sampler.draw(index) for index in range(args.samples)]
            took = 1000 * (time.process_time() - began) / len(drawn)
        others = source.held_out_ids
        people = sorted({source.header(i).subject for i in others})
        judging = set(people[::2])
        judge = Judge(everyone, [i for i in others if source.header(i).subject in judging])
        told = [c.provenance for c in drawn]
        pairs = [(p["case"], c.lesion > 0) for p, c in zip(told, drawn, strict=True)]
        found[name] = summary([judge(i, lesion) for i, lesion in pairs if lesion.any()])
        found[name]["rejected"] = float(np.mean([not p["lesions"]["room"] for p in told]))
        found[name]["ms"] = took
    ids = [i for i in others if source.header(i).subject not in judging]
    maps = [(i, everyone.label_map(i) > 0) for i in ids]
    real = [(i, lesion) for i, lesion in maps if lesion.any()]
    found["real, other patients"] = summary([judge(*row) for row in real[:: len(real) // REAL + 1]])
    return found


def main() -> None:
    """Measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--draws", type=int, default=4, help="training subsets")
    parser.add_argument("--patients", type=int, default=5)
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--side", type=int, default=64, help="pixels of the pictures' edge")
    args = parser.parse_args()
    if not DATA.is_dir():
        print("skipped, ../shared/data/lgg_flair256 is not there")
        return
    with tempfile.TemporaryDirectory() as home:
        found = [measure(draw, args, Path(home)) for draw in range(args.draws)]
    write("places" if args.side == 64 else f"places_{args.side}", {"subsets": found})
    keys = ("in range", "brain", "outside", "pixels", "rejected", "ms")
    rows = [
        (draw, name, *(numbers.get(key, float("nan")) for key in keys))
        for draw, arms in enumerate(found)
        for name, numbers in arms.items()
    ]
    print_table([("subset", "lesions", *keys), *rows])


if __name__ == "__main__":
    main()
