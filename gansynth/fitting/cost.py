"""Cost of a fit, measured by a few real steps, and settings that fit a given memory.

    python -m gansynth.fitting.cost < request.json

measures one candidate in its own process, so that its memory is not shared.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gansynth.core.generator import Stage
from gansynth.core.run_folder import MANIFEST, read_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.fitting.cost_estimate import forecast, parameters
from gansynth.fitting.sample_grids import COLUMNS
from gansynth.fitting.setup import FitJob, resolve
from gansynth.fitting.step_times import timed
from gansynth.report.image_grid import write_sample_grid
from gansynth.runtime.errors import FAULTS, EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.sampler import sampler_for
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loop import train

MEASURED_STEPS = 3
"""Timed steps, after one to warm up."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
STEPS_DOWN = (0.75, 0.5)
"""Edges of training crops to try, as shares of the space's edges."""
SMALLEST_PATCH, SMALLEST_WIDTH = 32, 8
SPARED = 0.5
"""Expected share of a step's memory with gradient checkpointing."""


def parse_bytes(text: str) -> int:
    """Parse ``16GB``, ``800MB``, ``12GiB``, ``5000000``. Raises UsageFault: anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise UsageFault(f"--fit-memory {text!r}: expected a size, for example 16GB or 800MiB")
    unit = match[2].upper()
    scale = 1024 ** "KMGT".index(unit) * 1024 if unit and match[3] else UNITS[unit]
    return int(float(match[1]) * scale)


def peak_mib(device: torch.device) -> int:
    """Return the peak memory in MiB of this process, on the CPU or the CUDA device."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_reserved(device) / 2**20)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def resident_mib(device: torch.device) -> int:
    """Return the current CPU memory of this process in MiB; 0 for a CUDA device."""
    if device.type == "cuda":
        return 0
    import psutil

    return round(psutil.Process().memory_info().rss / 2**20)


# -- a dry run -------------------------------------------------------------------------------------


