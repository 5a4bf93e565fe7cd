"""Files of a sample bank and their writer: a description, and a safetensors file for each sample.

A sample's file cannot point to another file. Eight bytes hold the length of a JSON header with the
SHA-256 of all other bytes, the provenance, and dtype, shape and place of each array; the arrays
follow without gaps. The same sample makes the same bytes. A reader compares everything with the
file's own size before it allocates memory, and needs numpy alone.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import re
import shutil
import stat
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Literal

import numpy as np
import numpy.typing as npt

from gansynth.core.lineage import MAX_RECORD_BYTES, Lineage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, LabelArray, Sample, Schema
from gansynth.runtime.errors import (
    DataFault,
    EnvironmentFault,
    GansynthError,
    IntegrityFault,
    UsageFault,
)
from gansynth.runtime.files import (
    digest_of,
    disk_errors,
    parse_json,
    remove_temporaries,
    replace_text,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth.runtime.serialise import Document
from gansynth.runtime.version import build, check_format

if TYPE_CHECKING:
    from gansynth.core.intake import HostArrays

FORMAT = 3
SPEC, HEARTBEAT, COMPLETE, LOCK = "bank.json", "heartbeat.json", "complete.json", ".writer.lock"
PACE, WORK = "pace.json", "work.bin"  # see `gansynth.bank.throttle`
_MAX_HEADER_BYTES, _MAX_SAMPLE_BYTES, _MAX_AXES = 16 << 20, 4 << 30, 8
_NO_SHA256 = "0" * 64
_DIGITS = slice(35, 35 + 64)  # place of the SHA-256 in the file
_NAME = re.compile(r"sample-(\d{6,})\.safetensors")
_EXTRA = "extra:"  # prefix of a host's arrays; all others are named in `_check_forms`
_DTYPES = {
    "BOOL": "|b1", "U8": "|u1", "I8": "|i1", "U16": "<u2", "I16": "<i2", "U32": "<u4",
    "I32": "<i4", "U64": "<u8", "I64": "<i8", "F16": "<f2", "F32": "<f4", "F64": "<f8",
}  # fmt: skip
_CODES = {text: code for code, text in _DTYPES.items()}
_BLOCK = 4096  # file sizes are rounded up to whole blocks
_FULL = (errno.ENOSPC, errno.EDQUOT)
_IRREGULAR = "a link, folder, pipe or device, not a regular file"
_SETTLE_SECONDS = 0.2  # until the space of a retired sample is free

Array = npt.NDArray[Any]
Part = bytes | memoryview  # the latter of bytes, so that its length is their number
_Form = tuple[str, tuple[int, ...]]  # a key of _DTYPES, and a shape


@dataclass(frozen=True)
class BankSpec(Document, optional=("max_bytes",), flatten=("samples",)):
    """Description of a bank's content, written as ``bank.json`` when the bank is made."""

    schema: Schema  # schema of the stored samples, in the host's space
    # lineage of the generator, joined with that of other cases the samples come from
    lineage: Lineage
    run_id: str  # id of the generator's run
    generator: str  # SHA-256 of the run's manifest
    frozen: bool  # the content is complete and never refreshed
    capacity: int  # largest number of samples
    dtype: Literal["float16", "float32"] = "float16"  # storage type of images
    # conditions and filters of the samples, with the run's own edits where none were given
    samples: SampleRequest = field(default_factory=SampleRequest)
    # most bytes that the samples of a live bank take; None for no limit but capacity
    max_bytes: int | None = None
    # what its generator takes of real images, as it declares (``real_parts``); None if unknown
    real: tuple[str, ...] | None = None


@dataclass(frozen=True)
class BankSample:
    """One sample of a bank; its arrays are the caller's own copies."""

    id: str  # number of the sample in its bank, e.g. ``000012``
    image: Array  # float16 or float32 (C, D, H, W) or (C, H, W), as the bank's ``dtype`` says
    labels: LabelArray | None  # int16 (D, H, W) or (H, W)
    boxes: Boxes | None
    extras: dict[str, Array]  # the host's extra arrays, by name
    provenance: dict[str, Any]  # the request, the generator and the seed


def damaged(path: Path, why: object) -> IntegrityFault:
    """Return the fault of a damaged file of a bank."""
    return IntegrityFault(
        "bank.damaged",
        f"{path}: damaged: {why}; expected what the bank's writer published. Delete the bank's "
        "folder and make it again",
    )


