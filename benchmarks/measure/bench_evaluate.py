"""Every generator evaluated: realism, faithfulness, memory in one table, and controls beside them.

Fits each generator for some minutes by the documented command, and evaluates it by the documented
command, ``gansynth evaluate RUN --no-pictures``, on phantoms (gliomas as volumes and as slices,
metastases), hippocampus (MSD task 4: volumes and slices), BRATS 2015 (sagittal slices of four
people) and figshare (slices with boxes). Beside them stand controls, evaluated alike: real people
who are held out, white noise, training images blurred by one voxel, and training images themselves.

Fits are short: the table is of what ten minutes on a CPU give, not of what generators can be.

    python benchmarks/measure/bench_evaluate.py [--sets phantoms hippocampus ...] [--number 64]
        [--preset standard] [--scale 1] [--home FOLDER] [--name evaluate]

With ``--home`` runs and evaluations are kept there, and what is there already is not done again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from common import gansynth, write
from table_evaluate import COLUMNS, tables

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
MASKS = "--set=with_mask=yes"
OBJECTIVES = ("wgan-gp", "wgan", "gan")
SMALL = [
    "--set=width=12",
    "--set=levels=3",
    "--set=d_width=12",
    "--set=d_levels=2",
    "--set=local_size=24",
]
FASTER = ("--set", "lr_generator=4e-4", "--set", "lr_discriminator=4e-4")
"""Rates of wgan-gp: four times its paper's, for a fit of minutes."""


@dataclass(frozen=True)
class Arm:
    """A generator on a data set.

    Attributes:
        name: short.
        options: of ``gansynth fit``, without data and folder.
        steps: of its fit; None for a generator without networks.
    """

    name: str
    options: tuple[str, ...]
    steps: int | None


@dataclass(frozen=True)
class DataSet:
    """What generators are fitted on.

    Attributes:
        options: ``--data`` and how it is read, as typed.
        arms: the generators.
        note: what it is.
        controls: whether controls are evaluated on it.
    """

    options: tuple[str, ...]
    arms: tuple[Arm, ...]
    note: str
    controls: bool = False


def read(**keys: str) -> tuple[str, ...]:
    """``--read`` options."""
    return tuple(word for key, value in keys.items() for word in ("--read", f"{key}={value}"))


def volumes(steps: int) -> tuple[Arm, ...]:
    """Generators of volumes with label maps."""
    return (
        Arm("cgan3d", ("cgan3d", "--set", "width=12"), steps),
        Arm("copypaste", ("copypaste",), None),
        Arm("elastic", ("elastic",), None),
    )


def slices(steps: int, *more: str, objectives: Sequence[str] = ("wgan-gp",)) -> tuple[Arm, ...]:
    """Generators of slices from noise; the first of them alone draws label maps well."""
    common = ("dcgan", "--set", "width=16", "--set", "batch_size=16", *more)
    rates = {"wgan-gp": FASTER}
    return tuple(
        Arm(f"dcgan {name}", (*common, "--set", f"objective={name}", *rates.get(name, ())), steps)
        for name in objectives
    )


def gliomas(home: Path) -> Path:
    """Simulated gliomas, 4 mm, 44 people."""
    from gansynth.testing.phantoms import PhantomOptions, write_phantoms

    folder = home / "gliomas"
    if not folder.exists():
        options = PhantomOptions(spacing_mm=4.0, channels=("FLAIR", "T1c"))
        write_phantoms("brats", folder, 44, options=options)
    return folder


def phantoms(home: Path) -> DataSet:
    """Volumes around the tumour."""
    options = ("--data", f"nifti:{gliomas(home)}", *read(size="32,32,32", folds="3"))
    lesion = Arm("cgan3d lesion", ("cgan3d-lesion", *SMALL), 600)
    return DataSet(options, (*volumes(600), lesion), "simulated gliomas, 32^3 voxels of 4 mm", True)


def phantom_slices(home: Path) -> DataSet:
    """The same as slices with tumour."""
    how = read(plane="axial", slices="30%-70%", resize="48x48", folds="3")
    options = ("--data", f"slices:nifti:{gliomas(home)}", *how)
    return DataSet(options, slices(2000, MASKS), "slices of simulated gliomas, 48 x 48")


