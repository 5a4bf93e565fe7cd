"""The training loop: one function, top to bottom, for every GAN here.

It runs on Lightning Fabric (device and precision) and nothing else of Lightning. What is random is
keyed by seed and step, so a run that was cut off goes on as if it had not been: on one CPU process
with the same number of threads, to the bit.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor, nn

from gansynth import checkpoint
from gansynth.errors import TrainingFault
from gansynth.generator import Batch, Generator, Stage, Step
from gansynth.integrity import disk_errors, write_bytes_atomic
from gansynth.precision import FABRIC_NAMES, Precision, resolve
from gansynth.reporting import NullReporter, Reporter

Batches = Callable[[int, Stage, int], Batch]
"""(step, stage, batch size) -> real cases on the CPU; the same arguments give the same batch."""


class FitOptions(BaseModel):
    """Options of the loop itself, the same for every generator."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    steps: int = Field(20_000, ge=0, description="optimiser steps")
    batch_size: int = Field(2, ge=1, description="real cases a step")
    seed: int = Field(0, ge=0, description="seeds weights, batches and noise")
    precision: Precision = Field("auto", description="auto: bf16 autocast where native, else fp32")
    ema_half_life: float = Field(
        1000, ge=0, description="half-life in images of the moving average that draws samples"
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    sample_every: int = Field(500, ge=1, description="steps between sample sheets")
    log_every: int = Field(20, ge=1, description="steps averaged in a line of metrics.csv")


@dataclass
class TrainReport:
    """What a training came to.

    Attributes:
        steps: optimiser steps done in all.
        images: real images shown in all.
        resumed_at: step it went on from, 0 for a new one.
        seconds: wall time of this call's loop.
        losses: the last logged averages.
        notes: what the user should know (a passed-over checkpoint, say).
    """

    steps: int
    images: int
    resumed_at: int
    seconds: float
    losses: Mapping[str, float]
    notes: list[str] = field(default_factory=list)


def train(
    generator: Generator,
    batches: Batches,
    options: FitOptions,
    *,
    device: torch.device | None = None,
    folder: Path | None = None,
    resume: bool = True,
    on_checkpoint: Callable[[Path, int], None] | None = None,
    on_preview: Callable[[int], None] | None = None,
    reporter: Reporter | None = None,
) -> TrainReport:
    """Train a generator; its ``nets`` hold the moving averages' weights when this returns.

    Args:
        generator: networks, players, phases and stages come from it.
        batches: real cases, keyed by step.
        options: see ``FitOptions``.
        device: where to train; the CPU if None.
        folder: run folder for checkpoints and ``metrics.csv``; None writes nothing.
        resume: go on from the folder's newest whole checkpoint, if there is one.
        on_checkpoint: called with each published checkpoint and its step, and with the one that
            is resumed from.
        on_preview: called every ``sample_every`` steps while the averages are in place.
        reporter: shows progress.

    Raises:
        TrainingFault: a loss or a weight is NaN or infinite; the last checkpoint stays.
        EnvironmentFault: a checkpoint cannot be written.
    """
    from lightning_fabric import Fabric

    # -- Set up device, precision, optimisers.
    device = device or torch.device("cpu")
    reporter = reporter or NullReporter()
    precision = resolve(options.precision, device)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)
    fabric = Fabric(
        accelerator="cuda" if device.type == "cuda" else "cpu",
        devices=[device.index or 0] if device.type == "cuda" else 1,
        precision=FABRIC_NAMES[precision],  # type: ignore[arg-type]
    )
    generator.to(device)
    nets, players, phases = generator.nets, generator.players(), generator.phases()
    raw = {
        player: generator.optimizer(player, [p for n in names for p in nets[n].parameters()])
        for player, names in players.items()
        if phases
    }
    optimizers: dict[str, Any] = {k: fabric.setup_optimizers(o) for k, o in raw.items()}
    averages = {
        f"{n}/{k}": v.detach().clone()
        for n in generator.ema
        if n in nets
        for k, v in _floats(nets[n])
    }

    # -- Go on where an earlier run stopped.
    start, images, notes = 0, 0, list[str]()
    found = checkpoint.latest(folder / "checkpoints") if folder is not None and resume else None
    if found is not None:
        checkpoint.restore(found.tensors, nets, averages, raw)
        start, images, notes = found.state["step"], found.state["images"], found.passed_over
        notes += _not_identical(found.state, precision)
        if on_checkpoint is not None:
            # Whoever keeps track of checkpoints may have been killed before it heard of this one.
            on_checkpoint(found.folder, start)
    steps = options.steps if phases else 0
    stages = list(generator.stages())

    def publish(step: int) -> None:
        if folder is None:
            return
        state = {"images": images, "precision": precision, "threads": torch.get_num_threads()}
        tensors = checkpoint.collect(nets, averages, raw)
        _check_weights(tensors, step, folder)
        path = checkpoint.save(folder / "checkpoints", step, tensors, averages, state)
        if on_checkpoint is not None:
            on_checkpoint(path, step)

    # -- The loop.
    if folder is not None:
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
    log = _Metrics(folder, start)
    began, last_losses = time.perf_counter(), dict[str, float]()
    with (
        torch.random.fork_rng(devices=[device] if device.type == "cuda" else []),
        ThreadPoolExecutor(1) as loader,
        reporter.task(max(steps - start, 0), "fit") as bar,
    ):

        def fetch(step: int, at_images: int) -> Any:
            stage = _stage_at(stages, at_images)
            size = stage.batch_size or options.batch_size
            return stage, loader.submit(batches, step, stage, size)

        pending = fetch(start, images) if start < steps else None
        for index in range(start, steps):
            # Fetch: this step's batch was read while the last one ran; the next one is asked for.
            assert pending is not None
            stage, future = pending
            batch = _to_device(future.result(), device)
            shown = images + len(batch.image)
            pending = fetch(index + 1, shown) if index + 1 < steps else None

            # Key what is random by seed and step.
            torch.manual_seed(options.seed * 1_000_003 + index)
            rng = torch.Generator(device).manual_seed(options.seed * 1_000_003 + index)
            step = Step(generator.prepare(batch, stage), stage, index, images, rng)

            # Step each player on its phase's loss, the others frozen.
            for phase in phases:
                if index % phase.interval:
                    continue
                own = players[phase.player]
                for name, net in nets.items():
                    net.train().requires_grad_(name in own)
                with fabric.autocast():
                    terms = phase.loss(step)
                stacked = torch.stack([t.float() for t in terms.values()])
                loss = stacked.sum()
                shown_terms = (f"{phase.player}/{k}" for k in terms)
                values = dict(zip(shown_terms, stacked.detach().tolist(), strict=True))
                _check_finite(values, index, folder)
                optimizers[phase.player].zero_grad(set_to_none=True)
                fabric.backward(loss)
                optimizers[phase.player].step()
                log.add(values)
            images = shown

            # Average the weights that draw samples; the half-life grows with a young run.
            half_life = min(options.ema_half_life, 0.05 * images)
            decay = 0.5 ** (len(batch.image) / half_life) if half_life > 0 else 0.0
            _average(averages, nets, generator.ema, decay)

            # Log, preview, checkpoint.
            done = index + 1
            if done % options.log_every == 0 or done == steps:
                last_losses = log.write(done, images, time.perf_counter() - began)
            bar.advance(1, **last_losses)
            if on_preview is not None and (done % options.sample_every == 0 or done == steps):
                with _averaged(nets, averages):
                    on_preview(done)
            if done % options.checkpoint_every == 0 and done != steps:
                publish(done)

    # -- Leave the averaged weights in place, and a last checkpoint behind.
    if start < steps or found is None:
        publish(max(steps, start))
    _load_averages(nets, averages)
    seconds = time.perf_counter() - began
    return TrainReport(max(steps, start), images, start, seconds, last_losses, notes)


