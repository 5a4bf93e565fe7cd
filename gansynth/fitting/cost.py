"""What a fit would cost: a few real steps, measured; and what to change so that it fits a memory.

    python -m gansynth.fitting.cost < request.json

measures one candidate in a process of its own, whose memory is nobody else's.
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
from gansynth.fitting.previews import COLUMNS
from gansynth.fitting.scaling import timed
from gansynth.fitting.setup import Job, resolve
from gansynth.report.sheets import write_sheet
from gansynth.runtime.errors import FAULTS, EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.drawer import sampler_for
from gansynth.training.checkpoint_manager import Callbacks
from gansynth.training.loop import train

MEASURED_STEPS = 3
"""Steps that are timed, after one to warm up."""
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
STEPS_DOWN = (0.75, 0.5)
"""Edges of training crops that are tried, as shares of the space's own."""
SMALLEST_PATCH, SMALLEST_WIDTH = 32, 8
SPARED = 0.5
"""Share of a step's memory that gradient checkpointing is expected to leave."""


def parse_bytes(text: str) -> int:
    """Read ``16GB``, ``800MB``, ``12GiB``, ``5000000``; a UsageFault of anything else."""
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(i?)B?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise UsageFault(f"--fit-memory {text!r}: expected a size, for example 16GB or 800MiB")
    unit = match[2].upper()
    scale = 1024 ** "KMGT".index(unit) * 1024 if unit and match[3] else UNITS[unit]
    return int(float(match[1]) * scale)


def peak_mib(device: torch.device) -> int:
    """Most memory so far in MiB: of this process, or of the CUDA device by this process."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_reserved(device) / 2**20)
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10))


def resident_mib(device: torch.device) -> int:
    """What this process holds now in MiB, of the CPU's memory; 0 where that is not the question."""
    if device.type == "cuda":
        return 0
    import psutil

    return round(psutil.Process().memory_info().rss / 2**20)


# -- a dry run -------------------------------------------------------------------------------------


