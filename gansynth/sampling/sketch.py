"""A few numbers of a sample that tell how far another one is from it, without its image.

Networks round by the kind of the CPU, the number of threads and the device, so a sample that is
drawn again need not have the same hash. Each voxel is added to, or taken from, one of ``SUMS`` sums
(a count sketch: Charikar et al. 2002). How far the sums of two images differ tells how far their
voxels do, root mean square, whichever voxels these are.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import Sample, content_hash

SUMS, MARK = 8, 16
"""Sums of an image; hexadecimal digits of the hash of labels and boxes."""
TOLERANCE = 1e-3
"""Difference up to which two images are the same but for rounding: root mean square, in standard
deviations of the image. ``benchmarks/measure/bench_same_bits.py`` measures it."""


@dataclass(frozen=True)
class Sketch:
    """What is kept of a sample.

    ``sums``: float32 (``SUMS``,), of the image's voxels. ``mark``: of labels and boxes.
    """

    sums: npt.NDArray[np.float32]
    mark: str

    @classmethod
    def of(cls, sample: Sample) -> Sketch:
        boxes = sample.boxes
        coords = None if boxes is None else np.asarray(boxes.coords, np.float32)
        classes = None if boxes is None else np.asarray(boxes.labels, np.int16)
        nothing = np.zeros(0, np.float32)
        return cls(
            _sums(np.asarray(sample.image)),
            content_hash(nothing, sample.labels, coords, classes)[:MARK],
        )

    @classmethod
    def read(cls, text: str) -> Sketch:
        """Read what ``str`` returned; ValueError: it is none."""
        mark, _, packed = text.partition(":")
        sums = np.frombuffer(base64.b64decode(packed, validate=True), "<f4")
        if len(mark) != MARK or sums.shape != (SUMS,):
            raise ValueError(f"{text!r} is no sketch of a sample")
        return cls(sums.astype(np.float32), mark)

    def __str__(self) -> str:
        packed = base64.b64encode(self.sums.astype("<f4").tobytes())
        return f"{self.mark}:{packed.decode('ascii')}"

    def off(self, sample: Sample) -> float:
        """Return about how far a sample's image is from this one, in its standard deviations."""
        image = np.asarray(sample.image, np.float64)
        gaps = np.subtract(_sums(np.asarray(sample.image)), self.sums, dtype=np.float64)
        far = float(np.sqrt(np.square(gaps).sum() / max(image.size, 1)))
        return far / max(float(image.std()), 1e-12)


def _sums(image: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the sums of an image; its voxels' signs depend on their places alone."""
    values = image.astype(np.float32).ravel()
    size = -(-values.size // SUMS) * SUMS
    signs = np.frombuffer(np.random.default_rng(0).bytes(size // 8), np.uint8)
    values = np.pad(values, (0, size - values.size))
    signed = np.where(np.unpackbits(signs).view(bool), values, -values).reshape(-1, SUMS)
    return np.asarray(signed.sum(axis=0, dtype=np.float64), np.float32)
