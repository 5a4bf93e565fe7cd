"""Blend one image's lesion into another image, across a rim around it.

The mask is the lesion. The rim is all within some voxels of it. Both together are the hole; beyond
it the background stays, to the bit. Tensors on any device: images (B, C, D, H, W) or (B, C, H, W),
masks bool (B, 1, D, H, W) or (B, 1, H, W). ``poisson`` takes numpy arrays.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gansynth.core.geometry import Matrix, bounding_box
from gansynth.core.schema import FloatArray, Mask

BEYOND = 2.0  # value of `steps_from` for all voxels beyond the rim
SLACK = 1e-5  # rounding: a voxel whose distance is the rim's width belongs to the rim
PRECISION, ROUNDS, TINY = 1e-6, 2000, 1e-300
"""`poisson` is solved to this relative residual, in so many rounds at most; least divisor."""


def rim_voxels(rim_mm: float | None, spacing: Sequence[float]) -> tuple[int, ...]:
    """Width of the rim of so many mm in voxels along each axis, rounded up; None is one voxel.

    More than the one voxel that a lesion's border shares with its surroundings is a halo: it
    changes tissue whose label says background.
    """
    if rim_mm is None:
        return (1,) * len(spacing)
    return tuple([math.ceil(rim_mm / mm - SLACK) for mm in spacing])


def steps_from(mask: Tensor, rim: Sequence[int]) -> Tensor:
    """Distance of each voxel from the mask, as a share of the rim (Euclidean).

    ``rim``: width in voxels along each spatial axis. Returns float32 (B, 1, ...): 0 in the mask, up
    to 1 in the rim, ``BEYOND`` beyond it.
    """
    if mask.device.type != "cpu":
        return _steps(mask, rim)
    out = torch.full_like(mask, BEYOND, dtype=torch.float32)
    box = _around(mask, rim)
    out[box] = _steps(mask[box], rim)
    return out


def _around(mask: Tensor, rim: Sequence[int]) -> tuple[slice, ...]:
    """Return the box of a mask and its rim; on other devices than a CPU that would wait."""
    shown = mask.any(0)[0].numpy()
    return (slice(None), slice(None), *bounding_box(shown, max(rim, default=0)))


def _steps(mask: Tensor, rim: Sequence[int]) -> Tensor:
    far = torch.full_like(mask, BEYOND**2, dtype=torch.float32)
    squares = torch.where(mask, torch.zeros_like(far), far)
    for axis, width in enumerate(rim, start=2):
        # The lowest of the parabolas over this line's voxels (Felzenszwalb and Huttenlocher 2012).
        nearest = squares.clone()
        for step in range(1, min(width, mask.shape[axis] - 1) + 1):
            rise, length = (step / width) ** 2, mask.shape[axis] - step
            for here, there in ((0, step), (step, 0)):
                out = nearest.narrow(axis, here, length)
                torch.minimum(out, squares.narrow(axis, there, length) + rise, out=out)
        squares = nearest
    distance = squares.sqrt()
    return torch.where(distance <= 1 + SLACK, distance.clamp(max=1), BEYOND)


def hole(mask: Tensor, rim: Sequence[int]) -> Tensor:
    """The mask and its rim, bool (B, 1, ...): all voxels that may change."""
    return steps_from(mask, rim) <= 1


def fade(mask: Tensor, rim: Sequence[int]) -> Tensor:
    """The donor's share, (B, 1, ...): 1 in the mask, along a cosine to 0 in the rim."""
    distance = steps_from(mask, rim)
    widest = max(rim, default=0)
    end = widest / (widest + 1)
    # In double precision, whose last bits, those of the CPU's kind, are rounded away.
    falling = 0.5 + 0.5 * torch.cos(math.pi * end * distance.clamp(max=1).double()).float()
    return torch.where(mask, 1.0, torch.where(distance <= 1, falling, 0.0))


def paste_soft(background: Tensor, donor: Tensor, mask: Tensor, rim: Sequence[int]) -> Tensor:
    """The donor faded into the background across the rim; exactly the background beyond it.

    ``background``, ``donor``: float (B, C, ...), aligned. ``mask``: bool (B, 1, ...), where the
    donor is taken as it is. ``rim``: voxels along each axis; 0 for plain copy and paste.
    """
    if mask.device.type != "cpu":
        return _mixed(background, donor, mask, rim)
    out, box = background.clone(), _around(mask, rim)
    out[box] = _mixed(background[box], donor[box], mask[box], rim)
    return out


