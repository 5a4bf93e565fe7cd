"""How a lesion looks: its level by depth and by position, and its texture; measured, and drawn.

The texture of each class is a stationary Gaussian field. Its power spectrum is that of a sum of
smooth parts, fitted to the variogram: how far voxels differ by their distance. A mask distorts that
by nothing, as it would a spectrum of the voxels, and a vessel or a fold in a lesion by little. Such
a field has no sides and no folds. So a lesion that is bright on one side has a trend, or it would
be drawn with patches; and half of a new texture's variance is that of the tissue under the lesion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from gansynth.core.geometry import Matrix, Rng, bounding_box, distance_within
from gansynth.core.schema import FloatArray, LabelArray, Mask
from gansynth.core.small_matrices import of_axes, principal_axes, product
from gansynth.data.connected_components import LesionPart

NEAR, FAR = 1.5, 4.5  # distances in voxels between which the tissue around a lesion is measured
AROUND = int(FAR) + 1  # voxels beside a lesion that hold this tissue
LEAST_VOXELS = 8  # least voxels to measure a texture in
BORDER = 0.5  # Gaussian between the levels of neighbouring classes, voxels
EVEN, BLURRED = 1.0, 4  # Gaussian that evens the steps of a mask's edge, and its reach, voxels
DEPTHS = np.array([-1.5, -0.5, 0.5, 1.5, 2.5, 4.0, 6.0, 9.0, 13.0, 18.0, 25.0])
"""Depths below a lesion's edge, below 0 beyond it, at which its profile is measured. Depths and
lags are in voxels of the finest axis."""
RIM = 2.5  # distance from the mask at which a lesion's profile ends
STAYS, GONE = -1.5, 1.5  # depths at which all, and nothing, is left of the background
TISSUE_SHARE = 0.5  # share of a texture's variance that is the tissue's which the lesion lies over
END = 2.0  # deviations from a lesion's centre from which a trend does not grow
HELD_BACK = 30.0  # voxels of a lesion whose trend is halved: in few voxels texture looks like one
WIDTHS = (0.7, 1.2, 2.0, 3.5, 6.0)
"""Gaussian autocovariances whose sum, with white noise, is a texture's."""
SLACK = 1e-6  # rounding of distances
STEPS = (1, 2, 3, 4, 6, 9, 13)  # voxels along an axis by which those lie apart that are compared
TILE, TILES = {2: 512, 3: 96}, 97
"""Edge of the periodic fields that textures are cut from, by the number of axes; their seed."""
FEW_PAIRS = 100  # pairs of voxels that weigh half as much as many
ROBUST = 0.457
"""Fourth power of the mean root of a difference, over its mean square (Cressie & Hawkins 1980)."""


