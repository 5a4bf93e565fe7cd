"""Patterns of files' names, for layouts that no list of layouts has: ``volume-{case}.nii.gz``."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator

from gansynth.runtime.files import walk_all
from gansynth.runtime.nifti import is_series

LIKE_LABELS = re.compile(r"lab(el|le)|mask|(^|[^a-z])(seg|gt)([^a-z]|$)|segment|annot|truth", re.I)
"""Names that are likely those of label maps."""
OF_LABELS = ("label", "rater", "part")
"""What the names of label maps alone may say: of which label a file is, who drew it, which part."""
_PART = re.compile(
    r"\{(?P<name>case|channel|label|rater|part)(?::(?P<glob>[^{}/]+))?\}|\*\*/|\*|\?|[^*?{}]+"
)
_WILD = {"*": "[^/]*", "?": "[^/]", "**/": "(?:.*/)?"}


class NamedFile(NamedTuple):
    """A file that a pattern fits; what the pattern does not have is empty."""

    case: str
    channel: str = ""
    label: str = ""
    rater: str = ""


@dataclass(frozen=True)
class NamePattern:
    """A pattern of paths below a folder, with ``/`` between parts.

    ``{case}`` stands for a case's name and must be there, ``{channel}`` for a channel's, both
    within one part. ``*`` and ``?`` fit what they fit in a shell, ``**/`` any folders.
    ``{case:GLOB}`` fits names like the glob alone. What occurs twice is the same both times.
    A case has several label maps where the pattern says so: ``{label}`` is a label's name,
    ``{rater}`` who drew it, ``{part}``, which may be empty, what the rest tells apart.
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
                fitting = "[^/]*?" if name == "part" else _name_fitting(part["glob"])
                written += f"(?P<{name}>{fitting})"
        return re.compile(written, re.DOTALL)

    def fits(self, path: str) -> NamedFile | None:
        """Return the case and channel of a path below the folder; None if it does not fit."""
        match = self._fits.fullmatch(path)
        if match is None:
            return None
        found = match.groupdict(default="")
        return NamedFile(**{name: found[name] for name in NamedFile._fields if name in found})

    @property
    def several(self) -> bool:
        """Whether a case may have several files that it fits."""
        return any([f"{{{name}" in self.text for name in OF_LABELS])

    def named(self, case: str, channel: str) -> str:
        """Return the path that a case's file is expected at; wildcards stay."""
        names = {"case": case, "channel": channel}
        return _PART.sub(lambda part: names.get(part["name"], part[0]), self.text)


def _name_fitting(glob: str | None) -> str:
    if glob is None:
        return "[^/]+?"
    return "".join([_WILD.get(sign) or re.escape(sign) for sign in glob])


def read_pattern(text: str, *, of_labels: bool = False) -> NamePattern:
    """Parse a pattern; ValueError: it is none. ``of_labels``: a case may have several files."""
    whole = "".join([part[0] for part in _PART.finditer(text)]) == text
    pattern = NamePattern(text)
    if whole and pattern.several and not of_labels:
        raise ValueError(
            "{label}, {rater} and {part} join label maps of volumes, which pictures are read as "
            "with the same keys by slices:nifti:FOLDER"
        )
    if not whole or "{case" not in text:
        raise ValueError(
            "expected a pattern of paths with {case} in it, such as volume-{case}.nii.gz or "
            "{case}/{channel}.nii.gz"
        )
    return pattern


Pattern = Annotated[
    NamePattern,
    BeforeValidator(lambda value: read_pattern(value) if isinstance(value, str) else value),
]


def files_fitting(
    folder: Path,
    image: NamePattern,
    label: NamePattern | None,
    labels: Collection[str] | None = None,
) -> Iterator[tuple[Path, NamedFile, bool]]:
    """Yield the files below a folder that fit a pattern, and whether it is that of label maps.

    A file that fits both is a label map; unless it is of a label that is not among ``labels``.
    """
    for text, path in files_below(folder):
        shown, drawn = image.fits(text), None if label is None else label.fits(text)
        if shown and drawn and drawn.label and labels is not None and drawn.label not in labels:
            drawn = None
        found = drawn or shown
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