def _mixed(background: Tensor, donor: Tensor, mask: Tensor, rim: Sequence[int]) -> Tensor:
    mixed = background + fade(mask, rim) * (donor - background)
    # Weight 1 is the donor to the bit, too: x + (y - x) need not be y.
    return torch.where(mask, donor, torch.where(hole(mask, rim), mixed, background))


def dress(
    labels: Tensor,
    donor: Tensor,
    donor_labels: Tensor,
    values: Sequence[int],
    means: Tensor,
    *,
    deviations: Tensor | None = None,
    noise: Tensor | None = None,
) -> Tensor:
    """Fit a donor's texture to another label map, float (B, C, ...).

    A voxel keeps the donor's intensity where the donor has its class. Elsewhere it gets the class's
    mean in the donor, with its deviation as noise. Of a class that the donor lacks, mean and
    deviation are those of training cases: ``means``, ``deviations``, float (len(values), C).
    ``labels``, ``donor_labels``: int (B, ...). ``noise``: standard normal (B, C, ...), or None.
    """
    out = donor.clone()
    for sample in range(len(out)):
        for row, value in enumerate(values):
            target = labels[sample] == value
            source = donor_labels[sample] == value
            mean, deviation = means[row], 0 if deviations is None else deviations[row]
            if bool(source.any()):
                held = donor[sample][:, source].double()
                mean, deviation = held.mean(1), held.std(1, unbiased=False)
            plain = torch.as_tensor(mean, dtype=out.dtype, device=out.device)
            shape = (-1, *[1] * (out.ndim - 2))
            dressed = plain.reshape(shape).expand_as(out[sample])
            if noise is not None:
                wide = torch.as_tensor(deviation, dtype=out.dtype, device=out.device)
                dressed = dressed + wide.reshape(-1, *shape[1:]) * noise[sample]
            filled = torch.where(target & ~source, dressed, out[sample])
            out[sample] = torch.where(target & source, donor[sample], filled)
    return out


@dataclass(frozen=True)
class Donor:
    """An image whose gradients fill a mask, or a part of one that other donors fill too.

    ``box``: where it lies in the background; one voxel around the mask belongs to it, where there
    is one. ``image``: float32 (C, ...), ``mask``: bool, what it fills, ``usable``: bool, where its
    gradients count (others are 0), all of the box's shape.
    """

    box: tuple[slice, ...]
    image: FloatArray
    mask: Mask
    usable: Mask


def poisson(
    background: FloatArray, donor: FloatArray, mask: Mask, usable: Mask | None = None
) -> FloatArray:
    """The donor's gradients in the mask, the background around it (Perez et al. 2003).

    ``background``, ``donor``: float32 (C, D, H, W) or (C, H, W). ``mask``: bool (D, H, W) or (H,
    W). ``usable``: where the donor's gradients count; others are 0. Steps across the border of the
    array do not count. Returns float32, exactly the background outside the mask.
    """
    if not mask.any() or mask.all():
        return donor.copy() if mask.any() else background.copy()
    box = bounding_box(mask, margin=1)  # with all neighbours of the mask
    useful = np.ones_like(mask[box]) if usable is None else usable[box]
    whole = (slice(None),) * mask.ndim
    out = background.copy()
    out[:, *box] = poisson_of_many(out[:, *box], [Donor(whole, donor[:, *box], mask[box], useful)])
    return out


def poisson_of_many(
    background: FloatArray, donors: Sequence[Donor], anchors: Mask | None = None
) -> FloatArray:
    """The gradients of several donors, each in its mask, the background around them all.

    A step across the border of two masks is the mean of both donors', and one across the border of
    all masks that of the donor within. See ``poisson``. Masks do not overlap. ``anchors``: where
    what is around them counts: a step to air beside a masked body does not. None: everywhere.
    """
    out = background.copy()
    mask = np.zeros(background.shape[1:], bool)
    for donor in donors:
        mask[donor.box] |= donor.mask
        np.copyto(out[:, *donor.box], donor.image, where=donor.mask)
    matrix, faces = _laplacian(mask, np.ones_like(mask) if anchors is None else mask | anchors)
    fixed_values = background.reshape(len(out), -1).T.astype(np.float64)  # (voxels, C)
    divergence = np.zeros((matrix.shape[0], len(out)))
    for face, slope in zip(faces, _slopes(donors, mask.shape, faces), strict=True):
        divergence[face.row] += slope  # a voxel has one neighbour in each direction
        divergence[face.row[face.fixed]] += fixed_values[face.neighbour[face.fixed]]
    channels = zip(divergence.T, out[:, mask].astype(np.float64), strict=True)
    out[:, mask] = [_solved(matrix, *map(np.ascontiguousarray, pair)) for pair in channels]
    return out


