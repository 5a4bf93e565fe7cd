"""How much room a sample of nnU-Net's takes in a bank."""

from __future__ import annotations

import numpy as np

from gansynth_nnunet.guards import host_size


def sample_bytes(
    size: tuple[int, ...],
    patch: tuple[int, ...],
    channels: int,
    width: int,
    keys: int,
    *,
    cascaded: bool = False,
) -> int:
    """Bytes one sample takes at most.

    Args:
        size: voxels of what the generator draws, (D, H, W).
        patch: voxels of nnU-Net's patch, (D, H, W) or (H, W); a sample is no smaller.
        channels: of the images.
        width: bytes of a value.
        keys: labels or regions, some of whose voxels are listed.
        cascaded: it brings the labels of a cascade's previous stage along.
    """
    voxels = int(np.prod(np.maximum(size, host_size(patch))))
    return voxels * (channels * width + 2 + cascaded) + 8000 * keys
