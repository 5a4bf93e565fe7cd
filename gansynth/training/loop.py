"""The training loop of every GAN here.

Random numbers are keyed by seed and step. So an interrupted run resumes bit for bit, on one CPU
process with the same number of threads.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field

from gansynth.core.generator import (
    Batch,
    Generator,
    Stage,
    TrainingStep,
    capabilities_of,
    channels_last,
    move,
)
from gansynth.runtime.devices import HALF, Precision, device_name, resolve, set_seed, tf32
from gansynth.runtime.distributed import ProcessGroup
from gansynth.runtime.errors import TrainingFault
from gansynth.runtime.option_kinds import Size
from gansynth.runtime.options import Needs, OptionModel
from gansynth.runtime.signals import Interrupted
from gansynth.training.checkpoint_manager import (
    MOST_ROLLBACKS,
    CheckpointManager,
    TrainingCallbacks,
)
from gansynth.training.cuda_graphs import Compile, StepReplay
from gansynth.training.half_precision import cast_at_once, exact_on_short_axes
from gansynth.training.loading import BatchLoader, threads_for
from gansynth.training.loggers import MetricsLog, short_losses
from gansynth.training.state import PendingLosses, TrainingState
from gansynth.training.update import PlayersUpdate

Batches = Callable[[int, Stage, range], Batch]
"""(step, stage, numbers of samples) -> real cases on the CPU, the same for the same arguments.

A thread calls it for the next step; for a GPU several do at once, for the next ones.

The whole batch of a step has the numbers 0 to ``batch_size - 1``."""

FIRST_PREVIEW = 15.0  # seconds of training until the first preview grid, whatever `sample_every` is


class SeedOptions(OptionModel):
    """The one option of every fit, with or without training."""

    seed: int = Field(0, ge=0, lt=2**31, description="seeds weights, batches and noise")


class FitOptions(SeedOptions):
    """Options of the training loop, the same for every generator that trains."""

    needs: ClassVar[Needs] = {"decay_from": "decay"}

    steps: int = Field(20_000, ge=0, description="optimiser steps")
    epochs: float | None = Field(
        None, gt=0, description="passes through the training cases, in place of steps"
    )
    batch_size: int = Field(
        2, ge=1, le=65536, description="real cases a step, of all processes together"
    )
    accumulate: int = Field(
        1, ge=1, le=1024, description="parts of a process's share of the batch, to save memory"
    )
    patch: Size | None = Field(
        None, description="voxels per axis of training crops; the space's own size if null"
    )
    precision: Precision = Field(
        "auto",
        description="bf16, fp16 (CUDA), fp32, or auto: bf16 where native, else fp16 on CUDA from "
        "compute capability 7.0 on, else fp32",
    )
    compile: Compile = Field(
        "auto",
        description="graphs: CUDA graphs of whole steps; off; auto: graphs on CUDA where the "
        "generator can",
    )
    channels_last: bool = Field(
        False, description="CUDA: weights with channels innermost, as on the CPU"
    )
    decay: Literal["none", "linear", "cosine"] = Field(
        "none", description="how learning rates fall to 0 by the last step"
    )
    decay_from: float = Field(0.5, ge=0, lt=1, description="share of the steps before they fall")
    ema_half_life: float = Field(
        1000, ge=0, description="half-life of the moving average that generates samples, in images"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    sample_every: int = Field(500, ge=1, description="steps between preview grids")
    log_every: int = Field(20, ge=1, description="steps averaged in a line of metrics.csv")
    diversity: int = Field(
        32, ge=0, le=4096, description="samples from noise compared at the end of a fit; 0: none"
    )

    def rate(self, index: float) -> float:
        """Return the factor of the learning rates in a step, 1 to 0."""
        begin = self.decay_from * self.steps
        passed = max(0.0, (index - begin) / max(1.0, self.steps - begin))
        if self.decay == "linear":
            return 1 - passed
        return (1 + math.cos(math.pi * passed)) / 2 if self.decay == "cosine" else 1.0


@dataclass
class TrainReport:
    """Result of a training."""

    steps: int  # optimiser steps done in all
    images: int
    resumed_at: int  # step from which it was resumed, 0 for a new training
    seconds: float
    losses: Mapping[str, float]  # the last logged averages
    waited: float = 0.0  # share of the seconds in which the device had no batch
    rollbacks: int = 0  # number of rollbacks to a checkpoint because of non-finite numbers
    notes: list[str] = field(default_factory=list)  # for the user, e.g. about a skipped checkpoint.


def loop_options(cls: type[Generator]) -> type[SeedOptions]:
    """Return the model of the loop's options that fits of a generator have."""
    return FitOptions if capabilities_of(cls).trains else SeedOptions


