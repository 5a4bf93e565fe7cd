"""Seconds of a fit's steps: measured if that is cheap, else extrapolated from smaller crops.

A step's FLOPs are known beforehand (``gansynth.fitting.cost_estimate``). A full-size step may not
fit the free memory, or may take long. Then steps on ever larger crops are timed, and their FLOPs
per second are assumed for a full-size step. Small crops use a device less fully, so extrapolated
times are rather too long than too short.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch

from gansynth.core.generator import Stage
from gansynth.data.batches import CaseBatches
from gansynth.fitting.cost_estimate import Cost, estimate, mib, stretches
from gansynth.fitting.setup import FitJob
from gansynth.runtime.errors import EnvironmentFault

SOON = 2e10
"""Most FLOPs of a step that is always run."""
PATIENCE = 5.0
"""Most seconds of a step that is measured at full size."""
SPARING = 0.7
"""Share of the free memory that a simulated step may need, as kernels need more."""
SHARES = (1 / 8, 1 / 4, 1 / 2)
"""Edges of the smaller crops, as shares of the full size."""
MOST_TIMED = 64
"""Real cases of a timed step that is smaller than the full one."""
MULTIPLE, SMALLEST_EDGE = 8, 16
"""Voxels: edges are multiples of the first, and at least the second (or the full edge)."""

Measured = Callable[[FitJob, Stage | None], tuple[float, float, float]]
"""Seconds of a job's step (in a stage, None: the first), of a checkpoint and a preview grid."""


@dataclass(frozen=True)
class StepTimes:
    """Seconds of an optimiser step, a checkpoint and a preview grid, and their origin."""

    step: float
    saving: float
    drawing: float
    source: str = "measured"  # or ``extrapolated from 16x64x64``
    extrapolated: bool = False  # whether no full-size step was run


def timed(job: FitJob, cost: Cost | None, measured: Measured) -> StepTimes:
    """Time a job's steps, or smaller ones; without ``cost``, full-size steps are run.

    Raises:
        EnvironmentFault: neither the steps nor any smaller ones can be run here.
    """
    if len(job.generator.stages()) > 1:
        return _staged(job, cost, measured)
    free = SPARING * free_bytes(job.device)
    if cost is None or (cost.flops <= SOON and cost.peak <= free):
        return StepTimes(*measured(job, None))
    basis: StepTimes | None = None
    rate = 0.0
    for small in _smaller(job):
        try:
            small_cost = estimate(small)
            if small_cost.peak > free or (basis is not None and small_cost.flops > PATIENCE * rate):
                break
            step, saving, drawing = measured(small, None)
        except Exception:  # a generator that cannot be so small
            continue
        rate = small_cost.flops / step
        source = f"extrapolated from {_named(small, job)}"
        voxels = float(np.prod(job.space.size) / np.prod(small.space.size))
        basis = StepTimes(cost.flops / rate, saving, drawing * voxels, source, True)
    if cost.peak <= free and (basis is None or basis.step <= PATIENCE):
        return StepTimes(*measured(job, None))
    if basis is None:
        raise EnvironmentFault(
            f"dry run: a step needs about {mib(cost.peak)} MiB on {job.device}, where "
            f"{mib(free)} MiB may be used now. No smaller step of {job.generator.name} can be "
            "timed. Expected more memory, --set batch_size=1 or another --device"
        )
    return basis


