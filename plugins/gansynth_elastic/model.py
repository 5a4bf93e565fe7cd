"""``elastic``: real cases, image and labels deformed together. It has no networks.

It is the baseline of GANs that generate images from edited label maps: the same edits, another
image. Simard et al. 2003 (ICDAR); for segmenters of few cases Ronneberger et al. 2015 (MICCAI).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth import (
    OUTSIDE,
    Capabilities,
    Condition,
    DataFault,
    FloatArray,
    Generator,
    GeneratorOptions,
    Sample,
)

PIECES = 8  # of a random map


class ElasticOptions(GeneratorOptions):
    """Options of ``elastic``; the deformation itself is set by edits."""

    least_voxels: float = Field(
        0.5,
        ge=0,
        le=100,
        description="a sample moved by less, root mean square in voxels, is rejected as a copy "
        "of a real case",
    )
    brightness: float = Field(
        0.0,
        ge=0,
        le=2,
        description="largest change of a channel's brightness, in standard deviations over the "
        "body; 0: none",
    )
    contrast: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="largest relative change of a channel's contrast about its mean; 0: none",
    )
    gamma: float = Field(
        0.0,
        ge=0,
        le=2,
        description="gamma change of a channel within its range: exponents from "
        "exp(-gamma) to exp(gamma); 0: none",
    )
    maps: Literal["none", "monotone", "any"] = Field(
        "none",
        description="random map of a channel's values within their range, of eight pieces; any: "
        "bright may become dark",
    )


class ElasticGenerator(Generator):
    """The control: training cases with a plain deformation."""

    name: ClassVar[str] = "elastic"
    Options: ClassVar[type[GeneratorOptions]] = ElasticOptions
    # The edits of cgan3d, in its order: a seed then gives both the same shapes.
    capabilities = Capabilities(
        takes=frozenset({"labels", "image"}), edits=("elastic", "scale", "rotate")
    )
    options: ElasticOptions

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """See ``Generator.sample``; DataFault: a condition has no deformed image."""
        return [self._one(c, seed) for c, seed in zip(conditions, seeds, strict=True)]

    def reject_reason(self, sample: Sample) -> str:
        """Return why a sample is a near-copy of a real case, or nothing."""
        moved: Mapping[str, float] | None = sample.provenance.get("moved")
        least = self.options.least_voxels
        if moved is None or (moved["voxels"] >= least and moved["voxels"] > 0):
            return ""
        return (
            f"a near-copy of a real case, expected edits that move it by {least:g} voxels or more, "
            "root mean square; use stronger edits, such as elastic:amplitude_mm=6"
        )

    def _one(self, condition: Condition, seed: int) -> Sample:
        if condition.moved is None or condition.labels is None:
            raise DataFault(
                "elastic.condition-without-moved-image",
                f"{self.name}: a condition has no image that was moved along with its labels, "
                "expected one; make conditions with a ConditionSampler, moving=True",
            )
        body = condition.labels != OUTSIDE
        image = self._recoloured(condition.moved, body, np.random.default_rng(seed))
        return Sample(image, condition.labels.copy())

    def _recoloured(
        self, image: FloatArray, body: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> FloatArray:
        """Return a copy; the values of each channel change at random in the body."""
        out, o = image.copy(), self.options
        plain = not (o.brightness or o.contrast or o.gamma) and o.maps == "none"
        if plain or not body.any():
            return out
        for channel in out:
            power, gain, shift = rng.uniform(-1, 1, 3) * (o.gamma, o.contrast, o.brightness)
            voxels = channel[body].astype(np.float64)
            low, reach = voxels.min(), np.ptp(voxels)
            if reach > 0:
                voxels = low + reach * ((voxels - low) / reach) ** np.exp(power)
                if o.maps != "none":
                    heights = _heights(rng, rising=o.maps == "monotone")
                    at = np.linspace(0, 1, len(heights))
                    voxels = low + reach * np.interp((voxels - low) / reach, at, heights)
            mean, deviation = voxels.mean(), voxels.std()
            channel[body] = mean + (1 + gain) * (voxels - mean) + shift * deviation
        return out


def _heights(rng: np.random.Generator, *, rising: bool) -> npt.NDArray[np.float64]:
    """Return a random map's values at the ends of its pieces, from 0 to 1."""
    heights = rng.uniform(size=PIECES + 1)
    heights = (heights - heights.min()) / np.ptp(heights)
    return np.sort(heights) if rising else heights