def _slopes(
    donors: Sequence[Donor], shape: tuple[int, ...], faces: Sequence[_Faces]
) -> list[Matrix]:
    """Return the donors' step across each face (N, C), for each direction."""
    channels = len(donors[0].image)
    slopes = [np.zeros((len(face.row), channels)) for face in faces]
    counts = [np.zeros(len(face.row), np.uint8) for face in faces]
    for donor in donors:
        values = np.zeros((channels, *shape), np.float32)
        filled, useful = np.zeros(shape, bool), np.zeros(shape, bool)
        values[:, *donor.box] = donor.image
        filled[donor.box], useful[donor.box] = donor.mask, donor.usable
        of_voxels = values.reshape(channels, -1)
        filled, useful = filled.ravel(), useful.ravel()
        for face, slope, count in zip(faces, slopes, counts, strict=True):
            inside, neighbour = face.inside, face.neighbour
            theirs = filled[inside] | filled[neighbour]
            at = np.flatnonzero(theirs & useful[inside] & useful[neighbour])
            here, there = of_voxels[:, inside[at]], of_voxels[:, neighbour[at]]
            slope[at] += np.subtract(here, there, dtype=np.float64).T
            count[at] += 1
    return [
        slope / np.maximum(count, 1)[:, None] for slope, count in zip(slopes, counts, strict=True)
    ]


def _solved(matrix: Any, right: Matrix, start: Matrix) -> Matrix:
    """Solve by conjugate gradients, scaled by the diagonal: one column, which the cache holds."""
    scale = 1 / np.maximum(matrix.diagonal(), 1)  # 0 of a voxel with nothing to be joined to
    least = PRECISION**2 * _dot(right, right)
    solved, rest = start.copy(), right - matrix @ start
    step = scale * rest
    length = _dot(rest, step)
    for _ in range(ROUNDS):
        if _dot(rest, rest) <= least:
            break
        pushed = matrix @ step
        far = length / max(_dot(step, pushed), TINY)
        solved += far * step
        rest -= far * pushed
        scaled = scale * rest
        before, length = length, _dot(rest, scaled)
        step *= length / max(before, TINY)
        step += scaled
    return solved


def _dot(one: Matrix, other: Matrix) -> float:
    """The product of two vectors, with the same bits in any number of threads."""
    return float(np.einsum("n,n->", one, other))


@dataclass(frozen=True)
class _Faces:
    """The faces of a mask's voxels in one direction: the voxel within, and the one beside it.

    ``row``: number of the voxel among the mask's. ``inside``, ``neighbour``: indices of the flat
    array. ``fixed``: bool, whether the neighbour is beyond the mask.
    """

    row: npt.NDArray[np.int32]
    inside: npt.NDArray[np.int64]
    neighbour: npt.NDArray[np.int64]
    fixed: Mask


def _laplacian(mask: Mask, counts: Mask) -> tuple[Any, list[_Faces]]:
    """Return the Laplacian over a mask's voxels, and their faces to voxels that count."""
    from scipy.sparse import coo_array

    number = np.full(mask.shape, -1, np.int32)  # the solver reads a third less than of int64
    count = int(mask.sum())
    number[mask] = np.arange(count)
    flat = np.arange(mask.size).reshape(mask.shape)
    every, rows, columns, diagonal = [], [], [], np.zeros(count)
    for axis in range(mask.ndim):
        low = (*[slice(None)] * axis, slice(None, -1))
        high = (*[slice(None)] * axis, slice(1, None))
        for here, there in ((low, high), (high, low)):
            at = mask[here] & counts[there]
            row, neighbour = number[here][at], flat[there][at]
            fixed = number[there][at] < 0
            every.append(_Faces(row, flat[here][at], neighbour, fixed))
            diagonal += np.bincount(row, minlength=count)
            rows.append(row[~fixed])
            columns.append(number[there][at][~fixed])
    faces = np.concatenate(rows), np.concatenate(columns)
    numbers = np.arange(count, dtype=np.int32)
    entries = np.concatenate([-np.ones(len(faces[0])), diagonal])
    index = np.concatenate([faces[0], numbers]), np.concatenate([faces[1], numbers])
    return coo_array((entries, index), shape=(count, count)).tocsr(), every
