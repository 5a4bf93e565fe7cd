"""What training steps would allocate and compute, without running one.

The steps are those of ``gansynth.training.loop.train``, on fake tensors
(``gansynth.fitting.fake_tensors``): losses, backward passes, optimisers, averages and image pools
are the real ones. Memory is what a CUDA device holds at a step's peak: weights, gradients, the
optimisers' state, averages, the batch, and activations, each rounded up as torch's allocator does.
Not counted: the CUDA context and libraries (hundreds of MiB, of each process), cuDNN's workspaces,
gaps between blocks that the allocator keeps (``max_memory_reserved`` is above
``max_memory_allocated``), and drawing sheets. No allowance is made for them: none of them has been
measured for these networks on enough cards to have a number.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor, nn

from gansynth.core.generator import Batch, Generator, Phase, Stage, Step
from gansynth.fitting.fake_tensors import Faked, Watched, autocast_of_cuda
from gansynth.fitting.setup import Job
from gansynth.runtime.devices import resolve
from gansynth.runtime.distributed import Team
from gansynth.training.loop import Batches, FitOptions
from gansynth.training.state import Learner

LONGEST_PERIOD = 10_000
"""Steps among which all kinds of steps are looked for (players take turns, penalties are lazy)."""


@dataclass(frozen=True)
class Cost:
    """What a fit's steps cost.

    Attributes:
        flops: of the mean optimiser step.
        total: FLOPs of all steps.
        peak: most bytes at once.
        stages: for each of ``stretches`` FLOPs of its mean step and most bytes.
    """

    flops: float
    total: float
    peak: int
    stages: tuple[tuple[float, int], ...] = ()


@dataclass(frozen=True)
class Stretch:
    """Steps of one stage.

    Attributes:
        stage: their stage.
        first: number of the first of them.
        images: real images shown before it.
        steps: how many.
        batch_size: real cases a step.
    """

    stage: Stage
    first: int
    images: int
    steps: int
    batch_size: int


def forecast(job: Job) -> tuple[Cost | None, dict[str, Any]]:
    """What a job's steps cost, and the same for a report: FLOPs, memory, memory by variant.

    A generator whose steps cannot be simulated (they depend on numbers, say) has no cost, and the
    report says why.
    """
    try:
        cost = estimate(job)
        rows = variants(job, cost)
    except Exception as error:  # of whatever kind: a dry run is not to fail by it
        why = f"a step cannot be simulated: {type(error).__name__}: {' '.join(str(error).split())}"
        return None, {"memory_predicted_mib": None, "why": why}
    return cost, {
        "flops_per_step": cost.flops,
        "flops_total": cost.total,
        "memory_predicted_mib": mib(cost.peak),
        "memory_variants": rows,
    }


def estimate(job: Job) -> Cost:
    """What a job's steps cost as they are asked for."""
    return _cost(job, job.generator.options, resolve(job.options.precision, job.device) != "fp32")


def variants(job: Job, asked: Cost) -> list[dict[str, Any]]:
    """Memory (MiB) and FLOPs a step by precision, and by ``checkpointing`` where it is an option.

    One that cannot be simulated has None for both.

    Args:
        job: whose generator and loop are meant.
        asked: of the job as it is, which is not simulated again.
    """
    options = job.generator.options
    own = getattr(options, "checkpointing", None)
    precise = resolve(job.options.precision, job.device)
    rows: list[dict[str, Any]] = []
    for precision in (precise if precise != "fp32" else "bf16", "fp32"):
        for keep in (None,) if own is None else (False, True):
            same = keep == own and precision == precise
            other = options if keep is None else options.model_copy(update={"checkpointing": keep})
            cost = asked if same else _tried(job, other, precision != "fp32")
            row = {"precision": precision, "checkpointing": keep, "asked": same}
            memory, flops = (None, None) if cost is None else (mib(cost.peak), cost.flops)
            rows.append({**row, "memory_mib": memory, "flops_per_step": flops})
    return rows


def _tried(job: Job, options: Any, half: bool) -> Cost | None:
    try:
        return _cost(job, options, half)
    except Exception:  # a variant that fails says nothing of what is asked for
        return None


def mib(size: float) -> int:
    """Bytes as MiB, rounded up."""
    return math.ceil(size / 2**20)


def _cost(job: Job, options: Any, half: bool) -> Cost:
    given = job.generator
    with torch.random.fork_rng(devices=[]):
        generator = type(given)(given.schema, given.size, options)
    generator.load_state(given.state())
    return imagine(generator, job.batches, job.options, half)


def imagine(generator: Generator, batches: Batches, options: FitOptions, half: bool) -> Cost:
    """``simulate`` without memory; the generator is lost to the real world."""
    watched = Faked()
    with torch.random.fork_rng(devices=[]):
        watched.take(*generator.nets.values())
        return simulate(generator, batches, options, watched, half)


@autocast_of_cuda()
def simulate(
    generator: Generator, batches: Batches, options: FitOptions, watched: Watched, half: bool
) -> Cost:
    """Take one step of each kind that a fit has, after one to warm up, and count.

    Args:
        generator: is on the watched device, and trained.
        batches: real cases; one is read for each stage, for its shape.
        options: of the loop.
        watched: counts; if ``Faked``, nothing is computed.
        half: bf16 autocast, on the CPU as on CUDA (fp16 takes as much).
    """
    with watched:
        learner = Learner.of(generator, torch.amp.GradScaler(enabled=False))
    _as_on_cuda(learner)
    watched.hold(learner.every_tensor())
    total, steps = 0.0, 0
    each: list[tuple[float, int]] = []
    for stretch in stretches(options, list(generator.stages())):
        walk = _Walk(generator, learner, options, watched, half, stretch)
        walk.take(batches)
        total, steps = total + walk.flops * stretch.steps, steps + stretch.steps
        each.append((walk.flops, walk.peak))
    return Cost(total / max(1, steps), total, max(peak for _, peak in each), tuple(each))


