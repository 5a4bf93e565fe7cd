"""Settings of a training (``--set``)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import BeforeValidator, Field

from gansynth import Needs, TrainingOptions, UsageFault
from gansynth.runtime.option_kinds import edges, size_text

Own = Literal["width", "levels", "learning_rate", "beta1", "dropout", "batch_size", "overlap"]
WARP = ("rotate", "shift", "elastic", "flip")
AUGMENTATION = ("augmentation", *WARP)
EPOCHS = 200.0  # default passes through the training cases (Shin et al. 2018, Sun et al. 2020)
_OWN: Mapping[str, Mapping[Own, float]] = {
    "unet": {
        "width": 16,
        "levels": 5,
        "learning_rate": 5e-4,
        "beta1": 0.9,
        "batch_size": 2,
        "overlap": 0.5,
    },
    "pix2pix": {
        "width": 32,
        "levels": 6,
        "learning_rate": 2e-4,
        "beta1": 0.5,
        "dropout": 0.5,
        "batch_size": 2,
        "overlap": 0.5,
    },
    "deepmedic": {
        "width": 30,
        "learning_rate": 1e-3,
        "beta1": 0.9,
        "batch_size": 10,
        "overlap": 0.0,
    },
}
"""Defaults of each network."""


Edges = Annotated[tuple[Annotated[int, Field(ge=4)], ...], BeforeValidator(edges)]


class SegmenterOptions(TrainingOptions):
    """Settings of ``--target segmenter``."""

    needs: ClassVar[Needs] = {
        "l1": "network=pix2pix",
        "dropout": "network=pix2pix",
        "levels": "network=unet or network=pix2pix",
        "factors": "network=deepmedic",
        **dict.fromkeys(WARP, "augmentation=warp"),
    }

    network: Literal["unet", "pix2pix", "deepmedic"] = Field(
        "unet",
        description="the network: a 3D U-Net, a pix2pix that predicts the label map, or "
        "DeepMedic's of several paths (volumes only)",
    )
    steps: int | None = Field(None, ge=1, description="optimiser steps, in place of epochs")
    epochs: float | None = Field(
        None, gt=0, description="passes through the real training cases, counted in samples (200)"
    )
    batch_size: int | None = Field(
        None,
        ge=1,
        le=65536,
        description="samples of a step (unet and pix2pix 2, deepmedic 10)",
    )
    width: int | None = Field(
        None,
        ge=4,
        le=4096,
        description="features at the finest level (unet 16, pix2pix 32, deepmedic 30)",
    )
    levels: int | None = Field(
        None, ge=1, le=7, description="resolutions at most (unet 5, pix2pix 6)"
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        le=10,
        description="Adam's, at the start (unet 5e-4, pix2pix 2e-4, deepmedic 1e-3)",
    )
    beta1: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Adam's decay of the first moment (unet and deepmedic 0.9, pix2pix 0.5)",
    )
    decay: Literal["none", "linear", "cosine"] = Field(
        "linear", description="how the rate falls to 0 over the second half"
    )
    l1: float = Field(
        100.0, ge=0, description="pix2pix: weight of L1 beside the adversarial term, which has 1"
    )
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="pix2pix: share of features dropped, when predicting too (0.5)",
    )
    factors: tuple[Annotated[int, Field(ge=2, le=9)], ...] = Field(
        (3,), description="deepmedic: subsampling factor of each further path, as 3 or 3,5"
    )
    centred: bool | None = Field(
        None,
        description="centre training crops at a voxel of each class equally often, background too; "
        "else two thirds of them at one of the foreground (deepmedic yes, others no)",
    )
    patch: Edges | None = Field(
        None, description="voxels z,y,x of training crops, in place of the source's own"
    )
    foreground: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of the real samples that are drawn from training cases with a label "
        "above background; the others are drawn from all",
    )
    overlap: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="overlap of windows in prediction, as a share (unet and pix2pix 0.5, "
        "deepmedic 0)",
    )
    augmentation: Literal["warp", "nnunet"] = Field(
        "warp",
        description="usual augmentation: one warp, by the next four settings, or nnU-Net's own, "
        "with scale, grey values and mirroring on all axes",
    )
    rotate: float = Field(
        10.0, ge=0, le=180, description="usual augmentation: most degrees about each axis"
    )
    shift: float = Field(
        0.05, ge=0, lt=0.5, description="usual augmentation: most shift, as share of an axis"
    )
    elastic: float = Field(
        2.0, ge=0, description="usual augmentation: deviation of elastic displacements, voxels"
    )
    flip: bool = Field(
        False, description="usual augmentation: mirror left to right for half of the samples"
    )
    precision: Literal["auto", "bf16", "fp16", "fp32"] = Field(
        "auto", description="as in the loop of fit: auto, bf16, fp16 (CUDA) or fp32"
    )
    log_every: int = Field(20, ge=1, description="steps averaged in a line of metrics.csv")

    def own(self, key: Own) -> float:
        """Return a setting whose default depends on the network; 0 for one that has no effect."""
        value: float | None = getattr(self, key)
        return _OWN[self.network].get(key, 0.0) if value is None else value

    def steps_for(self, cases: int) -> int:
        """Return the optimiser steps of the whole training."""
        if self.steps is not None:
            return self.steps
        return max(1, math.ceil((self.epochs or EPOCHS) * cases / self.own("batch_size")))

    def patch_of(self, axes: int) -> tuple[int, ...] | None:
        """Return the requested training crops (D, H, W) or (H, W); None for the source's own."""
        if self.patch is None:
            return None
        patch = self.patch * axes if len(self.patch) == 1 else self.patch
        if len(patch) != axes:
            raise UsageFault(
                "segmenter.patch-axes-differ",
                f"--set patch={size_text(self.patch)}: {len(patch)} edges, expected "
                f"{axes}, as the cases have axes, or one for all",
            )
        return patch
