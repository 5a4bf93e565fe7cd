"""Rejected samples as small pictures with boxes, and the reason for each rejection.

``rejected.jsonl`` has a line for each picture.
"""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.schema import Boxes, Sample, Schema
from gansynth.report.image_grid import write_image_grid
from gansynth.runtime.errors import DataFault, EnvironmentFault
from gansynth.sampling.quality_gate import reject_reason_of

LINES = "rejected.jsonl"
PICTURES_OF_A_REASON, MOST_PICTURES = 32, 200  # pictures kept for one reason, and in total
EDGE = 128  # pixels along a picture's longest edge, about; more for larger images
LARGEST = 512  # larger images are subsampled to at most that many pixels along an edge


class RejectedSamples:
    """Save the first rejected samples of each reason as pictures. It raises nothing.

    Args:
        folder: folder of the pictures, made with the first one. None saves nothing.
        schema: schema of the samples.
        oriented: whether it is known which way their arrays run (``Space.oriented``).
    """

    def __init__(self, folder: Path | None, schema: Schema, *, oriented: bool = False) -> None:
        self.folder, self.schema, self.oriented = folder, schema, oriented
        self._kept = Counter[str]()
        if folder is not None and (folder / LINES).is_file():  # of an earlier producer
            text = (folder / LINES).read_text(encoding="utf-8", errors="replace")
            for line in text.splitlines():
                with contextlib.suppress(ValueError, KeyError, TypeError):  # cut off by a kill
                    self._kept[str(json.loads(line)["reason"])] += 1

    def keep(self, sample: Sample, fault: DataFault, index: int) -> None:
        """Save a rejected sample, in any state, unless there are enough of its kind."""
        reason, boxes = reject_reason_of(fault), sample.boxes
        if (
            self.folder is None
            or self._kept[reason] >= PICTURES_OF_A_REASON
            or self._kept.total() >= MOST_PICTURES
        ):
            return
        line: dict[str, Any] = {"picture": f"rejected-{self._kept.total():04d}.png"}
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            try:
                cell = f"{index}: {reason}", [_thinned(sample)]
                path = self.folder / line["picture"]
                write_image_grid(path, [cell], self.schema, edge=EDGE, oriented=self.oriented)
            except EnvironmentFault:
                raise
            except Exception:  # a picture may be impossible: then only its line is saved
                line["picture"] = None
            line |= {
                "index": index,
                "reason": reason,
                "fault": str(fault),
                "boxes": boxes and np.column_stack([boxes.labels, boxes.coords]).tolist(),
                "provenance": dict(sample.provenance),
            }
            # Appended in one write: a line is complete, or it is the last one and skipped.
            with open(self.folder / LINES, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, allow_nan=False, default=str) + "\n")
            self._kept[reason] += 1
        except (OSError, EnvironmentFault, ValueError, TypeError) as error:
            why = " ".join(str(error).split())
            said = "rejected samples are no longer kept as pictures"
            sys.stderr.write(f"WARNING: {self.folder}: {said}: {why}; the rest goes on\n")
            self.folder = None


def _thinned(sample: Sample) -> Sample:
    """Return what can be shown of a sample: finite values, and few enough pixels."""
    image, labels, boxes = np.nan_to_num(sample.image), sample.labels, sample.boxes
    thin = -(-max(image.shape[1:]) // LARGEST)
    if image.ndim == 3 and thin > 1:
        image, labels = image[:, ::thin, ::thin], None if labels is None else labels[::thin, ::thin]
        if boxes is not None:
            boxes = Boxes(boxes.coords / np.float32(thin), boxes.labels)
    return Sample(image, labels, boxes)
