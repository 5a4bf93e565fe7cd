"""Data sets of volumes as ``gansynth sample`` writes and ``nifti:`` reads them.

``images/NAME_0000.nii.gz`` (a file for each channel), ``labels/NAME.nii.gz``, ``boxes/NAME.csv``,
``dataset.json`` with the names of channels and labels in nnU-Net's format.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gansynth.core.schema import Schema
from gansynth.core.writer import Item, Writer
from gansynth.data.case_writer import csv_text, write_volume
from gansynth.data.listing import FILE
from gansynth.runtime.files import write_bytes_atomic, write_json_atomic

ENDING = ".nii.gz"


class NiftiWriter(Writer):
    """Volumes; slices are volumes of one slice."""

    name = "nifti"
    ndim = frozenset({3})
    reader = "nifti"
    images, labels = "images", "labels"  # folders
    cases, labelled = 0, False

    def add(self, item: Item) -> None:
        """Write a file for each channel, the label map, and a table of boxes."""
        assert item.affine is not None
        for number, channel in enumerate(item.image):
            path = self.folder / self.images / f"{item.name}_{number:04d}{ENDING}"
            write_volume(path, channel, item.affine, synthetic=item.synthetic)
        if item.mask is not None:
            self.labelled = True
            path = self.folder / self.labels / f"{item.name}{ENDING}"
            write_volume(path, item.mask, item.affine, synthetic=True)
        if item.boxes is not None and self.schema.box_classes:
            path = self.folder / "boxes" / f"{item.name}.csv"
            path.parent.mkdir(exist_ok=True)
            write_bytes_atomic(path, csv_text(item.boxes, self.schema.box_classes).encode())
        self.cases += 1

    def finish(self, about: Mapping[str, Any]) -> None:
        """Write ``dataset.json``."""
        names = names_of(self.schema, self.labelled, self.cases, ENDING)
        write_json_atomic(self.folder / FILE, {**names, **about})


def names_of(schema: Schema, labelled: bool, cases: int, ending: str) -> dict[str, Any]:
    """Return the content of ``dataset.json``: names of channels and labels in nnU-Net's format."""
    channels = {str(i): name for i, name in enumerate(schema.channels)}
    labels = {"labels": dict(schema.labels)} if labelled else {}
    return {"channel_names": channels, **labels, "numTraining": cases, "file_ending": ending}
