"""Bounded, checked reading of foreign files, and atomic writing of gansynth's own.

Every gzip stream is read to its CRC, which common readers of NIfTI skip. No stream may exceed the
size in its header.
"""

from __future__ import annotations

import contextlib
import errno
import filecmp
import glob
import hashlib
import itertools
import json
import os
import re
import shlex
import shutil
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import (
    ROOM,
    DataFault,
    EnvironmentFault,
    IntegrityFault,
    UsageFault,
    refuse_closed,
)
from gansynth.runtime.volumes import reading as reading

MAX_JSON_BYTES = 64 << 20
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


def read_json(
    path: str | Path,
    *,
    expected: type = dict,
    hint: str = "repair the file",
    most: int = MAX_JSON_BYTES,
) -> Any:
    """Read a JSON file of at most ``most`` bytes and of a given top-level type.

    Raises:
        DataFault: missing, too large, not JSON, or of another type.
    """
    path = Path(path)
    with reading(path):
        if path.stat().st_size > most:
            raise DataFault(
                "files.document-too-large",
                f"{path}: larger than {most} bytes, expected JSON; {hint}",
            )
        try:
            doc = parse_json(path.read_bytes())
        except ValueError as error:
            raise DataFault(
                "files.not-valid-json", f"{path}: not valid JSON: {error}; {hint}"
            ) from error
    if not isinstance(doc, expected):
        raise DataFault(
            "files.top-level-type-differs",
            f"{path}: top level is a {type(doc).__name__}, expected a {expected.__name__}; {hint}",
        )
    return doc


def read_own(path: Path, *, hint: str, most: int = MAX_JSON_BYTES) -> dict[str, Any]:
    """Read a JSON document that gansynth wrote; IntegrityFault: it cannot be read."""
    try:
        document: dict[str, Any] = read_json(path, hint=hint, most=most)
    except DataFault as fault:
        raise IntegrityFault("files.own-document-unreadable", str(fault)) from None
    return document


def parse_json(data: bytes | str) -> Any:
    """Return what a JSON text says; ValueError if it is none, or nested too deeply."""
    try:
        return json.loads(data)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error


def path_inside(folder: str | Path, relative: str, *, key: str) -> Path:
    """Resolve a path named in a file, and refuse it if it leaves a folder.

    Args:
        folder: must contain the path.
        relative: the path in the file; absolute paths, ``..`` and links to outside are refused.
        key: file and key of the path, for the message.
    """
    if "\0" not in relative:
        refuse_unnameable(os.path.join(folder, relative), key)
    home = os.path.realpath(folder)
    bad = "\0" in relative or os.path.isabs(relative)
    target = home if bad else os.path.realpath(os.path.join(home, relative))
    if bad or target == home or os.path.commonpath((home, target)) != home:
        raise IntegrityFault(
            "files.path-leads-out-of-folder",
            f"{key}: path {relative!r} leads out of {folder}; expected a file inside it. Put the "
            "file there, or correct the entry",
        )
    return Path(target)


def refuse_unnameable(path: str | Path, key: str) -> None:
    """Refuse a path that the file system cannot name: too long, or no text."""
    try:
        os.lstat(path)
    except (OSError, ValueError) as error:
        if isinstance(error, ValueError) or error.errno == errno.ENAMETOOLONG:
            words = error if isinstance(error, ValueError) else error.strerror
            raise DataFault(
                "files.path-cannot-be-one",
                f"{key}: path {str(path)[-80:]!a} cannot be one ({words}); correct the entry",
            ) from None


def digest_of(document: Mapping[str, Any], key: str = "digest") -> str:
    """Return the SHA-256 of a JSON document without ``key``, under which the document keeps it."""
    plain = {name: value for name, value in document.items() if name != key}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def check_digest(path: Path, document: Mapping[str, Any], hint: str) -> None:
    """Refuse (IntegrityFault) a document that was changed; one without a digest passes."""
    digest = digest_of(document)
    if document.get("digest", digest) != digest:
        raise IntegrityFault(
            "files.digest-differs",
            f"{path}: was changed after it was written, its digest is not {digest[:12]}; {hint}",
        )


def sha256_file(path: str | Path) -> str:
    """Return the SHA-256 of a file's bytes, as hexadecimal text."""
    path = Path(path)
    with reading(path), open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check_sha256(path: Path, expected: str, said: str) -> None:
    """Refuse (IntegrityFault) a file that is missing or changed; ``said``: by whom, and a hint."""
    digest = sha256_file(path) if path.is_file() else "of no file"
    if digest != expected:
        raise IntegrityFault(
            "files.checksum-differs",
            f"{path}: SHA-256 is {digest[:12]}, expected {expected[:12]} by {said}",
        )


