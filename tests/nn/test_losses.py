"""Losses against numbers worked out by hand."""
# mypy: disallow-untyped-calls=False

import math
from functools import partial
from typing import Any, get_args

import pytest
import torch

from gansynth.nn import losses


def test_least_squares_of_a_discriminator():
    real, fake = [torch.tensor([1.0, 3.0])], [torch.tensor([2.0, 0.0])]
    assert losses.lsgan_discriminator(real, fake).item() == 0.5 * (2.0 + 2.0)


def test_a_perfect_discriminator_has_no_loss():
    loss = losses.lsgan_discriminator([torch.ones(2, 1, 3)], [torch.zeros(2, 1, 3)])
    assert loss.item() == 0


def test_least_squares_of_a_generator():
    assert losses.lsgan_generator([torch.tensor([1.0, 3.0])]).item() == 2.0


def test_heads_count_alike_whatever_their_size():
    small, large = torch.full((1,), 3.0), torch.ones(100)
    assert losses.lsgan_generator([small, large]).item() == 2.0


def test_heads_must_be_as_many():
    with pytest.raises(ValueError, match="longer"):
        losses.lsgan_discriminator([torch.ones(1)], [torch.ones(1)] * 2)


def test_feature_matching_is_the_mean_difference_over_layers():
    real = [torch.zeros(4), torch.zeros(2)]
    assert losses.feature_matching(real, [torch.ones(4), torch.full((2,), 3.0)]).item() == 2.0


def test_feature_matching_moves_the_synthetic_side_only():
    real, fake = torch.zeros(3, requires_grad=True), torch.ones(3, requires_grad=True)
    losses.feature_matching([real], [fake]).backward()
    assert real.grad is None
    assert fake.grad is not None


def test_l1_compares_voxel_by_voxel():
    fake = torch.tensor([[[[1.0, -1.0]]]])
    assert losses.l1(fake, torch.zeros_like(fake)).item() == 1.0


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_low_pass_forgives_grain_but_not_contrast(ndim):
    shape = (1, 1, *[4] * ndim)
    grain = torch.ones(shape)
    grain[..., ::2] = -1
    assert losses.l1(grain, torch.zeros(shape), lowpass=2).item() == 0
    assert losses.l1(torch.full(shape, 2.0), torch.zeros(shape), lowpass=2).item() == 2.0


def test_a_low_pass_reaches_the_rest_of_a_size_it_does_not_divide():
    fake = torch.zeros(1, 1, 5, 5)
    fake[..., 4, 4] = 1
    assert losses.l1(fake, torch.zeros_like(fake), lowpass=4).item() > 0


def test_weight_zero_leaves_a_voxel_out():
    fake, weight = torch.tensor([[[[1.0, 5.0]]]]), torch.tensor([[[[1.0, 0.0]]]])
    assert losses.l1(fake, torch.zeros_like(fake), weight=weight).item() == 0.5


def test_half_precision_logits_are_judged_in_full():
    logits = torch.full((3000,), 1.0078125, dtype=torch.bfloat16)
    assert losses.lsgan_generator([logits]).dtype == torch.float32
    assert losses.lsgan_generator([logits]).item() == pytest.approx(0.0078125**2)


# -- adversarial -----------------------------------------------------------------------------------


def test_cross_entropy_of_an_undecided_discriminator():
    zero = [torch.zeros(2, 1, 3)]
    assert losses.nonsaturating_discriminator(zero, zero).item() == pytest.approx(2 * math.log(2))
    assert losses.nonsaturating_generator(zero).item() == pytest.approx(math.log(2))


def test_cross_entropy_is_of_the_logits_sigmoid():
    real, fake = torch.tensor([1.0, -2.0]), torch.tensor([0.5, 3.0])
    expected = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
    found = losses.nonsaturating_discriminator([real], [fake]).item()
    assert found == pytest.approx(expected.item())


