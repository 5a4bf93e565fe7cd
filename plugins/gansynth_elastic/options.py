"""Options of ``elastic``."""

from __future__ import annotations

from pydantic import Field

from gansynth.core.generator import GeneratorOptions


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