def measure(job: FitJob, out: Path, *, simulated: bool = True) -> dict[str, Any]:
    """Return the cost of a fit into ``out``: sizes, parameters, FLOPs, memory and time.

    Memory and FLOPs are simulated (``gansynth.fitting.cost_estimate``). A few real steps, a preview
    grid and checkpoints are timed in a temporary folder (``gansynth.fitting.step_times``).
    ``simulated`` False always runs full-size steps.
    """
    rng = np.random.default_rng(job.options.seed)
    job.generator.observe(job.observed(rng))
    before = peak_mib(job.device)
    resident = resident_mib(job.device)
    cost, figures = forecast(job) if simulated and job.trains else (None, {})
    cached = max(0, resident_mib(job.device) - resident)  # by torch for the simulation only
    timing = timed(job, cost, timed_at)
    began = time.perf_counter()
    job.source.records(job.source.train_ids[:1])
    loading = time.perf_counter() - began
    to_cache = 0 if job.device.type == "cuda" else round(job.cache.still_to_come() / 2**20)
    options, last = job.options, job.options.steps
    seconds = {
        "reading": loading * len(job.source.train_ids),
        "steps": timing.step * last,
        "checkpoints": timing.saving * (last // options.checkpoint_every + 2),
        "sheets": timing.drawing * (last // options.sample_every + 4),
    }
    predicted = figures.get("memory_predicted_mib") if timing.extrapolated else None
    return {
        "dry_run": True,
        "run": str(out),
        **job.config(),
        "train_cases": len(job.source.train_ids),
        "held_out_cases": len(job.source.held_out_ids),
        "device": str(job.device),
        "parameters": parameters(job.generator),
        **figures,
        "seconds_per_step": round(timing.step, 4) if job.trains else None,
        "time_from": timing.source,
        "estimated_seconds": round(sum(seconds.values()), 1),
        "estimated_minutes": round(sum(seconds.values()) / 60, 2),
        "memory_mib": predicted or peak_mib(job.device) - cached + to_cache,
        "memory_before_mib": before,
    }


def timed_at(job: FitJob, stage: Stage | None = None) -> tuple[float, float, float]:
    """Measure seconds of a step, a checkpoint and, in the last stage, a preview grid."""
    with tempfile.TemporaryDirectory() as folder:
        steps, saving = _timed_steps(job, Path(folder), stage)
        last = stage is None or stage.images is None
        drawing = _timed_sheet(job, Path(folder)) if last else 0.0
    return float(np.median(steps)), saving, drawing


def _timed_steps(job: FitJob, folder: Path, stage: Stage | None) -> tuple[list[float], float]:
    ticks: list[float] = []
    never = {"sample_every": 10**9, "checkpoint_every": 10**9}
    update = {"steps": MEASURED_STEPS + 1, "log_every": 1, **never}
    options = job.options.model_copy(update=update)
    callbacks = TrainingCallbacks(
        metrics=lambda step, values: ticks.append(time.perf_counter()),
        checkpoint=lambda path, step: ticks.append(time.perf_counter()),
    )
    train(
        job.generator, job.batches, options, device=job.device, folder=folder, callbacks=callbacks,
        stages=None if stage is None else [replace(stage, images=None)],
    )  # fmt: skip
    if len(ticks) < 3:  # nothing to train
        return [0.0], 0.0
    *steps, saving = np.diff(ticks).tolist()
    return steps, saving


def _timed_sheet(job: FitJob, folder: Path) -> float:
    began = time.perf_counter()
    sampler = sampler_for(
        job.generator, job.source, job.space, SampleRequest(edits=tuple(job.edits))
    )
    conditions = [sampler.draw(index) for index in range(COLUMNS)]
    samples = [job.generator.sample([c], [c.latent_seed])[0] for c in conditions]
    rng = np.random.default_rng(0)
    real = [job.crops.cut(job.source.train_ids[0], rng) for _ in samples]
    write_sample_grid(folder / "sheet.png", samples, real, job.generator.schema, title="")
    return time.perf_counter() - began


# -- to fit a memory -------------------------------------------------------------------------------


def fit_into(
    generator: str,
    request: SourceRequest,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str,
    memory: int,
    out: Path,
    reporter: Reporter,
) -> dict[str, str]:
    """Find settings with which a fit stays within a memory, by measuring.

    Candidates in this order, each in its own process: as given; with gradient checkpointing;
    training crops of 3/4 and 1/2 of the edges; half and a quarter of the width. Settings of the
    user are not changed. An existing run keeps its settings. ``memory``: bytes, of this process on
    a CPU, of the device on CUDA. Raises EnvironmentFault: nothing fits.
    """
    if (out / MANIFEST).exists():
        return {**settings, **_as_begun(out, settings)}
    job = resolve(generator, request, settings, edits, device)
    measured = _measure_apart(generator, request, settings, edits, device)
    base, rise = (
        measured["memory_before_mib"],
        measured["memory_mib"] - measured["memory_before_mib"],
    )
    budget = memory / 2**20
    attempts = [f"as asked: {measured['memory_mib']} MiB"]
    changes: dict[str, str] = {}
    if measured["memory_mib"] > budget:
        for changes, share in _ladder(job, settings):
            if base + share * rise > 1.2 * budget:
                continue
            measured = _measure_apart(generator, request, {**settings, **changes}, edits, device)
            named = " ".join(f"{k}={v}" for k, v in changes.items())
            attempts.append(f"{named}: {measured['memory_mib']} MiB")
            if measured["memory_mib"] <= budget:
                break
        else:
            raise EnvironmentFault(
                f"--fit-memory: nothing fits {budget:.0f} MiB ({'; '.join(attempts)}). {base} MiB "
                "are needed before the first step. Expected more memory, or a smaller data set, "
                "--set batch_size=1 or another --device"
            )
    reporter.say(f"--fit-memory: {'; '.join(attempts)}; the last is taken")
    return {**settings, **changes}


def _ladder(job: FitJob, settings: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
    """Yield ever stronger changes, each with its expected share of memory."""
    changes: dict[str, str] = {}
    options, share = job.generator.options, 1.0
    if getattr(options, "checkpointing", None) is False and "checkpointing" not in settings:
        changes, share = {"checkpointing": "true"}, SPARED
        yield changes, share
    if job.trains and "patch" not in settings and job.space.grid in ("crop", "slice"):
        whole = share
        for step in STEPS_DOWN:
            patch = [max(min(n, SMALLEST_PATCH), round(n * step / 8) * 8) for n in job.space.size]
            share = whole * float(np.prod(patch) / np.prod(job.space.size))
            changes = {**changes, "patch": str(patch)}
            yield changes, share
    widths = [k for k in ("width", "d_width") if hasattr(options, k) and k not in settings]
    for divisor in (2, 4):
        narrow = {k: max(SMALLEST_WIDTH, int(getattr(options, k)) // divisor) for k in widths}
        if narrow:
            yield {**changes, **{k: str(v) for k, v in narrow.items()}}, share / divisor


def _as_begun(out: Path, settings: Mapping[str, str]) -> dict[str, str]:
    config = read_manifest(out)["config"]
    options = {**config["fit"], **config["options"]}
    keys = [k for k in ("patch", "checkpointing", "width", "d_width") if options.get(k) is not None]
    return {k: json.dumps(options[k]) for k in keys if k not in settings}


def _measure_apart(
    generator: str,
    request: SourceRequest,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str,
) -> dict[str, Any]:
    arguments = [generator, request.to_json(), dict(settings), edits, device]
    done = subprocess.run(
        [sys.executable, "-m", "gansynth.fitting.cost"],
        input=json.dumps(arguments),
        capture_output=True,
        text=True,
        check=False,
    )
    last = (done.stdout.splitlines() or [""])[-1]
    if done.returncode == 0:
        report: dict[str, Any] = json.loads(last)
        return report
    if done.returncode in FAULTS and last:
        raise FAULTS[done.returncode](last)
    if "OutOfMemory" in done.stderr or "MemoryError" in done.stderr or done.returncode == -9:
        return {"memory_mib": 2**40, "memory_before_mib": 0}
    raise EnvironmentFault(
        f"--fit-memory: measuring ended with code {done.returncode}: "
        f"{(done.stderr.splitlines() or ['nothing'])[-1]}; leave --fit-memory out"
    )


def _main() -> int:
    generator, request, settings, edits, device = json.load(sys.stdin)
    try:
        job = resolve(generator, SourceRequest(**request), settings, edits, device)
        answer, code = json.dumps(measure(job, Path("-"), simulated=False)), 0
    except GansynthError as fault:
        answer, code = str(fault), fault.exit_code
    sys.stdout.write(f"{answer}\n")
    return code


if __name__ == "__main__":
    sys.exit(_main())