def test_a_beaten_generator_still_has_a_gradient():
    fake: Any = torch.tensor([-50.0], requires_grad=True)
    losses.nonsaturating_generator([fake]).backward()
    assert fake.grad.item() == pytest.approx(-1)


def test_the_hinge_forgives_what_is_beyond_the_margin():
    loss = losses.hinge_discriminator([torch.tensor([5.0, 0.0])], [torch.tensor([-5.0, 1.0])])
    assert loss.item() == 0.5 * (0 + 1) + 0.5 * (0 + 2)
    assert losses.hinge_generator([torch.tensor([3.0, -1.0])]).item() == -1


def test_a_critics_loss_is_minus_the_distance():
    real, fake = [torch.tensor([3.0, 5.0])], [torch.tensor([1.0, -1.0])]
    assert losses.wgan_critic(real, fake).item() == -4
    assert losses.wgan_generator(fake).item() == 0


def test_the_table_has_the_names_that_options_offer():
    assert set(get_args(losses.AdversarialName)) == set(losses.ADVERSARIAL)


@pytest.mark.parametrize("name", losses.ADVERSARIAL)
def test_both_players_pull_opposite_ways(name):
    loss = losses.ADVERSARIAL[name]
    real, fake = torch.zeros(4, requires_grad=True), torch.zeros(4, requires_grad=True)
    for_real, for_fake = torch.autograd.grad(loss.discriminator([real], [fake]), (real, fake))
    (for_generator,) = torch.autograd.grad(loss.generator([fake]), fake)
    assert (for_real < 0).all()
    assert (for_fake >= 0).all()
    assert (for_generator < 0).all()


@pytest.mark.parametrize("name", ["nonsaturating", "lsgan", "hinge"])
def test_at_the_midpoint_real_and_synthetic_weigh_the_same(name):
    loss = losses.ADVERSARIAL[name]
    point = torch.tensor([loss.midpoint], requires_grad=True)
    other = point.detach().clone().requires_grad_()
    up, down = torch.autograd.grad(loss.discriminator([point], [other]), (point, other))
    assert up.item() == -down.item() != 0


# -- penalties -------------------------------------------------------------------------------------


