"""The way around torch's slow path: the same numbers and derivatives, and only where needed."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gansynth.nn.networks.blocks import Conv3d

# 8 * 16 * 16 = 2048 and 16 * 32 * 32 = 16384 rows: one and both below 20480.
SMALL, LARGE = (2, 16, 24, 24, 5), (1, 24, 32, 32, 4)


def pair(cin: int = 16, **changes: Any) -> tuple[Conv3d, nn.Conv3d]:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"kernel_size": 3, "padding": 1, **changes}
    ours, plain = Conv3d(cin, 4, **settings), nn.Conv3d(cin, 4, **settings)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


def picture(shape: tuple[int, ...], form: torch.memory_format = torch.contiguous_format) -> Tensor:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    return x.contiguous(memory_format=form).requires_grad_()


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last_3d])
def test_values_and_gradients_are_torchs_own(form):
    found = []
    for layer in pair():
        x = picture(SMALL, form)
        made = layer(x)
        loss = (made.square() * torch.arange(made.shape[2]).view(1, 1, -1, 1, 1)).mean()
        found.append([made, *torch.autograd.grad(loss, [x, *layer.parameters()])])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-4, atol=1e-5)


def test_gradients_of_gradients_are_torchs_own():
    found = []
    for layer in pair():
        x = picture(SMALL)
        (slope,) = torch.autograd.grad(layer(x).square().mean(), x, create_graph=True)
        found.append(torch.autograd.grad(slope.square().sum(), layer.weight)[0])
    torch.testing.assert_close(*found, rtol=1e-3, atol=1e-7)


def given(monkeypatch: pytest.MonkeyPatch, layer: Conv3d, x: Tensor) -> int:
    """Samples that the convolution itself is given."""
    seen: list[int] = []
    real: Any = nn.Conv3d._conv_forward

    def watch(self: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        seen.append(len(x))
        return real(self, x, weight, bias)

    with monkeypatch.context() as patch:
        patch.setattr(nn.Conv3d, "_conv_forward", watch)
        made = layer(x)
    assert len(made) == len(x)
    return seen[0]


def test_empty_samples_lift_it_over_the_threshold(monkeypatch):
    assert given(monkeypatch, pair()[0], picture((1, 16, 32, 32, 4))) == 2
    assert given(monkeypatch, pair()[0], picture(SMALL)) == 3


@pytest.mark.parametrize(
    ("shape", "changes"),
    [
        (LARGE, {"cin": 24}),
        ((1, 4, 8, 8, 8), {"cin": 4}),  # too little work
        ((1, 16, 32, 32, 4), {"stride": 2}),
        ((1, 16, 32, 32, 4), {"kernel_size": 1, "padding": 0}),
        ((1, 16, 32, 32, 4), {"dilation": 2}),
    ],
)
def test_elsewhere_the_batch_is_what_it_was(monkeypatch, shape, changes):
    assert given(monkeypatch, pair(**changes)[0], picture(shape)) == 1


def test_in_half_precision_the_batch_is_what_it_was(monkeypatch):
    with torch.autocast("cpu", torch.bfloat16):
        assert given(monkeypatch, pair()[0], picture((1, 16, 32, 32, 4))) == 1
