"""Cases that segments are told apart by: each has its own brightness."""

from dataclasses import replace
from typing import Any

import numpy as np

from gansynth_deepmedic.engine.cutting import Cutting, Sampling
from gansynth_deepmedic.engine.geometry import Geometry
from gansynth_deepmedic.insertion import Loaded
from tests.adapters.deepmedic.arrays import Volume, volume

SIZES = Geometry.cubes(9, 5, (3,))
PLAIN = Cutting(Sampling(classes=3))
SYNTHETIC = 1000.0
"""Samples are so bright; real cases are about 10."""


def case_of(number: int) -> Volume:
    """A case about 20 * ``number`` bright, all of it of interest."""
    made = volume(f"pat_{number}", (22 + number, 20, 18), units=((1.0, 0.0),) * 2, seed=number)
    files = {
        path: array + np.float32(20 * number) if array.dtype == np.float32 else array
        for path, array in made.files.items()
    }
    roi = made.host.roi
    assert roi is not None
    files[roi] = np.ones_like(files[roi])
    return replace(made, files=files, roi=None)


CASES = tuple(case_of(number) for number in range(3))


def loaded(number: int = 0, **more: Any) -> Loaded:
    """A case as its files have it, or with other arrays."""
    one = CASES[number]
    files = one.files
    image = np.stack([files[channel] for channel in one.host.channels])
    assert one.host.roi is not None
    values = {"labels": files[one.host.labels], "roi": files[one.host.roi], "core": None, **more}
    return Loaded(values.pop("image", image), case=one.host.id, **values)
