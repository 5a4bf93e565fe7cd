"""Phantoms: simulated scans with simulated tumours, for demos and tests without data.

Brain MR: gliomas with label maps, for segmentation, or with boxes, for detection; healthy brains
with tissue labels. Abdominal CT: livers with lesions.

The brains' anatomy comes from the MNI152 maps in the user's nilearn, which are never copied into
this package. (Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, MNI, McGill
University.) No phantom is, or resembles, a particular patient.
"""

from gansynth.testing.phantoms.brains import (
    CHANNELS,
    LABELS,
    TISSUES,
    PhantomOptions,
    load_atlas,
    make_phantom,
    make_tissues,
)
from gansynth.testing.phantoms.data_sets import BRATS_LABELS, KINDS, write_phantoms
from gansynth.testing.phantoms.livers import make_liver

__all__ = [
    "BRATS_LABELS",
    "CHANNELS",
    "KINDS",
    "LABELS",
    "TISSUES",
    "PhantomOptions",
    "load_atlas",
    "make_liver",
    "make_phantom",
    "make_tissues",
    "write_phantoms",
]
