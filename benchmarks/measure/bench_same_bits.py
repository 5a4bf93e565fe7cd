"""The same bits: what each command makes under other threads and on other kinds of CPU.

Each command runs in a process of its own, once on one thread (``FIRST``) and once under each of
``SETTINGS``; what it makes is compared. A library takes its kernels by the CPU, so the variables
that forbid newer ones stand for an older CPU. The child reads back which kernels it really uses:
a setting that changes none of these was not to be had, and is reported so.

    python benchmarks/measure/bench_same_bits.py [--only sample bank] [--settings older-cpu]
        [--data ../shared/data]

Volumes are made; ``--data`` adds hippocampi and breast ultrasound, if they are there. Labels,
places, donors, edits and verdicts are decisions; images and weights are numbers, whose largest
difference is given absolutely and in standard deviations of the array.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, print_table, write

DATA = Path(os.environ.get("BITS_DATA", Path(__file__).parents[2] / "../shared/data")).resolve()
OLDER = {
    "OPENBLAS_CORETYPE": "Prescott",
    "NPY_DISABLE_CPU_FEATURES": "X86_V3",
    "ATEN_CPU_CAPABILITY": "default",
    "ONEDNN_MAX_CPU_ISA": "SSE41",
    "MKL_CBWR": "COMPATIBLE",
    "GLIBC_TUNABLES": "glibc.cpu.hwcaps=-AVX2,-FMA",
}
"""Each library's kernels without AVX2 and FMA."""
FIRST = {"OMP_NUM_THREADS": "1"}
CORES = ("Prescott", "Nehalem", "Sandybridge", "Haswell", "Zen", "SkylakeX")
SETTINGS: dict[str, dict[str, str]] = {
    "again": FIRST,  # a control
    "nothing set": {},
    "8 threads": {"OMP_NUM_THREADS": "8", "MKL_DYNAMIC": "FALSE"},
    **{f"OpenBLAS {kind}": {**FIRST, "OPENBLAS_CORETYPE": kind} for kind in CORES},
    "numpy": {**FIRST, "NPY_DISABLE_CPU_FEATURES": OLDER["NPY_DISABLE_CPU_FEATURES"]},
    "torch": {**FIRST, "ATEN_CPU_CAPABILITY": OLDER["ATEN_CPU_CAPABILITY"]},
    "oneDNN": {**FIRST, "ONEDNN_MAX_CPU_ISA": OLDER["ONEDNN_MAX_CPU_ISA"]},
    "MKL": {**FIRST, "MKL_CBWR": OLDER["MKL_CBWR"]},
    "libm": {**FIRST, "GLIBC_TUNABLES": OLDER["GLIBC_TUNABLES"]},
    "older CPU": {**FIRST, **OLDER},
}
USUAL = ("nothing set", "older CPU")
"""Settings of all rows; the others, such as of one library each, are for ``CLOSER`` ones."""
CLOSER = (("conditions", "copypaste"), ("sample", "parametric"), ("sample", "cgan3d"))
TINY = ("width=4", "levels=2", "d_width=4", "d_levels=1")
STEPS = 8
LOOP = ("batch_size=2", "precision=fp32", "diversity=0", "checkpoint_every=2")
GANS: dict[str, tuple[str, ...]] = {
    "cgan3d": TINY,
    "cgan3d-labels": (*TINY, "given=t1"),
    "cgan3d-lesion": TINY,
    "cpggan": ("width=4", "stage_images=2", "fade_images=2"),
    "dcgan": ("width=4", "latent=4"),
}
UNTRAINED = ("copypaste", "elastic", "parametric")
IN_2D = ("cpggan", "dcgan")
REAL: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "copypaste, hippocampi": ("msd", "msd_task04_hippocampus", ("size=24",)),
    "parametric, hippocampi": ("msd", "msd_task04_hippocampus", ("size=24",)),
    "copypaste, ultrasound": ("pictures", "busi256", ("size=96x96",)),
    "copypaste, ultrasound resized": ("pictures", "busi256", ("resize=64x64",)),
    "copypaste, hippocampi at 1.5 mm": (
        "msd",
        "msd_task04_hippocampus",
        ("spacing=1.5", "size=24"),
    ),
}
"""Runs on real data: its kind, its folder, how it is read."""
EDITS = ("blob", "clip", "elastic", "enlarge", "interpolate", "interpolate:pairs=nearest", "rotate",
         "scale", "shift", "shrink", "size", "transplant")  # fmt: skip
