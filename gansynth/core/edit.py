"""The Edit contract: parameters are drawn once, then applied to labels and what goes with them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from gansynth.core.geometry import Mask
from gansynth.core.scene import Scene
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Schema
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import OptionModel


@dataclass(frozen=True)
class EditContext:
    """All that an edit may look at. It writes into none of these arrays.

    Attributes:
        labels: int16 (D, H, W) or (H, W), as the edits before have left them.
        schema: names the labels and gives the spacing in mm.
        scene: the case before any edit, and the cases to borrow from; None for labels alone.
        channels: context channels (intensity clusters), int16 of the labels' shape; None for none.
        image: goes along with the labels, float32 (C, D, H, W) or (C, H, W); None for none.
    """

    labels: LabelArray
    schema: Schema
    scene: Scene | None = None
    channels: LabelArray | None = None
    image: FloatArray | None = None

    @property
    def body(self) -> Mask:
        """Where foreground may lie: the scene's body, else all that is not ``OUTSIDE``."""
        return np.asarray(self.labels != OUTSIDE) if self.scene is None else self.scene.body

    def with_labels(self, labels: LabelArray) -> EditContext:
        """Other labels at the same place, and nothing that goes along."""
        return EditContext(labels, self.schema, self.scene)

    def edited(self, edit: Edit, params: Mapping[str, Any]) -> EditContext:
        """This context after an edit."""
        after = edit.apply(self, params)
        return replace(
            self,
            labels=after.labels,
            channels=self.channels if after.channels is None else after.channels,
            image=self.image if after.image is None else after.image,
        )


class EditResult(NamedTuple):
    """New arrays, of the shapes and types of the context's; None leaves one as it was."""

    labels: LabelArray
    channels: LabelArray | None = None
    image: FloatArray | None = None


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
    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the parameters of one application; ``rng`` is the only source of randomness.

        Returns:
            Parameters as JSON values (numbers, strings, lists, seeds), enough to replay. They name
            what is borrowed (a case and a placement), they do not hold it.
        """

    @abstractmethod
    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """Apply drawn parameters; the same context and parameters give the same arrays.

        Args:
            context: after another edit its ``labels`` are no longer those of the scene's case.
            params: what ``draw`` returned, possibly read back from JSON.
        """


class SceneEdit(Edit):
    """An edit that needs more than labels: the body of the case, or other cases."""

    def scene(self, context: EditContext) -> Scene:
        """The scene of a context.

        Raises:
            UsageFault: it holds labels alone.
        """
        if context.scene is None:
            raise UsageFault(f"edit {self.name!r}: needs cases to borrow from, expected a scene")
        return context.scene
