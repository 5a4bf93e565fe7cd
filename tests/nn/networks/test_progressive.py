"""Blocks of progressive GANs, held to Karras et al. 2018."""

import numpy as np
import pytest
import torch

from gansynth.nn.networks.progressive import (
    EqualisedConv2d,
    EqualisedLinear,
    half,
    minibatch_deviation,
    pixel_norm,
    twice,
)


@pytest.mark.parametrize(
    ("layer", "inputs"),
    [(EqualisedConv2d(64, 256, 3), (4, 64, 16, 16)), (EqualisedLinear(512, 256), (64, 512))],
    ids=["conv", "linear"],
)
def test_weights_begin_with_deviation_1_and_are_scaled_when_used(layer, inputs):
    """He's constant: a ReLU halves the mean square, a gain of sqrt(2) makes up for it."""
    torch.manual_seed(0)
    assert float(layer.weight.detach().std()) == pytest.approx(1, rel=0.02)
    assert layer.scale == pytest.approx((2 / layer.weight[0].numel()) ** 0.5)
    seen = layer(torch.randn(inputs))
    inner = seen[..., 1:-1, 1:-1] if seen.ndim == 4 else seen
    assert float(inner.detach().square().mean()) == pytest.approx(2, rel=0.1)


def test_an_equalised_layer_is_a_plain_one_with_scaled_weights():
    layer = EqualisedConv2d(3, 5, 3, gain=1.5)
    x = torch.randn(2, 3, 6, 6)
    scaled = layer.weight * (1.5 / 27**0.5)
    expected = torch.nn.functional.conv2d(x, scaled, layer.bias, padding=1)
    assert torch.equal(layer(x), expected)


def test_features_have_mean_square_1_in_each_voxel():
    x = torch.randn(2, 7, 5, 5) * torch.rand(2, 1, 5, 5) * 100
    assert torch.allclose(pixel_norm(x).square().mean(1), torch.ones(2, 5, 5), atol=1e-4)
    assert torch.equal(pixel_norm(torch.zeros(1, 3, 2, 2)), torch.zeros(1, 3, 2, 2))


def test_the_deviation_of_a_minibatch_is_that_of_numpy():
    x = torch.randn(8, 3, 4, 4)
    found = minibatch_deviation(x, 4)
    assert torch.equal(found[:, :3], x)
    for first in (0, 4):
        expected = x[first : first + 4].numpy().std(0).mean()
        shown = found[first : first + 4, 3]
        assert np.allclose(shown, expected, atol=1e-5)
        assert len(torch.unique(shown)) == 1


def test_groups_are_the_same_in_a_part_of_the_batch():
    x = torch.randn(8, 3, 4, 4)
    parts = [minibatch_deviation(part, 2) for part in x.chunk(2)]
    assert torch.equal(torch.cat(parts), minibatch_deviation(x, 2))


def test_the_deviation_can_be_differentiated_twice_where_samples_are_alike():
    x = torch.ones(4, 2, 4, 4, requires_grad=True)
    (first,) = torch.autograd.grad(minibatch_deviation(x, 4).sum(), x, create_graph=True)
    (second,) = torch.autograd.grad(first.square().sum(), x)
    assert second.isfinite().all()


def test_halving_undoes_doubling():
    x = torch.randn(1, 2, 3, 3)
    assert torch.equal(half(twice(x)), x)
