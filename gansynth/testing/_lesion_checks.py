"""What must hold of samples with lesions: asked for in boxes, or drawn into a real image."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np
import numpy.typing as npt
import torch

from gansynth.core.geometry import Mask
from gansynth.core.schema import OUTSIDE, Boxes, Condition, FloatArray, LabelArray
from gansynth.data.blending import drawn_in, hole, rim_voxels
from gansynth.testing._bench import LesionCases, copied_boxes
from gansynth.testing._sample_checks import SAME, VISIBLE, Draws
from gansynth.testing.report import Broken, Skip

TIGHTENED = "tightened_to"
"""Key of a sample's provenance where its boxes were shrunk: the share of each that is left."""
USUAL_RIM_MM = 3.0
"""How far beyond a lesion images may change, of a generator without an option ``rim_mm``."""
CHANGED = "background"
"""Key of a sample's provenance, with the value ``changed``, where the whole image was changed."""
SEEDS = 6
"""Seeds of which two at least must give different images, if any do."""
LEAST = 0.5
"""Least share of the real lesions' contrast."""


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


class LesionDraws:
    """One method for each thing that must hold of samples with lesions in real images."""

    def __init__(self, draws: Draws, cases: LesionCases) -> None:
        self.draws, self.cases = draws, cases
        self.asked = [cases.condition(case, 0) for case in draws.cases]

    @cached_property
    def holes(self) -> list[Mask]:
        """Of each sample, all that may change."""
        draws = self.draws
        rim_mm = getattr(draws.generator.options, "rim_mm", USUAL_RIM_MM)
        rim = rim_voxels(rim_mm, draws.schema.spacing)
        masks = [torch.from_numpy(drawn_in(c))[None, None] for c in self.asked]
        return [hole(mask, rim)[0, 0].numpy() for mask in masks]

    def kept(self) -> None:
        """Beyond the rim the sample is the background, to the bit."""
        if all(s.provenance.get(CHANGED) == "changed" for s in self.draws.samples):
            raise Skip("says that it changes the whole image")
        for sample, asked, hollow in zip(self.draws.samples, self.asked, self.holes, strict=True):
            where = ~hollow & (_labels(asked) != OUTSIDE)
            differing = int((sample.image != _image(asked))[:, where].any(axis=0).sum())
            if differing:
                raise Broken(
                    f"{differing} voxel(s) beyond the rim differ from the background, expected the "
                    f"background's own to the bit, or {CHANGED!r}: 'changed' in the provenance"
                )

    def shown(self) -> None:
        """Where the lesion is, the sample is not the background."""
        for sample, asked in zip(self.draws.samples, self.asked, strict=True):
            where = drawn_in(asked)
            change = (sample.image - _image(asked))[:, where]
            apart = float(np.sqrt(np.mean(change**2)))
            if not apart > VISIBLE * self.draws.deviation:
                raise Broken(f"lesions differ from the background by {apart:.3g}, expected more")

    def contrast(self) -> None:
        """Lesions stand out of the background as the training cases' own do."""
        real, drawn = ([self._standing_out(*pair) for pair in pairs] for pairs in self._pairs())
        wanted, found = np.mean(real, axis=0), np.mean(drawn, axis=0)
        share = float((wanted * found).sum() / np.square(wanted).sum())
        if not share >= LEAST:
            raise Broken(
                f"lesions stand out of the background by {share:.2f} of what real ones do, "
                f"expected at least {LEAST}"
            )

    def _pairs(
        self,
    ) -> tuple[list[tuple[FloatArray, Condition]], list[tuple[FloatArray, Condition]]]:
        train = self.draws.bench.train_cases
        real = [(case.image, Condition(labels=case.labels)) for case in train]
        images = [sample.image for sample in self.draws.samples]
        return real, list(zip(images, self.asked, strict=True))

    def _standing_out(self, image: FloatArray, asked: Condition) -> FloatArray:
        """Mean of each class minus that of the background, (classes, C)."""
        labels = _labels(asked)
        bare = image[:, labels == 0].mean(axis=1)
        values = self.draws.schema.foreground
        means = [image[:, labels == v].mean(axis=1) - bare for v in values if (labels == v).any()]
        if len(means) < len(values):
            return np.zeros((len(values), len(image)), np.float32)
        return np.stack(means)

    def seeds_matter(self) -> None:
        """Two seeds give two images, unless all that is random is in the condition."""
        condition, first = self.draws.conditions()[0], self.draws.samples[0]
        seeds = [self.draws.seeds[0] + 1 + n for n in range(SEEDS)]
        drawn = [
            self.draws.generator.sample([replace(condition, latent_seed=s)], [s])[0] for s in seeds
        ]
        if all(np.array_equal(sample.image, first.image) for sample in drawn):
            raise Skip("all that is random is in the condition")
        apart = [np.sqrt(np.mean((sample.image - first.image) ** 2)) for sample in drawn]
        if not max(apart) > SAME * self.draws.deviation:
            raise Broken(f"{SEEDS} seeds give images that differ by {max(apart):.3g}")

    def nothing(self) -> None:
        """Without a lesion, there being no room, the sample has a flaw."""
        condition, seed = self.draws.conditions()[0], self.draws.seeds[0]
        bare = self.cases.bodies[0]
        told = {**condition.provenance, "lesions": {"where": "prior", "room": False}}
        empty = replace(
            condition,
            labels=_labels(Condition(labels=bare.labels)).copy(),
            lesion=np.zeros_like(_labels(condition)),
            donor=bare.image.copy(),
            region=None,
            provenance=told,
        )
        sample = self.draws.generator.sample([empty], [seed])[0]
        sample = replace(sample, provenance={**told, **sample.provenance})
        if not self.draws.generator.flaw(sample):
            raise Broken(
                "a sample without a lesion, for which there was no room, has no flaw; expected one "
                "(gansynth.conditions.lesion_placement.no_room), it may be the copy of a real case"
            )

    def untouched(self) -> None:
        """Conditions are read only."""
        for given, asked in zip(self.draws.given, self.asked, strict=True):
            for name in ("background", "lesion", "donor", "region"):
                # None equals None alone here, as an array of one object.
                if not np.array_equal(getattr(given, name), getattr(asked, name)):
                    raise Broken(f"sample() wrote into a condition's {name}")


def _labels(condition: Condition) -> LabelArray:
    assert condition.labels is not None, "toy conditions have labels"
    return condition.labels


def _image(condition: Condition) -> FloatArray:
    assert condition.background is not None, "toy conditions have a background"
    return condition.background
