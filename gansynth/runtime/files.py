"""Bounded, checked reading of foreign files, and atomic publishing of our own.

Every gzip stream is read to its CRC, which common readers of NIfTI skip; and no stream may grow
past what its header announces.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, EnvironmentFault, IntegrityFault, UsageFault
from gansynth.runtime.nifti import (
    MAX_VOLUME_BYTES,
    Header,
    Volume,
    read_nifti,
    read_nifti_header,
    reading,
)

__all__ = [
    "MAX_VOLUME_BYTES",
    "Header",
    "Volume",
    "disk_errors",
    "folder_bytes",
    "free_bytes",
    "path_inside",
    "publish_dir",
    "publish_file",
    "read_json",
    "read_nifti",
    "read_nifti_header",
    "read_yaml",
    "reading",
    "remove_temporaries",
    "replace_text",
    "reserve",
    "sha256_file",
    "temporary_beside",
    "whole_folder",
    "write_bytes_atomic",
    "write_json_atomic",
]
MAX_JSON_BYTES = 64 << 20
MAX_YAML_BYTES = 1 << 20
"""Of a YAML file that a user writes."""
_DISK = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "the file is larger than the system allows",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "writing is not permitted",
    errno.EPERM: "writing is not permitted",
    errno.ENOENT: "the folder is not there",
    errno.ENOTDIR: "a part of the path is a file",
    errno.EIO: "the disk reports an input/output error",
}


def read_json(path: str | Path, *, expected: type = dict, way_out: str = "repair the file") -> Any:
    """Read a JSON file of bounded size whose top level is of a given type.

    Raises:
        DataFault: missing, too large, not JSON, or of another type.
    """
    path = Path(path)
    with reading(path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataFault(f"{path}: larger than {MAX_JSON_BYTES} bytes, expected JSON; {way_out}")
        try:
            doc = json.loads(path.read_bytes())
        except (ValueError, RecursionError) as error:
            raise DataFault(f"{path}: not valid JSON: {error}; {way_out}") from error
    if not isinstance(doc, expected):
        raise DataFault(
            f"{path}: top level is a {type(doc).__name__}, expected a {expected.__name__}; "
            f"{way_out}"
        )
    return doc


def path_inside(folder: str | Path, relative: str, *, key: str) -> Path:
    """Resolve a path named in a file, and refuse it if it leaves a folder.

    Args:
        folder: where it must stay.
        relative: what the file says; absolute paths, ``..`` and links that lead out are refused.
        key: file and key it stands in, for the message.

    Raises:
        IntegrityFault: if it leads out of the folder.
    """
    home = os.path.realpath(folder)
    bad = "\0" in relative or os.path.isabs(relative)
    target = home if bad else os.path.realpath(os.path.join(home, relative))
    if bad or target == home or os.path.commonpath((home, target)) != home:
        raise IntegrityFault(
            f"{key}: path {relative!r} leads out of {folder}; expected a file inside it. Put the "
            "file there, or correct the entry"
        )
    return Path(target)


def sha256_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, as hexadecimal text."""
    path = Path(path)
    with reading(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


# -- publishing ----------------------------------------------------------------------------------


@contextlib.contextmanager
def disk_errors(path: str | Path, needed: int | None = None) -> Iterator[None]:
    """Turn what a disk can do to a writer into one line.

    Args:
        path: what is being written.
        needed: how many bytes it takes, if known.

    Raises:
        EnvironmentFault: with the bytes needed and free, for a full or read-only disk, missing
            permission, a vanished folder.
    """
    try:
        yield
    except OSError as error:
        reason = _DISK.get(error.errno or 0, error.strerror or str(error))
        space = "" if needed is None else f" {needed} bytes needed,"
        free = free_bytes(Path(path))
        raise EnvironmentFault(
            f"{path}: cannot be written: {reason};{space} {free} bytes free there. "
            "Make room, or choose another folder"
        ) from error


def free_bytes(path: Path) -> int | str:
    """Bytes free on the disk that a path, there or not, is on."""
    for folder in (path, *path.absolute().parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    return "unknown"


def folder_bytes(folder: Path) -> int:
    """Bytes of all files in a folder, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def temporary_beside(path: Path) -> Path:
    """The name under which a file or folder is built before it is published."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def replace_text(path: Path, text: str) -> None:
    """Write a small file that lives on: whole or not at all, but not forced to the disk.

    Raises:
        OSError: it cannot be written.
    """
    temporary = temporary_beside(path)
    try:
        temporary.write_text(text, "utf-8")
        os.replace(temporary, path)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def reserve(descriptor: int, size: int) -> bool:
    """Reserve a file's first bytes on its disk; False where that cannot be done.

    Raises:
        OSError: there is no room.
    """
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        # Some file systems cannot reserve; writing tells whether there is room.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return False
    return True


def remove_temporaries(folder: Path) -> None:
    """Remove what an interrupted writer left in a folder; nobody else may be writing there."""
    for left in folder.glob(".*.tmp-*"):
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


def write_bytes_atomic(path: str | Path, *parts: bytes, reserved: bool = False) -> None:
    """Write a file so that readers see all of it or none, also after a crash.

    Args:
        path: the file.
        parts: its bytes, in order.
        reserved: reserve its space first, so that a file that does not fit never fills the disk.

    Raises:
        EnvironmentFault: with the bytes needed and free; nothing is left behind.
    """
    path = Path(path)
    temporary, size = temporary_beside(path), sum(map(len, parts))
    with disk_errors(path, size):
        try:
            with open(temporary, "wb") as stream:
                if reserved:
                    reserve(stream.fileno(), size)
                stream.writelines(parts)
                stream.flush()
                os.fsync(stream.fileno())
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
        _sync_folder(path.parent)


def write_json_atomic(path: str | Path, doc: Any) -> None:
    """Write a JSON document atomically; NaN and infinities are not JSON and a bug.

    Raises:
        EnvironmentFault: as ``write_bytes_atomic``.
    """
    text = json.dumps(doc, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes_atomic(path, (text + "\n").encode())


def publish_dir(temporary: str | Path, final: str | Path) -> None:
    """Give a finished folder its name: everything in it reaches the disk, then one rename.

    Args:
        temporary: the folder, on the same file system.
        final: its name; must not exist, or be an empty folder.

    Raises:
        UsageFault: something with that name exists.
        EnvironmentFault: the disk refuses.
    """
    temporary, final = Path(temporary), Path(final)
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise UsageFault(f"{final}: exists already; choose another name, or remove it")
    with disk_errors(final):
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                with open(os.path.join(folder, name), "rb") as stream:
                    os.fsync(stream.fileno())
            _sync_folder(Path(folder))
        os.replace(temporary, final)
        _sync_folder(final.parent)


@contextlib.contextmanager
def whole_folder(final: Path, *, anew: bool = False) -> Iterator[Path]:
    """A folder to fill, under another name; it gets its own if the block ends well, else it goes.

    Args:
        final: its name; must not exist, or be an empty folder.
        anew: one that is there is replaced.

    Raises:
        UsageFault: something with that name exists.
        EnvironmentFault: the disk refuses.
    """
    temporary = temporary_beside(final)
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
    try:
        yield temporary
        if anew:
            shutil.rmtree(final, ignore_errors=True)
        publish_dir(temporary, final)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def publish_file(temporary: Path, final: Path) -> None:
    """Give a finished file, which has reached the disk, its name; it replaces what had it.

    Raises:
        EnvironmentFault: the disk refuses.
    """
    with disk_errors(final):
        os.replace(temporary, final)
        _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")


def folder_name(text: str) -> str:
    """What channels or classes are called as a folder."""
    name = _UNFIT.sub("_", text)
    return name if name[0].isalnum() else f"c{name}"


def read_yaml(path: Path, expected: str) -> tuple[Any, bytes]:
    """What a user's YAML file holds, and its bytes.

    Args:
        path: the file.
        expected: what it should be, for messages: ``a recipe in YAML``.

    Raises:
        DataFault: no such file.
        UsageFault: too large, or not YAML.
    """
    import yaml

    if not path.is_file():
        raise DataFault(f"{path}: no such file, expected {expected}")
    try:
        if path.stat().st_size > MAX_YAML_BYTES:
            raise UsageFault(f"{path}: larger than {MAX_YAML_BYTES} bytes, expected {expected}")
        data = path.read_bytes()
        return yaml.safe_load(data.decode("utf-8")), data
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        text = " ".join(str(error).split())
        raise UsageFault(f"{path}: cannot be read ({text}); expected {expected}") from None
