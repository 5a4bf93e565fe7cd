"""Case-by-case evaluation of a trained segmenter. Rules: docs/measures.md."""

from gansynth.metrics.segmentation.evaluation import (
    THRESHOLDS,
    LabelMaps,
    Prediction,
    SegmentationEvaluation,
    measure_predictions,
)
from gansynth.metrics.segmentation.measures import (
    DETECTION,
    MEASURES,
    SEGMENTATION,
    Measure,
    Regions,
    measure_case,
    measure_of,
    read_regions,
    regions_of,
    with_labels,
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
    "measure_case",
    "measure_of",
    "measure_predictions",
    "read_regions",
    "regions_of",
    "with_labels",
]