PLACES = ("add,what=one", "in-place", "where=own", "sham=0.9", "mixing=carve", "where=same",
          "pairs=nearest")  # fmt: skip
SAMPLES = 3
Found = dict[str, Any]
"""Arrays by name; of a decision, anything that JSON holds."""


# -- data ----------------------------------------------------------------------------------------


def make_volumes(folder: Path, cases: int = 12, shape: tuple[int, ...] = (16, 24, 32)) -> None:
    """Write bodies with lesions, a core in each, of two channels, as BraTS names them."""
    import nibabel as nib
    from scipy.ndimage import gaussian_filter

    at = np.moveaxis(np.indices(shape, float), 0, -1)
    for number in range(cases):
        rng = np.random.default_rng(number)
        middle = np.array(shape) / 2
        body = (((at - middle) / (0.46 * np.array(shape))) ** 2).sum(-1) < 1
        labels = np.zeros(shape, np.int16)
        for lesion in range(1 + number % 3):
            side = rng.uniform(-0.22, 0.22, 3) * shape
            radius = rng.uniform(2.5, 4.5) / (1 + lesion)
            away = np.sqrt((((at - middle - side) / rng.uniform(0.8, 1.2, 3)) ** 2).sum(-1))
            labels[(away < radius) & body] = 1
            labels[(away < radius / 2) & body] = 2
        place = folder / f"case{number:02}"
        place.mkdir(parents=True)
        for channel, step in (("t1", -60.0), ("flair", 80.0)):
            tissue = gaussian_filter(rng.normal(0, 60, shape), 1.0) + rng.normal(0, 8, shape)
            image = np.where(body, 300 + tissue + step * np.minimum(labels, 2), 0)
            nib.Nifti1Image(image.astype(np.float32), np.eye(4)).to_filename(
                place / f"{place.name}_{channel}.nii.gz"
            )
        nib.Nifti1Image(labels, np.eye(4)).to_filename(place / f"{place.name}_seg.nii.gz")


def make_pictures(folder: Path, cases: int = 12, side: int = 32) -> None:
    """Write grey pictures of discs with a bright spot, and masks."""
    from PIL import Image

    at = np.moveaxis(np.indices((side, side), float), 0, -1)
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(cases):
        rng = np.random.default_rng(number)
        body = ((at - side / 2) ** 2).sum(-1) < (0.45 * side) ** 2
        middle = side / 2 + rng.uniform(-5, 5, 2)
        spot = ((at - middle) ** 2).sum(-1) < rng.uniform(3, 5) ** 2
        grey = np.where(body, 90 + 70 * spot + rng.normal(0, 9, (side, side)), 0)
        pair = {"images": np.clip(grey, 0, 255).astype(np.uint8), "masks": 255 * spot.astype("u1")}
        for kind, picture in pair.items():
            Image.fromarray(picture).save(folder / kind / f"case{number:02}.png")


# -- what is run: each function is a process ------------------------------------------------------


def used() -> Found:
    """Read back the kernels and threads that this process uses."""
    import numpy.lib.introspect
    import scipy.linalg  # noqa: F401  # loads its own OpenBLAS
    import threadpoolctl
    import torch

    out: Found = {"torch": torch.backends.cpu.get_cpu_capability()}
    out["threads"] = torch.get_num_threads()
    for library in threadpoolctl.threadpool_info():
        if library["internal_api"] == "openblas":
            whose = "numpy" if "numpy" in library["filepath"] else "scipy"
            name, threads = library["architecture"], library["num_threads"]
            out[f"OpenBLAS of {whose}"] = f"{name}, {threads} threads"
    kernels = numpy.lib.introspect.opt_func_info(func_name="^exp$", signature="float32")
    out["numpy"] = kernels["exp"]["ff"]["current"]
    # oneDNN, MKL and libm do not say what they use: bits of their results tell.
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(64, 96)).astype(np.float32)
    tensor = torch.from_numpy(wide)
    numbers = {
        "oneDNN": torch.nn.functional.conv2d(tensor[None, None], tensor[None, None, :5, :5]),
        "MKL": tensor @ tensor.T,
        "libm": np.exp(rng.normal(size=20_000)),
        "a product in OpenBLAS": wide.astype(float) @ wide.T.astype(float),
    }
    for name, array in numbers.items():
        out[name] = hashlib.sha256(np.asarray(array).tobytes()).hexdigest()[:8]
    return out


