from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gansynth.nn.networks import PatchDiscriminator
from gansynth.nn.networks.spectral import spectral_norm
from gansynth.training.half_precision import cast_at_once, exact_on_short_axes

PAIR = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
SHORT: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "3^3 on 2^3": (nn.Conv3d(16, 16, 3, padding=1), (2, 2, 2)),
    "4^3 on 3^3, as PatchGAN's last": (nn.Conv3d(16, 1, 4, padding=1), (3, 3, 3)),
    "4^3 on 3^3, spectral": (spectral_norm(nn.Conv3d(16, 16, 4, padding=1)), (3, 3, 3)),
    "5^3 on one slice": (nn.Conv3d(16, 16, 5, padding=2), (1, 8, 8)),
    "stride 2": (nn.Conv3d(16, 16, 4, 2, padding=1), (8, 2, 8)),
    "transposed": (nn.ConvTranspose3d(16, 16, 4, 2, padding=1), (8, 1, 8)),
    "2D": (nn.Conv2d(16, 16, 3, 2, padding=1), (8, 1)),
}


@pytest.fixture(params=[False, True], ids=["plain", "spectral"])
def net(request):
    torch.manual_seed(0)
    return PatchDiscriminator(2, 3, 4, [(2, 2)], spectral=request.param).eval()


def gradients_of_net(net):
    net.zero_grad()
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = net(PAIR)
    sum(head.float().sum() for head in logits).backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def test_weights_cast_at_once_have_the_gradients_of_autocast_and_are_whole_again(net):
    expected = gradients_of_net(net)
    with cast_at_once([net]):
        cast = gradients_of_net(net)
        with torch.no_grad():
            assert net(PAIR)[0][0].dtype == torch.float32  # without autocast nothing is cast
        with torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError):
            net(PAIR[:, :1])
    assert all(torch.equal(cast[name], value) for name, value in expected.items())
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert not net._forward_pre_hooks


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


def test_long_axes_stay_in_autocast_which_is_on_again_after_a_failure():
    layer = nn.Conv3d(4, 4, 3, padding=1)
    with exact_on_short_axes([layer]), torch.autocast("cpu", torch.bfloat16):
        assert layer(torch.ones(1, 4, 3, 3, 3)).dtype == torch.bfloat16
        assert layer(torch.ones(1, 4, 2, 3, 3)).dtype == torch.float32
        with pytest.raises(RuntimeError):
            layer(torch.ones(1, 5, 2, 2, 2))
        assert torch.is_autocast_enabled("cpu")
