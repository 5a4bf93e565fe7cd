"""A DeepMedic data set dealt out otherwise: for each fold a configuration and lists of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.core.source import Split
from gansynth.data.divided import divide, table_text, write_small
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors
from gansynth_deepmedic.configs import ON_VOLUMES
from gansynth_deepmedic.files import MISSING
from gansynth_deepmedic.folds import CASES, CONFIG, fold_folder
from gansynth_deepmedic.layout import (
    LABELS,
    MAPS,
    ROI,
    Changes,
    absolute_paths,
    config_text,
    file_names,
    list_file,
    listable,
)

if TYPE_CHECKING:
    from gansynth.core.source import SourceRequest
    from gansynth_deepmedic.source import DeepMedicSource

MAPS_VALIDATION = "weightedMapsForSamplingEachCategoryVal"
EVERY = "numberOfEpochsBetweenFullInferenceOnValImages"
_SIDES = {"train": "Training", "val": "Validation"}


def write_folds(source: DeepMedicSource, splits: Sequence[Split], folder: Path) -> SourceRequest:
    """Write a configuration for each fold, ``fold_0/trainConfig.cfg`` and so on.

    Raises:
        UsageFault: sampling maps, which cases of the other side lack; regions of interest of some
            cases only; a channel's name with a comma; and as ``divide``.
        IntegrityFault, EnvironmentFault: as ``divide``.
    """
    config, request = source.config, source.request
    maps = next((key for key in (MAPS, MAPS_VALIDATION) if config.values.get(key)), None)
    if maps is not None:
        raise UsageFault(
            f"{config.path}: {maps}: held-out cases would need such maps too, and have none; "
            "expected sampling by labels (typeOfSamplingForTraining). Remove that key"
        )
    odd = next((name for name in source.channels if "," in name), None)
    if odd is not None:
        raise UsageFault(f"{config.path}: channel {odd!r}: expected no comma; name it otherwise")
    division = divide(source, source.case_ids, splits, folder)
    for number, split in enumerate(division.splits):
        _write_fold(source, split, fold_folder(division.folder, str(number)))
    return replace(
        request,
        where=str(division.folder),
        fold="0",
        subjects=str(division.subjects),
        read={**request.read, "channels": ",".join(source.channels)},
    )


def _write_fold(source: DeepMedicSource, split: Split, folder: Path) -> None:
    tables = ("dataframe_train", "dataframe_val")
    kept = {key: value for key, value in source.config.values.items() if key not in tables}
    config = replace(source.config, values=kept)
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)
    sides = {"train": split["train"], "val": split["val"]}
    changes = absolute_paths(config) | _apart(source, folder)
    for side, cases in sides.items():
        changes |= _lists(source, side, cases, folder)
    names = folder / "names.cfg"
    _write(names, [f"{case}.nii.gz" for case in split["val"]])
    changes["namesForPredictionsPerCaseVal"] = str(names), "held-out cases"
    rows = [(case, str(source.listed(case).files[0])) for side in sides.values() for case in side]
    write_small(folder / CASES, table_text(("case", "file"), rows))
    write_small(folder / CONFIG, config_text(config, changes))


def _lists(source: DeepMedicSource, side: str, cases: Sequence[str], folder: Path) -> Changes:
    """Write the lists of one side; the keys that name them."""
    each = [source.listed(case) for case in cases]
    columns: dict[str, list[Path | None]] = {
        name: [one.channels[number] for one in each]
        for number, name in enumerate(file_names(source.channels))
    }
    part, why = _SIDES[side], "dealt out otherwise"
    changes: Changes = {}
    paths = {name: folder / f"{side}_{list_file(name)}" for name in (*columns, LABELS, ROI)}
    changes[f"channels{part}"] = [str(paths[name]) for name in columns], why
    columns[LABELS] = [one.labels for one in each]
    changes[f"gtLabels{part}"] = str(paths[LABELS]), why
    regions = [one.roi for one in each]
    if any(regions):
        lacking = [case for case, roi in zip(cases, regions, strict=True) if roi is None]
        if lacking:
            raise UsageFault(
                f"{source.config.path}: case {lacking[0]!r} has no region of interest, and others "
                f"under {side} have; expected one for each, or none; list them, or deal out others"
            )
        columns[ROI] = regions
        changes[f"roiMasks{part}"] = str(paths[ROI]), why
    elif f"roiMasks{part}" in source.config.values:
        changes[f"roiMasks{part}"] = None, why
    for name, files in columns.items():
        _write(paths[name], [MISSING if file is None else str(file) for file in files])
    return changes


def _apart(source: DeepMedicSource, folder: Path) -> Changes:
    """Results stay apart from the user's, under the same name, and there is a validation."""
    config = source.config
    changes: Changes = {"folderForOutput": (str(folder / "output"), "apart from the user's")}
    if config.values.get("sessionName") is None:
        changes["sessionName"] = source.name.partition(":")[2], "the data set's name"
    if not (config.validates_on_samples or config.validates_on_volumes):
        changes[ON_VOLUMES] = True, "so that cases are held out"
        changes[EVERY] = config.epochs, "at the end only"
    return changes


def _write(path: Path, lines: Sequence[str]) -> None:
    write_small(path, "".join(f"{listable(line)}\n" for line in lines))