class Look(NamedTuple):
    """Measures of a lesion; NaN of a class with too few voxels.

    ``profile``: mean beyond ``contrast`` at each of ``DEPTHS``, (depths, C). ``trend``: how the
    level rises and bends along the axes, (terms, C), see ``_terms``. Of each class: ``contrast`` of
    its mean to the tissue around the lesion, (classes, C); its texture's log deviation ``spread``,
    (classes, C), correlation of ``channels``, (classes, C, C), and ``shares`` of white noise and of
    each of ``WIDTHS`` in its variance, (classes, 1 + widths, C).
    """

    profile: Matrix
    trend: Matrix
    contrast: Matrix
    spread: Matrix
    channels: Matrix
    shares: Matrix

    def row(self) -> Matrix:
        """Return all numbers in one row."""
        return np.concatenate([part.ravel() for part in self])

    @staticmethod
    def shapes(classes: int, channels: int, axes: int) -> list[tuple[int, ...]]:
        """Return the shapes of the parts, in their order."""
        terms = axes + axes * (axes + 1) // 2
        whole = [(len(DEPTHS), channels), (terms, channels)]
        per_class = [(channels,), (channels,), (channels, channels), (1 + len(WIDTHS), channels)]
        return whole + [(classes, *shape) for shape in per_class]

    @classmethod
    def of_row(cls, row: Matrix, classes: int, channels: int, axes: int) -> Look:
        """Return what ``row`` was made of."""
        shapes = cls.shapes(classes, channels, axes)
        ends = np.cumsum([np.prod(shape) for shape in shapes])
        blocks = np.split(row, ends[:-1])
        parts = [block.reshape(shape) for block, shape in zip(blocks, shapes, strict=True)]
        return cls(*parts)

    @classmethod
    def measured(
        cls,
        image: FloatArray,
        labels: LabelArray,
        tissue: Matrix,
        free: Mask,
        values: Sequence[int],
        spacing: Sequence[float],
    ) -> Look:
        """Measure a lesion in an image, float32 (C, ...), around it.

        ``labels``: int16, the lesion's; 0 elsewhere. ``values``: of its classes. ``tissue``: mean
        (C,) around it. ``free``: bool, tissue without lesions. ``spacing``: mm.
        """
        rest = image - tissue.reshape(-1, *[1] * labels.ndim)
        masks = [labels == value for value in values]
        contrast = np.full((len(values), len(image)), np.nan)
        for mask, row in zip(masks, contrast, strict=True):
            if mask.sum() >= LEAST_VOXELS:
                row[:] = rest[:, mask].mean(axis=1)
        depth = _even(_distance(labels > 0, spacing, RIM), spacing)
        profile = np.zeros((len(DEPTHS), len(image)))
        everywhere = np.ones(labels.shape, bool)
        level = _level(labels, values, np.nan_to_num(contrast), everywhere).reshape(rest.shape)
        rest -= level * _filled(depth)
        # Number of the shell around each of ``DEPTHS`` that a voxel lies in; -1: in none.
        shells = np.digitize(depth, [-RIM, *_between(DEPTHS)]) - 1
        shells[(labels == 0) & ~free] = -1
        for shell in range(len(DEPTHS)):
            where = shells == shell
            # A small lesion has no depths: its deepest voxels stand for them. A first shell without
            # voxels is 0, as the last row still is.
            profile[shell] = rest[:, where].mean(axis=1) if where.any() else profile[shell - 1]
        rest -= _at_depth(depth, profile)
        lesion = labels > 0
        terms = _terms(lesion, lesion)
        trend = _trend(rest[:, lesion], terms)
        rest[:, lesion] -= product(trend.T, terms)
        textures = [_texture(rest, mask, spacing) for mask in masks]
        spread, channels, shares = map(np.stack, zip(*textures, strict=True))
        return cls(profile, trend, contrast, spread, channels, shares)

    def drawn(
        self,
        image: FloatArray,
        labels: LabelArray,
        tissue: Matrix,
        free: Mask,
        values: Sequence[int],
        spacing: Sequence[float],
        rng: np.random.Generator,
        rim_mm: float,
        effect: float,
    ) -> Matrix:
        """Return an image (C, ...) with a lesion of this look; other arguments as of ``measured``.

        Beyond the free tissue within ``rim_mm`` (a voxel, if that is more) it is the image.
        ``effect``: share of the lesion's level.
        """
        mask = labels > 0
        reach = max(rim_mm / min(spacing), 1.0) if rim_mm else 0.0
        distance = _distance(mask, spacing, reach)
        changed = mask | (free & (distance > 0.5 - reach - SLACK))
        # From here on each array is of the N changed voxels, (C, N), a small part of all.
        depth, before, classes = (
            _even(distance, spacing)[changed],
            image[:, changed],
            labels[changed],
        )
        texture, fields = np.zeros(before.shape), _fields(len(image), mask, spacing, rng)
        for number, value in enumerate(values):
            where = classes == value
            if where.any():
                new = _texture_like(self, number, fields[:, :, where[classes > 0]])
                texture[:, where] = _over_tissue(new, before[:, where], np.exp(self.spread[number]))
        level = _level(labels, values, self.contrast, changed) * _filled(depth)
        level += _at_depth(depth, self.profile)
        level += product(self.trend.T, _terms(mask, changed)) * _filled(depth)
        share = np.clip((depth - STAYS) / (GONE - STAYS), 0, 1)
        over = tissue[:, None] + texture - before
        out = image.astype(np.float64)
        out[:, changed] = before + share * over + effect * level
        return out


