"""``copypaste``: a lesion of one case in the image of another. It has no networks.

- TumorCP (Yang et al., MICCAI 2021): changes of object and image.
- CarveMix (Zhang et al., MICCAI 2021 and NeuroImage 2023): a region by a lesion's signed distance.
- Poisson image editing (Perez et al. 2003).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field

from gansynth import (
    OUTSIDE,
    Capabilities,
    Case,
    Condition,
    FloatArray,
    Generator,
    GeneratorOptions,
    LabelArray,
    Sample,
    bounding_box,
    lesion_mask,
    organ_mask,
    paste_soft,
    rim_voxels,
)
from gansynth.data.connected_components import parts
from gansynth.imaging.blending import hole, poisson
from gansynth.imaging.lesion_grain import (
    AROUND,
    LEAST_VOXELS,
    near,
    value_limits,
)

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
ONE_WAY = 0.9  # share of lesions of one sign above which a class has that sign
FEW_LESIONS = 5  # lesions of a class from which the sign of their contrast is known
CLEARLY = 0.25  # share of the usual contrast from which one of the other sign counts
STEEPEST = 2.0  # by no more, nor by less than its inverse, is a donor scaled
BEYOND = 4  # voxels beyond the rim that are looked at: a blur of 1 voxel reaches 3
LESION, IMAGE = 1, 2  # second part of the seeds, one for each random change


class CopyPasteOptions(GeneratorOptions):
    """Options of ``copypaste``."""

    blend: Literal["none", "soft", "poisson"] = Field(
        "soft",
        description="none: a hard edge; soft: the donor fades out across the rim; poisson: the "
        "donor's gradients with the background around them",
    )
    rim_mm: float = Field(
        3.0,
        ge=0,
        le=100,
        description="how far beyond the lesion the image may change, mm; 0: nowhere",
    )
    match: bool = Field(
        True,
        description="scale the donor's level to the background's around the lesion, from the "
        "darkest training value up: the lesion keeps its contrast to the tissue around it; no: the "
        "donor's own values",
    )
    mixing: Literal["lesion", "carve"] = Field(
        "lesion",
        description="lesion: the lesion is pasted; carve (CarveMix): less of it, or more around it",
    )
    object_intensity: float = Field(
        0.5,
        ge=0,
        le=1,
        description="strength of random changes of the lesion's gain, gamma and blur; 0: none",
    )
    one_sign: bool = Field(
        True,
        description="reject a lesion darker than what it borders on where nine tenths of the "
        "training lesions (of at least 5) are brighter, or the other way round, by a quarter of "
        "their contrast; for each class, class next to it, and channel",
    )
    image_level: float = Field(
        0.0,
        ge=0,
        le=1,
        description="strength of random changes of the image's gain, gamma and noise; 0: the "
        "background stays bit for bit",
    )


class CopyPaste(Generator):
    """The baseline of lesion generators: real lesions pasted elsewhere."""

    name: ClassVar[str] = "copypaste"
    Options: ClassVar[type[GeneratorOptions]] = CopyPasteOptions
    options: CopyPasteOptions
    limits: Matrix = np.array([[-np.inf], [np.inf]])  # what nothing is known of, until `observe`
    usual: Mapping[str, Matrix] = {}

    @property
    def capabilities(self) -> Capabilities:
        o = self.options
        return Capabilities(
            takes=frozenset({"labels", "lesion"}),
            edits=("flip", "rotate", "scale", "elastic"),
            lesions=f"apart_mm={max(o.rim_mm, 3.0)},mixing={o.mixing}",
            rim_mm=o.rim_mm,
        )

    def observe(self, cases: Iterable[Case]) -> dict[str, Any]:
        """Measure the range of values, and lesions' contrast by class, class beside, channel."""
        rows, ends = dict[str, list[Matrix]](), list[Matrix]()
        for case in cases:  # one at a time: all of them may not fit into memory
            assert case.labels is not None, "training cases have labels"
            ends.append(value_limits([case.image]).T)
            if not (case.labels > 0).any():
                continue
            tissue = organ_mask(case.image) & (case.labels != OUTSIDE)
            for border, row in self._contrasts(case.image, case.labels, case.labels, tissue):
                rows.setdefault(border, []).append(row)
        self.limits = value_limits(ends)
        self.usual = {
            border: np.median(seen, axis=0) * _of_one_sign(np.array(seen))
            for border, seen in rows.items()
            if len(seen) >= FEW_LESIONS
        }
        usual = {border: row.tolist() for border, row in self.usual.items()}
        return {"limits": self.limits.tolist(), "contrasts": usual}

    def load_state(self, state: Mapping[str, Any]) -> None:
        self.limits = np.array(state["limits"])
        # Older runs have signs to all around a lesion, which tell nothing of nested classes.
        contrasts = state.get("contrasts", {})
        self.usual = {border: np.array(row) for border, row in contrasts.items()}

    def lesion_margin(self) -> int | None:
        return None if self.options.image_level else max(self._reach, AROUND)

    @property
    def _reach(self) -> int:
        return max(rim_voxels(self.options.rim_mm, self.schema.spacing)) + BEYOND

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """See ``Generator.sample``; DataFault: a condition has no lesion to paste."""
        return [self._one(c, seed) for c, seed in zip(conditions, seeds, strict=True)]

    def reject_reason(self, sample: Sample) -> str:
        """Return why a sample is a copy of a real case: its lesion is unchanged, or missing."""
        lesions = sample.provenance.get("lesions", {})
        if lesions.get("changed") is False:
            return (
                "a copy of a real case, expected a changed lesion; add an edit that changes "
                "it, such as elastic"
            )
        if sample.notes.get("reversed"):
            return (
                "a lesion's contrast is reversed, expected the sign of nine tenths of the training "
                "lesions; --set one_sign=no allows both"
            )
        return ""

    def _contrasts(
        self, image: FloatArray, lesion: LabelArray, labels: LabelArray, tissue: Mask
    ) -> Iterator[tuple[str, Matrix]]:
        """Yield class and class beside, and contrast (C,), of each lesion to each label near it."""
        from scipy.ndimage import binary_dilation

        for value in self.schema.foreground:
            for part in parts(lesion, self.schema, (value,), least=LEAST_VOXELS):
                mask = part.whole() > 0
                box = bounding_box(mask, margin=AROUND)
                close = near(mask[box])
                ring = close & tissue[box]
                local = image[(slice(None), *box)]
                beside = np.where(ring if ring.any() else close, labels[box], value)
                held = lesion[box]
                others = binary_dilation(
                    (held > 0) & (held != value), np.ones((3,) * held.ndim, bool)
                )
                # Another class's intensities reach into the voxels that touch it.
                own = (part.whole()[box] == value) & ~others
                if own.sum() < LEAST_VOXELS:
                    continue
                inside = local[:, own].mean(axis=1)
                for other, voxels in zip(*np.unique(beside, return_counts=True), strict=True):
                    if other != value and voxels >= LEAST_VOXELS:
                        yield f"{value} {other}", inside - local[:, beside == other].mean(axis=1)

    def _reversed(self, border: str, row: Matrix) -> bool:
        usual = self.usual.get(border, np.zeros(1))
        return bool((row * usual < -CLEARLY * usual**2).any())

    def _one(self, condition: Condition, seed: int) -> Sample:
        background, labels, donor = map(condition.required, ("background", "labels", "donor"))
        image, drawn = background, lesion_mask(condition)
        body = np.asarray(labels != OUTSIDE if condition.body is None else condition.body)
        if condition.ignored is not None:  # what it shows is unknown
            body = body & ~condition.ignored
        if drawn.any():
            box = bounding_box(drawn, margin=self._reach)
            here, image = (slice(None), *box), background.copy()
            pasted = self._pasted(background[here], donor[here], drawn[box], body[box], seed)
            kept = pasted == background[here]
            image[here] = np.where(kept, pasted, self._within(pasted))
        if self.options.image_level:
            inside, rng = labels != OUTSIDE, np.random.default_rng((seed, IMAGE))
            image = change_image(image, inside, self.options.image_level, rng)
            image = np.where(image == background, image, self._within(image))
        image = np.array(image, np.float32)
        fill = self.schema.outside_fill
        if fill is not None:
            image[:, labels == OUTSIDE] = np.array(fill, np.float32)[:, None]
        notes: dict[str, Any] = {"background": "changed"} if self.options.image_level else {}
        if self.options.one_sign:
            lesion = np.where(labels > 0, condition.required("lesion"), 0)  # no sham
            # Beside a class are others of the lesion, and the background as it was, without a rim.
            shown = np.where(lesion > 0, image, background)
            tissue = body & (labels != OUTSIDE)
            contrasts = self._contrasts(shown, lesion, labels, tissue)
            notes["reversed"] = any(self._reversed(border, row) for border, row in contrasts)
        return Sample(image, labels.copy(), notes=notes)

    def _within(self, image: FloatArray) -> FloatArray:
        """Clip an image (C, ...) to the training cases' values."""
        limits: Matrix = self.limits.reshape(2, -1, *[1] * (image.ndim - 1))
        return np.clip(image, limits[0], limits[1])

    def _pasted(
        self, background: FloatArray, donor: FloatArray, drawn: Mask, body: Mask, seed: int
    ) -> FloatArray:
        """Return the background with the donor's lesion blended in across a rim."""
        options = self.options
        # Where donor and background are equal, the background stays.
        from_donor = np.asarray((donor != background).any(axis=0))
        if options.object_intensity:
            rng = np.random.default_rng((seed, LESION))
            changed = change_lesion(donor, drawn, options.object_intensity, rng)
            donor = np.where(from_donor, changed, donor)
        if options.match:
            around = near(drawn) & from_donor & body
            donor = np.where(from_donor, self._levelled(background, donor, around), donor)
        rim = rim_voxels(options.rim_mm, self.schema.spacing)
        mask = torch.from_numpy(drawn)[None, None]
        if options.blend == "poisson":
            filled = hole(mask, rim)[0, 0].numpy() & from_donor
            return poisson(background, donor, filled, from_donor)
        if options.blend == "none":
            rim = (0,) * len(rim)
        here = torch.from_numpy(np.ascontiguousarray(background))[None]
        there = torch.from_numpy(np.ascontiguousarray(donor))[None]
        mixed: FloatArray = paste_soft(here, there, mask, rim)[0].numpy()
        return mixed

    def _levelled(self, background: FloatArray, donor: FloatArray, around: Mask) -> FloatArray:
        """Return the donor with the background's level around a lesion; 0 is the darkest value."""
        if around.sum() < LEAST_VOXELS:
            return donor
        shape = (-1, *[1] * around.ndim)
        here = np.median(background[:, around], axis=1).reshape(shape)
        there = np.median(donor[:, around], axis=1).reshape(shape)
        low = np.minimum(self.limits[0].reshape(shape), np.minimum(here, there))
        gain = np.clip((here - low) / np.maximum(there - low, 1e-6), 1 / STEEPEST, STEEPEST)
        return np.asarray(here + gain * (donor - there), np.float32)


