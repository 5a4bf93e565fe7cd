"""Files, folders and links of a folder: their names, kinds and attributes, and what is in them."""

from __future__ import annotations

import contextlib
import os
import stat as modes
from collections.abc import Iterator, Mapping
from pathlib import Path

from gansynth.errors import EnvironmentFault
from gansynth.integrity import reading
from gansynth.quality.traces.kinds import look_into
from gansynth.quality.traces.look import MOST_BYTES, Look
from gansynth.quality.traces.origin import hash_of


def entries(folder: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Everything in a folder by its path there, links not followed; folders first."""
    for home, folders, files in os.walk(folder):
        folders.sort()
        for name in sorted((*folders, *files)):
            path = os.path.join(home, name)
            yield os.path.relpath(path, folder), os.lstat(path)


def look_at_entry(
    path: Path, stat: os.stat_result, look: Look, inodes: Mapping[tuple[int, int], str]
) -> None:
    """What can be told without opening it: name, kind, links, attributes."""
    look.text("name", path.name, odd="is hidden" if path.name.startswith(".") else "")
    if modes.S_ISLNK(stat.st_mode):
        _look_at_link(path, look)
    elif not (modes.S_ISREG(stat.st_mode) or modes.S_ISDIR(stat.st_mode)):
        look.odd("kind", "neither file nor folder, expected one of them")
    elif same := inodes.get((stat.st_dev, stat.st_ino)):
        look.odd("content", f"is the source's {same} itself, by another name (a hard link)")
    if hasattr(os, "listxattr"):
        with contextlib.suppress(OSError):
            for key in os.listxattr(path, follow_symlinks=False):
                if key.startswith("user."):
                    value = os.getxattr(path, key, follow_symlinks=False)
                    said = value.decode("latin-1")
                    look.text(f"file attribute {key!r}", said, odd="is there, expected none")


def _look_at_link(path: Path, look: Look) -> None:
    target = os.readlink(path)
    home = os.path.realpath(path.parents[look.file.count(os.sep)])
    inside = Path(os.path.realpath(path)).is_relative_to(home) and not os.path.isabs(target)
    look.text("link", target, odd="" if inside else f"leads out of the folder, to {target!r}")


def look_inside(path: Path, stat: os.stat_result, look: Look) -> tuple[str, int]:
    """Look into a file; its SHA-256 and size.

    Raises:
        EnvironmentFault: it may not be read.
    """
    if stat.st_size > MOST_BYTES:
        look.odd("content", f"larger than {MOST_BYTES} bytes: nobody has looked inside")
        return "", 0
    with reading(path):
        data = path.read_bytes()
    try:
        look_into(data, look)
    except MemoryError as error:
        raise EnvironmentFault(
            f"{path}: not enough memory to look into {len(data)} bytes; free some"
        ) from error
    return hash_of(data), len(data)
