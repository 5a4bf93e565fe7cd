"""A training case in the form of DeepMedic's files, and insertion of a synthetic sample.

DeepMedic's low-resolution path sees three to five times the patch. A patch without surroundings
would be a cue, so the real case surrounds it in its own units. This module needs numpy only.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import OUTSIDE, Sample
from gansynth.runtime.errors import DataFault
from gansynth.runtime.serialise import Document

if TYPE_CHECKING:
    from gansynth.bank.reader import BankSample

RIM = 4  # voxels over which a patch fades into the real case at each face inside the volume
_BESIDE = "beside"  # copy of `gansynth.sampling.sampler.BESIDE`, whose module needs more than numpy
MISSING = "-"  # entry of a list of files for a missing channel; DeepMedic fills it with zeros
T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True)
class HostCase(Document, strict=True):
    """One training case, and the orientation of its files to gansynth's arrays."""

    id: str  # of the case
    # absolute file of each channel; ``MISSING`` for a missing one
    channels: tuple[str, ...]
    labels: str  # file of the ground truth
    roi: str | None  # file of the region of interest; None where there is none
    shape: tuple[int, ...]  # (D, H, W) of gansynth's arrays
    # for each axis (x, y, z) of the files, the axis (x, y, z) of gansynth's arrays and the
    # direction, 1 or -1: nibabel's orientation. gansynth's arrays are z, y, x
    stored: tuple[tuple[int, int], ...]
    # (scale, offset) of each channel: the file's values are gansynth's times scale plus offset
    units: tuple[tuple[float, float], ...]

    def view(self, array: npt.NDArray[T]) -> npt.NDArray[T]:
        """Return an array in the files' axes (..., X, Y, Z) as a view in gansynth's (..., D, H, W).

        Writing into the view changes the array.
        """
        lead = array.ndim - 3
        place = {axis: number for number, (axis, _) in enumerate(self.stored)}
        turned = array.transpose(*range(lead), lead + place[2], lead + place[1], lead + place[0])
        steps = dict(self.stored)
        x, y, z = [slice(None, None, steps[axis]) for axis in range(3)]
        view: npt.NDArray[T] = turned[..., z, y, x]
        return view


@dataclass(frozen=True)
class LoadedCase:
    """One case for DeepMedic, in the files' axes and units."""

    image: npt.NDArray[np.float32]  # float32 (C, X, Y, Z)
    labels: npt.NDArray[np.int16]  # int16 (X, Y, Z)
    roi: npt.NDArray[np.int16] | None  # int16 (X, Y, Z), or None
    # bool (X, Y, Z), the allowed centres of segments: the wholly synthetic part of the patch within
    # the region of interest; None for everywhere
    core: npt.NDArray[np.bool_] | None
    case: str  # id of the real case, or of the one around a synthetic patch
    sample: str = ""  # id of the synthetic sample, ``sample`` if it has none; empty for a real case


class PatchPosition(NamedTuple):
    """The position of a sample."""

    case: str  # id of the training case around it
    # its first voxel (D, H, W) in that case, may be negative; None for a whole volume
    corner: tuple[int, ...] | None


def position_of(provenance: Mapping[str, Any]) -> PatchPosition | None:
    """Return the position of a sample from its provenance; None for slices and crops from noise.

    A whole volume from noise replaces the case whose shape it was given (``beside``).
    """
    cropped = "case" in provenance
    where = provenance if cropped else provenance.get(_BESIDE, {})
    case, placement = where.get("case"), where.get("placement")
    if not case or not placement or placement.get("slice_index") is not None:
        return None
    corner = tuple(map(int, placement.get("corner", ())))
    if not corner:
        return PatchPosition(str(case), None)
    return PatchPosition(str(case), corner) if cropped and len(corner) == 3 else None


def misfit(cases: Mapping[str, HostCase], sample: BankSample | Sample, rim: int = RIM) -> str:
    """Return why a sample cannot be inserted into one of the cases, or ""; files are not read."""
    seat, labels = position_of(sample.provenance), sample.labels
    shape = sample.image.shape[1:]
    if seat is None or seat.case not in cases:
        of = "no case" if seat is None else f"the case {seat.case!r}"
        return f"it is of {of}, expected one of the training cases"
    case = cases[seat.case]
    if labels is None or len(shape) != 3 or labels.shape != shape:
        return f"its image has shape {shape}, expected 3 axes and labels of that shape"
    drawn_of = tuple(sample.provenance.get("shape", case.shape))
    if drawn_of != case.shape or (seat.corner is None and shape != case.shape):
        actual = shape if drawn_of == case.shape else drawn_of
        return f"it is of a volume of shape {actual}, case {case.id!r} has {case.shape}"
    cut = _cut(seat, shape, case.shape, rim)
    if not cut.weight.size:
        return f"its place {seat.corner} is beyond case {case.id!r} of shape {case.shape}"
    if not ((cut.weight == 1) & (labels[cut.part] != OUTSIDE)).any():
        return "nothing of it lies in the region of interest"
    return ""


