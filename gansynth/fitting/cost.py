"""Cost of a fit, measured by a few real steps, and settings that fit a given memory.

    python -m gansynth.fitting.cost < request.json

measures one candidate in its own process, so that its memory is not shared.
"""
# mypy: disallow-untyped-calls=False

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from gansynth.core.generator import Generator, Stage
from gansynth.core.run_folder import MANIFEST, RunFolder
from gansynth.core.source import SourceRequest
from gansynth.fitting.sample_grids import SampleGrid
from gansynth.fitting.setup import FitJob, open_folder, resolve
from gansynth.runtime.errors import (
    FAULTS,
    EnvironmentFault,
    GansynthError,
)
from gansynth.runtime.files import folder_bytes
from gansynth.runtime.machine import free_memory
from gansynth.runtime.measuring import OutOfTime, measuring
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.signals import Interrupted, StopRequest
from gansynth.runtime.system import memory_limit, peak_memory
from gansynth.sampling.manifest import Run
from gansynth.training.checkpoint import KEPT_CHECKPOINTS, bytes_of
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.cuda_graphs import WARM_UP
from gansynth.training.loading import threads_for
from gansynth.training.loop import FitOptions, steps_for, train

MEASURED_STEPS = 3
"""Least timed steps of a stage that is not slow."""
LONGEST_TURN = 16
"""Most steps measured to meet each kind: players take turns, penalties are lazy."""
PATIENCE = 10.0
"""Seconds after which no further step of a stage is begun; two are always done."""
SMALLEST_PATCH = 32
"""Least edge of training crops that are halved to fit a memory, in voxels."""


# -- memory ----------------------------------------------------------------------------------------


def peak_mib(device: torch.device) -> int:
    """Return the peak memory in MiB of this process, on the CPU or the CUDA device."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_reserved(device) / 2**20)
    return round(peak_memory() / 2**20)


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device; on the CPU within a container's limit."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    return free_memory()


def refuse_low_memory(job: FitJob, processes: int) -> None:
    """Refuse (EnvironmentFault) batches that alone fill the memory, before the first is made."""
    size = job.options.patch or job.space.size
    voxels = [
        math.prod(stage.size or size) * (stage.batch_size or job.options.batch_size)
        for stage in job.generator.stages()
    ]
    needed = 4 * max(voxels) * (len(job.source.schema.channels) + 1) // processes
    free = free_bytes(torch.device("cpu"))
    if needed > free:
        raise EnvironmentFault(
            "fitting.batch-exceeds-free-memory",
            f"--set batch_size={job.options.batch_size}: a batch takes {math.ceil(needed / 2**20)} "
            f"MiB, {math.ceil(free / 2**20)} MiB of memory are free; expected a smaller batch or "
            "patch",
        )


def _bounded(device: torch.device) -> AbstractContextManager[None]:
    """Make allocations beyond the free memory fail, on the CPU."""
    return memory_limit(free_bytes(device)) if device.type == "cpu" else nullcontext()


# -- a dry run -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Steps:
    """Steps of one stage: how many the fit takes, and the means of those measured."""

    count: int
    seconds: float  # as long as it takes to read a batch, if that is longer than the step itself
    working: float  # seconds of the step itself
    loading: float  # seconds in which a thread reads its batch
    flops: float | None  # None where they cannot be counted
    saving: float  # seconds of a checkpoint


class FlopCounter(TorchDispatchMode):
    """Adds up torch's own formulas; its ``FlopCounterMode`` fails in a gradient penalty."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        formula = flop_registry.get(func._overloadpacket)
        if formula is not None:
            self.flops += int(formula(*args, **(kwargs or {}), out_val=made))
        return made