def train(
    generator: Generator,
    batches: Batches,
    options: FitOptions,
    *,
    device: torch.device | None = None,
    folder: Path | None = None,
    resume: bool = True,
    callbacks: TrainingCallbacks | None = None,
    process_group: ProcessGroup | None = None,
    rate: Callable[[int], float] | None = None,
    stages: Sequence[Stage] | None = None,
) -> TrainReport:
    """Train a generator; at the end its ``nets`` hold the moving averages of the weights.

    ``folder``: None writes nothing. ``rate``: factor of the learning rates in a step. Raises
    TrainingFault: losses or weights are non-finite after three rollbacks. EnvironmentFault: a
    checkpoint cannot be written. Interrupted: a signal, after a checkpoint was written.
    """
    # -- Set up precision, optimisers, averages.
    device = device or torch.device("cpu")
    process_group, callbacks, rate = (
        process_group or ProcessGroup(),
        callbacks or TrainingCallbacks(),
        rate or options.rate,
    )
    precision = resolve(options.precision, device)
    half = HALF.get(precision)
    scaler = torch.amp.GradScaler(device.type, enabled=precision == "fp16")
    move(generator, device)
    generator.precision = options.precision if precision == "fp32" else "auto"
    if options.channels_last:
        for net in generator.nets.values():
            channels_last(net, generator.schema.ndim)
    casts = half is not None and device.type == "cuda"
    mended = half is not None and device.type == "cpu"
    phases = generator.phases()
    stages = list(generator.stages() if stages is None else stages)
    training_state = TrainingState.of(generator, scaler)
    process_group.broadcast(training_state.every_tensor())
    identity: dict[str, Any] = {"precision": precision}
    if precision == "fp32":
        identity["tf32"] = tf32(device)
    identity |= {
        "device": device_name(device),
        "threads": torch.get_num_threads(),
        "processes": process_group.size,
        "accumulate": options.accumulate,
        "decay": [options.decay, options.steps] if options.decay != "none" else None,
    }
    shelf = CheckpointManager(folder, training_state, identity, callbacks, process_group)

    # -- Resume an earlier run, or publish the start as the first checkpoint.
    steps = options.steps if phases else 0
    for stage in stages:
        process_group.shares(stage.batch_size or options.batch_size, options.accumulate)
    start, notes = shelf.resume(steps == 0) if resume else shelf.clear()
    if start is None:
        start, fault = 0, shelf.publish(0, announce=steps == 0)
        if fault:
            raise TrainingFault(
                "training.start-not-finite",
                f"training: {fault}; expected finite weights to start from",
            )
    if 0 < start < steps:
        callbacks.reporter.say(f"resuming from step {start} of {steps}")
    log = MetricsLog(folder if process_group.is_main else None, start, training_state.sums)
    losses, notes = PendingLosses(), notes + log.notes
    update = PlayersUpdate(generator, training_state, scaler, device.type, half, process_group)
    fading = torch.ones((), device=device)
    rngs = [torch.Generator(device) for _ in range(options.accumulate)]
    began, last_losses, previewed = time.perf_counter(), dict[str, float](), False
    logged_at = waited = 0.0
    shown: dict[str, object] = {}

    # -- The loop.
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        BatchLoader(device, threads_for(device, process_group.size)) as loader,
        StepReplay(update, options.compile, device, callbacks.reporter, loader.settle) as replays,
        cast_at_once(generator.nets.values() if casts else ()),
        exact_on_short_axes(generator.nets.values() if mended else ()),
        callbacks.stop.deferred(),
        callbacks.reporter.task(steps, "fit", min(start, steps)) as bar,
    ):

        def fetch(index: int, images: int) -> Any:
            stage, alpha = _stage_at(stages, images)
            total = stage.batch_size or options.batch_size
            which = process_group.shares(total, options.accumulate)
            read = loader.read(lambda: [batches(index, stage, numbers) for numbers in which])
            return stage, alpha, total, which, read

        index, pending = start, deque[Any]()
        while index < steps:
            # Fetch: this step's cases were read during the last ones; start reading the next ones.
            pending = pending or deque([fetch(index, training_state.images)])
            stage, alpha, total, which, read = pending.popleft()
            parts, images_seen = loader.wait(read), training_state.images + total
            while len(pending) < min(loader.ahead, steps - index - 1):
                images_read = images_seen + sum(size for _, _, size, *_ in pending)
                pending.append(fetch(index + 1 + len(pending), images_read))

            # Key random numbers by seed and step, and by the number of rollbacks.
            key = (options.seed * 1_000_003 + index) * (
                MOST_ROLLBACKS + 1
            ) + training_state.rollbacks
            set_seed(key * process_group.size + process_group.rank, device)
            in_place = alpha < 1 and device.type == "cuda"  # where a replayed step reads it
            shares = [
                TrainingStep(
                    part, stage, index, training_state.images,
                    alpha=fading.fill_(alpha) if in_place else alpha,
                    rng=rng.manual_seed(key), key=key,
                    first=numbers.start, total=total, mean=process_group.mean,
                )
                for part, numbers, rng in zip(parts, which, rngs, strict=False)
            ]  # fmt: skip
            training_state.set_rates(rate(index))

            # Step each player on the loss of its phase, the others frozen.
            of_step = [phase for phase in phases if phase.due(index)]
            try:
                found = replays(shares, of_step)
            except RuntimeError as error:
                if folder is None or not replays.give_up(error):
                    raise
                index, losses = shelf.go_back(), PendingLosses()
                log.rewind(index)
                pending.clear()
                continue
            for of_phase in found:
                losses.add(index, *of_phase)

            # Average the weights that generate samples; the half-life grows early in a run.
            done, at = index + 1, time.perf_counter() - began
            training_state.images = images_seen
            half_life = min(options.ema_half_life, 0.05 * images_seen)
            training_state.average(0.5 ** (total / half_life) if half_life > 0 else 0.0)

            # Losses stay on a GPU until they are needed: reading them waits for it.
            last = done == steps
            ticked = last or done % options.log_every == 0
            published = last or done % options.checkpoint_every == 0
            early = not previewed and bool(process_group.any(int(at > FIRST_PREVIEW)))
            due = early or last or done % options.sample_every == 0
            fault = ""
            if device.type == "cpu" or ticked or published or due:
                fault = losses.read_into(log)
            log.add({"rate": rate(index) * 0.5**training_state.rollbacks})

            # Log; checkpoint; write a preview grid; stop on a signal, after a checkpoint.
            if not fault:
                if ticked:
                    seconds, loading = loader.spent()
                    clocks = {"waited": min(1.0, seconds / (at - logged_at)), "loading": loading}
                    logged_at, waited = at, waited + seconds
                    last_losses = log.write(done, images_seen, at, clocks)
                    callbacks.metrics(done, last_losses | clocks)
                    shown = dict(short_losses(last_losses))
                    shown["waits"] = f"{clocks['waited']:.0%}"
                bar.advance(1, **shown)
                if published:
                    fault = shelf.publish(done)
                if due and not fault:
                    previewed = True
                    shelf.preview(done)
                signal = process_group.any(callbacks.stop())
                if signal and not published:
                    fault = losses.read_into(log) or shelf.publish(done)
                if signal and not fault:
                    raise Interrupted(signal)

            # Non-finite: roll back to the last checkpoint at half the rates, up to three times.
            if fault:
                if training_state.rollbacks == MOST_ROLLBACKS or folder is None:
                    remedy = generator.capabilities.remedy("not finite")
                    raise _fault(fault, training_state.rollbacks, folder, remedy)
                done = shelf.roll_back(fault)
                replays.forget()  # the optimisers have other tensors now
                log.rewind(done)
                pending.clear()
            index = done

    if not steps:
        shelf.preview(0)
    # -- Load the averaged weights.
    training_state.load_averages()
    seconds = time.perf_counter() - began
    return TrainReport(
        max(steps, start), training_state.images, start, seconds, last_losses, waited / seconds,
        training_state.rollbacks, notes,
    )  # fmt: skip


