"""What benchmarks ask of the segmenter."""

from collections.abc import Mapping
from typing import ClassVar

from gansynth import CropTrials


class SegmenterTrials(CropTrials):
    """Trainings of the segmenter that are compared."""

    stronger: ClassVar[Mapping[str, str]] = {"rotate": "30", "shift": "0.1", "elastic": "3"}
    """Still wider deformations would fold label maps."""
