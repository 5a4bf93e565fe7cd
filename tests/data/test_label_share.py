"""The share of variance that labels explain: of one kind of label, of noise, of an even image."""

import numpy as np
import pytest

from gansynth.core.schema import OUTSIDE
from gansynth.data.label_statistics import label_share

FLAT, NOISE, EVEN = [[1, 1, 9], [3, 3, 9]], [[1, 3, 9], [1, 3, 9]], [[2, 2, 9], [2, 2, 9]]
LABELS = np.array([[0, 0, OUTSIDE], [1, 1, OUTSIDE]], np.int16)


@pytest.mark.parametrize(("channels", "share"), [([FLAT], 1), ([NOISE], 0), ([FLAT, NOISE], 0.5)])
def test_label_share_is_one_for_flat_labels_and_zero_for_noise(channels, share):
    image = np.array(channels, np.float32)
    assert label_share([(image, LABELS)]) == pytest.approx(share)
    assert label_share([(image[..., :1], LABELS[:, :1]), (image, LABELS)]) == pytest.approx(share)


def test_even_images_have_nothing_explained_and_no_images_no_share():
    assert label_share([(np.array([EVEN], np.float32), LABELS)]) == 0
    assert np.isnan(label_share([]))
