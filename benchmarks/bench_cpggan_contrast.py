"""Are there lesions in the boxes that ``cpggan`` is asked for: contrast in own and shuffled boxes.

Fits ``cpggan`` by the documented command on training slices, draws samples by it (boxes jittered
off the training ones; none left out, so nothing is chosen), and measures contrast inside boxes
against their rims: in a sample's own boxes, and in those of another sample. A generator that heeds
no boxes has as much in either. The same is measured of the real training slices: more there is not
to be had. The interval is of the mean difference, over images drawn anew. Validation slices, which
the generator has not seen, say whether real contrast is that of these training slices only.

    python benchmarks/bench_cpggan_contrast.py [--data phantoms figshare] [--steps 6000] [-n 200]
        [--set KEY=VALUE ...] [-o FOLDER] [--figures docs/images] [--tiny]

Pictures are made of phantoms only; of figshare there are numbers.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, write
from yolo_data import DataSet, data_sets

BAR = "difference of own and shuffled boxes: interval above 0, and at least half of real slices'"
SETTINGS = {"batch_size": "16", "stage_images": "4000", "fade_images": "4000"}
TINY = {"width": "4", "max_width": "16", "stage_images": "32", "fade_images": "32"}


def fit(data: DataSet, run: Path, args: argparse.Namespace) -> list[str]:
    """Fit by the command line; the command."""
    settings = {**SETTINGS, **dict(pair.split("=", 1) for pair in args.set)}
    settings |= {**(TINY if args.tiny else {}), "steps": str(args.steps), "seed": str(args.seed)}
    command = ["gansynth", "fit", "cpggan", *data.data]
    command += ["--read", f"size={args.size}x{args.size}", "-o", str(run)]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    if not (run / "manifest.json").exists():
        line = [sys.executable, "-m", "gansynth_cli", *command[1:], "--device", args.device]
        subprocess.run(line, check=True)
    return command


def measured(run: Path, args: argparse.Namespace) -> tuple[dict[str, Any], list[Any], list[Any]]:
    """Numbers of samples, of training and of validation slices; samples and training slices."""
    from gansynth.own_source import open_source
    from gansynth.quality.lesions import lesions_metric
    from gansynth.run import load_run
    from gansynth.sampling import SampleDrawer

    opened = load_run(run, args.device)
    source = open_source(opened.request)
    drawer = SampleDrawer(opened, source, seed=args.seed, judged=False)
    began = time.perf_counter()
    samples = [s for first in range(0, args.n, 16) for s in drawer.draw(first, 16)][: args.n]
    seconds = time.perf_counter() - began
    real = [source.load(case) for case in source.train_ids]
    unseen = [source.load(case) for case in source.held_out_ids]
    found = dict(lesions_metric(samples, real, source.schema))
    found |= {
        key.replace("real", "unseen"): value
        for key, value in lesions_metric(samples, unseen, source.schema).items()
        if key.startswith("real")
    }
    flawed = sum(bool(opened.generator.flaw(sample)) for sample in samples)
    boxes = sum(len(s.boxes.labels) for s in samples if s.boxes is not None)
    numbers = {key: None if np.isnan(value) else round(value, 4) for key, value in found.items()}
    return (
        {
            "numbers": numbers,
            "samples": len(samples),
            "boxes": boxes,
            "flawed": flawed,
            "seconds_per_sample": seconds / len(samples),
            "training_slices": len(real),
            "unseen_slices": len(unseen),
        },
        samples,
        real,
    )


def verdict(numbers: dict[str, Any]) -> bool:
    """Whether the bar is met."""
    low, found = numbers["samples difference low"], numbers["samples difference"]
    real = numbers["real difference"]
    return None not in (low, found, real) and low > 0 and found >= 0.5 * real


def draw_bars(results: Sequence[dict[str, Any]], file: Path) -> None:
    """Contrast in own and shuffled boxes, as bars with the interval of their difference."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(1, len(results), figsize=(4 * len(results), 3.2), squeeze=False)
    for axis, result in zip(axes[0], results, strict=True):
        numbers, sides = result["numbers"], ("samples", "real", "unseen")
        at = np.arange(len(sides))
        for offset, key, name in ((-0.2, "{}", "own boxes"), (0.2, "{} shuffled", "shuffled")):
            heights = [numbers[key.format(side)] or 0 for side in sides]
            axis.bar(at + offset, heights, 0.38, label=name)
        for place, side in zip(at, sides, strict=True):
            low, high = (numbers[f"{side} difference {end}"] for end in ("low", "high"))
            if low is not None:
                text = f"+{numbers[f'{side} difference']:.2f}\n({low:.2f} to {high:.2f})"
                axis.text(place, 0.02, text, ha="center", fontsize=7)
        axis.set_xticks(at, ["samples", "training\nslices", "unseen\nslices"])
        axis.set_title(result["data"])
        axis.set_ylabel("contrast inside boxes (0 to 1)")
    axes[0][0].legend(fontsize=8)
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120, metadata={"Software": None})
    plt.close(figure)


