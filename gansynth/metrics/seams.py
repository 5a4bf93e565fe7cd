"""Is there a boundary artefact where a lesion was inserted? Gradients across its edge and rim.

Gradients are compared with those at the same distances from real lesions. An artefact is steeper, a
smear flatter.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from gansynth.core.body_mask import organ_mask
from gansynth.core.geometry import Mask, bounding_box
from gansynth.core.schema import OUTSIDE, Case, FloatArray, LabelArray, Sample, Schema, content_hash
from gansynth.data.lesion_parts import parts
from gansynth.data.lesion_rims import Numbers, spread
from gansynth.runtime.errors import UsageFault

PLACES = ("edge", "rim")
"""Positions: the lesion's edge, and the steepest surface of the rim around it."""
REACH = 6
"""Width of the rim around a lesion, in voxels of the finest axis."""
FACES = 12
"""Fewest pairs of voxels for a gradient."""
LEAST = 8
"""Smallest component of the foreground, in voxels, that is a lesion."""
RANGE = (0.025, 0.975)
"""Quantiles of the real lesions' gradients that bound the range."""


def seam_metric(
    samples: Sequence[Sample], real: Sequence[Case], schema: Schema
) -> Mapping[str, float]:
    """The metric ``seam``: gradients across lesions' edges and rims, of samples and of real cases.

    Where a sample has its real case beside it, only new voxels count. Returns ``in range``, the
    share of lesions between the real ones' 2.5 and 97.5 percentile, and ``real in range`` (against
    other subjects). Both medians are by channel and place, in deviations of the body per mm, or
    NaN. Raises UsageFault: no sample has labels.
    """
    if not any(sample.labels is not None for sample in samples):
        raise UsageFault(
            "--metric seam: samples have no label maps, expected a generator conditioned on "
            "labels, such as copypaste; leave it out"
        )
    gradients = [_nothing(schema)]
    for index, sample in enumerate(samples):
        beside = real[index] if index < len(real) else None
        gradients.append(seams(sample.image, sample.labels, new_voxels(sample, beside), schema))
    once = {(case.id, content_hash(case.image)): case for case in real}.values()
    rows = [seams(c.image, c.labels, None, schema) for c in once]
    of = [case.subject for case, row in zip(once, rows, strict=True) for _ in row]
    return seam_numbers(
        np.concatenate(gradients), np.concatenate([_nothing(schema), *rows]), of, schema
    )


def seam_numbers(
    drawn: Numbers, real: Numbers, of: Sequence[str], schema: Schema
) -> dict[str, float]:
    """Compute the metric from gradients (N, C, 2) of samples and (M, C, 2) of real lesions."""
    subjects = np.array(of, object)
    others = np.full(real.shape, np.nan)
    for subject in dict.fromkeys(of):
        same = subjects == subject
        others[same] = within_range(real[same], real[~same])
    inside = within_range(drawn, real)
    numbers = {
        "in range": _mean(inside),
        "real in range": _mean(others),
        "lesions": float(len(drawn)),
        "real lesions": float(len(real)),
    }
    for channel, name in enumerate(schema.channels):
        for at, place in enumerate(PLACES):
            numbers |= {
                f"{name} {place} in range": _mean(inside[:, channel, at]),
                f"{name} {place}": _median(drawn[:, channel, at]),
                f"{name} {place} real": _median(real[:, channel, at]),
            }
    return numbers


def within_range(values: Numbers, of: Numbers) -> Numbers:
    """1 where a value (N, C, 2) lies in the range of (M, C, 2), 0 where not, else NaN."""
    out = np.full(values.shape, np.nan)
    for place in np.ndindex(values.shape[1:]):
        reference = of[(slice(None), *place)]
        reference = reference[np.isfinite(reference)]
        if reference.size:
            # Weibull quantiles hold a further real value with the stated probability, even if few.
            low, high = np.quantile(reference, RANGE, method="weibull")
            column = values[(slice(None), *place)]
            within = ((column >= low) & (column <= high)).astype(np.float64)
            out[(slice(None), *place)] = np.where(np.isfinite(column), within, np.nan)
    return out


