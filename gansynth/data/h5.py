"""``h5:FILE``: a cache of any source, made by ``gansynth cache``, that reads single patches.

A cache has the name, fold, record and lineage of its original source, so all guards treat it alike.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil, prod
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth.core.case_store import CaseStore
from gansynth.core.fingerprint import Prints
from gansynth.core.foreground import ForegroundIndex, PlaneIndex
from gansynth.core.lineage import CaseRecord, Lineage, guard_split
from gansynth.core.requests.data import CacheRequest
from gansynth.core.schema import OUTSIDE, Boxes, Case, LabelArray, Schema, content_hash
from gansynth.core.source import (
    CaseHeader,
    CaseSource,
    CheckReport,
    Finding,
    FoldSplit,
    Provenance,
    SourceRequest,
    StoredCase,
    ancestors_of,
    case_content,
    case_record,
    is_recorded,
)
from gansynth.core.space import Space
from gansynth.core.synthetic import KEY, refuse_named
from gansynth.core.writer import Item, Writer, WriterOptions
from gansynth.data.batches import PatchSource, part_boxes
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.files import (
    disk_errors,
    elsewhere,
    publish_file,
    reading,
    remove_dead,
    reserve,
    temporary_beside,
)
from gansynth.runtime.serialise import Document, differences
from gansynth.runtime.version import build, check_format

FORMAT = 1
LIBVER = ("v110", "v110")
"""HDF5's file format: its metadata carries checksums too, and HDF5 1.10 and later read it."""
MADE_BY = "gansynth cache KIND:WHERE -o FILE"
CASES = "cases"  # group of groups 000000, 000001, ... of image, labels, planes, boxes, box_labels
MAX_CASE_BYTES = 16 << 30  # largest array that is read
MAGIC = b"\x89HDF\r\n\x1a\n"
HDF5_SAYS = (OSError, LookupError, ValueError, RuntimeError, TypeError, AttributeError)
"""Exceptions that h5py raises for a damaged file."""


@dataclass(frozen=True)
class CaseEntry(Document, optional=("label_class", "image", "prints", "as_stored")):
    """One case; hashes are for lineage (``sha256``) and of what reading gives back (``stored``).

    ``boxes``: how many; None if there is no list. ``label_class``, ``image``, ``prints`` are not
    written down where there are none. ``as_stored``: see ``CaseRecord``.
    """

    id: str
    subject: str
    sha256: str
    stored: str
    shape: tuple[int, ...]
    labelled: bool
    boxes: int | None
    label_class: int | None = None
    image: str = ""
    prints: Prints = ()
    as_stored: bool = False

    @property
    def record(self) -> CaseRecord:
        """The case's record in the lineage."""
        return CaseRecord(
            self.id, self.subject, self.sha256, self.image, self.prints, self.as_stored
        )


@dataclass(frozen=True)
class CacheIndex(Document, optional=("synthetic",)):
    """The index of a cache.

    ``dtype``: type of stored images, ``float32`` or ``float16``. ``synthetic``: whether gansynth
    generated the cases.
    """

    name: str
    fold: str
    schema: Schema
    space: Space
    request: Mapping[str, Any]
    train: tuple[str, ...]
    held_out: tuple[str, ...]
    cases: tuple[CaseEntry, ...]
    dtype: str
    ancestors: tuple[Lineage, ...] = ()
    synthetic: bool = False


# -- reading -------------------------------------------------------------------------------------


def damaged(path: Path, why: object, part: str = "") -> DataFault:
    """The fault of a file that is not what ``gansynth cache`` wrote."""
    words = " ".join(str(why).split())[:200]
    return DataFault(
        "h5.damaged",
        f"{path}: {part}damaged ({words}), expected what gansynth cache wrote; copy it again, or "
        f"make it again: {MADE_BY}",
    )


@contextlib.contextmanager
def hdf5(path: Path, part: str = "") -> Iterator[None]:
    """Turn HDF5's errors of a file into one line; ``part`` is being read, e.g. ``case 'a': ``."""
    try:
        yield
    except GansynthError:
        raise
    except MemoryError as error:
        raise EnvironmentFault(
            "h5.out-of-memory", f"{path}: {part}not enough memory to read it; free some"
        ) from error
    except HDF5_SAYS as error:
        if isinstance(error, OSError) and error.errno:
            with reading(path):
                raise
        raise damaged(path, error, part) from error


