"""A synthetic sample in the surroundings of the real case it was conditioned on.

DeepMedic's low-resolution path sees three to five times the patch, so a patch alone would be a cue:
all around it has to be the real case, in the real case's own units. Needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth_deepmedic.files import HostCase

if TYPE_CHECKING:
    from gansynth.bank import BankSample
    from gansynth.schema import Sample

RIM = 4
"""Voxels over which a patch fades into the real case, at each face inside of the volume."""
OUTSIDE = -1
"""Label of voxels outside of the region of interest (``gansynth.schema.OUTSIDE``)."""


@dataclass(frozen=True)
class Loaded:
    """One case as DeepMedic is to see it, in the files' axes and units.

    Attributes:
        image: float32 (C, X, Y, Z).
        labels: int16 (X, Y, Z).
        roi: int16 (X, Y, Z), or None.
        core: bool (X, Y, Z), where segments may be centred: where the patch is wholly synthetic,
            within the region of interest; None for everywhere (whole volumes, real cases).
        case: id of the real case, or of the one around a synthetic patch.
        sample: id of the synthetic sample; empty for a real case.
    """

    image: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int16]
    roi: npt.NDArray[np.int16] | None
    core: npt.NDArray[np.bool_] | None
    case: str
    sample: str = ""


@dataclass(frozen=True)
class Seat:
    """Where a sample belongs.

    Attributes:
        case: id of the training case around it.
        corner: its first voxel (D, H, W) in that case, may be negative; None for a whole volume.
    """

    case: str
    corner: tuple[int, int, int] | None


def seat_of(provenance: Mapping[str, Any]) -> Seat | None:
    """Where a sample of this provenance belongs; None if it says nothing of a case."""
    raise NotImplementedError


def insert(case: HostCase, real: Loaded, sample: BankSample | Sample, rim: int = RIM) -> Loaded:
    """A case with a sample in it.

    The image is the sample's within the patch, fades into the real one over ``rim`` voxels at each
    face that is not the volume's own, and is the real one everywhere else, outside of the region of
    interest, and in channels that the case lacks. Labels are the sample's where its weight is at
    least a half.

    Args:
        case: how the files lie.
        real: the case as its files have it; stays as it is.
        sample: image (C, D, H, W) and labels (D, H, W) in gansynth's axes and units, with its
            provenance.
        rim: voxels.

    Raises:
        DataFault: shape, channels or place do not fit the case, or it has no labels.
    """
    raise NotImplementedError
