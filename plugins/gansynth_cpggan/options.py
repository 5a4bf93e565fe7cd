"""Options of ``cpggan``; defaults follow Karras et al. 2018 unless noted."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gansynth import DiscriminatorAugment, GeneratorOptions, Needs


class CPGGANOptions(GeneratorOptions):
    """Options of ``cpggan``."""

    needs: ClassVar[Needs] = {
        "batch_size": "!batch_sizes",
        "roi_size": "mode=roi",
        "augment_p": "augment",
    }

    # -- networks
    width: int = Field(
        16, ge=1, le=4096, description="features at full size; doubled at each halving of the size"
    )
    max_width: int = Field(256, ge=1, le=16384, description="largest number of features")
    latent: int = Field(128, ge=1, le=65536, description="numbers in a latent")
    minibatch: int = Field(
        4, ge=1, description="group size of the minibatch standard deviation; 1: none"
    )
    spp: bool = Field(
        False, description="pool the discriminator's last features over a spatial pyramid"
    )
    output: Literal["linear", "tanh"] = Field(
        "linear", description="range of the image: unbounded, or tanh to a recorded window"
    )
    # -- growth
    stage_images: int = Field(
        20_000, ge=1, description="real images shown at each size once it has faded in"
    )
    fade_images: int = Field(
        20_000, ge=0, description="real images over which each size fades in; 0: at once"
    )
    batch_sizes: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (),
        examples=["16,16,8"],
        description="batch size at 4 x 4, 8 x 8, ..., the last for all larger sizes; empty: "
        "batch_size",
    )
    # -- losses and rates
    penalty: float = Field(10.0, ge=0, description="weight of the gradient penalty")
    drift: float = Field(1e-3, ge=0, description="weight of the critic's squared values")
    mismatch: float = Field(
        0.5,
        ge=0,
        lt=1,
        description="share of real images with another image's boxes among the critic's "
        "synthetic pairs",
    )
    n_critic: int = Field(1, ge=1, description="critic steps per generator step")
    lr_generator: float = Field(1e-3, gt=0, le=10, description="Adam's rate for the generator")
    lr_discriminator: float = Field(1e-3, gt=0, le=10, description="Adam's rate for the critic")
    # -- condition, augmentation
    condition: Literal["none", "class"] = Field(
        "none", description="condition of a sample beside its boxes: none, or its class"
    )
    flips: Literal["none", "h", "v", "hv"] = Field(
        "none", description="axes along which half of the real images are flipped, with boxes"
    )
    augment: tuple[DiscriminatorAugment.Change, ...] = Field(
        (), description="augmentation of the critic's input, for few cases (DiffAugment)"
    )
    augment_p: float = Field(1.0, ge=0, le=1, description="probability of each augmentation")
    # -- samples
    mode: Literal["image", "roi"] = Field(
        "image", description="image: whole images; roi: lesions alone, blended into real slices"
    )
    roi_size: int = Field(32, description="edge of lesion crops, voxels (mode=roi)")
    tighten: bool = Field(False, description="shrink requested boxes to the generated lesion")
    admit: Literal["contrast", "none"] = Field(
        "contrast",
        description="condition to accept a sample: contrast: that of all but 5 % of "
        "the training boxes; none",
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.mismatch and self.minibatch < 2:
            raise ValueError(
                "mismatch: takes boxes from another sample of the group; use minibatch=2 or "
                "more, or mismatch=0"
            )
        return self
