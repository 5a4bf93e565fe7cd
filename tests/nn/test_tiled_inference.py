from typing import Any

import pytest
import torch

from gansynth.nn import tiled_inference
from gansynth.nn.networks import UNetGenerator, UNetStyle
from gansynth.nn.networks.blocks import strides_for
from gansynth.nn.tiled_inference import cut, draw_tiled, tile_edge

STYLES: list[tuple[tuple[int, ...], int, dict[str, Any]]] = [
    ((26, 21, 19), 3, {}),
    ((24, 24, 24), 4, {"up": "cubic", "norm": "group"}),
    ((37, 30), 3, {"up": "nearest", "down": "maxpool", "norm": "batch"}),
    ((37, 30), 3, {"up": "transposed", "down": "strided4", "spectral": True}),
    ((37, 30), 3, {"blocks": "residual", "double": True, "skip": "concat"}),
    ((37, 30), 3, {"noise": False, "dropout": 0.5, "norm": "none", "activation": "elu"}),
    ((21, 18), 1, {"double": True}),
    ((26, 21, 19), 3, {"stem": False}),
    ((37, 30), 3, {"stem": False, "down": "strided4", "up": "transposed", "norm": "batch"}),
    ((37, 30), 2, {"stem": False, "down": "maxpool"}),
]


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


@torch.no_grad()
def both(net: UNetGenerator, size: tuple[int, ...], edge: int, batch: int = 1) -> tuple[Any, Any]:
    condition, latents = problem(net, size, batch)
    whole = net(condition, latents)
    return whole, draw_tiled(net, lambda w: cut(condition, w), size, latents, edge)


@pytest.mark.parametrize(
    ("size", "levels", "style", "edge", "batch"),
    [
        *((*style, 8, 1) for style in STYLES),
        *(((33, 22), 3, {}, edge, 1) for edge in (5, 7, 16, 64)),
        ((18, 17), 3, {}, 8, 3),
        ((9, 24, 24), 4, {"spacing": (4.0, 1.0, 1.0)}, 8, 1),
    ],
    ids=str,
)
def test_tiles_make_the_image_that_one_piece_makes(size, levels, style, edge, batch):
    net = network(size, levels, **style)
    assert "spacing" not in style or (1, 2, 2) in net.strides
    whole, pieces = both(net, size, edge, batch)
    assert ((whole - pieces).abs().max() / whole.std()).item() < 1e-3


def test_the_network_is_as_before_afterwards_and_even_when_drawing_fails():
    net = network((18, 17))
    condition, latents = problem(net, (18, 17))
    before = net(condition, latents)

    def broken(window: tiled_inference.Window) -> torch.Tensor:
        raise KeyboardInterrupt

    both(net, (18, 17), 8)
    with pytest.raises(KeyboardInterrupt):
        draw_tiled(net, broken, (18, 17), latents, 8)
    assert torch.equal(net(condition, latents), before)


def test_tiles_are_taken_where_asked_for_or_needed():
    net = network((16, 16, 16))
    assert tile_edge(net, (64, 64, 64), 0) == 0
    assert tile_edge(net, (1024, 512, 512), 0) == tiled_inference.EDGE
    assert tile_edge(net, (64, 64, 64), 32) == 32
    assert tile_edge(net, (30, 30, 30), 32) == 0
