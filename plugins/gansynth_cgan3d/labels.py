"""``cgan3d-labels``: the label map of an image, or of some of its channels.

Shin et al. 2018 drew tissues of T1 and tumours of four sequences.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gansynth import (
    Batch,
    Capabilities,
    Condition,
    GeneratorOptions,
    Sample,
    Schema,
    TrainingStep,
    one_hot,
)
from gansynth.nn import losses
from gansynth_cgan3d.model import CGAN, ConditionInputs, given_of, numbers_of
from gansynth_cgan3d.options import CGAN3DLabelsOptions


class CGAN3DLabels(CGAN):
    """Image channels in, their label map out."""

    name: ClassVar[str] = "cgan3d-labels"
    Options: ClassVar[type[GeneratorOptions]] = CGAN3DLabelsOptions

    options: CGAN3DLabelsOptions

    def __init__(self, schema: Schema, size: Sequence[int], options: CGAN3DLabelsOptions) -> None:
        given = options.given or schema.channels
        super().__init__(schema, size, options.model_copy(update={"given": given}))

    @property
    def capabilities(self) -> Capabilities:
        o, shared = self.options, super().capabilities
        missed = (
            "train longer (--set steps=N), give labels of few voxels more weight (--set dice=20), "
            "or cut crops closer around them (--set patch=32,64,64)"
        )
        return replace(
            shared,
            takes=frozenset({"channels"} if o.given else ()),  # none: all of a schema, when built
            draws="labels",
            edits=(),
            channels=o.given,
            range="tanh" if o.windowed else "linear",
            remedies=dict(shared.remedies) | {"labels missed": missed},
        )

    def networks(self) -> dict[str, nn.Module]:
        """Return U-Net and PatchGAN; UsageFault: a given channel is unknown."""
        self.given = numbers_of(self.options.given, self.schema)
        return super().networks()

    @property
    def discriminator_conditions(self) -> tuple[str, ...]:
        """``given:T1``."""
        return tuple([f"given:{name}" for name in self.options.given])

    @property
    def target_channels(self) -> tuple[str, ...]:
        return tuple([f"drawn:{value}" for value in self.schema.label_values])

    def inputs_of_batch(self, batch: Batch, step: TrainingStep | None = None) -> ConditionInputs:
        return ConditionInputs(given=batch.image[:, self.given])

    def inputs_of(self, conditions: Sequence[Condition]) -> ConditionInputs:
        """Return the given channels; DataFault: they are missing, or others."""
        return ConditionInputs(given=given_of(conditions, len(self.given), self.device))

    def condition_parts(
        self, inputs: ConditionInputs, part: Callable[[Tensor], Tensor]
    ) -> list[Tensor]:
        assert inputs.given is not None
        return [part(inputs.given)]

    def real(self, batch: Batch) -> Tensor:
        """Return label maps as probabilities: 0 or 1."""
        assert batch.labels is not None
        return one_hot(batch.labels, self.schema.label_values)

    def finished(self, drawn: Tensor, inputs: ConditionInputs) -> Tensor:
        """Return logits (B, values, ...) as probabilities."""
        return drawn.softmax(1)

    def sample_of(self, drawn: Tensor, condition: Condition) -> Sample:
        """Return the given channels with their most probable labels."""
        assert condition.given is not None
        values = np.array(self.schema.label_values, np.int16)
        labels = values[drawn.argmax(0).cpu().numpy()]
        return Sample(condition.given.astype(np.float32), labels)

    def own_terms(self, step: TrainingStep, fake: Tensor, real: Tensor) -> Mapping[str, Tensor]:
        if not self.options.dice:
            return {}
        foreground = [i for i, value in enumerate(self.schema.label_values) if value > 0]
        pairs = zip(fake[:, None, foreground].float(), real[:, None, foreground], strict=True)
        # Case by case, so that a batch that is shared out comes to the same.
        dice = torch.stack([losses.soft_dice(*pair) for pair in pairs]).mean()
        return {"dice": self.options.dice * dice}
