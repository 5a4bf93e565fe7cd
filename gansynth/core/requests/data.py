"""``gansynth cache``, ``hard-cases`` and ``show``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from gansynth.core.requests.base import File, Folder, Many, Opt, Request, Values
from gansynth.core.requests.sections import CaseData


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


class HardCasesRequest(CaseData):
    """Find hard cases by inner folds of the training cases.

    Every lesion of a fold's training cases is evaluated by a segmenter trained without its case.
    The file has failure rates by size, place and class of lesions. --sampling-weights FILE then
    takes hard conditions more often, and of those without a lesion such as had false alarms
    (gansynth help hard_cases). The fold's held-out cases are not opened.
    """

    out: Annotated[File | None, Opt(flags=("-o", "--out"), called="-o")] = None
    """The new file."""
    inner: int = Field(default=3, ge=2)
    """Inner folds."""
    steps: Annotated[int | None, Opt(needs="!predictions")] = Field(default=None, ge=1)
    """Steps of each small segmenter.  [default: 400]"""
    predictions: Annotated[Folder | Sequence[Folder], Many] = ()
    """Predicted label maps of the training cases on inner folds, CASE.nii.gz; may be repeated.
    [default: a small segmenter is trained on each inner fold]"""
    write_splits: File | None = None
    """Write the inner folds there, in the format of nnU-Net."""
    set: Annotated[Values, Opt(keys=True, example="steps=2000")] = {}
    """Change one setting (gansynth options NAME lists them); may be repeated."""
    device: Annotated[str, Opt(needs="!predictions")] = "auto"
    """auto, cpu, cuda or cuda:N."""
    dry_run: bool = False
    """Check everything and print the plan; write nothing."""


class ShowRequest(Request):
    """Print where the files of a run are, and how far it has come.

    RUN is a folder that gansynth fit wrote, or is writing. An unfinished or damaged run is shown as
    far as possible. Exit code 6 if something is damaged.
    """

    settings: ClassVar[str] = ""
    run: Annotated[Folder, Opt(argument=True, metavar="RUN")] = Field(kw_only=False)
    """The run, or its folder."""