def _stage_at(stages: list[Stage], images: int) -> Stage:
    """The stage a run is in after so many images."""
    passed = 0
    for stage in stages:
        passed += stage.images or 0
        if stage.images is None or images < passed:
            return stage
    return stages[-1]


def _to_device(batch: Batch, device: torch.device) -> Batch:
    def move(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor.to(device, non_blocking=True)

    return Batch(
        batch.image.to(device, non_blocking=True),
        move(batch.labels),
        move(batch.context),
        move(batch.padding),
    )


def _check_finite(values: Mapping[str, float], step: int, folder: Path | None) -> None:
    bad = [name for name, value in values.items() if not abs(value) < float("inf")]
    if bad:
        raise _ill(f"loss {bad[0]} is {values[bad[0]]} at step {step}", folder)


def _check_weights(tensors: Mapping[str, Tensor], step: int, folder: Path) -> None:
    """A gradient can overflow where no loss does; such weights must not become a checkpoint."""
    for name, value in tensors.items():
        if not torch.isfinite(value).all():
            raise _ill(f"{name} holds NaN or infinite values after step {step}", folder)


def _ill(what: str, folder: Path | None) -> TrainingFault:
    where = f"; the curve is in {folder / 'metrics.csv'}" if folder is not None else ""
    return TrainingFault(
        f"training: {what}, expected finite numbers{where}. Lower the learning rates (--set "
        "lr_generator=1e-4), or --set precision=fp32; the last checkpoint is whole"
    )


def _floats(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((k, v) for k, v in net.state_dict().items() if v.is_floating_point())


@torch.no_grad()
def _average(
    averages: Mapping[str, Tensor],
    nets: Mapping[str, nn.Module],
    names: tuple[str, ...],
    decay: float,
) -> None:
    live = {f"{n}/{k}": v for n in names if n in nets for k, v in _floats(nets[n])}
    if averages:
        keys = list(averages)
        torch._foreach_lerp_([averages[k] for k in keys], [live[k] for k in keys], 1 - decay)


@torch.no_grad()
def _load_averages(nets: Mapping[str, nn.Module], averages: Mapping[str, Tensor]) -> None:
    for key, value in averages.items():
        name, _, parameter = key.partition("/")
        nets[name].state_dict()[parameter].copy_(value)


@contextmanager
def _averaged(nets: Mapping[str, nn.Module], averages: Mapping[str, Tensor]) -> Iterator[None]:
    """The averaged weights for a moment; the live ones come back whatever happens."""
    live = {
        k: nets[k.partition("/")[0]].state_dict()[k.partition("/")[2]].clone() for k in averages
    }
    _load_averages(nets, averages)
    try:
        yield
    finally:
        _load_averages(nets, live)


def _not_identical(state: Mapping[str, Any], precision: str) -> list[str]:
    now = {"precision": precision, "threads": torch.get_num_threads()}
    return [
        f"resumed with {key} {value} instead of {state[key]}: the run goes on, but not bit for bit"
        for key, value in now.items()
        if state.get(key, value) != value
    ]


class _Metrics:
    """Averages of named values, a line of ``metrics.csv`` per tick; ``nan`` where none came in."""

    def __init__(self, folder: Path | None, start: int) -> None:
        self._path = None if folder is None else folder / "metrics.csv"
        self._sums: dict[str, list[float]] = {}
        self._columns: list[str] = []
        self._rows: list[dict[str, str]] = []
        if self._path is not None and self._path.exists():
            # What follows the last line's end was cut off by whatever ended the run.
            lines = self._path.read_text(encoding="utf-8").split("\n")[:-1]
            self._columns = lines[0].split(",") if lines else []
            rows = [dict(zip(self._columns, line.split(","), strict=False)) for line in lines[1:]]
            # Lines after the checkpoint that a resumed run starts from will be written again.
            self._rows = [row for row in rows if int(row["step"]) <= start]
            self._rewrite(self._path)

    def add(self, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._sums.setdefault(name, []).append(value)

    def write(self, step: int, images: int, seconds: float) -> dict[str, float]:
        means = {name: sum(v) / len(v) for name, v in self._sums.items()}
        self._sums.clear()
        if self._path is not None:
            row = {"step": str(step), "images": str(images), "seconds": f"{seconds:.2f}"}
            row.update({name: f"{mean:.6g}" for name, mean in means.items()})
            self._rows.append(row)
            # A term that came in for the first time (a lazy regulariser's) is a new column.
            columns = list(dict.fromkeys([*self._columns, *row]))
            if columns != self._columns:
                self._columns = columns
                self._rewrite(self._path)
            else:
                with self._path.open("a", newline="\n", encoding="utf-8") as file:
                    file.write(self._line(row))
        return means

    def _rewrite(self, path: Path) -> None:
        header = ",".join(self._columns) + "\n" if self._columns else ""
        write_bytes_atomic(path, (header + "".join(map(self._line, self._rows))).encode())

    def _line(self, row: Mapping[str, str]) -> str:
        return ",".join(row.get(column, "nan") for column in self._columns) + "\n"
