"""Phantoms without a tumour: healthy brains, and which tissue each voxel is of."""

from __future__ import annotations

import numpy as np

from gansynth.runtime.errors import UsageFault
from gansynth.testing.phantoms._anatomy import personal_tissue, random_warp, resample
from gansynth.testing.phantoms._atlas import Atlas, load_atlas
from gansynth.testing.phantoms._options import CHANNELS, PhantomOptions
from gansynth.testing.phantoms._phantom import Phantom, _fractions, _grain, _scan

TISSUES = {"background": 0, "CSF": 1, "GM": 2, "WM": 3}


def make_tissues(
    index: int,
    seed: int = 0,
    options: PhantomOptions | None = None,
    atlas: Atlas | None = None,
) -> Phantom:
    """Simulate the brain MR of one healthy subject, with the tissues as labels. Not a patient.

    Labels are those of `TISSUES`: within the brain the tissue of the largest fraction. Grid,
    contrasts, grain and noise are those of `make_phantom`; nobody of these subjects is one of its.
    The result depends on `(seed, index, options)` alone. `options=None` takes the defaults with T1
    as the only channel; what they say of tumours is passed over.

    Raises:
        EnvironmentFault: nilearn, which ships the atlas, is missing.
        UsageFault: `index` or `seed` is negative, or the atlas has another spacing.
    """
    options = options or PhantomOptions(channels=("T1",))
    atlas = atlas or load_atlas(options.spacing_mm, options.margin_mm)
    if atlas.spacing_mm != options.spacing_mm:
        raise UsageFault(f"atlas: spacing {atlas.spacing_mm} mm, options: {options.spacing_mm} mm")
    if index < 0 or seed < 0:
        raise UsageFault(f"index {index}, seed {seed}; expected 0 or more")
    # 2: neither the gliomas' subjects nor those with metastases.
    streams = np.random.SeedSequence((seed, index, 2)).spawn(1 + len(CHANNELS))
    body, *scans = (np.random.default_rng(stream) for stream in streams)
    maps = resample(atlas.tissue, random_warp(body, atlas, options))
    brain = (maps.sum(axis=0) > 0.5).astype(np.float32)
    tissue = personal_tissue(body, maps, brain, options)
    labels = ((1 + tissue.argmax(axis=0)) * brain).astype(np.int16)
    fractions = _fractions(tissue, np.zeros_like(labels))
    grain = _grain(body, labels.shape, options.spacing_mm)
    rngs = dict(zip(CHANNELS, scans, strict=True))
    image = np.stack([_scan(rngs[c], c, fractions, grain, options) for c in options.channels])
    return Phantom(image * brain, labels, (options.spacing_mm,) * 3, atlas.affine.copy())
