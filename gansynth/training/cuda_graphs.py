"""Training steps replayed as CUDA graphs.

A small GAN's step starts hundreds of kernels. Python takes longer to start them than a GPU to run
them. A CUDA graph starts all kernels of a step at once, on the same numbers.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from gansynth.core.generator import Batch, Phase, Stage, TrainingStep
from gansynth.runtime.progress import Reporter
from gansynth.training.update import PhaseLosses, PlayersUpdate

Compile = Literal["auto", "graphs", "off"]
WARM_UP = 3
"""Steps of a kind that run as they are, before the next is captured.

In the last of them nothing may wait for the GPU.
"""
MOST_KINDS = 8  # graphs at once; further kinds of steps run as they are
_WAITS = "synchronizing CUDA operation"
"""What torch's warning of a wait says (``torch.cuda.set_sync_debug_mode``)."""


@dataclass(frozen=True)
class _Captured:
    """A step as a CUDA graph: it reads the batches of ``shares`` and writes ``losses``."""

    graph: torch.cuda.CUDAGraph
    shares: list[TrainingStep]
    losses: list[PhaseLosses]


class StepReplay:
    """Updates the players, by CUDA graphs where that is possible.

    There is a graph for each kind of step: its phases, stage and shapes of batches. Random numbers
    are those of the step's own generators. Rates of the optimisers, moving averages and random
    states change outside the graphs. With ``compile=graphs`` a line says why steps run as they are.

    ``settle``: waits until other threads leave the GPU alone, before a capture.

    Steps run as they are: with fp16, whose overflows skip updates; with several processes; with an
    optimiser whose rates are no tensors on the device.
    """

    def __init__(
        self,
        update: PlayersUpdate,
        choice: Compile,
        device: torch.device,
        reporter: Reporter,
        settle: Callable[[], None],
    ) -> None:
        self.update, self.device, self.reporter, self.settle = update, device, reporter, settle
        self.wanted = choice == "graphs"
        self._seen: dict[Hashable, int] = {}
        self._captured: dict[Hashable, _Captured] = {}
        self._stage: Stage | None = None
        self._pool: Any = None
        self._on = choice in ("auto", "graphs")
        hindrance = self._hindrance()
        if hindrance:
            self._run_as_they_are(hindrance)

    def __enter__(self) -> StepReplay:
        return self

    def __exit__(self, *_: object) -> None:
        self.forget()

    def __call__(
        self, shares: Sequence[TrainingStep], phases: Sequence[Phase]
    ) -> list[PhaseLosses]:
        """Run the phases of a step on the parts of its batch; return their losses."""
        if shares[0].stage is not self._stage:
            self.forget()
            self._stage = shares[0].stage
        if not self._on:
            return self.update(shares, phases)
        kind = _kind(shares, phases)
        if kind not in self._captured:
            seen = self._seen[kind] = self._seen.get(kind, 0) + 1
            if seen == WARM_UP:
                return self._watched(shares, phases)
            if seen < WARM_UP or len(self._captured) == MOST_KINDS:
                return self.update(shares, phases)
            return self._first(kind, shares, phases)
        return self._replay(self._captured[kind], shares)

    def forget(self) -> None:
        """Drop all graphs, and the gradients that lie in their memory."""
        if self._captured:
            for optimizer in self.update.training_state.optimizers.values():
                optimizer.zero_grad(set_to_none=True)
        self._captured.clear()
        self._seen.clear()
        self._pool = None

    def give_up(self, error: RuntimeError) -> bool:
        """Replay no further steps after an error of CUDA; return whether any could have been.

        Its cause may be a graph: the training goes back to its last checkpoint and does without.
        """
        if not self._on or isinstance(error, torch.OutOfMemoryError):
            return False
        self._on = False
        self.forget()
        self.reporter.warn(
            f"compile: CUDA failed ({_short(error)}); back to the last checkpoint, without CUDA "
            "graphs"
        )
        return True

    def _hindrance(self) -> str:
        """Return why no step can be replayed, or nothing."""
        update = self.update
        groups = [
            group
            for optimizer in update.training_state.optimizers.values()
            for group in optimizer.param_groups
        ]
        if self.device.type != "cuda":
            return f"the device is {self.device.type}, not CUDA"
        if not update.generator.capabilities.replays:
            return f"steps of {update.generator.name} with these options change state in Python"
        if update.scaler.is_enabled():
            return "fp16 skips updates whose gradients overflow"
        if update.process_group.size > 1:
            return f"{update.process_group.size} processes train together"
        if not all(isinstance(group["lr"], Tensor) for group in groups):
            return "an optimiser is not fused"
        return ""

    def _run_as_they_are(self, why: str) -> None:
        self._on = False
        if self.wanted:
            self.reporter.say(f"compile=graphs: {why}, so steps run as they are")

    def _watched(
        self, shares: Sequence[TrainingStep], phases: Sequence[Phase]
    ) -> list[PhaseLosses]:
        """Run a step as it is; nothing is replayed if something in it waits for the GPU."""
        before = torch.cuda.get_sync_debug_mode()
        with warnings.catch_warnings(record=True) as noted:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                losses = self.update(shares, phases)
            finally:
                torch.cuda.set_sync_debug_mode(before)
        waits = [note for note in noted if _WAITS in str(note.message)]
        if waits:
            place = f"{waits[0].filename}:{waits[0].lineno}"
            self._run_as_they_are(f"a step waits for the GPU ({place})")
        return losses

    def _first(
        self, kind: Hashable, shares: Sequence[TrainingStep], phases: Sequence[Phase]
    ) -> list[PhaseLosses]:
        """Capture a step and run it; as it is, from now on, if that fails."""
        try:
            self._captured[kind] = self._capture(shares, phases)
            return self._replay(self._captured[kind], shares)
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:  # nothing has run on the GPU yet
            self.forget()
            self._run_as_they_are(f"CUDA refuses it ({_short(error)})")
            _end_capture(step.rng for step in shares)
            for step in shares:
                step.rng.manual_seed(step.key)
            return self.update(shares, phases)

    def _capture(self, shares: Sequence[TrainingStep], phases: Sequence[Phase]) -> _Captured:
        """Record a step as a graph; it runs when it is replayed."""
        graph = torch.cuda.CUDAGraph()
        if self._pool is None:
            self._pool = torch.cuda.graph_pool_handle()
        own = [replace(step, batch=_copy(step.batch), scratch={}) for step in shares]
        for step in own:
            graph.register_generator_state(step.rng)
        self.settle()
        with torch.cuda.graph(graph, self._pool, capture_error_mode="thread_local"):
            losses = self.update(own, phases)
        return _Captured(graph, own, losses)

    @staticmethod
    def _replay(captured: _Captured, shares: Sequence[TrainingStep]) -> list[PhaseLosses]:
        for own, new in zip(captured.shares, shares, strict=True):
            for name, tensor in _tensors(own.batch).items():
                tensor.copy_(getattr(new.batch, name), non_blocking=True)
        captured.graph.replay()
        return [(player, names, values.clone()) for player, names, values in captured.losses]


def _end_capture(rngs: Iterable[torch.Generator]) -> None:
    """Let random generators leave a capture that has failed: by one that succeeds."""
    graph = torch.cuda.CUDAGraph()
    for rng in rngs:
        graph.register_generator_state(rng)
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        torch.zeros(1, device="cuda")


def _short(error: RuntimeError) -> str:
    return str(error).partition("\n")[0][:200]


def _kind(shares: Sequence[TrainingStep], phases: Sequence[Phase]) -> Hashable:
    shapes = [
        (name, tensor.shape, tensor.dtype)
        for step in shares
        for name, tensor in _tensors(step.batch).items()
    ]
    fades = isinstance(shares[0].alpha, Tensor)
    return tuple(map(id, phases)), shares[0].stage, fades, tuple(shapes)


def _tensors(batch: Batch) -> dict[str, Tensor]:
    return {name: value for name, value in vars(batch).items() if isinstance(value, Tensor)}


def _copy(batch: Batch) -> Batch:
    return replace(batch, **{name: tensor.clone() for name, tensor in _tensors(batch).items()})
