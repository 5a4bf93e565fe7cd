"""Writes the input of a training: NIfTI files, list files, and a changed ``train.cfg``.

DeepMedic executes its configuration files, so only literals are written.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
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
from gansynth_deepmedic.training_order import SLOTS

TRAIN = "train.cfg"
ENDING = ".nii.gz"
LABELS, ROI, MAP = "labels", "roi", "map"
MAPS = "weightedMapsForSamplingEachCategoryTrain"
_PATHS = (
    *("folderForOutput", "cnnModelFilePath", "namesForPredictionsPerCaseVal", "dataframe_val"),
    *("channelsValidation", "gtLabelsValidation", "roiMasksValidation"),
    *("weightedMapsForSamplingEachCategoryVal", MAPS),
)
_TABLE, _CHANNELS, _LABELS, _ROIS = (
    "dataframe_train",
    "channelsTraining",
    "gtLabelsTraining",
    "roiMasksTraining",
)
_PACKED = 4  # gzip's level: noisy images hardly shrink beyond it, and every subepoch unpacks them
_CASES, _SEGMENTS = "numOfCasesLoadedPerSubepoch", "numberTrainingSegmentsLoadedOnGpuPerSubep"


@dataclass(frozen=True)
class SyntheticAdditions:
    """Additional input of a training with synthetic cases on disk."""

    home: Path | None = None  # final name of the folder; None if it does not change
    # missing channels (from 0) of each slot; empty if none is missing
    lacking: Sequence[Collection[int]] = ()
    # region of interest of each real case, if the user's file lists none
    rois: Sequence[str] = ()
    # sampling map of each real case, by category; empty for none
    maps: Sequence[Sequence[str]] = ()
    # further keys to set -> value and why
    values: Mapping[str, tuple[Any, str]] = field(default_factory=dict)


def write_layout(
    config: TrainConfig,
    folder: Path,
    share: SubepochShare,
    cases: Sequence[HostCase],
    slots: int,
    *,
    values: Mapping[str, Any] | None = None,
    additions: SyntheticAdditions | None = None,
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Write list files and ``train.cfg``, but no files of the slots.

    Every real case is listed ``share.repeats`` times by its files' paths. Then follow the slots,
    ``synth/slot_0000/<channel>.nii.gz`` with ``labels.nii.gz``. They also have ``roi.nii.gz`` if
    real cases have regions of interest. All lists are in the same order.

    Returns:
        Paths of the first channel of each slot as in its list, and keys of ``train.cfg`` that
        differ from the user's file -> why.

    Raises:
        UsageFault: a path that no list of files can hold.
        EnvironmentFault: the disk refuses.
    """
    folder, extra = folder.absolute(), additions or SyntheticAdditions()
    home = extra.home or folder
    names = file_names(config.channels)
    real = {name: [case.channels[n] for case in cases] for n, name in enumerate(names)}
    real[LABELS] = [case.labels for case in cases]
    if rois := extra.rois or [case.roi for case in cases if case.roi is not None]:
        real[ROI] = list(rois)
    real |= {f"{MAP}_{number}": list(paths) for number, paths in enumerate(extra.maps)}
    synthetic = {
        name: [str(slot_folder(home, n) / f"{name}{ENDING}") for n in range(slots)] for name in real
    }
    for n, lacking in enumerate(extra.lacking):
        for channel in lacking:
            synthetic[names[channel]][n] = MISSING
    changed = _changed(config, home, share, list(real), values or {}, extra)
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, paths in real.items():
            lines = [listable(path) for path in [*paths * share.repeats, *synthetic[name]]]
            replace_text(folder / list_file(name), "".join(f"{line}\n" for line in lines))
        replace_text(folder / TRAIN, config_text(config, changed))
    firsts = [str(slot_folder(home, n) / f"{names[0]}{ENDING}") for n in range(slots)]
    return tuple(firsts), {key: why for key, (_, why) in changed.items() if why}


def slot_folder(folder: Path, number: int) -> Path:
    """Return the folder of a slot."""
    return folder / SLOTS / f"slot_{number:04d}"


