"""What a cohort costs: commands as a user types them, on data of true size, beside nnU-Net's.

``python benchmarks/measure/bench_cohort.py [--only brats check] [--sizes 75 150 300] [--quick]
[--home FOLDER]``: phantoms are made once, into ``--home``. What is measured joins the rows that
``results/cohort.json`` has, so the whole can be measured in parts; then the table in
``results/cohort.md`` is made of it. ``--only`` alone writes the table only; ``--quick`` measures
few small cases and keeps nothing.

Seconds are the CPU's of a command and the processes that it waited for. Memory is the highest sum
over the command and all its processes (proportional set size of what no file backs, looked at four
times a second). Growth is the exponent of CPU seconds over cases, between one size and the next.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import json
import math
import os
import shlex
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
from common import RESULTS, print_table, write

PAGE = RESULTS / "cohort.md"
BEGIN, END = "<!-- cohort -->\n", "<!-- /cohort -->\n"


# -- data sets -------------------------------------------------------------------------------------


def grid(shape: tuple[int, ...]) -> tuple[Any, ...]:
    """Coordinates from -1 to 1 along each axis, to be broadcast."""
    return np.meshgrid(*(np.linspace(-1, 1, n) for n in shape), indexing="ij", sparse=True)


def field(rng: np.random.Generator, shape: tuple[int, ...], nodes: int) -> Any:
    """Smooth noise: a lattice of random numbers, interpolated linearly axis by axis."""
    found = rng.standard_normal([nodes] * len(shape), dtype=np.float32)
    for length in shape:  # the first axis goes, and comes back as the last
        at = np.linspace(0, nodes - 1, length, dtype=np.float32)
        weights = np.maximum(1 - abs(at[:, None] - np.arange(nodes, dtype=np.float32)), 0)
        found = np.tensordot(found, weights, axes=(0, 1))
    return found


def ball(shape: tuple[int, ...], centre: Any, radius: float) -> Any:
    """Where a ball is, in coordinates from -1 to 1."""
    return sum((x - c) ** 2 for x, c in zip(grid(shape), centre, strict=True)) < radius**2


def save(array: Any, path: Path, mm: float = 1.0) -> None:
    """Write a NIfTI file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(array, np.diag([mm, mm, 1, 1])).to_filename(path)


def brats(folder: Path, number: int) -> None:
    """Four channels of 240 x 240 x 155, three labels, as BraTS names them."""
    rng, shape, name = np.random.default_rng(number), (240, 240, 155), f"BraTS2021_{number:05}"
    brain = sum((x / r) ** 2 for x, r in zip(grid(shape), (0.62, 0.78, 0.85), strict=True)) < 1
    labels, centre, radius = np.zeros(shape, np.uint8), rng.uniform(-0.3, 0.3, 3), 0.2
    for label, share in ((2, 1.0), (4, 0.6), (1, 0.35)):
        labels[ball(shape, centre, share * radius) & brain] = label
    anatomy = field(rng, shape, 12)
    for channel, contrast in (("flair", 150), ("t1", -60), ("t1ce", 100), ("t2", 120)):
        image = 300 + 60 * anatomy + 20 * field(rng, shape, 8) + contrast * (labels > 0)
        image += rng.integers(-3, 4, shape, dtype=np.int8)
        save((image.clip(1) * brain).astype(np.int16), folder / name / f"{name}_{channel}.nii.gz")
    save(labels, folder / name / f"{name}_seg.nii.gz")


