"""Writes the input of a training: NIfTI files, list files, and a changed ``train.cfg``.

DeepMedic executes its configuration files, so only literals are written. Real cases may go through
a generator's space, so that its losses are no cue: Doncenco et al. (2022) train so.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth import (
    OUTSIDE,
    AugmentRequest,
    DataFault,
    Placement,
    Reporter,
    Sample,
    Space,
    UsageFault,
    disk_errors,
    read_json,
    write_json_atomic,
)
from gansynth.core.volumes import read_volume, read_volume_header
from gansynth.data.case_writer import stored_bytes
from gansynth.runtime.files import whole_folder, write_bytes_atomic
from gansynth_deepmedic.configs import (
    BETWEEN,
    NAMES,
    ON_VOLUMES,
    VALIDATION_MAPS,
    ListedCase,
    TrainConfig,
    joined,
)
from gansynth_deepmedic.insertion import MISSING, HostCase, LoadedCase
from gansynth_deepmedic.source import DeepMedicSource

TRAIN = "train.cfg"
ENDING = ".nii.gz"
LABELS, ROI = "labels", "roi"
REAL = "real"  # folder of real cases that went through a generator's space
_RECORD = "real.json"
_PATHS = {"folderForOutput", "cnnModelFilePath", VALIDATION_MAPS}
"""Keys of the user's file whose paths become absolute."""
_DEFAULTS = {
    str(TrainConfig.model_fields[key].alias): TrainConfig.model_fields[key].default
    for key in ("cases", "segments", "between")
}


def write_layout(
    source: DeepMedicSource,
    folder: Path,
    cases: Sequence[HostCase],
    values: Mapping[str, Any],
    *,
    home: Path | None = None,
) -> list[str]:
    """Write list files and ``train.cfg``; return the keys that differ from the user's file.

    Args:
        cases: training cases, as often as they are listed; those to validate on are held out.
        values: other keys of ``train.cfg`` that change.
        home: final name of the folder, if it will be another.
    """
    config, place, names = source.config, home or folder.absolute(), file_names(source)
    held = [source.entry(case) for case in source.case_ids if case in source.held_out_ids]
    trained = _columns(names, cases, config)
    validated = _columns(names, held, config) if held else {}
    changed = {key: _absolute(config, config.values[key]) for key in _PATHS & config.values.keys()}
    lists: dict[str, list[str]] = {}
    for part, prefix, columns in (
        ("Training", "list", trained),
        ("Validation", "validation", validated),
    ):
        lists |= {f"{prefix}_{name}.cfg": column for name, column in columns.items()}
        paths = {name: str(place / f"{prefix}_{name}.cfg") for name in columns}
        changed[f"channels{part}"] = [paths[name] for name in names if name in paths] or None
        changed[f"gtLabels{part}"] = paths.get(LABELS)
        changed[f"roiMasks{part}"] = paths.get(ROI)
    lists["validation_names.cfg"] = [f"{listed.case}{ENDING}" for listed in held]
    changed[NAMES] = str(place / "validation_names.cfg") if held else None
    changed |= {"dataframe_train": None, "dataframe_val": None}
    if held != [*config.validation]:
        changed[VALIDATION_MAPS] = None  # others are held out than by the user's lists
    epochs = values.get("numberOfEpochs", config.epochs)
    if held and not (config.validates_on_samples or config.validates_on_volumes):
        changed[ON_VOLUMES] = True
        changed[BETWEEN] = epochs
    elif held and config.validates_on_volumes:
        changed[BETWEEN] = _between(max(config.between, 1), epochs)
    changed |= values
    differing = {k: v for k, v in changed.items() if v != config.values.get(k, _DEFAULTS.get(k))}
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        for name, column in lists.items():
            write_bytes_atomic(folder / name, list_text(column).encode())
        write_bytes_atomic(folder / TRAIN, _config_text(config, differing).encode())
    return sorted(differing)


