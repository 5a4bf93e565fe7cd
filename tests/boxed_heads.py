"""Slices of heads in memory: a brain, a bright skull around it, dark air; one lesion in each."""

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Boxes, Case, FloatArray, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space

EDGE, SKULL = 96, 6
"""Pixels of a slice, and of the skull."""
CLASSES = ("central", "anywhere")
SCHEMA = Schema(("T1",), {"background": 0}, (1.0, 1.0), "HW", box_classes=CLASSES)
SEAT = (-0.15, 0.0)
"""Where lesions of the first class lie: off the middle, in radii."""


def head(seed: int, *, bare: bool = False) -> Case:
    """A head of its own size and place; every other one's lesion is central."""
    rng = np.random.default_rng(seed)
    radius, middle = rng.uniform(32, 42), EDGE / 2 + rng.uniform(-4, 4, 2)
    label = seed % 2
    side = rng.uniform(6, 10, 2)
    far = rng.uniform(0, radius - SKULL - 10)
    angle = rng.uniform(0, 2 * np.pi)
    off = np.array([np.sin(angle), np.cos(angle)]) * far if label else radius * np.array(SEAT)
    at = middle + off + (0 if label else rng.normal(0, 0.5, 2))
    row = np.concatenate([at - side / 2, at + side / 2]).astype(np.float32)
    image = rings(middle, radius) * (1 + rng.normal(0, 0.02, (EDGE, EDGE)))
    low, high = np.round(row[:2]).astype(int), np.round(row[2:]).astype(int)
    image[low[0] : high[0], low[1] : high[1]] *= 1 if bare else 1.6
    kept = slice(0, 0 if bare else 1)
    boxes = Boxes(row[None][kept], np.array([label], np.int16)[kept])
    return Case(f"h{seed:02d}", f"h{seed:02d}", image[None].astype(np.float32), None, boxes)


def rings(middle: npt.NDArray[np.float64], radius: float) -> npt.NDArray[np.float64]:
    """Brain 1, skull 3, air 0.02: float (EDGE, EDGE)."""
    away = np.hypot(*(np.indices((EDGE, EDGE)) + 0.5 - np.reshape(middle, (2, 1, 1))))
    return np.where(away < radius - SKULL, 1.0, np.where(away < radius, 3.0, 0.02))


def on_skull(image: FloatArray) -> np.ndarray:
    """Skull and air of a head, bool (EDGE, EDGE); lesions are no brighter than 2."""
    return np.asarray((image[0] > 2.4) | (image[0] < 0.5))


class Heads(CaseSource):
    """Training cases ``h00``, ``h01``, ...; the last ones have no lesion."""

    def __init__(self, count: int = 40, bare: int = 0) -> None:
        self.request = SourceRequest("heads", "memory")
        self.held = {
            case.id: case for case in (head(i, bare=i >= count - bare) for i in range(count))
        }

    @property
    def name(self) -> str:
        return "heads"

    @property
    def schema(self) -> Schema:
        return SCHEMA

    @property
    def space(self) -> Space:
        return Space("native", (EDGE, EDGE))

    @property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(self.held)

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return ()

    def load(self, case_id: str) -> Case:
        return self.held[case_id]
