"""Reading of whole NIfTI files, bounded and to the last byte of their checksum."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault
from gansynth.runtime.volumes import COPY_AGAIN, LEAST_MM, MOST_MM, VolumeHeader, reading

_IGZIP: tuple[type[gzip.GzipFile], Any] | None = None
"""ISA-L's gzip reader and its error, if the extra ``fast`` is installed."""
with contextlib.suppress(ImportError):
    from isal import igzip, isal_zlib

    _IGZIP = igzip.IGzipFile, isal_zlib.IsalError

COUNTED_BYTES = 64 << 20
COUNTED_RATIO = 20  # above both, a stream is counted to its end before memory is allocated for it
TRAILING_BYTES = 1 << 20  # bytes after the voxels that are tolerated
SHEAR = 0.01  # largest cosine between axes that count as perpendicular
SIZE_TOLERANCE = 0.01
"""Share by which sform and pixdim may differ; headers are rounded."""
UNITS_MM = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}  # code of a header -> name, mm

_CHUNK = 1 << 20
NOT_PACKED = (
    "its name ends in .gz, but it is not compressed, expected a gzip file; read as it is, which "
    "nibabel refuses. Take .gz off its name, or compress it"
)
DICOM = (
    "DICOM, expected a folder for each series, named like its case; or convert each: dcm2niix -z y"
)


def holds_dicom(folder: Path) -> bool:
    """Return whether one of the first files in or below a folder is DICOM."""
    files = (Path(home, name) for home, _, names in os.walk(folder) for name in names)
    return any(map(_is_dicom, itertools.islice(files, 20)))


def is_series(folder: Path) -> bool:
    """Return whether the first file in a folder itself is DICOM."""
    with contextlib.suppress(OSError), os.scandir(folder) as there:
        files = (item.path for item in there if item.name != "DICOMDIR" and item.is_file())
        return any(map(_is_dicom, itertools.islice(files, 1)))
    return False


def _is_dicom(path: str | Path) -> bool:
    with contextlib.suppress(OSError):
        if os.path.isfile(path):
            with open(path, "rb") as stream:
                return stream.read(132)[128:] == b"DICM"
    return False


def nifti_header(path: Path, *, single: bool = True) -> VolumeHeader:
    """Read the header of a NIfTI file, compressed or not, whatever its name says.

    Args:
        path: the file.
        single: whether it has to hold the voxels, too.
    """
    with _opened(path, gzip.GzipFile) as (stream, _):
        header, _, _ = _read_layout(path, stream, single=single)
    return header


def named_as_packed(path: Path) -> bool:
    """Whether a file is NIfTI by its name, which says truly whether it is compressed.

    Other programs (nibabel, nnU-Net, DeepMedic) go by the name.
    """
    name = path.name.lower()
    with contextlib.suppress(OSError):
        if name.endswith((".nii", ".nii.gz")):
            with open(path, "rb") as stream:
                return (stream.read(2) == b"\x1f\x8b") == name.endswith(".gz")
    return False


def nifti_voxels(path: Path) -> npt.NDArray[Any]:
    """Read the voxels of a NIfTI file as stored, and the file to the last byte of its checksum."""
    if _IGZIP is not None:
        fast, error = _IGZIP
        # A file refused here is read again by zlib, whose messages are the same everywhere.
        with contextlib.suppress(DataFault, error):
            return _read(path, fast)
    return _read(path, gzip.GzipFile)


