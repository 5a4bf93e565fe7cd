"""``blank``: the control of a trial's instrument, ``pip install -e benchmarks/blank``.

Its samples have the labels of ``parametric`` and show nothing: noise with the mean and deviation of
the background. What a host gains or loses by them is no effect of what samples show.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from gansynth.core.hookspecs import Register, hookimpl
from gansynth.core.schema import Condition, Sample
from gansynth_parametric.model import Parametric


class Blank(Parametric):
    """Labels of lesions on noise."""

    name = "blank"

    def _one(self, condition: Condition, rng: Any) -> Sample:
        sample = super()._one(condition, rng)
        image = sample.image
        axes = tuple(range(1, image.ndim))
        mean, deviation = image.mean(axes, keepdims=True), image.std(axes, keepdims=True)
        noise = mean + deviation * rng.standard_normal(image.shape)
        return replace(sample, image=noise.clip(image.min(), image.max()).astype(np.float32))


@hookimpl
def register_generators(register: Register) -> None:
    """Register ``blank``."""
    register("blank", lambda: Blank)