def _staged(job: FitJob, cost: Cost | None, measured: Measured) -> StepTimes:
    free, rate = SPARING * free_bytes(job.device), 0.0
    seconds, whole = 0.0, 0
    saving = drawing = 0.0
    parts = stretches(job.options, list(job.generator.stages()))
    for number, stretch in enumerate(parts):
        flops, peak = (0.0, 0) if cost is None else cost.stages[number]
        size, most = stretch.batch_size, max(SOON, PATIENCE * rate) / len(parts)
        share = 1.0
        while rate and size > 1 and (share * flops > most or share * peak > free):
            size = math.ceil(size / 2)
            share = size / stretch.batch_size
        try:
            step, saving, drawing = measured(job, replace(stretch.stage, batch_size=size))
            step, whole = step / share, whole + (share == 1)
            rate = flops / step if step else 0.0
        except ValueError:  # a generator that does not take so small a batch
            if not rate:
                raise
            step = flops / rate
        seconds += step * max(1, stretch.steps)
    mean = seconds / max(1, sum(stretch.steps for stretch in parts))
    if whole == len(parts):
        return StepTimes(mean, saving, drawing, f"measured in each of {whole} stages")
    source = f"measured in {len(parts)} stages, in {len(parts) - whole} of them on smaller batches"
    return StepTimes(mean, saving, drawing, source, True)


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device; on the CPU within a container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    import psutil

    free = int(psutil.virtual_memory().available)
    try:
        limit, used = (
            Path(f"/sys/fs/cgroup/memory.{name}").read_text().strip() for name in ("max", "current")
        )
    except OSError:
        return free
    return min(free, int(limit) - int(used)) if limit.isdigit() else free


def refuse_low_memory(job: FitJob, processes: int) -> None:
    """Refuse (EnvironmentFault) batches that alone fill the memory, before the first is made."""
    size = job.options.patch or job.space.size
    sizes = [(stage.size or size, stage.batch_size) for stage in job.generator.stages()]
    voxels = max(math.prod(size) * (batch or job.options.batch_size) for size, batch in sizes)
    needed = 4 * voxels * (len(job.source.schema.channels) + 1) // processes
    free = free_bytes(torch.device("cpu"))
    if needed > free:
        raise EnvironmentFault(
            f"--set batch_size={job.options.batch_size}: a batch takes {mib(needed)} MiB, "
            f"{mib(free)} MiB of memory are free; expected a smaller batch or patch"
        )


def _smaller(job: FitJob) -> Iterator[FitJob]:
    """Yield jobs of the same generator on ever larger crops, then with one whole case a step."""
    before: tuple[int, ...] = ()
    if job.options.batch_size > MOST_TIMED:
        few = job.options.model_copy(update={"batch_size": MOST_TIMED, "accumulate": 1})
        job = replace(job, options=few)
    for share in SHARES:
        size = _shrunk(job.space.size, share)
        if size not in (before, job.space.size):
            before = size
            try:
                made = _of_size(job, size, share)
            except Exception:  # a generator that cannot be so small
                continue
            yield made
    if job.options.batch_size > 1:
        yield replace(
            job, options=job.options.model_copy(update={"batch_size": 1, "accumulate": 1})
        )


def _of_size(job: FitJob, size: tuple[int, ...], share: float) -> FitJob:
    original, options = job.generator, job.options
    space = replace(job.space, size=size)
    with torch.random.fork_rng(devices=[]):
        generator = type(original)(
            space.generator_schema(job.source.schema), size, original.options
        )
    generator.load_state(original.state())
    cut = partial(
        CaseBatches, job.cache, seed=options.seed, context=generator.context,
        accepts=generator.accepts,
    )  # fmt: skip
    crops = batches = cut(space)
    if options.patch is not None:
        patch = _shrunk(options.patch, share)
        options = options.model_copy(update={"patch": patch})
        batches = cut(replace(space, size=patch))
    changes = {"space": space, "generator": generator, "options": options}
    return replace(job, **changes, crops=crops, batches=batches)  # type: ignore[arg-type]


def _shrunk(size: tuple[int, ...], share: float) -> tuple[int, ...]:
    return tuple(min(n, max(SMALLEST_EDGE, round(n * share / MULTIPLE) * MULTIPLE)) for n in size)


def _named(small: FitJob, job: FitJob) -> str:
    size = "x".join(map(str, small.options.patch or small.space.size))
    return size if small.space.size != job.space.size else f"{size}, a batch of 1"