def draw_sheet(samples: Sequence[Any], real: Sequence[Any], file: Path) -> None:
    """Six real phantoms above six samples, with their boxes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.patches import Rectangle

    rows = [
        [x for x in side if x.boxes is not None and len(x.boxes.labels)] for side in (real, samples)
    ]
    rows[0] = rows[0][:: max(1, len(rows[0]) // 6)]
    figure, axes = plt.subplots(2, 6, figsize=(9, 3.2), squeeze=False)
    for line, side, title in zip(axes, rows, ("real phantoms", "samples"), strict=True):
        for axis in line:
            axis.axis("off")
        line[0].set_title(title, loc="left", fontsize=9)
        for axis, one in zip(line, side, strict=False):
            axis.imshow(one.image[0], cmap="gray", vmin=0, vmax=1)
            for top, left, bottom, right in one.boxes.coords:
                place = (left - 0.5, top - 0.5)
                axis.add_patch(
                    Rectangle(place, right - left, bottom - top, fill=False, edgecolor="gold")
                )
    figure.tight_layout()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=120, metadata={"Software": None})
    plt.close(figure)


def main() -> None:
    """Fit, draw and measure on every data set asked for that is at hand."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["phantoms", "figshare"])
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--steps", type=int, default=6000)
    parser.add_argument("-n", type=int, default=200, help="samples")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="auto")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE")
    parser.add_argument("-o", "--out", type=Path, help="keep runs here, and take up those there")
    parser.add_argument("--figures", type=Path, help="folder for figures")
    parser.add_argument("--subjects", type=int, default=20, help="phantoms")
    parser.add_argument("--name", default="cpggan_contrast")
    parser.add_argument("--tiny", action="store_true", help="see that it runs; no results")
    args = parser.parse_args()
    if args.tiny:
        args.size, args.steps, args.n, args.name = 32, 40, 48, f"tiny_{args.name}"
    results: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(args.out or scratch)
        for data in data_sets(args.data, home, subjects=args.subjects, tiny=args.tiny):
            run = home / f"run-{data.name}-{args.size}-{args.seed}"
            command = fit(data, run, args)
            found, samples, real = measured(run, args)
            results.append({
                "data": data.name, "note": data.note, "size": args.size, **found,
                "met": verdict(found["numbers"]), "commands": [said(command, home)],
            })  # fmt: skip
            print_table(rows(results[-1:]))
            if args.figures and data.name == "phantoms":
                draw_sheet(samples, real, args.figures / "cpggan_phantoms.png")
    if args.figures and results:
        draw_bars(results, args.figures / "cpggan_contrast.png")
    if not args.tiny:
        write(args.name, {"bar": BAR, "results": results})
    print_table(rows(results))


def said(command: Sequence[str], home: Path) -> str:
    """A command without this machine's folders."""
    return json.dumps([word.replace(f"{home}/", "") for word in command])


def rows(results: Sequence[dict[str, Any]]) -> list[tuple[object, ...]]:
    """Lines for each data set."""
    lines: list[tuple[object, ...]] = [
        ("data", "side", "own boxes", "shuffled", "difference", "95 %", "told apart", "met")
    ]
    for r in results:
        numbers = r["numbers"]
        for side in ("samples", "real", "unseen"):
            low, high = (numbers[f"{side} difference {end}"] for end in ("low", "high"))
            told = [numbers[f"{side}{end}"] for end in ("", " shuffled", " difference")]
            lines.append((
                r["data"], side, *told, f"{low} to {high}", numbers[f"{side} told apart"],
                r["met"] if side == "samples" else "",
            ))  # fmt: skip
    return lines


if __name__ == "__main__":
    main()
