"""Damaged files, read by gansynth and by what its users would read them with otherwise.

Rows 1 to 11, 20, 25 and 28 of the fault matrix. Each reader reads in a process of its own with
4 GiB of address space; no answer within a minute is a hang. What is not refused is compared with
what the same reader made of the undamaged file.

    python benchmarks/bench_faults.py [--trials 60] [--kills 20]
"""

from __future__ import annotations

import argparse
import gzip
import hashlib
import json
import os
import pickle
import random
import resource
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 60
LIMIT = 4 << 30
"""Bytes of address space of a reader, beyond which it is out of memory."""
BOMB = (2048, 2048, 1024)
SHAPE = (64, 64, 32)
CANARY = "canary"


# -- readers ---------------------------------------------------------------------------------------


def gansynth_nifti(file: Path) -> Any:
    from gansynth.runtime.nifti import read_nifti

    return read_nifti(file).array


def simpleitk(file: Path) -> Any:
    from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO

    return SimpleITKIO().read_images([str(file)])[0]


def nibabel(file: Path) -> Any:
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

    return NibabelIO().read_images([str(file)])[0]


def monai(file: Path) -> Any:
    from monai.transforms import LoadImage

    return LoadImage(image_only=True)(file)


def torchio(file: Path) -> Any:
    from torchio import ScalarImage

    return ScalarImage(file).data


def gansynth_b2nd(file: Path) -> Any:
    from gansynth_nnunet.cases import PreprocessedArrays

    return PreprocessedArrays(file.parent, "preprocess again").read(file.name)


def nnunet_b2nd(file: Path) -> Any:
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    return nnUNetDatasetBlosc2(str(file.parent), [file.stem]).load_case(file.stem)[0][:]


def gansynth_weights(file: Path) -> Any:
    from gansynth.training.checkpoint import load_tensors

    return load_tensors(file, file.with_suffix(".sha256").read_text())["w"]


def safetensors(file: Path) -> Any:
    from safetensors.torch import load_file

    return load_file(file)["w"]


def torch_load(file: Path) -> Any:
    import torch

    return torch.load(file)["w"]


def nnunet_load(file: Path) -> Any:
    """As ``nnUNetTrainer.load_checkpoint`` of nnU-Net 2.8.1, and its predictor."""
    import torch

    return torch.load(file, map_location="cpu", weights_only=False)["w"]


def monai_numpy(file: Path) -> Any:
    from monai.transforms import LoadImage

    return LoadImage(image_only=True)(file)


def numpy_load(file: Path) -> Any:
    return np.load(file)


def gansynth_set(folder: Path) -> Any:
    from gansynth.core.registry import installed
    from gansynth.core.source import SourceRequest

    request = SourceRequest("nnunet", "501", root=str(folder))
    report = installed().check("nnunet")(request, lambda done, of: None)
    if report.findings:
        raise ValueError(report.findings[0].message)
    return np.zeros(1)


def nnunet_set(folder: Path) -> Any:
    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    verify_dataset_integrity(str(folder / "nnUNet_raw" / "Dataset501_Toy"), 1)
    return np.zeros(1)


NIFTI = {
    "gansynth": gansynth_nifti,
    "nnU-Net, SimpleITK": simpleitk,
    "nnU-Net, nibabel": nibabel,
    "MONAI": monai,
    "TorchIO": torchio,
}
READERS: dict[str, Callable[[Path], Any]] = {
    **NIFTI,
    "gansynth .b2nd": gansynth_b2nd,
    "nnU-Net .b2nd": nnunet_b2nd,
    "gansynth weights": gansynth_weights,
    "safetensors": safetensors,
    "torch.load": torch_load,
    "nnU-Net checkpoint": nnunet_load,
    "MONAI .npy": monai_numpy,
    "numpy .npy": numpy_load,
    "gansynth check": gansynth_set,
    "nnU-Net verify": nnunet_set,
}


def answer(name: str, file: Path) -> dict[str, Any]:
    """Read a file; return the hash of its values, or the error."""
    try:
        values = np.ascontiguousarray(np.asarray(READERS[name](file)))
    except MemoryError:
        return {"how": "out of memory"}
    except BaseException as error:
        words = " ".join(str(error).replace(f"{file.parent}/", "").split())[:160]
        memory = "lloc" in words and "memory" in words.lower()
        return {"how": "out of memory" if memory else "detected", "words": words}
    digest = hashlib.sha256(values.tobytes() + str(values.shape).encode()).hexdigest()
    return {"how": "read", "sha256": digest}