def new_voxels(sample: Sample, beside: Case | None) -> Mask | None:
    """Mask of a sample's foreground that is new to the case beside it; None if unknown."""
    about = sample.provenance
    if sample.labels is None or beside is None or beside.labels is None or "lesions" not in about:
        return None
    if dict(about["lesions"]).get("where") == "own":  # foreground generated again in its place
        return None
    if beside.id != about.get("case") or beside.labels.shape != sample.labels.shape:
        return None
    return np.asarray((sample.labels > 0) & (sample.labels != beside.labels))


def seams(
    image: FloatArray, labels: LabelArray | None, new: Mask | None, schema: Schema
) -> Numbers:
    """Gradients across the edges and rims of lesions in an image: (N, C, 2), NaN if undefined.

    A gradient is the mean difference of voxels on both sides of a surface, per mm, over the
    deviation of the body around lesions. Of the surfaces one to six voxels out, the steepest
    counts. Pairs with another lesion's voxels, or at the body's border, are excluded. ``image``:
    float32 (C, D, H, W) or (C, H, W). ``labels``: int16; each connected component of the foreground
    is a lesion. ``new``: the lesions' voxels.
    """
    from scipy.ndimage import binary_erosion

    if labels is None or not (labels > 0).any():
        return np.zeros((0, len(image), 2))
    body = labels != OUTSIDE if (labels == OUTSIDE).any() else organ_mask(image)
    # Only tissue around lesions: inserted lesions and their size must not influence the scale.
    around = body & (labels <= 0) if (body & (labels <= 0)).any() else body
    scales = np.array([max(spread(channel[around]), 1e-6) for channel in image])
    # A voxel at the body's border is partly outside.
    body = binary_erosion(body, border_value=1) | (labels > 0)
    lesions = np.asarray(labels > 0 if new is None else new, np.int16)
    rows = []
    for part in parts(lesions, schema, (1,), least=LEAST):
        lesion = part.whole() > 0
        window = bounding_box(lesion, margin=REACH + 2)
        usable = (body & ((labels <= 0) | lesion))[window]
        rows.append(_profile(image[(slice(None), *window)], lesion[window], usable, schema.spacing))
    return np.stack(rows) / scales[:, None] if rows else np.zeros((0, len(image), 2))


def _profile(
    image: FloatArray, lesion: Mask, usable: Mask, spacing: Sequence[float]
) -> npt.NDArray[np.float64]:
    """Gradient across a lesion's edge, and the steepest across its rim: (C, 2)."""
    from scipy.ndimage import distance_transform_edt

    away = distance_transform_edt(~lesion, sampling=spacing)
    # Shell 0 is the lesion. Other shells end half-way between voxels, so that none lies on one.
    ends = (np.arange(REACH + 1) + 0.5) * min(spacing)
    shell = np.where(lesion, 0, np.maximum(np.searchsorted(ends, away), 1))
    sums, counts = np.zeros((len(ends) + 1, len(image))), np.zeros(len(ends) + 1)
    for axis, mm in enumerate(spacing):
        before = (slice(None),) * axis
        here, there = (*before, slice(None, -1)), (*before, slice(1, None))
        across = (shell[here] != shell[there]) & usable[here] & usable[there]
        at = np.minimum(shell[here], shell[there])[across]
        counts += np.bincount(at, minlength=len(counts))
        steps = np.abs(np.diff(image, axis=axis + 1))[:, across] / mm
        for channel, values in enumerate(steps):
            sums[:, channel] += np.bincount(at, values, minlength=len(counts))
    enough = (counts >= FACES)[:, None]
    means = np.where(enough, sums / np.maximum(counts, 1)[:, None], np.nan)
    rim = means[1 : REACH + 1]
    finite = np.isfinite(rim).any(axis=0)
    steepest = np.where(finite, np.nanmax(np.where(finite, rim, 0.0), axis=0), np.nan)
    return np.stack([means[0], steepest], axis=1)


def _nothing(schema: Schema) -> Numbers:
    return np.zeros((0, len(schema.channels), len(PLACES)))


def _mean(values: Numbers) -> float:
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if finite.size else float("nan")


def _median(values: Numbers) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")
