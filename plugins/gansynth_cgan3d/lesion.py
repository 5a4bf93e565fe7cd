"""``cgan3d-lesion``: a lesion of another case, inserted into a real image and refined there.

What was tried on gliomas and left out, as no better: a relativistic loss with R1 and R2 in the hole
(R3GAN, Huang et al. 2024); a discriminator that segments samples (OASIS, Schoenfeld et al. 2021).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar

from torch import Tensor, nn

from gansynth import (
    Batch,
    Capabilities,
    Case,
    Condition,
    GeneratorOptions,
    Sample,
    TrainingStep,
    UNetGenerator,
)
from gansynth.nn import losses
from gansynth_cgan3d.inserter import ImageUnits, LesionInserter, LesionInsertion
from gansynth_cgan3d.model import CGAN, ConditionInputs, Discriminator
from gansynth_cgan3d.options import CGAN3DLesionOptions

STEPS = 1500  # more of them gained no Dice on gliomas; see docs/lesion_methods.md


def inserted(inputs: ConditionInputs) -> LesionInsertion:
    """Return the insertion of a batch, which has one here."""
    assert inputs.insertion is not None
    return inputs.insertion


class CGAN3DLesion(CGAN):
    """Draws a lesion of a given label map into a real image, which else stays as it is."""

    name: ClassVar[str] = "cgan3d-lesion"
    Options: ClassVar[type[GeneratorOptions]] = CGAN3DLesionOptions

    options: CGAN3DLesionOptions

    @property
    def capabilities(self) -> Capabilities:
        o, shared = self.options, super().capabilities
        remedies = dict(shared.remedies) | {"organs": "name the lesions (--set lesions=NAME)"}
        return replace(
            shared,
            takes=frozenset({"labels", "lesion"}),
            trains=o.stage != "coarse",
            loop={"steps": STEPS},
            lesions=f"classes={'+'.join(o.lesions)}" if o.lesions else None,
            remedies=remedies,
            rim_mm=o.rim_mm,
        )

    # -- networks --------------------------------------------------------------------------------

    def networks(self) -> dict[str, nn.Module]:
        """Return also a local discriminator; none for ``stage=coarse``."""
        self.inserting = LesionInserter(self.schema, self.options)
        if self.options.stage == "coarse":
            return {}
        nets = super().networks()
        if self.options.local:
            nets["local"] = self.new_discriminator()
        return nets

    def new_generator(self) -> UNetGenerator:
        """Return a generator's network, whose differences are 0 at first."""
        net = super().new_generator()
        if self.options.draws_difference and not self.options.layers.g_spectral_norm:
            for parameter in net.image.parameters():  # normed, 0 would be divided by 0
                nn.init.zeros_(parameter)
        return net

    @property
    def judges(self) -> list[Discriminator]:
        o = self.options
        return [*super().judges, *self.local_judges(["hole"], o.local, o.local_size)]

    @property
    def discriminator_conditions(self) -> tuple[str, ...]:
        """``label:0``, ``hole``."""
        return (*super().discriminator_conditions, "hole")

    @property
    def condition_channels(self) -> tuple[str, ...]:
        """Also ``start:T1``, the start image: discriminators would know samples by it."""
        return (*self.discriminator_conditions, *[f"start:{name}" for name in self.schema.channels])

    # -- training cases --------------------------------------------------------------------------

    def accepts(self, case: Case) -> bool:
        return self.inserting.accepts(case)

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        self.inserting.statistics.fit(cases)
        return {"lesions": self.inserting.statistics.to_json()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.inserting.statistics.load_json(state.get("lesions", {}))

    # -- conditions ------------------------------------------------------------------------------

    def inputs_of_batch(self, batch: Batch, step: TrainingStep | None = None) -> ConditionInputs:
        """Return labels, and what the generator learns to undo; no step: an empty hole."""
        inserting = self.inserting
        insertion = inserting.of_real(batch) if step is None else inserting.of_step(step)
        return ConditionInputs(batch.labels, insertion=insertion)

    def inputs_of(self, conditions: Sequence[Condition]) -> ConditionInputs:
        """Return labels and insertions; DataFault: there is no background, or no donor."""
        insertion = self.inserting.of_conditions(conditions, self.device)
        return replace(super().inputs_of(conditions), insertion=insertion)

    def condition_parts(
        self, inputs: ConditionInputs, part: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        insertion = inserted(inputs)
        units = self.units(inputs, insertion.start)
        start = insertion.start if units is None else units.standardised(insertion.start)
        parts = super().condition_parts(inputs, part)
        return [*parts, part(insertion.hole).float(), part(start)]

    # -- what it draws ---------------------------------------------------------------------------

    def units(self, inputs: ConditionInputs, like: Tensor) -> ImageUnits | None:
        """Return those of what lies around the lesion, with ``standardise``."""
        return inserted(inputs).units if self.options.standardise else None

    def finished(self, drawn: Tensor, inputs: ConditionInputs) -> Tensor:
        """Return lesions in their images, in the source's units."""
        insertion, residual = inserted(inputs), self.options.draws_difference
        units = self.units(inputs, drawn)
        if units is not None:
            drawn = units.restored(drawn, residual=residual)
        return insertion.composed(drawn + insertion.start if residual else drawn)

    def l1(self, step: TrainingStep, fake: Tensor, real: Tensor) -> Tensor:
        """Return L1 in lesion and rim; the grain, which no label predicts, is averaged out."""
        hole = inserted(self.inputs(step)).hole
        return losses.masked_l1(fake, real, hole, lowpass=self.options.l1_lowpass)

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Return samples; for ``stage=coarse`` the insertions."""
        if self.nets:
            return super().sample(conditions, seeds)
        starts = [inserted(self.inputs_of([condition])).start[0] for condition in conditions]
        return [self.sample_of(*pair) for pair in zip(starts, conditions, strict=True)]