def insert(
    case: HostCase, real: LoadedCase, sample: BankSample | Sample, rim: int = RIM
) -> LoadedCase:
    """Insert a sample that fits (``misfit``) into a case (DataFault: its files have changed).

    A patch fades into the real image over ``rim`` voxels at each face that is not the volume's
    own, but at least half of each axis does not fade, and a whole volume not at all. All stays real
    outside the region of interest, where the sample's labels are outside, and in missing channels.
    Labels are the sample's where its weight is at least 0.5.
    """
    seat, labels = position_of(sample.provenance), sample.labels
    assert seat is not None, "see misfit"
    assert labels is not None, "see misfit"
    lain = case.view(real.labels).shape
    if lain != case.shape or real.image.shape != (len(case.channels), *real.labels.shape):
        raise DataFault(
            "deepmedic.case-files-changed",
            f"{case.labels}: case {case.id!r} has labels of shape {lain} and an image of "
            f"{real.image.shape}, expected {len(case.channels)} channel(s) of {case.shape} as at "
            "the start. Its files have changed; start over",
        )
    cut = _cut(seat, sample.image.shape[1:], case.shape, rim)
    inside = labels[cut.part] != OUTSIDE
    if real.roi is not None:
        inside &= case.view(real.roi)[cut.box] > 0
    core = None
    if seat.corner is not None:
        core = np.zeros(real.labels.shape, np.bool_)
        case.view(core)[cut.box] = inside & (cut.weight == 1)
        if not core.any():
            raise DataFault(
                "deepmedic.region-missing",
                f"{case.roi}: no region of interest where a sample of case {case.id!r} has some, "
                "expected the region that the generator was fitted with; restore it, or fit again",
            )
    image, target = real.image.copy(), real.labels.copy()
    for channel, (file, (scale, offset)) in enumerate(zip(case.channels, case.units, strict=True)):
        if file != MISSING and scale != 0:
            drawn = sample.image[channel][cut.part].astype(np.float32)
            drawn *= np.float32(scale)
            drawn += np.float32(offset)
            around = case.view(image[channel])[cut.box]
            if cut.weight.size > 1:
                drawn *= cut.weight
                drawn += (1 - cut.weight) * around
            np.copyto(around, drawn, where=inside)
    np.copyto(case.view(target)[cut.box], labels[cut.part], where=inside & (cut.weight >= 0.5))
    return LoadedCase(image, target, real.roi, core, case.id, getattr(sample, "id", ""))


class _PatchOverlap(NamedTuple):
    """The part of a patch inside the volume."""

    box: tuple[slice, ...]  # of the volume
    part: tuple[slice, ...]  # of the patch
    # of the sample, (d, h, w); (1, 1, 1) without fading, empty for a patch beyond the volume
    weight: npt.NDArray[np.float32]


def _cut(seat: PatchPosition, size: Sequence[int], shape: Sequence[int], rim: int) -> _PatchOverlap:
    if seat.corner is None:
        everything = tuple([slice(0, n) for n in shape])
        return _PatchOverlap(everything, everything, np.ones((1, 1, 1), np.float32))
    box, part, weight = [], [], np.ones((1, 1, 1), np.float32)
    for axis, (corner, length, extent) in enumerate(zip(seat.corner, size, shape, strict=True)):
        first, last = max(corner, 0), max(min(corner + length, extent), 0)
        box.append(slice(first, last))
        part.append(slice(first - corner, last - corner))
        ramp = _ramp(max(last - first, 0), corner > 0, corner + length < extent, rim)
        weight = np.minimum(weight, ramp.reshape([-1 if n == axis else 1 for n in range(3)]))
    return _PatchOverlap(tuple(box), tuple(part), weight)


def _ramp(length: int, before: bool, after: bool, rim: int) -> npt.NDArray[np.float32]:
    weight = np.ones(length, np.float32)
    rim = min(rim, length // 2 // max(1, before + after))
    fading = np.arange(1, rim + 1, dtype=np.float32) / np.float32(rim + 1)
    if before:
        weight[:rim] = fading
    if after:
        weight[length - rim :] = fading[::-1]
    return weight