def tissue_around(
    part: LesionPart, image: FloatArray, free: Mask
) -> tuple[tuple[slice, ...], Matrix]:
    """Return a box around a lesion, and the mean (C,) of the free voxels near it.

    ``image``: (C, ...). ``free``: bool, tissue without lesions; all around it where none is near.
    """
    box, close = ring_around(part)
    ring = free[box] & close
    held = ring if ring.any() else np.ones_like(ring)
    return box, image[(slice(None), *box)][:, held].mean(axis=1)


def ring_around(part: LesionPart) -> tuple[tuple[slice, ...], Mask]:
    """Return a box around a lesion, and the voxels in it that are near the lesion, bool."""
    mask = part.whole() > 0
    box = bounding_box(mask, margin=AROUND)
    return box, near(mask[box])


def near(mask: Mask) -> Mask:
    """Return the voxels near a lesion's mask, beyond its edge."""
    away = distance_within(mask, (1.0,) * mask.ndim, FAR)
    return np.asarray((away > NEAR) & (away <= FAR))


def value_limits(images: Iterable[FloatArray | Matrix]) -> Matrix:
    """Least and largest value of each channel, (2, C), over images (C, ...)."""
    least, largest = [], []
    for image in images:
        values = image.reshape(len(image), -1)
        least.append(values.min(axis=1))
        largest.append(values.max(axis=1))
    return np.stack([np.min(least, axis=0), np.max(largest, axis=0)]).astype(np.float64)


def within(image: Matrix | FloatArray, limits: Matrix) -> Any:
    """Clip an image (C, ...) to limits (2, C)."""
    return np.clip(image, *limits.reshape(2, -1, *[1] * (image.ndim - 1)))


def _even(distance: Matrix, spacing: Sequence[float]) -> Matrix:
    """Even the edge of depths: a lesion's does not follow the steps of its mask's voxels."""
    from scipy.ndimage import gaussian_filter

    sigmas = [EVEN * min(spacing) / mm for mm in spacing]
    return np.asarray(gaussian_filter(distance, sigmas, mode="nearest", truncate=BLURRED))


def _distance(mask: Mask, spacing: Sequence[float], reach: float) -> Matrix:
    """Return how deep each voxel lies below a mask's edge, in voxels of the finest axis.

    Beyond ``reach``, and what is evened there, all lie as deep.
    """
    from scipy.ndimage import distance_transform_edt

    box = bounding_box(mask, margin=1)  # no voxel beyond is the nearest one to the mask's
    most = (max(reach, RIM) + BLURRED + 1) * min(spacing)
    distance = -np.minimum(distance_within(mask, spacing, most), most)
    distance[box] += distance_transform_edt(mask[box], sampling=spacing)
    return np.asarray(distance / min(spacing) - np.where(mask, 0.5, -0.5))


def _filled(depth: Matrix) -> Matrix:
    """Return the share of each voxel that a lesion fills."""
    return np.clip(depth + 0.5, 0, 1)


def _level(labels: LabelArray, values: Sequence[int], contrast: Matrix, where: Mask) -> Matrix:
    """Return the contrast (C, N) of the class of each of N voxels; neighbouring ones run together.

    ``where``: bool, these voxels.
    """
    from scipy.ndimage import gaussian_filter

    blurred = [gaussian_filter((labels == value).astype(float), BORDER) for value in values]
    weights = np.stack([weight[where] for weight in blurred])
    return np.asarray(product(contrast.T, weights) / (weights.sum(axis=0) + 1e-6))


def _terms(mask: Mask, where: Mask) -> Matrix:
    """Return what a trend is a sum of: positions along each axis, and their products, (terms, N).

    Positions are in deviations of the mask's voxels from its centre; the mean of each term over the
    mask is 0. ``where``: bool, the N voxels, the mask's among them.
    """
    held, inside = np.nonzero(where), mask[where]
    places = []
    for at in held:
        place = (at - at[inside].mean()) / max(at[inside].std(), 1.0)
        places.append(np.clip(place, -END, END))
    terms = list(places)
    for number, place in enumerate(places):
        terms += [place * other for other in places[number:]]
    return np.stack([term - term[inside].mean() for term in terms])


def _trend(rest: Matrix, terms: Matrix) -> Matrix:
    """Return the factor of each term (terms, N) in a residual (C, N) of a lesion, (terms, C)."""
    products = product(terms, terms.T) + HELD_BACK * np.eye(len(terms))
    values, axes = principal_axes(products)
    return product(of_axes(1 / values, axes), product(terms, rest.T.astype(np.float64)))