def walk_all(
    folder: Path, *, followlinks: bool = False
) -> Iterator[tuple[str, list[str], list[str]]]:
    """Walk as ``os.walk`` does, but raise PermissionError where that leaves a folder out."""

    def refuse(error: OSError) -> None:
        if isinstance(error, PermissionError):
            raise error

    return os.walk(folder, onerror=refuse, followlinks=followlinks)


# -- publishing ----------------------------------------------------------------------------------


def verify_zip(path: Path, hint: str) -> None:
    """Compare each part of an archive (torch's weights) with its checksum; torch does not."""
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # whatever a damaged file makes it raise
        raise IntegrityFault(
            "files.archive-not-whole", f"{path}: damaged, no whole archive ({error}); {hint}"
        ) from error
    if damaged is not None:
        raise IntegrityFault(
            "files.archive-member-checksum-differs",
            f"{path}: damaged, {damaged} in it has another checksum; {hint}",
        )


@contextlib.contextmanager
def disk_errors(path: str | Path, needed: int | None = None) -> Iterator[None]:
    """Convert a disk error of a writer into a one-line fault.

    Args:
        path: the file or folder being written.
        needed: its bytes, if known.

    Raises:
        EnvironmentFault: a full disk, with the bytes needed and free; a read-only one, missing
            permission, a vanished folder.
    """
    try:
        yield
    except OSError as error:
        reason = _DISK.get(error.errno or 0, error.strerror or str(error))
        if isinstance(error, PermissionError):
            refuse_closed(Path(path))
        if error.errno not in ROOM:
            raise EnvironmentFault(
                "files.cannot-be-written",
                f"{path}: cannot be written: {reason}; choose another folder",
            ) from error
        space = "" if needed is None else f" {in_units(needed)} needed,"
        free = in_units(free_bytes(Path(path)))
        raise EnvironmentFault(
            "files.no-room-to-write",
            f"{path}: cannot be written: {reason};{space} {free} free there. "
            "Make room, or choose another folder",
        ) from error


def refuse_unwritable(folder: str | Path) -> None:
    """Refuse (EnvironmentFault) a folder that cannot be made or written to, before work for it."""
    folder = Path(folder).absolute()
    refuse_closed(folder)
    [there, *_] = [path for path in (folder, *folder.parents) if path.exists()]
    effective = os.access in os.supports_effective_ids  # those that count, where they are known
    may = os.access(there, os.W_OK | os.X_OK, effective_ids=effective)
    if not (there.is_dir() and may):
        raise EnvironmentFault(
            "files.folder-not-writable",
            f"{folder}: {there} is no folder that can be written to, expected a writable place; "
            "choose another -o",
        )


def free_bytes(path: Path) -> int | str:
    """Return the bytes free on the disk of a path, which need not exist."""
    for folder in (path, *path.absolute().parents):
        if folder.is_dir():
            return shutil.disk_usage(folder).free
    return "unknown"


def in_units(size: float | str) -> str:
    """Return bytes in a unit that fits: ``512 bytes``, ``4.2 MB``; a text as it is."""
    if isinstance(size, str):
        return size
    for unit, of in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if abs(size) >= 0.99995 * of:  # what would be rounded to 1000.0 of the next smaller unit
            return f"{size / of:.1f} {unit}"
    return f"{size:.0f} bytes"


def folder_bytes(folder: Path) -> int:
    """Return the bytes of all files in a folder, links not followed."""
    return sum(path.lstat().st_size for path in folder.rglob("*") if path.is_file())


def free_name(path: Path) -> Path:
    """Return the path if nothing is there, else the first one after it where nothing is.

    A number at its end is counted up, ``runs/g0`` to ``runs/g1``; without one, ``runs/own`` becomes
    ``runs/own-2``. A file keeps its suffix.
    """
    suffix = path.suffix if path.is_file() else ""
    named = str(path if path.name not in ("", "..") else path.absolute().resolve())
    named = named.removesuffix(suffix)
    stem = named.rstrip("0123456789")
    number = named[len(stem) :]
    stem, first = (stem, int(number)) if number else (f"{named}-", 1)
    others = (Path(f"{stem}{first + n:0{len(number)}}{suffix}") for n in itertools.count(1))
    return next(free for free in itertools.chain([path], others) if not os.path.lexists(free))


def elsewhere(path: Path) -> str:
    """Return the option that writes to a free place in place of a taken one: ``-o runs/g1``."""
    return f"-o {shlex.quote(str(free_name(path)))}"


def temporary_beside(path: Path) -> Path:
    """Return the name under which a file or folder is built before it is published."""
    return path.with_name(f".{path.name}.tmp-{os.getpid()}")


