"""The files of a raw nnU-Net data set, found but not read."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_json
from gansynth_nnunet.labels import LabelTable, read_channels, read_labels

NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class RawSet:
    """The files of a raw data set, found but not read.

    Attributes:
        folder: the data set's folder in ``nnUNet_raw``.
        doc: its ``dataset.json``.
        channels: channel names.
        table: its labels.
        ending: of its files, e.g. ``.nii.gz``.
        images: case -> one file per channel, as they ought to be.
        labels: case -> label file, as it ought to be.
    """

    folder: Path
    doc: Mapping[str, Any]
    channels: tuple[str, ...]
    table: LabelTable
    ending: str
    images: Mapping[str, tuple[Path, ...]]
    labels: Mapping[str, Path]


def raw_cases(folder: Path) -> RawSet:
    """List the training cases of a raw data set.

    Raises:
        DataFault: ``dataset.json`` is missing or lacks something, or there is no case.
    """
    path = folder / "dataset.json"
    doc = read_json(path, way_out="see nnU-Net's dataset format")
    ending = doc.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataFault(f"{path}: file_ending is {ending!r}, expected for example '.nii.gz'")
    channels, table = read_channels(doc, str(path)), read_labels(doc, str(path))
    images: dict[str, tuple[Path, ...]]
    if isinstance(doc.get("dataset"), dict):  # the files lie elsewhere and are listed
        listed = {str(k): _listed(v, f"{path}: dataset: {k}") for k, v in doc["dataset"].items()}
        images = {k: tuple(folder / os.path.expandvars(i) for i in v[0]) for k, v in listed.items()}
        labels = {k: folder / os.path.expandvars(v[1]) for k, v in listed.items()}
    else:
        cases = sorted(_names(folder / "imagesTr", ending, 5) | _names(folder / "labelsTr", ending))
        images = {
            case: tuple(
                folder / "imagesTr" / f"{case}_{c:04d}{ending}" for c in range(len(channels))
            )
            for case in cases
        }
        labels = {case: folder / "labelsTr" / f"{case}{ending}" for case in cases}
    if not images:
        raise DataFault(
            f"{folder}: no training cases, expected imagesTr/CASE_0000{ending} and "
            f"labelsTr/CASE{ending}"
        )
    return RawSet(folder, doc, channels, table, ending, images, labels)


def _names(folder: Path, ending: str, suffix: int = 0) -> set[str]:
    cut = len(ending) + suffix
    found = folder.iterdir() if folder.is_dir() else ()
    return {p.name[:-cut] for p in found if p.name.endswith(ending) and len(p.name) > cut}


def _listed(entry: Any, where: str) -> tuple[list[str], str]:
    match entry:
        case {"images": [*images], "label": str(label)} if all(isinstance(i, str) for i in images):
            return images, label
    raise DataFault(f"{where} is {entry!r:.200}, expected 'images': [files] and 'label': file")
