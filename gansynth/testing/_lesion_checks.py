"""Checks of samples with lesions: requested by boxes, or generated into a real image."""

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
from gansynth.testing._sample_checks import SAME, VISIBLE, SampleChecks
from gansynth.testing.report import CheckFailed, CheckSkipped

TIGHTENED = "tightened_to"
"""Key of notes of samples with shrunk boxes: the remaining share of each box."""
CHANGED = "background"
"""Key of notes of samples whose whole image was changed; its value is ``changed``."""
SEEDS = 6  # seeds of which at least two must give different images
LEAST = 0.5  # minimum share of the real lesions' contrast


class BoxSampleChecks:
    """Checks of samples with boxes, one method each."""

    def __init__(self, draws: SampleChecks) -> None:
        self.draws = draws
        self.requested = [copied_boxes(case.boxes) for case in draws.cases]

    def kept(self) -> None:
        """Boxes equal the condition's, or lie within them and its notes record it."""
        for sample, requested in zip(self.draws.samples, self.requested, strict=True):
            if sample.boxes is None:
                raise CheckFailed("a sample has no boxes, expected the condition's")
            boxes = sample.boxes
            if not np.array_equal(boxes.labels, requested.labels):
                raise CheckFailed(
                    f"box classes are {boxes.labels.tolist()}, expected the condition's "
                    f"{requested.labels.tolist()} in their order"
                )
            axes = requested.coords.shape[1] // 2
            within = (boxes.coords[:, :axes] >= requested.coords[:, :axes]).all()
            within &= (boxes.coords[:, axes:] <= requested.coords[:, axes:]).all()
            same = np.array_equal(boxes.coords, requested.coords)
            if not same and not (within and TIGHTENED in sample.notes):
                raise CheckFailed(
                    "boxes differ from the condition's, expected the same, or smaller ones within "
                    f"them with {TIGHTENED!r} in the sample's notes"
                )

    def matter(self) -> None:
        """Different boxes give different images, and so do no boxes."""
        condition, seed = self.draws.conditions()[0], self.draws.seeds[0]
        second = self.draws.conditions()[1].boxes
        none = Boxes(self.requested[0].coords[:0], self.requested[0].labels[:0])
        for boxes, label in ((second, "two lists of boxes"), (none, "boxes and none")):
            changed = replace(condition, boxes=boxes, latent_seed=seed)
            drawn = self.draws.generator.sample([changed], [seed])[0]
            self.draws.differ(drawn, self.draws.samples[0], f"{label} with the same seed")

    def in_place(self) -> None:
        """Boxes change the image mostly inside them.

        A GAN of a few steps draws no lesions yet; the metric ``lesions`` measures those of a run.
        """
        draws = self.draws
        bare = [
            replace(c, boxes=Boxes(requested.coords[:0], requested.labels[:0]))
            for c, requested in zip(draws.conditions(), self.requested, strict=True)
        ]
        changes: list[list[float]] = [[], []]
        without = draws.generator.sample(bare, draws.seeds)
        for sample, plain, requested in zip(draws.samples, without, self.requested, strict=True):
            change = np.abs(sample.image - plain.image).mean(axis=0)
            inside = _inside(requested, change.shape)
            for values, where in zip(changes, (inside, ~inside), strict=True):
                values.append(float(change[where].mean()))
        within, elsewhere = (float(np.mean(values)) for values in changes)
        if not within > elsewhere:
            raise CheckFailed(
                f"with boxes instead of none images change by {within:.3g} in the boxes and by "
                f"{elsewhere:.3g} elsewhere, expected more in them"
            )


