"""Sources of 2D cases whose label maps are evaluated on the pixels of their own files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gansynth.core.prediction import SlicePosition
from gansynth.core.resample import pick
from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import CaseSource, StoredCase
from gansynth.data.picture_files import read_picture
from gansynth.runtime.errors import DataFault


class FlatSource(CaseSource):
    """2D cases, each with a label map on its file's pixels, evaluated without resampling."""

    @abstractmethod
    def position(self, case_id: str) -> SlicePosition:
        """Where a case lies among the others of its subject; reads no image."""

    @abstractmethod
    def true_labels(self, case_id: str) -> LabelArray | None:
        """The label map as its file has it, int16 (H, W); DataFault as ``load``."""

    @abstractmethod
    def pixel_spacing(self, case_id: str) -> tuple[float, float]:
        """Size of the file's pixels along H and W, in ``unit``."""

    @abstractmethod
    def file_shape(self, case_id: str) -> tuple[int, ...]:
        """Rows and columns of the case's file."""

    @abstractmethod
    def file_image(self, case_id: str) -> FloatArray:
        """The image as its file has it, float32 (C, H, W), in the file's units."""

    @property
    def label_numbers(self) -> Mapping[int, int]:
        """Label -> its number in PNG files of label maps; here the same."""
        return {value: value for value in self.schema.label_values if value >= 0}

    def encode_labels(self, case_id: str, labels: LabelArray) -> npt.NDArray[np.uint16]:
        """Encode labels on the grid of ``load`` for a PNG as large as the case's file."""
        whole = self.file_labels(case_id, labels)
        numbers = np.zeros(whole.shape, np.uint16)
        for label, number in self.label_numbers.items():
            numbers[whole == label] = number
        return numbers

    def stored(self, case_id: str, labels: LabelArray) -> StoredCase:
        """Image and labels on the file's pixels, as volumes of one slice, and the affine."""
        affine = np.diag([*self.pixel_spacing(case_id)[::-1], 1.0, 1.0])
        whole = self.file_labels(case_id, labels)
        return self.file_image(case_id)[:, None], whole[None], affine

    def file_labels(self, case_id: str, labels: LabelArray) -> LabelArray:
        """Bring labels on the grid of ``load`` to the file's pixels."""
        return pick(labels, self.file_shape(case_id))

    def read_predicted(self, case_id: str, file: Path) -> LabelArray:
        """Read a predicted label map, int16 (H, W) on the file's pixels; DataFault if unfit."""
        picture, shape = read_picture(file, "mask"), self.file_shape(case_id)
        if picture.shape != tuple(shape):
            raise DataFault(
                f"{file}: {picture.shape[0]} x {picture.shape[1]} pixels, case {case_id!r} has "
                f"{shape[0]} x {shape[1]}; expected equal, predict on the pixels of its file"
            )
        labels = np.full(picture.shape, -2, np.int16)
        for label, number in self.label_numbers.items():
            labels[picture == number] = label
        if (labels == -2).any():
            unknown = np.unique(picture[labels == -2])[:8].tolist()
            raise DataFault(
                f"{file}: holds the numbers {unknown}, expected among "
                f"{sorted(self.label_numbers.values())}; predict again with a model of this data"
            )
        return labels

    def predicted(self, case_id: str, file: Path) -> LabelArray:
        """Read a predicted PNG on the file's pixels, as int16 on the grid of ``load``."""
        return pick(self.read_predicted(case_id, file), self.shape(case_id))
