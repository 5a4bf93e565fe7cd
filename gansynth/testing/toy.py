"""A toy data set in memory: bodies with two kinds of blobs, two channels, known contrasts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import OUTSIDE, Boxes, Case, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space

MEANS = np.array([[-0.5, 0.8, 1.8], [0.6, -0.9, 0.2]], np.float32)
"""Mean intensity per channel (row) and label 0, 1, 2 (column)."""
TEXTURE = 0.25  # standard deviation of the smooth texture on top
SIDES = {3: 16, 2: 32}  # number of spatial axes -> side of a toy case in voxels
KINDS = ("one", "two")  # kinds of blobs; label 1 is the first


class ToySource(CaseSource):
    """Twelve training and four held-out toy cases, the same for the same arguments.

    Args:
        ndim: spatial axes, 3 (cases of 16 x 16 x 16 voxels) or 2 (32 x 32).
        boxes: add boxes around each kind of blob.
        classes: give the cases two classes, in turns.
        side: voxels along each axis, if others.
    """

    def __init__(
        self,
        ndim: int = 3,
        seed: int = 0,
        *,
        boxes: bool = False,
        classes: bool = False,
        side: int | None = None,
    ) -> None:
        self.request = SourceRequest("toy", str(ndim))
        self._shape = (side or SIDES[ndim],) * ndim
        self._cases = {
            f"toy_{i:02d}": _draw(f"toy_{i:02d}", self._shape, np.random.default_rng((seed, i)))
            for i in range(16)
        }
        self._box_classes = KINDS if boxes else ()
        self._classes = KINDS if classes else ()
        if classes:
            for number, (case_id, case) in enumerate(self._cases.items()):
                self._cases[case_id] = replace(case, label_class=number % len(KINDS))
        if boxes:
            self._cases = {k: replace(c, boxes=toy_boxes(c)) for k, c in self._cases.items()}

    @property
    def name(self) -> str:
        return f"toy:{len(self._shape)}"

    @property
    def schema(self) -> Schema:
        return Schema(
            channels=("first", "second"),
            labels={"background": 0, "one": 1, "two": 2},
            spacing=(1.0,) * len(self._shape),
            axes="DHW"[-len(self._shape) :],
            has_outside=True,
            outside_fill=(0.0, 0.0),
            classes=self._classes,
            box_classes=self._box_classes,
        )

    @property
    def space(self) -> Space:
        return Space("crop", self._shape)

    @property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(self._cases)[:12]

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return tuple(self._cases)[12:]

    def load(self, case_id: str) -> Case:
        return self._cases[case_id]


def _draw(case_id: str, shape: tuple[int, ...], rng: np.random.Generator) -> Case:
    side = shape[0]
    middle = np.full(len(shape), (side - 1) / 2)
    labels = np.full(shape, OUTSIDE, np.int16)
    labels[_ellipsoid(shape, middle, rng.uniform(0.44, 0.5, len(shape)) * side)] = 0
    for value in (1, 2):
        centre = middle + rng.uniform(-0.2, 0.2, len(shape)) * side
        labels[_ellipsoid(shape, centre, rng.uniform(0.14, 0.24, len(shape)) * side)] = value
    image = MEANS[:, np.maximum(labels, 0)] + TEXTURE * smooth_noise((2, *shape), rng)
    image[:, labels == OUTSIDE] = 0.0
    image.setflags(write=False)
    labels.setflags(write=False)
    return Case(case_id, case_id, image.astype(np.float32, copy=False), labels)


def without_blobs(case: Case, seed: int) -> Case:
    """Return the body of a toy case without blobs, with a new texture."""
    assert case.labels is not None, "toy cases have labels"
    labels = np.minimum(case.labels, 0).astype(np.int16)
    texture = TEXTURE * smooth_noise(case.image.shape, np.random.default_rng((seed, 1)))
    image = MEANS[:, np.zeros_like(labels)] + texture
    image[:, labels == OUTSIDE] = 0.0
    return replace(case, image=image.astype(np.float32), labels=labels)


def toy_boxes(case: Case) -> Boxes:
    """Return the boxes around the blobs of a toy case; class 0 is label 1."""
    assert case.labels is not None, "toy cases have labels"
    rows, kinds = [], []
    for number in range(len(KINDS)):
        at = np.argwhere(case.labels == number + 1)
        if len(at):
            rows.append(np.concatenate([at.min(axis=0), at.max(axis=0) + 1]))
            kinds.append(number)
    coords = np.array(rows, np.float32).reshape(-1, 2 * case.labels.ndim)
    return Boxes(coords, np.array(kinds, np.int16))


def _ellipsoid(
    shape: Sequence[int], centre: npt.NDArray[np.float64], radii: object
) -> npt.NDArray[np.bool_]:
    at = np.moveaxis(np.indices(shape, np.float64), 0, -1)
    inside: npt.NDArray[np.bool_] = (((at - centre) / np.asarray(radii)) ** 2).sum(-1) <= 1
    return inside


def smooth_noise(shape: tuple[int, ...], rng: np.random.Generator) -> FloatArray:
    """Return noise of deviation 1, smooth over about two voxels of all axes after the first."""
    noise = rng.standard_normal(shape)
    for axis in range(1, len(shape)):
        noise = noise + np.roll(noise, 1, axis)
    smooth: FloatArray = (noise / noise.std()).astype(np.float32)
    return smooth


def contrasts(images: Sequence[FloatArray], labels: Sequence[LabelArray]) -> FloatArray:
    """Return the mean of each label minus the mean of all labels' means, per channel; flat."""
    values, drawn = _inside(images, labels)
    means = np.stack([values[:, drawn == label].mean(axis=1) for label in np.unique(drawn)], axis=1)
    return np.asarray((means - means.mean(axis=1, keepdims=True)).ravel(), np.float32)


def _inside(
    images: Sequence[FloatArray], labels: Sequence[LabelArray]
) -> tuple[npt.NDArray[np.float64], LabelArray]:
    body = [drawn != OUTSIDE for drawn in labels]
    values = np.concatenate([i[:, b] for i, b in zip(images, body, strict=True)], axis=1)
    drawn = np.concatenate([d[b] for d, b in zip(labels, body, strict=True)])
    return values.astype(np.float64), drawn
