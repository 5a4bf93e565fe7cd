"""A disk that is full, and a folder that is closed, for this process."""

import contextlib
import ctypes
import resource
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As if the disk were full after so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextlib.contextmanager
def of_mode(path: Path, mode: int) -> Iterator[None]:
    """Give a file or folder this mode, and obey it: root gives up its capabilities meanwhile."""
    before = path.stat().st_mode
    path.chmod(mode)
    kernel, header = ctypes.CDLL(None), (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3, itself
    held, none = (ctypes.c_uint32 * 6)(), (ctypes.c_uint32 * 6)()
    kernel.capget(header, held)
    none[1], none[4] = held[1], held[4]  # permitted ones, which may be taken up again
    kernel.capset(header, none)
    try:
        yield
    finally:
        kernel.capset(header, held)
        path.chmod(before)
