"""What is minimised, as DeepMedic's ``cost_functions.py`` and ``trainer.py`` have it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from gansynth_deepmedic.engine.settings import Losses

_LOG_EPS, _COUNT_EPS, _OVERLAP_EPS = 1e-6, 1e-6, 1e-5


def loss_of(
    logits: Tensor, labels: Tensor, losses: Losses, done: int
) -> tuple[Tensor, Mapping[str, Tensor]]:
    """The losses of a batch, weighted and added up.

    Args:
        logits: (B, classes, X, Y, Z).
        labels: whole numbers (B, X, Y, Z); negative ones have no class, and count in no sum.

    Returns:
        The sum, and each loss by its name.
    """
    classes = logits.shape[1]
    probabilities = logits.float().softmax(dim=1)
    known = labels >= 0
    clean = labels.clamp(min=0)
    parts: dict[str, Tensor] = {}
    if losses.xentr:
        log_right = (probabilities.gather(1, clean[:, None])[:, 0] + _LOG_EPS).log()
        weights = class_weights(clean, known, losses, classes, done)
        parts["xentr"] = -(weights[clean] * log_right * known).sum() / labels.numel()
    if losses.iou or losses.dsc:
        truth = (F.one_hot(clean, classes) * known[..., None]).movedim(-1, 1).float()
        if losses.iou:
            parts["iou"] = _one_minus_iou(probabilities, truth)
        if losses.dsc:
            parts["dsc"] = _one_minus_dice(probabilities, truth)
    total = sum(
        (getattr(losses, name) * part for name, part in parts.items()), logits.new_zeros(())
    )
    return total, parts


def class_weights(labels: Tensor, known: Tensor, losses: Losses, classes: int, done: int) -> Tensor:
    """Weights (classes,) in the cross-entropy, fading to 1 between two epochs."""
    if losses.reweight == "freq":
        counts = torch.bincount(labels[known].flatten(), minlength=classes).float()
        first = labels.numel() / classes / (counts + _COUNT_EPS)
    elif losses.reweight == "per_c":
        first = torch.tensor(losses.weights, device=labels.device)
    else:
        return torch.ones(classes, device=labels.device)
    begin, end = losses.until
    share = (min(max(done, begin), end) - begin) / (end - begin)
    return first + (1 - first) * share


_SPACE = (0, 2, 3, 4)


def _one_minus_iou(probabilities: Tensor, truth: Tensor) -> Tensor:
    both = (probabilities * truth).sum(dim=_SPACE)
    either = (probabilities * (1 - truth)).sum(dim=_SPACE) + truth.sum(dim=_SPACE)
    return 1 - ((both + _OVERLAP_EPS) / (either + _OVERLAP_EPS)).mean()


def _one_minus_dice(probabilities: Tensor, truth: Tensor) -> Tensor:
    both = 2 * (probabilities * truth).sum(dim=_SPACE)
    sizes = probabilities.sum(dim=_SPACE) + truth.sum(dim=_SPACE)
    return 1 - ((both + _OVERLAP_EPS) / (sizes + _OVERLAP_EPS)).mean()
