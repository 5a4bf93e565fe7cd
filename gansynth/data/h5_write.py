"""Writing the HDF5 file behind ``h5:FILE``: case by case, published whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from gansynth.core.foreground import PlaneIndex
from gansynth.core.lineage import CaseRecord
from gansynth.core.schema import Case, Schema, content_hash
from gansynth.core.source import CaseSource
from gansynth.data.h5_format import (
    FORMAT,
    LIBVER,
    CacheIndex,
    CaseEntry,
    group,
    pack_planes,
    read_index,
)
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import (
    disk_errors,
    publish_file,
    remove_dead,
    reserve,
    temporary_beside,
)

Dtype = Literal["float32", "float16"]
Compression = Literal["none", "lzf", "gzip"]
CHUNK = 24
"""Edge in voxels of a chunk of a volume; a chunk holds all channels. Patches of 64³ read fastest
from chunks of 24 to 32 (benchmarks/bench_reads.py)."""
FLAT = 8  # chunks of 2D cases have edges so many times as long
SLACK = 1 << 20  # bytes for HDF5's own tables that are reserved beyond the arrays of a case


def write_h5(
    source: CaseSource,
    path: Path,
    *,
    dtype: Dtype = "float32",
    compression: Compression = "none",
    chunk: int = CHUNK,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Cache all cases of a source, training and held-out ones, in one file; returns a JSON report.

    Never more than one case is in memory. ``dtype``: ``float16`` halves the file and rounds to 3
    digits. ``compression``: ``none`` reads fastest. ``chunk``: largest edge in voxels. Raises
    UsageFault: the file exists; DataFault: a case cannot be read, or fits neither schema nor dtype;
    EnvironmentFault: the disk is full, or refuses.
    """
    refuse_existing(path)
    ids = sorted({*source.train_ids, *source.held_out_ids})
    filters = {} if compression == "none" else {"compression": compression}
    with contextlib.closing(_H5Writer(path, np.dtype(dtype), chunk, filters)) as writer:
        for done, case_id in enumerate(ids):
            progress(done, len(ids))
            case = source.load(case_id)
            writer.add(case, source.schema, _record(source, case))
        index = CacheIndex(
            name=source.name,
            fold=source.fold,
            schema=source.schema,
            space=source.space,
            request=source.request.to_json(),
            train=tuple(source.train_ids),
            held_out=tuple(source.held_out_ids),
            cases=tuple(writer.entries),
            dtype=dtype,
            ancestors=source.ancestors,
        )
        writer.publish(index)
        progress(len(ids), len(ids))
    return {
        "file": str(path),
        "data": source.name,
        "fold": source.fold,
        "train_cases": len(index.train),
        "held_out_cases": len(index.held_out),
        "dtype": dtype,
        "compression": compression,
        "bytes": path.stat().st_size,
    }


def _record(source: CaseSource, case: Case) -> CaseRecord:
    return source.record(case.id, lambda _: case)


def refuse_existing(path: Path) -> None:
    """Refuse (UsageFault) to replace a file, or to write where there is no folder."""
    if path.exists():
        raise UsageFault(f"{path}: exists already; choose another -o, or remove it")
    if not path.absolute().parent.is_dir():
        raise UsageFault(f"{path}: there is no folder {path.absolute().parent}; make it first")


def estimate(source: CaseSource, path: Path, *, dtype: Dtype, chunk: int) -> dict[str, Any]:
    """Estimate the uncompressed size of a cache from the first training case; JSON-able."""
    began = time.perf_counter()
    case = source.load(source.train_ids[0])
    seconds = time.perf_counter() - began
    count = len({*source.train_ids, *source.held_out_ids})
    folder = path.absolute().parent
    return {
        "dry_run": True,
        "file": str(path),
        "data": source.name,
        "fold": source.fold,
        "train_cases": len(source.train_ids),
        "held_out_cases": len(source.held_out_ids),
        "bytes": count * _needed(case, np.dtype(dtype), chunk),
        "bytes_free": shutil.disk_usage(folder).free,
        "seconds_of_reading": round(count * seconds, 1),
        "memory_bytes": _needed(case, np.dtype(np.float32), chunk),
    }


