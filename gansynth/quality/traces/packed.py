"""Files that hold others: gzip, zip (and ``.npz``), tar."""

from __future__ import annotations

import gzip
import io
import tarfile
import zipfile
from pathlib import PurePath

from gansynth.quality.traces.look import MOST_BYTES, Look

_EPOCH = (1980, 1, 1, 0, 0, 0)
_EXTRA, _NAME, _COMMENT = 4, 8, 16
_ZIP64 = 0x0001


def is_gzip(data: bytes, name: str) -> bool:
    """Whether it is a gzip file."""
    return data[:2] == b"\x1f\x8b"


def read_gzip(data: bytes, look: Look) -> None:
    """Look at a gzip header and into what is packed.

    Raises:
        OSError, EOFError: it is damaged.
    """
    own = PurePath(look.name).name
    inside = own[:-3] if own.lower().endswith(".gz") else own
    if when := int.from_bytes(data[4:8], "little"):
        look.odd("gzip header", f"has the time {when} (seconds since 1970), expected none")
    flags, at = data[3], 10
    if flags & _EXTRA:
        length = int.from_bytes(data[10:12], "little")
        look.text("gzip header", _latin(data[12 : 12 + length]), odd="has an extra field")
        at += 2 + length
    for flag, what in ((_NAME, "file name"), (_COMMENT, "comment")):
        if flags & flag:
            end = data.index(b"\0", at)
            said, at = _latin(data[at:end]), end + 1
            if what == "comment" or said != inside:
                look.text("gzip header", said, odd=f"has the {what} {said!r}, expected none")
    with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
        plain = stream.read(MOST_BYTES + 1)
    if len(plain) > MOST_BYTES:
        look.odd("content", f"unpacks to more than {MOST_BYTES} bytes: nobody has looked inside")
        return
    look.opener(plain, look.renamed(inside))


def is_zip(data: bytes, name: str) -> bool:
    """Whether it is a zip archive: ``.npz``, torch's checkpoints, office documents."""
    return data[:4] in (b"PK\x03\x04", b"PK\x05\x06")


def read_zip(data: bytes, look: Look) -> None:
    """Look at the entries of a zip archive and into each.

    Raises:
        zipfile.BadZipFile, RuntimeError, NotImplementedError: it is damaged or encrypted.
    """
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        entries = archive.infolist()
        if archive.comment:
            look.text("zip comment", _latin(archive.comment), odd="there is one, expected none")
        if any(entry.date_time != _EPOCH for entry in entries):
            look.odd("zip entries", "have times, expected none (1980-01-01)")
        if sum(entry.file_size for entry in entries) > MOST_BYTES:
            look.odd("content", f"unpacks to more than {MOST_BYTES} bytes: nobody has looked in")
            return
        for entry in entries:
            look.text("zip entry", entry.filename)
            if entry.comment or _fields(entry.extra) - {_ZIP64}:
                told = _latin(entry.comment + entry.extra)
                look.text(f"zip entry {entry.filename!r}", told, odd="has extra fields")
            if not entry.is_dir():
                look.open(entry.filename, archive.read(entry))


def is_tar(data: bytes, name: str) -> bool:
    """Whether it is a tar archive."""
    return data[257:262] == b"ustar"


def read_tar(data: bytes, look: Look) -> None:
    """Look at the entries of a tar archive and into each.

    Raises:
        tarfile.TarError: it is damaged.
    """
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        entries = archive.getmembers()
        if len({int(entry.mtime) for entry in entries}) > 1:
            look.odd("tar entries", "have times of their own, expected one for all")
        for owner in sorted({n for entry in entries for n in (entry.uname, entry.gname) if n}):
            if owner != "root":
                look.text(
                    "tar entries", owner, odd=f"belong to {owner!r}, expected nobody (--owner=0)"
                )
        for entry in entries:
            look.text("tar entry", entry.name)
            if entry.linkname:
                look.text(f"tar entry {entry.name!r}", entry.linkname, odd="is a link")
            stream = archive.extractfile(entry) if entry.isfile() else None
            if stream is not None:
                look.open(entry.name, stream.read())


def _fields(extra: bytes) -> set[int]:
    """Kinds of the extra fields of a zip entry."""
    found, at = set(), 0
    while at + 4 <= len(extra):
        found.add(int.from_bytes(extra[at : at + 2], "little"))
        at += 4 + int.from_bytes(extra[at + 2 : at + 4], "little")
    return found


def _latin(data: bytes) -> str:
    return data.decode("latin-1")
