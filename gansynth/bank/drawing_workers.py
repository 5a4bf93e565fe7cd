"""Processes that draw batches for one producer: which one draws a batch changes no sample."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Sample
from gansynth.runtime.child import follow
from gansynth.runtime.errors import DataFault

if TYPE_CHECKING:
    from gansynth.core.intake import Intake
    from gansynth.data.batches import CaseCache
    from gansynth.sampling.sampler import Sampler

Draw = Callable[[int, int], list[Sample]]


@dataclass(frozen=True)
class Drawing:
    """What is drawn from: a run's folder, its cases, and the host (or none) whose samples they are.

    ``measured``: whether samples note how much of a real image they repeat.
    """

    run: str
    request: Mapping[str, Any]
    target: str
    samples: SampleRequest
    device: str
    measured: bool


class Opened(NamedTuple):
    """A drawing whose run and cases are open; ``convert``: see ``open_drawer``."""

    sampler: Sampler
    convert: Callable[[Sample], Sample] | None
    intake: Intake | None
    cases: CaseCache


def open_drawing(drawing: Drawing, shared_by: int = 1) -> Opened:
    """Open cases, run and host of a drawing; so many processes share the memory for cases."""
    from gansynth.core.intake import intake_of
    from gansynth.core.run_folder import RunFolder
    from gansynth.core.source import SourceRequest
    from gansynth.data.batches import CaseCache
    from gansynth.runtime.machine import cache_memory
    from gansynth.sampling.run_source import open_source
    from gansynth.sampling.sampler import open_drawer

    source = open_source(SourceRequest(**drawing.request))
    intake = intake_of(drawing.target, source) if drawing.target else None
    run, cases = RunFolder(Path(drawing.run)), CaseCache(source, cache_memory() // shared_by)
    sampler, convert = open_drawer(
        source, intake, run, drawing.samples, device=drawing.device, cache=cases
    )
    sampler.measured = drawing.measured
    return Opened(sampler, convert, intake, cases)


def draw_converted(
    sampler: Sampler, convert: Callable[[Sample], Sample] | None, first: int, count: int
) -> list[Sample]:
    """Draw samples in the host's space; one that cannot be brought there has a reject reason."""
    samples = sampler.draw(first, count)
    if convert is None:
        return samples
    converted = []
    for sample in samples:
        try:
            converted.append(convert(sample))
        except DataFault as fault:
            reason = str(fault).removeprefix("sample: ")
            provenance = dict(sample.provenance, reject_reason=reason)
            converted.append(replace(sample, provenance=provenance))
    return converted


class DrawingWorkers(AbstractContextManager["DrawingWorkers"]):
    """Processes that open run and cases each for itself, and draw a batch each at a time.

    Args:
        count: number of processes. Each has as many threads as this one: with others, a sample
            would differ in its last bits, and records name the threads of this process.
        batch: samples that one draws at once.
    """

    def __init__(self, drawing: Drawing, count: int, batch: int) -> None:
        import torch

        self._batch = batch
        self._pool = ProcessPoolExecutor(
            count,
            mp_context=get_context("spawn"),  # torch's threads do not survive a fork
            initializer=_open,
            initargs=(drawing, count, torch.get_num_threads(), os.getpid()),
        )

    def draw(self, first: int, count: int) -> list[Sample]:
        """Return samples ``first`` to ``first + count - 1`` in order, drawn by batches."""
        begins = range(first, first + count, self._batch)
        drawn = [self._pool.submit(_draw, begin, self._batch) for begin in begins]
        samples: list[Sample] = []
        for batch in drawn:
            samples += batch.result()
        return samples

    def count(self) -> int:
        """Return the number of processes that were started."""
        return len(self._pool._processes or ())

    def __exit__(self, *_: object) -> None:
        """End the processes; batches that are not begun are left out."""
        self._pool.shutdown(cancel_futures=True)


# -- in a process ----------------------------------------------------------------------------------

_drawing: Draw | None = None


def _open(drawing: Drawing, count: int, threads: int, parent: int) -> None:
    global _drawing
    threading.Thread(target=follow, args=(parent,), daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    opened = open_drawing(drawing, shared_by=count)
    _drawing = partial(draw_converted, opened.sampler, opened.convert)


def _draw(first: int, count: int) -> list[Sample]:
    assert _drawing is not None, "see _open"
    return _drawing(first, count)
