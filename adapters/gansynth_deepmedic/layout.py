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
from gansynth_deepmedic.configs import TrainConfig, joined
from gansynth_deepmedic.insertion import MISSING, HostCase, LoadedCase
from gansynth_deepmedic.subepoch_shares import SubepochShare
from gansynth_deepmedic.subepochs import read_case

TRAIN = "train.cfg"
SLOTS = "synth"  # folder of the slots of an exported data set
ENDING = ".nii.gz"
LABELS, ROI = "labels", "roi"
_PATHS = (
    *("folderForOutput", "cnnModelFilePath", "namesForPredictionsPerCaseVal", "dataframe_val"),
    *("channelsValidation", "gtLabelsValidation", "roiMasksValidation"),
    "weightedMapsForSamplingEachCategoryVal",
)
_TABLE, _ROIS = "dataframe_train", "roiMasksTraining"
_PACKED = 4  # gzip's level: noisy images hardly shrink beyond it, and every subepoch unpacks them

Changes = dict[str, tuple[Any, str]]
"""Key of ``train.cfg`` -> new value, and why; no reason if the meaning is the same."""


def write_layout(
    config: TrainConfig,
    folder: Path,
    share: SubepochShare,
    cases: Sequence[HostCase],
    slots: int,
    *,
    values: Mapping[str, Any] | None = None,
    home: Path | None = None,
    lacking: Sequence[Collection[int]] = (),
    rois: Sequence[str] = (),
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Write list files and ``train.cfg``, but no files of the slots.

    Every real case is listed ``share.repeats`` times by its files' paths. Then follow the slots,
    ``synth/slot_0000/<channel>.nii.gz`` with ``labels.nii.gz``. They also have ``roi.nii.gz`` if
    real cases have regions of interest. All lists are in the same order.

    Args:
        values: keys of ``train.cfg`` that the user sets beside the file.
        home: final name of the folder of an export, which has its own folder for results.
        lacking: missing channels (from 0) of each slot.
        rois: region of interest of each real case, if the user's file lists none.

    Returns:
        Paths of the first channel of each slot as in its list, and keys of ``train.cfg`` that
        differ from the user's file -> why.

    Raises:
        UsageFault: a path that no list of files can hold.
        EnvironmentFault: the disk refuses.
    """
    folder, values = folder.absolute(), values or {}
    place = home or folder
    names = file_names(config.channels)
    real = {name: [case.channels[n] for case in cases] for n, name in enumerate(names)}
    real[LABELS] = [case.labels for case in cases]
    if listed := [*rois] or [case.roi for case in cases if case.roi is not None]:
        real[ROI] = listed
    slot_homes = [slot_folder(place, number) for number in range(slots)]
    slot_files = {name: [str(slot / f"{name}{ENDING}") for slot in slot_homes] for name in real}
    firsts = tuple(slot_files[names[0]])
    for n, channels in enumerate(lacking):
        for channel in channels:
            slot_files[names[channel]][n] = MISSING
    changes = absolute_paths(config)
    changes |= {k: (v, "as asked") for k, v in values.items() if config.values.get(k, ...) != v}
    lists = {name: str(place / list_file(name)) for name in real}
    why = "real cases, then synthetic ones"
    changes["channelsTraining"] = [lists[name] for name in names], why
    changes["gtLabelsTraining"] = lists[LABELS], why
    if listed:
        where = "segments of synthetic cases are centred where the sample is; real cases' are all"
        changes[_ROIS] = lists[ROI], f"{where} of them" if rois else why
    segments = "numberTrainingSegmentsLoadedOnGpuPerSubep"
    for key, number, was, why in (
        ("numOfCasesLoadedPerSubepoch", share.cases, config.cases, "cases of a subepoch"),
        (segments, share.segments, config.segments, "as many from each case, and whole batches"),
    ):
        changes.pop(key, None)
        if number != was or values.get(key, number) != number:
            changes[key] = number, f"{why}; {was} in that file"
    if home is not None:
        why = "results apart from those of a training on real cases only"
        changes["folderForOutput"] = str(home / "output"), why
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, paths in real.items():
            lines = [listable(path) for path in [*paths * share.repeats, *slot_files[name]]]
            replace_text(folder / list_file(name), "".join(f"{line}\n" for line in lines))
        replace_text(folder / TRAIN, config_text(config, changes))
    return firsts, {key: why for key, (_, why) in changes.items() if why}


def slot_folder(folder: Path, number: int) -> Path:
    """Return the folder of a slot."""
    return folder / SLOTS / f"slot_{number:04d}"


def list_file(name: str) -> str:
    """Return the name of the list file of a channel, ``labels`` or ``roi``."""
    return f"list_{name}.cfg"


def file_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return unique names of the channels that are valid in file names."""
    names: list[str] = []
    for number, channel in enumerate(channels):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", channel).strip("_")[:64]
        if not name or name.lower() in (LABELS, ROI, *(used.lower() for used in names)):
            name = f"channel_{number}"
        names.append(name)
    return tuple(names)


def listable(path: str) -> str:
    """Return a path that is valid as a line of a list (UsageFault: it is not)."""
    encodable = path.encode("utf-8", "replace").decode() == path
    if not encodable or path.splitlines() != [path] or path != path.strip():
        raise UsageFault(
            f"{path!r}: DeepMedic's lists have one path per line, expected UTF-8 without line "
            "breaks or a space at the end; rename the file or folder"
        )
    return path


def absolute_paths(config: TrainConfig) -> Changes:
    """Return all paths of a configuration as absolute paths."""
    home, changes = config.path.parent, Changes()
    for key, value in config.values.items():
        if key in _PATHS and isinstance(value, str):
            changes[key] = str(joined(home, value)), ""
        elif key in _PATHS and isinstance(value, list | tuple):
            changes[key] = [str(joined(home, str(path))) for path in value], ""
    return changes


def config_text(config: TrainConfig, changes: Changes) -> str:
    """Format the user's assignments in their order with these changes; new keys come last."""
    reasons = {key: why for key, (_, why) in changes.items() if why}
    values = dict(config.values)
    if values.pop(_TABLE, None) is not None:
        reasons[_TABLE] = "left out: the lists replace it"
        if _ROIS not in changes:  # beside a table DeepMedic reads no list
            values.pop(_ROIS, None)
    values |= {key: value for key, (value, _) in changes.items()}
    head = [
        "Written by gansynth. Keys that differ from those of",
        f"{str(config.path)!a}:",
        *(f"  {key}: {why}" for key, why in reasons.items()),
        "All other values are that file's; paths are absolute.",
    ]
    comment = "".join(f"# {line}\n" for line in head)
    return comment + "".join(f"{key} = {value!a}\n" for key, value in values.items())


# -- volumes ---------------------------------------------------------------------------------------


def volume(file: str) -> npt.NDArray[Any]:
    """Return the voxels (X, Y, Z) of a NIfTI file, scaled by its header; a ``subepochs.Read``."""
    return read_nifti(file).array


def read_host(case: HostCase) -> LoadedCase:
    """A real case as its files have it."""
    return read_case(case, volume)


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

    files = [
        MISSING if real == MISSING else write(name, channel, real)
        for name, channel, real in zip(
            file_names(channels), loaded.image, case.channels, strict=True
        )
    ]
    labels = write(LABELS, loaded.labels, case.labels)
    roi = None if loaded.roi is None else write(ROI, loaded.roi, case.roi or case.labels)
    return HostCase(case.id, tuple(files), labels, roi, case.shape, case.stored, case.units)
