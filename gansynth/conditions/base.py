"""The Edit contract: draw parameters once, then apply them to labels and context alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import BaseModel, ConfigDict

from gansynth.schema import LabelArray, Schema


class EditOptions(BaseModel):
    """Base of every edit's options; unknown keys are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Edit(ABC):
    """One change of a condition's labels: seeded, recorded, replayable.

    ``draw`` makes every random choice and returns JSON-able parameters; ``apply`` is deterministic.
    An edit never changes a voxel labelled ``OUTSIDE`` (-1) nor moves one there, never makes a label
    value the schema lacks, and never writes into its input.
    """

    name: ClassVar[str]
    Options: ClassVar[type[EditOptions]] = EditOptions

    def __init__(self, options: EditOptions | None = None) -> None:
        self.options = options if options is not None else self.Options()

    @abstractmethod
    def draw(self, labels: LabelArray, schema: Schema, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the parameters of one application.

        Args:
            labels: int16 (D, H, W) or (H, W).
            schema: names the labels and gives the spacing in mm.
            rng: the only source of randomness.

        Returns:
            Parameters as JSON values (numbers, strings, lists, seeds), enough to replay.
        """

    @abstractmethod
    def apply(self, labels: LabelArray, schema: Schema, params: Mapping[str, Any]) -> LabelArray:
        """Apply drawn parameters; the same parameters give the same labels, bit for bit.

        Args:
            labels: int16 (D, H, W) or (H, W); not written to.
            schema: as in ``draw``.
            params: what ``draw`` returned, possibly read back from JSON.

        Returns:
            New labels of the same shape and dtype.
        """

    def apply_context(
        self, context: LabelArray, labels: LabelArray, schema: Schema, params: Mapping[str, Any]
    ) -> LabelArray:
        """Move context channels (intensity clusters) along with the edit; unchanged by default.

        Args:
            context: int16 (D, H, W) or (H, W).
            labels: the labels *before* this edit.
            schema: as in ``draw``.
            params: what ``draw`` returned.
        """
        return context
