"""What ``bench_faults.py`` reads damaged files with, each in a process of its own."""

from __future__ import annotations

import hashlib
import json
import os
import resource
import select
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

SECONDS = 60
LIMIT = 4 << 30
"""Bytes of address space of a reader, beyond which it is out of memory."""


# -- readers ---------------------------------------------------------------------------------------


def gansynth_nifti(file: Path) -> Any:
    from gansynth.core.volumes import read_volume

    return read_volume(file).array


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
    import multiprocessing
    from multiprocessing.pool import ThreadPool
    from types import SimpleNamespace

    from nnunetv2.experiment_planning.verify_dataset_integrity import verify_dataset_integrity

    threads: Any = SimpleNamespace(Pool=ThreadPool)  # each process would import torch for seconds
    multiprocessing.get_context = lambda method=None: threads
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
        Path("/proc/self/clear_refs").write_text("5")  # the highest memory counts from here
        before = memory()
        found = answer(name, Path(line.strip()))
        print(json.dumps({**found, "mib": memory() - before}), file=out)


def memory() -> int:
    """Return the highest memory of this process in MiB."""
    status = Path("/proc/self/status").read_text("ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) >> 10


class Reader:
    """A reader's process, started again after each that ends."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.process: subprocess.Popen[str] | None = None

    def read(self, file: Path, patience: float = SECONDS) -> dict[str, Any]:
        if self.process is None:
            words = [sys.executable, __file__, self.name]
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


POOL: dict[str, Reader] = {}
"""Readers' processes, which read one file after the other."""


def compare(readers: list[str], good: Path, bad: list[Path], *, harmless: bool = True) -> Any:
    """Count what each reader makes of damaged files.

    Args:
        harmless: values equal to the undamaged file's are no harm.
    """
    found = {}
    for name in readers:
        reader = POOL.setdefault(name, Reader(name))
        counts: Counter[str] = Counter()
        most, words, truth = 0, "", {}
        for file in bad:
            if not truth or reader.process is None:  # what it imports must not count as a hang
                truth = reader.read(good, patience=300)
                if truth["how"] != "read":
                    raise RuntimeError(f"{name} does not read {good}: {truth}")
            one = reader.read(file)
            how = one["how"]
            if how == "read":
                same = harmless and one["sha256"] == truth["sha256"]
                how = "unharmed" if same else "silently wrong"
            counts[how] += 1
            most = max(most, one.get("mib", 0))
            words = words or one.get("words", "")
        found[name] = {**counts, "mib": most, "words": words}
    return found


if __name__ == "__main__":
    child(sys.argv[1])
