"""The run folder's checkpoints as the training loop uses them, and what else it calls."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from gansynth.runtime.distributed import Team
from gansynth.runtime.files import disk_errors
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.signals import StopRequest
from gansynth.training import checkpoint
from gansynth.training.state import Learner

MOST_ROLLBACKS = 3
"""Times a run goes back to a checkpoint before it gives up."""


@dataclass
class Callbacks:
    """What else happens during a training; all of it in the first process only.

    ``checkpoint``: called with each published checkpoint, and the one resumed from, and its step.
    ``stop``: asked after every step; a signal's number, 0 to go on.
    """

    checkpoint: Callable[[Path, int], None] = lambda path, step: None
    preview: Callable[[int], None] | None = None
    metrics: Callable[[int, Mapping[str, float]], None] = lambda step, values: None
    reporter: Reporter = field(default_factory=NullReporter)
    stop: StopRequest = field(default_factory=StopRequest)


class Shelf:
    """The run folder's checkpoints, as the loop uses them."""

    def __init__(
        self,
        folder: Path | None,
        learner: Learner,
        identity: Mapping[str, Any],
        callbacks: Callbacks,
        team: Team,
    ) -> None:
        self.folder = None if folder is None else folder / "checkpoints"
        self.learner, self.identity = learner, identity
        self.callbacks, self.team = callbacks, team

    def take_up(self, announce_start: bool) -> tuple[int | None, list[str]]:
        """Go on from the newest whole checkpoint: its step (None if there is none), and notes."""
        found = None if self.folder is None else checkpoint.latest(self.folder)
        # Nobody may publish or drop a checkpoint while others still look for the newest.
        self.team.wait()
        if found is None:
            return None, []
        self.learner.restore(found)
        step: int = found.state["step"]
        if self.team.leads:  # a kill may have come before they were dropped
            checkpoint.drop_old(found.folder.parent, found.folder)
        if (step or announce_start) and self.team.leads:
            # Whoever keeps track of checkpoints may have been killed before it heard of this one.
            self.callbacks.checkpoint(found.folder, step)
        return step, found.passed_over + self._not_identical(found.state)

    def publish(self, step: int, announce: bool = True) -> str:
        """Write a checkpoint, or say what is not finite; nothing without a folder."""
        if self.folder is None:
            return ""
        tensors = self.learner.tensors()
        sick = (name for name, value in tensors.items() if not torch.isfinite(value).all())
        name = next(sick, "")
        ill = f"{name} holds NaN or infinite values after step {step}" if name else ""
        # Processes hold things of their own (a pool, batch statistics); all go on, or none does.
        if self.team.any(bool(ill), self.learner.generator.device):
            ill = ill or f"another process holds NaN or infinite values after step {step}"
        if ill:
            return ill
        if self.team.leads:
            with disk_errors(self.folder):
                self.folder.mkdir(parents=True, exist_ok=True)
            state = {**self.learner.state(), **self.identity}
            path = checkpoint.save(self.folder, step, tensors, self.learner.averages, state)
            if announce:
                self.callbacks.checkpoint(path, step)
        self.team.wait()
        return ""

    def clear(self) -> tuple[None, list[str]]:
        """Forget what an earlier run left; no step, no notes."""
        if self.folder is not None and self.team.leads:
            shutil.rmtree(self.folder, ignore_errors=True)
        return None, []

    def roll_back(self, ill: str) -> int:
        """Return to the newest checkpoint and halve the rates; its step."""
        assert self.folder is not None
        count = self.learner.rollbacks + 1
        found = checkpoint.latest(self.folder)
        assert found is not None, "the start was published"
        self.learner.restore(found)
        self.learner.rollbacks = count
        step: int = found.state["step"]
        self.callbacks.reporter.warn(
            f"training: {ill}, expected finite numbers; back to step {step} at {0.5**count:g} of "
            f"the learning rates (time {count} of {MOST_ROLLBACKS})"
        )
        return step

    def preview(self, step: int) -> None:
        """Let the first process draw a sheet with the averaged weights, unless told to stop."""
        stop = self.callbacks.stop
        if self.team.leads and self.callbacks.preview is not None and not stop.number:
            # The averages go back deferred: live weights must be whole when they are checkpointed.
            with self.learner.averaged(), stop.giving_up():
                self.callbacks.preview(step)

    def _not_identical(self, state: Mapping[str, Any]) -> list[str]:
        notes = [
            f"resumed with {key} {value} instead of {state[key]}: the run goes on, but not bit for "
            "bit"
            for key, value in self.identity.items()
            if key in state and state[key] != value
        ]
        if self.team.size > 1 and self.learner.generator.memories:
            held = ", ".join(self.learner.generator.memories)
            notes.append(
                f"resumed with the first process's {held} in all {self.team.size}: the run goes "
                "on, but not bit for bit"
            )
        return notes