def _between(least: int, epochs: int) -> int:
    """Epochs between full inferences, as few as allowed, so that the last epoch has one, too."""
    for count in range(least, epochs):
        if epochs % count == 0:
            return count
    return epochs


def _columns(
    names: Sequence[str], cases: Sequence[HostCase | ListedCase], config: TrainConfig
) -> dict[str, list[str]]:
    """Return the paths of channels, labels and perhaps regions of interest, case by case."""
    columns = {}
    for number, name in enumerate(names):
        columns[name] = [str(case.channels[number] or MISSING) for case in cases]
    columns[LABELS] = [str(case.labels) for case in cases]
    rois = [str(case.roi) for case in cases if case.roi is not None]
    if 0 < len(rois) < len(cases):
        raise UsageFault(
            "deepmedic.region-in-some-cases-only",
            f"{config.path}: some cases of a side have a region of interest and others have none, "
            "expected all or none; list them, or split other cases",
        )
    if rois:
        columns[ROI] = rois
    return columns


def file_names(source: DeepMedicSource) -> tuple[str, ...]:
    """Return unique names of the channels that are valid in file names."""
    names: list[str] = []
    for number, channel in enumerate(source.config.channels):
        name = re.sub(r"[^A-Za-z0-9_-]+", "_", channel).strip("_")[:64]
        taken = [LABELS, ROI, "names"] + [used.lower() for used in names]
        if not name or name.lower() in taken:
            name = f"channel_{number}"
        names.append(name)
    return tuple(names)


def list_text(paths: Sequence[str]) -> str:
    """Return the text of a list of DeepMedic; UsageFault: a path that no line can hold."""
    for path in paths:
        encodable = path.encode("utf-8", "replace").decode() == path
        if not encodable or path.splitlines() != [path] or path != path.strip():
            raise UsageFault(
                "deepmedic.path-not-listable",
                f"{path!r}: DeepMedic's lists have one path per line, expected UTF-8 without line "
                "breaks or a space at the end; rename the file or folder",
            )
    return "".join([f"{path}\n" for path in paths])


def _absolute(config: TrainConfig, value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_absolute(config, path) for path in value]
    return str(joined(config.path.parent, str(value)))


def _config_text(config: TrainConfig, differing: Mapping[str, Any]) -> str:
    """Format the user's assignments in their order with changes; new keys come last."""
    lines = [f"# Written by gansynth. These keys differ from those of {str(config.path)!a}:\n"]
    for key in differing:
        lines.append(f"#   {key}: {config.values.get(key)!a:.200} there\n")
    values = dict(config.values) | dict(differing)
    for key, value in values.items():
        lines.append(f"{key} = {value!a}\n")
    return "".join(lines)


# -- volumes ---------------------------------------------------------------------------------------


def read_host(case: HostCase) -> LoadedCase:
    """Return a real case as its files have it; labels and region are rounded as in DeepMedic."""

    def whole(file: str) -> npt.NDArray[np.int16]:
        rounded: npt.NDArray[np.int16] = np.rint(read_volume(file).array).astype(np.int16)
        return rounded

    labels = whole(case.labels)
    image = np.zeros((len(case.channels), *labels.shape), np.float32)
    for channel, file in zip(image, case.channels, strict=True):
        if file != MISSING:
            channel[:] = read_volume(file).array
    return LoadedCase(image, labels, None if case.roi is None else whole(case.roi), None, case.id)


def write_volume(
    file: Path, array: npt.NDArray[Any], like: str, *, synthetic: bool = False
) -> None:
    """Write (X, Y, Z) as gzipped NIfTI without texts, names or times.

    ``like``: the real file whose affine it gets. ``synthetic``: marked so.
    """
    data = stored_bytes(np.asarray(array), read_volume_header(like).affine, synthetic=synthetic)
    with disk_errors(file, len(data)):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)


