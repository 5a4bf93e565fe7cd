"""The Writer contract: a file format that samples and cases are written in, one case at a time.

``gansynth.sampling.writing.write`` drives every writer. Refusals, redaction, marks, origins and
dates are its work, so a format cannot forget them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import OUTSIDE, Boxes, FloatArray, LabelArray, Schema
from gansynth.runtime.options import OptionModel


class WriterOptions(OptionModel):
    """Base of every writer's options, ``--set KEY=VALUE``; unknown keys are refused."""


@dataclass(frozen=True)
class Item:
    """One case to write.

    Attributes:
        name: of its files, without an ending.
        image: float32 (C, D, H, W) or (C, H, W).
        labels: int16 (D, H, W) or (H, W), -1 outside of the body; None without labels.
        affine: (4, 4) voxel to mm, of NIfTI; a writer always gets one.
        part: ``train``, ``val`` or ``test``; empty where the cases are not divided.
        synthetic: whether the image is generated.
        facts: JSON that the files may tell of it: for sharing, the driver has redacted it.
    """

    name: str
    image: FloatArray
    labels: LabelArray | None = None
    boxes: Boxes | None = None
    affine: npt.NDArray[np.float64] | None = None
    part: str = ""
    synthetic: bool = True
    facts: Mapping[str, Any] = field(default_factory=dict)

    @property
    def mask(self) -> LabelArray | None:
        """The labels with background outside of the body, as other software expects them."""
        labels = self.labels
        return None if labels is None else np.where(labels == OUTSIDE, np.int16(0), labels)


class Writer(ABC):
    """Writes a folder: ``add`` for each case, then ``finish``.

    Attributes:
        ndim: numbers of spatial axes that files may have. Slices become volumes of one slice for
            a writer of volumes alone; volumes are refused by a writer of slices alone.
        needs: ``labels`` or ``boxes``, if each case must have them.
        for_sharing: such files are always written as for sharing: they name no case.
        reader: kind of the source that reads such a folder as it lies; empty if there is none.
        flawed: whether rejected samples are written unless the user says otherwise.
    """

    name: ClassVar[str]
    Options: ClassVar[type[WriterOptions]] = WriterOptions
    ndim: ClassVar[frozenset[int]] = frozenset({2, 3})
    needs: ClassVar[frozenset[str]] = frozenset()
    for_sharing: ClassVar[bool] = False
    reader: ClassVar[str] = ""
    flawed: ClassVar[bool] = True

    def __init__(
        self,
        folder: Path,
        schema: Schema,
        options: Any = None,
        intensities: Callable[[], Sequence[FloatArray]] = tuple,
    ) -> None:
        """Begin a data set in an existing, empty folder.

        Args:
            intensities: returns some values of the training cases, an array for each channel.
        """
        self.folder, self.schema = folder, schema
        self.options: Any = self.Options() if options is None else options
        self.intensities = intensities

    @classmethod  # noqa: B027 - optional
    def check(cls, schema: Schema, options: Any) -> None:
        """Refuse what this format cannot hold (UsageFault), before anything is generated."""

    @abstractmethod
    def add(self, item: Item) -> None:
        """Write the files of a case; generated ones with the mark, see ``write_volume``."""

    @abstractmethod
    def finish(self, about: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Write the files that exist once.

        Args:
            about: JSON of how the cases were made, with the mark of synthetic ones.

        Returns:
            JSON for the command's report, or None.
        """
