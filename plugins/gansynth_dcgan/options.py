"""Options of ``dcgan``, and the defaults of each objective."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gansynth import DiscriminatorAugment, GeneratorOptions, Needs

Objective = Literal["gan", "wgan", "wgan-gp"]
Norm = Literal["batch", "instance", "layer", "none"]
MaskOutput = Literal["soft", "linear"]


@dataclass(frozen=True)
class PaperDefaults:
    """The training settings of an objective's paper; without ``beta1`` the optimizer is RMSprop."""

    lr: float
    beta1: float | None
    beta2: float
    n_critic: int
    d_norm: Norm
    mask_output: MaskOutput  # label channels: probabilities, or unbounded


PAPER_DEFAULTS: Mapping[str, PaperDefaults] = {
    # Radford et al. 2016 (arXiv:1511.06434), sec. 4.
    "gan": PaperDefaults(2e-4, 0.5, 0.999, 1, "batch", "linear"),
    # Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1.
    "wgan": PaperDefaults(5e-5, None, 0.0, 5, "batch", "soft"),
    # Gulrajani et al. 2017 (arXiv:1704.00028), algorithm 1; sec. 4: no batch norm in the critic.
    # Their layer norm gives smoother images here: see ``masks.py``.
    "wgan-gp": PaperDefaults(1e-4, 0.0, 0.9, 5, "instance", "soft"),
}


class DCGANOptions(GeneratorOptions):
    """Options of ``dcgan``."""

    needs: ClassVar[Needs] = {
        "clip": "objective=wgan",
        "penalty": "objective=wgan-gp",
        "augment_p": "augment",
    }

    objective: Objective = Field("wgan-gp", description="gan (cross-entropy), wgan, or wgan-gp")
    latent: int = Field(100, ge=1, le=65536, description="numbers in a latent")
    latent_prior: Literal["normal", "uniform"] = Field(
        "normal", description="normal (standard), or uniform (in [-1, 1))"
    )
    width: int = Field(
        64,
        ge=1,
        le=4096,
        description="features next to the image; doubled at each halving of the size",
    )
    max_width: int = Field(512, ge=1, le=16384, description="largest number of features")
    g_norm: Norm = Field("batch", description="normalisation of the generator")
    d_norm: Norm | None = Field(
        None, description="normalisation of the discriminator; null: as the objective's paper"
    )
    d_activation: Literal["leaky", "elu"] = Field(
        "leaky", description="activation of the discriminator"
    )
    output: Literal["linear", "tanh"] = Field(
        "linear", description="range of the image: unbounded, or tanh to a recorded window"
    )
    lr_generator: float | None = Field(
        None, gt=0, le=10, description="generator's learning rate; null: as the objective's paper"
    )
    lr_discriminator: float | None = Field(
        None,
        gt=0,
        le=10,
        description="discriminator's learning rate; null: as the objective's paper",
    )
    n_critic: int | None = Field(
        None,
        ge=1,
        description="discriminator steps per generator step; null: as the objective's paper",
    )
    clip: float = Field(0.01, gt=0, description="clip the weights of wgan's critic to this")
    penalty: float = Field(10.0, ge=0, description="weight of wgan-gp's gradient penalty")
    condition: Literal["none", "class", "foreground"] = Field(
        "none",
        description="condition of a sample: none, its case's class, or whether it shows foreground",
    )
    with_mask: bool = Field(False, description="generate the label map together with the image")
    augment: tuple[DiscriminatorAugment.Change, ...] = Field(
        (), description="augmentation of the discriminator's input, for few cases (DiffAugment)"
    )
    augment_p: Annotated[float, Field(ge=0, le=1)] | Literal["adaptive"] = Field(
        1.0, description="probability of each augmentation, or adaptive"
    )

    @property
    def usual(self) -> PaperDefaults:
        """The training settings of the objective's paper."""
        return PAPER_DEFAULTS[self.objective]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.objective == "wgan-gp" and self.d_norm == "batch":
            raise ValueError(
                "d_norm=batch: wgan-gp penalises each sample alone; use instance, layer or none"
            )
        if self.augment_p == "adaptive" and self.objective != "gan":
            raise ValueError(
                "augment_p=adaptive: needs logits with an origin, which only objective=gan has; "
                "use a number, or objective=gan"
            )
        return self
