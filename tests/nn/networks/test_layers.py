from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.nn.convolution import convolve, input_gradients_alone
from gansynth.nn.networks.blocks import Conv3d
from gansynth.nn.networks.lean_norm import norm_leaky_relu
from gansynth.nn.networks.resize import enlarge, interpolate, matrix
from gansynth.nn.networks.unet import NoiseInjection
from gansynth_cpggan.progressive import minibatch_deviation, pixel_norm

FIRST, LAST = torch.contiguous_format, torch.channels_last_3d


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def convolutions(cin: int = 16, **changes: Any) -> tuple[Conv3d, nn.Conv3d]:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"kernel_size": 3, "padding": 1, **changes}
    ours, plain = Conv3d(cin, 4, **settings), nn.Conv3d(cin, 4, **settings)
    plain.load_state_dict(ours.state_dict())
    return ours, plain


SMALL = (2, 16, 24, 24, 5)


@pytest.mark.parametrize("form", [FIRST, LAST])
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
    ("shape", "changes", "samples"),
    [
        ((1, 16, 32, 32, 4), {}, 2),  # empty samples lift it over the threshold
        (SMALL, {}, 3),
        ((1, 24, 32, 32, 4), {"cin": 24}, 1),
        ((1, 4, 8, 8, 8), {"cin": 4}, 0),  # too little work
        ((1, 16, 32, 32, 4), {"stride": 2}, 0),
        ((1, 16, 32, 32, 4), {"kernel_size": 1, "padding": 0}, 0),
        ((1, 16, 32, 32, 4), {"dilation": 2}, 0),
    ],
)
def test_a_convolution_adds_samples_where_torch_is_slow_with_one(shape, changes, samples):
    assert convolutions(**changes)[0]._enough(images(*shape)) == samples


def norm_of(channels: int, shift: float = 1.0) -> Any:
    norm = nn.InstanceNorm3d(channels, affine=True)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        signs = torch.where(torch.rand(channels, generator=rng) < 0.5, -1.0, 1.0)
        norm.weight.copy_(signs * (0.5 + torch.rand(channels, generator=rng)))
        norm.bias.copy_(shift * torch.randn(channels, generator=rng))
    return norm


def volume(dtype: torch.dtype = torch.float32, form: Any = FIRST, channels: int = 16) -> Tensor:
    x = images(3, channels, 5, 6, 7) * 2 + 1
    return x.to(dtype).contiguous(memory_format=form)


def plain(x: Tensor, norm: nn.Module, slope: float) -> Tensor:
    return F.leaky_relu(norm(x), slope)


def run(function: Any, norm: Any, x: Tensor) -> tuple[bool, list[Tensor]]:
    given = x.clone(memory_format=torch.preserve_format).requires_grad_()
    norm.zero_grad()
    made = function(given, norm, 0.2)
    weights = torch.randn(made.shape, generator=torch.Generator().manual_seed(2)).to(made.dtype)
    made.backward(weights)
    assert given.grad is not None
    lean = "NormLeakyReLU" in type(made.grad_fn).__name__
    return lean, [made.detach(), given.grad, norm.weight.grad.clone(), norm.bias.grad.clone()]


NORMS: dict[str, tuple[Any, Tensor, float, bool]] = {
    "float64": (norm_of(16).double(), volume(torch.float64), 1e-12, True),
    "channels last": (norm_of(16), volume(form=LAST), 1e-5, True),
    "bf16": (norm_of(16), volume(torch.bfloat16, LAST), 0.02, True),
    "a shift that cannot be undone": (norm_of(16, shift=100.0), volume(), 1e-5, False),
    "batch norm": (nn.BatchNorm3d(16), volume(), 1e-5, False),
    "few channels last": (norm_of(4), volume(form=LAST, channels=4), 1e-5, False),
}


