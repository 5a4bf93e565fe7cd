"""Synthetic cases alone, as a raw nnU-Net data set that may be shared.

It does not identify cases of the source: neither by names, nor headers, nor times.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.bank.reader import BankReader
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray
from gansynth.core.synthetic import KEY
from gansynth.data.case_writer import nifti_bytes
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.progress import ProgressTask
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


def write(
    source: NnunetSource,
    folder: Path,
    name: str,
    reader: BankReader,
    ids: Mapping[str, str],
    bar: ProgressTask,
) -> None:
    """Write ``imagesTr``, ``labelsTr`` and ``dataset.json`` of samples: name -> id in the bank."""
    forward, spacing = source.plans.doc["transpose_forward"], source.schema.spacing
    images, masks = folder / "imagesTr", folder / "labelsTr"
    images.mkdir()
    masks.mkdir()
    for case, sample_id in ids.items():
        stored = reader.read(sample_id)
        assert stored.labels is not None  # see adapter.finalise
        image = in_own_units(source, np.asarray(stored.image, np.float32), stored.labels)
        for number, channel in enumerate(image):
            file = images / f"{case}_{number:04d}{ENDING}"
            file.write_bytes(nifti(channel, spacing, forward))
        labels = np.where(stored.labels == OUTSIDE, 0, stored.labels)
        (masks / f"{case}{ENDING}").write_bytes(nifti(_smallest(labels), spacing, forward))
        bar.advance()
    write_json_atomic(folder / "dataset.json", _document(source, name[11:], len(ids)))


def _document(source: NnunetSource, name: str, cases: int) -> dict[str, Any]:
    document = {
        "name": name,
        "description": "Synthetic cases drawn by gansynth. Intensities: "
        + "; ".join(f"{channel}: {text}" for channel, text in units(source).items()),
        "channel_names": {str(i): name for i, name in enumerate(source.schema.channels)},
        "labels": source.dataset_json["labels"],
        "numTraining": cases,
        "file_ending": ENDING,
        KEY: True,
    }
    order = source.dataset_json.get("regions_class_order")
    return document if order is None else {**document, "regions_class_order": order}


def _smallest(labels: LabelArray) -> npt.NDArray[Any]:
    return labels.astype(np.uint8 if labels.max(initial=0) <= 255 else np.int16)


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