def _at_depth(depth: Matrix, profile: Matrix) -> Matrix:
    """Interpolate a profile (depths, C) at each voxel, (C, ...); 0 beyond the rim."""
    ends = [-RIM, *DEPTHS]
    return np.stack([np.interp(depth, ends, [0.0, *column]) for column in profile.T])


def _texture(rest: Matrix, mask: Mask, spacing: Sequence[float]) -> tuple[Matrix, Matrix, Matrix]:
    """Return ``Look``'s spread, channels and shares of one class of a residual (C, ...)."""
    from scipy.optimize import nnls

    count = len(rest)
    spread, shares = np.full(count, np.nan), np.full((1 + len(WIDTHS), count), np.nan)
    box = bounding_box(mask)
    inner, held = _interior(mask)[box], rest[(slice(None), *box)]
    voxels = np.ascontiguousarray(held.reshape(count, -1).T)  # a voxel's channels side by side
    rows: list[tuple[float, int, Matrix]] = []
    for axis in range(mask.ndim):
        rows += _variogram(voxels, inner, axis, spacing)
    if mask.sum() < LEAST_VOXELS or not rows:
        return spread, np.full((count, count), np.nan), shares
    lags, pairs, halves = map(np.array, zip(*rows, strict=True))
    weights = np.sqrt(pairs / (pairs + FEW_PAIRS))
    parts = 1 - _parts(lags)  # the variogram of each part, of variance 1
    scores = held[:, inner].astype(np.float64)
    scores -= scores.mean(axis=1, keepdims=True)
    variance = np.square(scores).mean(axis=1) + 1e-12
    # Non-negative least squares: a row for each lag, and one that asks for shares of sum 1. In a
    # small lesion the lags say nothing of coarse parts, and this last row holds them back.
    equations = np.concatenate([(parts * weights).T, np.ones((1, len(parts)))])
    for channel, half in enumerate(halves.T):
        fitted, _ = nnls(equations, np.append(half / variance[channel] * weights, 1.0))
        total = max(fitted.sum(), 1e-6)
        spread[channel] = np.log(variance[channel] * total) / 2
        shares[:, channel] = fitted / total
    scores /= np.sqrt(variance)[:, None]
    return spread, product(scores, scores.T) / inner.sum(), shares


def _variogram(
    rest: Matrix, mask: Mask, axis: int, spacing: Sequence[float]
) -> Iterator[tuple[float, int, Matrix]]:
    """Yield lag, pairs and half the mean square of differences (C,), of steps along an axis.

    ``rest``: (voxels, C), of all of the mask's array.
    """
    lead, stride = (slice(None),) * axis, math.prod(mask.shape[axis + 1 :])
    for step in STEPS:
        here, there = (*lead, slice(None, -step)), (*lead, slice(step, None))
        both = np.zeros_like(mask)
        both[here] = mask[here] & mask[there]
        at = np.flatnonzero(both)
        if len(at) >= LEAST_VOXELS:
            differences = np.abs(rest[at] - rest[at + step * stride])
            half = np.sqrt(differences).mean(axis=0) ** 4 / ROBUST / 2
            yield step * spacing[axis] / min(spacing), len(at), half


def _fields(channels: int, mask: Mask, spacing: Sequence[float], rng: Rng) -> FloatArray:
    """Draw what a texture is a sum of: white noise, and smooth fields of each of ``WIDTHS``.

    Each is a piece of a tile, from a place and in a direction of its own, of variance 1. Returns
    float32 (1 + widths, C, N), at the mask's N voxels.
    """
    tiles = _tiles(tuple([mm / min(spacing) for mm in spacing]))
    voxels = [at - at.min() for at in np.nonzero(mask)]
    lengths = [int(at.max()) + 1 for at in voxels]
    out = np.empty((1 + len(WIDTHS), channels, len(voxels[0])), np.float32)
    out[0] = rng.standard_normal(out.shape[1:], np.float32)
    for tile, fields in zip(tiles, out[1:], strict=True):
        starts = rng.integers(tile.shape[0], size=(channels, len(voxels)))
        steps = rng.choice((-1, 1), starts.shape)
        for field, *places in zip(fields, starts, steps, strict=True):
            at = np.zeros(len(voxels[0]), np.intp)
            for voxel, length, start, step in zip(voxels, lengths, *places, strict=True):
                along = (start + step * np.arange(length)) % tile.shape[0]
                at = at * tile.shape[0] + along[voxel]
            field[:] = tile.ravel()[at]
    return out


