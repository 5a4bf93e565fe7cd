"""What a trained segmenter makes of images: the features that enter the layer of its logits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from gansynth.adapter import Mask
from gansynth.last_layer import Mean, check_fit, mask_of, slices_of
from gansynth.schema import Case, FloatArray, Schema
from gansynth_segmenter.inference import FILE, Segmenter, load
from gansynth_segmenter.networks import last_features


def features(
    folder: Path,
    images: Sequence[FloatArray],
    schema: Schema,
    where: Sequence[Mask | None] | None,
    device: str,
) -> tuple[FloatArray, str]:
    """See ``Adapter.features``.

    Images are looked at as cases are that it predicts: through windows of the training's size, or
    as a whole.
    """
    from gansynth.integrity import read_json

    segmenter = load(folder, device)
    own = segmenter.schema
    check_fit(
        *(folder, images, schema),
        channels=len(own.channels),
        ndim=own.ndim,
        spacing=own.spacing,
    )
    rows = [
        _look(segmenter, image, mask_of(image, where, number))
        for number, image in enumerate(images)
    ]
    steps = read_json(folder / FILE)["steps"]
    return np.stack(rows), f"segmenter {segmenter.options.network} {folder.name} ({steps} steps)"


def _look(segmenter: Segmenter, image: FloatArray, chosen: Mask) -> FloatArray:
    """Features (K,) of one image."""
    if segmenter.schema.ndim == 2:
        parts, masks = slices_of(image, chosen)
    else:
        parts, masks = image[None], chosen[None]
    mean = Mean()
    for part, inside in zip(parts, masks, strict=True):
        found, seen = _of_one(segmenter, part, inside)
        mean.add(torch.from_numpy(found)[None], seen[None])
    return mean.value()


def _of_one(segmenter: Segmenter, image: FloatArray, chosen: Mask) -> tuple[FloatArray, Mask]:
    """Features (K, ...), and which of them count."""
    case = Case("image", "image", np.asarray(image, np.float32), chosen.astype(np.int16))
    if segmenter.space.grid == "resample":
        placed = segmenter.space.to_generator(case)
        assert placed.labels is not None, "labels were given"
        seen = last_features(segmenter.generator, segmenter.tensor(placed.image)[None])[0]
        return seen.cpu().numpy(), placed.labels > 0
    found = segmenter.by_windows(case, lambda part: last_features(segmenter.generator, part))
    return found, chosen
