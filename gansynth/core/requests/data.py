"""``gansynth cache``."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from gansynth.core.requests.base import File, Opt
from gansynth.core.requests.sections import CaseData


class CacheRequest(CaseData):
    """Copy the cases of any source into one HDF5 file that is fast to read.

    Use it as --data h5:FILE, with the same --fold. Guards against leakage treat the copy as the
    original: same cases, subjects, fold and space.

    Without -o, tell what other commands have kept on disk of these cases, which is made once: their
    records, outlines, backgrounds, and arrays that do not fit into memory.
    """

    command = "cache"
    settings = ""
    needs = {
        **dict.fromkeys(("dtype", "compression", "chunk", "dry_run"), "out"),
        "clear": "!out",
    }
    data: Annotated[str, Opt(argument=True, metavar="KIND:WHERE")] = Field(kw_only=False)
    """The cases, e.g. nnunet:004."""
    out: Annotated[File | None, Opt(flags=("-o", "--out"), called="-o")] = None
    """The new file."""
    clear: bool = False
    """Remove what is kept of these cases; the next command that needs it makes it again."""
    dtype: Literal["float32", "float16"] = "float32"
    """How images are stored; float16 halves the file and keeps three digits."""
    compression: Literal["none", "lzf", "gzip"] = "none"
    """Compression of the file; none reads fastest."""
    chunk: int = Field(default=24, ge=8, le=256)
    """Longest edge of a chunk, in voxels."""
    dry_run: bool = False
    """Check everything and print the plan; write nothing."""
