"""Options of ``cgan3d``, ``cgan3d-lesion`` and ``cgan3d-labels``: shared ones, then their own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gansynth import DiscriminatorAugment, GeneratorOptions, Needs
from gansynth.nn.losses import ADVERSARIAL, AdversarialName
from gansynth_cgan3d.styles import Layers, as_named_today, layers_of

Names = tuple[str, ...]
Decay = Annotated[float, Field(ge=0, lt=1)]
BODY = r"body(:.+)?"


class CGANOptions(GeneratorOptions):
    """What all have; the defaults aim at one GPU and volumes of about 64 to 128 voxels."""

    needs: ClassVar[Needs] = {"augment_p": "augment"}

    style: Literal["own", "pix2pix", "mmgan", "unet3d", "doncenco"] | Layers = Field(
        "own", description="layers of both networks: own, pix2pix, mmgan, unet3d or doncenco"
    )
    # -- generator
    width: int = Field(16, ge=4, le=4096, description="generator features at its finest level")
    levels: int = Field(4, ge=1, le=7, description="resolutions of the generator's U-Net")
    # -- discriminator
    d_width: int = Field(16, ge=4, le=4096, description="discriminator features at full resolution")
    d_levels: int = Field(3, ge=1, le=6, description="resolutions of the discriminator")
    spectral_norm: bool = Field(
        True,
        description="spectral normalisation of the discriminator; of both networks with "
        "style=mmgan and doncenco",
    )
    checkpointing: bool = Field(False, description="recompute features: less memory, more time")
    # -- losses
    loss: AdversarialName = Field("lsgan", description="the adversarial loss of both players")
    adversarial: float = Field(1.0, ge=0, description="weight of the adversarial term")
    l1: float = Field(5.0, ge=0, description="weight of the L1 term")
    feature_matching: float = Field(5.0, ge=0, description="weight of feature matching")
    gp: float = Field(0, ge=0, description="weight of the gradient penalty (WGAN-GP: 10)")
    augment: tuple[DiscriminatorAugment.Change, ...] = Field(
        (), description="changes of images judged (DiffAugment)"
    )
    augment_p: Annotated[float, Field(ge=0, le=1)] | Literal["adaptive"] = Field(
        0.3, description="probability of each augmentation, or adaptive"
    )
    # -- training
    n_critic: Annotated[int, Field(ge=1)] | Literal["alternate"] = Field(
        1, description="discriminator steps per generator step; alternate: one player a step"
    )
    lr_generator: float = Field(4e-4, gt=0, le=10, description="Adam's rate for the generator")
    lr_discriminator: float = Field(4e-4, gt=0, le=10, description="that for the discriminator")
    betas: tuple[Decay, Decay] = Field(
        (0.5, 0.999), description="Adam's decays of the first and the second moment"
    )
    # -- sampling
    sample_tile: int = Field(
        0, ge=0, description="edge of sampling tiles; 0: of large volumes only"
    )

    @property
    def layers(self) -> Layers:
        """Layers of both networks."""
        return layers_of(self.style, spectral_norm=self.spectral_norm)

    @model_validator(mode="before")
    @classmethod
    def _of_earlier_runs(cls, values: Any) -> Any:
        return as_named_today(values) if isinstance(values, Mapping) else values

    @model_validator(mode="after")
    def _fits(self) -> Self:
        for message, applies in self.conflicts().items():
            if applies:
                raise ValueError(message)
        return self

    def conflicts(self) -> dict[str, bool]:
        """Return messages about options that contradict each other, and whether they do here."""
        layers = self.layers
        joins = layers.skip == "concat" and layers.up != "transposed"
        no_origin = self.augment_p == "adaptive" and ADVERSARIAL[self.loss].midpoint is None
        return {
            "gp: penalises each sample alone; use another d_norm than batch": self.gp > 0
            and layers.d_norm == "batch",
            "augment_p=adaptive: needs logits with an origin, wgan has none": no_origin,
            "narrow=none: use skip=concat, not up=transposed": layers.narrow == "none"
            and not joins,
        }


class CGAN3DOptions(CGANOptions):
    """Options of ``cgan3d``: whole images from label maps."""

    needs: ClassVar[Needs] = {
        "augment_p": "augment",
        "l1_lowpass": "l1",
        "lesions": "local",
        "local_size": "local",
    }

    output: Literal["linear", "tanh"] = Field(
        "linear", description="linear: unbounded z-scores; tanh: needs a recorded window"
    )
    l1_lowpass: Annotated[int, Field(ge=1)] | Literal["foreground"] = Field(
        4,
        description="L1 compares means of cubes of this edge, voxels; foreground: single voxels, "
        "there alone",
    )
    perceptual: float = Field(0, ge=0, description="weight of a loss by a segmenter of its own")
    pool: int = Field(0, ge=0, description="earlier samples kept for the discriminator")
    context: Annotated[int, Field(ge=0, le=16)] | Annotated[str, Field(pattern=BODY)] | None = (
        Field(
            None,
            description="intensity clusters of the background as condition; 0: none; default 4 "
            "where labels explain less than 40 % of the training images' variance, else 0; body: "
            "the body (what differs from the even background) has its own class, for label maps "
            "of tumours alone; body:CHANNEL: with --per-channel, that channel's in samples",
        )
    )
    fit_edits: Names = Field(
        (),
        description="edits of the label maps that are conditions of samples in training; none: "
        "label maps of the real images",
    )
    given: Names = Field((), description="input channels, which are not generated")
    standardise: bool | None = Field(
        None,
        description="networks see images in deviations of the training cases; default yes where "
        "their deviation is below 0.5 or above 2, else no",
    )
    local: float = Field(0, ge=0, description="weight of a discriminator around lesions; 0: none")
    local_size: int = Field(24, ge=4, description="edge of the local discriminator's window")
    lesions: Names = Field((), description="labels of lesions, for local; none: all foreground")

    @property
    def clusters(self) -> int:
        """Number of intensity clusters."""
        return self.context if isinstance(self.context, int) else 0

    @property
    def body_of(self) -> str | None:
        """Channel whose body is a condition of samples, empty for any; None: no body is."""
        return self.context.partition(":")[2] if isinstance(self.context, str) else None

    def conflicts(self) -> dict[str, bool]:
        given, edited, own_units = bool(self.given), bool(self.fit_edits), self.output == "tanh"
        unlike = "fit_edits: samples have other label maps than the real images, so features do not"
        return super().conflicts() | {
            # A checkpoint holds the pool, and must not hold a patient's image.
            "pool: would store real images (given) in checkpoints; use pool=0": given
            and self.pool > 0,
            "standardise: output=tanh has units; use linear": own_units and bool(self.standardise),
            f"{unlike} correspond; use feature_matching=0": edited and self.feature_matching > 0,
            "fit_edits: generates all channels from edited label maps; leave given out": edited
            and given,
        }


class CGAN3DLesionOptions(CGANOptions):
    """Options of ``cgan3d-lesion``: lesions in real images."""

    needs: ClassVar[Needs] = dict.fromkeys(CGANOptions.model_fields, "stage!=coarse") | {
        "augment_p": "stage!=coarse, augment",
        "l1_lowpass": "stage!=coarse, l1",
        "standardise": "stage!=coarse",
        "residual": "stage=both",
        "local": "stage!=coarse",
        "local_size": "stage!=coarse, local",
    }

    # Its gain was measured with this width.
    width: int = Field(32, ge=4, le=4096, description="generator features at its finest level")
    d_width: int = Field(32, ge=4, le=4096, description="discriminator features at full resolution")
    l1_lowpass: int = Field(
        4, ge=1, description="L1, in lesion and rim, compares means of cubes of this edge, voxels"
    )
    stage: Literal["both", "coarse", "refine"] = Field(
        "both", description="coarse: insertion only, no networks; refine: draw into an empty hole"
    )
    lesions: Names = Field((), description="labels of lesions; none: all foreground")
    rim_mm: float | None = Field(
        None, ge=0, description="width of the soft edge around a lesion's mask, mm; none: one voxel"
    )
    standardise: bool = Field(
        True,
        description="networks see images in deviations of what lies around the lesion; else "
        "the grain of images of 0 to 1 is too small for discriminators",
    )
    residual: bool = Field(
        True,
        description="generate the difference from the coarse insertion, at first none, not the "
        "image, whose lesions would be smoother at first (stage=both)",
    )
    local: float = Field(1, ge=0, description="weight of a discriminator around lesion and rim")
    local_size: int = Field(32, ge=4, description="edge of the local discriminator's window")

    @property
    def draws_difference(self) -> bool:
        """Whether the network's output is added to the coarse insertion."""
        return self.stage == "both" and self.residual


class CGAN3DLabelsOptions(CGANOptions):
    """Options of ``cgan3d-labels``: label maps from images."""

    given: Names = Field((), description="image channels that it draws label maps of; none: all")
    windowed: bool = Field(
        False, description="given channels as -1 to 1, by a window that the fit records"
    )
    dice: float = Field(
        5.0,
        ge=0,
        description="weight of the soft Dice of the foreground labels: L1 alone leaves out labels "
        "of few voxels",
    )
