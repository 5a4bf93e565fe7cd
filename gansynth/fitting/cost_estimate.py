"""Memory and FLOPs of training steps, without running one.

The steps are those of ``gansynth.training.loop.train``, on fake tensors
(``gansynth.fitting.fake_tensors``). Memory is what a CUDA device holds at the peak of a step. It
includes weights, gradients, optimiser state, averages, the batch and activations, each rounded up
as by torch's allocator. Not counted: the CUDA context and libraries (hundreds of MiB per process),
cuDNN's workspaces, gaps between blocks of the allocator, and preview grids.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from gansynth.core.generator import Batch, Generator, Phase, Stage, TrainingStep
from gansynth.fitting.fake_tensors import CountingMode, FakeCountingMode, autocast_of_cuda
from gansynth.fitting.setup import FitJob
from gansynth.runtime.devices import resolve
from gansynth.runtime.distributed import ProcessGroup
from gansynth.training.loop import Batches, FitOptions, backward
from gansynth.training.state import TrainingState

LONGEST_PERIOD = 10_000
"""Most steps to search for kinds of steps (players take turns, penalties are lazy)."""


@dataclass(frozen=True)
class Cost:
    """Cost of a fit's steps."""

    flops: float  # of the mean optimiser step
    total: float  # FLOPs of all steps
    peak: int  # most bytes at once
    stages: tuple[tuple[float, int], ...] = ()  # of each of ``stretches``: mean FLOPs, most bytes


@dataclass(frozen=True)
class StageCost:
    """Steps of one stage."""

    stage: Stage
    first: int  # number of the first step
    images: int  # real images shown before it
    steps: int  # how many
    batch_size: int  # real cases a step


def forecast(job: FitJob) -> tuple[Cost | None, dict[str, Any]]:
    """Return the cost of a job's steps, and a report: FLOPs, memory, memory by variant.

    A generator whose steps cannot be simulated (e.g. they depend on values) has no cost, and the
    report has the reason.
    """
    try:
        cost = estimate(job)
        rows = variants(job, cost)
    except Exception as error:  # of any kind: a dry run must not fail because of it
        why = f"a step cannot be simulated: {type(error).__name__}: {' '.join(str(error).split())}"
        return None, {"memory_predicted_mib": None, "why": why}
    return cost, {
        "flops_per_step": cost.flops,
        "flops_total": cost.total,
        "memory_predicted_mib": mib(cost.peak),
        "memory_variants": rows,
    }


def estimate(job: FitJob) -> Cost:
    """Return the cost of a job's steps with its settings."""
    return _cost(job, job.generator.options, resolve(job.options.precision, job.device) != "fp32")


def variants(job: FitJob, cost_as_set: Cost) -> list[dict[str, Any]]:
    """Return memory (MiB) and FLOPs a step by precision, and by ``checkpointing`` if available.

    A variant that cannot be simulated has None for both. ``cost_as_set``: cost of the job with its
    own settings, which is not simulated again.
    """
    options = job.generator.options
    checkpointing = getattr(options, "checkpointing", None)
    precise = resolve(job.options.precision, job.device)
    rows: list[dict[str, Any]] = []
    for precision in (precise if precise != "fp32" else "bf16", "fp32"):
        for keep in (None,) if checkpointing is None else (False, True):
            same = keep == checkpointing and precision == precise
            variant = (
                options if keep is None else options.model_copy(update={"checkpointing": keep})
            )
            cost: Cost | None
            try:
                cost = cost_as_set if same else _cost(job, variant, precision != "fp32")
            except Exception:  # a failing variant does not affect the others
                cost = None
            row = {"precision": precision, "checkpointing": keep, "asked": same}
            memory, flops = (None, None) if cost is None else (mib(cost.peak), cost.flops)
            rows.append({**row, "memory_mib": memory, "flops_per_step": flops})
    return rows


def mib(size: float) -> int:
    """Convert bytes to MiB, rounded up."""
    return math.ceil(size / 2**20)


def _cost(job: FitJob, options: Any, half: bool) -> Cost:
    original = job.generator
    with torch.random.fork_rng(devices=[]):
        generator = type(original)(original.schema, original.size, options)
    generator.load_state(original.state())
    return fake_batch(generator, job.batches, job.options, half)


def fake_batch(generator: Generator, batches: Batches, options: FitOptions, half: bool) -> Cost:
    """Run ``simulate`` on fake tensors; the generator cannot be used afterwards."""
    watched = FakeCountingMode()
    with torch.random.fork_rng(devices=[]):
        watched.take(*generator.nets.values())
        return simulate_steps(generator, batches, options, watched, half)


