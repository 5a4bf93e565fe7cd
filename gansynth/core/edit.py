"""The Edit contract: parameters are drawn once, then applied to labels and aligned arrays."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
from pydantic import Field

from gansynth.core.case_pool import CaseContext
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Mask, Schema
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import OptionModel

Params = Mapping[str, Any]
"""What an edit has drawn, as JSON."""


@dataclass(frozen=True)
class EditContext:
    """The inputs of an edit. Edits never write into these arrays.

    Attributes:
        labels: int16 (D, H, W) or (H, W), after the preceding edits.
        schema: names the labels and gives the spacing in mm.
        scene: the unedited case and the cases to borrow from; None for labels alone.
        channels: context channels (intensity clusters), int16 of the labels' shape, or None.
        image: moved along with the labels, float32 (C, D, H, W) or (C, H, W), or None.
    """

    labels: LabelArray
    schema: Schema
    case_context: CaseContext | None = None
    channels: LabelArray | None = None
    image: FloatArray | None = None

    @property
    def body(self) -> Mask:
        """Where foreground may lie: the scene's body, or all voxels but ``OUTSIDE``."""
        return (
            np.asarray(self.labels != OUTSIDE)
            if self.case_context is None
            else self.case_context.body
        )

    def with_labels(self, labels: LabelArray) -> EditContext:
        """Return a context of other labels at the same place, without channels and image."""
        return EditContext(labels, self.schema, self.case_context)

    def edited(self, edit: Edit, params: Mapping[str, Any]) -> EditContext:
        """Return this context after an edit; UsageFault: it returns no ``EditResult``."""
        after = edit.apply(self, params)
        if not isinstance(after, EditResult):
            raise UsageFault(
                "edit.result-of-another-kind",
                f"edit {edit.name!r} ({type(edit).__module__}): apply returned {after!r:.60}, "
                "expected an EditResult; leave it out, and see: "
                f"gansynth plugins check {edit.name}",
            )
        return replace(
            self,
            labels=after.labels,
            channels=self.channels if after.channels is None else after.channels,
            image=self.image if after.image is None else after.image,
        )


class EditResult(NamedTuple):
    """New arrays, shapes and types as in the context; None leaves an array unchanged."""

    labels: LabelArray
    channels: LabelArray | None = None
    image: FloatArray | None = None


class EditOptions(OptionModel):
    """Base of every edit's options; unknown keys are refused."""

    share: float = Field(1.0, gt=0, le=1, description="share of the conditions it is applied to")


class Edit(ABC):
    """One change of a condition's labels: seeded, recorded, replayable.

    ``draw`` makes every random choice and returns JSON-able parameters; ``apply`` is deterministic.
    An edit neither changes nor creates voxels labelled ``OUTSIDE`` (-1). It adds no label value
    that the schema lacks, and never writes into its input.
    """

    name: ClassVar[str]
    Options: ClassVar[type[EditOptions]] = EditOptions

    def __init__(self, options: EditOptions | None = None) -> None:
        self.options = options if options is not None else self.Options.model_validate({})

    @property
    def in_turns(self) -> bool:
        """Whether conditions take edited cases in turns instead of drawing them at random."""
        return False

    @abstractmethod
    def draw(self, context: EditContext, rng: np.random.Generator) -> dict[str, Any]:
        """Draw the parameters of one application; ``rng`` is the only source of randomness.

        Returns:
            JSON values (numbers, strings, lists, seeds) that suffice to replay the edit. Borrowed
            content is named (a case and a placement), not included.
        """

    @abstractmethod
    def apply(self, context: EditContext, params: Mapping[str, Any]) -> EditResult:
        """Apply drawn parameters; the same context and parameters give the same arrays.

        Args:
            context: after another edit its ``labels`` differ from the scene's case.
            params: returned by ``draw``, possibly read back from JSON.
        """


class CaseEdit(Edit):
    """An edit that needs the body of the case, or other cases, beside labels."""

    def case_context(self, context: EditContext) -> CaseContext:
        """Return the scene of a context.

        Raises:
            UsageFault: the context holds labels alone.
        """
        if context.case_context is None:
            raise UsageFault(
                "edit.needs-scene",
                f"edit {self.name!r}: needs cases to borrow from, expected a scene",
            )
        return context.case_context
