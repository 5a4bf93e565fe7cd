"""Reading of whole NIfTI files, bounded and to the last byte of their checksum."""

from __future__ import annotations

import contextlib
import gzip
import itertools
import os
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault, EnvironmentFault, refuse_closed

_IGZIP: tuple[type[gzip.GzipFile], Any] | None = None
"""ISA-L's gzip reader and its error, if the extra ``fast`` is installed."""
with contextlib.suppress(ImportError):
    from isal import igzip, isal_zlib

    _IGZIP = igzip.IGzipFile, isal_zlib.IsalError

MAX_VOLUME_BYTES = 4 << 30
LEAST_MM, MOST_MM = 1e-4, 1e4  # bounds of a voxel's edges; beyond them a header is damaged
BOMB_BYTES = 512 << 20
"""Below this size any compression ratio is accepted: an almost empty label map reaches 900:1."""
BOMB_RATIO = 200
COUNTED_BYTES = 64 << 20
COUNTED_RATIO = 20  # above both, a stream is counted to its end before memory is allocated for it
TRAILING_BYTES = 1 << 20  # bytes after the voxels that are tolerated
SHEAR = 0.01  # largest cosine between axes that count as perpendicular
SIZE_TOLERANCE = 0.01
"""Share by which sform and pixdim may differ; headers are rounded."""
UNITS_MM = {1: ("metres", 1e3), 3: ("micrometres", 1e-3)}  # code of a header -> name, mm

_CHUNK = 1 << 20
DICOM = "DICOM, which is not read; convert each series with dcm2niix -z y"
COPY_AGAIN = "copy it from its source again, or leave the case out"


