"""What must hold of samples that are asked to have lesions in boxes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes
from gansynth.testing._sample_checks import Draws
from gansynth.testing.report import Broken

TIGHTENED = "tightened_to"
"""Key of a sample's provenance where its boxes were shrunk: the share of each that is left."""


class BoxDraws:
    """One method for each thing that must hold of samples and their boxes."""

    def __init__(self, draws: Draws) -> None:
        self.draws = draws
        self.asked = [copied_boxes(case.boxes) for case in draws.cases]

    def kept(self) -> None:
        """Boxes are the condition's, or lie within them and the sample says so."""
        for sample, asked in zip(self.draws.samples, self.asked, strict=True):
            if sample.boxes is None:
                raise Broken("a sample has no boxes, expected those it was asked to have")
            found = sample.boxes
            if not np.array_equal(found.labels, asked.labels):
                raise Broken(
                    f"classes of boxes are {found.labels.tolist()}, expected the condition's "
                    f"{asked.labels.tolist()} in their order"
                )
            axes = asked.coords.shape[1] // 2
            within = (found.coords[:, :axes] >= asked.coords[:, :axes]).all()
            within &= (found.coords[:, axes:] <= asked.coords[:, axes:]).all()
            same = np.array_equal(found.coords, asked.coords)
            if not same and not (within and TIGHTENED in sample.provenance):
                raise Broken(
                    "boxes differ from the condition's, expected the same, or smaller ones within "
                    f"them with {TIGHTENED!r} in the sample's provenance"
                )

    def matter(self) -> None:
        """Other boxes give another image, and none at all a third."""
        condition, seed = self.draws.conditions()[0], self.draws.seeds[0]
        other = self.draws.conditions()[1].boxes
        none = Boxes(self.asked[0].coords[:0], self.asked[0].labels[:0])
        for boxes, what in ((other, "two lists of boxes"), (none, "boxes and none")):
            changed = replace(condition, boxes=boxes, latent_seed=seed)
            drawn = self.draws.generator.sample([changed], [seed])[0]
            self.draws.differ(drawn, self.draws.samples[0], f"{what} with the same seed")

    def in_place(self) -> None:
        """What boxes change of an image is mostly in them.

        Whether that is a lesion, nobody can tell of a GAN after a few steps: the metric ``lesions``
        tells it of a run.
        """
        draws = self.draws
        bare = [
            replace(c, boxes=Boxes(asked.coords[:0], asked.labels[:0]))
            for c, asked in zip(draws.conditions(), self.asked, strict=True)
        ]
        changes: list[list[float]] = [[], []]
        without = draws.generator.sample(bare, draws.seeds)
        for sample, other, asked in zip(draws.samples, without, self.asked, strict=True):
            change = np.abs(sample.image - other.image).mean(axis=0)
            inside = _inside(asked, change.shape)
            for found, where in zip(changes, (inside, ~inside), strict=True):
                found.append(float(change[where].mean()))
        within, elsewhere = (float(np.mean(found)) for found in changes)
        if not within > elsewhere:
            raise Broken(
                f"with boxes instead of none images change by {within:.3g} in the boxes and by "
                f"{elsewhere:.3g} elsewhere, expected more in them"
            )

    def untouched(self) -> None:
        """Conditions are read only."""
        for condition, asked in zip(self.draws.given, self.asked, strict=True):
            if not np.array_equal(copied_boxes(condition.boxes).coords, asked.coords):
                raise Broken("sample() wrote into a condition's boxes")


def _inside(boxes: Boxes, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Voxels in any of the boxes."""
    inside, axes = np.zeros(shape, bool), len(shape)
    for row in boxes.coords.astype(int):
        inside[tuple(slice(a, b) for a, b in zip(row[:axes], row[axes:], strict=True))] = True
    return inside


def copied_boxes(boxes: Boxes | None) -> Boxes:
    """A copy that nobody else writes into."""
    assert boxes is not None, "toy cases for such generators have boxes"
    return Boxes(boxes.coords.copy(), boxes.labels.copy())
