"""Data sets of volumes as ``gansynth sample`` writes and ``nifti:`` reads them.

``images/NAME_0000.nii.gz`` (a file for each channel), ``labels/NAME.nii.gz``, ``boxes/NAME.csv``,
``dataset.json`` with the names of channels and labels in nnU-Net's format, ``provenance.json``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.lineage import Lineage
from gansynth.core.schema import OUTSIDE, Boxes, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseSource
from gansynth.core.synthetic import KEY
from gansynth.data.case_writer import csv_text, write_volume
from gansynth.data.listing import FILE
from gansynth.runtime.files import disk_errors, write_bytes_atomic, write_json_atomic
from gansynth.runtime.version import __version__
from gansynth.sampling.run import Run

PROVENANCE = "provenance.json"
ENDING = ".nii.gz"


class DatasetWriter:
    """Write cases into a folder, then the files that describe all of them.

    Args:
        made: further entries of ``dataset.json``; JSON.
        synthetic: whether images are generated; for real images only label maps are marked.
    """

    def __init__(
        self, folder: Path, schema: Schema, made: Mapping[str, Any], *, synthetic: bool = True
    ) -> None:
        self.folder, self.schema, self.synthetic = folder, schema, synthetic
        self.made = {KEY: True, **made} if synthetic else dict(made)
        self.provenance: dict[str, Mapping[str, Any]] = {}
        self._cases, self._labelled = 0, False

    def add(
        self,
        name: str,
        image: FloatArray,
        labels: LabelArray | None,
        boxes: Boxes | None = None,
        *,
        provenance: Mapping[str, Any] | None = None,
        affine: npt.NDArray[np.float64] | None = None,
    ) -> None:
        """Write a case; a slice becomes a volume of one slice.

        Args:
            image: float (C, D, H, W) or (C, H, W).
            labels: int16 (D, H, W) or (H, W); the outside value becomes background.
            boxes: in voxels; a table for ``--boxes file:``.
            provenance: its provenance, if it is written beside the data.
            affine: voxel to mm, of the file it replaces; None for the schema's spacing.
        """
        spacing: Sequence[float] = self.schema.spacing
        if image.ndim == 3:
            image, labels = image[:, None], None if labels is None else labels[None]
            spacing = (1.0, *spacing)[-3:]
        if affine is None:
            self.made["spacing"] = [float(mm) for mm in self.schema.spacing]
            affine = np.diag([*spacing[::-1], 1.0])
        for number, channel in enumerate(image):
            path = self.folder / "images" / f"{name}_{number:04d}{ENDING}"
            write_volume(path, channel.astype(np.float32), affine, synthetic=self.synthetic)
        if labels is not None:
            self._labelled = True
            inside = np.where(labels == OUTSIDE, np.int16(0), labels)
            path = self.folder / "labels" / f"{name}{ENDING}"
            write_volume(path, inside, affine, synthetic=True)
        if boxes is not None and self.schema.box_classes:
            path = self.folder / "boxes" / f"{name}.csv"
            with disk_errors(path):
                path.parent.mkdir(exist_ok=True)
            write_bytes_atomic(path, csv_text(boxes, self.schema.box_classes).encode())
        if provenance is not None:
            self.provenance[name] = provenance
        self._cases += 1

    def finish(self, lineage: Lineage | None = None) -> None:
        """Write ``dataset.json``, and ``provenance.json`` if any provenance was given."""
        write_names(self.folder, self.schema, self._labelled, self._cases, ENDING, self.made)
        if self.provenance:
            write_provenance(self.folder / PROVENANCE, self.provenance, lineage)


def made_by(run: Run, source: CaseSource | None) -> dict[str, Any]:
    """Return the entries of ``dataset.json`` about how samples were made."""
    made = {"run": run.run_id, "generator": run.generator.name}
    made |= {"manifest_sha256": run.manifest_sha256}
    # The source has normalised the channels; normalising again would change them.
    return {"normalised": True, "drawn_by": made if source is None else {**made, "of": source.name}}


def write_names(
    folder: Path, schema: Schema, labelled: bool, cases: int, ending: str, made: Mapping[str, Any]
) -> None:
    """Write ``dataset.json``: names of channels and labels in nnU-Net's format, and ``made``."""
    document: dict[str, Any] = {
        "channel_names": {str(i): name for i, name in enumerate(schema.channels)}
    }
    if labelled:
        document["labels"] = dict(schema.labels)
    document |= {"numTraining": cases, "file_ending": ending, "gansynth": __version__, **made}
    write_json_atomic(folder / FILE, document)


def write_provenance(
    path: Path,
    samples: Mapping[str, Mapping[str, Any]],
    lineage: Lineage | None = None,
    folder: Path | None = None,
) -> None:
    """Write the provenance of samples, which ``--replay PATH:NAME`` reads.

    Args:
        samples: name of a sample -> its provenance, or the shareable part of it.
        folder: folder of the samples, if it is elsewhere.
    """
    document: dict[str, Any] = {KEY: True, "gansynth": __version__}
    if folder is not None:
        document["folder"] = os.path.abspath(folder)
    if lineage is not None:
        document["lineage"] = lineage.to_json()
    document["samples"] = {name: dict(provenance) for name, provenance in samples.items()}
    with disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(path, (json.dumps(document, indent=1) + "\n").encode())
