"""Losses and optimisers of DeepMedic's ``cost_functions.py``, ``optimizers.py``, ``trainer.py``.

torch's own optimisers differ in the position of the denominator's epsilon, and in the factor of
momentum. Their RMSProp has no Nesterov momentum.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, overload

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from gansynth_deepmedic.engine.settings import Losses, Optimisation, RateSchedule

_TINY = 1e-8
_LOG_EPS, _COUNT_EPS, _OVERLAP_EPS = 1e-6, 1e-6, 1e-5
_SPACE = (0, 2, 3, 4)


class Optimiser(torch.optim.Optimizer):
    """SGD, Adam or RMSProp with DeepMedic's momentum, L1 and L2."""

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        regularised: Iterable[nn.Parameter],
        how: Optimisation,
    ) -> None:
        self.how = how
        chosen = list(regularised)
        ids = {id(parameter) for parameter in chosen}
        others = [parameter for parameter in parameters if id(parameter) not in ids]
        groups = [{"params": chosen, "regularised": True}, {"params": others, "regularised": False}]
        super().__init__(groups, {"lr": how.rate, "momentum": how.momentum, "regularised": False})

    @overload
    def step(self, closure: None = None) -> None: ...
    @overload
    def step(self, closure: Callable[[], float]) -> float: ...
    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                gradient = parameter.grad
                if group["regularised"]:
                    decay = parameter.sign() * self.how.l1 + parameter * (2 * self.how.l2)
                    gradient = gradient + decay
                self._change(parameter, gradient, group)
        return None

    def _change(self, parameter: nn.Parameter, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        if self.how.kind == "adam":
            parameter.add_(self._adam(state, gradient), alpha=-group["lr"])
            return
        if self.how.kind == "rmsprop":
            squares = _moment(state, "squares", gradient)
            squares.mul_(self.how.rho).addcmul_(gradient, gradient, value=1 - self.how.rho)
            gradient = gradient / (squares + self.how.eps).sqrt()
        momentum = group["momentum"]
        along = gradient * (group["lr"] * (1 - momentum if self.how.normalised else 1.0))
        velocity = _moment(state, "velocity", gradient)
        velocity.mul_(momentum).sub_(along)
        parameter.add_(velocity * momentum - along if self.how.nesterov else velocity)

    def _adam(self, state: dict[str, Any], gradient: Tensor) -> Tensor:
        mean, squares = (_moment(state, key, gradient) for key in ("mean", "squares"))
        state["steps"] = state.get("steps", torch.zeros(())) + 1
        steps = float(state["steps"])
        mean.mul_(self.how.b1).add_(gradient, alpha=1 - self.how.b1)
        squares.mul_(self.how.b2).addcmul_(gradient, gradient, value=1 - self.how.b2)
        scale = float((1 - self.how.b2**steps) ** 0.5 / (1 - self.how.b1**steps))
        return scale * mean / (squares.sqrt() + self.how.eps)


def _moment(state: dict[str, Any], key: str, like: Tensor) -> Tensor:
    if key not in state:
        state[key] = torch.zeros_like(like)
    moment: Tensor = state[key]
    return moment


class Rates:
    """Schedule of learning rate and momentum by epoch.

    Attributes:
        done: number of epochs done.
        divided: ``auto``: number of times the rate has been lowered.
        best: ``auto``: best accuracy on validation segments so far.
        best_at: epochs done before the best one.
        lowered_at: epochs done when the rate was lowered last.
    """

    _kept = ("done", "divided", "best", "best_at", "lowered_at")

    def __init__(self, schedule: RateSchedule, rate: float, momentum: float) -> None:
        self.schedule, self.first, self.first_momentum = schedule, rate, momentum
        self.done, self.divided, self.best, self.best_at, self.lowered_at = 0, 0, 0.0, 0, 0

    def rate(self, done: float) -> float:
        """Return the learning rate after ``done`` epochs."""
        schedule = self.schedule
        if schedule.kind == "predef":
            passed = sum(done > epoch for epoch in schedule.at)
            return float(self.first / schedule.divide**passed)
        if schedule.kind == "auto":
            return float(self.first / schedule.divide**self.divided)
        if schedule.kind == "poly":
            return float(self.first * (1 - self._share(done)) ** 0.9)
        if schedule.kind == "expon":
            return float(
                self.first * ((schedule.last_rate + _TINY) / self.first) ** self._share(done)
            )
        return self.first

    def momentum(self, done: float) -> float:
        """Return the momentum after ``done`` epochs; only the exponential schedule changes it.

        It changes linearly from the first to the last value. DeepMedic adds the last value instead
        of the first, and so exceeds 1.
        """
        if self.schedule.kind != "expon":
            return self.first_momentum
        gain = self.schedule.last_momentum - self.first_momentum
        return self.first_momentum + gain * self._share(done)

    def end_epoch(self, done: int, accuracy: float | None) -> None:
        """Lower the rate when due; only ``auto`` uses the accuracy."""
        self.done = done + 1
        if self.schedule.kind != "auto":
            return
        if accuracy is not None and accuracy > self.best + self.schedule.least_gain:
            self.best, self.best_at = accuracy, done
        if done >= max(self.best_at, self.lowered_at) + self.schedule.wait:
            self.divided, self.lowered_at = self.divided + 1, done

    def restart(self, done: int) -> None:
        """Begin another training after ``done`` epochs, with a fresh state of ``auto``."""
        self.divided, self.best, self.best_at, self.lowered_at = 0, 0.0, done, done

    def state(self) -> dict[str, Tensor]:
        """Return the state for a checkpoint; see ``gansynth.core.generator.TrainingBuffer``."""
        return {key: torch.tensor(getattr(self, key), dtype=torch.float64) for key in self._kept}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Restore the result of ``state``."""
        for key in self._kept:
            setattr(self, key, type(getattr(self, key))(state[key].item()))

    def _share(self, done: float) -> float:
        """Return the elapsed share of the time after waiting, 0 to 1."""
        schedule = self.schedule
        return min(max(0.0, done - schedule.wait) / (schedule.epochs - schedule.wait), 1.0)


def loss_of(
    logits: Tensor, labels: Tensor, losses: Losses, done: int
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """Return the weighted sum of a batch's losses, and each loss by name.

    Args:
        logits: (B, classes, X, Y, Z).
        labels: whole numbers (B, X, Y, Z); negative ones have no class and do not count.
    """
    classes = logits.shape[1]
    probabilities = logits.float().softmax(dim=1)
    labelled = labels >= 0
    clean = labels.clamp(min=0)
    parts: dict[str, Tensor] = {}
    if losses.xentr:
        log_right = (probabilities.gather(1, clean[:, None])[:, 0] + _LOG_EPS).log()
        weights = class_weights(clean, labelled, losses, classes, done)
        parts["xentr"] = -(weights[clean] * log_right * labelled).sum() / labels.numel()
    if losses.iou or losses.dsc:
        truth = (F.one_hot(clean, classes) * labelled[..., None]).movedim(-1, 1).float()
        if losses.iou:
            parts["iou"] = _one_minus_iou(probabilities, truth)
        if losses.dsc:
            parts["dsc"] = _one_minus_dice(probabilities, truth)
    total = sum(
        (getattr(losses, name) * part for name, part in parts.items()), logits.new_zeros(())
    )
    return total, parts


def class_weights(
    labels: Tensor, labelled: Tensor, losses: Losses, classes: int, done: int
) -> Tensor:
    """Return the class weights (classes,) of the cross-entropy, which fade to 1 over epochs."""
    if losses.reweight == "freq":
        counts = torch.bincount(labels[labelled].flatten(), minlength=classes).float()
        first = labels.numel() / classes / (counts + _COUNT_EPS)
    elif losses.reweight == "per_c":
        first = torch.tensor(losses.weights, device=labels.device)
    else:
        return torch.ones(classes, device=labels.device)
    begin, end = losses.until
    share = (min(max(done, begin), end) - begin) / (end - begin)
    return first + (1 - first) * share


def _one_minus_iou(probabilities: Tensor, truth: Tensor) -> Tensor:
    both = (probabilities * truth).sum(dim=_SPACE)
    either = (probabilities * (1 - truth)).sum(dim=_SPACE) + truth.sum(dim=_SPACE)
    return 1 - ((both + _OVERLAP_EPS) / (either + _OVERLAP_EPS)).mean()


def _one_minus_dice(probabilities: Tensor, truth: Tensor) -> Tensor:
    both = 2 * (probabilities * truth).sum(dim=_SPACE)
    sizes = probabilities.sum(dim=_SPACE) + truth.sum(dim=_SPACE)
    return 1 - ((both + _OVERLAP_EPS) / (sizes + _OVERLAP_EPS)).mean()