@contextlib.contextmanager
def open_regular(path: Path) -> Iterator[tuple[BinaryIO, int]]:
    """Open a bank's file and yield it with its size; never a link, folder, pipe or device.

    Raises:
        FileNotFoundError: there is none (any more).
        IntegrityFault: it is not a regular file.
        EnvironmentFault: it cannot be opened.
    """
    flags = [getattr(os, name, 0) for name in ("O_NOFOLLOW", "O_NONBLOCK", "O_BINARY")]
    try:
        descriptor = os.open(path, os.O_RDONLY | sum(flags))
    except FileNotFoundError:
        raise
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise damaged(path, _IRREGULAR) from None
        raise EnvironmentFault(
            "bank.file-cannot-be-opened",
            f"{path}: cannot be opened: {error}; expected a readable file. Check permissions, and "
            "the limit of open files (ulimit -n)",
        ) from error
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise damaged(path, _IRREGULAR)
    with os.fdopen(descriptor, "rb") as stream:
        yield stream, os.fstat(descriptor).st_size


# -- documents -----------------------------------------------------------------------------------


def read_document(path: Path) -> dict[str, Any]:
    """Read one of a bank's JSON files.

    Raises:
        FileNotFoundError: there is none.
        IntegrityFault: it is not a JSON object in a regular file.
    """
    with open_regular(path) as (stream, size):
        try:
            doc = parse_json(stream.read(size)) if size <= MAX_RECORD_BYTES else None
        except ValueError as error:
            raise damaged(path, error) from error
    if not isinstance(doc, dict):
        raise damaged(path, f"not a JSON object of at most {MAX_RECORD_BYTES} bytes")
    return doc


def load_spec(folder: Path) -> BankSpec:
    """Read a bank's description."""
    path = folder / SPEC
    try:
        doc = read_document(path)
    except FileNotFoundError:
        from gansynth.core.run_folder import MANIFEST

        way_out = "name another folder"
        if (folder / MANIFEST).is_file():
            way_out = "this is a run, of which gansynth.fill_bank(RUN, FOLDER) makes a bank"
        raise DataFault(
            "bank.not-a-bank", f"{folder}: holds no {SPEC}, expected a sample bank; {way_out}"
        ) from None
    check_format(path, doc.get("format"), FORMAT, doc.get("gansynth"), "make the bank again")
    try:
        if doc["digest"] != digest_of(doc):
            raise ValueError("its digest is not that of its content")
        others = {"format", "digest", "gansynth"}
        return BankSpec.from_json({k: doc[k] for k in doc.keys() - others})
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise damaged(path, f"is not a bank's: {type(error).__name__}: {error}") from error


def read_heartbeat(folder: Path) -> Mapping[str, Any]:
    """Read a bank's heartbeat, see ``BankWriter.beat``; empty if it cannot be read."""
    try:
        return read_document(folder / HEARTBEAT)
    except (OSError, GansynthError):
        return {}


def content_of(hashes: Mapping[str, str]) -> str:
    """Return the SHA-256 of a bank's content: its samples' ids and hashes."""
    return hashlib.sha256(json.dumps(sorted(hashes.items())).encode()).hexdigest()


# -- samples -------------------------------------------------------------------------------------


def sample_path(folder: Path, sample_id: str) -> Path:
    """Return the file of a sample."""
    return folder / f"sample-{sample_id}.safetensors"


def list_samples(folder: Path) -> list[str]:
    """List the ids of a folder's samples by increasing number; empty if there is no such folder."""
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return []
    matches = filter(None, map(_NAME.fullmatch, names))
    return sorted([match[1] for match in matches], key=int)


def encode_sample(sample: Sample, extras: Mapping[str, Array], dtype: str) -> list[Part]:
    """Return the bytes of a sample's file, in parts."""
    arrays: dict[str, Array] = {"image": np.asarray(sample.image).astype(dtype, copy=False)}
    if sample.labels is not None:
        arrays["labels"] = np.asarray(sample.labels, "<i2")
    if sample.boxes is not None:
        arrays["boxes"] = np.asarray(sample.boxes.coords, "<f4")
        arrays["box_labels"] = np.asarray(sample.boxes.labels, "<i2")
    arrays |= {_EXTRA + name: np.asarray(array) for name, array in sorted(extras.items())}
    forms, data = dict[str, _Form](), list[Part]()
    for name, array in arrays.items():
        code = _CODES.get(array.dtype.newbyteorder("<").str)
        if code is None:
            raise DataFault(
                "bank.array-type-not-storable",
                f"bank: {name!r} is {array.dtype}, expected booleans, integers or floats",
            )
        forms[name] = (code, array.shape)
        plain = np.ascontiguousarray(array.astype(_DTYPES[code], copy=False))
        data.append(plain.reshape(-1).view(np.uint8).data)
    provenance = json.dumps(dict(sample.provenance), sort_keys=True, default=_plain)
    try:
        head, _ = _header_of(provenance, forms)
    except ValueError as error:
        raise DataFault(
            "bank.sample-not-readable-by-host", f"bank: {error}; expected what a host can read"
        ) from error
    digest = hashlib.sha256(head[: _DIGITS.start] + head[_DIGITS.stop :])
    for part in data:
        digest.update(part)
    sha256 = digest.hexdigest().encode()
    return [head[: _DIGITS.start] + sha256 + head[_DIGITS.stop :], *data]