def write_case(
    folder: Path,
    source: DeepMedicSource,
    case: HostCase,
    loaded: LoadedCase,
    *,
    synthetic: bool = False,
) -> HostCase:
    """Write a case with the affines of the real files that it replaces; return the new case."""

    def write(name: str, array: npt.NDArray[Any], like: str) -> str:
        file = folder / f"{name}{ENDING}"
        write_volume(file, array, like, synthetic=synthetic)
        return str(file)

    channels = []
    for name, image, file in zip(file_names(source), loaded.image, case.channels, strict=True):
        channels.append(file if file == MISSING else write(name, image, file))
    return replace(
        case,
        channels=tuple(channels),
        labels=write(LABELS, loaded.labels, case.labels),
        roi=None if loaded.roi is None else write(ROI, loaded.roi, case.roi or case.labels),
    )


# -- real cases through the space of a generator --------------------------------------------------


def training_cases(
    source: DeepMedicSource, request: AugmentRequest, folder: Path, reporter: Reporter
) -> tuple[HostCase, ...]:
    """Return the real training cases, converted through the generator's space if requested.

    Then ``folder/real/case_0000/`` and so on get images float32 in the files' own axes and units,
    labels and region of interest int16. Files of an earlier call with the same cases and space are
    reused, others are rewritten.
    """
    cases = tuple([source.host_case(case) for case in source.train_ids])
    if not request.real_in_generator_space:
        return cases
    assert request.run is not None, "see the adapter"
    space, home = request.run.space, folder.absolute() / REAL
    if space.grid != "resample":  # whole volumes: of crops only the window counts
        space = replace(space, grid="native", size=())
    document = {"space": space.to_json(), "cases": [case.to_json() for case in cases]}
    asked = json.loads(json.dumps(document))
    try:
        record = read_json(home / _RECORD)
    except DataFault:
        record = {}
    if {key: record.get(key) for key in asked} != asked:
        written = []
        with whole_folder(home, anew=True) as building:
            with reporter.task(len(cases), "real cases through the generator's space") as bar:
                for number, case in enumerate(cases):
                    place, loaded = building / f"case_{number:04d}", _brought(source, space, case)
                    new = write_case(place, source, case, loaded)
                    written.append(moved(new, building, home).to_json())
                    bar.advance(1)
            record = dict(asked, written=written)
            write_json_atomic(building / _RECORD, record)
    return tuple([HostCase.from_json(case) for case in record["written"]])


def moved(case: HostCase, before: Path, after: Path) -> HostCase:
    """Return a case of which a folder has been renamed; files elsewhere stay."""

    def path(file: str) -> str:
        inside = Path(file).is_relative_to(before)
        return str(after / Path(file).relative_to(before)) if inside else file

    roi = None if case.roi is None else path(case.roi)
    channels = tuple(map(path, case.channels))
    return replace(case, channels=channels, labels=path(case.labels), roi=roi)


def _brought(source: DeepMedicSource, space: Space, case: HostCase) -> LoadedCase:
    """Convert a case in the files' axes and units; labels outside the region do not change.

    Of a space with a frame, only the case's middle is converted.
    """
    real, read = read_host(case), source.load(case.id)
    squeezed = space.to_generator(read)
    back = space.to_host(Sample(squeezed.image, squeezed.labels), case.shape)
    image, labels = back.image, back.labels
    assert labels is not None, "it had some"
    assert read.labels is not None, "as every case"
    middle = Placement(tuple([-first for first in space.frame_corner(case.shape)]))
    if middle.corner:
        inside = middle.cut(np.ones(labels.shape, np.bool_), case.shape, False)
        image = np.where(inside, middle.cut(image, case.shape, 0), read.image)
        labels = np.where(inside, middle.cut(labels, case.shape, 0), read.labels)
    files, drawn = real.image.copy(), real.labels.copy()
    for number, (scale, offset) in enumerate(case.units):
        if case.channels[number] != MISSING:
            case.view(files[number])[...] = image[number] * np.float32(scale) + offset
    np.copyto(case.view(drawn), labels, where=labels != OUTSIDE)
    return LoadedCase(files, drawn, real.roi, None, case.id)
