"""Checkpoints of a run folder for the training loop, and its callbacks."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gansynth.runtime.distributed import ProcessGroup
from gansynth.runtime.errors import DataFault, EnvironmentFault
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.signals import StopRequest
from gansynth.training import checkpoint
from gansynth.training.state import TrainingState

MOST_ROLLBACKS = 3  # most rollbacks of a run before it fails


@dataclass
class TrainingCallbacks:
    """Callbacks of a training, called in the first process only.

    ``checkpoint``: called with each published or resumed checkpoint and its step. ``stop``:
    called after every step; returns the number of a signal, 0 to continue.
    """

    checkpoint: Callable[[Path, int], None] = lambda path, step: None
    preview: Callable[[int], None] | None = None
    metrics: Callable[[int, Mapping[str, float]], None] = lambda step, values: None
    reporter: Reporter = field(default_factory=NullReporter)
    stop: StopRequest = field(default_factory=StopRequest)


@contextmanager
def _still_there(folder: Path) -> Iterator[None]:
    """Name checkpoints that vanish as such; they are no data of the user."""
    try:
        yield
    except DataFault as fault:
        raise EnvironmentFault(
            "training.checkpoints-removed",
            f"{folder}: checkpoints were removed while the training runs ({fault}); leave the "
            "folder alone, and run the same command again",
        ) from fault


class CheckpointManager:
    """Checkpoints of a run folder, for the training loop."""

    def __init__(
        self,
        folder: Path | None,
        training_state: TrainingState,
        identity: Mapping[str, Any],
        callbacks: TrainingCallbacks,
        process_group: ProcessGroup,
    ) -> None:
        self.folder = None if folder is None else folder / "checkpoints"
        self.training_state, self.identity = training_state, identity
        self.callbacks, self.process_group = callbacks, process_group

    def resume(self, announce_start: bool) -> tuple[int | None, list[str]]:
        """Resume from the newest whole checkpoint; return its step (None without one) and notes."""
        newest = None if self.folder is None else checkpoint.latest(self.folder)
        # No process may publish or drop a checkpoint while others look for the newest.
        self.process_group.wait()
        if newest is None:
            return None, []
        self.training_state.restore(newest)
        step: int = newest.state["step"]
        if self.process_group.is_main:  # an earlier process may have been killed before
            checkpoint.drop_old(newest.folder.parent, newest.folder)
        if (step or announce_start) and self.process_group.is_main:
            # A killed process may not have recorded this checkpoint.
            self.callbacks.checkpoint(newest.folder, step)
        return step, newest.passed_over + self._not_identical(newest.state)

    def publish(self, step: int, announce: bool = True) -> str:
        """Write a checkpoint; return what is non-finite instead. Without a folder, do nothing."""
        if self.folder is None:
            return ""
        tensors = self.training_state.tensors()
        fault = ""
        for name, value in tensors.items():
            if not torch.isfinite(value).all():
                fault = f"{name} holds NaN or infinite values after step {step}"
                break
        # Processes hold tensors of their own (pool, batch statistics): all continue, or none.
        if self.process_group.any(bool(fault)):
            fault = fault or f"another process holds NaN or infinite values after step {step}"
        if fault:
            return fault
        if self.process_group.is_main:
            state = self.training_state.state() | dict(self.identity)
            averages = self.training_state.averages
            with _still_there(self.folder):
                path = checkpoint.save(self.folder, step, tensors, averages, state)
                if announce:
                    self.callbacks.checkpoint(path, step)
        self.process_group.wait()
        return ""

    def clear(self) -> tuple[None, list[str]]:
        """Delete the checkpoints of an earlier run; return no step and no notes."""
        if self.folder is not None and self.process_group.is_main:
            shutil.rmtree(self.folder, ignore_errors=True)
        return None, []

    def roll_back(self, fault: str) -> int:
        """Return to the newest checkpoint and halve the rates; return its step."""
        count = self.training_state.rollbacks + 1
        step = self.go_back()
        self.training_state.rollbacks = count
        self.callbacks.reporter.warn(
            f"training: {fault}, expected finite numbers; back to step {step} at {0.5**count:g} of "
            f"the learning rates (time {count} of {MOST_ROLLBACKS})"
        )
        return step

    def go_back(self) -> int:
        """Restore the newest checkpoint; return its step."""
        assert self.folder is not None
        with _still_there(self.folder):
            newest = checkpoint.latest(self.folder)
            if newest is None:
                raise DataFault("training.no-checkpoint", f"{self.folder}: no checkpoint")
        self.training_state.restore(newest)
        step: int = newest.state["step"]
        return step

    def preview(self, step: int) -> None:
        """Write a preview grid of the averaged weights in the first process, unless stopping."""
        stop = self.callbacks.stop
        if self.process_group.is_main and self.callbacks.preview is not None and not stop.number:
            # Signals are deferred here: live weights must be whole when they are checkpointed.
            with self.training_state.averaged(), stop.giving_up():
                self.callbacks.preview(step)

    def _not_identical(self, state: Mapping[str, Any]) -> list[str]:
        notes = [
            f"resumed with {key} {value} instead of {state[key]}: it continues, but not bit for bit"
            for key, value in self.identity.items()
            if key in state and state[key] != value
        ]
        if self.process_group.size > 1 and self.training_state.generator.buffers:
            held = ", ".join(self.training_state.generator.buffers)
            notes.append(
                f"resumed with the first process's {held} in all {self.process_group.size}: it "
                "continues, but not bit for bit"
            )
        return notes