def _read(path: Path, gunzip: type[gzip.GzipFile]) -> npt.NDArray[Any]:
    with _opened(path, gunzip) as (stream, packed):
        header, offset, done = _read_layout(path, stream)
        _refuse_other_size(path, header, offset, packed)
        if packed and header.nbytes > max(COUNTED_BYTES, COUNTED_RATIO * path.stat().st_size):
            with _opened(path, gunzip) as (again, _):
                _read_to_end(path, again, header, offset + header.nbytes + TRAILING_BYTES)
        while done < offset:
            chunk = stream.read(min(offset - done, _CHUNK))
            if not chunk:
                raise DataFault(
                    "nifti.ends-before-voxels",
                    f"{path}: ends before its voxels begin; {COPY_AGAIN}",
                )
            done += len(chunk)
        array = np.empty(header.shape, header.dtype, order="F")
        view, done = array.reshape(-1, order="F").view(np.uint8).data, 0
        while count := stream.readinto(view[done : done + _CHUNK]):  # type: ignore[union-attr]
            done += count
        if done < len(view):
            raise DataFault(
                "nifti.voxels-truncated",
                f"{path}: truncated, {done} bytes of voxels of the {len(view)} its header "
                f"announces; {COPY_AGAIN}",
            )
        _read_to_end(path, stream, header, TRAILING_BYTES)
    return array


@contextlib.contextmanager
def _opened(
    path: Path, gunzip: type[gzip.GzipFile]
) -> Iterator[tuple[IO[bytes] | gzip.GzipFile, bool]]:
    """Return the decompressed bytes of a file, and whether the file is compressed."""
    with reading(path), open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed:
            yield raw, False
            return
        with gunzip(fileobj=raw, mode="rb") as stream:
            yield stream, True


def _read_to_end(
    path: Path, stream: IO[bytes] | gzip.GzipFile, header: VolumeHeader, most: int
) -> None:
    """Read what is left, where gzip compares its checksum; DataFault: more bytes than ``most``."""
    total = 0
    while chunk := stream.read(_CHUNK):
        total += len(chunk)
        if total > most:
            raise DataFault(
                "nifti.more-bytes-than-announced",
                f"{path}: holds more than the {header.nbytes} bytes its header announces; "
                f"{COPY_AGAIN}",
            )


def _read_layout(
    path: Path, stream: IO[bytes] | gzip.GzipFile, *, single: bool = True
) -> tuple[VolumeHeader, int, int]:
    """Read the header; return it, where the voxels begin, and how many bytes were consumed."""
    import nibabel as nib
    from nibabel.spatialimages import HeaderDataError

    block = stream.read(348)
    if block[128:132] == b"DICM":
        raise DataFault("nifti.dicom-file", f"{path}: {DICOM}")
    if len(block) < 348:
        raise DataFault(
            "nifti.header-too-short",
            f"{path}: only {len(block)} bytes, expected a NIfTI header of 348; {COPY_AGAIN}",
        )
    kind: Any = nib.Nifti1Header
    if 540 in (int.from_bytes(block[:4], "little"), int.from_bytes(block[:4], "big")):
        kind = nib.Nifti2Header
        block += stream.read(540 - 348)
    try:
        header = kind(block, check=False)
        to_mm = UNITS_MM.get(int(header["xyzt_units"]) & 7, ("", 1.0))[1]
        mm = np.array([[to_mm]] * 3 + [[1.0]])
        affine = qform = mm * np.asarray(header.get_best_affine(), np.float64)
        if header["qform_code"] > 0:
            with contextlib.suppress(HeaderDataError, ValueError):  # none that programs could take
                qform = mm * header.get_qform()
        spacing = _spacing(path, header["pixdim"], to_mm)
        notes = [*_notes(header, affine, spacing)]
        if path.suffix.lower() == ".gz" and not isinstance(stream, gzip.GzipFile):
            notes.append(NOT_PACKED)
        slope, inter = header.get_slope_inter()
        layout = VolumeHeader(
            tuple(map(int, header.get_data_shape())),
            np.dtype(header.get_data_dtype()),
            _as_large(affine, spacing),
            spacing,
            qform,
            tuple(notes),
            slope or 0.0,
            float(np.nan_to_num(header["scl_inter"]) if inter is None else inter),
        )
    except (HeaderDataError, ValueError, OverflowError, KeyError) as error:
        raise DataFault(
            "nifti.header-not-nifti", f"{path}: not a NIfTI header: {error}; {COPY_AGAIN}"
        ) from error
    if bytes(header["magic"].item())[:2] not in (b"n+", b"ni")[: 2 - single]:
        raise DataFault(
            "nifti.magic-not-single-file",
            f"{path}: NIfTI magic is {header['magic'].item()!r}, expected a single file (n+1 or "
            "n+2); of a pair, name the .hdr file",
        )
    return layout, int(header["vox_offset"]), len(block)


