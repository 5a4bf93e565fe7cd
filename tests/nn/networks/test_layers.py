"""Layers that do in another way what torch's do, and those of progressive GANs."""
# mypy: disallow-untyped-calls=False

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.nn.networks.blocks import Conv3d
from gansynth.nn.networks.lean_norm import norm_leaky_relu
from gansynth.nn.networks.progressive import (
    EqualisedConv2d,
    EqualisedLinear,
    minibatch_deviation,
    pixel_norm,
)
from gansynth.nn.networks.resize import enlarge, interpolate, matrix
from gansynth.nn.networks.unet import NoiseInjection

FORMATS = (torch.contiguous_format, torch.channels_last_3d)


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


SMALL = (2, 16, 24, 24, 5)


def convolutions(cin: int = 16, **changes: Any) -> tuple[Conv3d, nn.Conv3d]:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"kernel_size": 3, "padding": 1, **changes}
    ours, plain = Conv3d(cin, 4, **settings), nn.Conv3d(cin, 4, **settings)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


@pytest.mark.parametrize("form", FORMATS)
def test_values_and_gradients_of_both_orders_are_torchs_own(form):
    found = []
    for layer in convolutions():
        x = images(*SMALL).contiguous(memory_format=form).requires_grad_()
        made = layer(x)
        loss = (made.square() * torch.arange(made.shape[2]).view(1, 1, -1, 1, 1)).mean()
        first = torch.autograd.grad(loss, [x, *layer.parameters()], create_graph=True)
        (second,) = torch.autograd.grad(first[0].square().sum(), layer.weight)
        found.append([made, *first, second])
    for ours, plain in zip(*found, strict=True):
        torch.testing.assert_close(ours, plain, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(
    ("shape", "changes", "given"),
    [
        ((1, 16, 32, 32, 4), {}, 2),  # empty samples lift it over the threshold
        (SMALL, {}, 3),
        ((1, 24, 32, 32, 4), {"cin": 24}, 1),
        ((1, 4, 8, 8, 8), {"cin": 4}, 1),  # too little work
        ((1, 16, 32, 32, 4), {"stride": 2}, 1),
        ((1, 16, 32, 32, 4), {"kernel_size": 1, "padding": 0}, 1),
        ((1, 16, 32, 32, 4), {"dilation": 2}, 1),
        ((1, 16, 32, 32, 4), {"half": True}, 1),
    ],
)
def test_a_convolution_adds_samples_where_torch_is_slow_with_one(
    monkeypatch, shape, changes, given
):
    seen: list[int] = []
    real: Any = nn.Conv3d._conv_forward

    def watch(self: nn.Conv3d, x: Tensor, weight: Tensor, bias: Tensor | None) -> Any:
        seen.append(len(x))
        return real(self, x, weight, bias)

    own = {key: value for key, value in changes.items() if key != "half"}
    layer = convolutions(**own)[0]
    monkeypatch.setattr(nn.Conv3d, "_conv_forward", watch)
    with torch.autocast("cpu", torch.bfloat16, enabled="half" in changes):
        made = layer(images(*shape).requires_grad_())
    assert len(made) == shape[0]
    assert seen[0] == given


def norm_of(channels: int, shift: float = 1.0) -> Any:
    norm = nn.InstanceNorm3d(channels, affine=True)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        signs = torch.where(torch.rand(channels, generator=rng) < 0.5, -1.0, 1.0)
        norm.weight.copy_(signs * (0.5 + torch.rand(channels, generator=rng)))
        norm.bias.copy_(shift * torch.randn(channels, generator=rng))
    return norm


def plain(x: Tensor, norm: nn.Module, slope: float) -> Tensor:
    return F.leaky_relu(norm(x), slope)


def run(function: Any, norm: Any, x: Tensor) -> list[Tensor]:
    given = x.clone(memory_format=torch.preserve_format).requires_grad_()
    norm.zero_grad()
    made = function(given, norm, 0.2)
    weights = torch.randn(made.shape, generator=torch.Generator().manual_seed(2)).to(made.dtype)
    made.backward(weights)
    assert given.grad is not None
    return [made.detach(), given.grad, norm.weight.grad.clone(), norm.bias.grad.clone()]


def volume(dtype: torch.dtype = torch.float32, form: Any = FORMATS[0]) -> Tensor:
    x = images(3, 16, 5, 6, 7) * 2 + 1
    return x.to(dtype).contiguous(memory_format=form)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_norm_leaky_relu_and_its_gradients_are_autograds(dtype, near, form):
    x = volume(dtype, form)
    norm = norm_of(16).double() if dtype == torch.float64 else norm_of(16)
    found = run(norm_leaky_relu, norm, x)
    assert found[0].is_contiguous(memory_format=form)
    with torch.no_grad():
        alone = norm_leaky_relu(x, norm, 0.2)
    assert alone.is_contiguous(memory_format=form)
    assert torch.equal(alone, found[0])
    for one, wanted in zip(found, run(plain, norm, x), strict=True):
        assert (one - wanted).abs().max() <= near * wanted.abs().max()


@pytest.mark.parametrize(
    ("norm", "x"),
    [
        (norm_of(16, shift=100.0), volume()),  # cannot be undone
        (nn.BatchNorm3d(16), volume()),
        (norm_of(4), images(1, 4, 5, 6, 7).contiguous(memory_format=FORMATS[1])),
    ],
    ids=["shift", "batch", "few channels last"],
)
def test_norm_leaky_relu_is_done_plainly_where_it_cannot_be_undone(norm, x):
    made = norm_leaky_relu(x.clone().requires_grad_(), norm, 0.2)
    assert "NormLeakyReLU" not in type(made.grad_fn).__name__
    torch.testing.assert_close(made, plain(x, norm, 0.2))


def kept(function: Any, norm: Any, x: Tensor) -> int:
    """Bytes of large tensors held for the backward pass, those of the output counted once."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() >= x.numel():
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = function(x.clone().requires_grad_(), norm, 0.2)
    pack(made)
    return sum(seen.values())


def test_norm_leaky_relu_keeps_its_output_alone():
    x = volume()
    inplace = lambda x, norm, slope: F.leaky_relu(norm(x), slope, inplace=True)  # noqa: E731
    assert kept(norm_leaky_relu, norm_of(16), x) == x.nbytes
    assert kept(inplace, norm_of(16), x) == 2 * x.nbytes


@pytest.mark.parametrize("form", FORMATS)
def test_noise_is_added_as_autograd_would(form):
    layer, noise = NoiseInjection(3, 16), images(3, 1, 5, 6, 7)
    x = volume(form=form).requires_grad_()
    made, wanted = layer(x, noise), x + layer.scale * noise
    assert made.is_contiguous(memory_format=form)
    inputs, weights = [x, layer.scale], images(*x.shape) ** 2
    found = torch.autograd.grad(made, inputs, weights)
    for one, other in zip(
        [made, *found], [wanted, *torch.autograd.grad(wanted, inputs, weights)], strict=True
    ):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sizes", [(5, 9), (4, 8), (6, 6), (7, 13), (1, 2)])
@pytest.mark.parametrize(
    ("mode", "theirs"), [("nearest", "nearest"), ("trilinear", "linear"), ("cubic", "bicubic")]
)
def test_a_matrix_does_what_torch_does_along_an_axis(mode, theirs, sizes):
    coarse, fine = sizes
    x = images(2, 3, coarse)
    if theirs == "bicubic":  # which torch has in 2D only
        expected = F.interpolate(x[..., None], size=(fine, 1), mode=theirs)[..., 0]
    else:
        expected = F.interpolate(x, size=fine, mode=theirs)
    assert torch.allclose(x @ matrix(mode, coarse, fine).T, expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "trilinear", "cubic"])
def test_every_axis_of_a_volume_goes_its_own_way(mode):
    x = images(1, 2, 3, 4, 5).requires_grad_()
    slices = [enlarge(part, (8, 9), mode) for part in x.unbind(2)]
    found = enlarge(x, (3, 8, 9), mode)
    assert torch.allclose(found, torch.stack(slices, 2), atol=1e-5)
    turned = enlarge(x.transpose(2, 4), (5, 8, 6), mode).transpose(2, 4)
    whole = enlarge(x, (6, 8, 5), mode)
    assert torch.allclose(whole, turned, atol=1e-5)
    torch.autograd.backward(whole.sum())
    assert x.grad is not None
    assert x.grad.sum().item() == pytest.approx(2 * 6 * 8 * 5, rel=1e-4)
    assert torch.allclose(enlarge(torch.ones(1, 1, 3, 4, 5), (5, 8, 10), mode), torch.tensor(1.0))


def test_half_precision_goes_in_and_out_but_not_between():
    x = images(1, 1, 9, 9).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = interpolate(x, [matrix("cubic", 9, 17)] * 2)
    exact = interpolate(x.float(), [matrix("cubic", 9, 17)] * 2)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [(EqualisedConv2d(64, 256, 3), (4, 64, 16, 16)), (EqualisedLinear(512, 256), (64, 512))],
    ids=["conv", "linear"],
)
def test_weights_begin_with_deviation_1_and_are_scaled_when_used(layer, inputs):
    """He's constant: a ReLU halves the mean square, a gain of sqrt(2) makes up for it."""
    assert float(layer.weight.detach().std()) == pytest.approx(1, rel=0.02)
    assert layer.scale == pytest.approx((2 / layer.weight[0].numel()) ** 0.5)
    seen = layer(images(*inputs))
    inner = seen[..., 1:-1, 1:-1] if seen.ndim == 4 else seen
    assert float(inner.detach().square().mean()) == pytest.approx(2, rel=0.1)


def test_an_equalised_layer_is_a_plain_one_with_scaled_weights():
    layer, x = EqualisedConv2d(3, 5, 3, gain=1.5), images(2, 3, 6, 6)
    expected = F.conv2d(x, layer.weight * (1.5 / 27**0.5), layer.bias, padding=1)
    assert torch.equal(layer(x), expected)


def test_features_have_mean_square_1_in_each_voxel():
    x = images(2, 7, 5, 5) * torch.linspace(0.1, 100, 5)
    assert torch.allclose(pixel_norm(x).square().mean(1), torch.ones(2, 5, 5), atol=1e-4)
    assert torch.equal(pixel_norm(torch.zeros(1, 3, 2, 2)), torch.zeros(1, 3, 2, 2))


def test_the_deviation_of_a_minibatch_is_that_of_numpy_in_each_group():
    x = images(8, 3, 4, 4)
    found = minibatch_deviation(x, 4)
    assert torch.equal(found[:, :3], x)
    for first in (0, 4):
        expected = x[first : first + 4].numpy().std(0).mean()
        shown = found[first : first + 4, 3]
        assert np.allclose(shown, expected, atol=1e-5)
        assert len(torch.unique(shown)) == 1
    parts = [minibatch_deviation(part, 2) for part in x.chunk(2)]
    assert torch.equal(torch.cat(parts), minibatch_deviation(x, 2))


def test_the_deviation_can_be_differentiated_twice_where_samples_are_alike():
    x = torch.ones(4, 2, 4, 4, requires_grad=True)
    (first,) = torch.autograd.grad(minibatch_deviation(x, 4).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert second.isfinite().all()
