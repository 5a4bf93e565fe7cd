"""How long commands take to begin, and what they read: `fit`, `augment`, `check`; stock nnU-Net.

``python benchmarks/measure/bench_start.py [--volumes 100]``: phantoms, then each command in turn.
``fit`` counts until its first step is logged, ``augment`` and ``nnUNetv2_train`` until nnU-Net's
first training step is over, ``check`` until its end. A file of the data counts as read again if one
process opens it for reading more than once, after it was last written. All processes of a command
count.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import nibabel as nib
import numpy as np
from common import gansynth, hooked, machine, write

HOOK = """
import importlib.abc, importlib.util, os, sys, time
home = os.environ["START_HOME"]
log = os.open(os.environ["START_LOG"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

def note(what, path=""):
    os.write(log, f"{time.time()} {os.getpid()} {what} {path}\\n".encode())

def hear(event, arguments):
    if event == "open" and isinstance(arguments[0], (str, bytes)):
        path = os.path.abspath(os.fsdecode(arguments[0]))
        if path.startswith(home) and not path.endswith((".py", ".pyc", ".so")):
            writes = arguments[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT)
            note("write" if writes else "read", path)

class Wrap(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name != "nnunetv2.training.nnUNetTrainer.nnUNetTrainer":
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module
        def loaded(module):
            load(module)
            trainer = module.nnUNetTrainer
            step = trainer.train_step
            def first(self, batch):
                done = step(self, batch)
                trainer.train_step = step
                note("first_step")
                return done
            trainer.train_step = first
        spec.loader.exec_module = loaded
        return spec

sys.addaudithook(hear)
sys.meta_path.insert(0, Wrap())
"""
SMALL = ("--set", "width=8", "--set", "d_width=8", "--set", "log_every=1", "--set", "steps=2")
QUICK = {"num-epochs": 1, "num-iterations-per-epoch": 1, "num-val-iterations-per-epoch": 1}
SOURCE = ("--data", "nnunet:999", "--configuration", "3d_fullres")
SOURCE += ("--plans", "gansynthSmallPlans", "--fold", "0")


def watched(words: list[str], home: Path, until: str = "") -> dict[str, Any]:
    """Run a command; seconds until an event, or the end, and what was read before it."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        environ = {"START_HOME": str(home), "START_LOG": str(log), "nnUNet_compile": "f"}
        environ |= {f"nnUNet_{x}": str(home / f"nnUNet_{x}") for x in ("raw", "preprocessed")}
        environ |= {"nnUNet_results": str(home / "results"), "nnUNet_n_proc_DA": "1"}
        environ = hooked(HOOK, Path(folder), **environ)
        began = time.time()
        child = subprocess.Popen(
            words, cwd=home, env=environ, stdout=subprocess.DEVNULL, start_new_session=True
        )
        if until == "first_step":  # stock nnU-Net would go on for 250 steps
            while child.poll() is None and not (log.exists() and until in log.read_text()):
                time.sleep(0.05)
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        rows = [line.split(" ", 3) for line in log.read_text().splitlines()]
    ends = [float(at) for at, _, what, path in rows if until and until in f"{what} {path}"]
    end = ends[0] if ends else time.time()
    times: Counter[tuple[str, str]] = Counter()
    for at, process, what, path in rows:
        if float(at) > end or re.search(r"\.lock$|/dev/|heartbeat|throttle", path):
            continue
        if what == "write":
            times[process, path] = 0
        elif what == "read":
            times[process, path] += 1
    read = {path: n for (_, path), n in times.items() if n}
    again = Counter({path.removeprefix(f"{home}/"): n for path, n in read.items() if n > 1})
    return {
        "seconds": end - began,
        "files_read": len(read),
        "files_read_again": len(again),
        "most_often": dict(again.most_common(3)),
    }


def main() -> None:
    """Make the data, and run each command."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--volumes", type=int, default=100, help="that `check` reads")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    with tempfile.TemporaryDirectory() as folder:
        gansynth("demo", "--phantoms", "nnunet", "-o", folder, "--force", quiet=True)
        home = Path(folder) / "nnunet"
        os.environ |= {f"nnUNet_{x}": str(home / f"nnUNet_{x}") for x in ("raw", "preprocessed")}
        prepared = ("--set", "small=yes", "--set", "voxels=1000000")
        gansynth("prepare", "nnunet:999", *SOURCE[2:4], *prepared, quiet=True)
        many = home / "many"
        many.mkdir()
        images = sorted((home / "nnUNet_raw").rglob("imagesTr/*_0000.nii.gz"))
        labels = sorted((home / "nnUNet_raw").rglob("labelsTr/*.nii.gz"))
        for number in range(args.volumes):
            case = many / f"case{number:03}"
            case.mkdir()
            volume = nib.load(images[number % len(images)])
            array = np.asanyarray(volume.dataobj).copy()
            array[0, 0, 0] = number  # no two cases have the same image
            other = nib.Nifti1Image(array, volume.affine)
            other.to_filename(case / f"{case.name}_flair.nii.gz")
            shutil.copy(labels[number % len(labels)], case / f"{case.name}_seg.nii.gz")
        command = [sys.executable, "-m", "gansynth_cli"]
        for _ in range(args.rounds):
            shutil.rmtree(home / "runs", ignore_errors=True)
            fit = [*command, "fit", "cgan3d", *SOURCE, "-o", "runs/g", *SMALL, "-q"]
            augment = [*command, "augment", "--target", "nnunet", *SOURCE, "--generator", "runs/g"]
            augment += [word for key, n in QUICK.items() for word in (f"--{key}", str(n))]
            augment += ["--ratio", "1:1", "--bank-size", "8", "-q", "-o", "runs/out"]
            stock = "import sys; from nnunetv2.run.run_training import run_training_entry as run; "
            stock += (
                "sys.argv[1:] = '999 3d_fullres 0 -p gansynthSmallPlans -device cpu'.split(); run()"
            )
            check = [*command, "check", f"nifti:{many}"]
            for name, words, until in (
                ("fit", fit, "metrics.csv"),
                ("augment", [*augment, "--", "-device", "cpu"], "first_step"),
                ("stock nnU-Net", [sys.executable, "-c", stock], "first_step"),
                (f"check of {args.volumes} volumes", check, ""),
            ):
                found.setdefault(name, []).append(watched(words, home, until))
    for name, rounds in found.items():
        seconds = [one["seconds"] for one in rounds]
        last = rounds[-1]
        again, most = last["files_read_again"], last["most_often"]
        print(f"{name}: {median(seconds):.1f} s, {last['files_read']} files, {again} again: {most}")
    write("start", {"machine": machine(), "commands": found})


if __name__ == "__main__":
    main()
