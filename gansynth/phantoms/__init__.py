"""Phantoms: simulated brain MR with a simulated glioma, for demos and tests without data.

Anatomy comes from the MNI152 maps that nilearn ships; they are read from the user's own nilearn
and never copied into this package (Copyright (C) 1993-2009 Louis Collins, McConnell Brain Imaging
Centre, MNI, McGill University). Nothing made here is, or resembles, a particular patient.
"""

from gansynth.phantoms._atlas import Atlas, load_atlas
from gansynth.phantoms._nnunet import write_nnunet_raw
from gansynth.phantoms._options import CHANNELS, LABELS, PhantomOptions
from gansynth.phantoms._phantom import Phantom, make_phantom

__all__ = [
    "CHANNELS",
    "LABELS",
    "Atlas",
    "Phantom",
    "PhantomOptions",
    "load_atlas",
    "make_phantom",
    "write_nnunet_raw",
]
