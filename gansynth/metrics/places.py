"""``places``: where lesions of samples lie in the body, beside real subjects'.

A paste may lie on the skull, or across the midline, where no lesion grows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from gansynth.core.body_mask import shown_body
from gansynth.core.schema import FloatArray, LabelArray, Schema
from gansynth.data.connected_components import large_parts
from gansynth.imaging.body_box import BodyBox, across_middle, depths
from gansynth.metrics.comparison import Comparison, Floats, Image, Metric, Quantity

ASIDE = 0.2  # least share of a lesion on its lesser side of the middle that makes it astride
SHALLOW, ASTRIDE = "shallowest voxel", "astride the middle"
"""Names of figures; the second is followed by the axis."""
QUANTILE = 0.02  # of a lesion's depths: one voxel of a rough outline says little


class LesionPlaces(Metric):
    """Depth below the body's surface, and the share of lesions astride the middle of an axis.

    The body is ``organ_mask``'s, and the middle that of the box around it. Of a crop, both are
    those of what it shows, for samples and real cases alike.
    """

    name = "places"
    title = "Places of lesions"
    needs = frozenset({"labels"})
    least = 8

    def prepare(self, images: Sequence[Image], comparison: Comparison) -> Floats:
        """Means over the lesions of each image: (N, 1 + axes); NaN where there is none."""
        schema = comparison.schema
        rows = np.full((len(images), 1 + schema.ndim), np.nan)
        for row, image in zip(rows, images, strict=True):
            if image.labels is not None:
                row[:] = _places(image.image, image.labels, schema)
        return rows

    def compute(self, samples: Floats, real: Floats, schema: Schema) -> Mapping[str, float]:
        """Means over images with a lesion; the real ones are beside them in ``Estimate.real``."""
        names = [SHALLOW, *[f"{ASTRIDE} of axis {axis}" for axis in schema.axes]]
        shown = samples[np.isfinite(samples).all(axis=1)]
        if not len(shown):
            return dict.fromkeys(names, float("nan"))
        return dict(zip(names, shown.mean(axis=0).tolist(), strict=True))

    def quantity(self, name: str) -> Quantity:
        if name == SHALLOW:
            what = f"depth of lesions' shallowest {100 * QUANTILE:.0f} % below the body's surface"
            return Quantity(f"{what}, in lengths of the body", "real", 0.0)
        what = f"share of lesions of which a {1 / ASIDE:.0f}th or more lies on either side"
        return Quantity(f"{what} of the body's middle", "real", 0.0, 1.0)


def _places(image: FloatArray, labels: LabelArray, schema: Schema) -> Floats:
    """Return the means over an image's lesions (1 + axes,), NaN without any."""
    lesions = large_parts(labels, schema, schema.foreground)
    if not lesions:
        return np.full(1 + labels.ndim, np.nan)
    body = np.pad(shown_body(image, labels), 1)  # here the array's border is an outline
    frame = BodyBox.of(body)
    depth = depths(body, frame)[(slice(1, -1),) * labels.ndim]
    rows = []
    for lesion in lesions:
        shallowest = np.quantile(depth[lesion.box][lesion.mask], QUANTILE)
        astride = across_middle(frame.relative(lesion.positions + 1)) >= ASIDE
        rows.append([shallowest, *astride])
    return np.asarray(np.mean(rows, axis=0), np.float64)
