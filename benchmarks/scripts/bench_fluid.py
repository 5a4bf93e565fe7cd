"""Do new lesions lie on ventricles more than real ones border on them? For sets of brains.

Fluid is dark in FLAIR: voxels of a brain's inside, deep below the surface of the head and without
lesions, that are darker than a share of the way from the darkest of them to their median. Of a new
lesion it is what its background shows there, of a real one what lies around it: nobody knows what a
real one has displaced. Arms: places as ``copypaste`` draws them, anywhere in the body (which must
show more, or the measure is blind), and real lesions of the training people and of all others.

    python benchmarks/scripts/bench_fluid.py NAME=SOURCE:WHERE[=SUBJECTS] ... [--draws 4]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bench_lesion_length import splits_of
from common import known_states, print_table, write
from scipy.ndimage import binary_opening, distance_transform_edt

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.lesion_placement import lesion_drawer
from gansynth.conditions.location_prior import NEAREST, RING
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.body_mask import organ_mask
from gansynth.core.schema import FloatArray, Mask
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.body_box import BodyBox, depths
from gansynth.sampling.run_source import open_source

NAME = "fluid"
EDITS = ("flip", "rotate", "scale", "elastic")
DEEP = 0.1  # depth below the surface of the head, in lengths of its box: the skull is not as deep
DARK = 0.45  # share of the way from the darkest hundredth to the median
SMALL = 30  # lesions of fewer voxels are left out
OTHERS = 240  # real cases of other people, at most
MUCH = 0.1  # share of a lesion that is much
FIGURES = ("lesions", "mean", "much", "median", "tenth")


def fluid_of(image: FloatArray, body: Mask, lesion: Mask) -> Mask | None:
    """Fluid in an image (C, ...), by its first channel; None without anything as deep."""
    if not body.any():
        return None
    inside = body & (depths(body, BodyBox.of(body)) > DEEP)
    healthy = image[0][inside & ~lesion]
    if not healthy.size:
        return None
    dark, middle = np.percentile(healthy, (1, 50))
    return binary_opening(inside & (image[0] < dark + DARK * (middle - dark)))


def of_new(source: CaseSource, where: str, count: int) -> Iterator[float]:
    """Share of each new lesion that its background shows as fluid."""
    drawer = lesion_drawer(f"where={where}", "apart_mm=3.0")
    sampler = ConditionSampler(source, source.space, build_edits(EDITS), seed=1, lesions=drawer)
    for index in range(count):
        condition = sampler.draw(index)
        lesion = condition.required("lesion") > 0
        image = condition.required("background")
        fluid = fluid_of(image, organ_mask(image), np.zeros_like(lesion))
        if fluid is not None and lesion.sum() >= SMALL:
            yield float(fluid[lesion].mean())


def of_real(source: CaseSource, ids: Sequence[str]) -> Iterator[float]:
    """Share of the rim of each case's lesions that is fluid."""
    for case_id in ids:
        case = source.load(case_id)
        lesion = np.zeros(case.image.shape[1:], bool) if case.labels is None else case.labels > 0
        if lesion.sum() < SMALL:
            continue
        body = organ_mask(case.image)
        fluid = fluid_of(case.image, body, lesion)
        if fluid is None:
            continue
        away = distance_transform_edt(~lesion)
        reach = RING * float(BodyBox.of(body).size.max())
        rim = (away > NEAREST) & (away <= NEAREST + reach) & body
        if rim.any():
            yield float(fluid[rim].mean())


def summary(shares: Sequence[float]) -> dict[str, float]:
    """Mean, share of lesions with much of it, median, and what one of ten exceeds."""
    values = np.array(shares)
    median, tenth = np.quantile(values, (0.5, 0.9)).tolist()
    mean, much = float(values.mean()), float((values > MUCH).mean())
    numbers = (len(values), mean, much, median, tenth)
    return {key: round(number, 4) for key, number in zip(FIGURES, numbers, strict=True)}


def measured(data: str, subjects: str | None, args: argparse.Namespace) -> dict[str, Any]:
    """Figures of all arms, lesions of all draws of people together."""
    arms: dict[str, list[float]] = {}
    name, _, where = data.partition(":")
    for draw in range(args.draws):
        with tempfile.TemporaryDirectory() as home:
            splits = Path(home) / "splits.json"
            splits.write_text(json.dumps(splits_of(data, subjects, args.people, seed=draw)))
            read = {"splits": str(splits)}
            source = open_source(SourceRequest(name, where, subjects=subjects, read=read))
        others = list(source.held_out_ids)
        for arm, shares in (
            ("new, likely places", of_new(source, "prior", args.samples)),
            ("new, anywhere", of_new(source, "anywhere", args.samples)),
            ("real rims, training people", of_real(source, source.train_ids)),
            ("real rims, other people", of_real(source, others[:: len(others) // OTHERS + 1])),
        ):
            arms.setdefault(arm, []).extend(shares)
    return {arm: summary(shares) for arm, shares in arms.items()}


def main() -> None:
    """Measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sets", nargs="+", help="name, source, subjects")
    parser.add_argument("--draws", type=int, default=4, help="of training people")
    parser.add_argument("--people", type=int, default=5)
    parser.add_argument("--samples", type=int, default=120)
    args = parser.parse_args()
    states = known_states(NAME)
    rows = []
    for asked in args.sets:
        state, data, *subjects = asked.split("=", 2)
        states[state] = measured(data, subjects[0] if subjects else None, args)
        for arm, figures in states[state].items():
            rows.append((state, arm, *figures.values()))
    write(NAME, {"states": states})
    print_table([("set", "lesions", *FIGURES), *rows])


if __name__ == "__main__":
    main()
