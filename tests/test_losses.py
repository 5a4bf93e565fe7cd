"""Losses against numbers worked out by hand."""
# mypy: disallow-untyped-calls=False

import pytest
import torch

from gansynth import losses


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
