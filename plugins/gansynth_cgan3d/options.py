"""Options of ``cgan3d``: networks, losses, rates, chains, sampling."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from gansynth import GeneratorOptions, Needs
from gansynth.nn.diff_augment import ChangeName
from gansynth.nn.losses import ADVERSARIAL, AdversarialName
from gansynth.nn.networks.blocks import Activation, Blocks, Down, Norm
from gansynth.nn.networks.resize import Up
from gansynth.nn.networks.unet import Narrow, Skip

Names = tuple[str, ...]


class CGANOptions(GeneratorOptions):
    """Options of ``cgan3d``; the defaults aim at one GPU and volumes of about 64 to 128 voxels."""

    # -- generator
    width: int = Field(16, ge=4, le=4096, description="generator features at its finest level")
    max_width: int = Field(256, ge=4, le=16384, description="most generator features of any level")
    levels: int = Field(4, ge=1, le=7, description="resolutions of the generator's U-Net")
    norm: Norm = Field("instance", description="the generator's normalisation")
    down: Down = Field(
        "strided",
        description="the generator's downsampling: strided convolution of 3 or 4, or max-pooling",
    )
    up: Up = Field("trilinear", description="the generator's upsampling")
    blocks: Blocks = Field(
        "plain", description="residual: two more convolutions per level with a shortcut"
    )
    double: bool = Field(False, description="one more convolution (or residual block) per level")
    activation: Activation = Field("leaky_relu", description="the generator's activation")
    g_stem: bool = Field(
        True, description="begin and end at full resolution; off: strided first, transposed last"
    )
    g_head: bool = Field(True, description="one more convolution before the output")
    skip: Skip = Field("add", description="how the encoder's features join the decoder's")
    narrow: Narrow = Field(
        "before",
        description="where the decoder reduces its features to those of the finer level: before or "
        "after upsampling; none: after concatenation (skip=concat)",
    )
    g_spectral_norm: bool = Field(False, description="spectral normalisation of the generator")
    noise: bool = Field(
        True, description="noise at every level; off: labels alone determine the image"
    )
    dropout: float = Field(
        0, ge=0, lt=1, description="dropout of the coarse decoder levels, also when sampling"
    )
    output: Literal["linear", "tanh"] = Field(
        "linear", description="linear: unbounded z-scores; tanh: needs a recorded window"
    )
    # -- discriminator
    d_width: int = Field(16, ge=4, le=4096, description="discriminator features at full resolution")
    d_levels: int = Field(3, ge=1, le=6, description="resolutions of the discriminator")
    d_norm: Norm = Field("none", description="the discriminator's normalisation")
    d_down: Down = Field(
        "strided",
        description="the discriminator's downsampling; strided4: also with pix2pix's last layers",
    )
    d_activation: Activation = Field("leaky_relu", description="the discriminator's activation")
    d_stem: bool = Field(True, description="begin at full resolution; off: strided first")
    d_double: bool = Field(False, description="one more convolution per discriminator level")
    spectral_norm: bool = Field(True, description="spectral normalisation of the discriminator")
    texture_head: bool = Field(
        True, description="a discriminator head for fine texture, five voxels"
    )
    checkpointing: bool = Field(
        False, description="recompute features in the backward pass: less memory, more time"
    )
    # -- losses
    loss: AdversarialName = Field("lsgan", description="the adversarial loss of both players")
    adversarial: float = Field(1.0, ge=0, description="weight of the adversarial term")
    l1: float = Field(5.0, ge=0, description="weight of the L1 term")
    l1_lowpass: int = Field(4, ge=1, description="L1 compares means of cubes of this edge, voxels")
    l1_mask: Literal["none", "foreground", "hole"] = Field(
        "none", description="where L1 counts; foreground: voxel by voxel; hole: in lesion and rim"
    )
    dice: float = Field(
        5.0,
        ge=0,
        description="weight of the soft Dice of the foreground labels: L1 alone leaves out labels "
        "of few voxels",
    )
    feature_matching: float = Field(5.0, ge=0, description="weight of feature matching")
    perceptual: float = Field(
        0, ge=0, description="weight of the perceptual loss, by a segmenter trained alongside"
    )
    gp: float = Field(0, ge=0, description="weight of the gradient penalty (WGAN-GP: 10)")
    pool: int = Field(0, ge=0, description="earlier samples kept for the discriminator")
    augment: tuple[ChangeName, ...] = Field(
        (), description="augmentation of the discriminator's input (DiffAugment)"
    )
    augment_p: Annotated[float, Field(ge=0, le=1)] | Literal["adaptive"] = Field(
        0.3, description="probability of each augmentation, or adaptive"
    )
    # -- training
    n_critic: int = Field(1, ge=1, description="discriminator steps per generator step")
    alternate: bool = Field(False, description="update one player per step, in turn")
    lr_generator: float = Field(4e-4, gt=0, le=10, description="Adam's rate for the generator")
    lr_discriminator: float = Field(
        4e-4, gt=0, le=10, description="Adam's rate for the discriminator"
    )
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam's first moment decay")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's second moment decay")
    # -- condition and target
    context: int | None = Field(
        None,
        ge=0,
        le=16,
        description="intensity clusters of the background as condition; 0: none; default 4 where "
        "labels explain less than 40 % of the training images' variance, else 0",
    )
    body: bool = Field(
        False,
        description="give the body (what differs from the even background) its own class, for "
        "label maps of tumours alone",
    )
    body_of: str = Field(
        "",
        description="channel whose body is the condition of samples, of several models "
        "(--per-channel), each trained with its own channel's body; empty: any channel",
    )
    fit_edits: Names = Field(
        (),
        description="edits of the label maps that are conditions of samples in training; none: "
        "label maps of the real images",
    )
    given: Names = Field((), description="input channels, which are not generated")
    target: Literal["image", "labels"] = Field(
        "image", description="labels: generate the label map of the given channels"
    )
    # -- lesion in context
    insert: Literal["none", "lesion"] = Field(
        "none", description="lesion: draw another case's lesion into a case's unchanged image"
    )
    stage: Literal["both", "coarse", "refine"] = Field(
        "both", description="coarse: insertion only, no networks; refine: draw into an empty hole"
    )
    lesions: Names = Field(
        (), description="labels of lesions, for insert and local; none: all foreground"
    )
    rim_mm: float | None = Field(
        None, ge=0, description="width of the soft edge around a lesion's mask, mm; none: one voxel"
    )
    standardise: bool | None = Field(
        None,
        description="networks see images in deviations of the training cases, with insert=lesion "
        "of what lies around the lesion; default yes for whole images whose deviation is below 0.5 "
        "or above 2, else no",
    )
    residual: bool = Field(
        False,
        description="generate the difference from the coarse insertion, at first none, not the "
        "image (stage=both)",
    )
    local: float | None = Field(
        None,
        ge=0,
        description="weight of a local discriminator, of a window around the lesion; 0: none; "
        "default 1 with insert=lesion, else 0",
    )
    local_size: int = Field(
        24, ge=4, description="edge of the local discriminator's window, voxels"
    )
    # -- sampling
    sample_tile: int = Field(
        0, ge=0, description="edge of sampling tiles, voxels; 0: tiles only for large volumes"
    )

    @model_validator(mode="after")
    def _fits(self) -> Self:
        conflicts = {
            "alternate: updates each player in turn; use n_critic=1": self.alternate
            and self.n_critic > 1,
            "gp: penalises each sample alone; use another d_norm than batch": self.gp > 0
            and self.d_norm == "batch",
            "augment_p=adaptive: needs logits with an origin, wgan has none": self.augment_p
            == "adaptive"
            and ADVERSARIAL[self.loss].midpoint is None,
            # A checkpoint holds the pool, and must not hold a patient's image.
            "pool: would store real images (given) in checkpoints; use pool=0": self.pool > 0
            and bool(self.given),
            "target=labels: name the input channels, given=...": self.target == "labels"
            and not self.given,
            "target=labels: makes no image; use context=0 and perceptual=0": self.target == "labels"
            and (bool(self.context) or self.perceptual > 0),
            "narrow=none: use skip=concat, and an up that is not transposed": self.narrow == "none"
            and (self.skip != "concat" or self.up == "transposed"),
            "body: context shows the body already; use context=0": self.body and bool(self.context),
            "body: needs label maps as condition; leave target=labels out": self.body
            and self.target == "labels",
            "local: needs label maps as condition; leave target=labels out": bool(self.local)
            and self.target == "labels",
        }
        conflicts |= self._inserts() | self._pairs()
        for message, applies in conflicts.items():
            if applies:
                raise ValueError(message)
        return self

    @property
    def draws_difference(self) -> bool:
        """Whether the network's output is added to the coarse insertion."""
        return self.insert == "lesion" and self.stage == "both" and self.residual

    @property
    def local_weight(self) -> float:
        """Weight of the local discriminator."""
        return float(self.insert == "lesion") if self.local is None else self.local

    def _pairs(self) -> dict[str, bool]:
        pairs = bool(self.fit_edits)
        return {
            "fit_edits: samples have other label maps than the real images, so features do "
            "not correspond; use feature_matching=0": pairs and self.feature_matching > 0,
            "fit_edits: generates whole images from edited label maps; leave insert, given and "
            "target out": pairs
            and (self.insert != "none" or bool(self.given) or self.target != "image"),
        }

    def _inserts(self) -> dict[str, bool]:
        lesion = self.insert == "lesion"
        return {
            # Values beyond a recorded window are clipped and could not be returned exactly.
            "insert=lesion: returns the real background exactly; use output=linear": lesion
            and self.output != "linear",
            "insert=lesion: the background is the context already; use context=0": lesion
            and bool(self.context),
            "insert=lesion: generates all channels; leave given and target out": lesion
            and (bool(self.given) or self.target != "image"),
            "pool: would store real backgrounds in checkpoints; use pool=0": lesion
            and self.pool > 0,
            "stage: only for insert=lesion; add it": not lesion and self.stage != "both",
            "body: the background shows the body already; leave it out with insert=lesion": lesion
            and self.body,
            "standardise: output=tanh has units of its own; use output=linear": bool(
                self.standardise and self.output == "tanh"
            ),
            "l1_mask=hole: only for insert=lesion; add it": not lesion and self.l1_mask == "hole",
        }


_INSERTION = ("insert", "stage", "lesions", "rim_mm")
"""Options of ``stage=coarse``, which has no networks; others have no effect there."""
_NEEDS: Needs = {
    "output": "target=image",
    "l1_lowpass": "l1, l1_mask!=foreground, target=image",
    "l1_mask": "l1",
    "dice": "target=labels",
    "augment_p": "augment",
    "body_of": "body",
    "lesions": "insert=lesion or local",
    "rim_mm": "insert=lesion",
    "residual": "insert=lesion, stage=both",
    "local_size": "insert=lesion or local, local!=0",
}


def _needs() -> Needs:
    """Return what options need: all but ``_INSERTION`` also a stage with networks."""
    needs = dict(_NEEDS)
    for key in CGANOptions.model_fields:
        if key not in _INSERTION:
            own = _NEEDS.get(key)
            needs[key] = f"stage!=coarse, {own}" if own else "stage!=coarse"
    return needs


CGANOptions.needs = _needs()