def list_file(name: str) -> str:
    """Return the name of the list file of a channel, ``labels``, ``roi``, ``map_0`` ..."""
    return f"list_{name}.cfg"


def file_names(channels: Sequence[str]) -> tuple[str, ...]:
    """Return unique names of the channels that are valid in file names."""
    names: list[str] = []
    for number, channel in enumerate(channels):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", channel).strip("_")[:64]
        taken = {LABELS, ROI, *(used.lower() for used in names)}
        if not name or name.lower() in taken or re.fullmatch(rf"{MAP}_\d+", name):
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


# -- train.cfg -------------------------------------------------------------------------------------

Changes = dict[str, tuple[Any, str]]
"""Key -> new value, and the reason of the change; no reason if the meaning is the same."""


def _changed(
    config: TrainConfig,
    home: Path,
    share: SubepochShare,
    lists: Sequence[str],
    values: Mapping[str, Any],
    additions: SyntheticAdditions,
) -> Changes:
    changes: Changes = dict(absolute_paths(config))
    changes |= {
        key: (value, "as asked")
        for key, value in values.items()
        if key not in config.values or config.values[key] != value
    }

    def named(name: str) -> str:
        return str(home / list_file(name))

    cases = "real cases, then synthetic ones"
    changes[_CHANNELS] = [named(name) for name in file_names(config.channels)], cases
    changes[_LABELS] = named(LABELS), cases
    if ROI in lists:
        why = "segments of synthetic cases are centred where the sample is; real cases' are all of"
        changes[_ROIS] = named(ROI), f"{why} them" if additions.rois else cases
    maps = [named(name) for name in lists if re.fullmatch(rf"{MAP}_\d+", name)]
    if maps:
        why = "segments of synthetic cases are centred where the sample is, real ones' as before"
        changes[MAPS] = maps, why
    for key, value, was, why in (
        (_CASES, share.cases, config.cases, "cases of a subepoch"),
        (_SEGMENTS, share.segments, config.segments, "as many from each case, and whole batches"),
    ):
        if value != was or values.get(key, value) != value:
            changes[key] = value, f"{why}; {was} in that file"
        else:
            changes.pop(key, None)
    return changes | dict(additions.values)


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


def nifti(
    array: npt.NDArray[Any], affine: npt.NDArray[np.float64], *, synthetic: bool = False
) -> bytes:
    """Return a gzipped NIfTI file without texts, names or times, marked if it is synthetic.

    Args:
        array: (X, Y, Z) as stored.
        affine: (4, 4), voxel to mm.
    """
    import nibabel as nib

    image = nib.Nifti1Image(np.asarray(array), affine)
    image.header.set_xyzt_units("mm")
    image = marked(image) if synthetic else image
    return gzip.compress(image.to_bytes(), _PACKED, mtime=0)


def volume(file: str) -> npt.NDArray[Any]:
    """Return the voxels (X, Y, Z) of a NIfTI file, scaled by its header; a ``subepochs.Read``."""
    return read_nifti(file).array


def read_host(case: HostCase) -> LoadedCase:
    """A real case as its files have it."""
    return read_case(case, volume)


def stored_shape(case: HostCase) -> tuple[int, ...]:
    """Return the shape (X, Y, Z) of a case's files."""
    return tuple(case.shape[2 - axis] for axis, _ in case.stored)


def affine_of(file: str) -> npt.NDArray[np.float64]:
    """Return the affine of a NIfTI file, voxel to mm."""
    return read_nifti_header(file).affine


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
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)

    def write(name: str, array: npt.NDArray[Any], like: str) -> str:
        file = folder / f"{name}{ENDING}"
        data = nifti(array, affine_of(like), synthetic=synthetic)
        with disk_errors(file, len(data)):
            file.write_bytes(data)
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


def folder_names(cases: Sequence[str]) -> tuple[str, ...]:
    """Return unique folder names for cases."""
    plain = [name for name in cases if re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", name)]
    if len({name.lower() for name in plain}) == len(cases):
        return tuple(cases)
    return tuple(f"case_{number:04d}" for number in range(len(cases)))