def measure(
    job: FitJob, out: Path, end: Callable[[FitJob, Run], object] = lambda job, run: None
) -> dict[str, Any]:
    """Return the cost of a fit into ``out``: sizes, parameters, FLOPs, memory and time.

    Real steps on real cases, checkpoints, previews and the end of a fit are made in a temporary
    folder, with the job's own generator. FLOPs are those of convolutions and matrix products, as
    the device computes them; a multiplication and an addition are two. The seconds include what
    came before, since the command began. What there was no time for is left out of them, and named
    by ``not_measured``.

    Args:
        end: makes what a fit makes after its last step.
    """
    clock, options = measuring(), job.options
    before, known = peak_mib(job.device), len(clock.missing)
    stages = stage_steps(options, list(job.generator.stages())) if job.trains else []
    measured: list[Steps] = []
    with tempfile.TemporaryDirectory() as folder, _bounded(job.device):
        scratch, begun = Path(folder), clock.elapsed
        learning = partial(open_folder, job, scratch, True, NullReporter())
        manifest = clock.part("learning from all cases", learning, 0.5 if job.trains else 0.8)
        seconds = clock.elapsed
        if manifest is None:
            seen = job.reading if job.reading.share < 1 else job.observing
            if seen.done:
                seconds = begun + (seconds - begun) / seen.share
                clock.missing[-1] += f" ({seen.done} of {len(seen.names)} seen)"
        # A bare generator is enough for steps; what it has learnt is needed to draw.
        for number, (stage, count) in enumerate(stages):
            share = 0.8 / (len(stages) - number)
            name = f"steps of stage {number + 1}" if len(stages) > 1 else "steps"
            found = clock.part(name, partial(_steps, job, stage, count), share)
            measured += [] if found is None else [found]
        if manifest is not None:
            job.generator.load_state(manifest["state"])
            run = Run(scratch, job.generator, manifest)
            seconds += clock.part("previews", partial(_seconds_of_previews, job, run), 0.5) or 0.0
            seconds += clock.part("the end", partial(_seconds_of, end, job, run)) or 0.0
        size = folder_bytes(Path(folder)) + KEPT_CHECKPOINTS * bytes_of(job.generator.nets)
    clock.begin()  # what is measured next is not a part of this
    peak = peak_mib(job.device)
    to_come = sum(_to_come(memory) for memory in job.generator.buffers.values())
    to_come += 0 if job.device.type == "cuda" else job.cache.still_to_come()
    total = sum(steps.count * steps.seconds for steps in measured)
    saving = max([steps.saving for steps in measured], default=0.0)
    seconds += total + saving * (options.steps // options.checkpoint_every + 2)
    counted = [steps.count * steps.flops for steps in measured if steps.flops is not None]
    document: dict[str, Any] = {"dry_run": True, "run": str(out)}
    document.update(job.config())
    document |= {
        "train_cases": len(job.source.train_ids),
        "held_out_cases": len(job.source.held_out_ids),
        "device": str(job.device),
        "parameters": parameters(job.generator),
    }
    if counted and len(counted) == len(stages):
        document["flops_per_step"] = sum(counted) / options.steps
        document["flops_total"] = sum(counted)
    if measured:
        loading = sum(steps.count * steps.loading for steps in measured)
        working = sum(steps.count * steps.working for steps in measured)
        taken = sum([steps.count for steps in measured])
        document |= {
            "loading_seconds_per_step": round(loading / taken, 4),
            "loading_threads": threads_for(job.device),
            "waited_share": round(1 - working / total, 4),
            "seconds_per_step": round(total / taken, 4),
        }
    each = "each of " if len(measured) == len(stages) else f"{len(measured)} of "
    document |= {
        "time_from": "measured" + f" in {each}{len(stages)} stages" * (len(stages) > 1),
        "not_measured": clock.missing[known:],
        "estimated_seconds": round(seconds, 1),
        "estimated_minutes": round(seconds / 60, 2),
        "disk_bytes": size,
        "memory_mib": peak + round(to_come / 2**20),
        "memory_before_mib": before,
    }
    return document


def total_of(reports: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the cost of several fits, one after the other, from what ``measure`` tells of each."""
    parts = list(reports)
    seconds = sum([part["estimated_seconds"] for part in parts])
    return {
        "not_measured": [name for part in parts for name in part["not_measured"]],
        "estimated_seconds": round(seconds, 1),
        "estimated_minutes": round(seconds / 60, 2),
        "disk_bytes": sum([part["disk_bytes"] for part in parts]),
        "memory_mib": max([part["memory_mib"] for part in parts]),
    }


def parameters(generator: Generator) -> dict[str, int]:
    """Return the number of parameters by network."""
    counts = {}
    for name, net in generator.nets.items():
        counts[name] = sum(parameter.numel() for parameter in net.parameters())
    return counts


def stage_steps(options: FitOptions, stages: Sequence[Stage]) -> list[tuple[Stage, int]]:
    """Return the stages that a fit reaches, and the number of its steps in each."""
    reached, begin, images, total = [], 0, 0, options.steps
    for stage in stages:
        last = stage is stages[-1] or stage.images is None
        images += stage.images or 0
        end = total if last else min(total, steps_for(images, stages, options.batch_size))
        if end > begin:
            reached.append((stage, end - begin))
        if last:
            break
        begin = end
    return reached


def _steps(job: FitJob, stage: Stage, count: int) -> Steps:
    """Take steps of a stage: first those whose FLOPs are counted, then those that are timed.

    So few are fed by what was read before them. In the long run, a step takes as long as the
    threads need to read a batch.
    """
    intervals = [phase.interval for phase in job.generator.phases()]
    turn = min(LONGEST_TURN, math.lcm(*intervals))
    counter, stop = FlopCounter(), StopRequest()
    patience = min(PATIENCE, measuring().left / 3)
    ticks: list[float] = []
    waits: list[float] = []
    reads: list[float] = []
    counted = 0

    def tick(step: int, values: Mapping[str, float]) -> None:
        nonlocal counted
        ticks.append(time.perf_counter())
        waits.append(values["waited"])
        reads.append(values["loading"])
        late = ticks[-1] - began > patience
        if not counted and (late or step == turn):
            counted = step
            counting.close()
        elif late:
            stop.number = 1  # the training saves a checkpoint, and ends

    # Steps that are replayed on a GPU are as slow as others until each kind is captured.
    captured = (WARM_UP + 1) * turn if job.device.type == "cuda" else 0
    update = {"steps": turn + captured + max(MEASURED_STEPS, turn), "log_every": 1}
    update |= dict.fromkeys(("sample_every", "checkpoint_every"), 10**9)
    callbacks = TrainingCallbacks(
        metrics=tick, checkpoint=lambda *_: ticks.append(time.perf_counter()), stop=stop
    )
    with tempfile.TemporaryDirectory() as folder, ExitStack() as counting:
        counting.enter_context(counter)
        began = time.perf_counter()
        try:
            train(
                job.generator, job.batches, job.options.model_copy(update=update),
                device=job.device, folder=Path(folder), callbacks=callbacks,
                stages=[replace(stage, images=None)],
            )  # fmt: skip
        except Interrupted:
            if not stop.number:  # by a user
                raise
        except OutOfTime:
            if not ticks:
                raise
            slow = (ticks[-1] - began) / len(ticks)
            return Steps(count, slow, slow, 0.0, None, 0.0)
    *timed, saving = np.diff(ticks[counted - 1 :]).tolist()
    timed = timed[min(captured, len(timed) - 1) :]
    shares = np.array(waits[-len(timed) :])
    working = float(np.mean(timed * (1 - shares)))
    loading = float(np.nanmedian(reads))
    seconds = max(working, loading / threads_for(job.device))
    return Steps(count, seconds, working, loading, counter.flops / counted or None, saving)


def _seconds_of_previews(job: FitJob, run: Run) -> float:
    """Return the seconds of all preview grids; the first one also learns where lesions lie, say."""
    grid = SampleGrid(job, run)
    first = _seconds_of(grid, 0)
    others = job.options.steps // job.options.sample_every + job.trains - 1
    return first + (others * _seconds_of(grid, 1) if others > 0 else 0.0)


def _seconds_of(work: Callable[..., object], *arguments: object) -> float:
    began = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - began


def _to_come(memory: Any) -> int:
    """Return the bytes that a pool of earlier samples still grows by."""
    stored = [v for k, v in memory.state().items() if k.startswith("stored")]
    if not stored or not hasattr(memory, "capacity"):
        return 0
    each: int = sum(v.nbytes for v in stored) // len(stored[0])
    return each * max(0, int(memory.capacity) - len(stored[0]))


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
    processes: int = 1,
) -> dict[str, str]:
    """Find settings with which a fit stays within a memory, by measuring.

    What is computed at once is halved until it does, each candidate in its own process: first the
    part of a batch (``accumulate``), then the edges of training crops (``patch``). Either is left
    alone if the user has set it. An existing run keeps its settings. ``memory``: bytes, of this
    process on a CPU, of the device on CUDA. ``processes``: that share a batch. Raises
    EnvironmentFault: nothing fits.
    """
    if (out / MANIFEST).exists():
        begun = RunFolder(out).loop_options
        kept = {key: json.dumps(begun[key]) for key in ("accumulate", "patch") if begun.get(key)}
        return kept | dict(settings)
    job = resolve(generator, request, settings, edits, device)
    budget, attempts, before = memory / 2**20, list[str](), 0
    for changes in _halved(job, settings, processes):
        changed = dict(settings) | changes
        measured = _measure_in_own_process(generator, request, changed, edits, device)
        peak = measured["memory_mib"]
        named = " ".join([f"{k}={v}" for k, v in changes.items()]) or "as asked"
        attempts.append(f"{named}: {'out of memory' if peak is None else f'{peak} MiB'}")
        if peak is not None and peak <= budget:
            reporter.say(
                f"--max-memory: tried {'; '.join(attempts)}. The last one fits and is taken"
            )
            return changed
        before = measured.get("memory_before_mib", before)
    raise EnvironmentFault(
        "fitting.nothing-fits-max-memory",
        f"--max-memory: nothing fits {budget:.0f} MiB ({'; '.join(attempts)}). {before} MiB "
        "are needed before the first step. Expected more memory, --set batch_size=1, smaller "
        "networks (gansynth options NAME) or another --device",
    )


def _halved(job: FitJob, settings: Mapping[str, str], processes: int) -> Iterator[dict[str, str]]:
    yield {}
    if not job.trains:
        return
    changes: dict[str, str] = {}
    batches = [stage.batch_size or job.options.batch_size for stage in job.generator.stages()]
    parts = 2
    while "accumulate" not in settings and all(n % (parts * processes) == 0 for n in batches):
        changes = {"accumulate": str(parts)}
        yield changes
        parts *= 2
    edges = list(job.space.size)
    crops = "patch" not in settings and job.space.grid in ("crop", "slice")
    while crops and max(edges) > SMALLEST_PATCH:
        edges = [max(min(n, SMALLEST_PATCH), round(n / 16) * 8) for n in edges]
        yield dict(changes, patch=json.dumps(edges))


def _measure_in_own_process(
    generator: str,
    request: SourceRequest,
    settings: Mapping[str, str],
    edits: Sequence[str] | None,
    device: str,
) -> dict[str, Any]:
    """Return ``measure``'s report; ``memory_mib`` is None where the memory ran out."""
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
        raise GansynthError.printed(done.returncode, last)
    words = ("OutOfMemory", "MemoryError", "allocate memory")  # of torch on CUDA, Python, the CPU
    if done.returncode == -9 or any(word in done.stderr for word in words):
        return {"memory_mib": None}
    raise EnvironmentFault(
        "fitting.memory-measuring-ended",
        f"--max-memory: measuring ended with code {done.returncode}: "
        f"{(done.stderr.splitlines() or ['nothing'])[-1]}; leave --max-memory out",
    )


def _main() -> int:
    generator, request, settings, edits, device = json.load(sys.stdin)
    try:
        job = resolve(generator, SourceRequest(**request), settings, edits, device)
        answer, code = json.dumps(measure(job, Path("-"))), 0
    except GansynthError as fault:
        answer, code = fault.line, fault.exit_code
    sys.stdout.write(f"{answer}\n")
    return code


if __name__ == "__main__":
    sys.exit(_main())