def _of_one_sign(rows: Matrix) -> Matrix:
    """Return 1 for channels whose contrasts (N, C) are nearly all of one sign, else 0."""
    share = (rows > 0).mean(axis=0)
    return np.asarray(1.0 * ((share >= ONE_WAY) | (share <= 1 - ONE_WAY)))


GAIN, GAMMA, BLUR, NOISE = 0.3, 0.5, 1.0, 0.1
"""Largest changes: contrast by ±30 %, gamma e^±0.5, blur of 1 voxel, noise of 0.1 deviations."""
DONE = 0.5  # probability of each change


def change_lesion(
    image: FloatArray, where: Mask, strength: float, rng: np.random.Generator
) -> FloatArray:
    """Change gain, gamma and sharpness of an image (C, ...), by a lesion's intensities."""
    from scipy.ndimage import gaussian_filter

    out = image.copy()
    blur = strength * BLUR * rng.random() if rng.random() < DONE else 0.0
    for channel in range(len(image)):
        if blur:
            out[channel] = gaussian_filter(out[channel], blur, truncate=3.0)
        out[channel] = _recoloured(out[channel], out[channel][where], strength, rng)
    return out


def change_image(
    image: FloatArray, body: Mask, strength: float, rng: np.random.Generator
) -> FloatArray:
    """Change gain, gamma and noise of an image (C, ...) in the body, bool."""
    out = image.copy()
    noise = strength * NOISE * rng.random() if rng.random() < DONE else 0.0
    for channel in range(len(image)):
        changed = _recoloured(image[channel], image[channel][body], strength, rng)
        spread = float(image[channel][body].std())
        changed += np.float32(noise * spread) * rng.standard_normal(changed.shape, np.float32)
        out[channel] = np.where(body, changed, image[channel])
    return out


def _recoloured(
    image: FloatArray, voxels: FloatArray, strength: float, rng: np.random.Generator
) -> FloatArray:
    """Change gamma over the range of some voxels, and gain about their mean."""
    gamma = np.exp(strength * GAMMA * rng.uniform(-1, 1)) if rng.random() < DONE else 1.0
    gain = 1 + strength * GAIN * rng.uniform(-1, 1) if rng.random() < DONE else 1.0
    low, high = float(voxels.min()), float(voxels.max())
    if not high > low:
        return image.copy()
    share = np.clip((image - low) / (high - low), 0, 1, dtype=np.float64)
    # Beyond the range gamma has no effect: values shift as the nearest end does.
    bent = image + (high - low) * (share**gamma - share)
    mean = float(voxels.mean(dtype=np.float64))
    return np.asarray(mean + gain * (bent - mean), np.float32)