def ct(folder: Path, number: int) -> None:
    """A CT of 512 x 512 x 400 with an organ and three lesions."""
    rng, shape, name = np.random.default_rng(number), (512, 512, 400), f"ct{number:05}"
    rows, columns, _ = grid(shape)
    body = (rows / 0.8) ** 2 + (columns / 0.6) ** 2 < 1  # a cylinder
    labels = np.zeros(shape, np.uint8)
    labels[ball(shape, (-0.3, -0.1, rng.uniform(-0.2, 0.2)), 0.3)] = 1
    for y, x, z in rng.uniform(-0.15, 0.15, (3, 3)):
        labels[ball(shape, (y - 0.3, x - 0.1, z), 0.07) & (labels == 1)] = 2
    image = 40 + 20 * field(rng, shape, 12) + np.take((0, 60, 20), labels)
    image += rng.integers(-8, 9, shape, dtype=np.int8)
    image = np.where(body, image, -1000).astype(np.int16)
    save(image, folder / "images" / f"{name}_0000.nii.gz", 0.8)
    save(labels, folder / "labels" / f"{name}.nii.gz", 0.8)


def small(folder: Path, number: int) -> None:
    """A volume of 16 x 16 x 16 with one bright cube."""
    rng, shape, name = np.random.default_rng(number), (16, 16, 16), f"c{number:05}"
    labels = np.zeros(shape, np.uint8)
    z, y, x = rng.integers(2, 8, 3)
    labels[z : z + 6, y : y + 6, x : x + 6] = 1
    image = 100 + 20 * field(rng, shape, 6) + rng.normal(0, 5, shape) + 80 * labels
    save(image.astype(np.int16), folder / "files" / f"{name}_t1.nii.gz")
    save(labels, folder / "files" / f"{name}_seg.nii.gz")


def picture(folder: Path, number: int) -> None:
    """A grey picture of 256 x 256 with a bright disc, and its mask."""
    from PIL import Image

    rng, shape, name = np.random.default_rng(number), (256, 256), f"p{number:05}.png"
    mask = ball(shape, rng.uniform(-0.5, 0.5, 2), rng.uniform(0.06, 0.24))
    image = 110 + 20 * field(rng, shape, 10) + 4 * rng.standard_normal(shape) + 50 * mask
    for place, array in (("images", image.clip(0, 255)), ("masks", 255 * mask)):
        (folder / place).mkdir(parents=True, exist_ok=True)
        Image.fromarray(array.astype(np.uint8)).save(folder / place / name, compress_level=1)


