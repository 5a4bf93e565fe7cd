"""Rejected samples as small pictures with boxes, and the reason for each rejection.

``rejected.jsonl`` has a line for each picture.
"""

from __future__ import annotations

import contextlib
import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.report.png import boxes_at, middle_slice, outlined, png_bytes, scaled
from gansynth.runtime.errors import DataFault, EnvironmentFault
from gansynth.runtime.files import write_bytes_atomic
from gansynth.sampling.quality_gate import reject_reason_of

LINES = "rejected.jsonl"
EACH, MOST = 32, 200  # pictures kept for one reason, and in total
EDGE = 128  # pixels along a picture's longest edge, about; more for larger images
LARGEST = 512  # larger images are subsampled to at most that many pixels along an edge


class RejectedSamples:
    """Save the first rejected samples of each reason as pictures. It raises nothing.

    Args:
        folder: folder of the pictures, made with the first one. None saves nothing.
        schema: schema of the samples.
        say: called once, with one line, if nothing can be saved any more.
    """

    def __init__(self, folder: Path | None, schema: Schema, say: Callable[[str], None]) -> None:
        self.folder, self.schema, self.say = folder, schema, say
        self._kept = Counter[str]() if folder is None else _kept_before(folder / LINES)

    def keep(self, sample: Sample, fault: DataFault, index: int) -> None:
        """Save a rejected sample, in any state, unless there are enough of its kind."""
        reason = reject_reason_of(fault)
        if self.folder is None or self._kept[reason] >= EACH or self._kept.total() >= MOST:
            return
        try:
            self._write(self.folder, sample, str(fault), reason, index)
            self._kept[reason] += 1
        except (OSError, EnvironmentFault, ValueError, TypeError) as error:
            why = " ".join(str(error).split())
            said = "rejected samples are no longer kept as pictures"
            self.say(f"{self.folder}: {said}: {why}; the rest goes on")
            self.folder = None

    def _write(self, folder: Path, sample: Sample, fault: str, reason: str, index: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        name: str | None = f"rejected-{self._kept.total():04d}.png"
        try:
            picture = png_bytes(preview(sample, self.schema))
        except Exception:  # a picture may be impossible: then only its line is saved
            name = None
        else:
            write_bytes_atomic(folder / str(name), picture)
        boxes = sample.boxes
        line = {
            "picture": name,
            "index": index,
            "reason": reason,
            "fault": fault,
            "boxes": None
            if boxes is None
            else np.column_stack([boxes.labels, boxes.coords]).tolist(),
            "provenance": dict(sample.provenance),
        }
        text = json.dumps(line, allow_nan=False, default=str) + "\n"
        # Appended in one write: a line is complete, or it is the last one and skipped.
        with open(folder / LINES, "a", encoding="utf-8") as stream:
            stream.write(text)


def _kept_before(path: Path) -> Counter[str]:
    """Count the pictures of each reason that an earlier producer saved."""
    counts: Counter[str] = Counter()
    with contextlib.suppress(OSError):
        for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
            try:
                counts[str(json.loads(line)["reason"])] += 1
            except (ValueError, KeyError, TypeError):  # cut off by a kill; its picture exists
                counts["torn"] += 1
    return counts


def preview(sample: Sample, schema: Schema) -> npt.NDArray[np.uint8]:
    """Show a sample's channels side by side, with boxes and label outlines: uint8 (H, W', 3).

    A volume is shown by one slice. Each channel has the intensity window of its finite values,
    since a rejected sample may hold anything. Any exception: it cannot be shown.
    """
    image, labels, boxes = np.asarray(sample.image, np.float32), sample.labels, sample.boxes
    cut = middle_slice(labels, image.shape[1:], boxes)
    if cut is not None:
        image, labels = image[:, cut], None if labels is None else labels[cut]
        boxes = boxes_at(boxes, cut)
    thin = -(-max(image.shape[1:]) // LARGEST)
    image, labels = image[:, ::thin, ::thin], None if labels is None else labels[::thin, ::thin]
    if boxes is not None:
        boxes = Boxes(np.nan_to_num(boxes.coords) / np.float32(thin), boxes.labels)
    panels = [
        outlined(_grey(channel), labels, schema.foreground, edge=EDGE, boxes=boxes)
        for channel in image
    ]
    return np.asarray(np.concatenate(panels, axis=1), np.uint8)


def _grey(channel: npt.NDArray[np.float32]) -> npt.NDArray[Any]:
    """Map a channel's finite values from black to white; the others are black."""
    finite = np.isfinite(channel)
    low, high = np.percentile(channel[finite], (0.5, 99.5)) if finite.any() else (0.0, 1.0)
    window = (float(low), float(max(high, low + 1e-6)))
    filled = np.where(finite, channel, np.float32(low))
    return np.asarray(scaled(filled[None], [window], 8)[0][0])
