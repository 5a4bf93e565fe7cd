"""What benchmarks share: the machine's description, alternated timing, bootstrap, writing JSON."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

RESULTS = Path(os.environ.get("BENCH_RESULTS", Path(__file__).with_name("results")))


def machine() -> dict[str, Any]:
    """Processor, cores, threads, load, versions: what a number depends on."""
    import torch

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = cpuinfo.read_text(encoding="utf-8").splitlines()
        model = next(
            (x.split(":", 1)[1].strip() for x in lines if x.startswith("model name")), model
        )
    found = {
        "processor": model,
        "cores": os.cpu_count(),
        "torch_threads": torch.get_num_threads(),
        "load_average": [round(x, 2) for x in os.getloadavg()],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": np.__version__,
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
    if found["cuda"]:
        words = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
        there = shutil.which(words[0]) is not None
        told = subprocess.run(words, capture_output=True, text=True) if there else None
        gigabytes = torch.cuda.get_device_properties(0).total_memory / 1e9
        found |= {
            "gpu_gb": round(gigabytes, 1),
            "driver": told.stdout.split("\n")[0] if told else None,
            "cuda_version": torch.version.cuda,
            "cudnn": torch.backends.cudnn.version(),
            "pretends": "PRETEND_CUDA" in os.environ,
        }
    return found


def gansynth(*words: str, quiet: bool = False) -> None:
    """Run gansynth as a user does; ``quiet``: it prints errors only."""
    line = [sys.executable, "-m", "gansynth_cli", *words, *(["-q"] if quiet else [])]
    subprocess.run(line, check=True, stdout=subprocess.DEVNULL if quiet else None)


def hooked(hook: str, folder: Path, **environ: str) -> dict[str, str]:
    """The environment of a Python that runs ``hook`` first, and so do those that it starts."""
    (folder / "sitecustomize.py").write_text(hook)
    path = os.pathsep.join((str(folder), os.environ.get("PYTHONPATH", "")))
    return {**os.environ, **environ, "PYTHONPATH": path}


def alternate(
    sides: Mapping[str, Callable[[], object]], rounds: int, warmup: int = 2
) -> dict[str, list[float]]:
    """Seconds of each side per round, the sides in turn and the order swapped every round.

    A side that returns a number has measured itself.
    """
    for _ in range(warmup):
        for run in sides.values():
            run()
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for index in range(rounds):
        names = list(sides) if index % 2 == 0 else list(reversed(sides))
        for name in names:
            began = time.perf_counter()
            own = sides[name]()
            spent = time.perf_counter() - began
            seconds[name].append(own if isinstance(own, float) else spent)
    return seconds


def training_step(
    generator: Any, batches: Callable[..., Any], steps: int, device: str = "cpu", **loop: Any
) -> Callable[[], float]:
    """A training of 2 x ``steps`` steps, in its last stage; seconds of a step of its second half.

    The loop's own clock: from one reading of the losses, which waits for a GPU, to another.
    """
    import torch

    from gansynth.training.checkpoint_manager import TrainingCallbacks
    from gansynth.training.loop import FitOptions, train

    never = {"sample_every": 10**9, "checkpoint_every": 10**9, "diversity": 0}
    own = {**never, "steps": 2 * steps, "log_every": steps, **loop}
    options, stages = FitOptions.model_validate(own), list(generator.stages())[-1:]

    def run() -> float:
        ticks: list[float] = []
        callbacks = TrainingCallbacks(metrics=lambda *_: ticks.append(time.perf_counter()))
        place = torch.device(device)
        train(generator, batches, options, device=place, callbacks=callbacks, stages=stages)
        return (ticks[1] - ticks[0]) / steps

    return run


def ratio(top: Sequence[float], bottom: Sequence[float], draws: int = 10_000) -> dict[str, float]:
    """Ratio of medians with a 95 % bootstrap interval over rounds (pairs are kept together)."""
    a, b = np.array(top), np.array(bottom)
    rng = np.random.default_rng(0)
    index = rng.integers(len(a), size=(draws, len(a)))
    spread = np.median(a[index], axis=1) / np.median(b[index], axis=1)
    low, high = np.percentile(spread, [2.5, 97.5])
    return {
        "ratio": float(np.median(a) / np.median(b)),
        "low": float(low),
        "high": float(high),
        "mean_ratio": float(a.mean() / b.mean()),
    }


def paired(top: Sequence[float], bottom: Sequence[float], draws: int = 10_000) -> dict[str, float]:
    """Geometric mean of ratios, pair by pair, with a 95 % bootstrap interval over the pairs.

    For few pairs of long blocks: what drifts is the same for both of a pair.
    """
    logs = np.log(np.array(top)) - np.log(np.array(bottom))
    rng = np.random.default_rng(0)
    spread = logs[rng.integers(len(logs), size=(draws, len(logs)))].mean(axis=1)
    low, high = np.exp(np.percentile(spread, [2.5, 97.5]))
    return {"ratio": float(np.exp(logs.mean())), "low": float(low), "high": float(high)}


def known_states(name: str) -> dict[str, Any]:
    """Return what ``results/NAME.json`` knows of the states of the code, by name."""
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return {}
    states: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))["states"]
    return states


def write(name: str, document: Mapping[str, Any]) -> Path:
    """Write ``results/NAME.json`` with the command and the machine."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    # Folders by their last name: where they lay on this machine is nobody's business.
    words = (re.sub(r"(?:^|(?<=[=:]))/\S*/", "", a) for a in sys.argv[1:])
    command = ["python", f"benchmarks/measure/{Path(sys.argv[0]).name}", *words]
    full = {
        "benchmark": name,
        "command": " ".join(command),
        "date": time.strftime("%Y-%m-%d"),
        "machine": machine(),
        **document,
    }
    path.write_text(json.dumps(full, indent=1) + "\n", encoding="utf-8")
    return path


def print_table(rows: Sequence[Sequence[object]]) -> None:
    """Print rows as aligned columns."""
    cells = [[f"{c:.4g}" if isinstance(c, float) else str(c) for c in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        print("  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip())
