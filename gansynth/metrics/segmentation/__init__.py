"""Case-by-case evaluation of a trained segmenter: ``evaluate``. Rules: docs/measures.md."""

from gansynth.core.prediction import LabelMaps, Prediction
from gansynth.metrics.segmentation.evaluation import SegmentationEvaluation, evaluate
from gansynth.metrics.segmentation.operating_point import THRESHOLDS, levels_of
from gansynth.metrics.segmentation.regions import Regions, read_regions, regions_of, with_labels
from gansynth.metrics.segmentation.segmentation import measure_case
from gansynth.metrics.segmentation.table import (
    DETECTION,
    MEASURES,
    SEGMENTATION,
    Measure,
    measure_of,
)

__all__ = [
    "DETECTION",
    "MEASURES",
    "SEGMENTATION",
    "THRESHOLDS",
    "LabelMaps",
    "Measure",
    "Prediction",
    "Regions",
    "SegmentationEvaluation",
    "evaluate",
    "levels_of",
    "measure_case",
    "measure_of",
    "read_regions",
    "regions_of",
    "with_labels",
]