@cache
def _tiles(steps: tuple[float, ...]) -> list[FloatArray]:
    """Return a periodic field of each of ``WIDTHS``, of mean 0 and variance 1, float32.

    Textures are cut from them, since a field of its own for each lesion takes ten times as long.
    ``steps``: size of voxels, the finest axis 1.
    """
    from scipy import fft

    rng, size = np.random.default_rng(TILES), (TILE[len(steps)],) * len(steps)
    tiles = []
    for number in range(1, 1 + len(WIDTHS)):
        spectrum = fft.rfftn(rng.standard_normal(size, np.float32))
        # A Gaussian in space is the product of those along its axes, and so is its spectrum.
        for axis, (length, step) in enumerate(zip(size, steps, strict=True)):
            lags = np.minimum(np.arange(length), length - np.arange(length)) * step
            kept = _parts(lags)[number].round(9)  # last bits of an exponential are the CPU's
            power = fft.fft(kept).real[: spectrum.shape[axis]]
            shape = [-1 if a == axis else 1 for a in range(len(size))]
            share = np.sqrt(np.maximum(power, 0)).astype(np.float32).reshape(shape)
            spectrum.real *= share  # a product of complex numbers is rounded as the CPU does it
            spectrum.imag *= share
        tile = fft.irfftn(spectrum, size)
        tiles.append((tile - tile.mean()) / tile.std())
    return tiles


def _texture_like(look: Look, number: int, fields: FloatArray) -> Matrix:
    """Return the texture of a class's N voxels, of mean 0: (C, N).

    ``fields``: of ``_fields``, at these voxels.
    """
    # Fields whose channels correlate as the look's: a root of that matrix times the fields.
    values, axes = principal_axes(look.channels[number])
    root = of_axes(np.sqrt(np.maximum(values, 0)), axes)
    weights = np.sqrt(np.maximum(look.shares[number], 0))[:, :, None] * root  # (parts, C, C)
    rows = weights.transpose(1, 0, 2).reshape(len(root), -1).astype(np.float32)
    held = product(rows, fields.reshape(rows.shape[1], -1))
    held -= held.mean(axis=1, keepdims=True)
    return np.asarray(np.exp(look.spread[number])[:, None] * held)


def _over_tissue(texture: Matrix, tissue: FloatArray, spread: Matrix) -> Matrix:
    """Return a texture (C, N) that partly is that of the tissue (C, N) which the lesion lies over.

    A field of chance alone has no folds, vessels or strands, and looks cut out of its surroundings.
    ``spread``: deviation of each channel (C,), which stays.
    """
    detail = tissue - tissue.mean(axis=1, keepdims=True)
    deviation = np.maximum(detail.std(axis=1), 1e-6)
    shown = np.minimum(1, np.sqrt(TISSUE_SHARE) * spread / deviation)
    rest = np.sqrt(np.maximum(0, 1 - np.square(shown * deviation / spread)))
    return np.asarray(shown[:, None] * detail + rest[:, None] * texture)


def _interior(mask: Mask) -> Mask:
    """Return a mask without its outermost voxels, if enough are left; else the mask."""
    from scipy.ndimage import binary_erosion

    inner = np.asarray(binary_erosion(mask))
    return inner if inner.sum() >= LEAST_VOXELS else mask


def _parts(lags: Matrix) -> Matrix:
    """Return the autocovariance at some lags, (1 + widths, lags).

    The first row is that of white noise, then that of each of ``WIDTHS``, all of variance 1.
    """
    smooth = [np.exp(-0.5 * np.square(lags / width)) for width in WIDTHS]
    return np.stack([(lags == 0) * 1.0, *smooth])


def _between(ticks: Matrix) -> Matrix:
    return np.asarray((ticks[1:] + ticks[:-1]) / 2)
