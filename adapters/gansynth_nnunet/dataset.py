"""Channels and labels as named in nnU-Net's ``dataset.json``, with regions and ignore label."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_json


@dataclass(frozen=True)
class LabelTable:
    """The integer labels of ``dataset.json``.

    Attributes:
        values: name -> value, by increasing value, background and ignore label included. A value
            that only occurs inside regions is called ``label_<value>``.
        ignore: value of the ignore label, or None.
        regions: name -> values, if the data set is trained on regions; else empty.
    """

    values: Mapping[str, int]
    ignore: int | None
    regions: Mapping[str, tuple[int, ...]]

    @property
    def allowed(self) -> frozenset[int]:
        """All values that a raw label file may hold."""
        return frozenset(self.values.values())

    @property
    def consecutive(self) -> bool:
        """Whether the values are 0, 1, 2, ... with the ignore label last, as nnU-Net requires."""
        values = sorted(self.allowed)
        return values == list(range(len(values))) and self.ignore in (None, values[-1])


def read_labels(doc: Mapping[str, Any], where: str) -> LabelTable:
    """Read the key ``labels`` of a ``dataset.json``."""
    labels = doc.get("labels")
    if not isinstance(labels, dict) or labels.get("background") != 0:
        raise DataFault(
            f"{where}: labels is {labels!r:.200}, expected names with values and 'background': 0"
        )
    table = {
        str(name): _integers(value, f"{where}: labels: {name}") for name, value in labels.items()
    }
    ignore = table.get("ignore", (None,))[0]
    names = {values[0]: name for name, values in table.items() if len(values) == 1}
    present = sorted({value for values in table.values() for value in values})
    return LabelTable(
        values={names.get(value, f"label_{value}"): value for value in present},
        ignore=ignore,
        regions={k: v for k, v in table.items() if k not in ("background", "ignore")}
        if any(len(values) > 1 for values in table.values())
        else {},
    )


def _integers(value: Any, where: str) -> tuple[int, ...]:
    values = value if isinstance(value, list) else [value]
    if not values or any(isinstance(v, bool) or not isinstance(v, int) or v < 0 for v in values):
        raise DataFault(f"{where} is {value!r:.200}, expected an integer >= 0 or a list of them")
    return tuple(values)


def read_channels(doc: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Read the key ``channel_names`` (or the older ``modality``) of a ``dataset.json``."""
    names = doc.get("channel_names", doc.get("modality"))
    if (
        not isinstance(names, dict)
        or set(names) != {str(i) for i in range(len(names))}
        or not names
    ):
        raise DataFault(
            f"{where}: channel_names is {names!r:.200}, expected names numbered from 0, for "
            'example {"0": "MRI"}'
        )
    return tuple(str(names[str(i)]) for i in range(len(names)))


NIFTI = (".nii.gz", ".nii")


@dataclass(frozen=True)
class RawSet:
    """The files of a raw data set, listed but not read."""

    folder: Path  # the data set's folder in `nnUNet_raw`
    doc: Mapping[str, Any]  # its `dataset.json`
    channels: tuple[str, ...]
    table: LabelTable
    ending: str  # of its files, e.g. `.nii.gz`
    images: Mapping[str, tuple[Path, ...]]  # case -> expected files, one per channel
    labels: Mapping[str, Path]  # case -> expected label file


def raw_cases(folder: Path) -> RawSet:
    """List the training cases of a raw data set."""
    path = folder / "dataset.json"
    doc = read_json(path, hint="see nnU-Net's dataset format")
    ending = doc.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataFault(f"{path}: file_ending is {ending!r}, expected for example '.nii.gz'")
    channels, table = read_channels(doc, str(path)), read_labels(doc, str(path))
    images: dict[str, tuple[Path, ...]]
    if isinstance(doc.get("dataset"), dict):  # lists files that lie elsewhere
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
    entries = folder.iterdir() if folder.is_dir() else ()
    return {p.name[:-cut] for p in entries if p.name.endswith(ending) and len(p.name) > cut}


def _listed(entry: Any, where: str) -> tuple[list[str], str]:
    match entry:
        case {"images": [*images], "label": str(label)} if all(isinstance(i, str) for i in images):
            return images, label
    raise DataFault(f"{where} is {entry!r:.200}, expected 'images': [files] and 'label': file")
