"""Lesions into real images: whose, changed how, to which place.

A lesion of one training case (the donor) is cut out with its image, changed by edits, and brought
to a place in another case's image (the background), where there is room for it. What comes of it
is a condition: which voxels are new, what the donor shows there, and the label map of both. How it
is drawn into the background is for the generator to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gansynth.conditions.base import Edit
from gansynth.conditions.room import Scene
from gansynth.schema import FloatArray, LabelArray


@dataclass(frozen=True)
class Inserted:
    """A lesion at its place in a scene.

    Attributes:
        labels: int16 (D, H, W) or (H, W), of the background with the lesion in it.
        lesion: int16, the same shape: the new lesion alone, 0 elsewhere; all 0 where no room was
            found.
        donor: float32 (C, ...), the donor's image where the lesion is, and around it.
        steps: the edits with their drawn parameters, in order.
        told: JSON that says how it came about, which ``LesionDrawer.replay`` reads.
    """

    labels: LabelArray
    lesion: LabelArray
    donor: FloatArray
    steps: list[dict[str, Any]] = field(default_factory=list)
    told: dict[str, Any] = field(default_factory=dict)


class LesionDrawer:
    """Draws what is put where: seeded, recorded, replayable."""

    def draw(self, scene: Scene, edits: Sequence[Edit], rng: np.random.Generator) -> Inserted:
        """Draw a lesion for a scene.

        Args:
            scene: the background, with its own labels.
            edits: changes of the lesion, in order.
            rng: the only source of randomness.
        """
        raise NotImplementedError

    def replay(
        self, scene: Scene, edits: Mapping[str, Edit], provenance: Mapping[str, Any]
    ) -> Inserted:
        """What a recorded provenance stands for, bit for bit.

        Args:
            scene: the one it was drawn for.
            edits: by name.
            provenance: of the condition, with ``edits`` and ``lesions``.
        """
        raise NotImplementedError


def lesion_drawer(asked: str | None) -> LesionDrawer:
    """What puts lesions where: ``KEY=VALUE,...``, see ``LesionOptions``; None as usual.

    Raises:
        UsageFault: an unknown key, or a value that does not fit.
    """
    raise NotImplementedError