def _notes(
    header: Any, affine: npt.NDArray[np.float64], spacing: tuple[float, float, float]
) -> Iterator[str]:
    code = int(header["xyzt_units"]) & 7
    if code in UNITS_MM:
        yield (
            f"its units are {UNITS_MM[code][0]}, expected mm; read as voxels of "
            f"{_sizes(spacing, 'g')} mm. If its numbers are mm, correct xyzt_units"
        )
    if header["sform_code"] == 0 and header["qform_code"] == 0:
        yield (
            "its sform_code and qform_code are 0, so its orientation is not known, expected one "
            "above 0; read with x to the left, y to the front, z to the head, which other programs "
            "may not do. Write the affine"
        )
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    with np.errstate(all="ignore"):  # an affine that is not finite is refused
        axes = affine[:3, :3] / sizes
        cosine = float(np.abs(axes.T @ axes - np.eye(3)).max())
    if SHEAR < cosine <= 1:
        yield (
            f"its affine is sheared: two axes meet at {np.degrees(np.arccos(cosine)):.3g} degrees, "
            "expected 90; read as if they met at 90, and refused by ITK. Resample it"
        )
    elif _contradicts(sizes, spacing):
        yield (
            f"its voxels are {_sizes(sizes, '.3g')} mm by its sform and "
            f"{_sizes(spacing, '.3g')} mm by its pixdim, expected the same; read by pixdim, as ITK "
            "and so nnU-Net do. If the sform is right, correct pixdim"
        )


def _sizes(edges: Iterable[float], form: str) -> str:
    return " x ".join([f"{edge:{form}}" for edge in edges])


def _contradicts(sizes: npt.NDArray[np.float64], spacing: Sequence[float]) -> bool:
    """Whether an affine's voxel sizes differ from those that the header names."""
    with np.errstate(all="ignore"):
        deviation = np.abs(sizes / np.array(spacing) - 1)
    sensible = np.isfinite(sizes) & (sizes >= LEAST_MM) & (sizes <= MOST_MM)  # others are refused
    return bool(sensible.all() and deviation.max() > SIZE_TOLERANCE)


def _as_large(
    affine: npt.NDArray[np.float64], spacing: tuple[float, float, float]
) -> npt.NDArray[np.float64]:
    """Return an affine with the voxel sizes that the header names, where its own contradict."""
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    if not _contradicts(sizes, spacing):
        return affine
    scaled = affine.copy()
    scaled[:3, :3] *= np.array(spacing) / sizes
    return scaled


def _spacing(path: Path, pixdim: npt.NDArray[Any], to_mm: float) -> tuple[float, float, float]:
    x, y, z = [float(v) * to_mm for v in pixdim[1:4]]
    if not all(LEAST_MM <= v <= MOST_MM for v in (x, y, z)):
        raise DataFault(
            "nifti.voxel-sizes-out-of-range",
            f"{path}: pixdim is {(x, y, z)}, expected three voxel sizes of {LEAST_MM:g} to "
            f"{MOST_MM:g} mm; repair the header",
        )
    return x, y, z


def _refuse_other_size(path: Path, header: VolumeHeader, offset: int, packed: bool) -> None:
    """Refuse a file that cannot hold what its header announces."""
    size = path.stat().st_size
    if offset < 348:
        raise DataFault(
            "nifti.announced-layout-impossible",
            f"{path}: header announces voxels from byte {offset}, expected 348 or later; "
            f"{COPY_AGAIN}",
        )
    if not packed and offset + header.nbytes > size:
        raise DataFault(
            "nifti.shorter-than-announced",
            f"{path}: truncated at byte {size}, header announces {offset + header.nbytes}; "
            f"{COPY_AGAIN}",
        )
