"""Weights and crops of the dual-path network that do not depend on torch's random numbers.

``bench_dual_path.py`` of commit d7e6febd gave them to the network of the torch engine, whose
numbers were DeepMedic's, and wrote its outputs to ``reference/dual_path.json``.
"""

import math
from collections.abc import Sequence

import numpy as np
import torch

from gansynth_segmenter.dual_path import DualPath

CASES = [(25, (3,)), (37, (3,)), (41, (3,)), (37, (3, 5)), (41, (3, 5)), (41, (2, 3))]
"""Voxels of a segment, and the factors of its contexts."""
CHANNELS, LABELS, WIDTH, SEED = 2, 3, 6, 54


def with_weights(factors: Sequence[int]) -> tuple[DualPath, list[torch.Tensor]]:
    """A network in evaluation mode, and what the engine's adds to the image of each path."""
    rng = np.random.default_rng(SEED)
    network = DualPath(CHANNELS, LABELS, WIDTH, factors)
    state, shifts = {}, []
    for name, value in network.state_dict().items():
        shape = tuple(value.shape)
        if len(shape) == 5:
            array = rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape)
        elif name.endswith(("running_var", ".0.weight")):
            array = rng.uniform(0.5, 1.5, shape)
        else:
            array = rng.normal(0, 0.1, shape)
        state[name] = torch.from_numpy(np.asarray(array, np.float32)).to(value.dtype)
    for path in range(len(network.paths)):
        shift = torch.from_numpy(rng.normal(0, 0.1, CHANNELS).astype(np.float32))
        weight = state[f"paths.{path}.blocks.0.weight"]
        state[f"paths.{path}.blocks.0.bias"] = torch.einsum("ocxyz,c->o", weight, shift)
        shifts.append(shift)
    network.load_state_dict(state)
    return network.eval(), shifts


def crop_of(segment: int, factors: Sequence[int]) -> torch.Tensor:
    """A random crop of a segment with its contexts: float32 (1, C, D, H, W)."""
    edge = segment - 16 + 2 * DualPath(1, 2, 1, factors).margin
    rng = np.random.default_rng(SEED + segment)
    return torch.from_numpy(rng.normal(0, 1, (1, CHANNELS, *[edge] * 3)).astype(np.float32))


def figures(logits: torch.Tensor) -> list[float]:
    """Logits in a few numbers: those of both ends and the middle, and three random products."""
    flat = logits.detach().double().numpy().ravel()
    rng = np.random.default_rng(SEED)
    products = [float(flat @ rng.normal(0, 1, len(flat))) / math.sqrt(len(flat)) for _ in range(3)]
    places = (0, len(flat) // 2, len(flat) - 1)
    return [*(float(flat[place]) for place in places), *products]
