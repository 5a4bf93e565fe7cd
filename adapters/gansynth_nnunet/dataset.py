"""nnU-Net's ``dataset.json``: channels, labels by its ``LabelManager``, and files of the cases."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import read_json

NIFTI = (".nii.gz", ".nii")


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


def read_labels(doc: Mapping[str, Any], where: str) -> LabelTable:
    """Read the key ``labels`` of a ``dataset.json``; DataFault: nnU-Net does not take it."""
    from nnunetv2.utilities.label_handling.label_handling import LabelManager

    try:
        manager = LabelManager(doc["labels"], doc.get("regions_class_order"))
        present = [int(value) for value in manager.all_labels]
        table = {
            str(name): tuple(map(int, value)) if isinstance(value, list) else (int(value),)
            for name, value in doc["labels"].items()
        }
        if min(present) < 0 or not all(table.values()):
            raise ValueError("a label is negative or empty")
    except Exception as error:  # nnU-Net asserts
        words = " ".join(str(error).split())
        raise DataFault(
            f"{where}: labels is {doc.get('labels')!r:.200}, expected names with integers from 0 "
            f"(or lists of them) and 'background': 0; nnU-Net says: {words:.200}"
        ) from error
    names = {values[0]: name for name, values in table.items() if len(values) == 1}
    present += [] if manager.ignore_label is None else [manager.ignore_label]
    return LabelTable(
        values={names.get(value, f"label_{value}"): value for value in sorted(present)},
        ignore=manager.ignore_label,
        regions={k: v for k, v in table.items() if k not in ("background", "ignore")}
        if manager.has_regions
        else {},
    )


def read_channels(doc: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """Read the key ``channel_names`` (or the older ``modality``) of a ``dataset.json``."""
    names = doc.get("channel_names", doc.get("modality"))
    numbers = [str(i) for i in range(len(names))] if isinstance(names, dict) else []
    if not numbers or set(names) != set(numbers):
        raise DataFault(
            f"{where}: channel_names is {names!r:.200}, expected names numbered from 0, for "
            'example {"0": "MRI"}'
        )
    return tuple(str(names[number]) for number in numbers)


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
    """List the training cases of a raw data set, those that lack files included."""
    path = folder / "dataset.json"
    doc = read_json(path, hint="see nnU-Net's dataset format")
    ending = doc.get("file_ending")
    if not isinstance(ending, str) or not ending.startswith("."):
        raise DataFault(f"{path}: file_ending is {ending!r}, expected for example '.nii.gz'")
    channels, table = read_channels(doc, str(path)), read_labels(doc, str(path))
    if "dataset" in doc:  # lists files that lie elsewhere
        listed = _listed(folder, doc)
        images = {case: tuple(map(Path, files["images"])) for case, files in listed.items()}
        labels = {case: Path(files["label"]) for case, files in listed.items()}
    else:  # nnU-Net's own listing of folders forks twelve processes, and leaves out what is missing
        parts = (("imagesTr", f"_0000{ending}"), ("labelsTr", ending))
        cases = {
            file.name[: -len(tail)]
            for part, tail in parts
            for file in (folder / part).glob(f"?*{ending}")
            if len(file.name) > len(tail)
        }
        numbers = range(len(channels))
        images = {
            case: tuple(folder / "imagesTr" / f"{case}_{c:04d}{ending}" for c in numbers)
            for case in sorted(cases)
        }
        labels = {case: folder / "labelsTr" / f"{case}{ending}" for case in images}
    if not images:
        raise DataFault(
            f"{folder}: no training cases, expected imagesTr/CASE_0000{ending} and "
            f"labelsTr/CASE{ending}"
        )
    return RawSet(folder, doc, channels, table, ending, images, labels)


def _listed(folder: Path, doc: Mapping[str, Any]) -> dict[str, Any]:
    from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

    try:
        listed = get_filenames_of_train_images_and_targets(str(folder), deepcopy(dict(doc)))
        assert all(files["images"] and files["label"] for files in listed.values())
    except Exception as error:
        raise DataFault(
            f"{folder / 'dataset.json'}: dataset is {doc['dataset']!r:.200}, expected 'images': "
            "[files] and 'label': file of each case"
        ) from error
    return dict(listed)