def open_file(path: Path) -> Any:
    """Open a cache with h5py; DataFault: none, EnvironmentFault: not readable."""
    import h5py

    with reading(path), open(path, "rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise DataFault(
                "h5.not-hdf5", f"{path}: not an HDF5 file, expected one made by: {MADE_BY}"
            )
    # Without HDF5's lock: a published cache never changes, and some file systems have no locks.
    # Without its cache of chunks: random patches rarely meet a chunk again.
    with hdf5(path):
        return h5py.File(path, "r", locking=False, rdcc_nbytes=0)


def read_index(path: Path) -> CacheIndex:
    """Read the index of a cache; DataFault: none, or damaged, IntegrityFault: another format."""
    with open_file(path) as file, hdf5(path):
        version = file.attrs.get("gansynth cache")
        if version is None:
            raise DataFault(
                "h5.not-a-cache",
                f"{path}: an HDF5 file without the attribute 'gansynth cache', expected one made "
                f"by: {MADE_BY}",
            )
        way = f"make it again: {MADE_BY}"
        check_format(path, int(version), FORMAT, file.attrs.get("gansynth"), way)
        raw = checked(file, "index", None, "u")[()].tobytes()
        if hashlib.sha256(raw).hexdigest() != file.attrs.get("index sha256"):
            raise ValueError("its index is not the one that was written")
        document = json.loads(raw)
        del document["format"]
        return CacheIndex.from_json(document)


def checked(file: Any, name: str, shape: Sequence[int] | None, kinds: str) -> Any:
    """A data set of a known shape that lies in the file itself, no link, no view.

    Raises ValueError, KeyError: it is another.
    """
    import h5py

    parts = name.split("/")
    for last in range(1, len(parts) + 1):
        if not isinstance(file.get("/".join(parts[:last]), getlink=True), h5py.HardLink):
            raise ValueError(f"{name} is not in the file")
    array = file[name]
    if not isinstance(array, h5py.Dataset) or array.is_virtual or array.external:
        raise ValueError(f"{name} is not an array in the file")
    fits = shape is None or array.shape == tuple(shape)
    size = math.prod(array.shape) * array.dtype.itemsize
    if not fits or array.dtype.kind not in kinds or size > MAX_CASE_BYTES:
        raise ValueError(f"{name} is {array.shape} of {array.dtype}, expected {shape}")
    return array


# -- writing -------------------------------------------------------------------------------------

