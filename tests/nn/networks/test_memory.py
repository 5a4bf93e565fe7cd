"""How much memory networks take: bytes of the tensors alive at once, the same on every machine."""
# mypy: disallow-untyped-calls=False

import weakref
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gansynth.nn.networks import UNetGenerator, UNetStyle
from gansynth.nn.networks.blocks import strides_for
from gansynth.nn.tiled_inference import cut, draw_tiled


class Living(TorchDispatchMode):
    """Counts the bytes of the tensors alive after every operation."""

    def __init__(self) -> None:
        super().__init__()
        self.alive: dict[int, int] = {}
        self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in (t for t in tree_leaves(out) if isinstance(t, torch.Tensor)):
            storage = tensor.untyped_storage()
            if storage._cdata not in self.alive:
                self.alive[storage._cdata] = storage.nbytes()
                weakref.finalize(storage, self.alive.pop, storage._cdata, None)
        self.peak = max(self.peak, sum(self.alive.values()))
        return out


def problem(size: tuple[int, ...], **style: Any) -> tuple[Any, torch.Tensor, list[torch.Tensor]]:
    torch.manual_seed(0)
    net = UNetGenerator(3, 2, 1, 4, strides_for(size, (1.0,) * 3, 3), style=UNetStyle(**style))
    return net, torch.randn(1, 2, *size), [torch.randn(1, *s) for s in net.latent_shapes(size)]


# Instance normalisation with a leaky ReLU keeps little on a CPU as it is (lean_norm.py).
@pytest.mark.parametrize(
    ("style", "share"),
    [({"double": True}, 0.87), ({"norm": "group"}, 0.82), ({"blocks": "residual"}, 0.7)],
    ids=str,
)
def test_checkpointing_takes_less_of_it(style, share):
    peaks = []
    for on in (False, True):
        net, condition, latents = problem((24, 24, 24), checkpointing=on, **style)
        with Living() as living:
            net(condition, latents).square().mean().backward()
        peaks.append(living.peak)
    assert peaks[1] < share * peaks[0], peaks


def test_tiles_take_less_than_half_of_it():
    size, peaks = (64, 48, 48), []
    net, condition, latents = problem(size)
    net.eval()
    with torch.no_grad():
        with Living() as living:
            net(condition, latents)
        peaks.append(living.peak)
        with Living() as living:
            draw_tiled(net, lambda w: cut(condition, w), size, latents, 16)
        peaks.append(living.peak)
    assert peaks[1] < 0.5 * peaks[0], peaks