def holds_dicom(folder: Path) -> bool:
    """Return whether one of the first files of a folder is DICOM."""
    files = (Path(home, name) for home, _, names in os.walk(folder) for name in names)
    for path in itertools.islice(files, 20):
        with contextlib.suppress(OSError):
            if path.is_file():
                with open(path, "rb") as stream:
                    if stream.read(132)[128:] == b"DICM":
                        return True
    return False


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Convert the errors of a reader of a file into one-line faults."""
    try:
        if path.exists() and not (path.is_file() or path.is_dir()):  # which may never end
            raise DataFault(
                "nifti.pipe-or-device", f"{path}: a pipe or a device, expected a file; {COPY_AGAIN}"
            )
        yield
    except FileNotFoundError as error:
        raise DataFault("nifti.file-missing", f"{path}: no such file; {COPY_AGAIN}") from error
    except IsADirectoryError as error:
        raise DataFault("nifti.folder-not-file", f"{path}: a folder, expected a file") from error
    except EOFError as error:
        raise DataFault(
            "nifti.gzip-truncated",
            f"{path}: truncated at byte {path.stat().st_size}, its gzip stream has no end; "
            f"{COPY_AGAIN}",
        ) from error
    except (gzip.BadGzipFile, zlib.error) as error:
        raise DataFault(
            "nifti.gzip-damaged", f"{path}: damaged, its gzip stream says {error}; {COPY_AGAIN}"
        ) from error
    except MemoryError as error:
        raise EnvironmentFault(
            "nifti.not-enough-memory", f"{path}: not enough memory to read it; free some"
        ) from error
    except OSError as error:
        refuse_closed(path)
        raise EnvironmentFault(
            "nifti.cannot-be-read", f"{path}: cannot be read: {error.strerror or error}"
        ) from error


class NiftiVolume(NamedTuple):
    """Content of a NIfTI file."""

    # voxels in the file's own axis order (x, y, z) or (x, y, z, channel), native byte order. Float
    # if the header scales, else as stored.
    array: npt.NDArray[Any]
    affine: npt.NDArray[np.float64]  # float64 (4, 4), voxel to mm
    spacing: tuple[float, float, float]  # voxel size in mm along x, y, z
    # float64 (4, 4), the affine by the qform, which other programs take; else `affine`
    qform: npt.NDArray[np.float64]
    notes: tuple[str, ...]  # what the header leaves open, and how it was read


class NiftiHeader(NamedTuple):
    """Header of a NIfTI file; see ``NiftiVolume`` for ``affine`` to ``notes``."""

    shape: tuple[int, ...]  # in the file's own axis order (x, y, z) or (x, y, z, channel)
    dtype: np.dtype[Any]  # of the voxels as stored
    offset: int  # of the voxels, in bytes
    slope: float  # 0 where the header does not scale; other programs may still add `inter`
    inter: float
    affine: npt.NDArray[np.float64]
    spacing: tuple[float, float, float]
    qform: npt.NDArray[np.float64]
    notes: tuple[str, ...]

    @property
    def scaled(self) -> bool:
        """Whether the header scales the voxels, which makes them floats."""
        return self.slope != 0 and (self.slope, self.inter) != (1, 0)

    @property
    def nbytes(self) -> int:
        """Bytes of the voxels as stored."""
        return int(np.prod(self.shape, dtype=object)) * self.dtype.itemsize


def read_nifti(
    path: str | Path,
    *,
    max_bytes: int = MAX_VOLUME_BYTES,
    ndim: Collection[int] = (3,),
    finite: bool = True,
    labels: bool = False,
) -> NiftiVolume:
    """Read a ``.nii`` or ``.nii.gz`` file whole, to the last byte of its checksum.

    Args:
        path: the file.
        max_bytes: refuse a header that announces more voxels than this, before allocating.
        ndim: accepted numbers of axes.
        finite: refuse NaN and infinite voxels.
        labels: refuse a header that scales: a label map holds its labels as they are.

    Raises:
        DataFault: names file, value, expectation and hint.
        EnvironmentFault: the file may not be read.
    """
    path = Path(path)
    if _IGZIP is not None:
        fast, error = _IGZIP
        # A file refused here is read again by zlib, whose messages are the same everywhere.
        with contextlib.suppress(DataFault, error):
            return _read(path, fast, max_bytes, ndim, finite, labels)
    return _read(path, gzip.GzipFile, max_bytes, ndim, finite, labels)


def read_nifti_header(
    path: str | Path, *, max_bytes: int = MAX_VOLUME_BYTES, ndim: Collection[int] = (3, 4)
) -> NiftiHeader:
    """Read the header of a ``.nii`` or ``.nii.gz`` file; refuse headers as ``read_nifti`` does."""
    path = Path(path)
    with _opened(path, gzip.GzipFile) as (stream, packed):
        header, _ = _read_layout(path, stream)
        _refuse_absurd(path, header, max_bytes, ndim, packed)
    return header


def _read(
    path: Path,
    gunzip: type[gzip.GzipFile],
    max_bytes: int,
    ndim: Collection[int],
    finite: bool,
    labels: bool,
) -> NiftiVolume:
    with _opened(path, gunzip) as (stream, packed):
        header, done = _read_layout(path, stream)
        _refuse_absurd(path, header, max_bytes, ndim, packed)
        if labels and (header.inter != 0 or header.slope not in (0, 1)):
            raise DataFault(
                "nifti.labels-rescaled",
                f"{path}: scl_slope is {header.slope:g} and scl_inter {header.inter:g}, which "
                "change every label, expected 1 and 0; store the labels themselves",
            )
        if packed and header.nbytes > max(COUNTED_BYTES, COUNTED_RATIO * path.stat().st_size):
            with _opened(path, gunzip) as (again, _):
                _read_to_end(path, again, header, header.offset + header.nbytes + TRAILING_BYTES)
        while done < header.offset:
            chunk = stream.read(min(header.offset - done, _CHUNK))
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
    return _scaled(path, header, array, finite)


@contextlib.contextmanager
def _opened(
    path: Path, gunzip: type[gzip.GzipFile]
) -> Iterator[tuple[IO[bytes] | gzip.GzipFile, bool]]:
    """Return the decompressed bytes of a file, and whether the file is compressed."""
    with reading(path), open(path, "rb") as raw:
        packed = raw.read(2) == b"\x1f\x8b"
        raw.seek(0)
        if not packed and path.suffix == ".gz":
            raise DataFault(
                "nifti.not-gzip", f"{path}: not a gzip file, expected one by its name; {COPY_AGAIN}"
            )
        if not packed:
            yield raw, False
            return
        with gunzip(fileobj=raw, mode="rb") as stream:
            yield stream, True


def _read_to_end(
    path: Path, stream: IO[bytes] | gzip.GzipFile, header: NiftiHeader, most: int
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


def _read_layout(path: Path, stream: IO[bytes] | gzip.GzipFile) -> tuple[NiftiHeader, int]:
    """Read the header; return the layout and how many bytes were consumed."""
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
        notes = tuple(_notes(header, affine, spacing))
        affine = _as_large(affine, spacing)
        slope, inter = header.get_slope_inter()
        layout = NiftiHeader(
            _without_last_ones(header.get_data_shape()),
            np.dtype(header.get_data_dtype()),
            int(header["vox_offset"]),
            slope or 0.0,
            float(np.nan_to_num(header["scl_inter"]) if inter is None else inter),
            affine,
            spacing,
            qform,
            notes,
        )
    except (HeaderDataError, ValueError, OverflowError, KeyError) as error:
        raise DataFault(
            "nifti.header-not-nifti", f"{path}: not a NIfTI header: {error}; {COPY_AGAIN}"
        ) from error
    if bytes(header["magic"].item())[:2] not in (b"n+",):
        raise DataFault(
            "nifti.magic-not-single-file",
            f"{path}: NIfTI magic is {header['magic'].item()!r}, expected a single file (n+1 or "
            "n+2); convert .hdr/.img pairs to .nii.gz",
        )
    return layout, len(block)


def _without_last_ones(shape: Sequence[int]) -> tuple[int, ...]:
    """Return a shape of at least three axes without further ones of length 1, which say nothing."""
    kept = list(map(int, shape))
    while len(kept) > 3 and kept[-1] == 1:
        kept.pop()
    return tuple(kept)


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


def _refuse_absurd(
    path: Path, layout: NiftiHeader, max_bytes: int, ndim: Collection[int], packed: bool
) -> None:
    size = path.stat().st_size
    if len(layout.shape) not in ndim:
        expected = " or ".join([f"{n}D" for n in sorted(ndim)])
        raise DataFault(
            "nifti.image-axes-differ",
            f"{path}: image is {len(layout.shape)}D of shape {layout.shape}, expected {expected}; "
            "write one file per channel, with three axes",
        )
    affine = layout.affine
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    axes = affine[:3, :3] / np.maximum(sizes, 1e-30)
    if not np.isfinite(affine).all() or abs(np.linalg.det(axes)) < 1e-6:
        raise DataFault(
            "nifti.affine-singular-or-not-finite",
            f"{path}: affine {affine.round(6).tolist()} is singular or not finite; repair the "
            "header",
        )
    if not ((sizes >= LEAST_MM) & (sizes <= MOST_MM)).all():
        raise DataFault(
            "nifti.affine-voxels-out-of-range",
            f"{path}: voxels of {sizes.tolist()} mm by its affine, expected {LEAST_MM:g} to "
            f"{MOST_MM:g}; repair the header",
        )
    if layout.dtype.kind not in "iufb":
        raise DataFault(
            "nifti.voxels-not-numbers",
            f"{path}: voxels are of type {layout.dtype}, expected numbers; convert colour or "
            "complex images to one file per channel",
        )
    if not layout.shape or min(layout.shape) < 1 or layout.offset < 348:
        raise DataFault(
            "nifti.announced-layout-impossible",
            f"{path}: header announces shape {layout.shape} from byte {layout.offset}; "
            f"{COPY_AGAIN}",
        )
    if layout.nbytes > max_bytes:
        raise DataFault(
            "nifti.announced-voxels-too-large",
            f"{path}: header announces {layout.nbytes} bytes of voxels, expected at most "
            f"{max_bytes}; {COPY_AGAIN}",
        )
    if not packed and layout.offset + layout.nbytes > size:
        raise DataFault(
            "nifti.shorter-than-announced",
            f"{path}: truncated at byte {size}, header announces {layout.offset + layout.nbytes}; "
            f"{COPY_AGAIN}",
        )
    if packed and layout.nbytes > max(BOMB_BYTES, BOMB_RATIO * size):
        raise DataFault(
            "nifti.decompression-bomb",
            f"{path}: {size} bytes announce {layout.nbytes}, expected at most {BOMB_RATIO} times "
            f"as much: a decompression bomb? {COPY_AGAIN}",
        )


def _scaled(path: Path, layout: NiftiHeader, array: npt.NDArray[Any], finite: bool) -> NiftiVolume:
    array = array.astype(layout.dtype.newbyteorder("="), copy=False)
    if layout.scaled:
        wide = np.result_type(array.dtype, np.float32)
        array = array.astype(wide) * wide.type(layout.slope) + wide.type(layout.inter)
    if finite and array.dtype.kind == "f" and not np.isfinite(array).all():
        nan, inf = int(np.isnan(array).sum()), int(np.isinf(array).sum())
        raise DataFault(
            "nifti.voxels-not-finite",
            f"{path}: {nan} NaN and {inf} infinite voxel(s), expected finite values; replace them, "
            "or leave the case out",
        )
    return NiftiVolume(array, layout.affine, layout.spacing, layout.qform, layout.notes)
