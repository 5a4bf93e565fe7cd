"""Options of ``dcgan``, with what each objective takes where the user says nothing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, model_validator

from gansynth.core.generator import GeneratorOptions
from gansynth.nn.diff_augment import ChangeName
from gansynth.runtime.options import Needs

Objective = Literal["gan", "wgan", "wgan-gp"]
Norm = Literal["batch", "instance", "layer", "none"]
MaskOutput = Literal["soft", "hard", "linear"]


@dataclass(frozen=True)
class Usual:
    """What a paper trains its objective with; without ``beta1`` that is RMSprop."""

    lr: float
    beta1: float | None
    beta2: float
    n_critic: int
    d_norm: Norm
    mask_output: MaskOutput


USUAL: Mapping[str, Usual] = {
    # Radford et al. 2016 (arXiv:1511.06434), sec. 4.
    "gan": Usual(2e-4, 0.5, 0.999, 1, "batch", "linear"),
    # Arjovsky et al. 2017 (arXiv:1701.07875), algorithm 1.
    "wgan": Usual(5e-5, None, 0.0, 5, "batch", "soft"),
    # Gulrajani et al. 2017 (arXiv:1704.00028), algorithm 1; sec. 4: no batch norm in the critic.
    # Their layer norm draws smoother images here: see ``masks.py``.
    "wgan-gp": Usual(1e-4, 0.0, 0.9, 5, "instance", "soft"),
}


class DCGANOptions(GeneratorOptions):
    """Options of ``dcgan``."""

    needs: ClassVar[Needs] = {
        "clip": "objective=wgan",
        "penalty": "objective=wgan-gp",
        "mask_output": "with_mask",
        "mask_scale": "with_mask",
        "augment_p": "augment",
    }

    objective: Objective = Field("wgan-gp", description="gan (cross-entropy), wgan, or wgan-gp")
    latent: int = Field(100, ge=1, description="numbers in a latent")
    latent_prior: Literal["normal", "uniform"] = Field(
        "normal", description="normal (standard), or uniform (in [-1, 1))"
    )
    width: int = Field(
        64, ge=1, description="channels beside the image; doubled at each halving of the size"
    )
    max_width: int = Field(512, ge=1, description="most channels")
    g_norm: Norm = Field("batch", description="norm of the generator")
    d_norm: Norm | None = Field(
        None, description="norm of the discriminator; null: as the objective's paper"
    )
    d_activation: Literal["leaky", "elu"] = Field("leaky", description="of the discriminator")
    output: Literal["linear", "tanh"] = Field(
        "linear", description="range of the image: any, or a recorded window"
    )
    lr_generator: float | None = Field(
        None, gt=0, description="learning rate; null: as the objective's paper"
    )
    lr_discriminator: float | None = Field(None, gt=0, description="likewise")
    n_critic: int | None = Field(
        None,
        ge=1,
        description="steps of the discriminator for each of the generator; null: as the "
        "objective's paper",
    )
    clip: float = Field(0.01, gt=0, description="largest weight of wgan's critic")
    penalty: float = Field(10.0, ge=0, description="weight of wgan-gp's gradient penalty")
    condition: Literal["none", "class", "foreground"] = Field(
        "none",
        description="what is asked of a sample: nothing, its case's class, or whether it shows "
        "foreground",
    )
    with_mask: bool = Field(False, description="draw the label map together with the image")
    mask_output: MaskOutput | None = Field(
        None,
        description="label channels that the discriminator sees: soft (probabilities), hard "
        "(one-hot, straight-through), or linear (any number); null: soft, but linear for gan",
    )
    mask_scale: float = Field(
        1.0,
        gt=0,
        description="label channels are shown from minus this to this, beside an image "
        "of deviation 1",
    )
    augment: tuple[ChangeName, ...] = Field(
        (), description="changes of what the discriminator sees, for few cases (DiffAugment)"
    )
    augment_p: Annotated[float, Field(ge=0, le=1)] | Literal["adaptive"] = Field(
        1.0, description="probability of each change, or adaptive"
    )

    @property
    def usual(self) -> Usual:
        """What the objective's paper trains with."""
        return USUAL[self.objective]

    @model_validator(mode="after")
    def _fits(self) -> Self:
        """Refuse what contradicts itself."""
        if self.objective == "wgan-gp" and self.d_norm == "batch":
            raise ValueError(
                "d_norm=batch: wgan-gp's penalty is one of single samples; use instance, layer or "
                "none"
            )
        if self.augment_p == "adaptive" and self.objective != "gan":
            raise ValueError(
                "augment_p=adaptive: needs logits with an origin, which objective=gan has alone; "
                "use a number, or objective=gan"
            )
        return self
