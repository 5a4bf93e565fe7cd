"""How much room a sample takes in a bank that a DeepMedic training draws from."""

from __future__ import annotations

from collections.abc import Mapping
from math import prod
from typing import Any, Literal

from gansynth.core.space import Space
from gansynth_deepmedic.source import DeepMedicSource

SAYS = 4096
"""Bytes for what a sample says of itself."""


def sample_bytes(manifest: Mapping[str, Any], source: DeepMedicSource) -> int:
    """Bytes one sample of a run takes: image and labels (int16), of a crop or of a whole case.

    Args:
        manifest: of the run.
        source: the training cases; a whole volume is of the shape of one of them.
    """
    space = Space.from_json(manifest["space"])
    voxels = max(prod(space.host_shape(source.shape(case))) for case in source.train_ids)
    each = 4 if stored(source) == "float32" else 2
    return voxels * (each * len(manifest["schema"]["channels"]) + 2) + SAYS


def stored(source: DeepMedicSource) -> Literal["float16", "float32"]:
    """How images are stored: in half precision, unless DeepMedic itself normalises raw values."""
    return "float32" if source.config.normalise else "float16"
