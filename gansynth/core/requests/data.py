"""``gansynth cache``, ``hard-cases`` and ``show``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gansynth.core.requests.base import File, Folder, Opt
from gansynth.core.requests.sections import CaseData, MovedData


class CacheRequest(CaseData):
    """Copy the cases of any source into one HDF5 file that is fast to read.

    Use it as --data h5:FILE, with the same --fold. Guards against leakage treat the copy as the
    original: same cases, subjects, fold and space.
    """

    settings = ""
    data: Annotated[str, Opt(argument=True, metavar="KIND:WHERE")] = Field(kw_only=False)
    """The cases, e.g. nnunet:004."""
    out: Annotated[File, Opt(flags=("-o", "--out"), called="-o")]
    """The new file."""
    dtype: Literal["float32", "float16"] = "float32"
    """How images are stored; float16 halves the file and keeps three digits."""
    compression: Literal["none", "lzf", "gzip"] = "none"
    """Compression of the file; none reads fastest."""
    chunk: int = Field(default=24, ge=8, le=256)
    """Longest edge of a chunk, in voxels."""
    dry_run: bool = False
    """Check everything and print the plan; write nothing."""


class ShowRequest(MovedData):
    """Print where the files of a run are, and how far it has come.

    RUN is a folder that gansynth fit wrote, or is writing. An unfinished or damaged run is shown as
    far as possible. Exit code 6 if something is damaged.
    """

    settings: ClassVar[str] = ""
    needs: ClassVar[Mapping[str, str]] = {"data": "verify_lineage", "root": "verify_lineage"}
    run: Annotated[Folder, Opt(argument=True, metavar="RUN")] = Field(kw_only=False)
    """The run, or its folder."""
    verify_lineage: bool = False
    """Read the training cases of the run's data set and fold again, and compare them with those
    that the run records; exit code 6 if any differs."""