def run_of(work: Path, name: str) -> Path:
    """Return the folder of a run that was fitted as ``FIRST``."""
    return work / "runs" / name


def fit(work: Path, name: str, out: Path, steps: int = STEPS) -> None:
    """Fit a generator on the made data, as a user does."""
    settings = [*GANS[name], *LOOP, f"steps={steps}"] if name in GANS else []
    generator = name.partition(",")[0]
    data, read = f"nifti:{work / 'volumes'}", ("size=16",)
    if name in REAL:
        kind, folder, read = REAL[name]
        data = f"{kind}:{DATA / folder}"
    elif name in IN_2D:
        data, read = f"pictures:{work / 'pictures'}", ("boxes=yes",) if name == "cpggan" else ()
    words = ["fit", generator, "--data", data, "-o", str(out), "--device", "cpu", "-q"]
    words += [word for text in read for word in ("--read", text)]
    command(*words, *[word for text in settings for word in ("--set", text)])


def command(*words: str) -> str:
    """Run a command in a process that inherits this one's settings; return its errors."""
    line = [sys.executable, "-m", "gansynth_cli", *words]
    ended = subprocess.run(line, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"refused: {ended.stderr.strip().splitlines()[-1]}")
    return ended.stdout


def weights(run: Path) -> Found:
    """Return the weights of a run, and what its generator observed."""
    from safetensors.numpy import load_file

    manifest = json.loads((run / "manifest.json").read_text())
    found: Found = {"observed": manifest.get("state", manifest.get("observed"))}
    if manifest.get("weights"):
        found |= load_file(run / manifest["weights"]["path"])
    return found


def fitted(work: Path, name: str) -> Iterator[Found]:
    """Fit anew."""
    with tempfile.TemporaryDirectory() as folder:
        fit(work, name, Path(folder) / "run")
        yield weights(Path(folder) / "run")


def resumed(work: Path, name: str) -> Iterator[Found]:
    """Resume a fit that was interrupted, as ``FIRST``, after half of its steps."""
    import shutil

    with tempfile.TemporaryDirectory() as folder:
        run = Path(shutil.copytree(work / "halves" / name, Path(folder) / "run"))
        fit(work, name, run)
        yield weights(run)


def opened(run: Path, **changes: Any) -> Any:
    """Open a run's sampler."""
    from gansynth.core.run_folder import RunFolder
    from gansynth.core.sample_request import SampleRequest
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.run_source import open_source
    from gansynth.sampling.sampler import open_drawer

    folder = RunFolder(run)
    source = open_source(SourceRequest.from_json(folder.manifest["request"]))
    request = SampleRequest(seed=1, **changes)
    return open_drawer(source, None, folder, request, device="cpu")[0]


def parts_of(thing: Any, *names: str) -> Found:
    """Return arrays of a condition or a sample, and its provenance."""
    found = {name: getattr(thing, name, None) for name in names}
    boxes = getattr(thing, "boxes", None)
    if boxes is not None:
        found |= {"boxes": boxes.coords, "box labels": boxes.labels}
    found["provenance"] = dict(thing.provenance)
    return {name: value for name, value in found.items() if value is not None}


def drawn(work: Path, name: str) -> Iterator[Found]:
    """Draw samples."""
    for sample in opened(run_of(work, name)).draw(0, SAMPLES):
        yield parts_of(sample, "image", "labels")


def conditions(work: Path, name: str) -> Iterator[Found]:
    """Draw conditions with the generator's own edits, or with each edit where it takes them."""
    asked: list[dict[str, Any]] = [{}]
    if name in ("cgan3d", "copypaste"):
        asked += [{"edits": (edit,)} for edit in EDITS]
    if name == "cgan3d-lesion":
        asked += [{"lesions": text} for text in PLACES]
    if name in REAL:
        asked += [{"lesions": "mixing=carve"}, {"edits": ("blob", "size")}]
    for changes in asked:
        sampler = opened(run_of(work, name), **changes).sampler
        for index in range(SAMPLES):
            fields = ("labels", "lesion", "region", "present", "context", "body", "ignored",
                      "background", "donor", "moved", "given")  # fmt: skip
            yield {"asked": changes, **parts_of(sampler.draw(index), *fields)}


