"""``elastic``: real cases, image and labels moved alike. It has no networks.

The rival of GANs that draw images from edited label maps: the same edits, only the image differs.
Simard et al. 2003 (ICDAR); for segmenters of few cases Ronneberger et al. 2015 (MICCAI).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from torch import nn

from gansynth.core.generator import Generator, GeneratorOptions, Heeded, Phase
from gansynth.core.schema import OUTSIDE, Condition, FloatArray, Sample
from gansynth.runtime.errors import DataFault
from gansynth_elastic.options import ElasticOptions


class Elastic(Generator):
    """The control: what plain deformation of the training cases gives."""

    name: ClassVar[str] = "elastic"
    Options: ClassVar[type[GeneratorOptions]] = ElasticOptions
    # The moves of cgan3d, in its order: a seed then asks both for the same shapes.
    default_edits: ClassVar[tuple[str, ...]] = ("elastic", "scale", "rotate")
    options: ElasticOptions

    @property
    def heeds(self) -> frozenset[Heeded]:
        """Labels, and the image that was moved along with them."""
        return frozenset({"labels", "image"})

    def networks(self) -> dict[str, nn.Module]:
        """None."""
        return {}

    def phases(self) -> Sequence[Phase]:
        """None: there is nothing to train."""
        return ()

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """See ``Generator.sample``; DataFault: conditions without a moved image."""
        return [self._one(c, seed) for c, seed in zip(conditions, seeds, strict=True)]

    def flaw(self, sample: Sample) -> str:
        """Samples that are all but copies of a real case."""
        moved: Mapping[str, float] | None = sample.provenance.get("moved")
        least = self.options.least_voxels
        if moved is None or (moved["voxels"] >= least and moved["voxels"] > 0):
            return ""
        return (
            f"a near-copy of a real case, expected edits that move it by {least:g} voxels or more, "
            "root mean square; ask for more, such as elastic:amplitude_mm=6"
        )

    def _one(self, condition: Condition, seed: int) -> Sample:
        if condition.moved is None or condition.labels is None:
            raise DataFault(
                f"{self.name}: a condition has no image that was moved along with its labels, "
                "expected one, as a ConditionSampler with moving=True gives it"
            )
        body = condition.labels != OUTSIDE
        image = self._recoloured(condition.moved, body, np.random.default_rng(seed))
        return Sample(image, condition.labels.copy(), provenance=condition.provenance)

    def _recoloured(
        self, image: FloatArray, body: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> FloatArray:
        """A copy whose channels are changed in the body, each for itself, as the options say."""
        out, o = image.copy(), self.options
        if not (o.brightness or o.contrast or o.gamma) or not body.any():
            return out
        for channel in out:
            power, gain, shift = rng.uniform(-1, 1, 3) * (o.gamma, o.contrast, o.brightness)
            voxels = channel[body].astype(np.float64)
            low, reach = voxels.min(), np.ptp(voxels)
            if reach > 0:
                voxels = low + reach * ((voxels - low) / reach) ** np.exp(power)
            mean, deviation = voxels.mean(), voxels.std()
            channel[body] = mean + (1 + gain) * (voxels - mean) + shift * deviation
        return out