def _inside(boxes: Boxes, shape: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    """Return a mask of voxels in any of the boxes."""
    inside, axes = np.zeros(shape, bool), len(shape)
    for row in boxes.coords.astype(int):
        inside[tuple(slice(a, b) for a, b in zip(row[:axes], row[axes:], strict=True))] = True
    return inside


class LesionSampleChecks:
    """Checks of samples with lesions in real images, one method each."""

    def __init__(self, draws: SampleChecks, cases: LesionCases) -> None:
        self.draws, self.cases = draws, cases
        self.requested = [cases.condition(case, 0) for case in draws.cases]

    @cached_property
    def holes(self) -> list[Mask]:
        """Mask of the voxels that may change, for each sample."""
        draws = self.draws
        rim = rim_voxels(draws.generator.capabilities.rim_mm, draws.schema.spacing)
        masks = [torch.from_numpy(drawn_in(c))[None, None] for c in self.requested]
        return [hole(mask, rim)[0, 0].numpy() for mask in masks]

    def kept(self) -> None:
        """Beyond the rim the sample equals the background exactly."""
        if all(s.notes.get(CHANGED) == "changed" for s in self.draws.samples):
            raise CheckSkipped("the whole image is changed")
        for sample, requested, hollow in zip(
            self.draws.samples, self.requested, self.holes, strict=True
        ):
            where = ~hollow & (_labels(requested) != OUTSIDE)
            differing = int((sample.image != _image(requested))[:, where].any(axis=0).sum())
            if differing:
                raise CheckFailed(
                    f"{differing} voxel(s) beyond the rim differ from the background, expected "
                    f"identical values, or {CHANGED!r}: 'changed' in the notes"
                )

    def shown(self) -> None:
        """Inside the lesion the sample differs from the background."""
        for sample, requested in zip(self.draws.samples, self.requested, strict=True):
            where = drawn_in(requested)
            change = (sample.image - _image(requested))[:, where]
            apart = float(np.sqrt(np.mean(change**2)))
            if not apart > VISIBLE * self.draws.deviation:
                raise CheckFailed(
                    f"lesions differ from the background by {apart:.3g}, expected more"
                )

    def contrast(self) -> None:
        """Lesions contrast with the background like those of the training cases."""
        real, drawn = ([self._standing_out(*pair) for pair in pairs] for pairs in self._pairs())
        real_means, drawn_means = np.mean(real, axis=0), np.mean(drawn, axis=0)
        share = float((real_means * drawn_means).sum() / np.square(real_means).sum())
        if not share >= LEAST:
            raise CheckFailed(
                f"lesions have {share:.2f} of the real lesions' contrast to the background, "
                f"expected at least {LEAST}"
            )

    def _pairs(
        self,
    ) -> tuple[list[tuple[FloatArray, Condition]], list[tuple[FloatArray, Condition]]]:
        train = self.draws.bench.train_cases
        real = [(case.image, Condition(labels=case.labels)) for case in train]
        images = [sample.image for sample in self.draws.samples]
        return real, list(zip(images, self.requested, strict=True))

    def _standing_out(self, image: FloatArray, condition: Condition) -> FloatArray:
        """Return the mean of each class minus that of the background, (classes, C)."""
        labels = _labels(condition)
        bare = image[:, labels == 0].mean(axis=1)
        values = self.draws.schema.foreground
        means = [image[:, labels == v].mean(axis=1) - bare for v in values if (labels == v).any()]
        if len(means) < len(values):
            return np.zeros((len(values), len(image)), np.float32)
        return np.stack(means)

    def seeds_matter(self) -> None:
        """Different seeds give different images, unless the condition holds all randomness."""
        condition, first = self.draws.conditions()[0], self.draws.samples[0]
        seeds = [self.draws.seeds[0] + 1 + n for n in range(SEEDS)]
        drawn = [
            self.draws.generator.sample([replace(condition, latent_seed=s)], [s])[0] for s in seeds
        ]
        if all(np.array_equal(sample.image, first.image) for sample in drawn):
            raise CheckSkipped("the condition holds all randomness")
        apart = [np.sqrt(np.mean((sample.image - first.image) ** 2)) for sample in drawn]
        if not max(apart) > SAME * self.draws.deviation:
            raise CheckFailed(f"{SEEDS} seeds give images that differ by {max(apart):.3g}")

    def nothing(self) -> None:
        """A sample that was requested without a lesion is accepted."""
        sample = self.draws.generator.sample([self._bare(0)], self.draws.seeds[:1])[0]
        if reason := self.draws.generator.reject_reason(sample):
            raise CheckFailed(f"reject_reason() of a sample without a lesion is {reason!r}")

    def sham(self) -> None:
        """Where the labels of a condition lack its lesion, tissue is drawn, without contrast."""
        real, _ = self._pairs()
        contrast = np.mean([self._standing_out(*pair) for pair in real], axis=0)
        shams = [
            replace(self._bare(number), lesion=requested.lesion)
            for number, requested in enumerate(self.requested)
        ]
        samples = self.draws.generator.sample(shams, self.draws.seeds)
        changes = [
            (sample.image - _image(sham))[:, drawn_in(sham)].mean(axis=1)
            for sample, sham in zip(samples, shams, strict=True)
        ]
        apart, most = np.abs(np.mean(changes, axis=0)).max(), np.abs(contrast).max()
        if not apart < LEAST * most:
            raise CheckFailed(
                f"a lesion that is not in the labels changes its place by {apart:.2f}, training "
                f"lesions stand out by {most:.2f}; expected less than {LEAST} of that"
            )

    def _bare(self, number: int) -> Condition:
        """Return a condition of a body without a lesion."""
        body = self.cases.bodies[number]
        return replace(
            self.requested[number],
            labels=_labels(Condition(labels=body.labels)).copy(),
            lesion=np.zeros_like(_labels(self.requested[number])),
            background=body.image.copy(),
            donor=body.image.copy(),
            region=None,
        )


def _labels(condition: Condition) -> LabelArray:
    assert condition.labels is not None, "toy conditions have labels"
    return condition.labels


def _image(condition: Condition) -> FloatArray:
    assert condition.background is not None, "toy conditions have a background"
    return condition.background
