"""nnU-Net's three folders, and its ``dataset.json``: channels, labels, and files of the cases."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json

NIFTI = (".nii.gz", ".nii")
VARIABLES = ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results")
NAME = re.compile(r"Dataset(\d{3})_[A-Za-z0-9_.-]+")


@dataclass(frozen=True)
class NnunetRoot:
    """nnU-Net's folders ``nnUNet_raw``, ``nnUNet_preprocessed`` and ``nnUNet_results``."""

    raw: Path
    preprocessed: Path
    results: Path

    @classmethod
    def find(cls, root: str | Path | None = None) -> NnunetRoot:
        """Find the folders below ``root``; without one, by nnU-Net's variables, or ``./nnunet``."""
        base = Path(root or "nnunet").absolute()
        named = {} if root is not None else os.environ
        return cls(*(Path(named.get(name) or base / name).absolute() for name in VARIABLES))

    def variables(self) -> dict[str, str]:
        """Return the environment variables of nnU-Net, for a child process."""
        folders = (self.raw, self.preprocessed, self.results)
        return dict(zip(VARIABLES, map(str, folders), strict=True))

    def datasets(self) -> tuple[str, ...]:
        """Return names of all data sets in the three folders, sorted."""
        homes = (self.raw, self.preprocessed, self.results)
        entries = {entry for home in homes for entry in home.glob("Dataset*") if entry.is_dir()}
        return tuple(sorted({entry.name for entry in entries if NAME.fullmatch(entry.name)}))

    def dataset(self, where: str) -> str:
        """Return the full name of a data set: ``004``, ``4`` or ``Dataset004_Hippocampus``."""
        datasets = self.datasets()
        if where in datasets:
            return where
        by_id = re.fullmatch(r"\d{1,3}", where)
        matching = [name for name in datasets if by_id and int(name[7:10]) == int(where)]
        if len(matching) > 1:
            raise UsageFault(
                f"nnunet:{where}: id {int(where)} belongs to several data sets "
                f"({', '.join(matching)}), expected one; rename or remove the others"
            )
        if not matching:
            raise DataFault(
                f"nnunet:{where}: no such data set in {self.raw} or {self.preprocessed}, expected "
                f"an id (004) or one of: {', '.join(datasets) or 'none'}. Name nnU-Net's folders "
                "with --root or the variable nnUNet_raw, or make it from your data: gansynth "
                "import SOURCE nnunet:ID"
            )
        return matching[0]


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
        from nnunetv2.utilities.utils import get_filenames_of_train_images_and_targets

        try:
            listed = get_filenames_of_train_images_and_targets(str(folder), deepcopy(doc))
            images = {case: tuple(map(Path, files["images"])) for case, files in listed.items()}
            labels = {case: Path(files["label"]) for case, files in listed.items()}
            assert all(images.values())
        except Exception as error:
            raise DataFault(
                f"{path}: dataset is {doc['dataset']!r:.200}, expected 'images': [files] and "
                "'label': file of each case"
            ) from error
    else:  # nnU-Net's own listing of folders forks twelve processes, and leaves out what is missing
        parts = (("imagesTr", f"_0000{ending}"), ("labelsTr", ending))
        cases = {
            file.name.removesuffix(tail)
            for part, tail in parts
            for file in (folder / part).glob(f"?*{tail}")
        }
        images = {
            case: tuple(
                folder / "imagesTr" / f"{case}_{c:04d}{ending}" for c in range(len(channels))
            )
            for case in sorted(cases)
        }
        labels = {case: folder / "labelsTr" / f"{case}{ending}" for case in images}
    if not images:
        raise DataFault(
            f"{folder}: no training cases, expected imagesTr/CASE_0000{ending} and "
            f"labelsTr/CASE{ending}"
        )
    return RawSet(folder, doc, channels, table, ending, images, labels)