def replace_text(path: Path, text: str) -> None:
    """Write a small file atomically, without forcing it to the disk.

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
    """Reserve a file's first bytes on its disk; False if the file system cannot.

    Raises:
        OSError: the disk is full.
    """
    if not hasattr(os, "posix_fallocate"):
        return False
    try:
        os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        # Some file systems cannot reserve; a full disk then shows when writing.
        if error.errno not in (errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        return False
    return True


TEMPORARY = ".*.tmp-*"  # names of what ``temporary_beside`` returns


def remove_dead(path: Path, *, within: bool = False) -> None:
    """Remove what killed processes left beside a path, under names of ``temporary_beside``.

    Args:
        within: whatever they left in a folder, this path.
    """
    import psutil

    beside = path.parent, f".{glob.escape(path.name)}.tmp-*"
    folder, names = (path, TEMPORARY) if within else beside
    for left in folder.glob(names):
        pid = left.name.rpartition("-")[2]
        if pid.isdecimal() and not psutil.pid_exists(int(pid)):
            remove(left)


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_temporaries(folder: Path) -> None:
    """Remove an interrupted writer's files from a folder and the folders in it.

    No other process may write there.
    """
    for left in (*folder.glob(TEMPORARY), *folder.glob(f"*/{TEMPORARY}")):
        remove(left)


def write_bytes_atomic(
    path: str | Path, *parts: bytes | memoryview, reserved: bool = False
) -> None:
    """Write a file atomically: readers see all of it or none, also after a crash.

    Args:
        path: the file.
        parts: its bytes, in order; views are of bytes.
        reserved: reserve its space first, so that a file that does not fit never fills the disk.
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
    """Write a JSON document atomically; NaN and infinities are not JSON, and a bug."""
    text = json.dumps(doc, indent=2, ensure_ascii=False, allow_nan=False)
    write_bytes_atomic(path, (text + "\n").encode())


def publish_dir(temporary: str | Path, final: str | Path) -> None:
    """Publish a finished folder: flush everything in it to disk, then rename it.

    Args:
        temporary: the folder, on the same file system.
        final: its name; must not exist, or be an empty folder.
    """
    temporary, final = Path(temporary), Path(final)
    if final.exists() and (not final.is_dir() or any(final.iterdir())):
        raise UsageFault(
            "files.exists-already", f"{final}: exists already; choose another name, or remove it"
        )
    with disk_errors(final):
        for folder, _, names in os.walk(temporary, topdown=False):
            for name in names:
                path = Path(folder, name)
                if not path.is_symlink():
                    with path.open("rb") as stream:
                        os.fsync(stream.fileno())
            _sync_folder(Path(folder))
        os.replace(temporary, final)
        _sync_folder(final.parent)


@contextlib.contextmanager
def whole_folder(final: Path, *, anew: bool = False) -> Iterator[Path]:
    """Yield a temporary folder; it is renamed if the block succeeds, else removed.

    Args:
        final: its name; must not exist, or be an empty folder.
        anew: replace an existing folder.
    """
    temporary = temporary_beside(final)
    aside = final.with_name(f"{final.name}.old")
    replaced = temporary_beside(aside)
    with disk_errors(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        for path in (final, aside):
            remove_dead(path)
        for left in (temporary, replaced):
            shutil.rmtree(left, ignore_errors=True)
        temporary.mkdir()
    try:
        yield temporary
        if anew and final.exists():  # aside: a killed removal leaves nothing under its name
            os.replace(final, replaced)
        publish_dir(temporary, final)
    finally:
        for left in (temporary, replaced):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def new_or_same(final: Path, refusal: str) -> Iterator[Path]:
    """Yield a folder to write: ``final``, or where that has files one that must equal it."""
    if not (final.is_dir() and any(final.iterdir())):
        yield final
        return
    remove_dead(final)
    home = temporary_beside(final)
    again = home / final.name
    try:
        yield again
        names = _files_below(again)
        if names != _files_below(final):
            raise UsageFault("files.other-files-exist", refusal)
        for name in names:
            if not filecmp.cmp(again / name, final / name, shallow=False):
                raise UsageFault("files.other-files-exist", refusal)
    finally:
        shutil.rmtree(home, ignore_errors=True)


def _files_below(folder: Path) -> set[Path]:
    return {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()}


def publish_file(temporary: Path, final: Path) -> None:
    """Rename a finished file, already flushed to disk, to its name; replaces an existing one."""
    with disk_errors(final):
        os.replace(temporary, final)
        _sync_folder(final.parent)


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


_UNFIT = re.compile(r"[^A-Za-z0-9._+-]+")


def folder_name(text: str) -> str:
    """Return the folder name of a channel or class."""
    name = _UNFIT.sub("_", text)
    return name if name[0].isalnum() else f"c{name}"