class _H5Writer:
    """Writes a cache; reserves space first, because HDF5 crashes at exit on a full disk."""

    def __init__(
        self, path: Path, dtype: np.dtype[Any], chunk: int, filters: Mapping[str, Any]
    ) -> None:
        import h5py

        self.entries: list[CaseEntry] = []
        self._path = path
        self._dtype = dtype
        self._chunk = chunk
        self._filters = filters
        self._temporary = temporary_beside(path)
        self._file: Any = None
        with disk_errors(path):
            remove_dead(path)
            flags = os.O_CREAT | os.O_EXCL | os.O_RDWR | getattr(os, "O_BINARY", 0)
            self._descriptor = os.open(self._temporary, flags, 0o666)
        try:
            with _writing(path, SLACK):
                os.write(self._descriptor, _empty_file())
                self._reserve(0, 0)
                self._file = h5py.File(self._temporary, "r+", locking=False, libver=LIBVER)
        except BaseException:
            self.close()
            raise

    def add(self, case: Case, schema: Schema, record: CaseRecord) -> None:
        """Write one case."""
        case.validate(schema)
        image, name = _stored(case, self._dtype), group(len(self.entries))
        table = None if case.labels is None else pack_planes(PlaneIndex.of(case.labels))
        needed = _needed(case, self._dtype, self._chunk) + (0 if table is None else table.nbytes)
        with _writing(self._path, needed):
            self._reserve(needed, self._file.id.get_filesize())
            chunk = chunk_shape(image.shape[1:], self._chunk)
            self._put(f"{name}/image", image, (len(image), *chunk))
            if case.labels is not None and table is not None:
                self._put(f"{name}/labels", case.labels, chunk)
                self._put(f"{name}/planes", table, table.shape)
            if case.boxes is not None:
                coords, classes = case.boxes.coords, case.boxes.labels
                self._put(f"{name}/boxes", coords.astype(np.float32), coords.shape)
                self._put(f"{name}/box_labels", classes.astype(np.int16), classes.shape)
            self._file.flush()
        self.entries.append(
            CaseEntry(
                id=record.id,
                subject=record.subject,
                sha256=record.sha256,
                stored=content_hash(image.astype(np.float32, copy=False), case.labels),
                shape=tuple(map(int, image.shape[1:])),
                labelled=case.labels is not None,
                boxes=None if case.boxes is None else len(case.boxes.labels),
                label_class=case.label_class,
                image=record.image,
                prints=record.prints,
            )
        )

    def publish(self, index: CacheIndex) -> None:
        """Write the index, and give the file its name."""
        raw = index.to_bytes()
        with _writing(self._path, len(raw)):
            self._reserve(len(raw), self._file.id.get_filesize())
            self._put("index", np.frombuffer(raw, np.uint8), (len(raw),))
            self._file.attrs["gansynth cache"] = FORMAT
            self._file.attrs["index sha256"] = hashlib.sha256(raw).hexdigest()
            self._file.flush()
            size = self._file.id.get_filesize()
            self._file.close()
            os.ftruncate(self._descriptor, size)  # what was reserved and is not used
            os.fsync(self._descriptor)
        read_index(self._temporary)
        publish_file(self._temporary, self._path)

    def close(self) -> None:
        """Close everything, and remove what was not published."""
        try:
            if self._file is not None:
                with contextlib.suppress(OSError, RuntimeError):  # of a disk, reported already
                    self._file.close()
        finally:
            os.close(self._descriptor)
            self._temporary.unlink(missing_ok=True)

    def _reserve(self, count: int, end: int) -> None:
        """Make sure of the space for so many bytes beyond the end, before HDF5 needs it."""
        if reserve(self._descriptor, end + count + SLACK):
            return
        if shutil.disk_usage(self._path.absolute().parent).free < count + SLACK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _put(self, name: str, array: npt.NDArray[Any], chunks: tuple[int, ...]) -> None:
        extra: dict[str, Any] = {}
        if array.size:
            extra = {"chunks": chunks, "fletcher32": True, **self._filters}
        self._file.create_dataset(name, data=array, track_times=False, **extra)


@contextlib.contextmanager
def _writing(path: Path, needed: int) -> Iterator[None]:
    """Turn disk errors of HDF5 into one line."""
    with disk_errors(path, needed):
        try:
            yield
        except RuntimeError as error:
            raise OSError(str(error)) from error


def _empty_file() -> bytes:
    import h5py

    with h5py.File("empty", "w", driver="core", backing_store=False, libver=LIBVER) as file:
        file.flush()
        image: bytes = file.id.get_file_image()
    return image


def _stored(case: Case, dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """The image as it is stored."""
    with np.errstate(over="ignore"):  # an overflow is infinite, and found below
        image = case.image.astype(dtype, copy=False)
    if not np.isfinite(image).all():
        raise DataFault(
            f"case {case.id!r}: reaches {np.abs(case.image).max():g}, which {dtype} cannot hold, "
            f"expected at most {np.finfo(dtype).max:g}; store float32: --dtype float32"
        )
    return image


def chunk_shape(shape: Sequence[int], edge: int) -> tuple[int, ...]:
    """Edges of chunks: equal parts of each axis, none longer than ``edge`` (2D: 8 times that)."""
    edge = edge if len(shape) == 3 else edge * FLAT
    return tuple(ceil(n / ceil(n / edge)) for n in shape)


def _needed(case: Case, dtype: np.dtype[Any], edge: int) -> int:
    """Bytes a case may take: whole chunks with their checksums, before any compression."""
    shape = case.image.shape[1:]
    chunk = chunk_shape(shape, edge)
    count = prod(ceil(n / c) for n, c in zip(shape, chunk, strict=True))
    channels = len(case.image)
    each = prod(chunk) * (channels * dtype.itemsize + 2) + 64 * (channels + 1)
    boxes = 0 if case.boxes is None else int(case.boxes.coords.nbytes + case.boxes.labels.nbytes)
    return int(count * each + boxes)
