"""Damaged files, read by gansynth and by what its users would read them with otherwise.

Rows 1 to 11, 20, 25 and 28 of the fault matrix. Each reader reads in a process of its own with
4 GiB of address space; no answer within a minute is a hang. What is not refused is compared with
what the same reader made of the undamaged file.

    python benchmarks/measure/bench_faults.py [--trials 60] [--kills 20]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import pickle
import random
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from common import RESULTS, write
from faults_readers import NIFTI, POOL, Reader, compare

BOMB = (2048, 2048, 1024)
VERSIONS = ("SimpleITK", "blosc2", "monai", "nibabel", "nnunetv2", "safetensors", "torchio")
SHAPE = (64, 64, 32)
CANARY = "canary"


# -- damage ----------------------------------------------------------------------------------------


def flips(file: Path, trials: int, rng: random.Random, first: int = 0) -> list[Path]:
    """Write copies with one flipped bit each, in folders of their own."""
    data, made = file.read_bytes(), []
    for number in range(trials):
        changed = bytearray(data)
        changed[rng.randrange(first, len(data))] ^= 1 << rng.randrange(8)
        made.append(beside(file, f"flip{number}", bytes(changed)))
    return made


def beside(file: Path, name: str, data: bytes) -> Path:
    """Write a damaged copy into a folder of its own, with all that lies beside the good one."""
    folder = file.parent.parent / f"{file.parent.name}-{name}" / file.parent.name
    folder.mkdir(parents=True)
    notes = file.parent.with_name(f"gansynth_{file.parent.name}.json")
    if notes.is_file():
        (folder.parent / notes.name).write_bytes(notes.read_bytes())
    for other in file.parent.iterdir():
        if other != file:
            (folder / other.name).write_bytes(other.read_bytes())
    (folder / file.name).write_bytes(data)
    return folder / file.name


def nifti(folder: Path, name: str, array: Any, change: Callable[[Any], None] | None = None) -> Path:
    """Write a NIfTI file; ``change`` edits its header's fields as they are stored."""
    import nibabel as nib

    folder.mkdir(parents=True, exist_ok=True)
    image = nib.Nifti1Image(array, np.eye(4))
    data = image.to_bytes()
    if change is not None:
        header = np.frombuffer(data[:348], nib.nifti1.header_dtype).copy()
        change(header)
        data = header.tobytes() + data[348:]
    path = folder / name
    path.write_bytes(gzip.compress(data, 6) if name.endswith(".gz") else data)
    return path


def put(**fields: Any) -> Callable[[Any], None]:
    """Return a change of header fields; a pair sets one place of a field."""

    def change(header: Any) -> None:
        for name, value in fields.items():
            if isinstance(value, dict):
                for place, number in value.items():
                    header[name][..., place] = number
            else:
                header[name] = value

    return change


NO_FORMS = {"sform_code": 0, "qform_code": 0}
AFFINES = {
    "singular affine": put(srow_x=0.0, sform_code=1),
    "NaN in the affine": put(srow_y={3: np.nan}, sform_code=1),
    "spacing 0": put(pixdim={1: 0.0}, **NO_FORMS),
    "spacing 1e-30": put(pixdim={1: 1e-30}, **NO_FORMS),
}


