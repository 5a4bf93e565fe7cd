"""Notes on one folder that is looked through, file by file: what was found, and where."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy.typing as npt

from gansynth.quality.traces.names import Names, marks
from gansynth.quality.traces.prints import Print, prints_of

DEEPEST = 6
"""Archives within archives that are opened."""
MOST_BYTES = 4 << 30
"""A file, or what is packed in it, is looked into up to here."""


@dataclass(frozen=True)
class Finding:
    """One thing that should not be handed on: in which file, where in it, and what."""

    file: str
    place: str
    found: str

    def __str__(self) -> str:
        return " ".join(f"{self.file}: {self.place}: {self.found}".split())


@dataclass(frozen=True)
class Shown:
    """An array that could be an image: where it is, and its prints."""

    file: str
    place: str
    prints: frozenset[Print]


@dataclass(frozen=True)
class Frame:
    """Where a volume lies in its scanner, as its header has it to the bit; see ``nifti.frames``."""

    file: str
    place: str
    bits: bytes


@dataclass
class Notes:
    """All that was found in a folder.

    Attributes:
        findings: what should not be there.
        shown: arrays to be compared with the source's.
        frames: positions to be compared with the source's.
    """

    findings: list[Finding] = field(default_factory=list)
    shown: list[Shown] = field(default_factory=list)
    frames: list[Frame] = field(default_factory=list)


@dataclass(frozen=True)
class Look:
    """A look into one file; readers tell it what they see.

    Attributes:
        file: its path in the folder.
        names: what is looked for.
        notes: what was found so far.
        opener: looks into a file of any kind: ``opener(data, look)``.
        inner: what is packed in it and looked at now, outermost first.
        unpacked: what it is called without ``.gz``, where it has been unpacked.
    """

    file: str
    names: Names
    notes: Notes
    opener: Callable[[bytes, Look], None]
    inner: tuple[str, ...] = ()
    unpacked: str = ""

    @property
    def name(self) -> str:
        """The name of what is looked at, by which its kind is told where its bytes do not say."""
        return self.inner[-1] if self.inner else self.unpacked or self.file

    def renamed(self, name: str) -> Look:
        """The same look, at what it unpacks to."""
        if self.inner:
            return replace(self, inner=(*self.inner[:-1], name))
        return replace(self, unpacked=name)

    def odd(self, place: str, found: str) -> None:
        """Note what should not be there, whoever it names."""
        self.notes.findings.append(Finding(self.file, self._at(place), found))

    def text(self, place: str, text: str, *, key: str = "", odd: str = "") -> None:
        """Look through a text.

        Args:
            place: where it stands.
            text: the text.
            key: what it is the value of, if anything.
            odd: what is wrong with there being a text at all; it is noted then in any case.
        """
        said = [odd] if odd else []
        seen, named = marks(text), self.names.valued(key, text)
        # Of a path that is told as a whole the folders are not told again.
        said += [f"names {name}" for name in named if not (seen and name.what == "folder")]
        said += [f"holds {mark}" for mark in seen]
        if said:
            self.odd(place, "; ".join(said))

    def picture(self, place: str, array: npt.NDArray[Any], *, stack: int = 0) -> None:
        """Note an array that could be an image.

        Args:
            place: where it is.
            array: of any shape and type.
            stack: leading axes that may count images or channels; each of these is noted too.
        """
        found = prints_of(array, stack)
        if found:
            self.notes.shown.append(Shown(self.file, self._at(place), found))

    def frame(self, place: str, bits: bytes) -> None:
        """Note where a volume lies in its scanner."""
        self.notes.frames.append(Frame(self.file, self._at(place), bits))

    def open(self, name: str, data: bytes) -> None:
        """Look into what is packed in this file."""
        if len(self.inner) >= DEEPEST:
            self.odd(f"{name!r} in it", f"packed {DEEPEST} times over: nobody has looked inside")
            return
        self.opener(data, replace(self, inner=(*self.inner, name)))

    def _at(self, place: str) -> str:
        packed = " in ".join(repr(name) for name in reversed(self.inner))
        return f"{place} of {packed} in it" if packed else place