def replayed(work: Path, name: str) -> Iterator[Found]:
    """Replay samples that were drawn as ``FIRST``."""
    record = run_of(work, name) / "samples" / "seed-1" / "provenance.json"
    samples = sorted(json.loads(record.read_text())["samples"])
    for sample in samples[:2]:
        with tempfile.TemporaryDirectory() as folder:
            words = ("--replay", f"{record}:{sample}", "-o", f"{folder}/again", "--device", "cpu")
            report = json.loads(command("sample", str(run_of(work, name)), *words, "--json"))
            report.pop("folder")
            yield {"said": report}


def banked(work: Path, name: str) -> Iterator[Found]:
    """Fill a frozen bank."""
    from gansynth import fill_bank
    from gansynth.bank.reader import BankReader

    with tempfile.TemporaryDirectory() as folder:
        reader = BankReader(fill_bank(run_of(work, name), Path(folder) / "bank", SAMPLES))
        for place in reader.ids():
            yield parts_of(reader.read(place), "image", "labels")


def mixed(work: Path, name: str) -> Iterator[Found]:
    """Mix samples of a bank into a data set: which items are synthetic, and which samples."""
    from gansynth import mix

    real = [{"image": np.zeros(1), "label": 0} for _ in range(64)]
    data = mix(real, work / "bank", "1:1", as_item=lambda sample: sample.id, seed=3)
    yield {"items": [item if isinstance(item, str) else "real" for item in data]}


def folds(work: Path, name: str) -> Iterator[Found]:
    """Read the folds of the made data."""
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.run_source import open_source

    for fold in ("0", "1"):
        source = open_source(SourceRequest("nifti", str(work / "volumes"), fold=fold))
        yield {"train": list(source.train_ids), "held out": list(source.held_out_ids)}


def evaluated(work: Path, name: str) -> Iterator[Found]:
    """Evaluate a run's samples."""
    with tempfile.TemporaryDirectory() as folder:
        words = ("-n", "8", "-o", f"{folder}/out", "--device", "cpu", "--json")
        report = json.loads(command("evaluate", str(run_of(work, name)), *words))
        yield {"numbers": without_paths(report)}


def without_paths(value: Any) -> Any:
    """Leave out what names a folder or takes its time."""
    if isinstance(value, dict):
        kept = {k: v for k, v in value.items() if "second" not in k and k not in ("date", "time")}
        return {key: without_paths(one) for key, one in kept.items()}
    if isinstance(value, list):
        return [without_paths(one) for one in value]
    return None if isinstance(value, str) and "/" in value else value


def guarded(work: Path, name: str) -> Iterator[Found]:
    """Make prints and landmarks of images, and compare them with turned copies of these."""
    from gansynth.core.fingerprint import alike, look_alikes, prints_of, sharing
    from gansynth.core.schema import content_hash
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.run_source import open_source

    kind, folder = name.split(":")
    where = work / folder if (work / folder).exists() else DATA / folder
    source = open_source(SourceRequest(kind, str(where)))
    cases = [source.load(case_id) for case_id in source.train_ids[:24]]
    spacing, axes = source.schema.spacing, source.schema.ndim
    prints = [prints_of(case.image, spacing) for case in cases]
    copies = [prints_of(np.flip(case.image, -1) * 1.1 + 3, spacing) for case in cases]
    yield {
        "hashes": [content_hash(case.image, case.labels, None, None) for case in cases],
        "prints": [list(one) for one in prints],
        "found": [sorted(found(prints, copies).items()) for found in (alike, sharing)],
        "pairs": sorted(look_alikes(prints, axes)),
    }


TASKS: dict[str, tuple[Callable[[Path, str], Iterator[Found]], tuple[str, ...]]] = {
    "conditions": (conditions, (*GANS, *UNTRAINED, *REAL)),
    "sample": (drawn, (*GANS, *UNTRAINED, "parametric, hippocampi",
                       "copypaste, ultrasound resized")),
    "replay": (replayed, ("cgan3d", "dcgan", "copypaste", "parametric")),
    "bank": (banked, ("cgan3d-lesion",)),
    "mix": (mixed, ("copypaste",)),
    "seeds": (folds, ("volumes",)),
    "guard": (guarded, ("nifti:volumes", "pictures:pictures", "pictures:busi256",
                        "msd:msd_task04_hippocampus")),
    "evaluate": (evaluated, ("cgan3d",)),
    "fit": (fitted, (*GANS, *UNTRAINED)),
    "resume": (resumed, ("cgan3d", "cpggan", "dcgan")),
}  # fmt: skip


