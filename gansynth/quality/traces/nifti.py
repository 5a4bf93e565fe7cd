"""NIfTI headers: texts, times, extensions, and where in the scanner the volume lay."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.quality.traces.look import Look
from gansynth.synthetic import MARK

TEXTS = ("descrip", "aux_file", "db_name", "intent_name", "data_type")
"""Fields for anything that a program cares to write."""
NUMBERS = (
    *("cal_min", "cal_max", "toffset"),
    *("slice_duration", "slice_start", "slice_end", "slice_code"),
)
"""Fields that tell of a scan: its range of intensities, its timing."""
TRAILING = 16
"""Zero bytes after the voxels that are padding."""
_ORIGIN, _TURN = b"origin", b"orientation"
_CODES = {2: "DICOM", 4: "AFNI", 6: "comment", 10: "XCEDE", 44: "MRS"}


def is_nifti(data: bytes, name: str) -> bool:
    """Whether it is a NIfTI file, or the header of a pair."""
    if data[344:347] in (b"n+1", b"ni1"):
        return 348 in _first(data)
    return data[4:7] in (b"n+2", b"ni2") and 540 in _first(data)


def read_nifti(data: bytes, look: Look) -> None:
    """Look through a header, what follows it, and note the voxels.

    Raises:
        ValueError: it is damaged.
    """
    header = header_of(data)
    for field in TEXTS:
        if field in header:
            said = header[field].item().rstrip(b"\0").decode("latin-1")
            if said.strip() and said != MARK:
                look.text(
                    f"NIfTI header, {field}", said, key=field, odd=f"holds {said!r}, expected none"
                )
    for field in NUMBERS:
        value = float(header[field].item())
        if value != 0:
            look.odd(f"NIfTI header, {field}", f"is {value:g}, expected 0")
    for bits in frames(header):
        look.frame("NIfTI header", bits)
    _extensions(data, header, look)
    array = _voxels(data, header, look)
    if array is not None:
        look.picture("voxels", array)
        for number in range(array.shape[-1] if array.ndim == 4 else 0):
            look.picture(f"voxels of channel {number}", array[..., number])


def header_of(data: bytes) -> Any:
    """The header of a NIfTI file.

    Raises:
        ValueError: too short, or none.
    """
    import nibabel as nib
    from nibabel.spatialimages import HeaderDataError

    kind: Any = nib.Nifti2Header if 540 in _first(data) else nib.Nifti1Header
    length = 540 if kind is nib.Nifti2Header else 348
    try:
        return kind(data[:length], check=False)
    except HeaderDataError as error:
        raise ValueError(str(error)) from error


def frames(header: Any) -> set[bytes]:
    """Where a volume lies in its scanner, to the bit: origins and orientations of its header.

    An origin of zeros, and axes that run along the scanner's whatever their direction and spacing,
    are of no scan in particular: they are left out.
    """
    found = set()
    if int(header["qform_code"]) > 0:
        found.add(_bits(_ORIGIN, [header[f"qoffset_{axis}"] for axis in "xyz"]))
        turn = [float(header[f"quatern_{axis}"]) for axis in "bcd"]
        if not set(map(abs, turn)) <= {0.0, 1.0} or sum(t != 0 for t in turn) > 1:
            found.add(_bits(_TURN, turn))
    if int(header["sform_code"]) > 0:
        rows = np.array([header[f"srow_{axis}"] for axis in "xyz"], np.float64)
        found.add(_bits(_ORIGIN, rows[:, 3]))
        if (np.count_nonzero(rows[:, :3], axis=0) > 1).any():
            found.add(_bits(_TURN, rows[:, :3]))
    return found - {_bits(_ORIGIN, (0, 0, 0))}


def frame_name(bits: bytes) -> str:
    """``origin`` or ``orientation``."""
    return bits.split(b"\0", 1)[0].decode()


def _bits(kind: bytes, numbers: Any) -> bytes:
    # float32, as NIfTI-1 has it: the same scan is the same in NIfTI-2. -0 becomes 0.
    return kind + b"\0" + (np.asarray(numbers, np.float32) + np.float32(0)).tobytes()


def _first(data: bytes) -> tuple[int, int]:
    if len(data) < 348:
        return 0, 0
    return struct.unpack("<i", data[:4])[0], struct.unpack(">i", data[:4])[0]


def _extensions(data: bytes, header: Any, look: Look) -> None:
    """What lies between header and voxels, or after the header of a pair."""
    begin = int(header["sizeof_hdr"])
    end = int(header["vox_offset"]) if header["magic"].item()[1:2] == b"+" else len(data)
    rest = data[begin:end]
    if not rest.strip(b"\0"):
        return
    order = "<" if header.endianness == "<" else ">"
    kinds = []
    at = 4
    while at + 8 <= len(rest):
        size, code = struct.unpack(f"{order}ii", rest[at : at + 8])
        if size < 8:
            break
        kinds.append(_CODES.get(code, f"code {code}"))
        at += size
    said = f"has {', '.join(kinds) or 'something'} of {len(rest)} bytes, expected none"
    look.text("NIfTI header extension", rest.decode("latin-1"), odd=said)


def _voxels(data: bytes, header: Any, look: Look) -> npt.NDArray[Any] | None:
    """The scaled voxels, None for the header of a pair; what follows them is noted."""
    if header["magic"].item()[1:2] != b"+":
        return None
    shape, dtype = header.get_data_shape(), header.get_data_dtype()
    begin = int(header["vox_offset"])
    count = int(np.prod(shape, dtype=object))
    end = begin + count * dtype.itemsize
    if len(data) < end:
        raise ValueError(f"ends at byte {len(data)}, its header announces {end}")
    rest = data[end:]
    if len(rest) > TRAILING or rest.strip(b"\0"):
        look.text(
            "after the voxels", rest.decode("latin-1"), odd=f"{len(rest)} bytes, expected none"
        )
    array = np.frombuffer(data, dtype, count, begin).reshape(shape, order="F")
    if dtype.kind not in "iuf":
        return None
    slope, inter = header.get_slope_inter()
    if (slope, inter) in ((None, None), (1.0, 0.0)):
        return array
    return np.asarray(array * np.float32(slope) + np.float32(inter or 0), np.float32)
