"""Training state: weights, optimisers, averages, memories, loss scale, counts; unread losses."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from gansynth.core.capabilities import AVERAGED
from gansynth.core.generator import Generator
from gansynth.training import checkpoint
from gansynth.training.loggers import MetricsLog


@dataclass
class TrainingState:
    """Training state of a generator."""

    generator: Generator
    optimizers: dict[str, torch.optim.Optimizer]
    averages: dict[str, Tensor]
    scaler: torch.amp.GradScaler
    images: int = 0
    rollbacks: int = 0
    sums: dict[str, tuple[float, int]] = field(default_factory=dict)
    """Of the losses since the last line of ``metrics.csv``; see ``MetricsLog``."""
    _rates: dict[str, list[float]] = field(default_factory=dict)
    _factor: float | None = None
    _live: list[Tensor] = field(default_factory=list)
    """The weights that are averaged, in the order of ``averages``."""

    @classmethod
    def of(cls, generator: Generator, scaler: torch.amp.GradScaler) -> TrainingState:
        nets = generator.nets
        optimizers = {
            player: generator.optimizer(player, [p for n in names for p in nets[n].parameters()])
            for player, names in generator.players().items()
            if generator.phases()
        }
        for optimizer in optimizers.values():
            _put_rates_on_device(optimizer)
        averaged = _floats(nets[AVERAGED]) if AVERAGED in nets else ()
        live = {f"{AVERAGED}/{k}": v for k, v in averaged}
        averages = {k: v.detach().clone() for k, v in live.items()}
        rates = {k: [float(g["lr"]) for g in o.param_groups] for k, o in optimizers.items()}
        return cls(generator, optimizers, averages, scaler, _rates=rates, _live=list(live.values()))

    def parameters(self, player: str) -> list[nn.Parameter]:
        """Return the parameters that a player optimises."""
        return [p for group in self.optimizers[player].param_groups for p in group["params"]]

    def every_tensor(self) -> list[Tensor]:
        """Return weights, buffers and averages."""
        held = [v for net in self.generator.nets.values() for v in net.state_dict().values()]
        return [*held, *self.averages.values()]

    def set_rates(self, factor: float) -> None:
        """Multiply every player's learning rate by a factor, and by 1/2 for each rollback."""
        factor *= 0.5**self.rollbacks
        if factor == self._factor:
            return
        self._factor = factor
        for player, optimizer in self.optimizers.items():
            for group, rate in zip(optimizer.param_groups, self._rates[player], strict=True):
                chosen = rate * factor
                if isinstance(group["lr"], Tensor):
                    group["lr"].fill_(chosen)
                else:
                    group["lr"] = chosen

    # -- the moving averages ---------------------------------------------------------------------

    @torch.no_grad()
    def average(self, decay: float) -> None:
        """Move the averages towards the weights: average = decay * average + (1 - decay) * w."""
        if self.averages:
            torch._foreach_lerp_(list(self.averages.values()), self._live, 1 - decay)

    def load_averages(self) -> None:
        """Load the averages into the networks."""
        _copy(self._live, self.averages.values())

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Load the averages temporarily; the live weights are always restored."""
        live = [weights.clone() for weights in self._live]
        self.load_averages()
        try:
            yield
        finally:
            _copy(self._live, live)

    # -- as a checkpoint -------------------------------------------------------------------------

    def tensors(self) -> dict[str, Tensor]:
        """Return every tensor by name: ``net/``, ``ema/``, ``optim/`` and ``memory/`` entries."""
        tensors = checkpoint.collect(self.generator.nets, self.averages, self.optimizers)
        for name, memory in self.generator.buffers.items():
            tensors.update({f"memory/{name}/{k}": v for k, v in memory.state().items()})
        return tensors

    def state(self) -> dict[str, Any]:
        """Return the state without tensors, as JSON."""
        scaler = self.scaler.state_dict() or None
        sums = {name: [repr(total), count] for name, (total, count) in self.sums.items()}
        counts = {"images": self.images, "rollbacks": self.rollbacks}
        return {**counts, "scaler": scaler, "sums": sums}

    def restore(self, saved: checkpoint.Checkpoint) -> None:
        """Load what ``tensors`` and ``state`` returned. Raises IntegrityFault as ``restore``."""
        nets, averages = self.generator.nets, self.averages
        checkpoint.restore(saved.tensors, nets, averages, self.optimizers, saved.folder)
        for name, memory in self.generator.buffers.items():
            prefix = f"memory/{name}/"
            memory.load(
                {k[len(prefix) :]: v for k, v in saved.tensors.items() if k.startswith(prefix)}
            )
        self.images = saved.state["images"]
        self.rollbacks = saved.state.get("rollbacks", 0)
        sums = saved.state.get("sums", {})
        self.sums.clear()
        self.sums.update({name: (float(total), count) for name, (total, count) in sums.items()})
        if saved.state.get("scaler"):
            self.scaler.load_state_dict(saved.state["scaler"])


def _put_rates_on_device(optimizer: torch.optim.Optimizer) -> None:
    """Make a fused optimiser read its rates from the device, so that its step can be replayed."""
    for group in optimizer.param_groups:
        first = group["params"][0]
        if group.get("fused") and first.is_cuda:
            group["lr"] = torch.full((), float(group["lr"]), device=first.device)
            group["capturable"] = True


@torch.no_grad()
def _copy(targets: Iterable[Tensor], sources: Iterable[Tensor]) -> None:
    for target, source in zip(targets, sources, strict=True):
        target.copy_(source)


def _floats(net: nn.Module) -> Iterator[tuple[str, Tensor]]:
    return ((k, v) for k, v in net.state_dict().items() if v.is_floating_point())


class PendingLosses:
    """Losses of steps, on their device until they are read: reading them waits for a GPU."""

    def __init__(self) -> None:
        self._pending: list[tuple[int, list[str], Tensor]] = []

    def add(self, step: int, player: str, names: Sequence[str], values: Tensor) -> None:
        """Keep one phase's losses (names,) of a step."""
        self._pending.append((step, [f"{player}/{name}" for name in names], values))

    def read_into(self, log: MetricsLog) -> str:
        """Add all to a log, in order; return the first non-finite one as text, empty if none is."""
        values = iter(torch.cat([v for *_, v in self._pending]).tolist() if self._pending else ())
        fault = ""
        for step, names, _ in self._pending:
            found = dict(zip(names, values, strict=False))
            log.add(found)
            for name, value in found.items():
                if not fault and not math.isfinite(value):
                    fault = f"loss {name} is {value} at step {step}"
        self._pending.clear()
        return fault
