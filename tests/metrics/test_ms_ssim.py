"""MS-SSIM: MONAI's numbers at equal settings; fewer scales for small images."""

import pytest
import torch
import torch.nn.functional as F

from gansynth.metrics.diversity import WEIGHTS, ms_ssim, weights_for


def pair(*shape: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Smooth images, and the same with noise: similar at coarse scales, less so at fine ones."""
    rng = torch.Generator().manual_seed(0)
    pool = F.avg_pool2d if len(shape) == 4 else F.avg_pool3d
    first = 4 * pool(torch.rand(*shape, generator=rng), 5, 1, 2)
    return first, first + 2 * torch.rand(*shape, generator=rng)


@pytest.mark.parametrize(
    ("shape", "scales", "window"),
    [
        ((3, 1, 64, 64), 3, 11),
        ((2, 2, 47, 61), 2, 11),
        ((2, 1, 20, 24), 1, 11),
        ((2, 1, 8, 9), 1, 7),  # the largest odd number that is not above 8
        ((2, 2, 24, 25, 26), 2, 11),
    ],
    ids=str,
)
def test_it_is_monais(shape, scales, window):
    from monai.metrics.regression import MultiScaleSSIMMetric

    first, second = pair(*shape)
    theirs = MultiScaleSSIMMetric(
        len(shape) - 2, data_range=4.0, kernel_size=window, weights=WEIGHTS[:scales]
    )
    expected = torch.as_tensor(theirs(first, second)).flatten()
    assert 0.1 < expected.min() < expected.max() < 0.97
    found = ms_ssim(first, second, 4.0, WEIGHTS[:scales])
    assert found.tolist() == pytest.approx(expected.tolist(), abs=1e-4)


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 2, 40, 56), (2, 1, 8, 6), (1, 1, 5, 9, 8)])
def test_an_image_is_like_itself(shape):
    first, _ = pair(*shape)
    assert ms_ssim(first, first, 1.0).tolist() == pytest.approx([1.0] * shape[0])


@pytest.mark.parametrize("shape", [(2, 1, 64, 64), (2, 2, 40, 56), (2, 1, 8, 6), (1, 1, 5, 9, 8)])
def test_the_order_of_a_pair_does_not_count(shape):
    first, second = pair(*shape)
    there, back = ms_ssim(first, second, 1.0), ms_ssim(second, first, 1.0)
    assert there.tolist() == pytest.approx(back.tolist(), abs=1e-6)
    assert (there < 1).all()


def test_pairs_of_a_batch_do_not_meet():
    first, second = pair(3, 1, 32, 32)
    alone = [float(ms_ssim(first[i : i + 1], second[i : i + 1], 1.0)) for i in range(3)]
    assert ms_ssim(first, second, 1.0).tolist() == pytest.approx(alone, abs=1e-6)


def test_an_image_and_its_negative_are_wholly_unlike():
    first, _ = pair(1, 1, 32, 32)
    assert ms_ssim(first, 4 - first, 4.0).tolist() == [0.0]


def test_the_range_of_the_data_decides_what_is_a_small_difference():
    first, second = pair(1, 1, 32, 32)
    assert ms_ssim(first, second, 100.0) > 0.9
    assert ms_ssim(first, second, 1.0) < 0.3


@pytest.mark.parametrize(
    ("size", "scales"),
    [((176, 256), 5), ((175, 256), 4), ((64, 64), 3), ((40, 56), 2), ((8, 64), 1), ((5, 5, 5), 1)],
)
def test_small_images_have_fewer_scales(size, scales):
    weights = weights_for(size)
    assert len(weights) == scales
    assert sum(weights) == pytest.approx(1)
    assert weights[0] / weights[-1] == pytest.approx(WEIGHTS[0] / WEIGHTS[scales - 1])
