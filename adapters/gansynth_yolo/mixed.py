"""Content of the slots of a detector's training set, independent of the detector.

A detector reads every slot once per epoch, in any order, in any worker process, perhaps epochs
ahead. The number of reads of a slot is its epoch, counted in shared memory. Random numbers are
keyed by (seed, epoch, slot). So a frozen bank gives the same samples with any number of workers.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth import Boxes, EpochPlan, FloatArray, Mixer, MixerConfig

if TYPE_CHECKING:
    from gansynth import BankSample

Pixels = npt.NDArray[np.uint8]
Classes = npt.NDArray[np.int64]
_PRIMARY, _PARTNER = 10, 11


@dataclass(frozen=True)
class ImageDraw:
    """The content of one slot of an epoch, or of a partner."""

    real: int  # index of the real image; for a sample, of the image it replaces
    image: Pixels | None  # of a sample, uint8 (H, W, C), RGB if C is 3; None for the real image
    boxes: FloatArray  # float32 (N, 4) x1, y1, x2, y2 in pixels of `image`
    labels: Classes  # int64 (N,), numbers of classes
    id: str = ""  # id of the sample; empty for a real image
    provenance: Mapping[str, Any] | None = None


class EpochSlots:
    """The slots of a training set; can be inherited through fork or pickled.

    Args:
        plan: the mix, which names real images by index. Its clock for schedules counts epochs and
            never ticks.
        channels: channels of the detector's images, 1 or 3.
        done: epochs of earlier sessions of the training.
    """

    def __init__(self, plan: MixerConfig[int], real: int, channels: int, done: int = 0) -> None:
        self.places = EpochPlan(plan, real)
        self.real, self.channels, self.done = real, channels, done
        # Nothing of it is left behind by a killed process, and any way of starting one brings it.
        self._shared = multiprocessing.get_context("spawn").RawArray("q", len(self.places))
        self._open()

    def _open(self) -> None:
        """Create the state of this process."""
        plan = self.places.plan
        log = None if plan.log is None else plan.log / "partners"
        self._primaries = Mixer(plan, self._refuse)
        self._partners = Mixer(replace(plan, log=log), self._refuse)
        # An epoch's first places are asked for beside the last one's.
        self._table = lru_cache(3)(self.places.table)
        self._now = (self.done, 0, 0)
        self._beside = 0  # partners of the current image, those used again included

    def __getstate__(self) -> dict[str, Any]:
        return {k: getattr(self, k) for k in ("places", "real", "channels", "done", "_shared")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self.places)

    def primary(self, index: int) -> ImageDraw:
        """Return the content of a slot in its next epoch; every call counts as one."""
        epoch = self.done + self._shared[index]
        self._shared[index] += 1
        self._now, self._beside = (epoch, index, 0), 0
        return self._fill(self._primaries, index, (_PRIMARY, epoch, index), (epoch, index))

    def partner(self, index: int, annotated: Classes | None = None) -> ImageDraw:
        """Return the content of a slot as a partner of the primary that this process drew last.

        A mosaic's partners are unbiased if their indices are uniform over all slots. For a detector
        that prefers partners with boxes, ``annotated`` are the sorted real images with boxes. One
        of these replaces an image without boxes, and a sample with boxes replaces one without.
        """
        epoch, primary, number = self._now
        self._now = (epoch, primary, number + 1)
        key = (_PARTNER, epoch, primary, number)
        return self._fill(self._partners, index, key, self._place_beside(), annotated)

    def again(self, drawn: ImageDraw) -> bool:
        """Count a draw that a detector uses again as a partner.

        Returns:
            False, without counting, if a schedule may forbid the draw by now.
        """
        if self.places.plan.schedule.kind != "constant":
            return False
        log = self._partners.log
        if log is not None:
            name = drawn.id or str(drawn.real)
            place = self._place_beside()
            log.append("synthetic" if drawn.id else "real", name, "", drawn.provenance, place)
        return True

    def rewind(self, epoch: int) -> None:
        """Set the next epoch of every slot, counted from 0.

        Needed when a detector resumes a training or discards slots drawn ahead. No other process
        may draw meanwhile.
        """
        self._shared[:] = [epoch - self.done] * len(self)

    # -- one process -----------------------------------------------------------------------------

    def _place_beside(self) -> tuple[int, ...]:
        """Return the place of the current image's next partner, for the log."""
        epoch, primary, _ = self._now
        self._beside += 1
        return epoch, primary, self._beside

    def _fill(
        self,
        mixer: Mixer[int],
        index: int,
        key: tuple[int, ...],
        place: tuple[int, ...],
        annotated: Classes | None = None,
    ) -> ImageDraw:
        table, rng = self._table(place[0]), self.places.rng(*key)
        real, wish = int(table.real[index]), None
        if annotated is not None and len(annotated):
            wish = _has_boxes
            if table.mix.real == "chosen":
                annotated = np.intersect1d(annotated, self.places.plan.chosen)
            if len(annotated) and real not in annotated:
                real = int(rng.choice(annotated))
        synthetic = bool(table.synthetic[index])
        turn = table.turn(index) if mixer is self._primaries else None
        slot = mixer.fill(
            real, table.mix, synthetic=synthetic, rng=rng, place=place, turn=turn, wish=wish
        )
        sample = slot.sample
        if sample is None:
            return ImageDraw(slot.real, None, np.zeros((0, 4), np.float32), np.zeros(0, np.int64))
        image = pixels(sample.image, self.channels)
        return ImageDraw(slot.real, image, *corners(sample.boxes), sample.id, sample.provenance)

    def _refuse(self, sample: BankSample) -> str:
        shape = sample.image.shape
        if sample.boxes is None:
            return f"sample {sample.id} has no boxes"
        flat = len(shape) == 3 or (len(shape) == 4 and shape[1] == 1)
        if not flat or shape[0] not in {1, self.channels}:
            return f"sample {sample.id} has shape {shape}"
        return ""


def pixels(image: npt.NDArray[Any], channels: int) -> Pixels:
    """Convert a bank's image (C, H, W) or (C, 1, H, W) in [0, 1] to uint8 (H, W, channels).

    One channel is repeated for three, as detectors read grey files.
    """
    if image.ndim == 4:
        image = image[:, 0]
    if image.dtype == np.float16:
        levels: Pixels = _levels().take(np.ascontiguousarray(image).view(np.uint16))
    else:
        levels = _quantise(image)
    filled = np.empty((*levels.shape[1:], channels), np.uint8)
    for channel in range(channels):  # four times as fast as turning axes
        filled[..., channel] = levels[channel % len(levels)]
    return filled


def corners(boxes: Boxes | None) -> tuple[FloatArray, Classes]:
    """Return a sample's boxes (N, 4) x1, y1, x2, y2 in pixels, and their class numbers."""
    if boxes is None:
        return np.zeros((0, 4), np.float32), np.zeros(0, np.int64)
    return boxes.in_plane.coords[:, [1, 0, 3, 2]].astype(np.float32), boxes.labels.astype(np.int64)


def _has_boxes(sample: BankSample) -> bool:
    return sample.boxes is not None and len(sample.boxes.coords) > 0


@cache
def _levels() -> Pixels:
    """Return the uint8 of every float16 by its bits; a lookup is ten times as fast as computing."""
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    return _quantise(np.nan_to_num(every.astype(np.float32)))


def _quantise(image: npt.NDArray[Any]) -> Pixels:
    return np.rint(np.clip(image.astype(np.float32), 0, 1) * 255).astype(np.uint8)