Dtype = Literal["float32", "float16"]
Compression = Literal["none", "lzf", "gzip"]
CHUNK = 24
"""Edge in voxels of a chunk of a volume; a chunk holds all channels. Patches of 64³ read fastest
from chunks of 24 to 32 (benchmarks/measure/results/reads.json)."""
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
    digits. ``compression``: ``none`` reads fastest. ``chunk``: largest edge in voxels. A file that
    is there is compared with what would be written (``compare_h5``). Raises UsageFault: it is
    another; DataFault: a case cannot be read, or fits neither schema nor dtype; EnvironmentFault:
    the disk is full, or refuses.
    """
    if path.exists():
        return compare_h5(source, path, dtype, compression, chunk, progress)
    ids = sorted({*source.train_ids, *source.held_out_ids})
    filters = {} if compression == "none" else {"compression": compression}
    with contextlib.closing(_H5Writer(path, np.dtype(dtype), chunk, filters)) as writer:
        for done, case_id in enumerate(ids):
            progress(done, len(ids))
            decoded = source.decode(case_id)
            record = case_record(source, case_id, {case_id: decoded}.__getitem__)
            writer.add(decoded.prepare(), source.schema, record)
        index = CacheIndex(
            name=source.name,
            fold=source.request.fold,
            schema=source.schema,
            space=source.space,
            request=source.request.to_json(),
            train=tuple(source.train_ids),
            held_out=tuple(source.held_out_ids),
            cases=tuple(writer.entries),
            dtype=dtype,
            ancestors=ancestors_of(source),
        )
        writer.publish(index)
        progress(len(ids), len(ids))
    return _report(path, index, compression, already=False)


def _report(path: Path, index: CacheIndex, compression: str, *, already: bool) -> dict[str, Any]:
    return {
        "cached_already": already,
        "file": str(path),
        "data": index.name,
        "fold": index.fold,
        "train_cases": len(index.train),
        "held_out_cases": len(index.held_out),
        "dtype": index.dtype,
        "compression": compression,
        "bytes": path.stat().st_size,
    }


def compare_h5(
    source: CaseSource,
    path: Path,
    dtype: Dtype,
    compression: Compression,
    chunk: int,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> dict[str, Any]:
    """Return the report of a cache that is there already; arguments as for ``write_h5``.

    Every case is read on both sides.
    """
    try:
        cache = H5Source(SourceRequest("h5", str(path), fold=read_index(path).fold))
    except DataFault as fault:
        raise UsageFault("h5.file-exists", f"{fault}. {_other(path)}") from fault
    ids, index = sorted({*source.train_ids, *source.held_out_ids}), cache.index
    asked: dict[str, Any] = {
        "name": source.name,
        "request": source.request.to_json(),
        "schema": source.schema.to_json(),
        "space": source.space.to_json(),
        "training cases": list(source.train_ids),
        "held-out cases": list(source.held_out_ids),
        "dtype": dtype,
        "compression": compression,
    }
    before: dict[str, Any] = {
        "name": index.name,
        "request": dict(index.request),
        "schema": index.schema.to_json(),
        "space": index.space.to_json(),
        "training cases": list(index.train),
        "held-out cases": list(index.held_out),
        "dtype": index.dtype,
    }
    with open_file(path) as file, hdf5(path):
        image = checked(file, f"{CASES}/{0:06d}/image", None, "f")
        before["compression"] = image.compression or "none"
        before["chunk"], asked["chunk"] = image.chunks[1:], chunk_shape(image.shape[1:], chunk)
    for moved in ("where", "root"):  # where the cases lie is no matter
        before["request"].pop(moved, None)
        asked["request"].pop(moved, None)
    _refuse_differing(path, differences(*json.loads(json.dumps([before, asked]))))
    entries = {entry.id: entry for entry in index.cases}
    for done, case_id in enumerate(ids):
        progress(done, len(ids))
        entry = entries[case_id]
        try:
            case = cache.load(case_id)
            if content_hash(case.image, case.labels) != entry.stored:
                raise damaged(path, "it is not what was written", f"case {case_id!r}: ")
        except DataFault as fault:
            raise fault.reworded(f"{fault}. {_other(path)}") from fault
        same = is_recorded(entry.record, source, case_content(source, case_id))
        _refuse_differing(path, [f"another content of case {case_id!r}"] * (same == "other"))
    progress(len(ids), len(ids))
    remove_dead(path)
    return _report(path, index, compression, already=True)


def _refuse_differing(path: Path, differing: Iterable[str]) -> None:
    words = "; ".join(differing)
    if words:
        raise UsageFault(
            "h5.file-exists",
            f"{path}: exists already, with {words}. {_other(path)}",
        )


def _other(taken: Path) -> str:
    return f"Choose another: {elsewhere(taken)}, or remove it"


def refuse_homeless(path: Path) -> None:
    """Refuse (UsageFault) to write where there is no folder."""
    if not path.absolute().parent.is_dir():
        raise UsageFault(
            "h5.folder-missing",
            f"{path}: there is no folder {path.absolute().parent}; make it first",
        )


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
        "fold": source.request.fold,
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
        image, name = _stored(case, self._dtype), f"{CASES}/{len(self.entries):06d}"
        table = None
        if case.labels is not None:
            planes = PlaneIndex.of(case.labels)
            boxes = planes.boxes.reshape(len(planes.values), 2 * case.labels.ndim)
            table = np.hstack([planes.values[:, None].astype(np.int64), boxes, planes.counts])
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
                as_stored=record.as_stored,
            )
        )

    def publish(self, index: CacheIndex) -> None:
        """Write the index, and give the file its name."""
        raw = json.dumps({"format": FORMAT} | index.to_json(), allow_nan=False).encode()
        with _writing(self._path, len(raw)):
            self._reserve(len(raw), self._file.id.get_filesize())
            self._put("index", np.frombuffer(raw, np.uint8), (len(raw),))
            self._file.attrs["gansynth cache"] = FORMAT
            self._file.attrs["gansynth"] = build()
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
        free = reserve(self._descriptor, end + count + SLACK)
        if not free and shutil.disk_usage(self._path.absolute().parent).free < count + SLACK:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _put(self, name: str, array: npt.NDArray[Any], chunks: tuple[int, ...]) -> None:
        extra: dict[str, Any] = {}
        if array.size:
            extra = {"chunks": chunks, "fletcher32": True}
            extra.update(self._filters)
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
    with np.errstate(over="ignore"):  # an overflow is infinite, and found below
        image = case.image.astype(dtype, copy=False)
    if not np.isfinite(image).all():
        raise DataFault(
            "h5.value-exceeds-type",
            f"case {case.id!r}: reaches {np.abs(case.image).max():g}, which {dtype} cannot hold, "
            f"expected at most {np.finfo(dtype).max:g}; store float32: --dtype float32",
        )
    return image


def chunk_shape(shape: Sequence[int], edge: int) -> tuple[int, ...]:
    """Edges of chunks: equal parts of each axis, none longer than ``edge`` (2D: 8 times that)."""
    edge = edge if len(shape) == 3 else edge * FLAT
    return tuple([ceil(n / ceil(n / edge)) for n in shape])


def _needed(case: Case, dtype: np.dtype[Any], edge: int) -> int:
    """Bytes a case may take: whole chunks with their checksums, before any compression."""
    shape = case.image.shape[1:]
    chunk = chunk_shape(shape, edge)
    count = prod([ceil(n / c) for n, c in zip(shape, chunk, strict=True)])
    channels = len(case.image)
    each = prod(chunk) * (channels * dtype.itemsize + 2) + 64 * (channels + 1)
    boxes = 0 if case.boxes is None else int(case.boxes.coords.nbytes + case.boxes.labels.nbytes)
    return int(count * each + boxes)


SAMPLES = "samples.h5"
"""The file that ``--format hdf5`` writes into a folder; ``h5:FOLDER`` reads it, too."""


class HdfOptions(WriterOptions):
    """How samples are stored."""

    dtype: Dtype = Field("float32", description="of images; float16 keeps three digits")
    compression: Compression = Field("none", description="of the file; none reads fastest")


class HdfWriter(Writer):
    """``samples.h5``, a cache that ``h5:`` reads: exact arrays, labels -1 outside of the body."""

    name = "hdf5"
    Options = HdfOptions
    reader = "h5"

    def __init__(
        self, folder: Path, schema: Schema, options: Any = None, intensities: Any = tuple
    ) -> None:
        super().__init__(folder, schema, options, intensities)
        compression = self.options.compression
        filters = {} if compression == "none" else {"compression": compression}
        self.path = folder / SAMPLES
        self._file = _H5Writer(self.path, np.dtype(self.options.dtype), CHUNK, filters)
        self._close = weakref.finalize(self, self._file.close)  # also if ``finish`` is not reached

    def add(self, item: Item) -> None:
        case = Case(item.name, item.name, item.image, item.labels, item.boxes)
        record = CaseRecord(item.name, item.name, content_hash(item.image, item.labels))
        self._file.add(case, self.schema, record)

    def finish(self, about: Mapping[str, Any]) -> None:
        names = tuple([entry.id for entry in self._file.entries])
        request = SourceRequest("h5", SAMPLES, fold="all").to_json()
        self._file.publish(
            CacheIndex(
                name="hdf5:samples",
                fold="all",
                schema=self.schema,
                space=Space(pad_label=OUTSIDE if self.schema.has_outside else 0),
                request=request,
                train=tuple(sorted(names)),
                held_out=(),
                cases=tuple(self._file.entries),
                dtype=self.options.dtype,
                synthetic=bool(about.get(KEY)),
            )
        )
        self._close()


def cache_of(where: str) -> Path:
    """Return the file of ``h5:FILE``, or of ``h5:FOLDER`` with samples."""
    path = Path(where).expanduser().absolute()
    return path / SAMPLES if path.is_dir() else path


class H5Source(PatchSource):
    """A cached source. May be pickled, shared by threads, and used on both sides of a fork."""

    def __init__(self, request: SourceRequest) -> None:
        self.path = cache_of(request.where)
        self.request = replace(request, where=str(self.path))
        self.index: CacheIndex = read_index(self.path)
        names = [entry.id for entry in self.index.cases]
        refuse_named({KEY: self.index.synthetic}, self.path, names, request)
        self._numbers = {entry.id: n for n, entry in enumerate(self.index.cases)}
        self._open: tuple[int, Any] | None = None
        self._refuse_other()
        guard_split(
            [(case, self._entry(case).subject) for case in self.train_ids],
            [(case, self._entry(case).subject) for case in self.held_out_ids],
            fold=self.request.fold,
            repair="correct the original, and cache it again",
        )

    # -- what it was made from -------------------------------------------------------------------

    @property
    def name(self) -> str:
        return self.index.name

    @property
    def schema(self) -> Schema:
        return self.index.schema

    @property
    def space(self) -> Space:
        return self.index.space

    @property
    def train_ids(self) -> tuple[str, ...]:
        return self.index.train

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return self.index.held_out

    @cached_property
    def provenance(self) -> Provenance:
        """Records of the original cases from the index, and the lineages behind them."""
        records = {entry.id: entry.record for entry in self.index.cases}
        return Provenance(records, self.index.ancestors)

    def header(self, case_id: str) -> CaseHeader:
        entry = self._entry(case_id)
        return CaseHeader(entry.subject, entry.shape, self.schema.spacing, entry.label_class)

    def _refuse_other(self) -> None:
        request, made = self.request, self.index.request
        if request.fold != self.index.fold:
            raise UsageFault(
                "h5.fold-differs",
                f"{self.path}: --fold {request.fold}: the cache holds fold {self.index.fold}, "
                f"expected --fold {self.index.fold}; or {self._with(fold=request.fold)}",
            )
        for key in ("configuration", "plans", "subjects"):
            value, cached = getattr(request, key), made.get(key)
            if value is not None and value != cached:
                raise UsageFault(
                    "h5.option-differs",
                    f"{self.path}: --{key} {value}: the cache was made with {cached}; leave it "
                    f"out, or {self._with(**{key: value})}",
                )

    def _with(self, **changes: Any) -> str:
        """Return what is typed for a cache of the same cases with such changes."""
        other = self.path.with_stem(f"{self.path.stem}_other")
        made = replace(SourceRequest.from_json(self.index.request), **changes)
        return f"make another: {made.command(CacheRequest, out=other)}; and name it: h5:{other}"

    def files(self, case_id: str) -> StoredCase | None:
        """Files of the original source; None where they are gone, or never were."""
        if self.index.synthetic:
            return None
        try:
            return self._original.files(case_id)
        except (UsageFault, DataFault):
            return None

    @cached_property
    def _original(self) -> CaseSource:
        from gansynth.data.views import open_plain

        request = SourceRequest(**self.index.request)
        return open_plain(replace(request, root=self.request.root or request.root))

    def store_of(self, case_id: str) -> CaseStore:
        """Beside the file, as the cases are in it."""
        return CaseStore.of(case_id, [self.path], self.path, beside=not self.index.synthetic)

    # -- reading ---------------------------------------------------------------------------------

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Refused (UsageFault): a cache holds one fold, read as its training cases say."""
        made_from = f"{self.index.request['kind']}:{self.index.request['where']}"
        raise UsageFault(
            "h5.cannot-be-split",
            f"{self.path}: a cache holds one fold, which cannot be split otherwise, expected "
            f"what it was made from: {made_from}",
        )

    def load(self, case_id: str) -> Case:
        """Read one case, float32 (C, D, H, W), int16 (D, H, W); DataFault if damaged."""
        entry = self._entry(case_id)
        return self.load_part(case_id, [slice(0, n) for n in entry.shape])

    def labels_of(self, case_id: str) -> LabelArray | None:
        """Read a case's label map alone; DataFault if damaged."""
        entry = self._entry(case_id)
        if not entry.labelled:
            return None
        with hdf5(self.path, f"case {case_id!r}: "):
            return np.asarray(self._labels(entry)[()])

    def load_part(self, case_id: str, box: Sequence[slice]) -> Case:
        """Read the voxels of a case within a box, with the case's boxes cut to it."""
        entry = self._entry(case_id)
        with hdf5(self.path, f"case {case_id!r}: "):
            image = self._image(entry)[(slice(None), *box)].astype(np.float32, copy=False)
            labels = self._labels(entry)[tuple(box)] if entry.labelled else None
            boxes = self._boxes(entry)
        boxes = None if boxes is None else part_boxes(boxes, box)
        return Case(case_id, entry.subject, image, labels, boxes, entry.label_class)

    def outline(self, case_id: str) -> ForegroundIndex:
        """Shape and foreground of a case; drawing a voxel reads one plane of the labels."""
        entry = self._entry(case_id)
        if not entry.labelled:
            return ForegroundIndex(entry.shape)
        axes = len(entry.shape)

        def read(box: tuple[slice, ...]) -> LabelArray:
            with hdf5(self.path, f"case {case_id!r}: "):
                labels: LabelArray = self._labels(entry)[box]
                return labels

        with hdf5(self.path, f"case {case_id!r}: "):
            table = self._array(entry, "planes", None, "i")[()]
            if table.ndim != 2 or table.shape[1] != 1 + 2 * axes + entry.shape[0]:
                raise ValueError(f"planes is of shape {table.shape}")
        boxes = table[:, 1 : 1 + 2 * axes].reshape(len(table), axes, 2)
        planes = PlaneIndex(table[:, 0].astype(np.int16), table[:, 1 + 2 * axes :], boxes)
        return ForegroundIndex(entry.shape, planes.without(self.schema.ignore), read)

    def train_bytes(self) -> int:
        """Bytes of all training cases as ``load`` returns them."""
        voxel = 4 * len(self.schema.channels) + 2
        voxels = [int(np.prod(self._entry(case).shape)) for case in self.train_ids]
        return sum(voxels) * voxel

    def _entry(self, case_id: str) -> CaseEntry:
        if case_id not in self._numbers:
            raise DataFault(
                "h5.case-unknown",
                f"{self.path}: holds no case {case_id!r}, expected one of {len(self._numbers)}, "
                f"for example {next(iter(self._numbers), None)!r}",
            )
        return self.index.cases[self._numbers[case_id]]

    def _array(self, entry: CaseEntry, name: str, shape: Sequence[int] | None, kinds: str) -> Any:
        return checked(self._file, f"{CASES}/{self._numbers[entry.id]:06d}/{name}", shape, kinds)

    def _image(self, entry: CaseEntry) -> Any:
        return self._array(entry, "image", (len(self.schema.channels), *entry.shape), "f")

    def _labels(self, entry: CaseEntry) -> Any:
        return self._array(entry, "labels", entry.shape, "i")

    def _boxes(self, entry: CaseEntry) -> Boxes | None:
        if entry.boxes is None:
            return None
        coords = self._array(entry, "boxes", (entry.boxes, 2 * len(entry.shape)), "f")
        return Boxes(coords[()], self._array(entry, "box_labels", (entry.boxes,), "i")[()])

    # -- one handle per process ------------------------------------------------------------------

    @property
    def _file(self) -> Any:
        """The open file of this process: HDF5's handles do not survive a fork."""
        if self._open is None or self._open[0] != os.getpid():
            self._open = (os.getpid(), open_file(self.path))
        return self._open[1]

    def close(self) -> None:
        """Close the file; it is opened again when needed."""
        if self._open is not None and self._open[0] == os.getpid():
            self._open[1].close()
        self._open = None

    def __getstate__(self) -> dict[str, Any]:
        return dict(self.__dict__, _open=None)


def check_h5(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``h5:FILE``: every chunk of every case is read."""
    fold = read_index(cache_of(request.where)).fold
    source = H5Source(replace(request, fold=fold))
    findings = []
    total = len(source.index.cases)
    for done, entry in enumerate(source.index.cases):
        progress(done, total)
        try:
            case = source.load(entry.id)
            source.outline(entry.id)
            if content_hash(case.image, case.labels) != entry.stored:
                raise damaged(source.path, "other content than was cached", f"case {entry.id!r}: ")
            case.validate(source.schema)
        except GansynthError as fault:
            findings.append(Finding.of(entry.id, source.path, fault))
    progress(total, total)
    return CheckReport(source.name, total, findings)