def measure(job: Job, out: Path, *, simulated: bool = True) -> dict[str, Any]:
    """What a fit into ``out`` would be: sizes, parameters, FLOPs, memory and time.

    Memory and FLOPs are simulated (``gansynth.fitting.cost_estimate``). A few real steps, a sheet
    and checkpoints are timed in a temporary folder (``gansynth.fitting.scaling``). ``simulated``
    False runs full-size steps whatever they take.
    """
    rng = np.random.default_rng(job.options.seed)
    job.generator.observe(job.observed(rng))
    before = peak_mib(job.device)
    resident = resident_mib(job.device)
    cost, told = forecast(job) if simulated and job.generator.phases() else (None, {})
    kept = max(0, resident_mib(job.device) - resident)  # by torch, that a fit will not load
    found = timed(job, cost, timed_at)
    began = time.perf_counter()
    job.source.records(job.source.train_ids[:1])
    loading = time.perf_counter() - began
    to_cache = 0 if job.device.type == "cuda" else round(job.cache.still_to_come() / 2**20)
    options = job.options
    last = options.steps if job.generator.phases() else 0
    seconds = {
        "reading": loading * len(job.source.train_ids),
        "steps": found.step * last,
        "checkpoints": found.saving * (last // options.checkpoint_every + 2),
        "sheets": found.drawing * (last // options.sample_every + 4),
    }
    predicted = told.get("memory_predicted_mib") if found.extrapolated else None
    return {
        "dry_run": True,
        "run": str(out),
        **job.config(),
        "train_cases": len(job.source.train_ids),
        "held_out_cases": len(job.source.held_out_ids),
        "device": str(job.device),
        "parameters": parameters(job.generator),
        **told,
        "seconds_per_step": round(found.step, 4),
        "time_from": found.source,
        "estimated_seconds": round(sum(seconds.values()), 1),
        "estimated_minutes": round(sum(seconds.values()) / 60, 2),
        "memory_mib": predicted or peak_mib(job.device) - kept + to_cache,
        "memory_before_mib": before,
    }


def timed_at(job: Job, stage: Stage | None = None) -> tuple[float, float, float]:
    """Seconds of a step, a checkpoint and a sheet, measured; no sheet in a stage but the last."""
    with tempfile.TemporaryDirectory() as folder:
        steps, saving = _timed_steps(job, Path(folder), stage)
        last = stage is None or stage.images is None
        drawing = _timed_sheet(job, Path(folder)) if last else 0.0
    return float(np.median(steps)), saving, drawing


def _timed_steps(job: Job, folder: Path, stage: Stage | None) -> tuple[list[float], float]:
    """Seconds of each step after the first, and of writing a checkpoint."""
    ticks: list[float] = []
    never = {"sample_every": 10**9, "checkpoint_every": 10**9}
    update = {"steps": MEASURED_STEPS + 1, "log_every": 1, **never}
    options = job.options.model_copy(update=update)
    callbacks = Callbacks(
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


def _timed_sheet(job: Job, folder: Path) -> float:
    began = time.perf_counter()
    sampler = sampler_for(
        job.generator, job.source, job.space, SampleRequest(edits=tuple(job.edits))
    )
    conditions = [sampler.draw(index) for index in range(COLUMNS)]
    samples = [job.generator.sample([c], [c.latent_seed])[0] for c in conditions]
    rng = np.random.default_rng(0)
    real = [job.crops.cut(job.source.train_ids[0], rng) for _ in samples]
    write_sheet(folder / "sheet.png", samples, real, job.generator.schema, title="")
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
    """Settings with which a fit stays within a memory, found by measuring.

    Tried in this order, the gentlest first, each in a process of its own: as asked; with gradient
    checkpointing; training crops of 3/4 and 1/2 of the edges; half and a quarter of the width.
    What the user has set stays as it is. A run that is there already keeps what it was begun with.
    ``memory`` is in bytes, of this process on a CPU, of the device on CUDA. Raises
    EnvironmentFault: nothing fits.
    """
    if (out / MANIFEST).exists():
        return {**settings, **_as_begun(out, settings)}
    job = resolve(generator, request, settings, edits, device)
    found = _measure_apart(generator, request, settings, edits, device)
    base, rise = found["memory_before_mib"], found["memory_mib"] - found["memory_before_mib"]
    budget = memory / 2**20
    tried = [f"as asked: {found['memory_mib']} MiB"]
    changes: dict[str, str] = {}
    if found["memory_mib"] > budget:
        for changes, share in _ladder(job, settings):
            if base + share * rise > 1.2 * budget:
                continue
            found = _measure_apart(generator, request, {**settings, **changes}, edits, device)
            named = " ".join(f"{k}={v}" for k, v in changes.items())
            tried.append(f"{named}: {found['memory_mib']} MiB")
            if found["memory_mib"] <= budget:
                break
        else:
            raise EnvironmentFault(
                f"--fit-memory: nothing fits {budget:.0f} MiB ({'; '.join(tried)}), of which "
                f"{base} MiB are needed before the first step; expected more memory, or a smaller "
                "data set, --set batch_size=1 or another --device"
            )
    reporter.say(f"--fit-memory: {'; '.join(tried)}; the last is taken")
    return {**settings, **changes}


def _ladder(job: Job, settings: Mapping[str, str]) -> Iterator[tuple[dict[str, str], float]]:
    """Ever stronger changes, each with the share of memory it is expected to leave."""
    changes: dict[str, str] = {}
    options, share = job.generator.options, 1.0
    if getattr(options, "checkpointing", None) is False and "checkpointing" not in settings:
        changes, share = {"checkpointing": "true"}, SPARED
        yield changes, share
    if "patch" not in settings and job.space.grid in ("crop", "slice"):
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
    """What an earlier choice has set for the run that is there."""
    config = read_manifest(out)["config"]
    known = {**config["fit"], **config["options"]}
    keys = [k for k in ("patch", "checkpointing", "width", "d_width") if known.get(k) is not None]
    return {k: json.dumps(known[k]) for k in keys if k not in settings}


def _measure_apart(
    generator: str,
    request: SourceRequest,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str,
) -> dict[str, Any]:
    """Measure in a process of its own."""
    asked = [generator, request.to_json(), dict(settings), edits, device]
    done = subprocess.run(
        [sys.executable, "-m", "gansynth.fitting.cost"],
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=False,
    )
    last = (done.stdout.splitlines() or [""])[-1]
    if done.returncode == 0:
        found: dict[str, Any] = json.loads(last)
        return found
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