def metastases(home: Path) -> DataSet:
    """Slices with boxes."""
    from yolo_data import phantoms as yolo_phantoms

    found = yolo_phantoms(home / "metastases")
    arms = (Arm("cpggan", ("cpggan", *GROWING), 1500),)
    return DataSet(
        (*found.data, *read(size="64x64")), arms, "slices of simulated metastases, 64 x 64, boxes"
    )


def hippocampus(home: Path) -> DataSet | None:
    """Whole crops of one hippocampus each."""
    task = DATA / "msd_task04_hippocampus"
    if not task.is_dir():
        return None
    subjects = ("--subjects", str(task / "subjects.csv"))
    options = ("--data", f"msd:{task}", *subjects, *read(size="32,40,32"))
    return DataSet(options, volumes(600), "hippocampus, 32 x 40 x 32 voxels of 1 mm")


def hippocampus_slices(home: Path) -> DataSet | None:
    """Axial slices of the middle of each crop."""
    task = DATA / "msd_task04_hippocampus"
    if not task.is_dir():
        return None
    how = read(plane="axial", slices="20%-80%", resize="48x48")
    subjects = ("--subjects", str(task / "subjects.csv"))
    options = ("--data", f"slices:msd:{task}", *subjects, *how)
    return DataSet(options, slices(2000, MASKS), "slices of hippocampus, 48 x 48", True)


def brats15(home: Path) -> DataSet | None:
    """Sagittal slices 80 to 149 of two sequences, as Han et al. 2018; four people."""
    from bench_realism import brats

    if not (DATA / "brats2015_deepmedic").is_dir():
        return None
    request = brats(DATA, home)
    options = ("--data", f"slices:{request.where}", *read(**request.read))
    arms = slices(2000, objectives=OBJECTIVES)
    return DataSet(options, arms, "sagittal slices of BRATS 2015, 64 x 64, four people")


def figshare(home: Path) -> DataSet | None:
    """Slices with a tumour's box."""
    from yolo_data import figshare as yolo_figshare

    found = yolo_figshare(home / "figshare")
    if found is None:
        return None
    how = read(size="64x64")
    arms = (Arm("cpggan", ("cpggan", *GROWING), 1500),)
    return DataSet((*found.data, *how), arms, "slices of brain tumours (figshare), 64 x 64, boxes")


GROWING = ("--set", "stage_images=2500", "--set", "fade_images=2000")
SETS: Mapping[str, Callable[[Path], DataSet | None]] = {
    "phantoms": phantoms,
    "phantom-slices": phantom_slices,
    "metastases": metastases,
    "hippocampus": hippocampus,
    "hippocampus-slices": hippocampus_slices,
    "brats15-slices": brats15,
    "figshare": figshare,
}


def fitted(home: Path, data: DataSet, arm: Arm, run: Path, args: argparse.Namespace) -> float:
    """Fit, if it is not there; seconds."""
    took = run.with_name(f"{run.name}.seconds")
    if not took.exists():
        steps = (
            () if arm.steps is None else ("--set", f"steps={max(2, round(arm.steps * args.scale))}")
        )
        began = time.perf_counter()
        gansynth("fit", *arm.options, *steps, *data.options, "-o", str(run), quiet=True)
        took.write_text(f"{time.perf_counter() - began:.1f}", encoding="utf-8")
    return float(took.read_text(encoding="utf-8"))


def evaluated(run: Path, args: argparse.Namespace) -> dict[str, Any]:
    """The document of ``gansynth evaluate``, made if it is not there."""
    path = run / "evaluation" / "evaluation.json"
    if not path.exists():
        words = ("-n", str(args.number), "--preset", args.preset, "--no-pictures")
        words = ("evaluate", str(run), *words, "--device", args.device)
        try:
            gansynth(*words, quiet=True)
        except subprocess.CalledProcessError as error:
            if error.returncode != 3:
                raise
            gansynth(*words, "--filter", "none", quiet=True)  # all of its samples are flawed
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return found


# -- what does not count ---------------------------------------------------------------------------


