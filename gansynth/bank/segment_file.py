"""Reading one segment of a bank: what ``gansynth.bank.segment`` wrote, a sample at a time."""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from gansynth.bank.segment import Array, sample_id, segment_number
from gansynth.core.schema import Boxes, LabelArray


@dataclass(frozen=True)
class BankSample:
    """One sample as the bank holds it; its arrays are the caller's own copies.

    Attributes:
        id: segment and row, e.g. ``000012-03``.
        image: float16 or float32 (C, D, H, W) or (C, H, W), as the bank's ``dtype`` says.
        labels: int16 (D, H, W) or (H, W), or None.
        boxes: boxes of the sample, or None.
        extras: what the host's adapter added, by name.
        provenance: what was asked, by what, with which seed.
    """

    id: str
    image: Array
    labels: LabelArray | None
    boxes: Boxes | None
    extras: dict[str, Array]
    provenance: dict[str, Any]


class SegmentFile:
    """An open segment.

    Raises:
        OSError, LookupError, ValueError, RuntimeError: what h5py says of a file that is gone or
            damaged; ``BankReader`` tells one from the other.
    """

    def __init__(self, path: Path) -> None:
        self.number = segment_number(path.name) or 0
        # Without HDF5's lock: segments are immutable, and some shared file systems have no locks.
        self._file = h5py.File(path, "r", locking=False)
        try:
            self._fields: dict[str, tuple[Any, Array | None, Array]] = {}
            for name in ("image", "labels", "boxes", "box_labels"):
                if name in self._file:
                    self._open_field(name)
            self._open_extras()
            self._provenance = self._file["provenance"]
        except BaseException:
            self._file.close()
            raise

    def _open_field(self, name: str) -> None:
        shapes, ends = None, np.zeros(0, np.int64)
        if f"shapes/{name}" in self._file:
            shapes = self._file[f"shapes/{name}"][()]
            ends = np.cumsum(np.prod(shapes, axis=1))
        self._fields[name] = (self._file[name], shapes, ends)

    def _open_extras(self) -> None:
        """Find where in which data set each extra of each sample begins."""
        index = json.loads(self._file["extras_index"][()])
        self._dtypes: dict[str, str] = index["dtypes"]
        self._shapes: list[list[list[int]]] = index["shapes"]
        self._values = {dtype: self._file[f"extras/{dtype}"] for dtype in {*self._dtypes.values()}}
        ends = dict.fromkeys(self._values, 0)
        self._starts = []
        for shapes in self._shapes:
            self._starts.append(dict(ends))
            for dtype, shape in zip(self._dtypes.values(), shapes, strict=True):
                ends[dtype] += math.prod(shape)
        self._starts.append(ends)

    def _read_extras(self, row: int) -> dict[str, Array]:
        first, last = self._starts[row], self._starts[row + 1]
        rest = {dtype: data[first[dtype] : last[dtype]] for dtype, data in self._values.items()}
        extras = {}
        for (name, dtype), shape in zip(self._dtypes.items(), self._shapes[row], strict=True):
            size = math.prod(shape)
            extras[name] = rest[dtype][:size].reshape(shape)
            rest[dtype] = rest[dtype][size:]
        return extras

    def read(self, row: int) -> BankSample:
        """Read one sample into fresh, writable arrays."""
        boxes = None
        if "boxes" in self._fields:
            boxes = Boxes(self._read_field("boxes", row), self._read_field("box_labels", row))
        return BankSample(
            id=sample_id(self.number, row),
            image=self._read_field("image", row),
            labels=self._read_field("labels", row) if "labels" in self._fields else None,
            boxes=boxes,
            extras=self._read_extras(row),
            provenance=json.loads(self._provenance[row]),
        )

    def _read_field(self, name: str, row: int) -> Array:
        data, shapes, ends = self._fields[name]
        if shapes is None:
            stacked: Array = data[row]
            return stacked
        shape = tuple(int(s) for s in shapes[row])
        last = int(ends[row])
        values: Array = data[last - int(np.prod(shape)) : last]
        return values.reshape(shape)

    def close(self) -> None:
        """Close the file; the memory of a retired segment on a tmpfs is free from then on."""
        self._file.close()
