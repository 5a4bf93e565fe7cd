"""Large volumes: what is made of one takes little more memory than the volume itself."""

import tracemalloc
from collections.abc import Callable

import numpy as np
import pytest

from gansynth.core.body_mask import shown_body
from tests.data.sets import opened, save

SHAPE = (96, 192, 192)


def bytes_a_voxel(work: Callable[[], object]) -> float:
    tracemalloc.start()
    work()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak / np.prod(SHAPE)


@pytest.mark.parametrize("modality", ["mr", "ct", "none"])
def test_a_volume_is_read_and_normalised(tmp_path, modality):
    rng = np.random.default_rng(0)
    for name in ("p1", "p2"):
        labels = np.zeros(SHAPE, np.uint8)
        labels[20:30, 50:90, 50:90] = 1
        image = rng.integers(-900, 900, SHAPE, np.int16)
        for ending, array in (("ct", image), ("seg", labels)):
            save(tmp_path / f"{name}_{ending}.nii", array)
    source = opened(tmp_path, modality=modality)
    case = source.train_ids[0]
    source.load(case)  # what is learnt of the whole set
    assert bytes_a_voxel(lambda: source.load(case)) < 20  # the file 3, the case 6, its moments 8


def test_a_body_is_found():
    rng = np.random.default_rng(0)
    image = rng.standard_normal((1, *SHAPE), np.float32)
    image[:, :, 40:150, 40:150] += 9
    assert bytes_a_voxel(lambda: shown_body(image)) < 20