def child(name: str) -> None:
    """Answer each path on stdin with a line of JSON."""
    out = os.fdopen(os.dup(1), "w", buffering=1)
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    resource.setrlimit(resource.RLIMIT_AS, (LIMIT, LIMIT))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for line in sys.stdin:
        found = answer(name, Path(line.strip()))
        with open("/proc/self/status", encoding="ascii") as status:
            peak = next(x for x in status if x.startswith("VmHWM"))
        print(json.dumps({**found, "mib": int(peak.split()[1]) >> 10}), file=out)


class Reader:
    """A reader's process, started again after each that ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[str] | None = None

    def read(self, file: Path, patience: float = SECONDS) -> dict[str, Any]:
        if self.process is None:
            words = [sys.executable, __file__, "--child", self.name]
            pipe = subprocess.PIPE
            environment = {**os.environ, "OMP_NUM_THREADS": "1"}
            self.process = subprocess.Popen(
                words, stdin=pipe, stdout=pipe, text=True, bufsize=1, env=environment
            )
        stdin, stdout = self.process.stdin, self.process.stdout
        assert stdin is not None
        assert stdout is not None
        print(file, file=stdin, flush=True)
        began = time.monotonic()
        ready, _, _ = select.select([stdout], [], [], patience)
        if not ready:
            self.close()
            return {"how": "hang"}
        line = stdout.readline()
        if not line:
            code = self.process.wait()
            self.close()
            return {"how": "crash", "words": f"ended by {code}"}
        return {**json.loads(line), "seconds": round(time.monotonic() - began, 2)}

    def close(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.communicate()
            self.process = None


def compare(
    readers: list[str], good: Path, bad: list[Path], *, harmless: bool = True, alone: bool = False
) -> dict[str, Any]:
    """Count what each reader makes of damaged files.

    Args:
        harmless: values equal to the undamaged file's are no harm.
        alone: each file is read by a new process, whose memory counts.
    """
    found = {}
    for name in readers:
        reader = Reader(name)
        counts: Counter[str] = Counter()
        most, words = 0, ""
        for file in bad:
            if alone:
                reader.close()
            if reader.process is None:  # what it imports must not count as a hang
                truth = reader.read(good, patience=300)
                if truth["how"] != "read":
                    raise RuntimeError(f"{name} does not read {good}: {truth}")
            one = reader.read(file)
            how = one["how"]
            if how == "read":
                same = harmless and one["sha256"] == truth["sha256"]
                how = "unharmed" if same else "silently wrong"
            counts[how] += 1
            most = max(most, one.get("mib", 0) - truth["mib"])
            words = words or one.get("words", "")
        reader.close()
        found[name] = {**counts, "mib": most, "words": words}
    return found


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
    rows["4 header of 32767^3 voxels"] = compare(readers, plain, [huge], alone=True)
    rows["5 gzip bomb of 4 GiB"] = compare(readers, plain, [bomb(home)], alone=True)
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
    with gzip.open(path, "wb", compresslevel=9) as stream:
        stream.write(small.read_bytes()[:352])
        for _ in range(BOMB[2]):
            stream.write(bytes(BOMB[0] * BOMB[1]))
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
        *(places["arrays"] / "x.b2nd", places["weights"] / "x.safetensors"),
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
    for name, write in {"gansynth": gansynth_writer, "nnU-Net": nnunet_writer}.items():
        counts: Counter[str] = Counter()
        for trial in range(trials):
            folder = home / f"{name}{trial}"
            folder.mkdir(parents=True)
            pid = os.fork()
            if not pid:
                write(folder, values)
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
    from common import write

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=60)
    parser.add_argument("--kills", type=int, default=20)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="gansynth-faults-") as folder:
        home, rng = Path(folder), random.Random(0)
        parts = {
            "kills": lambda: kills(home / "kills", asked.kills, rng),
            "arrays and weights": lambda: arrays_and_weights(home / "more", asked.trials, rng),
            "data sets": lambda: data_sets(home / "sets"),
            "volumes": lambda: volumes(home / "volumes", asked.trials, rng),
        }
        found = {}
        for name, measure in parts.items():
            found[name] = measure()
            print(json.dumps(found[name], indent=1), flush=True)
    versions = {"nnunetv2", "SimpleITK", "nibabel", "monai", "torchio", "blosc2", "safetensors"}
    from importlib.metadata import version

    document = {"trials": asked.trials, "kills": asked.kills, "results": found}
    write("faults", {"versions": {v: version(v) for v in sorted(versions)}, **document})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        child(sys.argv[2])
    else:
        main()
