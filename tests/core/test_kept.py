from functools import partial

import numpy as np

from gansynth.core.kept import Kept


def test_what_is_kept_stays_within_its_bytes_and_the_last_used_stay():
    made = []

    def make(number: int) -> np.ndarray:
        made.append(number)
        return np.full(4096, number, np.uint8)

    kept = Kept[np.ndarray](3 * 4096, lambda array: array.nbytes)
    for number in (0, 1, 2, 0, 3, 0, 1):
        assert kept(number, partial(make, number))[0] == number
        assert sum(array.nbytes for array in kept._kept.values()) <= 3 * 4096
    assert made == [0, 1, 2, 3, 1]  # 1 went for 3, though 0 is older