def volumes(home: Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """Rows 1 to 6 and 8, of files of voxels."""
    noise = np.random.default_rng(0).normal(size=SHAPE).astype(np.float32)
    axes = np.meshgrid(*(np.linspace(0, 6, n) for n in SHAPE), indexing="ij")
    smooth = (1000 * sum(map(np.sin, axes))).astype(np.int16)
    rows: dict[str, Any] = {}
    readers = list(NIFTI)
    for kind, array in {"noise": noise, "smooth": smooth}.items():
        good = nifti(home / kind, "x.nii.gz", array)
        data = good.read_bytes()
        cuts = [beside(good, f"cut{n}", data[: len(data) * n // 10]) for n in range(3, 10)]
        rows[f"1 .nii.gz truncated, {kind}"] = compare(readers, good, cuts)
        damaged = flips(good, trials, rng, first=10)
        rows[f"2 bit flip in .nii.gz, {kind}"] = compare(readers, good, damaged)
    plain = nifti(home / "plain", "x.nii", smooth)
    rows["3 bit flip in .nii, voxels"] = compare(readers, plain, flips(plain, trials, rng, 352))
    cut = beside(plain, "cut", plain.read_bytes()[: plain.stat().st_size // 2])
    rows["1 .nii truncated"] = compare(readers, plain, [cut])
    huge = nifti(home / "huge", "x.nii", smooth, put(dim={1: 32767, 2: 32767, 3: 32767}))
    rows["4 header of 32767^3 voxels"] = compare(readers, plain, [huge])
    rows["5 gzip bomb of 4 GiB"] = compare(readers, plain, [bomb(home)])
    holes = noise.copy()
    holes[3, 4, 5] = np.nan
    bad = [nifti(home / "nan", "x.nii.gz", holes)]
    rows["6 NaN voxel"] = compare(readers, plain, bad, harmless=False)
    bad = [nifti(home / name, "x.nii.gz", smooth, change) for name, change in AFFINES.items()]
    rows["8 singular or NaN affine, spacing 0 or 1e-30"] = compare(
        readers, plain, bad, harmless=False
    )
    return rows


def bomb(home: Path) -> Path:
    small = nifti(home / "bomb", "x.nii", np.zeros((1, 1, 1), np.uint8),
                  put(dim={1: BOMB[0], 2: BOMB[1], 3: BOMB[2]}))  # fmt: skip
    path = small.with_name("x.nii.gz")
    part = gzip.compress(bytes(64 << 20), 9)  # a gzip file may have several members
    count = BOMB[0] * BOMB[1] * BOMB[2] >> 26
    path.write_bytes(gzip.compress(small.read_bytes()[:352]) + part * count)
    return path


def raw_set(root: Path) -> Path:
    """Write an nnU-Net data set of three cases and two channels."""
    rng = np.random.default_rng(0)
    raw = root / "nnUNet_raw" / "Dataset501_Toy"
    for number in range(3):
        labels = np.zeros((16, 16, 8), np.uint8)
        labels[4:9, 4:9, 2:6] = 1
        for channel in range(2):
            image = rng.normal(100, 9, labels.shape).astype(np.float32) + 20 * labels
            nifti(raw / "imagesTr", f"p{number}_{channel:04d}.nii.gz", image)
        nifti(raw / "labelsTr", f"p{number}.nii.gz", labels)
    document = {
        "channel_names": {"0": "T1", "1": "T2"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 3,
        "file_ending": ".nii.gz",
    }
    (raw / "dataset.json").write_text(json.dumps(document))
    return root


def data_sets(home: Path) -> dict[str, Any]:
    """Rows 1 to 11 of a raw data set, checked as a whole: before any training."""
    image, labels = np.ones((16, 16, 8), np.float32), np.zeros((16, 16, 8), np.uint8)
    wrong = labels.copy()
    wrong[3, 3, 3], rows = 7, {}
    first, drawn = "imagesTr/p0_0000.nii.gz", "labelsTr/p0.nii.gz"

    def again(name: str, array: Any, change: Any = None) -> Callable[[Path], object]:
        return lambda raw: nifti(raw / Path(name).parent, Path(name).name, array, change)

    def halve(raw: Path) -> object:
        data = (raw / first).read_bytes()
        return (raw / first).write_bytes(data[: len(data) // 2])

    damage: dict[str, Callable[[Path], object]] = {
        "1 .nii.gz truncated": halve,
        "7 constant image": again(first, image),
        "7 labels of background alone": again(drawn, labels),
        "9 label map of another shape": again(drawn, labels[:-1]),
        "9 label map of another affine": again(drawn, labels, put(srow_x={0: 2.0}, sform_code=1)),
        "10 unknown label 7": again(drawn, wrong),
        "10 negative label": again(drawn, labels.astype(np.int16) - 1),
        "10 label of 0.5": again(drawn, labels.astype(np.float32) + 0.5),
        "11 missing channel": lambda raw: (raw / first).unlink(),
        "11 a channel that no file is of": again("imagesTr/p0_0002.nii.gz", image),
    }
    good = raw_set(home / "good")
    for name, change in damage.items():
        folder = raw_set(home / "".join(c if c.isalnum() else "_" for c in name))
        change(folder / "nnUNet_raw" / "Dataset501_Toy")
        found = compare(["gansynth check", "nnU-Net verify"], good, [folder], harmless=False)
        rows[name] = found
    return rows


class Payload:
    """Writes a file when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.canary,)


def arrays_and_weights(home: Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """Rows 3, 20 and 25: preprocessed arrays, weights, checkpoints, and what is hostile in them."""
    import blosc2
    import torch
    from safetensors.torch import save_file

    from gansynth_nnunet.cases import write_hashes

    values = np.random.default_rng(0).normal(size=(1, *SHAPE)).astype(np.float32)
    home.mkdir(parents=True)
    places = {name: home / name for name in ("arrays", "weights", "pickled")}
    for folder in places.values():
        folder.mkdir()
    array, weights, pickled = (
        places["arrays"] / "x.b2nd",
        places["weights"] / "x.safetensors",
        places["pickled"] / "x.pt",
    )
    for name in ("x", "x_seg"):
        blosc2.asarray(values, urlpath=str(places["arrays"] / f"{name}.b2nd"))
    (places["arrays"] / "x.pkl").write_bytes(pickle.dumps({}))
    write_hashes(places["arrays"])
    save_file({"w": torch.from_numpy(values)}, weights)
    weights.with_suffix(".sha256").write_text(hashlib.sha256(weights.read_bytes()).hexdigest())
    torch.save({"w": torch.from_numpy(values)}, pickled)
    rows = {}
    for kind, file, readers in (
        (".b2nd", array, ["gansynth .b2nd", "nnU-Net .b2nd"]),
        (".safetensors", weights, ["gansynth weights", "safetensors"]),
        (".pt", pickled, ["torch.load", "nnU-Net checkpoint"]),
    ):
        half = beside(file, "cut", file.read_bytes()[: file.stat().st_size // 2])
        rows[f"25 {kind} truncated"] = compare(readers, file, [half])
        rows[f"3 bit flip in {kind}"] = compare(readers, file, flips(file, trials, rng))
    return {**rows, **hostile(home / "hostile", array)}


def hostile(home: Path, array: Path) -> dict[str, Any]:
    """Row 20: does reading run code that a file brings."""
    import torch

    home.mkdir()
    canary = home / CANARY
    torch.save(Payload(canary), home / "x.pt")
    np.save(home / "x.npy", np.array([Payload(canary)], dtype=object), allow_pickle=True)
    brought = beside(array, "hostile", array.read_bytes())
    brought.with_suffix(".pkl").write_bytes(pickle.dumps(Payload(canary)))
    found: dict[str, Any] = {}
    for name, file in {
        "gansynth weights": home / "x.pt",
        "torch.load": home / "x.pt",
        "nnU-Net checkpoint": home / "x.pt",
        "numpy .npy": home / "x.npy",
        "MONAI .npy": home / "x.npy",
        "gansynth .b2nd": brought,
        "nnU-Net .b2nd": brought,
    }.items():
        (home / "x.sha256").write_text(hashlib.sha256(file.read_bytes()).hexdigest())
        canary.unlink(missing_ok=True)
        reader = Reader(name)
        words = reader.read(file, patience=300).get("words", "")
        reader.close()
        found[name] = {"code run" if canary.exists() else "no code run": 1, "words": words}
    return {"20 hostile pickle": found}


# -- SIGKILL ---------------------------------------------------------------------------------------


def gansynth_writer(folder: Path, values: Any) -> None:
    from gansynth.training import checkpoint

    for step in range(10**6):
        checkpoint.save(folder, step, {"w": values}, {"w": values}, {"step": step})


def nnunet_writer(folder: Path, values: Any) -> None:
    """As ``nnUNetTrainer.save_checkpoint``: onto the file that is there."""
    import torch

    for step in range(10**6):
        torch.save({"w": values, "step": step}, folder / "checkpoint_latest.pth")


def kills(home: Path, trials: int, rng: random.Random) -> dict[str, Any]:
    """Row 28: SIGKILL of a process that writes one checkpoint after the other."""
    import torch

    from gansynth.training import checkpoint

    values = torch.zeros(1 << 22)
    found: dict[str, Any] = {}
    for name, writer in {"gansynth": gansynth_writer, "nnU-Net": nnunet_writer}.items():
        counts: Counter[str] = Counter()
        for trial in range(trials):
            folder = home / f"{name}{trial}"
            folder.mkdir(parents=True)
            pid = os.fork()
            if not pid:
                writer(folder, values)
                os._exit(0)
            while not any(folder.glob("step-*/state.json")) and not any(folder.glob("*.pth")):
                time.sleep(0.01)
            time.sleep(rng.uniform(0.05, 0.5))
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            try:
                if name == "gansynth":
                    whole = checkpoint.latest(folder) is not None
                else:
                    whole = bool(torch.load(folder / "checkpoint_latest.pth", weights_only=False))
            except Exception:
                whole = False
            counts["resumes" if whole else "lost"] += 1
        found[name] = dict(counts)
    return {"28 SIGKILL while checkpoints are written": found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--parts", nargs="*", help="measure these, and keep the others' numbers")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gansynth-faults-") as folder:
        home, rng = Path(folder), random.Random(0)
        parts = {
            "kills": lambda: kills(home / "kills", asked.kills, rng),
            "arrays and weights": lambda: arrays_and_weights(home / "more", asked.trials, rng),
            "data sets": lambda: data_sets(home / "sets"),
            "volumes": lambda: volumes(home / "volumes", asked.trials, rng),
        }
        kept = RESULTS / "faults.json"
        found = json.loads(kept.read_text("utf-8"))["results"] if asked.parts else {}
        for name in asked.parts or parts:
            found[name] = parts[name]()
            print(json.dumps(found[name], indent=1), flush=True)
            document = {"trials": asked.trials, "kills": asked.kills, "results": found}
            write("faults", {"versions": {v: version(v) for v in VERSIONS}, **document})
        for reader in POOL.values():
            reader.close()


if __name__ == "__main__":
    main()
