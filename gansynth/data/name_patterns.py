"""Patterns of files' names, for layouts that no list of layouts has: ``volume-{case}.nii.gz``."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator

from gansynth.runtime.files import walk_all
from gansynth.runtime.nifti import is_series

LIKE_LABELS = re.compile(r"lab(el|le)|mask|(^|[^a-z])(seg|gt)([^a-z]|$)|segment|annot|truth", re.I)
"""Names that are likely those of label maps."""
_PART = re.compile(r"\{(?P<name>case|channel)(?::(?P<glob>[^{}/]+))?\}|\*\*/|\*|\?|[^*?{}]+")
_WILD = {"*": "[^/]*", "?": "[^/]", "**/": "(?:.*/)?"}


class NamedFile(NamedTuple):
    """A file that a pattern fits; ``channel`` is empty where the pattern has none."""

    case: str
    channel: str


@dataclass(frozen=True)
class NamePattern:
    """A pattern of paths below a folder, with ``/`` between parts.

    ``{case}`` stands for a case's name and must be there, ``{channel}`` for a channel's, both
    within one part. ``*`` and ``?`` fit what they fit in a shell, ``**/`` any folders.
    ``{case:GLOB}`` fits names like the glob alone. What occurs twice is the same both times.
    """

    text: str

    @cached_property
    def _fits(self) -> re.Pattern[str]:
        written, seen = "", set[str]()
        for part in _PART.finditer(self.text):
            name = part["name"]
            if name is None:
                written += _WILD.get(part[0]) or re.escape(part[0])
            elif name in seen:
                written += f"(?P={name})"
            else:
                seen.add(name)
                written += f"(?P<{name}>{_name_fitting(part['glob'])})"
        return re.compile(written, re.DOTALL)

    def fits(self, path: str) -> NamedFile | None:
        """Return the case and channel of a path below the folder; None if it does not fit."""
        match = self._fits.fullmatch(path)
        if match is None:
            return None
        found = match.groupdict()
        return NamedFile(found["case"], found.get("channel") or "")

    def named(self, case: str, channel: str) -> str:
        """Return the path that a case's file is expected at; wildcards stay."""
        names = {"case": case, "channel": channel}
        return _PART.sub(lambda part: names[part["name"]] if part["name"] else part[0], self.text)


def _name_fitting(glob: str | None) -> str:
    if glob is None:
        return "[^/]+?"
    return "".join([_WILD.get(sign) or re.escape(sign) for sign in glob])


def read_pattern(text: str) -> NamePattern:
    """Parse a pattern; ValueError: it is none."""
    whole = "".join([part[0] for part in _PART.finditer(text)]) == text
    if not whole or "{case" not in text:
        raise ValueError(
            "expected a pattern of paths with {case} in it, such as volume-{case}.nii.gz or "
            "{case}/{channel}.nii.gz"
        )
    return NamePattern(text)


Pattern = Annotated[
    NamePattern,
    BeforeValidator(lambda value: read_pattern(value) if isinstance(value, str) else value),
]


def files_fitting(
    folder: Path, image: NamePattern, label: NamePattern | None
) -> Iterator[tuple[Path, NamedFile, bool]]:
    """Yield the files below a folder that fit a pattern, and whether it is that of label maps.

    A file that fits both is a label map.
    """
    for text, path in files_below(folder):
        drawn = None if label is None else label.fits(text)
        found = image.fits(text) if drawn is None else drawn
        if found is not None:
            yield path, found, drawn is not None


def files_below(folder: Path) -> Iterator[tuple[str, Path]]:
    """Yield all files below a folder that are not hidden: as a pattern sees them, and paths.

    A folder of DICOM files is yielded as well: its files are one volume.
    """
    for at, folders, names in walk_all(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        series = [name for name in folders if is_series(Path(at) / name)]
        for name in sorted([*names, *series]):
            if not name.startswith("."):
                path = Path(at) / name
                yield path.relative_to(folder).as_posix(), path
