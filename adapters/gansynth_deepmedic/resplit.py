"""A DeepMedic data set split into folds, each with its own configuration and lists.

``CASES`` beside each configuration holds the names of the cases.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from gansynth.core.source import FoldSplit, SourceRequest
from gansynth.data.nifti import VolumeSource
from gansynth.data.resplit import FILE, table_text, write_resplit, write_small
from gansynth.data.subjects import read_column
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import disk_errors
from gansynth_deepmedic.configs import MAPS, ON_VOLUMES, ListedCase, TrainConfig
from gansynth_deepmedic.insertion import MISSING
from gansynth_deepmedic.layout import (
    LABELS,
    ROI,
    absolute_paths,
    config_text,
    file_names,
    list_file,
    listable,
)

CONFIG = "trainConfig.cfg"
CASES = "gansynth_cases.csv"
"""Names of the cases of a configuration beside it; columns ``case`` and ``file``."""
_WHY = "split into folds"


def write_folds(
    source: VolumeSource,
    config: TrainConfig,
    listed: Mapping[str, ListedCase],
    splits: Sequence[FoldSplit],
    folder: Path,
) -> SourceRequest:
    """Write a configuration for each fold, ``fold_0/trainConfig.cfg`` and so on.

    Raises:
        UsageFault: sampling maps, which validation cases lack; regions of interest of some cases
            only; a comma in a channel's name; and as ``divide``.
        IntegrityFault, EnvironmentFault: as ``divide``.
    """
    for key in (MAPS, "weightedMapsForSamplingEachCategoryVal"):
        if config.values.get(key):
            raise UsageFault(
                f"{config.path}: {key}: held-out cases would need such maps, but have none; "
                "expected sampling by labels (typeOfSamplingForTraining). Remove that key"
            )
    odd = next((name for name in source.channels if "," in name), None)
    if odd is not None:
        raise UsageFault(f"{config.path}: channel {odd!r}: expected no comma; name it otherwise")
    division = write_resplit(source, listed, splits, folder)
    for number, split in enumerate(division.splits):
        _write_fold(source, config, listed, split, _fold_folder(division.folder, str(number)))
    return replace(
        source.request,
        where=str(division.folder),
        fold="0",
        subjects=str(division.subjects),
        read={**source.request.read, "channels": ",".join(source.channels)},
    )


def _write_fold(
    source: VolumeSource,
    config: TrainConfig,
    listed: Mapping[str, ListedCase],
    split: FoldSplit,
    folder: Path,
) -> None:
    tables = ("dataframe_train", "dataframe_val")
    values = {key: value for key, value in config.values.items() if key not in tables}
    config = config.model_copy(update={"values": values})
    with disk_errors(folder):
        folder.mkdir(exist_ok=True)

    def write(name: str, lines: Sequence[object]) -> str:
        path = folder / name
        write_small(path, "".join(f"{listable(str(line or MISSING))}\n" for line in lines))
        return str(path)

    changes = absolute_paths(config)
    changes["folderForOutput"] = str(folder / "output"), "apart from the user's"
    if config.values.get("sessionName") is None:
        changes["sessionName"] = source.name.partition(":")[2], "the data set's name"
    if not (config.validates_on_samples or config.validates_on_volumes):
        changes[ON_VOLUMES] = True, "so that cases are held out"
        every = "numberOfEpochsBetweenFullInferenceOnValImages"
        changes[every] = config.epochs, "at the end only"
    sides: Mapping[str, Sequence[str]] = {"train": split["train"], "val": split["val"]}
    for side, part in (("train", "Training"), ("val", "Validation")):
        each = [listed[case] for case in sides[side]]
        lacking = [case for case in sides[side] if listed[case].roi is None]
        if 0 < len(lacking) < len(each):
            raise UsageFault(
                f"{config.path}: case {lacking[0]!r} has no region of interest, and others under "
                f"{side} have, expected all or none; list them, or split other cases"
            )
        images = [
            write(f"{side}_{list_file(name)}", [files.channels[number] for files in each])
            for number, name in enumerate(file_names(source.channels))
        ]
        changes[f"channels{part}"] = images, _WHY
        labels = write(f"{side}_{list_file(LABELS)}", [files.labels for files in each])
        changes[f"gtLabels{part}"] = labels, _WHY
        if not lacking:
            rois = write(f"{side}_{list_file(ROI)}", [files.roi for files in each])
            changes[f"roiMasks{part}"] = rois, _WHY
        elif f"roiMasks{part}" in values:
            changes[f"roiMasks{part}"] = None, _WHY
    names = write("names.cfg", [f"{case}.nii.gz" for case in split["val"]])
    changes["namesForPredictionsPerCaseVal"] = names, "held-out cases"
    rows = [(case, str(listed[case].files[0])) for side in sides.values() for case in side]
    write_small(folder / CASES, table_text(("case", "file"), rows))
    write_small(folder / CONFIG, config_text(config, changes))


def _fold_folder(folder: Path, fold: str) -> Path:
    return folder / f"fold_{fold}"


def is_divided(where: str) -> bool:
    """Return whether a path is a folder with a configuration for each fold."""
    return (Path(where) / FILE).is_file()


def config_of(request: SourceRequest) -> Path:
    """Return the ``trainConfig.cfg`` of a request with an absolute path."""
    if not is_divided(request.where):
        return Path(request.where)
    path = _fold_folder(Path(request.where), request.fold) / CONFIG
    if not path.is_file():
        raise UsageFault(
            f"--fold {request.fold!r}: no {path}, expected one of the folds of {request.where}: "
            "0, 1, ..."
        )
    return path


def known_names(config: TrainConfig, cases: Sequence[ListedCase]) -> tuple[str, ...] | None:
    """Return the names that cases had before the split into folds; None without ``CASES``."""
    path = config.path.parent / CASES
    if not path.is_file():
        return None
    names = read_column(path, "file")
    if list(names.values()) != [str(case.files[0]) for case in cases]:
        raise DataFault(
            f"{path}: names other files than the first channels that {config.path} lists, expected "
            "the same in the same order; split the cases again, or remove it"
        )
    return tuple(names)
