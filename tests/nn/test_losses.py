import math
from typing import Any

import pytest
import torch

from gansynth.nn import losses


def t(*numbers: float) -> torch.Tensor:
    return torch.tensor(numbers)


def layers(x):
    return [x, 2 * x[..., ::2]]


def half_square(x):
    """D(x) = |x|^2 / 2, whose gradient is x."""
    return 0.5 * x.square().flatten(1).sum(1, keepdim=True)


def images(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def eps(count: int):
    return torch.rand(count, 1, 1, 1, generator=torch.Generator().manual_seed(9))


X, Y = [t(1.0, -2.0)], [t(0.5, 3.0)]
EVEN, PAIR, ROW = torch.zeros(2, 1, 3), torch.zeros(2, 2, 4), torch.ones(2, 1, 4)
HALVES = torch.tensor([[[1.0, 0, 0, 0]], [[1.0, 1, 1, 1]]])
GRAIN = torch.ones(1, 1, 4, 4, 4) - 2 * (torch.arange(4) % 2 == 0)
CORNER = torch.nn.functional.pad(torch.ones(1, 1, 1, 1), (4, 0, 4, 0))
BETWEEN = (torch.full((2, 1, 1, 4), 4.0), torch.zeros(2, 1, 1, 4), t(0.25, 0.5).view(2, 1, 1, 1))
ONES = torch.ones(1, 1, 2, 2)
BIG_AND_SMALL = torch.zeros(1, 2, 100, 100)  # of two labels, one found whole, one missed
BIG_AND_SMALL[0, 0, :50], BIG_AND_SMALL[0, 1, 99, 99] = 1, 1
BIG_ALONE = BIG_AND_SMALL * torch.tensor([1.0, 0.0]).view(1, 2, 1, 1)
VALUES: dict[str, tuple[Any, float]] = {
    "lsgan discriminator": (lambda: losses.lsgan_discriminator([t(1.0, 3.0)], [t(2.0, 0.0)]), 2.0),
    "lsgan generator": (lambda: losses.lsgan_generator([t(1.0, 3.0)]), 2.0),
    "heads of any size alike": (lambda: losses.lsgan_generator([t(3.0), torch.ones(100)]), 2.0),
    "a label found counts alike at any size": (
        lambda: losses.soft_dice(BIG_ALONE, BIG_AND_SMALL),
        0.25,  # 1 - (1 + 1 / 2) / 2, by the one voxel of smoothing
    ),
    "half precision": (
        lambda: losses.lsgan_generator([t(1.0078125).bfloat16().expand(3000)]),
        2.0**-14,
    ),
    "undecided generator": (lambda: losses.nonsaturating_generator([EVEN]), math.log(2)),
    "cross-entropy": (
        lambda: losses.nonsaturating_discriminator(X, Y),
        float(-X[0].sigmoid().log().mean() - (1 - Y[0].sigmoid()).log().mean()),
    ),
    "hinge, beyond the margin": (
        lambda: losses.hinge_discriminator([t(5.0, 0.0)], [t(-5.0, 1.0)]),
        1.5,
    ),
    "hinge generator": (lambda: losses.hinge_generator([t(3.0, -1.0)]), -1.0),
    "minus the distance": (lambda: losses.wgan_critic([t(3.0, 5.0)], [t(1.0, -1.0)]), -4.0),
    "wgan generator": (lambda: losses.wgan_generator([t(1.0, -1.0)]), 0.0),
    "feature matching": (
        lambda: losses.feature_matching([EVEN, t(0.0, 0.0)], [EVEN + 1, t(3.0, 3.0)]),
        2.0,
    ),
    "l1": (lambda: losses.l1(t(1.0, -1.0)[None, None], torch.zeros(1, 1, 2)), 1.0),
    "l1 of grain through a low-pass": (lambda: losses.l1(GRAIN, 0 * GRAIN, lowpass=2), 0.0),
    "l1 of grain in 2D": (lambda: losses.l1(GRAIN[0], 0 * GRAIN[0], lowpass=2), 0.0),
    "l1 of contrast through it": (lambda: losses.l1(0 * GRAIN + 2, 0 * GRAIN, lowpass=2), 2.0),
    "l1 of a size it does not divide": (lambda: losses.l1(CORNER, 0 * CORNER, lowpass=4), 1 / 4),
    "l1 with weights": (
        lambda: losses.l1(
            t(1.0, 5.0)[None, None], torch.zeros(1, 1, 2), weight=t(1.0, 0.0)[None, None]
        ),
        0.5,
    ),
    "masked l1": (
        lambda: losses.masked_l1(t(1, 5, 9.0)[None, None], EVEN[:1], t(1, 1, 0)[None, None]),
        3,
    ),
    "samples alike whatever their masks": (
        lambda: losses.masked_l1(t(1.0, 3.0).view(2, 1, 1).expand(2, 2, 4), PAIR, HALVES),
        2.0,
    ),
    "perceptual": (lambda: losses.perceptual(layers, ROW, 0 * ROW), 1.5),
    "perceptual, weighted": (
        lambda: losses.perceptual(layers, ROW, 0 * ROW, weights=[1.0, 0.25]),
        1.5,
    ),
    "penalty between real and synthetic": (
        lambda: losses.gradient_penalty(half_square, *BETWEEN),
        5.0,
    ),
    # Each voxel's gradient is (1 + 3) / 2 / 4; four of them have the norm 1.
    "penalty of the mean over heads": (
        lambda: losses.gradient_penalty(lambda x: [x, 3 * x], ONES, ONES, eps(1)),
        0.0,
    ),
    "penalty of a patch map": (
        lambda: losses.gradient_penalty(lambda x: 8 * x, ONES, ONES, eps(1)),
        9.0,
    ),
    "drift": (lambda: losses.drift(t(1.0, 3.0)), 5.0),
    "drift of heads": (lambda: losses.drift([t(1.0, 3.0), t(1.0)]), 3.0),
}


@pytest.mark.parametrize(("loss", "expected"), VALUES.values(), ids=VALUES)
def test_a_loss_is_what_it_comes_to_by_hand(loss, expected):
    found = loss()
    assert found.item() == pytest.approx(expected, abs=1e-6)
    assert found.dtype == torch.float32


def test_as_many_heads_and_weights_are_expected_as_there_are():
    with pytest.raises(ValueError, match="longer"):
        losses.lsgan_discriminator([torch.ones(1)], [torch.ones(1)] * 2)
    with pytest.raises(ValueError, match="longer"):
        losses.perceptual(layers, ROW, ROW, weights=[1.0])


@pytest.mark.parametrize("name", ["nonsaturating", "lsgan", "hinge"])
def test_at_the_midpoint_real_and_synthetic_weigh_the_same(name):
    loss = losses.ADVERSARIAL[name]
    point = torch.tensor([loss.midpoint], requires_grad=True)
    other = point.detach().clone().requires_grad_()
    up, down = torch.autograd.grad(loss.discriminator([point], [other]), (point, other))
    assert up.item() == -down.item() != 0


@pytest.mark.parametrize(("weight", "value", "slope"), [(1.0, 4.0, 4 / 3), (0.0, 1.0, 0.0)])
def test_the_penalty_of_a_linear_critic_moves_its_weights_alone(weight, value, slope):
    """d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|; finite without a gradient, too."""
    weights = torch.full((1, 3, 3), weight, requires_grad=True)
    fake = images(4, 1, 3, 3, seed=1).requires_grad_()
    critic = lambda x: (x * weights).flatten(1).sum(1)  # noqa: E731
    loss = losses.gradient_penalty(critic, images(4, 1, 3, 3), fake, eps(4))
    loss.backward()
    assert loss.item() == pytest.approx(value)
    assert fake.grad is None
    assert weights.grad is not None
    torch.testing.assert_close(weights.grad, torch.full((1, 3, 3), slope))


def test_the_penalty_is_computed_in_full_precision():
    layer, seen = torch.nn.Conv2d(1, 4, 3), []
    layer.register_forward_hook(lambda layer, inputs, output: seen.append(output.dtype))
    real = images(2, 1, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        layer(real)
        losses.gradient_penalty(layer, real, real, eps(2))
    assert seen == [torch.bfloat16, torch.float32]


def test_weights_are_clipped_and_buffers_left():
    module: Any = torch.nn.BatchNorm1d(2)
    module.running_mean.fill_(5)
    torch.nn.init.constant_(module.bias, -1)
    losses.clip_weights(module, 0.01)
    assert module.weight.tolist() == pytest.approx([0.01, 0.01])
    assert module.bias.tolist() == pytest.approx([-0.01, -0.01])
    assert module.weight.requires_grad
    assert module.running_mean.tolist() == [5, 5]
