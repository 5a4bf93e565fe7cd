"""nnU-Net's learning rate, which starts anew where fine-tuning begins."""

from __future__ import annotations

from typing import Any

from gansynth.core.schedule import Schedule


class Restarting:
    """A scheduler of nnU-Net's that goes through all of its rates in each phase of a schedule.

    Args:
        scheduler: nnU-Net's own, which is told the epoch; whatever else is asked of this is its.
        schedule: of what is mixed in.
        epochs: of the whole training.
    """

    def __init__(self, scheduler: Any, schedule: Schedule, epochs: int) -> None:
        self.scheduler, self.schedule, self.epochs = scheduler, schedule, epochs

    def step(self, epoch: int | None = None) -> None:
        """Set the rate of an epoch, counted from 0."""
        at = epoch if epoch is None else self.schedule.restarted(epoch, self.epochs)
        self.scheduler.step(at)

    def __getattr__(self, name: str) -> Any:
        if name == "scheduler":  # not yet unpickled
            raise AttributeError(name)
        return getattr(self.scheduler, name)
