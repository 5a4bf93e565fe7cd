"""U-Net and PatchGAN in 2D and 3D: any size, noise, strides by spacing, label encoding."""

import math
from typing import Any

import pytest
import torch

from gansynth.nn.networks import PatchDiscriminator, UNetGenerator
from gansynth.nn.networks.blocks import conv, one_hot, strides_for

SIZES = [(17, 20, 13), (16, 16, 16), (33, 22), (32, 32)]


def noise(net: UNetGenerator, size: tuple[int, ...], batch: int = 1, seed: int = 0):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, 1, *s, generator=rng) for s in net.noise_shapes(size)]


def unet(size: tuple[int, ...], levels: int = 3, output="linear") -> Any:
    torch.manual_seed(0)
    strides = strides_for(size, (1.0,) * len(size), levels)
    return UNetGenerator(len(size), 3, 2, 4, strides, output)


@pytest.mark.parametrize("size", SIZES)
def test_an_image_has_the_conditions_size(size):
    net = unet(size)
    assert net(torch.randn(2, 3, *size), noise(net, size, 2)).shape == (2, 2, *size)


@pytest.mark.parametrize("other", [(8, 9, 31), (24, 16, 16)])
def test_a_network_serves_other_sizes_than_it_was_built_for(other):
    net = unet((16, 16, 16))
    assert net(torch.randn(1, 3, *other), noise(net, other)).shape == (1, 2, *other)


def test_one_level_is_a_plain_network():
    net = unet((12, 12), levels=1)
    assert set(net.noise_shapes((12, 12))) == {(12, 12)}
    assert net(torch.randn(1, 3, 12, 12), noise(net, (12, 12))).shape == (1, 2, 12, 12)


def test_width_doubles_up_to_its_limit():
    net: Any = UNetGenerator(2, 1, 1, 4, [(2, 2)] * 3, max_width=10)
    assert [block[0].out_channels for block in net.down] == [8, 10, 10]


def test_all_noise_shows_in_the_image():
    net, condition = unet((16, 16)), torch.randn(1, 3, 16, 16)
    drawn = noise(net, (16, 16))
    before = net(condition, drawn)
    for index in range(len(drawn)):
        other = [n.flip(-1) if i == index else n for i, n in enumerate(drawn)]
        assert (net(condition, other) - before).abs().max() > 1e-4


def test_there_is_noise_for_every_resolution():
    assert set(unet((16, 20)).noise_shapes((16, 20))) == {(16, 20), (8, 10), (4, 5)}


def test_every_parameter_learns():
    net = unet((16, 16))
    net(torch.randn(1, 3, 16, 16), noise(net, (16, 16))).square().sum().backward()
    idle = [n for n, p in net.named_parameters() if p.grad is None or not p.grad.abs().sum()]
    # A shift before an instance norm has no effect; nothing else may be without one.
    assert [n for n in idle if not n.endswith("bias")] == []


def test_tanh_keeps_within_one():
    net = unet((16, 16), output="tanh")
    image = net(50 * torch.randn(1, 3, 16, 16), noise(net, (16, 16)))
    assert image.abs().max() <= 1


def test_linear_does_not():
    net = unet((16, 16))
    with torch.no_grad():
        net.image.weight.mul_(100)
    assert net(torch.randn(1, 3, 16, 16), noise(net, (16, 16))).abs().max() > 1


# -- discriminator ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES)
def test_a_discriminator_judges_grain_and_layout(size):
    strides = strides_for(size, (1.0,) * len(size), 3)
    net = PatchDiscriminator(len(size), 5, 4, strides)
    logits, features = net(torch.randn(2, 5, *size))
    coarse = size
    for stride in strides:
        coarse = tuple(math.ceil(n / s) for n, s in zip(coarse, stride, strict=True))
    fine = tuple(features[1].shape[2:])
    assert [tuple(head.shape) for head in logits] == [(2, 1, *coarse), (2, 1, *fine)]
    assert features[0].shape[2:] == size
    assert features[-1].shape[2:] == coarse


def test_the_texture_head_sees_every_voxel_and_five_at_a_time():
    torch.manual_seed(0)
    net = PatchDiscriminator(2, 1, 4, [(2, 2), (2, 2)])
    image = torch.zeros(1, 1, 16, 16, requires_grad=True)
    texture = net(image)[0][1]
    (seen,) = torch.autograd.grad(texture[0, 0, 4, 4], image, retain_graph=True)
    rows, columns = torch.nonzero(seen[0, 0], as_tuple=True)
    assert int(rows.max() - rows.min()) + 1 <= 5
    assert int(columns.max() - columns.min()) + 1 <= 5
    (everything,) = torch.autograd.grad(texture.sum(), image)
    assert bool((everything != 0).all())


def test_without_a_texture_head_there_is_one_verdict():
    net = PatchDiscriminator(2, 5, 4, [(2, 2)], texture_head=False)
    logits, _ = net(torch.randn(1, 5, 8, 8))
    assert [tuple(head.shape) for head in logits] == [(1, 1, 4, 4)]


@pytest.mark.parametrize("spectral", [True, False])
def test_spectral_normalisation_bounds_every_convolution(spectral):
    torch.manual_seed(0)
    net = PatchDiscriminator(2, 5, 8, [(2, 2)], spectral=spectral)
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if "bias" not in name:
                parameter.mul_(7)
        for _ in range(15):
            net(torch.randn(1, 5, 8, 8))
    layers = [m for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    norms = [torch.linalg.matrix_norm(layer.weight.flatten(1), 2).item() for layer in layers]
    assert all(norm == pytest.approx(1, rel=0.1) for norm in norms) == spectral


# -- blocks ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "spacing", "levels", "strides"),
    [
        ((32, 32), (1, 1), 3, [(2, 2), (2, 2)]),
        # Slices five times as thick as pixels are wide: in plane only, until voxels are even.
        ((16, 64, 64), (5, 1, 1), 4, [(1, 2, 2), (1, 2, 2), (2, 2, 2)]),
        # An axis of fewer than 8 voxels stays.
        ((6, 32, 32), (1, 1, 1), 3, [(1, 2, 2), (1, 2, 2)]),
        # 16 -> 8 -> 4 is as far as it goes.
        ((16, 16), (1, 1), 7, [(2, 2), (2, 2)]),
        ((7, 7), (1, 1), 4, []),
        ((32, 32), (1, 1), 1, []),
        ((16, 16, 6), (4, 4, 1), 2, [(2, 2, 1)]),
    ],
)
def test_strides_even_out_the_voxels_first(size, spacing, levels, strides):
    assert strides_for(size, spacing, levels) == strides


def test_one_hot_has_a_channel_per_value_in_order():
    encoded = one_hot(torch.tensor([[[-1, 0], [2, 0]]]), (-1, 0, 2))
    assert encoded.shape == (1, 3, 2, 2)
    assert encoded[0].flatten(1).tolist() == [[1, 0, 0, 0], [0, 1, 0, 1], [0, 0, 1, 0]]


def test_one_hot_of_a_value_without_a_channel_is_nothing():
    assert one_hot(torch.tensor([[[5]]]), (0, 1)).sum() == 0


@pytest.mark.parametrize("kernel", [1, 3])
def test_a_convolution_keeps_the_size(kernel):
    assert conv(3, 1, 2, kernel)(torch.zeros(1, 1, 5, 6, 7)).shape == (1, 2, 5, 6, 7)
