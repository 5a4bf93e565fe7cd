"""Are the spectrum and the intensities of samples nearer to real ones than those of controls?

``dcgan`` is fitted on slices of 64 x 64; then samples, controls and real slices of held-out people
are held against the training slices:

- spectrum: mean over channels and bands of |log of the ratio of mean radial powers|;
- histogram: 1-Wasserstein distance of intensities in standard deviations of the real ones, mean
  over channels.

The controls have the real mean and standard deviation of each channel: white noise, and the blurred
mean, which is the mean of eight random training slices blurred by a Gaussian of one voxel. Real
slices of held-out people are the scale: no generator need be nearer. Intervals are bootstrapped
over images, of both sides.

    python bench_realism.py [--data DIR] [--sets hippocampus,brats] [--steps 3000]
"""

from __future__ import annotations

import argparse
import csv
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, write
from measures import MEASURES, Distance, blurred_mean, distances, white_noise

from gansynth.core.schema import FloatArray
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import RichReporter
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler

DATA = Path(__file__).parents[2] / "../shared/data"
CONTROLS = ("noise", "blurred mean")
RATE = "4e-4"
"""Of wgan-gp: four times its paper's, for a fit of minutes. The others learn at their papers'."""


# -- data ------------------------------------------------------------------------------------------


def hippocampus(folder: Path, scratch: Path) -> SourceRequest:
    """Axial slices of the middle of each crop."""
    task = folder / "msd_task04_hippocampus"
    read = {"plane": "axial", "slices": "20%-80%", "resize": "64x64"}
    return SourceRequest("slices", f"msd:{task}", subjects=str(task / "subjects.csv"), read=read)


def brats(folder: Path, scratch: Path) -> SourceRequest:
    """Sagittal slices 80 to 149 of all sequences in one set, as Han et al. 2018; four people."""
    manifest = scratch / "brats.csv"
    with manifest.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["case", "Flair", "T1c"])
        for case in sorted((folder / "brats2015_deepmedic").glob("brats*")):
            files = (f"{name}_subtrMeanDivStd.nii.gz" for name in ("Flair", "T1c"))
            rows.writerow([case.name, *(str((case / name).resolve()) for name in files)])
    read = {"plane": "sagittal", "slices": "80-149", "resize": "64x64", "concat": "yes"}
    read |= {"folds": "4", "allow_absolute": "yes"}
    return SourceRequest("slices", f"nifti:{manifest}", read=read)


SETS = {"hippocampus": hippocampus, "brats": brats}


def images_of(source: CaseSource, ids: Sequence[str], number: int) -> list[FloatArray]:
    """Some of the cases, evenly spread over them."""
    step = max(1, len(ids) // number)
    return [case.image for case in map(source.load, ids[::step][:number])]


# -- the measurement -------------------------------------------------------------------------------


def measure(request: SourceRequest, args: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Fit each objective on a data set, and compare."""
    source = open_source(request)
    real = images_of(source, source.train_ids, args.number)
    comparison = {
        "held-out": images_of(source, source.held_out_ids, args.number),
        "noise": white_noise(real, args.number, np.random.default_rng(1)),
        "blurred mean": blurred_mean(real, args.number, np.random.default_rng(2)),
    }
    fits: dict[str, Any] = {}
    for objective in args.objectives.split(","):
        settings = {
            "objective": objective,
            "steps": args.steps,
            "width": args.width,
            "batch_size": args.batch_size,
            "sample_every": max(1, args.steps // 20),
            **({"lr_generator": RATE, "lr_discriminator": RATE} if objective == "wgan-gp" else {}),
            **dict(pair.split("=", 1) for pair in args.set),
        }
        out, began = scratch / objective, time.perf_counter()
        report = fit(
            "dcgan",
            request,
            out,
            settings={k: str(v) for k, v in settings.items()},
            edits=None,
            device=args.device,
            reporter=RichReporter(),
        )
        seconds = time.perf_counter() - began
        sampler = Sampler(load_run(out, args.device), source, None, 1)
        comparison[objective] = [s.image for s in sampler.draw_raw(0, args.number)]
        fits[objective] = {"seconds": seconds, "diversity": report["diversity"], **settings}
    found = distances(comparison, real, source.schema.spacing)
    return {
        "source": source.name,
        "people": len({source.header(case).subject for case in source.train_ids}),
        "training_slices": len(source.train_ids),
        "fits": fits,
        "distances": {k: {m: asdict(d) for m, d in v.items()} for k, v in found.items()},
        "passed": {o: passed(found, o) for o in fits},
    }


def passed(found: Mapping[str, Mapping[str, Distance]], side: str) -> bool:
    """Whether a side is nearer than every control in every measure, intervals apart."""
    return all(
        found[side][m].high < found[control][m].low for m in MEASURES for control in CONTROLS
    )


def main() -> None:
    """Measure data sets and write ``results/realism.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--sets", default=",".join(SETS))
    parser.add_argument("--objectives", default="wgan-gp,wgan,gan")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--set", action="append", default=[], help="more settings of the fits")
    parser.add_argument("--number", type=int, default=256, help="images of each side")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--name", default="realism")
    args = parser.parse_args()
    if not args.data.is_dir():
        print(f"skipped: no data sets in {args.data}; name their folder with --data")
        return
    results: dict[str, Any] = {}
    for name in args.sets.split(","):
        with tempfile.TemporaryDirectory() as scratch:
            results[name] = measure(SETS[name](args.data, Path(scratch)), args, Path(scratch))
    bar = "wgan-gp nearer than both controls in both measures, 95 % intervals apart"
    write(args.name, {"images": args.number, "bar": bar, "results": results})
    rows = [
        (
            name,
            side,
            *(f"{d['value']:.2f} ({d['low']:.2f} to {d['high']:.2f})" for d in m.values()),
        )
        for name, result in results.items()
        for side, m in result["distances"].items()
    ]
    print_table([("data", "side", *MEASURES), *rows])
    if not all(result["passed"].get("wgan-gp", True) for result in results.values()):
        raise SystemExit(f"not passed: {bar}")


if __name__ == "__main__":
    main()