def listed(folder: Path, count: int) -> None:
    """The table of a manifest: two scans a subject, five folds."""
    with (folder / "cases.csv").open("w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("case", "subject", "T1", "label", "fold"))
        for number in range(count):
            name, subject = f"c{number:05}", f"s{number // 2:05}"
            files = (f"files/{name}_{what}.nii.gz" for what in ("t1", "seg"))
            table.writerow((name, subject, *files, number // 2 % 5))


@dataclass(frozen=True)
class DataSet:
    """A data set: what makes a case, how gansynth is told of a folder of them, how many."""

    title: str
    make: Callable[[Path, int], None]
    source: str
    crop: str  # of a fit
    sizes: tuple[int, ...]
    quick: tuple[int, ...]
    finish: Callable[[Path, int], None] = lambda folder, count: None


FEW = (20, 40, 80)
DATA = {
    "brats": DataSet(
        "volumes of 240x240x155x4", brats, "nifti:{}", "64x64x64", (75, 150, 300), (5, 7, 10)
    ),
    "ct": DataSet("CTs of 512x512x400", ct, "nifti:{}", "64x64x64", (5, 10, 20), (5, 6, 7)),
    "manifest": DataSet(
        "volumes of 16x16x16 in a CSV",
        small,
        "nifti:{}/cases.csv",
        "16x16x16",
        (500, 1500, 5000),
        FEW,
        listed,
    ),
    "pictures": DataSet(
        "pictures of 256x256", picture, "pictures:{}", "64x64", (2000, 6000, 20_000), FEW
    ),
}


def cases_of(name: str, count: int, home: Path) -> Path:
    """A folder of the first so many cases, as hard links; each case is made once."""
    data, folder = DATA[name], home / f"{name}-{count}"
    shutil.rmtree(folder, ignore_errors=True)
    for number in range(count):
        case, part = home / name / f"{number:05}", home / name / "part"
        if not case.exists():
            shutil.rmtree(part, ignore_errors=True)
            data.make(part, number)
            part.rename(case)
        shutil.copytree(case, folder, copy_function=os.link, dirs_exist_ok=True)
    data.finish(folder, count)
    return folder


# -- commands --------------------------------------------------------------------------------------

VERIFY = (
    "from glob import glob; "
    "from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity; "
    "verify_dataset_integrity(*glob('{out}/nnunet/nnUNet_raw/*'), 2)"
)
STEPS = "--set steps=50 --set batch_size=1 --set width=8 --set d_width=8"
COMMANDS = {
    "check": "gansynth check {data}",
    "import": "gansynth import {data} nnunet:7 --root {out}/nnunet",
    "nnU-Net: verify": f'python -c "{VERIFY}"',
    "nnU-Net: plan": "nnUNetv2_plan_and_preprocess -d 7 -npfp 2 --no_pp",
    "prepare, dry": "gansynth augment nnunet:7 --root {out}/nnunet --dry-run",
    "cache": "gansynth cache {data} --dtype float16 -o {out}/cache.h5",
    "fit": "gansynth fit cgan3d --data {data} --read size={crop} " + STEPS + " -o {out}/run",
    "fit, 1 GB": "gansynth fit cgan3d --data {data} --read size={crop} --cache-memory 1GB "
    + STEPS
    + " -o {out}/run_1gb",
    "sample": "gansynth sample {out}/run -n 16 -o {out}/samples",
    "augment, dry": "gansynth augment --target segmenter --generator {out}/run --ratio 1:1 "
    "-o {out}/both --dry-run",
    "evaluate": "gansynth evaluate {out}/run -n 16 --preset quick -o {out}/evaluation",
}
"""Command lines by name, in the order in which they follow from each other."""
MAKES = {"import": "nnunet", "fit": "run"}
NEEDS = {
    "nnU-Net: verify": "import",
    "nnU-Net: plan": "import",
    "prepare, dry": "import",
    "sample": "fit",
    "augment, dry": "fit",
    "evaluate": "fit",
}


def own_memory(process: psutil.Process) -> int:
    """KiB of memory that no file backs, shared ones by their parts, of a process and its own."""
    total = 0
    for each in (process, *process.children(recursive=True)):
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{each.pid}/smaps_rollup").read_text().splitlines():
                if line.startswith(("Pss_Anon:", "Pss_Shmem:")):
                    total += int(line.split()[1])
    return total


def measured(words: list[str], environ: dict[str, str], log: Path) -> dict[str, float]:
    """Run a command: CPU seconds, MiB at its peak, seconds."""
    began, peak, ended = time.perf_counter(), 0, threading.Event()
    with log.open("wb") as file:
        child = subprocess.Popen(words, env=environ, stdout=file, stderr=subprocess.STDOUT)

    def watch() -> None:
        nonlocal peak
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(child.pid)
            while not ended.wait(0.25):
                peak = max(peak, own_memory(process))

    watcher = threading.Thread(target=watch)
    watcher.start()
    _, status, used = os.wait4(child.pid, 0)
    child.returncode = os.waitstatus_to_exitcode(status)
    ended.set()
    watcher.join()
    if child.returncode:
        said = log.read_text(errors="replace")[-2000:]
        raise SystemExit(f"{shlex.join(words)} ended with {child.returncode}:\n{said}")
    return {
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 2),
        "memory_mib": round(peak / 1024, 1),
        "seconds": round(time.perf_counter() - began, 1),
    }


def of_size(name: str, count: int, commands: Sequence[str], home: Path) -> Iterator[dict[str, Any]]:
    """Run commands, and those before them, on so many cases; what they write is deleted."""
    folder = cases_of(name, count, home)
    data, out = DATA[name], home / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    environ = {**os.environ, "PYTHONUNBUFFERED": "1", "nnUNet_results": str(out / "results")}
    environ["GANSYNTH_CACHE"] = str(out / "kept")  # by the commands of this size alone
    for key in ("nnUNet_raw", "nnUNet_preprocessed"):
        environ[key] = str(out / "nnunet" / key)
    needed = {NEEDS[command] for command in commands if command in NEEDS}
    for command, line in COMMANDS.items():
        if command not in {*commands, *needed}:
            continue
        text = line.format(data=data.source.format(folder), out=out, crop=data.crop)
        found = measured(shlex.split(text), environ, home / f"{name}-{count}.log")
        yield {"data": name, "command": command, "cases": count, **found}
        (out / "cache.h5").unlink(missing_ok=True)
    shutil.rmtree(out)
    shutil.rmtree(folder)


# -- results ---------------------------------------------------------------------------------------


def known_rows() -> dict[tuple[str, str, int], dict[str, Any]]:
    """Return the rows that were measured before, by data set, command and cases."""
    path = RESULTS / "cohort.json"
    if not path.exists():
        return {}
    known = json.loads(path.read_text(encoding="utf-8"))["rows"]
    return {(row["data"], row["command"], row["cases"]): row for row in known}


def growth(rows: list[dict[str, Any]]) -> list[float]:
    """Exponents of CPU seconds over cases between sizes."""
    return [
        math.log(b["cpu_seconds"] / a["cpu_seconds"]) / math.log(b["cases"] / a["cases"])
        for a, b in pairwise(rows)
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The table of the page: the largest size that each command has seen, and growth up to it."""
    lines = []
    for name, data in DATA.items():
        own = [row for row in rows if row["data"] == name]
        if not own:
            continue
        sizes, dates = ({row[key] for row in own} for key in ("cases", "date"))
        days = " and ".join(sorted(dates))
        title = f"{', '.join(f'{size:,}' for size in sorted(sizes))} {data.title}"
        lines += [
            f"| {title} ({days}) | cases | CPU s | ms a case | MiB | growth |",
            "| --- | --: | --: | --: | --: | --: |",
        ]
        for command in COMMANDS:
            of = sorted((r for r in own if r["command"] == command), key=itemgetter("cases"))
            if of:
                most, seconds, mib = itemgetter("cases", "cpu_seconds", "memory_mib")(of[-1])
                each = 1000 * seconds / most
                cells = (f"{most:,}", f"{seconds:.1f}", f"{each:,.0f}", f"{mib:.0f}")
                grown = ", ".join(f"{g:.2f}" for g in growth(of))
                lines.append(f"| {command} | {' | '.join(cells)} | {grown} |")
        lines.append("")
    return "\n".join(lines)


def main() -> None:
    """Measure, print, join, write."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", choices=[*DATA, *COMMANDS])
    parser.add_argument("--sizes", nargs="+", type=int, help="numbers of cases")
    parser.add_argument("--quick", action="store_true", help="a few cases; nothing is kept")
    parser.add_argument("--home", type=Path, help="folder for data sets, kept")
    asked = parser.parse_args()
    only = [*DATA, *COMMANDS] if asked.only is None else asked.only
    names = [name for name in DATA if name in only] or list(DATA)
    commands = [command for command in COMMANDS if command in only] or list(COMMANDS)
    rows = {} if asked.quick else known_rows()
    with tempfile.TemporaryDirectory() as scratch:
        home = (asked.home or Path(scratch)).absolute()
        for name in names if only else ():
            sizes = DATA[name].quick if asked.quick else DATA[name].sizes
            for count in asked.sizes or sizes:
                for row in of_size(name, count, commands, home):
                    print_table([tuple(row.values())])
                    row["date"] = time.strftime("%Y-%m-%d")
                    if not asked.quick:  # others may be measuring their part
                        rows = known_rows()
                    rows[(name, row["command"], count)] = row
                    if not asked.quick:  # what is measured stays, whatever happens to the rest
                        write("cohort", {"rows": list(rows.values())})
    print(table(list(rows.values())))
    if not asked.quick:
        head, _, rest = PAGE.read_text(encoding="utf-8").partition(BEGIN)
        tail = rest.partition(END)[2]
        PAGE.write_text(f"{head}{BEGIN}{table(list(rows.values()))}{END}{tail}", encoding="utf-8")


if __name__ == "__main__":
    main()
