"""The Edit contract: draw parameters once, then apply them to labels and context alike."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from pydantic import Field

from gansynth.core.scene import Scene
from gansynth.core.schema import FloatArray, LabelArray, Schema
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import OptionModel


class EditOptions(OptionModel):
    """Base of every edit's options; unknown keys are refused."""

    share: float = Field(1.0, gt=0, le=1, description="share of the conditions it is applied to")


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

    @property
    def in_turns(self) -> bool:
        """Whether the cases to edit are to take turns, condition by condition, not to be drawn."""
        return False

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

    def apply_image(
        self, image: FloatArray, labels: LabelArray, schema: Schema, params: Mapping[str, Any]
    ) -> FloatArray:
        """Move an image along with its labels; unchanged by default.

        Args:
            image: float32 (C, D, H, W) or (C, H, W); not written to.
            labels: the labels *before* this edit.
            schema: as in ``draw``.
            params: what ``draw`` returned.
        """
        return image

    # -- where more than the labels counts -------------------------------------------------------

    def draw_in(
        self, labels: LabelArray, schema: Schema, rng: np.random.Generator, scene: Scene
    ) -> dict[str, Any]:
        """``draw`` with the case at hand and the cases that can be borrowed from."""
        return self.draw(labels, schema, rng)

    def apply_in(
        self, labels: LabelArray, schema: Schema, params: Mapping[str, Any], scene: Scene
    ) -> LabelArray:
        """``apply``, likewise; the same scene and parameters give the same labels."""
        return self.apply(labels, schema, params)

    def apply_context_in(
        self,
        context: LabelArray,
        labels: LabelArray,
        schema: Schema,
        params: Mapping[str, Any],
        scene: Scene,
    ) -> LabelArray:
        """``apply_context``, likewise."""
        return self.apply_context(context, labels, schema, params)


class SceneEdit(Edit):
    """An edit that needs more than labels: the body of the case, or other cases.

    Parameters name what is borrowed (a case and a placement), they do not hold it.
    """

    def draw(self, labels: LabelArray, schema: Schema, rng: np.random.Generator) -> dict[str, Any]:
        """Refused: see ``draw_in``.

        Raises:
            UsageFault: always.
        """
        raise UsageFault(f"edit {self.name!r}: needs cases to borrow from, expected a scene")

    def apply(self, labels: LabelArray, schema: Schema, params: Mapping[str, Any]) -> LabelArray:
        """Refused: see ``apply_in``.

        Raises:
            UsageFault: always.
        """
        raise UsageFault(f"edit {self.name!r}: needs cases to borrow from, expected a scene")

    @abstractmethod
    def draw_in(
        self, labels: LabelArray, schema: Schema, rng: np.random.Generator, scene: Scene
    ) -> dict[str, Any]:
        """See ``Edit.draw`` and ``Edit.draw_in``."""

    @abstractmethod
    def apply_in(
        self, labels: LabelArray, schema: Schema, params: Mapping[str, Any], scene: Scene
    ) -> LabelArray:
        """See ``Edit.apply`` and ``Edit.apply_in``."""

    def apply_context_in(
        self,
        context: LabelArray,
        labels: LabelArray,
        schema: Schema,
        params: Mapping[str, Any],
        scene: Scene,
    ) -> LabelArray:
        """Context 0 on foreground; what became background takes the nearest context there is."""
        from gansynth.core.geometry import fill_nearest

        after = self.apply_in(labels, schema, params, scene)
        bare = (after == 0) & (context == 0)
        known = (after == 0) & (context > 0)
        return fill_nearest(np.where(after <= 0, context, 0), bare, known, schema.spacing)