@autocast_of_cuda()
def simulate_steps(
    generator: Generator, batches: Batches, options: FitOptions, watched: CountingMode, half: bool
) -> Cost:
    """Run one step of each kind of a fit, after one to warm up, and count.

    The generator is on the watched device, and is trained. One batch per stage is read, for its
    shape. With ``FakeCountingMode``, nothing is computed. ``half``: bf16 autocast, on the CPU as on
    CUDA (fp16 needs the same).
    """
    with watched:
        training_state = TrainingState.of(generator, torch.amp.GradScaler(enabled=False))
    _as_on_cuda(training_state)
    watched.hold(training_state.every_tensor())
    total, steps = 0.0, 0
    each: list[tuple[float, int]] = []
    for stretch in stretches(options, list(generator.stages())):
        batch = batches(stretch.first, stretch.stage, range(1))
        each.append(_mean_step(generator, batch, training_state, options, watched, half, stretch))
        total, steps = total + each[-1][0] * stretch.steps, steps + stretch.steps
    return Cost(total / max(1, steps), total, max(peak for _, peak in each), tuple(each))


def stretches(options: FitOptions, stages: Sequence[Stage]) -> list[StageCost]:
    """Divide the steps of a fit into stages; a fit of no steps has the last stage only."""
    result: list[StageCost] = []
    first, images, until = 0, 0, 0.0
    for stage in stages:
        last = stage is stages[-1] or stage.images is None
        until = math.inf if last else until + (stage.images or 0)
        size = stage.batch_size or options.batch_size
        left = options.steps - first
        steps = left if last else min(left, max(0, math.ceil((until - images) / size)))
        if steps or (last and not result):
            result.append(StageCost(stage, first, images, steps, size))
        first, images = first + steps, images + steps * size
        if last:
            break
    return result


def kinds(phases: Sequence[Phase], first: int, steps: int) -> list[tuple[int, float]]:
    """Return a step of each kind, by the phases that are due, and the share of such steps."""
    period = min(math.lcm(*(phase.interval for phase in phases)), LONGEST_PERIOD, max(steps, 1))
    steps_by_phases: dict[tuple[bool, ...], list[int]] = {}
    for index in range(first, first + period):
        steps_by_phases.setdefault(tuple(phase.due(index) for phase in phases), []).append(index)
    return [(indices[0], len(indices) / period) for indices in steps_by_phases.values()]


def parameters(generator: Generator) -> dict[str, int]:
    """Return the number of parameters by network."""
    return {k: sum(p.numel() for p in net.parameters()) for k, net in generator.nets.items()}


def _as_on_cuda(training_state: TrainingState) -> None:
    """Set ``foreach`` where an optimiser leaves it to torch, as on CUDA."""
    for optimizer in training_state.optimizers.values():
        for group in optimizer.param_groups:
            if "foreach" in group and group["foreach"] is None and not group.get("fused"):
                group["foreach"] = True


def _mean_step(
    generator: Generator,
    batch: Batch,
    training_state: TrainingState,
    options: FitOptions,
    watched: CountingMode,
    half: bool,
    stretch: StageCost,
) -> tuple[float, int]:
    stage, total = stretch.stage, stretch.batch_size
    rng, phases = torch.Generator(watched.device), generator.phases()
    parts = _parts(batch, total // options.accumulate, options.accumulate, watched)
    scaler, kind = torch.amp.GradScaler(enabled=False), watched.device.type
    dtype = torch.bfloat16 if half else None
    shares: list[TrainingStep] = []

    def take(index: int) -> None:
        nonlocal shares
        which = ProcessGroup().shares(total, options.accumulate)
        shares = [
            TrainingStep(
                generator.prepare(part, stage), stage, index, stretch.images,
                alpha=0.5 if stage.fade else 1.0, rng=rng.manual_seed(0), key=index,
                first=numbers.start, total=total,
            )
            for part, numbers in zip(parts, which, strict=True)
        ]  # fmt: skip
        for phase in (phase for phase in phases if phase.due(index)):
            backward(generator, phase, shares, training_state, scaler, kind, dtype)
            if options.clip_norm:
                nn.utils.clip_grad_norm_(training_state.parameters(phase.player), options.clip_norm)
            training_state.optimizers[phase.player].step()
            if phase.after is not None:
                phase.after()
        training_state.average(0.5)

    step_kinds = kinds(phases, stretch.first, stretch.steps)
    flops, peak = 0.0, 0
    with watched:
        for index, _ in step_kinds:  # to warm up
            take(index)
        for index, share in step_kinds:
            watched.begin()
            take(index)
            flops, peak = flops + share * watched.flops, max(peak, watched.peak)
    return flops, peak + sum(_to_come(memory) for memory in generator.memories.values())


def _parts(batch: Batch, size: int, count: int, watched: CountingMode) -> list[Batch]:

    def placed(tensor: Tensor) -> Tensor:
        return tensor[:1].to(watched.device).expand(size, *tensor.shape[1:]).clone()

    tensors = {f.name: v for f in fields(batch) if (v := getattr(batch, f.name)) is not None}
    with watched:
        return [
            Batch(**{name: placed(value) for name, value in tensors.items()}) for _ in range(count)
        ]


def _to_come(memory: Any) -> int:
    held: Mapping[str, Tensor] = memory.state()
    stored = [v for k, v in held.items() if k.startswith("stored")]
    if not stored or not hasattr(memory, "capacity"):
        return 0
    each: int = sum(v.nbytes for v in stored) // len(stored[0])
    return each * max(0, int(memory.capacity) - len(stored[0]))