def controls(run: Path, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Held-out people, noise, blurred and copied training images, evaluated as samples are."""
    from measures import white_noise
    from scipy.ndimage import gaussian_filter

    from gansynth.core.sample_request import SampleRequest
    from gansynth.core.schema import Case, Sample
    from gansynth.metrics.comparison import EFFORTS
    from gansynth.runtime.progress import NullReporter
    from gansynth_evaluate.evaluate import EvaluationOptions, assess, chosen_metrics
    from gansynth_evaluate.open_samples import open_evaluated

    silent = NullReporter()
    gathered = open_evaluated(
        run, None, 4, SampleRequest(), device=args.device, root=None, reporter=silent
    )
    rng = np.random.default_rng(7)
    train = gathered.real(gathered.known.members, args.number, rng)
    others = gathered.real(gathered.known.others, args.number, rng)
    blur = (0, *[1.0] * len(gathered.size))

    def samples(cases: Sequence[Case], images: Sequence[Any]) -> list[Sample]:
        return [Sample(i, c.labels, c.boxes) for c, i in zip(cases, images, strict=True)]

    real = [case.image for case in train]
    sides = {
        "held-out people": samples(others, [case.image for case in others]),
        "white noise": samples(train, white_noise(real, len(train), rng)),
        "blurred": samples(train, [gaussian_filter(image, blur) for image in real]),
        "training images": samples(train, real),
    }
    found = {}
    for name, drawn in sides.items():
        whose = [gathered.known.people[case.id] for case in (others if "held" in name else train)]
        # What is blurred or copied knows its person; noise and strangers are of nobody here.
        of = whose if name != "white noise" else [f"sample {n}" for n in range(len(drawn))]
        if name == "training images":
            of = [f"sample {n}" for n in range(len(drawn))]
        mine = replace(gathered, samples=drawn, drawn_of=of)
        compared = mine.comparison(args.number, 0, EFFORTS[args.preset], args.device, silent)
        options = EvaluationOptions(parts=("realism", "faithfulness", "memorisation"))
        found[name] = assess(mine, compared, chosen_metrics(()), options).document
    return found


# -- the table -------------------------------------------------------------------------------------


def summary(document: Mapping[str, Any]) -> dict[str, Any]:
    """What stands in the table, and the sentences."""
    figures = {f"{f['metric']} {f['name']}": f for f in document["figures"]}
    kept = ("value", "low", "high", "real", "real_low", "real_high", "p", "finding")
    faithful, memory = document["faithfulness"], document["memorisation"]
    nothing = {"copies": None, "membership": [], "finding": None}
    return {
        "images": document["images"],
        "data": document["data"],
        "figures": {
            key: {k: figures[key][k] for k in kept} for key, _, _ in COLUMNS if key in figures
        },
        "unlike_real": sum(f["finding"] == "unlike real" for f in document["figures"]),
        "of": len(document["figures"]),
        "faithfulness": faithful.get("mean", faithful),
        "faithfulness_finding": faithful.get("finding"),
        "memorisation": {key: memory.get(key, usual) for key, usual in nothing.items()},
        "alarms": document["alarms"],
        "seconds": document["seconds"],
    }


def main() -> None:
    """Fit, evaluate and write ``results/evaluate.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--number", type=int, default=64, help="samples, and as many real crops")
    parser.add_argument("--preset", default="standard")
    parser.add_argument("--scale", type=float, default=1.0, help="of the fits' steps")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--home", type=Path, help="keeps runs and evaluations")
    parser.add_argument("--name", default="evaluate")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        home = args.home or Path(scratch)
        home.mkdir(parents=True, exist_ok=True)
        results = {name: measured(name, home, args) for name in args.sets}
    known = {name: found for name, found in results.items() if found is not None}
    document = {"number": args.number, "effort": args.preset, "results": known}
    write(args.name, document)
    print(tables(document))


def measured(name: str, home: Path, args: argparse.Namespace) -> dict[str, Any] | None:
    """All generators on a data set, and the controls."""
    data = SETS[name](home)
    if data is None:
        print(f"{name}: skipped, its data are not at hand")
        return None
    found, fits = {}, {}
    for arm in data.arms:
        run = home / f"{name}-{arm.name}".replace(" ", "-")
        print(f"{name}: {arm.name}", file=sys.stderr, flush=True)
        fits[arm.name] = fitted(home, data, arm, run, args)
        found[arm.name] = summary(evaluated(run, args))
    kept = home / f"{name}-controls.json"
    if not data.controls:
        return {"note": data.note, "fit_seconds": fits, "samples": found}
    if not kept.exists():
        first = home / f"{name}-{data.arms[0].name}".replace(" ", "-")
        kept.write_text(json.dumps(controls(first, args)), encoding="utf-8")
    shown = {n: summary(d) for n, d in json.loads(kept.read_text(encoding="utf-8")).items()}
    return {"note": data.note, "fit_seconds": fits, "samples": {**found, **shown}}


if __name__ == "__main__":
    main()