def child(task: str, name: str, work: Path, out: Path) -> None:
    """Run a task, and keep what it makes."""
    arrays: dict[str, Any] = {}
    plain: list[Any] = []
    for number, found in enumerate(TASKS[task][0](work, name)):
        rest = {}
        for key, value in found.items():
            if isinstance(value, np.ndarray):
                arrays[f"{number} {key}"] = value
            else:
                rest[key] = value
        plain.append(rest)
    np.savez(out / "arrays.npz", **arrays)
    (out / "plain.json").write_text(json.dumps(plain, default=str))


# -- comparison ----------------------------------------------------------------------------------


def compared(before: Path, after: Path) -> Found:
    """Return how far what two processes made agrees."""
    found: Found = {"same": True, "absolute": 0.0, "deviations": 0.0, "labels": 0.0, "changed": []}
    one, other = np.load(before / "arrays.npz"), np.load(after / "arrays.npz")
    if set(one.files) != set(other.files):
        found["changed"].append("other arrays")
    for key in sorted(set(one.files) & set(other.files)):
        compare_arrays(key, one[key], other[key], found)
    texts = [json.loads((place / "plain.json").read_text()) for place in (before, after)]
    compare_plain("", *texts, found)
    found["changed"] = sorted(set(found["changed"]))
    found["same"] = found["same"] and not found["changed"]
    return found


def compare_arrays(key: str, one: Any, other: Any, found: Found) -> None:
    """Compare arrays: integers are labels, floats are numbers."""
    if one.shape != other.shape or one.dtype != other.dtype:
        found["changed"].append(key.partition(" ")[2])
    elif one.tobytes() != other.tobytes():
        found["same"] = False
        if one.dtype.kind == "f":
            wide = one.astype(np.float64)
            gap = float(np.nanmax(np.abs(wide - other)))
            found["absolute"] = max(found["absolute"], gap)
            of_all = gap / max(float(np.nanstd(wide)), 1e-12)
            found["deviations"] = max(found["deviations"], of_all)
        else:
            found["labels"] = max(found["labels"], float((one != other).mean()))
            found["changed"].append(key.partition(" ")[2])


def compare_plain(where: str, one: Any, other: Any, found: Found) -> None:
    """Compare JSON: floats are numbers, all else is decided."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            compare_plain(key, one[key], other[key], found)
    elif isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        for first, second in zip(one, other, strict=True):
            compare_plain(where, first, second, found)
    elif isinstance(one, float) and isinstance(other, float) and one != other:
        found["same"] = False
        gap = abs(one - other) / max(abs(one), 1e-12)
        found["relative"] = max(found.get("relative", 0.0), gap)
    elif one != other:
        found["changed"].append(where)


def in_words(found: Found) -> str:
    """Return a comparison as the table's cell."""
    if "refused" in found:
        return found["refused"][:60]
    if found["same"]:
        return "same bits"
    words = []
    if found["deviations"]:
        words.append(f"{found['deviations']:.1e} sd")
    if found.get("relative"):
        words.append(f"{found['relative']:.1e} relative")
    if found["labels"]:
        words.append(f"{found['labels']:.1e} of labels")
    if found["changed"]:
        words.append("other " + ", ".join(found["changed"]))
    return "; ".join(words) or "other bits"


# -- running -------------------------------------------------------------------------------------


