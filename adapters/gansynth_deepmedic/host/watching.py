"""Wrappers of the real program's objects that report or slightly change its behaviour.

A TensorFlow session and a saver report steps and checkpoints. A stream records printed errors. A
sampling type centres the segments of a synthetic case where it is synthetic.
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
"""Name of the union of all labels but 0, which DeepMedic reports as class 0."""
_LONGEST = 400
_TRACEBACK = "Traceback (most recent call last):"
Mask = Callable[[Sequence[int], Sequence[int]], npt.NDArray[Any]]
"""Segment and volume size (x, y, z) -> mask of centres of whole segments."""


class WatchedSession:
    """A TensorFlow session that reports the times of training steps."""

    def __init__(self, original: Any, note: Callable[[float, float, float], None]) -> None:
        self._original, self._note = original, note

    def run(self, fetches: Any, feed_dict: Mapping[Any, Any] | None = None, **named: Any) -> Any:
        """Run the graph; a run with a batch is a step."""
        begin = time.monotonic()
        results = self._original.run(fetches=fetches, feed_dict=feed_dict, **named)
        if feed_dict and isinstance(results, list):
            self._note(begin, time.monotonic(), float(results[0]))
        return results

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


class WatchedSaver:
    """A saver that reports every checkpoint."""

    def __init__(self, original: Any, note: Callable[[str], None]) -> None:
        self._original, self._note = original, note

    def save(self, session: Any, path: str, **named: Any) -> Any:
        """Save a checkpoint."""
        saved = self._original.save(session, path, **named)
        self._note(str(path))
        return saved

    def __getattr__(self, name: str) -> Any:
        return getattr(self._original, name)


class OutputListener:
    """A stream that passes on printed text and records DeepMedic's errors.

    DeepMedic prints a caught exception as a traceback, and the cause of its end in a line with
    ``ERROR``.

    Attributes:
        error: the text after ``ERROR`` of the last such line.
        caught: the exception of the last traceback, with its line of code if it has no message.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream
        self.error, self.caught = "", ""

    def write(self, text: str) -> int:
        """Print text; DeepMedic prints one message at a time."""
        if "ERROR" in text:
            self.error = " ".join(text[text.rindex("ERROR") + 5 :].strip(": \t\n").split())
        if _TRACEBACK in text:
            self.caught = _exception(text[text.rindex(_TRACEBACK) :]) or self.caught
        return self._stream.write(text)

    def reason(self) -> str:
        """Return the reported cause of the end."""
        return textwrap.shorten(self.caught or self.error or "it did not say why", _LONGEST)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def listen() -> OutputListener:
    """Record printed text from now on."""
    heard = OutputListener(sys.stdout)
    sys.stdout = heard
    return heard


def _exception(traceback: str) -> str:
    """Return the exception at the end of a traceback, or ""."""
    lines = traceback.splitlines()[1:]
    place = next((n for n, line in enumerate(lines) if line and not line[0].isspace()), None)
    if place is None:
        return ""
    text = " ".join(lines[place].split())
    code = [line.strip() for line in lines[:place] if line.strip(" ^~")]
    return text if ":" in text or not code else f"{text}: {code[-1]}"


def dice_of(means: Mapping[str, Sequence[Any]] | None) -> dict[str, float]:
    """Return the mean Dice of each label over the validation cases from DeepMedic's report.

    Predictions are limited to the region of interest, and so is this Dice: ``dice2``. A label that
    no case has ("N/A") is left out.
    """
    if means is None:
        return {}
    scores = means["dice2"]
    names = [FOREGROUND, *map(str, range(1, len(scores)))]
    pairs = zip(names, scores, strict=True)
    return {name: float(score) for name, score in pairs if not isinstance(score, str)}


class SyntheticCentres:
    """A sampling type for one synthetic case, which wraps the original one.

    The mask of the synthetic part replaces DeepMedic's weight maps, because these are padded and
    augmented with the case.

    Args:
        segment: voxels of a segment along x, y, z.

    Attributes:
        spread: whether no category had a centre in the synthetic part, so that the whole case was
            used.
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
        """Return a map (X, Y, Z) for each category of the sampling type.

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
    """Return the mask of the synthetic part as DeepMedic's weight maps: (1, X, Y, Z)."""
    return core[np.newaxis].astype(np.float32)