def steps_for(images: float, stages: Sequence[Stage], batch_size: int) -> int:
    """Return the number of optimiser steps that use so many real images."""
    steps, seen_images, until = 0, 0, 0.0
    for stage in stages:
        last = stage is stages[-1] or stage.images is None
        until = images if last else min(images, until + (stage.images or 0))
        size = stage.batch_size or batch_size
        stage_steps = max(0, math.ceil((until - seen_images) / size))
        steps, seen_images = steps + stage_steps, seen_images + stage_steps * size
    return steps


def steps_to_grow(stages: Sequence[Stage], batch_size: int) -> int:
    """Return the steps up to the first one of the last stage, faded in; 0 of a single stage."""
    images = sum(stage.images or 0 for stage in stages[:-1]) + stages[-1].fade
    return steps_for(images, stages, batch_size) + (len(stages) > 1)


def _stage_at(stages: Sequence[Stage], images: int) -> tuple[Stage, float]:
    begun = 0
    for stage in stages:
        if stage.images is None or images < begun + stage.images:
            break
        if stage is not stages[-1]:
            begun += stage.images
    return stage, min(1.0, (images - begun) / stage.fade) if stage.fade else 1.0


def _fault(fault: str, rollbacks: int, folder: Path | None, hint: str) -> TrainingFault:
    tried = f" after {rollbacks} rollbacks, each at half the learning rates" if rollbacks else ""
    where = f"; the curve is in {folder / 'metrics.csv'}" if folder is not None else ""
    return TrainingFault(
        "training.numbers-not-finite",
        f"training: {fault}{tried}, expected finite numbers{where}. {hint}, or --set "
        "precision=fp32; the last checkpoint is whole",
    )
