"""One optimiser step of each player: losses, gradients, weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gansynth.core.generator import Generator, Phase, TrainingStep
from gansynth.runtime.distributed import ProcessGroup
from gansynth.training.state import TrainingState

PhaseLosses = tuple[str, list[str], Tensor]
"""Player, names of its losses, and their means over the whole batch, (losses,)."""


@dataclass(frozen=True)
class PlayersUpdate:
    """Steps each player on the loss of its phase, the others frozen.

    ``kind``: the device's type. ``half``: the data type of autocast; None for full precision.
    """

    generator: Generator
    training_state: TrainingState
    scaler: torch.amp.GradScaler
    kind: str
    half: torch.dtype | None
    process_group: ProcessGroup

    def __call__(
        self, shares: Sequence[TrainingStep], phases: Sequence[Phase]
    ) -> list[PhaseLosses]:
        """Run some phases on the parts of a batch, in order."""
        return [self._step(shares, phase) for phase in phases]

    def _step(self, shares: Sequence[TrainingStep], phase: Phase) -> PhaseLosses:
        optimizer = self.training_state.optimizers[phase.player]
        names, values = self._backward(shares, phase)
        values = self.process_group.mean(values)
        parameters = self.training_state.parameters(phase.player)
        self.process_group.average_gradients(parameters)
        self.scaler.step(optimizer)  # with fp16, not if a gradient overflowed
        self.scaler.update()
        if phase.after is not None:
            phase.after()
        return phase.player, names, values

    def _backward(self, shares: Sequence[TrainingStep], phase: Phase) -> tuple[list[str], Tensor]:
        """Compute the gradients of a phase's player; return its losses, means over the shares."""
        players = self.generator.players()
        for name, net in self.generator.nets.items():
            net.train().requires_grad_(name in players[phase.player])
        self.training_state.optimizers[phase.player].zero_grad(set_to_none=True)
        losses = []
        for step in shares:
            with torch.autocast(self.kind, self.half, enabled=self.half is not None):
                terms = phase.loss(step)
            stacked = torch.stack([t.float() for t in terms.values()])
            each = torch.full_like(stacked, 1 / len(shares))
            torch.autograd.backward(stacked, self.scaler.scale(each))
            losses.append(stacked.detach())
        return list(terms), losses[0] if len(losses) == 1 else torch.stack(losses).mean(0)
