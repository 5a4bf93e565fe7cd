"""Writes the input of a training: NIfTI files, list files, and a changed ``train.cfg``.

DeepMedic executes its configuration files, so only literals are written.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.synthetic import marked
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors, read_nifti, read_nifti_header, replace_text
from gansynth_deepmedic.configs import (
    CASES,
    NAMES,
    ON_VOLUMES,
    SEGMENTS,
    ListedCase,
    TrainConfig,
    joined,
)
from gansynth_deepmedic.insertion import MISSING, HostCase, LoadedCase
from gansynth_deepmedic.source import DeepMedicSource
from gansynth_deepmedic.subepoch_shares import SubepochShare
from gansynth_deepmedic.subepochs import read_case

TRAIN = "train.cfg"
SLOTS = "synth"  # folder of the slots of an exported data set
ENDING = ".nii.gz"
LABELS, ROI = "labels", "roi"
_VALIDATION_MAPS = "weightedMapsForSamplingEachCategoryVal"
_PATHS = ("folderForOutput", "cnnModelFilePath", _VALIDATION_MAPS)
"""Keys of the user's file whose paths become absolute."""
_PACKED = 4  # gzip's level: noisy images hardly shrink beyond it, and every subepoch unpacks them


def write_layout(
    source: DeepMedicSource,
    folder: Path,
    share: SubepochShare,
    cases: Sequence[HostCase],
    *,
    values: Mapping[str, Any] | None = None,
    home: Path | None = None,
    slots: Sequence[Collection[int]] = (),
    rois: Sequence[str] = (),
) -> dict[str, str]:
    """Write list files and ``train.cfg``, but no files of the slots.

    Every real case is listed ``share.repeats`` times by its files' paths. Then follow the slots,
    ``synth/slot_0000/<channel>.nii.gz`` with ``labels.nii.gz``. They also have ``roi.nii.gz`` if
    real cases have regions of interest. All lists are in the same order.

    Args:
        cases: real training cases; those to validate on are the held-out ones.
        values: keys of ``train.cfg`` that the user sets beside the file.
        home: final name of the folder of an export, which has its own folder for results.
        slots: missing channels (from 0) of each slot.
        rois: region of interest of each real case, if the user's file lists none.

    Returns:
        Keys of ``train.cfg`` that differ from the user's file -> why.

    Raises:
        UsageFault: a path that no list of files can hold, or regions of interest of some cases.
        EnvironmentFault: the disk refuses.
    """
    config, values = source.config, values or {}
    place = home or folder.absolute()
    names = file_names(config.channels)
    held = [case for case in source.case_ids if case in source.held_out_ids]
    trained = _columns(names, cases, config)
    if rois:
        trained[ROI] = [*rois]
    for name, column in trained.items():
        column *= share.repeats
        for number, lacking in enumerate(slots):
            missing = name in names and names.index(name) in lacking
            file = slot_folder(place, number) / f"{name}{ENDING}"
            column.append(MISSING if missing else str(file))
    validated = _columns(names, [source.listed(case) for case in held], config) if held else {}
    if held:
        validated["names"] = [f"{case}{ENDING}" for case in held]
    changes = {k: _absolute(config, config.values[k]) for k in _PATHS if config.values.get(k)}
    whys: dict[str, str] = {}

    def change(key: str, value: Any, why: str) -> None:
        if value is not None or key in config.values:
            changes[key], whys[key] = value, why

    for key, value in values.items():
        if config.values.get(key, ...) != value:
            change(key, value, "as asked")
    lists = {
        "Training": ("list", trained, "real cases, then synthetic ones"),
        "Validation": ("validation", validated, "the held-out cases"),
    }
    for part, (prefix, columns, why) in lists.items():
        paths = {name: str(place / f"{prefix}_{name}.cfg") for name in columns}
        images = [paths[name] for name in names if name in paths]
        change(f"channels{part}", images or None, why)
        change(f"gtLabels{part}", paths.get(LABELS), why)
        if rois and part == "Training":
            why = "segments of synthetic cases are centred where the sample is"
        change(f"roiMasks{part}", paths.get(ROI), why)
    change(NAMES, str(place / "validation_names.cfg") if held else None, "the held-out cases")
    change("dataframe_train", None, "the lists replace it")
    change("dataframe_val", None, "the lists replace it")
    if [source.listed(case) for case in held] != [*config.validation]:
        change(_VALIDATION_MAPS, None, "other cases are held out")
    if held and not (config.validates_on_samples or config.validates_on_volumes):
        change(ON_VOLUMES, True, "so that cases are held out")
        change("numberOfEpochsBetweenFullInferenceOnValImages", config.epochs, "at the end only")
    for key, number, was, why in (
        (CASES, share.cases, config.cases, "cases of a subepoch"),
        (SEGMENTS, share.segments, config.segments, "as many from each case, and whole batches"),
    ):
        changes.pop(key, None)
        if number != was or values.get(key, number) != number:
            change(key, number, f"{why}; {was} in that file")
    if home is not None:
        why = "results apart from those of a training on real cases only"
        change("folderForOutput", str(home / "output"), why)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for prefix, columns, _ in lists.values():
            for name, column in columns.items():
                lines = "".join(f"{_listable(path)}\n" for path in column)
                replace_text(folder / f"{prefix}_{name}.cfg", lines)
        replace_text(folder / TRAIN, _config_text(config, changes, whys))
    return whys