def start(setting: Mapping[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    """Run this script as a child under a setting."""
    names = {name for each in SETTINGS.values() for name in each}
    clean = {key: value for key, value in os.environ.items() if key not in names}
    line = [sys.executable, __file__, "--child", *words]
    return subprocess.run(
        line, env={**clean, **setting}, capture_output=True, text=True, check=False
    )


def prepare(work: Path, *names: str) -> None:
    """Make data, runs (of these names, or all), halves of runs, records and a bank."""
    from gansynth import fill_bank

    make_volumes(work / "volumes")
    make_pictures(work / "pictures")
    real = [name for name in REAL if (DATA / REAL[name][1]).exists()]
    for name in names or (*GANS, *UNTRAINED, *real):
        fit(work, name, run_of(work, name))
        words = ("-n", "2", "--seed", "1", "--device", "cpu", "-q", "--keep-flawed")
        command("sample", str(run_of(work, name)), *words)
        if name in GANS:
            fit(work, name, work / "halves" / name, STEPS // 2)
    if run_of(work, "copypaste").exists():
        fill_bank(run_of(work, "copypaste"), work / "bank", 16)


def main() -> None:
    """Run all, compare, print and write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--names", nargs="*", help="of these generators or data sets only")
    parser.add_argument("--settings", nargs="*", default=list(SETTINGS), choices=list(SETTINGS))
    parser.add_argument("--work", type=Path, help="a folder to keep: made if it is not there")
    parser.add_argument("--no-write", action="store_true", help="print only")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the real data sets")
    parser.add_argument("--child", nargs="*", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child == ["used"]:
        print(json.dumps(used()))
        return
    if args.child and args.child[0] == "prepare":
        prepare(Path(args.child[1]), *args.child[2:])
        return
    if args.child:
        task, name, work, out = args.child
        child(task, name, Path(work), Path(out))
        return
    os.environ["BITS_DATA"] = str(args.data.resolve())
    with tempfile.TemporaryDirectory() as kept:
        work = (args.work or Path(kept) / "work").absolute()
        if not work.exists():
            made = start(FIRST, "prepare", str(work), *args.names or ())
            if made.returncode:
                raise SystemExit(made.stderr)
        instruments = read_back(args.settings)
        had = [name for name in args.settings if isinstance(instruments[name], dict)]
        rows = []
        for task in args.only:
            for name in TASKS[task][1]:
                there = name not in REAL or run_of(work, name).exists()
                if there and (not args.names or name in args.names):
                    closer = (task, name) in CLOSER
                    asked = [each for each in had if closer or each in USUAL]
                    rows.append(one_row(task, name, work, asked))
                    if not args.no_write:
                        keep(instruments, rows)
    print_table([("command", "of", *had), *[row_in_words(row, had) for row in rows]])


def keep(instruments: Found, rows: list[Found]) -> None:
    """Write rows; those that were measured before, and are not among these, stay."""
    path = RESULTS / "same_bits.json"
    known = json.loads(path.read_text()) if path.exists() else {"instruments": {}, "rows": []}
    found = {(row["command"], row["of"]): row for row in known["rows"]}
    for row in rows:
        found.setdefault((row["command"], row["of"]), row)["found"] |= row["found"]
    of_tasks = [(task, name) for task in TASKS for name in TASKS[task][1]]
    ordered = [found[place] for place in of_tasks if place in found]
    write("same_bits", {"instruments": known["instruments"] | instruments, "rows": ordered})


def read_back(names: list[str]) -> dict[str, Any]:
    """Return what a process uses under each setting, or why it was not to be had."""
    plain, found = json.loads(start(FIRST, "used").stdout), dict[str, Any]()
    for name in names:
        ended = start(SETTINGS[name], "used")
        if ended.returncode:
            found[name] = f"not to be had here: the process ended with {ended.returncode}"
            continue
        read = json.loads(ended.stdout)
        differs = {key: value for key, value in read.items() if value != plain[key]}
        found[name] = read if SETTINGS[name] == FIRST else differs
        if not found[name]:
            found[name] = "not to be had here: what is used stays the same"
        print(f"{name}: {found[name]}", file=sys.stderr)
    return found


def one_row(task: str, name: str, work: Path, settings: list[str]) -> Found:
    """Run a task with nothing set, and under each setting; compare."""
    row: Found = {"command": task, "of": name, "found": {}}
    with tempfile.TemporaryDirectory() as folder:
        first = Path(folder) / "first"
        for setting in ("", *settings):
            out = first if not setting else Path(folder) / setting
            out.mkdir()
            began = time.perf_counter()
            ended = start(SETTINGS.get(setting, FIRST), task, name, str(work), str(out))
            spent = time.perf_counter() - began
            if ended.returncode:
                found: Found = {"refused": (ended.stderr.strip() or "killed").splitlines()[-1]}
            else:
                found = {} if not setting else compared(first, out)
            if setting:
                row["found"][setting] = found
            words = in_words(found) if found else "-"
            print(f"{task} {name} {setting or 'first'}: {words} ({spent:.0f} s)", file=sys.stderr)
    return row


def row_in_words(row: Found, settings: list[str]) -> tuple[str, ...]:
    """Return a row of the table."""
    found = row["found"]
    cells = [in_words(found[name]) if name in found else "" for name in settings]
    return (row["command"], row["of"], *cells)


if __name__ == "__main__":
    main()