class Linear(torch.nn.Module):
    """D(x) = w . x, whose gradient is w everywhere."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(weight)

    def forward(self, x):
        return (x * self.weight).flatten(1).sum(1)


def half_square(x):
    """D(x) = |x|^2 / 2, whose gradient is x."""
    return 0.5 * x.square().flatten(1).sum(1, keepdim=True)


def images(*shape: int, seed: int = 0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def eps(count: int, ndim: int = 2):
    return torch.rand(count, *[1] * (ndim + 1), generator=torch.Generator().manual_seed(9))


def test_gradient_penalty_of_a_linear_critic():
    critic = Linear(torch.full((1, 3, 3), 1.0))
    real, fake = images(4, 1, 3, 3), images(4, 1, 3, 3, seed=1)
    loss = losses.gradient_penalty(critic, real, fake, eps(4))
    assert loss.item() == pytest.approx((3 - 1) ** 2)
    loss.backward()
    # d/dw (|w| - 1)^2 = 2 (|w| - 1) w / |w|
    torch.testing.assert_close(critic.weight.grad, torch.full((1, 3, 3), 2 * 2 / 3))


def test_gradient_penalty_is_taken_between_real_and_synthetic():
    real, fake = torch.full((2, 1, 1, 4), 4.0), torch.zeros(2, 1, 1, 4)
    share = torch.tensor([0.25, 0.5]).view(2, 1, 1, 1)
    # |x| is 2 * 4 eps: 2 and 4.
    assert losses.gradient_penalty(half_square, real, fake, share).item() == 0.5 * (1 + 9)


def test_gradient_penalty_survives_a_critic_without_gradient():
    critic: Any = Linear(torch.zeros(1, 3, 3))
    loss = losses.gradient_penalty(critic, images(2, 1, 3, 3), images(2, 1, 3, 3), eps(2))
    loss.backward()
    assert loss.item() == 1
    assert torch.isfinite(critic.weight.grad).all()


def test_gradient_penalty_moves_the_critic_only():
    fake = images(2, 1, 3, 3).requires_grad_()
    critic = Linear(torch.ones(1, 3, 3))
    losses.gradient_penalty(critic, images(2, 1, 3, 3), fake, eps(2)).backward()
    assert fake.grad is None
    assert critic.weight.grad is not None


def test_gradient_penalty_is_computed_in_full_precision():
    layer, seen = torch.nn.Conv2d(1, 4, 3), []

    def critic(x):
        seen.append(layer(x).dtype)
        return layer(x)

    real = images(2, 1, 8, 8).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        assert layer(real).dtype == torch.bfloat16
        losses.gradient_penalty(critic, real, real, eps(2))
    assert seen == [torch.float32]


def test_gradient_penalty_is_of_the_mean_over_a_patch_map_and_heads():
    real = fake = torch.ones(1, 1, 2, 2)
    heads = [lambda x: x, lambda x: 3 * x]
    loss = losses.gradient_penalty(lambda x: [h(x) for h in heads], real, fake, eps(1))
    # Each voxel's gradient is (1 + 3) / 2 / 4; four of them have the norm 1.
    assert loss.item() == pytest.approx(0)
    loss = losses.gradient_penalty(lambda x: 8 * x, real, fake, eps(1))
    assert loss.item() == pytest.approx((4 - 1) ** 2)


def test_r1_of_a_known_gradient():
    real = images(3, 2, 4).requires_grad_()
    expected = 0.5 * real.detach().square().sum() / 3
    assert losses.r1(real, half_square(real)).item() == pytest.approx(expected.item())


def test_r1_agrees_with_finite_differences():
    torch.manual_seed(0)
    critic = torch.nn.Sequential(torch.nn.Conv2d(1, 3, 2), torch.nn.Tanh(), torch.nn.Flatten())
    real, h = images(1, 1, 3, 3).requires_grad_(), 1e-2
    found = losses.r1(real, critic(real)).item()
    squares = 0.0
    with torch.no_grad():
        for voxel in torch.eye(9).view(9, 1, 1, 3, 3):
            rise = critic(real + h * voxel).mean() - critic(real - h * voxel).mean()
            squares += (rise.item() / (2 * h)) ** 2
    assert found == pytest.approx(0.5 * squares, rel=1e-3)


def test_r1_reaches_the_weights():
    critic = Linear(torch.ones(1, 2))
    real = images(2, 1, 2).requires_grad_()
    losses.r1(real, critic(real)).backward()
    torch.testing.assert_close(critic.weight.grad, torch.ones(1, 2))


def test_drift_is_the_mean_square():
    assert losses.drift(torch.tensor([1.0, 3.0])).item() == 5
    assert losses.drift([torch.tensor([1.0, 3.0]), torch.tensor([1.0])]).item() == 3


def test_weights_are_clipped_and_buffers_left():
    module: Any = torch.nn.BatchNorm1d(2)
    module.running_mean.fill_(5)
    torch.nn.init.constant_(module.bias, -1)
    losses.clip_weights(module, 0.01)
    assert module.weight.tolist() == pytest.approx([0.01, 0.01])
    assert module.bias.tolist() == pytest.approx([-0.01, -0.01])
    assert module.weight.requires_grad
    assert module.running_mean.tolist() == [5, 5]


# -- differences -----------------------------------------------------------------------------------


def test_masked_l1_is_a_mean_inside_the_mask():
    fake = torch.tensor([[[[1.0, 5.0, 9.0]]]])
    mask = torch.tensor([[[[True, True, False]]]])
    assert losses.masked_l1(fake, torch.zeros_like(fake), mask).item() == 3


def test_masked_l1_counts_samples_alike_whatever_their_masks_volume():
    fake = torch.tensor([1.0, 3.0]).view(2, 1, 1).expand(2, 2, 4)
    mask = torch.zeros(2, 1, 4)
    mask[0, 0, :1], mask[1, 0, :] = 1, 1
    assert losses.masked_l1(fake, torch.zeros(2, 2, 4), mask).item() == 2


def test_an_empty_mask_asks_nothing():
    fake: Any = torch.ones(1, 1, 4, requires_grad=True)
    loss = losses.masked_l1(fake, torch.zeros(1, 1, 4), torch.zeros(1, 1, 4))
    loss.backward()
    assert loss.item() == 0
    assert fake.grad.tolist() == [[[0, 0, 0, 0]]]


def layers(x):
    return [x, 2 * x[..., ::2]]


def test_perceptual_is_the_mean_difference_over_layers():
    assert losses.perceptual(layers, torch.ones(2, 1, 4), torch.zeros(2, 1, 4)).item() == 1.5


def test_layers_of_a_perceptual_loss_can_be_weighted():
    fake, real = torch.ones(2, 1, 4), torch.zeros(2, 1, 4)
    assert losses.perceptual(layers, fake, real, weights=[1.0, 0.25]).item() == 1.5
    with pytest.raises(ValueError, match="longer"):
        losses.perceptual(layers, fake, real, weights=[1.0])


def test_a_perceptual_loss_moves_the_synthetic_side_only():
    fake, real = torch.ones(1, 4, requires_grad=True), torch.zeros(1, 4, requires_grad=True)
    losses.perceptual(layers, fake, real).backward()
    assert real.grad is None
    assert fake.grad is not None


# -- means over samples ----------------------------------------------------------------------------


def r1_of(x):
    x = x.detach().requires_grad_()
    return losses.r1(x, critic_of(x))


def critic_of(x):
    return [x.square().sum((1, 2), keepdim=True), x.tanh()]


def discriminator(loss, x, y, m):
    return loss.discriminator([x, x[:, 0]], [y, m])


def generator(loss, x, y, m):
    return loss.generator([x, m])


BATCHED: dict[str, Any] = {
    **{f"{k} discriminator": partial(discriminator, v) for k, v in losses.ADVERSARIAL.items()},
    **{f"{k} generator": partial(generator, v) for k, v in losses.ADVERSARIAL.items()},
    "gradient penalty": lambda x, y, m: losses.gradient_penalty(
        critic_of, x, y, m.flatten(1)[:, :1, None, None]
    ),
    "r1": lambda x, y, m: r1_of(x),
    "drift": lambda x, y, m: losses.drift([x, m]),
    "l1": lambda x, y, m: losses.l1(x, y, lowpass=2, weight=m),
    "masked l1": lambda x, y, m: losses.masked_l1(x, y, m),
    "feature matching": lambda x, y, m: losses.feature_matching([x, m], [y, m * 2]),
    "perceptual": lambda x, y, m: losses.perceptual(layers, x, y, weights=[1.0, 3.0]),
}


@pytest.mark.parametrize("name", BATCHED)
def test_equal_shares_of_a_batch_average_to_the_whole(name):
    x, y = images(6, 2, 4, 4), images(6, 2, 4, 4, seed=1)
    mask = images(6, 1, 4, 4, seed=2).sigmoid() * (torch.arange(6).view(6, 1, 1, 1) != 1)
    whole = BATCHED[name](x, y, mask)
    shares = [BATCHED[name](*(t[part] for t in (x, y, mask))) for part in (slice(3), slice(3, 6))]
    assert whole.shape == ()
    assert whole.dtype == torch.float32
    torch.testing.assert_close(sum(shares) / 2, whole)
    assert abs(shares[0] - shares[1]) > 1e-4  # else the mean would prove nothing
