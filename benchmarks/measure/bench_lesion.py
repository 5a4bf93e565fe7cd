"""Lesions in real images: copy-paste beside ``cgan3d-lesion``, each of its stages alone.

Fits every arm by the documented command on the training cases, draws samples of it, and asks

- faithfulness: Dice of a small segmenter on samples, over its Dice on real crops that it has not
  been trained on; also in and around the new lesion alone, and against other samples' labels. Of
  two judges one is trained on the fold's training cases, as the issue has it; what copy-paste puts
  together it has seen in training. The other is trained on the held-out cases, which no generator
  has seen, and held against real crops of the training cases.
- the seam: how many gradients across the new lesions' edges and rims lie within the range of real
  ones (``gansynth.metrics.lesions``); contrast of lesions; power in bands of frequency, over
  real.

Lesions go into whole volumes, the same ones to the same places in every arm. Segmenters are trained
on crops and asked on crops: of samples around the new lesion, of real ones around theirs. Intervals
are of samples drawn anew (of the real side: of people), 95 %.

    python benchmarks/measure/bench_lesion.py [--data phantoms brats15] [--steps N] [--samples 48]
        [--seeds 0 1 2] [--arms copypaste coarse refine both] [--edits rotate scale elastic]
        [-o FOLDER] [--tiny]
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import gansynth, print_table, write
from lesion_data import DataSet, Shown, Swapped, around, crops, data_sets, whole

from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Schema
from gansynth.metrics.faithfulness import (
    EvaluationSegmenter,
    EvaluationSegmenterOptions,
    mean_dice,
    train_segmenter,
)

LEAST_OF_REAL = 0.8
BAR = "both: Dice in and around the new lesion >= 0.8 x real, and above copy-paste's"
SMALL = ("width=12", "levels=3", "d_width=12", "d_levels=2", "local_size=24", "steps=400")
"""Minutes on a CPU; textures are those of a beginning."""
DRAWN = ("cgan3d-lesion", *[word for one in SMALL for word in ("--set", one)])
ARMS: dict[str, tuple[str, ...]] = {
    "copypaste": ("copypaste",),
    "coarse": ("cgan3d-lesion", "--set", "stage=coarse"),
    "refine": (*DRAWN, "--set", "stage=refine"),
    "both": (*DRAWN, "--set", "stage=both"),
}
EDITS = ("rotate", "scale", "elastic")
LESIONS = "apart_mm=4"
"""The same in every arm, whatever a generator's own are: differences are then its doing."""
JUDGES = ("in_fold", "unseen")
AROUND = 3
"""Voxels around a lesion in which the segmenter's findings count as of this lesion."""
WINDOW = 16
"""Edge of the cube around a lesion whose spectrum is looked at, voxels."""
RESAMPLED = 2000