def _header_of(provenance: str, forms: Mapping[str, _Form]) -> tuple[bytes, int]:
    """Return the header of such a sample, with zeros as its SHA-256, and the size of its file.

    It is the only one that the sample can have. ValueError: there can be no such sample.
    """
    _check_forms(forms)
    metadata = {"sha256": _NO_SHA256, "provenance": provenance}
    header, end = dict[str, Any](__metadata__=metadata), 0
    for name, (code, shape) in forms.items():
        begin, end = end, end + math.prod(shape) * np.dtype(_DTYPES[code]).itemsize
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    size = 8 + len(text) + end
    if len(text) > _MAX_HEADER_BYTES or size > _MAX_SAMPLE_BYTES:
        raise ValueError(f"a sample of {end} bytes with a header of {len(text)} is too large")
    return len(text).to_bytes(8, "little") + text, size


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    raise DataFault(
        "bank.provenance-not-json",
        f"bank: provenance holds a {type(value).__name__}, expected what JSON can hold",
    )


def read_sample(path: Path) -> BankSample:
    """Read one sample into fresh, writable arrays.

    Raises:
        FileNotFoundError: it was retired.
        IntegrityFault: it is not a sample's file.
        EnvironmentFault: it cannot be opened.
    """
    arrays = {}
    with open_regular(path) as (stream, size):
        _, provenance, forms = _read_header(path, stream, size)
        for name, (code, shape) in forms.items():
            array = arrays[name] = np.empty(shape, _DTYPES[code])
            if array.size and stream.readinto(array.reshape(-1).view(np.uint8)) < array.nbytes:  # type: ignore[attr-defined]
                raise damaged(path, "it was cut while it was read")
    boxes = arrays.get("boxes")
    return BankSample(
        id=path.name[len("sample-") : -len(".safetensors")],
        image=arrays["image"],
        labels=arrays.get("labels"),
        boxes=None if boxes is None else Boxes(boxes, arrays["box_labels"]),
        extras={n.removeprefix(_EXTRA): a for n, a in arrays.items() if n.startswith(_EXTRA)},
        provenance=provenance,
    )


def read_sha256(path: Path, *, check: bool = False) -> str:
    """Return the SHA-256 that a sample's file holds of itself; raises as ``read_sample``.

    ``check``: hash the whole file and compare.
    """
    with open_regular(path) as (stream, size):
        expected, *_ = _read_header(path, stream, size)
        if check:
            stream.seek(0)
            digest = hashlib.sha256(stream.read(_DIGITS.start))
            stream.seek(_DIGITS.stop)
            while part := stream.read(1 << 20):
                digest.update(part)
            if digest.hexdigest() != expected:
                raise damaged(path, f"its SHA-256 is {digest.hexdigest()}, expected {expected}")
    return expected


def _read_header(
    path: Path, stream: BinaryIO, size: int
) -> tuple[str, dict[str, Any], dict[str, _Form]]:
    """Return SHA-256, provenance and forms of a sample's arrays, which come next in the file."""
    try:
        start = stream.read(8)
        length = int.from_bytes(start, "little")
        if not 0 < length <= min(size - 8, _MAX_HEADER_BYTES):
            raise ValueError(f"a header of {length} bytes in a file of {size}")
        head = start + stream.read(length)
        header = json.loads(head[8:])
        provenance = header.pop("__metadata__")["provenance"]
        forms = {key: (form["dtype"], tuple(form["shape"])) for key, form in header.items()}
        expected, whole = _header_of(provenance, forms)
        if size != whole:
            raise ValueError(f"a file of {size} bytes, expected {whole}")
        if head[: _DIGITS.start] + _NO_SHA256.encode() + head[_DIGITS.stop :] != expected:
            raise ValueError("its header is not that of its arrays")
        document = parse_json(provenance)
        if not isinstance(document, dict):
            raise ValueError("its provenance is not an object")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise damaged(path, f"{type(error).__name__}: {error}"[:300]) from error
    return head[_DIGITS].decode(), document, forms


