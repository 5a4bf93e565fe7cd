"""Phantoms: simulated scans with simulated tumours, for demos and tests without data.

Brain MR: gliomas with label maps, for segmentation, or with boxes, for detection; healthy brains
with tissue labels. Abdominal CT: livers with lesions.

The brains' anatomy comes from the MNI152 maps in the user's nilearn, which are never copied into
this package. (Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging Centre, MNI, McGill
University.) No phantom is, or resembles, a particular patient.
"""

from gansynth.testing.phantoms._atlas import Atlas, load_atlas
from gansynth.testing.phantoms._deepmedic import write_deepmedic
from gansynth.testing.phantoms._folders import (
    BRATS_LABELS,
    write_gliomas,
    write_livers,
    write_nnunet_raw,
    write_tissues,
)
from gansynth.testing.phantoms._livers import LIVER_LABELS, make_liver
from gansynth.testing.phantoms._options import CHANNELS, LABELS, PhantomOptions
from gansynth.testing.phantoms._phantom import TISSUES, Phantom, make_phantom, make_tissues
from gansynth.testing.phantoms._yolo import write_yolo

__all__ = [
    "BRATS_LABELS",
    "CHANNELS",
    "LABELS",
    "LIVER_LABELS",
    "TISSUES",
    "Atlas",
    "Phantom",
    "PhantomOptions",
    "load_atlas",
    "make_liver",
    "make_phantom",
    "make_tissues",
    "write_deepmedic",
    "write_gliomas",
    "write_livers",
    "write_nnunet_raw",
    "write_tissues",
    "write_yolo",
]
