from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gansynth.nn.networks.spectral import spectral_norm
from gansynth.training.half_precision import exact_on_short_axes

SHORT: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "3^3 on 2^3": (nn.Conv3d(16, 16, 3, padding=1), (2, 2, 2)),
    "4^3 on 3^3, as PatchGAN's last": (nn.Conv3d(16, 1, 4, padding=1), (3, 3, 3)),
    "4^3 on 3^3, spectral": (spectral_norm(nn.Conv3d(16, 16, 4, padding=1)), (3, 3, 3)),
    "5^3 on one slice": (nn.Conv3d(16, 16, 5, padding=2), (1, 8, 8)),
    "stride 2": (nn.Conv3d(16, 16, 4, 2, padding=1), (8, 2, 8)),
    "transposed": (nn.ConvTranspose3d(16, 16, 4, 2, padding=1), (8, 1, 8)),
    "2D": (nn.Conv2d(16, 16, 3, 2, padding=1), (8, 1)),
}


def gradients(layer: nn.Module, size: tuple[int, ...], *, bf16: bool) -> list[Tensor]:
    """Of a loss by the input and the parameters, with rubbish in all memory that is free."""
    rng = torch.Generator().manual_seed(0)
    x = torch.randn((2, 16, *size), generator=rng).bfloat16().float().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        made = layer(x)
        assert torch.is_autocast_enabled("cpu") == bf16
    weights = torch.randn(made.shape, generator=rng)
    rubbish = [torch.full((4**k,), torch.nan) for k in range(3, 10) for _ in range(3)]
    del rubbish
    wanted: Any = (x, *layer.parameters())
    return list(torch.autograd.grad((made.float() * weights).sum(), wanted))


@pytest.mark.parametrize("name", SHORT)
def test_gradients_in_bf16_are_right_where_an_axis_is_shorter_than_the_kernel(name):
    layer, size = SHORT[name]
    expected = gradients(layer.eval(), size, bf16=False)
    with exact_on_short_axes([layer]):
        found = [gradients(layer, size, bf16=True) for _ in range(3)]
    for each in found:
        torch.testing.assert_close(each, expected, rtol=0.02, atol=0.02)


def test_long_axes_stay_in_autocast():
    layer = nn.Conv3d(4, 4, 3, padding=1)
    with exact_on_short_axes([layer]), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(1, 4, 3, 3, 3)).dtype == torch.bfloat16
        assert layer(torch.ones(1, 4, 2, 3, 3)).dtype == torch.float32


def test_autocast_is_on_again_after_a_failure():
    layer = nn.Conv3d(4, 4, 3, padding=1)
    with exact_on_short_axes([layer]), torch.autocast("cpu", torch.bfloat16):
        with pytest.raises(RuntimeError):
            layer(torch.ones(1, 5, 2, 2, 2))
        assert torch.is_autocast_enabled("cpu")
