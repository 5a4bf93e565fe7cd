"""Stand-ins for objects of the real program, which note what it does or change a little of it.

A session of TensorFlow and a saver tell of steps and checkpoints, what is printed is listened to,
and a sampling type centres the segments of a synthetic case where it is synthetic.
"""

from __future__ import annotations

import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import IO, Any

import numpy as np
import numpy.typing as npt

FOREGROUND = "foreground"
"""All labels but 0 together; DeepMedic reports them as class 0."""
_LONGEST = 400
_TRACEBACK = "Traceback (most recent call last):"
Mask = Callable[[Sequence[int], Sequence[int]], npt.NDArray[Any]]
"""Segment and volume, voxels along x, y, z -> where a whole segment fits around a centre."""


class Session:
    """A TensorFlow session that notes when a training step began and ended."""

    def __init__(self, original: Any, note: Callable[[float, float, float], None]) -> None:
        self._original, self._note = original, note

    def run(self, fetches: Any, feed_dict: Mapping[Any, Any] | None = None, **named: Any) -> Any:
        """Run the graph; a run that is fed a batch is a step."""
        begin = time.monotonic()
        results = self._original.run(fetches=fetches, feed_dict=feed_dict, **named)
        if feed_dict and isinstance(results, list):
            self._note(begin, time.monotonic(), float(results[0]))
        return results

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


class Saver:
    """A saver of checkpoints that notes each one."""

    def __init__(self, original: Any, note: Callable[[str], None]) -> None:
        self._original, self._note = original, note

    def save(self, session: Any, path: str, **named: Any) -> Any:
        """Save a checkpoint."""
        saved = self._original.save(session, path, **named)
        self._note(str(path))
        return saved

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


class Heard:
    """Passes on what is printed, and keeps what DeepMedic says when something goes wrong.

    It prints an exception that it has caught as a traceback, and what it ends for in a line with
    ``ERROR``.

    Attributes:
        error: the last such line, without what comes before ``ERROR``.
        caught: the exception of the last traceback; its line of code, too, where it says nothing.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.error, self.caught = "", ""

    def write(self, text: str) -> int:
        """Print text; DeepMedic prints a message at a time."""
        if "ERROR" in text:
            self.error = " ".join(text[text.rindex("ERROR") + 5 :].strip(": \t\n").split())
        if _TRACEBACK in text:
            self.caught = _exception(text[text.rindex(_TRACEBACK) :]) or self.caught
        return self._stream.write(text)

    def reason(self) -> str:
        """Why it ended, as far as it said so."""
        return textwrap.shorten(self.caught or self.error or "it did not say why", _LONGEST)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def listen() -> Heard:
    """Keep what is printed from now on."""
    heard = Heard(sys.stdout)
    sys.stdout = heard
    return heard


def _exception(traceback: str) -> str:
    """The exception that a traceback ends with; "" if it does not."""
    lines = traceback.splitlines()[1:]
    place = next((n for n, line in enumerate(lines) if line and not line[0].isspace()), None)
    if place is None:
        return ""
    text = " ".join(lines[place].split())
    code = [line.strip() for line in lines[:place] if line.strip(" ^~")]
    return text if ":" in text or not code else f"{text}: {code[-1]}"


def dice_of(means: Mapping[str, Sequence[Any]] | None) -> dict[str, float]:
    """Mean Dice of each label over the validation cases, from DeepMedic's own report.

    Its predictions are kept within the region of interest, and so is this: ``dice2``. A label that
    no case has ("N/A") is left out.
    """
    if means is None:
        return {}
    scores = means["dice2"]
    names = [FOREGROUND, *map(str, range(1, len(scores)))]
    pairs = zip(names, scores, strict=True)
    return {name: float(score) for name, score in pairs if not isinstance(score, str)}


class Centres:
    """A sampling type for one synthetic case; what it does not change is the original's.

    The case's part that is synthetic comes where DeepMedic has its maps of weights, for these go
    through padding and augmentation with the case.

    Args:
        segment: voxels of a segment along x, y, z.

    Attributes:
        spread: no category had a centre in the synthetic part, so that the whole case was used.
    """

    def __init__(self, original: Any, mask: Mask, segment: Sequence[int]) -> None:
        self._original, self._mask, self._segment = original, mask, segment
        self.spread = False

    def derive_sampling_maps_per_cat(
        self,
        core: npt.NDArray[Any] | Sequence[npt.NDArray[Any]],
        labels: npt.NDArray[Any],
        roi: npt.NDArray[Any] | None,
        shape: Sequence[int],
    ) -> list[npt.NDArray[Any]]:
        """A map (X, Y, Z) for each category of the sampling type.

        Args:
            core: (1, X, Y, Z), 1 where the case is synthetic.
            labels: (X, Y, Z).
            roi: (X, Y, Z); None for everywhere.
            shape: X, Y, Z.
        """
        everywhere = self._original.derive_sampling_maps_per_cat(None, labels, roi, shape)
        inside = core[0] > 0.5
        # int16: DeepMedic multiplies by a mask of int8, in the map's own type.
        maps = [np.asarray((category != 0) & inside, np.int16) for category in everywhere]
        fits = self._mask(self._segment, shape) != 0
        shares = self._original.get_perc_to_sample_per_cat()
        if any(
            share > 0 and (category[fits] != 0).any()
            for share, category in zip(shares, maps, strict=True)
        ):
            return maps
        self.spread = True
        return list(everywhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


def core_as_weights(core: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Where a case is synthetic, in the place of DeepMedic's maps of weights: (1, X, Y, Z)."""
    return core[np.newaxis].astype(np.float32)