def fit(data: DataSet, arm: str, seed: int, home: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Fit one arm by the command line, if it is not there; the command and its seconds."""
    run = home / f"run-{data.name}-{arm}-{seed}"
    command = ["gansynth", "fit", *ARMS[arm], *data.options, "-o", str(run)]
    command += ["--set", f"seed={seed}"]
    if arm not in ("copypaste", "coarse"):
        command += ["--set", f"patch=[{args.crop},{args.crop},{args.crop}]"]
        command += ["--set", f"steps={args.steps}"] if args.steps else []
    took = run.with_name(f"{run.name}.seconds")  # of a run that is there already, too
    if not took.exists():
        began = time.perf_counter()
        gansynth(*command[1:], "--device", args.device, quiet=True)
        took.write_text(f"{time.perf_counter() - began:.1f}", encoding="utf-8")
    return {"run": run, "command": said(command, home), "fit_seconds": float(took.read_text())}


def drawn(run: Path, seed: int, args: argparse.Namespace) -> tuple[list[Shown], float]:
    """Samples of a run in the generator's space, and seconds for each."""
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.run_source import open_source
    from gansynth.sampling.sampler import Sampler

    opened = load_run(run, args.device)
    request = SampleRequest(seed, args.edits, lesions=LESIONS, keep_flawed=True)
    sampler = Sampler(opened, open_source(opened.request), request)
    began = time.perf_counter()
    samples = [s for i in range(args.samples) for s in sampler.draw_raw(i, 1)]
    seconds = (time.perf_counter() - began) / len(samples)
    shown = []
    for index, sample in enumerate(samples):
        lesion = sampler.sampler.draw(index).lesion
        if sample.labels is not None and lesion is not None and (lesion > 0).any():
            shown.append(Shown(sample.image, sample.labels, lesion > 0, f"{seed}/{index}"))
    return shown, seconds


def judge(source: Any, space: Any, seed: int, args: argparse.Namespace) -> EvaluationSegmenter:
    """A segmenter trained on crops of a source's training cases."""
    from gansynth.data.batches import CaseBatches, CaseCache

    space = replace(space, grid="crop", size=(args.crop,) * len(space.size))
    batches = CaseBatches(CaseCache(source), space, seed=seed)
    options = EvaluationSegmenterOptions(steps=args.judge_steps, seed=seed)
    return train_segmenter(batches, space.generator_schema(source.schema), space.size, options)


def scores(
    segmenter: EvaluationSegmenter, shown: Sequence[Shown], schema: Schema
) -> dict[str, Any]:
    """Dice of each image: of all foreground, in and around its lesion, and of others' labels."""
    from scipy.ndimage import binary_dilation

    found: dict[str, list[float]] = {"dice": [], "lesion": [], "shuffled": []}
    for index, one in enumerate(shown):
        predicted = segmenter.predict(one.image)
        found["dice"].append(mean_dice(predicted, one.labels, schema.foreground))
        near = binary_dilation(one.lesion, iterations=AROUND)
        here = [np.where(near, labels, 0) for labels in (predicted, one.labels)]
        found["lesion"].append(mean_dice(here[0], here[1], schema.foreground))
        other = shown[(index + len(shown) // 2) % len(shown)].labels
        found["shuffled"].append(mean_dice(predicted, other, schema.foreground))
    return {**found, "who": [one.who for one in shown]}


def resampled(values: Sequence[float], who: Sequence[str], seed: int) -> Any:
    """Means of values, whole people (or samples) drawn anew: (RESAMPLED,)."""
    people = {name: number for number, name in enumerate(dict.fromkeys(who))}
    known = np.isfinite(values)
    owner = np.array([people[name] for name in who])[known]
    sums = np.bincount(owner, np.array(values)[known], minlength=len(people))
    counts = np.bincount(owner, minlength=len(people))
    rng = np.random.default_rng(seed)
    rows = rng.integers(len(people), size=(RESAMPLED, len(people)))
    return sums[rows].sum(axis=1) / np.maximum(counts[rows].sum(axis=1), 1)


def compared(samples: dict[str, Any], real: dict[str, Any]) -> dict[str, Any]:
    """Mean Dice of samples and of real crops, and their ratio with its interval."""
    out: dict[str, Any] = {}
    for key in ("dice", "lesion"):
        mean = [float(np.nanmean(side[key])) for side in (samples, real)]
        spread = [
            resampled(side[key], side["who"], seed) for seed, side in enumerate((samples, real))
        ]
        low, high = np.quantile(spread[0] / np.maximum(spread[1], 1e-9), (0.025, 0.975))
        ratio = {"ratio": mean[0] / max(mean[1], 1e-9), "low": float(low), "high": float(high)}
        out[key] = {"samples": mean[0], "real": mean[1], **ratio}
    out["shuffled"] = float(np.nanmean(samples["shuffled"]))
    return rounded(out)


def above(one: dict[str, Any], other: dict[str, Any], key: str = "lesion") -> dict[str, float]:
    """By how much the Dice of one arm's samples is above another's of the same conditions."""
    theirs = dict(zip(other["who"], other[key], strict=True))
    pairs = [(a - theirs[w], w) for a, w in zip(one[key], one["who"], strict=True) if w in theirs]
    values, who = zip(*pairs, strict=True)
    low, high = np.quantile(resampled(values, who, 0), (0.025, 0.975))
    told = {"difference": float(np.nanmean(values)), "low": float(low), "high": float(high)}
    found: dict[str, float] = rounded(told)
    return found


def looks(shown: Sequence[Shown], real: Sequence[Shown], schema: Schema) -> dict[str, Any]:
    """Seam, contrast and spectrum of samples' lesions beside real ones."""
    from gansynth.metrics.lesions import numbers_of, profiles

    def rows(side: Sequence[Shown]) -> list[Any]:
        return [profiles(one.image, one.labels, one.lesion, schema) for one in side]

    each = rows(real)
    who = [one.who for one, found in zip(real, each, strict=True) for _ in found]
    seam = numbers_of(np.concatenate(rows(shown)), np.concatenate(each), who, schema)
    contrast = {
        name: [float(np.nanmedian(c)) for c in np.concatenate([contrasts_of(s) for s in side]).T]
        for name, side in (("samples", shown), ("real", real))
    }
    power = [np.mean([power_of(one, schema) for one in side], axis=0) for side in (shown, real)]
    return rounded(
        {"seam": seam, "contrast": contrast, "spectrum_over_real": (power[0] / power[1]).tolist()}
    )


def contrasts_of(one: Shown) -> Any:
    """Contrast of an image's lesions against their rims, (1, C); see ``gansynth.data``."""
    from gansynth.core.geometry import bounding_box
    from gansynth.core.schema import Boxes
    from gansynth.imaging.box_contrast import contrasts

    box = bounding_box(one.lesion)
    row = [*(part.start for part in box), *(part.stop for part in box)]
    return contrasts(one.image, Boxes(np.array([row], np.float32), np.ones(1, np.int16)))


def power_of(one: Shown, schema: Schema) -> Any:
    """Power in bands of frequency in a cube around the middle of a lesion: (C, bands)."""
    from gansynth.core.geometry import centroid
    from gansynth.metrics.distances import radial_power

    starts = [
        int(np.clip(round(middle) - WINDOW // 2, 0, max(0, length - WINDOW)))
        for middle, length in zip(centroid(one.lesion), one.lesion.shape, strict=True)
    ]
    window = tuple(slice(a, a + WINDOW) for a in starts)
    return radial_power(one.image[(slice(None), *window)], schema.spacing)


def measure(data: DataSet, home: Path, args: argparse.Namespace) -> dict[str, Any]:
    """All arms and seeds on one data set."""
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.run_source import open_source

    fits: dict[str, list[dict[str, Any]]] = {arm: [] for arm in args.arms}
    shown: dict[str, list[Shown]] = {arm: [] for arm in args.arms}
    found: dict[str, dict[str, list[dict[str, Any]]]] = {
        name: {arm: [] for arm in (*args.arms, "real")} for name in args.judges
    }
    real: list[Shown] = []
    for seed in args.seeds:
        drawn_now: dict[str, list[Shown]] = {}
        for arm in args.arms:
            fitted = fit(data, arm, seed, home, args)
            drawn_now[arm], seconds = drawn(fitted["run"], seed, args)
            fits[arm].append({**fitted, "seconds_per_sample": round(seconds, 4)})
            shown[arm] += drawn_now[arm]
        run = load_run(fits[args.arms[0]][-1]["run"], args.device)
        source, space = open_source(run.request), run.space
        schema = space.generator_schema(source.schema)
        sides = {
            "in_fold": (source, source.held_out_ids),
            "unseen": (Swapped(source), source.train_ids),
        }
        real = whole(source, space, source.train_ids)
        for name in args.judges:
            taught, ids = sides[name]
            segmenter = judge(taught, space, seed, args)
            held = crops(whole(source, space, ids), args.crop, args.samples)
            found[name]["real"].append(scores(segmenter, held, schema))
            for arm in args.arms:
                cut = [around(one, args.crop) for one in drawn_now[arm]]
                found[name][arm].append(scores(segmenter, cut, schema))
    pooled = {
        name: {arm: together(parts) for arm, parts in arms.items()} for name, arms in found.items()
    }
    return {
        "data": data.name,
        "note": data.note,
        "training_cases": len(source.train_ids),
        "held_out_cases": len(source.held_out_ids),
        "size": list(space.size),
        "crop": args.crop,
        "spacing_mm": list(schema.spacing),
        "channels": list(schema.channels),
        "arms": {
            arm: {
                "fit_seconds": [one["fit_seconds"] for one in fits[arm]],
                "seconds_per_sample": [one["seconds_per_sample"] for one in fits[arm]],
                "command": fits[arm][0]["command"],
                "samples": len(shown[arm]),
                "faithfulness": {n: compared(pooled[n][arm], pooled[n]["real"]) for n in pooled},
                "above_copypaste": {
                    n: above(pooled[n][arm], pooled[n]["copypaste"])
                    for n in pooled
                    if "copypaste" in args.arms and arm != "copypaste"
                },
                **looks(shown[arm], real, schema),
            }
            for arm in args.arms
        },
    }


def together(parts: Sequence[dict[str, Any]]) -> dict[str, list[Any]]:
    """Scores of several seeds as one."""
    return {key: [value for part in parts for value in part[key]] for key in parts[0]}


def verdict(result: dict[str, Any]) -> dict[str, dict[str, bool]]:
    """Whether the bar is met, by each judge."""
    arm = result["arms"].get("both")
    return {
        name: {
            "of_real": found["lesion"]["ratio"] >= LEAST_OF_REAL,
            "above_copypaste": arm["above_copypaste"].get(name, {}).get("difference", 0) > 0,
        }
        for name, found in (arm["faithfulness"] if arm else {}).items()
    }


def rounded(value: Any) -> Any:
    """Floats with four digits, None for what is not finite, at any depth."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [rounded(one) for one in value]
    if isinstance(value, float):
        return round(value, 4) if np.isfinite(value) else None
    return value


def said(command: Sequence[str], home: Path) -> str:
    """A command without this machine's folders."""
    return " ".join(word.replace(f"{home}/", "") for word in command)


def rows(result: dict[str, Any]) -> list[tuple[object, ...]]:
    """Lines for each arm."""
    lines: list[tuple[object, ...]] = [
        ("data", "arm", "judge", "Dice", "new lesion", "real", "ratio", "95 %", "shuffled", "seam")
    ]
    for arm, found in result["arms"].items():
        for name, told in found["faithfulness"].items():
            new = told["lesion"]
            seam = f"{found['seam']['in range']} (real {found['seam']['real in range']})"
            lines.append((
                result["data"], arm, name, told["dice"]["samples"], new["samples"], new["real"],
                new["ratio"], f"{new['low']} to {new['high']}", told["shuffled"], seam,
            ))  # fmt: skip
    return lines


def main() -> None:
    """Measure on every data set asked for that is at hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["phantoms", "brats15"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--judges", nargs="+", default=list(JUDGES), choices=JUDGES)
    parser.add_argument("--steps", type=int, default=0, help="of the fits; else 400")
    parser.add_argument("--judge-steps", type=int, default=400, help="of the segmenters")
    parser.add_argument("--samples", type=int, default=48, help="of each arm and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--subjects", type=int, default=24, help="phantoms")
    parser.add_argument("--edits", nargs="+", default=list(EDITS), help="of lesions, in all arms")
    parser.add_argument("--crop", type=int, default=40, help="edge of crops to learn from, voxels")
    parser.add_argument("--device", default="auto")
    parser.add_argument("-o", "--out", type=Path, help="keep runs here, and take up those there")
    parser.add_argument("--name", help="of the result; lesion_DATA if left out")
    parser.add_argument("--tiny", action="store_true", help="see that it runs; no results")
    args = parser.parse_args()
    if args.tiny:
        changed = {"steps": 2, "judge_steps": 4, "samples": 8, "subjects": 6, "crop": 24}
        args = argparse.Namespace(**{**vars(args), **changed})
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(args.out or scratch).absolute()
        for data in data_sets(args.data, home, subjects=args.subjects):
            result = measure(data, home, args)
            met = verdict(result)
            if not args.tiny:
                settings = {"samples": args.samples, "seeds": args.seeds, "edits": args.edits}
                settings |= {"judge_steps": args.judge_steps, "steps": args.steps or 400}
                told = {"bar": BAR, **settings, **result, "met": met}
                write(args.name or f"lesion_{data.name}", told)
            print_table(rows(result))
            print(f"{data.name}: {BAR}: {met}")


if __name__ == "__main__":
    main()
