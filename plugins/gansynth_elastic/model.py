"""``elastic``: real cases, image and labels deformed together. It has no networks.

It is the baseline of GANs that generate images from edited label maps: the same edits, another
image. Simard et al. 2003 (ICDAR); for segmenters of few cases Ronneberger et al. 2015 (MICCAI).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth import (
    OUTSIDE,
    Capabilities,
    Case,
    Condition,
    DataFault,
    FloatArray,
    Generator,
    GeneratorOptions,
    Sample,
)
from gansynth.core.body_mask import shown_body

PIECES = 8  # of a random map
STEPS = 16  # of our values' range: finer ones are no bends of a map
RANKS = (0, 0.01, *np.linspace(0.05, 0.95, 19).round(2), 0.99, 1)  # of a scan's quantiles


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
    maps: Literal["none", "monotone", "any", "scans"] = Field(
        "none",
        description="how a channel's values are mapped: monotone or any, at random within their "
        "range, in eight pieces; scans: onto those of one of --target-scans",
    )


class ElasticGenerator(Generator):
    """The control: training cases with a plain deformation."""

    name: ClassVar[str] = "elastic"
    Options: ClassVar[type[GeneratorOptions]] = ElasticOptions
    options: ElasticOptions
    scans: npt.NDArray[np.float64] | None = None
    """Quantiles at ``RANKS`` of each scan's channels over its body (scans, C, ranks)."""

    @property
    def capabilities(self) -> Capabilities:
        # The edits of cgan3d, in its order: a seed then gives both the same shapes.
        return Capabilities(
            takes=frozenset({"labels", "image"}),
            edits=("elastic", "scale", "rotate"),
            scans=self.options.maps == "scans",
        )

    def observe_scans(self, scans: Iterable[Case]) -> dict[str, Any]:
        """See ``Generator.observe_scans``: quantiles of their bodies."""
        found = []
        for scan in scans:
            body = shown_body(scan.image)
            channels = [np.quantile(channel[body], RANKS) for channel in scan.image]
            # Six digits: those of 64 scans of four channels fit into a run's state.
            found.append([[float(f"{value:.6g}") for value in each] for each in channels])
        return {"scans": found}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.scans = np.array(state["scans"], np.float64) if "scans" in state else None

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
        rng = np.random.default_rng(seed)
        image = self._recoloured(condition.moved, condition.labels != OUTSIDE, rng)
        if self.scans is not None:
            image = _matched(image, self.scans[rng.integers(len(self.scans))])
        return Sample(image, condition.labels.copy())

    def _recoloured(
        self, image: FloatArray, body: npt.NDArray[np.bool_], rng: np.random.Generator
    ) -> FloatArray:
        """Return a copy; the values of each channel change at random in the body."""
        out, o = image.copy(), self.options
        random = o.maps in ("monotone", "any")
        plain = not (o.brightness or o.contrast or o.gamma or random)
        if plain or not body.any():
            return out
        for channel in out:
            power, gain, shift = rng.uniform(-1, 1, 3) * (o.gamma, o.contrast, o.brightness)
            voxels = channel[body].astype(np.float64)
            low, reach = voxels.min(), np.ptp(voxels)
            if reach > 0:
                voxels = low + reach * ((voxels - low) / reach) ** np.exp(power)
                if random:
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


def _matched(image: FloatArray, quantiles: npt.NDArray[np.float64]) -> FloatArray:
    """Return an image (C, ...) whose body has a scan's values, (C, ranks), rank by rank.

    Nyul et al. 2000, with one scan in place of a mean. What is not body keeps its values.
    """
    body, out = shown_body(image), image.copy()
    for channel, theirs in zip(out, quantiles, strict=True):
        at, to = _knots(np.quantile(channel[body], RANKS), theirs)
        channel[body] = np.interp(channel[body], at, to)
    return out


def _knots(
    ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]
) -> tuple[list[float], list[float]]:
    """Return where a map of values bends, and its values there.

    Ranks at which ours hardly rise are one, since the map would make grain of what is saturated.
    """
    least = max(float(np.ptp(ours)) / STEPS, 1e-12)
    groups: list[list[int]] = [[0]]
    for rank in range(1, len(ours)):
        if ours[rank] - ours[groups[-1][0]] < least:
            groups[-1].append(rank)
        else:
            groups.append([rank])
    means = [(float(ours[group].mean()), float(theirs[group].mean())) for group in groups]
    return [at for at, _ in means], [to for _, to in means]