def _check_forms(forms: Mapping[str, _Form]) -> None:
    for name, (code, shape) in forms.items():
        possible = all(type(n) is int and 0 <= n < 1 << 31 for n in shape)
        if code not in _DTYPES or len(shape) > _MAX_AXES or not possible:
            raise ValueError(f"{name!r} has an impossible dtype or shape")
    code, shape = forms.get("image", ("", ()))
    if code not in ("F16", "F32") or len(shape) not in (3, 4):
        raise ValueError("no image of two or three dimensions in float16 or float32")
    number = forms["box_labels"][1][:1] if "box_labels" in forms else ()
    fitting = {
        "image": (code, shape),
        "labels": ("I16", shape[1:]),
        "boxes": ("F32", (*number, 2 * len(shape[1:]))),
        "box_labels": ("I16", number),
    }
    for name, form in forms.items():
        if not name.startswith(_EXTRA) and form != fitting.get(name):
            raise ValueError(f"{name!r} of {form[0]} {list(form[1])} beside this image")
    if ("boxes" in forms) != ("box_labels" in forms):
        raise ValueError("boxes without classes, or classes without boxes")


# -- the writer ----------------------------------------------------------------------------------


class BankWriter:
    """Publish samples; made by ``create`` or ``attach``, one at a time per bank."""

    def __init__(self, folder: Path, new: BankSpec | None = None) -> None:
        from filelock import FileLock, Timeout

        self.folder = folder
        # Not thread-local, or another thread of this process could acquire it again.
        self._lock = FileLock(folder / LOCK, thread_local=False)
        with disk_errors(folder / LOCK):
            try:
                self._lock.acquire(timeout=0)
            except Timeout:
                pid = read_heartbeat(folder).get("pid", "unknown")
                raise EnvironmentFault(
                    "bank.second-writer",
                    f"{folder}: another process (pid {pid}) writes to this bank, expected one "
                    "writer; wait for it, stop it, or name another folder",
                ) from None
        self.published = 0  # samples this writer has published
        # for the heartbeat: one word; and samples refused before admission, by reason
        self.state, self.rejected = "filling", Counter[str]()
        # for the heartbeat: begin of the current batch (`time.monotonic()`), None between batches;
        # and usual seconds of a batch, None before the first
        self.working_since: float | None = None
        self.usual: float | None = None
        self.count_drawing: Callable[[], int] = lambda: 1  # for the heartbeat: processes that draw
        self.squeezed = False  # whether a full disk has reduced the size of a live bank
        self._beating = threading.Lock()
        try:
            if new is not None:
                _refuse_content(folder)  # another writer may have been faster
                doc = {"format": FORMAT, "gansynth": build()} | new.to_json()
                write_json_atomic(folder / SPEC, dict(doc, digest=digest_of(doc)))
            self.spec = new or load_spec(folder)
            remove_temporaries(folder)
            self._look()
            self._next = max(map(int, self._held), default=-1) + 1
            self._budget = self.spec.max_bytes
            self.beat()
        except BaseException:
            self._lock.release()
            raise

    @classmethod
    def create(cls, folder: Path | str, spec: BankSpec) -> BankWriter:
        """Make a new bank."""
        folder = Path(folder)
        with disk_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        _refuse_content(folder)
        return cls(folder, spec)

    @classmethod
    def attach(cls, folder: Path | str) -> BankWriter:
        """Continue a bank whose writer has ended; half-written files are removed."""
        load_spec(Path(folder))  # before a lock is made there
        return cls(Path(folder))

    @property
    def held(self) -> int:
        """Samples that readers can see."""
        return len(self._held)

    @property
    def total(self) -> int:
        """Samples ever published in this bank, by this and earlier writers: their numbers."""
        return self._next

    @property
    def full(self) -> bool:
        """Whether the oldest sample must be retired before another is published."""
        largest = max(self._held.values(), default=0)
        return self.held >= self.spec.capacity or (largest > 0 and self._tight(largest))

    @property
    def complete(self) -> bool:
        """Whether ``finish`` was called on this bank."""
        return (self.folder / COMPLETE).exists()

    def publish(self, sample: Sample, extras: HostArrays) -> Path:
        """Publish an admitted sample with the host's arrays; readers see all of it or nothing.

        A live bank retires its oldest samples: those beyond its capacity afterwards, and
        beforehand those that its bytes or a full disk have no room for. The last one always stays.
        Where the disk has room again for all of it, it grows again.
        """
        if self.spec.frozen and (self.held >= self.spec.capacity or self.complete):
            raise UsageFault(
                "bank.full",
                f"{self.folder}: a sample cannot be added to the {self.held} of a "
                f"{'complete ' if self.complete else ''}bank of capacity {self.spec.capacity}; "
                "make another bank or raise the capacity",
            )
        sample_id = f"{self._next:06d}"
        path = sample_path(self.folder, sample_id)
        parts = encode_sample(sample, extras, self.spec.dtype)
        size = _on_disk(sum(map(len, parts)))
        if self.squeezed and self._has_room(size):
            self.squeezed, self._budget, self.state = False, self.spec.max_bytes, "filling"
        while self.held > 1 and self._tight(size):
            self._retire()
        while True:
            try:
                write_bytes_atomic(path, *parts, reserved=True)
                break
            except EnvironmentFault as fault:
                full = getattr(fault.__cause__, "errno", None) in _FULL
                if self.spec.frozen or not full or self.held < 2:
                    raise
                self._retire()
                self.squeezed = True
                time.sleep(_SETTLE_SECONDS)
        self._next += 1
        self._held[sample_id] = size
        self.published += 1
        if self.squeezed:
            used = sum(self._held.values())
            self._budget = min(self._budget or used, used)
        self._trim()
        return path

    def _tight(self, more: int) -> bool:
        return self._budget is not None and sum(self._held.values()) + more > self._budget

    def _has_room(self, size: int) -> bool:
        """Whether the disk has room for all that the bank lacks, and is not filled up again."""
        lacking = (self.spec.capacity - self.held + 1) * size
        if self.spec.max_bytes is not None:
            lacking = min(lacking, self.spec.max_bytes)
        with disk_errors(self.folder):
            return shutil.disk_usage(self.folder).free >= lacking

    def _trim(self) -> None:
        while not self.spec.frozen and self.held > self.spec.capacity:
            self._retire()

    def _retire(self) -> None:
        oldest = next(iter(self._held))
        with disk_errors(self.folder):
            sample_path(self.folder, oldest).unlink(missing_ok=True)
        del self._held[oldest]

    def _look(self) -> None:
        """Find what is held: bytes on the disk of each sample, oldest first."""
        paths = {i: sample_path(self.folder, i) for i in list_samples(self.folder)}
        self._held = {i: _on_disk(path.lstat().st_size) for i, path in paths.items()}

    def beat(self) -> None:
        """Write the heartbeat: process id, samples made and held, state, work, drawing processes.

        Any thread may call it.
        """
        path = self.folder / HEARTBEAT
        with self._beating, disk_errors(path):
            document = {
                "pid": os.getpid(),
                "total": self.total,
                "held": self.held,
                "state": self.state,
                "rejected": dict(sorted(self.rejected.copy().items())),
                "working_since": self.working_since,
                "usual": self.usual,
                "drawing": self.count_drawing(),
                "squeezed": self.squeezed,
            }
            try:  # not synced: after a crash the heartbeat is not needed
                replace_text(path, json.dumps(document))
            except OSError as error:
                if error.errno not in _FULL or not path.exists():
                    raise
                os.utime(path)  # no room for the document: only its time is updated

    def finish(self) -> None:
        """Mark a non-empty frozen bank as complete, with the SHA-256 of its content."""
        if not self.spec.frozen or not self._held:
            raise UsageFault(
                "bank.finish-not-frozen-or-empty",
                f"{self.folder}: only a frozen bank with samples can be finished",
            )
        hashes = {i: read_sha256(sample_path(self.folder, i)) for i in list_samples(self.folder)}
        doc = {"sha256": content_of(hashes), "samples": hashes}
        write_json_atomic(self.folder / COMPLETE, doc)

    def close(self) -> None:
        """Release the lock, so that another writer can attach."""
        try:  # a signal may have interrupted the retirement of a sample
            with contextlib.suppress(GansynthError, OSError):
                self._look()
                self._trim()
        finally:
            self._lock.release()

    def __enter__(self) -> BankWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _refuse_content(folder: Path) -> None:
    # A training may already have written its pace.
    if any(p.name not in (LOCK, PACE, WORK) and ".tmp-" not in p.name for p in folder.iterdir()):
        raise UsageFault(
            "bank.folder-not-empty",
            f"{folder}: is not empty, expected a new or empty folder for a bank; name another one, "
            "or delete it",
        )


def _on_disk(size: int) -> int:
    return -(-size // _BLOCK) * _BLOCK
