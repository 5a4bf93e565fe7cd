from typing import Any

import pytest
import torch

from gansynth.nn import tiled_inference
from gansynth.nn.networks import UNetGenerator, UNetStyle
from gansynth.nn.networks.blocks import strides_for
from gansynth.nn.tiled_inference import cut, draw_tiled


def network(size: tuple[int, ...], levels: int = 3, spacing: Any = None, **style: Any) -> Any:
    torch.manual_seed(0)
    strides = strides_for(size, spacing or (1.0,) * len(size), levels)
    net = UNetGenerator(len(size), 2, 1, 4, strides, style=UNetStyle(**style))
    for p in net.parameters():  # scales and shifts of norms that do something
        torch.nn.init.normal_(p, std=0.4)
    return net.eval()


def problem(net: UNetGenerator, size: tuple[int, ...], batch: int = 1) -> tuple[Any, Any]:
    rng = torch.Generator().manual_seed(1)
    # A gradient across the volume: statistics of a tile are not those of the whole.
    ramp = torch.linspace(0, 2, size[-1]).expand(batch, 2, *size)
    condition = torch.rand(batch, 2, *size, generator=rng) + ramp
    return condition, [torch.randn(batch, *s, generator=rng) for s in net.latent_shapes(size)]


@pytest.mark.parametrize(
    ("size", "levels", "style", "edge", "batch"),
    [
        ((22, 19, 17), 3, {}, 8, 1),
        ((18, 18, 18), 3, {"up": "cubic", "norm": "group"}, 8, 1),
        ((37, 30), 3, {"up": "nearest", "down": "maxpool", "norm": "batch"}, 8, 1),
        ((37, 30), 3, {"up": "transposed", "down": "strided4", "spectral": True}, 8, 1),
        ((37, 30), 3, {"blocks": "residual", "double": True, "skip": "concat"}, 8, 1),
        ((37, 30), 3, {"noise": False, "dropout": 0.5, "norm": "none"}, 8, 1),
        ((21, 18), 1, {"double": True}, 8, 1),
        ((37, 30), 3, {"stem": False, "down": "strided4", "up": "transposed"}, 8, 1),
        ((37, 30), 2, {"stem": False, "down": "maxpool"}, 8, 1),
        *(((33, 22), 3, {}, edge, 1) for edge in (5, 16, 64)),
        ((18, 17), 3, {}, 8, 3),
        ((9, 16, 16), 3, {"spacing": (4.0, 1.0, 1.0)}, 8, 1),
    ],
    ids=str,
)
@torch.no_grad()
def test_tiles_make_the_image_that_one_piece_makes(size, levels, style, edge, batch):
    net = network(size, levels, **style)
    condition, latents = problem(net, size, batch)
    whole = net(condition, latents)
    pieces = draw_tiled(net, lambda w: cut(condition, w), size, latents, edge)
    assert ((whole - pieces).abs().max() / whole.std()).item() < 1e-3
    assert torch.equal(net(condition, latents), whole)  # the network is as before


def test_the_network_is_as_before_even_when_drawing_fails():
    net = network((18, 17))
    condition, latents = problem(net, (18, 17))
    before = net(condition, latents)

    def broken(window: tiled_inference.Window) -> torch.Tensor:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        draw_tiled(net, broken, (18, 17), latents, 8)
    assert torch.equal(net(condition, latents), before)