@pytest.mark.parametrize(("norm", "x", "near", "lean"), NORMS.values(), ids=NORMS)
def test_norm_leaky_relu_and_its_gradients_are_autograds(norm, x, near, lean):
    was_lean, found = run(norm_leaky_relu, norm, x)
    assert was_lean == lean
    for one, wanted in zip(found, run(plain, norm, x)[1], strict=True):
        assert (one - wanted).abs().max() <= near * wanted.abs().max()
    if lean:
        with torch.no_grad():
            alone = norm_leaky_relu(x, norm, 0.2)
        assert torch.equal(alone, found[0])
        assert alone.stride() == found[0].stride() == x.stride()


@pytest.mark.parametrize("form", [FIRST, LAST])
def test_noise_is_added_as_autograd_would(form):
    layer, noise = NoiseInjection(3, 16), images(3, 1, 5, 6, 7)
    x = volume(form=form).requires_grad_()
    found = []
    for made in (layer(x, noise), x + layer.scale * noise):
        assert made.is_contiguous(memory_format=form)
        found.append([made, *torch.autograd.grad(made, [x, layer.scale], images(*x.shape) ** 2)])
    for one, wanted in zip(*found, strict=True):
        torch.testing.assert_close(one, wanted, rtol=1e-5, atol=1e-5)


def test_every_axis_of_a_volume_goes_its_own_way():
    x = images(1, 2, 3, 4, 5)  # torch has no cubic interpolation in 3D
    slices = [F.interpolate(part, size=(8, 9), mode="bicubic") for part in x.unbind(2)]
    assert torch.allclose(enlarge(x, (3, 8, 9), "cubic"), torch.stack(slices, 2), atol=1e-5)
    turned = enlarge(x.transpose(2, 4), (5, 8, 6), "cubic").transpose(2, 4)
    assert torch.allclose(enlarge(x, (6, 8, 5), "cubic"), turned, atol=1e-5)


def test_half_precision_goes_in_and_out_but_not_between():
    x = images(1, 1, 9, 9).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = interpolate(x, [matrix("cubic", 9, 17)] * 2)
    exact = interpolate(x.float(), [matrix("cubic", 9, 17)] * 2)
    assert torch.equal(found, exact.bfloat16())


def test_features_have_mean_square_1_in_each_voxel():
    x = images(2, 7, 5, 5) * torch.linspace(0.1, 100, 5)
    assert torch.allclose(pixel_norm(x).square().mean(1), torch.ones(2, 5, 5), atol=1e-4)
    assert torch.equal(pixel_norm(torch.zeros(1, 3, 2, 2)), torch.zeros(1, 3, 2, 2))


def test_the_deviation_of_a_minibatch_is_that_of_numpy_in_each_group():
    x = images(8, 3, 4, 4)
    found = minibatch_deviation(x, 4)
    assert torch.equal(found[:, :3], x)
    for group in (slice(4), slice(4, 8)):
        expected = np.full((4, 4, 4), x[group].numpy().std(0).mean())
        assert np.allclose(found[group, 3], expected, atol=1e-5)


def test_the_deviation_can_be_differentiated_twice_where_samples_are_alike():
    x = torch.ones(4, 2, 4, 4, requires_grad=True)
    (first,) = torch.autograd.grad(minibatch_deviation(x, 4).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert second.isfinite().all()


def test_a_convolution_has_right_gradients_twice():
    inputs = [
        torch.randn(shape, dtype=torch.float64, requires_grad=True)
        for shape in ((2, 3, 5, 5), (4, 3, 3, 3), (4,))
    ]
    padded = partial(convolve, padding=(1, 1))
    assert torch.autograd.gradcheck(padded, inputs)
    assert torch.autograd.gradgradcheck(padded, inputs)


def test_a_penalty_computes_no_gradients_of_weights_on_its_way():
    images = torch.randn(2, 3, 5, 5, requires_grad=True)
    weight = torch.randn(4, 3, 3, 3, requires_grad=True)
    with input_gradients_alone():
        convolve(images, weight, None, (1, 1)).sum().backward()
    assert images.grad is not None
    assert weight.grad is None
