import numpy as np
import pytest

from gansynth.core.body_mask import shown_body
from gansynth.core.schema import OUTSIDE


def head(shape: tuple[int, ...], air: float) -> tuple[np.ndarray, np.ndarray]:
    """A head (1, D, H, W) of bright skin round a grey brain, in noisy air; and its mask."""
    rng = np.random.default_rng(0)
    planes = np.indices(shape)[1:]
    middles = [(n - 1) / 2 for n in shape[1:]]
    sizes = zip(planes, middles, shape[1:], strict=True)
    away = sum(((plane - middle) / (0.4 * n)) ** 2 for plane, middle, n in sizes)
    mask = np.asarray(away <= 1)
    image = np.where(mask, np.where(away > 0.8, 3.0, 1.0), air)
    return (image + 0.05 * rng.standard_normal(shape)).astype(np.float32)[None], mask


def overlap(found: np.ndarray, mask: np.ndarray) -> float:
    return float((found & mask).sum() / (found | mask).sum())


@pytest.mark.parametrize("fill", [0.0, -0.5, 2.0])
def test_a_frame_with_air_inside_is_no_body(fill):
    image, mask = head((12, 48, 48), air=-0.5)
    labels = np.zeros(mask.shape, np.int16)
    labels[:, :5], labels[:, :, -3:] = OUTSIDE, OUTSIDE
    image[:, labels == OUTSIDE] = fill  # as nnU-Net's preprocessing does, by 0
    assert overlap(shown_body(image, labels), mask & (labels != OUTSIDE)) > 0.9


def test_what_is_masked_is_body_to_the_voxel():
    image, mask = head((12, 48, 48), air=0.0)
    rng = np.random.default_rng(1)
    image += 0.4 * rng.standard_normal(image.shape).astype(np.float32)  # around the outer value
    labels = np.where(mask, np.int16(0), np.int16(OUTSIDE))
    image[:, ~mask] = 0
    assert np.array_equal(shown_body(image, labels), mask)


@pytest.mark.parametrize("slices", [1, 2, 3, 5])
def test_a_body_is_found_in_few_slices(slices):
    image, mask = head((slices, 48, 48), air=-0.5)
    assert overlap(shown_body(image), mask) > 0.9
