"""Reads the progress of a training process (``order.Progress``), and counts its cases."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_SECONDS = 0.25


class LineFollower:
    """Reads each whole line of a growing file once."""

    def __init__(self, file: Path) -> None:
        self.file, self._read = file, 0

    def new(self) -> Iterator[Mapping[str, Any]]:
        """Yield the documents of new lines; invalid lines are skipped."""
        try:
            with self.file.open("rb") as stream:
                stream.seek(self._read)
                text = stream.read()
        except FileNotFoundError:
            return
        whole = text[: text.rfind(b"\n") + 1]  # a line in the making waits for the next look
        self._read += len(whole)
        for line in whole.splitlines():
            try:
                document = json.loads(line)
            except ValueError:
                continue
            if isinstance(document, dict):
                yield document


@contextmanager
def watch(
    file: Path, take: Callable[[Mapping[str, Any]], None], say: Callable[[str], None]
) -> Iterator[None]:
    """Pass a training's progress to ``take`` from a separate thread.

    An exception of ``take`` is reported once, and the training continues.
    """
    lines, done, failed = LineFollower(file), threading.Event(), threading.Event()

    def look() -> None:
        try:
            for document in lines.new():
                take(document)
        except Exception as error:  # training continues without complete counts
            if not failed.is_set():
                failed.set()
                say(
                    "WARNING: the training continues, but its progress is not "
                    f"completely counted: {type(error).__name__}: {error}"
                )

    def keep_looking() -> None:
        while not done.wait(_SECONDS):
            look()

    thread = threading.Thread(target=keep_looking, name="gansynth-watch", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        look()


@dataclass
class SubepochCounts:
    """The cases of one subepoch."""

    # number of the slot -> its last document
    jobs: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    trained: bool = False  # whether all its batches are done

    def cases(self, *kinds: str) -> int:
        """Cases of these kinds."""
        return sum(job["kind"] in kinds for job in self.jobs.values())

    def segments(self, *kinds: str) -> int:
        """Return the segments of cases of these kinds."""
        return sum(int(job["segments"]) for job in self.jobs.values() if job["kind"] in kinds)

    @property
    def spread(self) -> int:
        """Synthetic cases with segments centred anywhere, as the sample had no room for one."""
        return sum(bool(job.get("spread")) for job in self.jobs.values())

    def to_json(self, number: int) -> dict[str, Any]:
        """Return the counts for the record."""
        real = ("real", "fallback")
        return {
            "subepoch": number + 1,
            "cases_real": self.cases(*real),
            "cases_synthetic": self.cases("synthetic"),
            "fell_back": self.cases("fallback"),
            "segments_real": self.segments(*real),
            "segments_synthetic": self.segments("synthetic"),
            "samples": len({job["sample"] for job in self.jobs.values() if job["sample"]}),
            "spread": self.spread,
            "trained": self.trained,
        }

    def sentence(self) -> str:
        """Return the counts in words."""
        counts = self.to_json(0)
        text = (
            f"{counts['cases_real']} real and {counts['cases_synthetic']} synthetic cases "
            f"({counts['segments_real']} and {counts['segments_synthetic']} segments)"
        )
        if counts["fell_back"]:
            text += f"; {counts['fell_back']} of the real ones in place of a missing synthetic one"
        if counts["spread"]:
            text += f"; segments of {counts['spread']} of the synthetic ones lie anywhere in them"
        return text
