"""Preprocessed samples as raw files of nnU-Net: axes of files, and units that others understand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray
from gansynth.data.case_writer import nifti_bytes
from gansynth_nnunet.source import NnunetSource

ENDING = ".nii.gz"
_EPS = 1e-8
UNITS = {
    "CTNormalization": "Hounsfield units, cut off where the data set's were",
    "NoNormalization": "as in the original images",
    "RGBTo01Normalization": "0 to 255",
    "RescaleTo01Normalization": "0 to 1, as nnU-Net rescales each image",
    "ZScoreNormalization": "z-scores, as nnU-Net makes them of each image",
}
OTHER = "as nnU-Net's {scheme} leaves them"


# -- axes ----------------------------------------------------------------------------------------


def nifti(
    volume: npt.NDArray[Any], spacing: Sequence[float], transpose_forward: Sequence[int]
) -> bytes:
    """Encode a volume (D, H, W) as gzipped NIfTI, its axes brought back to those of files.

    The same voxels give the same bytes. ``transpose_forward`` maps nnU-Net's reading order
    (Z, Y, X) to the volume's axes. Their spacing is in mm.
    """
    order = [int(i) for i in np.argsort(transpose_forward)]  # files are read as (Z, Y, X)
    affine = np.diag([*(float(spacing[i]) for i in reversed(order)), 1.0])
    return nifti_bytes(volume.transpose(order), affine, synthetic=True, level=6)


# -- intensities ---------------------------------------------------------------------------------


def units(source: NnunetSource) -> dict[str, str]:
    """Return the intensity unit of each channel."""
    schemes = source.config["normalization_schemes"]
    return {
        channel: UNITS.get(scheme, OTHER.format(scheme=scheme))
        for channel, scheme in zip(source.schema.channels, schemes, strict=True)
    }


def in_own_units(source: NnunetSource, image: FloatArray, labels: LabelArray) -> FloatArray:
    """Convert a sample's image (C, D, H, W) to units that are meaningful outside of nnU-Net.

    Voxels outside (-1) get 0 if nnU-Net detects outside by zeros. In a z-scored image without a
    mask, where 0 is the mean, they get the channel's lowest value.
    """
    config, doc = source.config, source.plans.doc
    properties = doc.get("foreground_intensity_properties_per_channel", {})
    outside, out = labels == OUTSIDE, np.array(image, np.float32)
    for number, scheme in enumerate(config["normalization_schemes"]):
        channel = denormalise(out[number], scheme, properties.get(str(number), {}))
        masked = bool(config["use_mask_for_norm"][number])
        zeros = scheme != "ZScoreNormalization" or masked
        inside = channel[~outside]
        channel[outside] = 0 if zeros or not inside.size else inside.min()
        out[number] = channel
    return out


def denormalise(channel: FloatArray, scheme: str, properties: Mapping[str, float]) -> FloatArray:
    """Undo nnU-Net's normalisation of one channel (D, H, W), if it is invertible."""
    if scheme == "CTNormalization":
        units = channel * max(float(properties["std"]), _EPS) + float(properties["mean"])
        low, high = properties["percentile_00_5"], properties["percentile_99_5"]
        return np.asarray(np.clip(units, low, high), np.float32)
    if scheme == "RGBTo01Normalization":
        return np.asarray(np.clip(channel * 255, 0, 255), np.float32)
    return channel