def stretches(options: FitOptions, stages: Sequence[Stage]) -> list[Stretch]:
    """How the steps of a fit divide into stages; a fit of no steps has one, of the last stage."""
    found: list[Stretch] = []
    first, shown, until = 0, 0, 0.0
    for stage in stages:
        last = stage is stages[-1] or stage.images is None
        until = math.inf if last else until + (stage.images or 0)
        size = stage.batch_size or options.batch_size
        left = options.steps - first
        steps = left if last else min(left, max(0, math.ceil((until - shown) / size)))
        if steps or (last and not found):
            found.append(Stretch(stage, first, shown, steps, size))
        first, shown = first + steps, shown + steps * size
        if last:
            break
    return found


def kinds(phases: Sequence[Phase], first: int, steps: int) -> list[tuple[int, float]]:
    """A step of each kind, by which phases are due, and the share of steps that are like it."""
    period = min(math.lcm(*(phase.interval for phase in phases)), LONGEST_PERIOD, max(steps, 1))
    found: dict[tuple[bool, ...], list[int]] = {}
    for index in range(first, first + period):
        found.setdefault(tuple(phase.due(index) for phase in phases), []).append(index)
    return [(indices[0], len(indices) / period) for indices in found.values()]


def parameters(generator: Generator) -> dict[str, int]:
    """Numbers that are learnt, by network."""
    return {k: sum(p.numel() for p in net.parameters()) for k, net in generator.nets.items()}


def _as_on_cuda(learner: Learner) -> None:
    """Optimisers that leave it to torch treat all tensors at once there."""
    for optimizer in learner.optimizers.values():
        for group in optimizer.param_groups:
            if "foreach" in group and group["foreach"] is None and not group.get("fused"):
                group["foreach"] = True


class _Walk:
    """Steps of one stage, as ``gansynth.training.loop.train`` takes them.

    Attributes:
        flops: of the mean step.
        peak: most bytes at once.
    """

    def __init__(
        self,
        generator: Generator,
        learner: Learner,
        options: FitOptions,
        watched: Watched,
        half: bool,
        stretch: Stretch,
    ) -> None:
        self.generator, self.learner, self.options = generator, learner, options
        self.watched, self.half, self.stretch = watched, half, stretch
        self.rng = torch.Generator(watched.device)
        self.players, self.phases = generator.players(), generator.phases()
        self.shares: list[Step] = []
        self.flops, self.peak = 0.0, 0

    def take(self, batches: Batches) -> None:
        """One step of each kind to warm up, and one that counts."""
        stretch = self.stretch
        parts = self._parts(batches(stretch.first, stretch.stage, range(1)))
        found = kinds(self.phases, stretch.first, stretch.steps)
        with self.watched:
            for index, _ in found:
                self._step(parts, index)
            for index, share in found:
                self.watched.begin()
                self._step(parts, index)
                self.flops += share * self.watched.flops
                self.peak = max(self.peak, self.watched.peak)
            self.shares = []
        self.peak += sum(_to_come(memory) for memory in self.generator.memories.values())

    def _parts(self, one: Batch) -> list[Batch]:
        """A batch on the watched device, in the parts it is done in, of samples like the one."""

        def placed(tensor: Tensor) -> Tensor:
            shape = (self.stretch.batch_size // self.options.accumulate, *tensor.shape[1:])
            return tensor[:1].to(self.watched.device).expand(shape).clone()

        given = {f.name: v for f in fields(one) if (v := getattr(one, f.name)) is not None}
        with self.watched:
            return [
                Batch(**{name: placed(value) for name, value in given.items()})
                for _ in range(self.options.accumulate)
            ]

    def _step(self, parts: Sequence[Batch], index: int) -> None:
        stage, total = self.stretch.stage, self.stretch.batch_size
        which = Team().shares(total, self.options.accumulate)
        self.shares = [
            Step(
                self.generator.prepare(part, stage), stage, index, self.stretch.images,
                alpha=0.5 if stage.fade else 1.0, rng=self.rng.manual_seed(0), key=index,
                first=numbers.start, total=total,
            )
            for part, numbers in zip(parts, which, strict=True)
        ]  # fmt: skip
        for phase in (p for p in self.phases if p.due(index)):
            self._phase(phase)
        self.learner.average(0.5)

    def _phase(self, phase: Phase) -> None:
        for name, net in self.generator.nets.items():
            net.train().requires_grad_(name in self.players[phase.player])
        optimizer, losses = self.learner.optimizers[phase.player], []
        optimizer.zero_grad(set_to_none=True)
        for step in self.shares:
            where = self.watched.device.type
            with torch.autocast(where, dtype=torch.bfloat16, enabled=self.half):
                terms = phase.loss(step)
            stacked = torch.stack([t.float() for t in terms.values()])
            torch.autograd.backward(stacked.sum() / len(self.shares))
            losses.append(stacked.detach())
        if self.options.clip_norm:
            parameters = self.learner.parameters(phase.player)
            nn.utils.clip_grad_norm_(parameters, self.options.clip_norm)
        optimizer.step()
        if phase.after is not None:
            phase.after()


def _to_come(memory: Any) -> int:
    """Bytes by which a pool that is not full will grow."""
    held: Mapping[str, Tensor] = memory.state()
    stored = [v for k, v in held.items() if k.startswith("stored")]
    if not stored or not hasattr(memory, "capacity"):
        return 0
    each: int = sum(v.nbytes for v in stored) // len(stored[0])
    return each * max(0, int(memory.capacity) - len(stored[0]))
