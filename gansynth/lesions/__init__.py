"""Lesions in boxes: how they stand out of their rims, whether they do, and how far they reach."""

from gansynth.lesions.judging import ClassContrast, LesionContrast
from gansynth.lesions.rims import contrast, contrasts
from gansynth.lesions.tightening import tighten

__all__ = ["ClassContrast", "LesionContrast", "contrast", "contrasts", "tighten"]
