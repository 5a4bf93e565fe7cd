"""Phantoms: simulated brain MR with simulated tumours, for demos and tests without data.

Gliomas with label maps, to segment; small metastases with boxes, to detect.

Anatomy comes from the MNI152 maps that nilearn ships; they are read from the user's own nilearn
and never copied into this package (Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging
Centre, MNI, McGill University). Nothing made here is, or resembles, a particular patient.
"""

from gansynth.phantoms._atlas import Atlas, load_atlas
from gansynth.phantoms._deepmedic import write_deepmedic
from gansynth.phantoms._metastases import (
    MetastasisOptions,
    MetastasisPhantom,
    make_metastases,
)
from gansynth.phantoms._nnunet import write_nnunet_raw
from gansynth.phantoms._options import CHANNELS, LABELS, PhantomOptions
from gansynth.phantoms._phantom import Phantom, make_phantom
from gansynth.phantoms._yolo import write_yolo

__all__ = [
    "CHANNELS",
    "LABELS",
    "Atlas",
    "MetastasisOptions",
    "MetastasisPhantom",
    "Phantom",
    "PhantomOptions",
    "load_atlas",
    "make_metastases",
    "make_phantom",
    "write_deepmedic",
    "write_nnunet_raw",
    "write_yolo",
]