def _columns(
    names: Sequence[str], cases: Sequence[HostCase] | Sequence[ListedCase], config: TrainConfig
) -> dict[str, list[str]]:
    """Return the paths of channels, labels and perhaps regions of interest, case by case."""
    columns = {
        name: [str(case.channels[number] or MISSING) for case in cases]
        for number, name in enumerate(names)
    }
    columns[LABELS] = [str(case.labels) for case in cases]
    rois = [str(case.roi) for case in cases if case.roi is not None]
    if 0 < len(rois) < len(cases):
        raise UsageFault(
            f"{config.path}: some cases of a side have a region of interest and others have none, "
            "expected all or none; list them, or split other cases"
        )
    return {**columns, ROI: rois} if rois else columns


def slot_folder(folder: Path, number: int) -> Path:
    """Return the folder of a slot."""
    return folder / SLOTS / f"slot_{number:04d}"


def file_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return unique names of the channels that are valid in file names."""
    names: list[str] = []
    for number, channel in enumerate(channels):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", channel).strip("_")[:64]
        if not name or name.lower() in (LABELS, ROI, "names", *(used.lower() for used in names)):
            name = f"channel_{number}"
        names.append(name)
    return tuple(names)


def _listable(path: str) -> str:
    encodable = path.encode("utf-8", "replace").decode() == path
    if not encodable or path.splitlines() != [path] or path != path.strip():
        raise UsageFault(
            f"{path!r}: DeepMedic's lists have one path per line, expected UTF-8 without line "
            "breaks or a space at the end; rename the file or folder"
        )
    return path


def _absolute(config: TrainConfig, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_absolute(config, path) for path in value]
    return str(joined(config.path.parent, str(value)))


def _config_text(config: TrainConfig, changes: Mapping[str, Any], whys: Mapping[str, str]) -> str:
    """Format the user's assignments in their order with changes; new keys come last."""
    head = [
        "Written by gansynth. Keys that differ from those of",
        f"{str(config.path)!a}:",
        *(f"  {key}: {why}" for key, why in whys.items()),
        "All other values are that file's; paths are absolute.",
    ]
    comment = "".join(f"# {line}\n" for line in head)
    values = {**config.values, **changes}
    return comment + "".join(f"{key} = {value!a}\n" for key, value in values.items())


# -- volumes ---------------------------------------------------------------------------------------


def read_host(case: HostCase) -> LoadedCase:
    """Return a real case as its files have it."""
    return read_case(case, lambda file: read_nifti(file).array)


def write_volume(
    file: Path, array: npt.NDArray[Any], like: str, *, synthetic: bool = False
) -> None:
    """Write (X, Y, Z) as gzipped NIfTI without texts, names or times.

    ``like``: the real file whose affine it gets. ``synthetic``: marked so.
    """
    import nibabel as nib

    image = nib.Nifti1Image(np.asarray(array), read_nifti_header(like).affine)
    image.header.set_xyzt_units("mm")
    image = marked(image) if synthetic else image
    data = gzip.compress(image.to_bytes(), _PACKED, mtime=0)
    with disk_errors(file, len(data)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def write_case(
    folder: Path,
    channels: Sequence[str],
    case: HostCase,
    loaded: LoadedCase,
    *,
    synthetic: bool = False,
) -> HostCase:
    """Write the files of a case, each with the affine of the real file it replaces.

    Returns:
        The case with the written files.
    """

    def write(name: str, array: npt.NDArray[Any], like: str) -> str:
        file = folder / f"{name}{ENDING}"
        write_volume(file, array, like, synthetic=synthetic)
        return str(file)

    each = zip(file_names(channels), loaded.image, case.channels, strict=True)
    files = [real if real == MISSING else write(name, image, real) for name, image, real in each]
    labels = write(LABELS, loaded.labels, case.labels)
    roi = None if loaded.roi is None else write(ROI, loaded.roi, case.roi or case.labels)
    return HostCase(case.id, tuple(files), labels, roi, case.shape, case.stored, case.units)
