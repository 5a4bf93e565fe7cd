"""The cases of a DeepMedic configuration as a data set of volumes, and its ``--read`` keys."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Self

from pydantic import BeforeValidator, Field, model_validator

from gansynth.data.listing import (
    SPLITS,
    SUBJECTS,
    CaseFiles,
    ListingFault,
    VolumeSet,
    missing,
    stem,
)
from gansynth.data.read_options import (
    OF_BOXES,
    ClipWindow,
    CropSize,
    Frame,
    LabelNames,
    LeastVoxels,
    Modalities,
    OfLabels,
    ReadOptions,
    Resampling,
    Spacing,
    VolumeOptions,
    Whole,
    Words,
    check_whole,
)
from gansynth.runtime.errors import DataFault, GansynthError, IntegrityFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.options import Needs
from gansynth_deepmedic.configs import ListedCase, ModelConfig, TrainConfig
from gansynth_deepmedic.resplit import known_names
from gansynth_deepmedic.training_order import SLOTS

MANIFEST = "manifest.json"
_DEEPEST = 4  # most parent folders in a case's name


@dataclass(frozen=True)
class ConfiguredCases:
    """The cases of a configuration."""

    listing: VolumeSet  # as a data set of volumes; cases are of part ``train`` or ``val``
    listed: Mapping[str, ListedCase]  # case -> its files
    model: ModelConfig | None  # the network's configuration, if it is known


def list_cases(
    kind: str, config: TrainConfig, model: ModelConfig | None, names: Sequence[str] | None
) -> ConfiguredCases:
    """Name the cases of a configuration, and collect faults without reading an image."""
    everything = (*config.train, *config.validation)
    parts = ["train"] * len(config.train) + ["val"] * len(config.validation)
    ids = known_names(config, everything) or case_ids(everything, config.channels[0])
    listed = dict(zip(ids, everything, strict=True))
    drawn = list(_synthetic(listed))
    faults = [*drawn, *_both_sides(listed, config)]
    faults += _missing(listed, {fault.case for fault in drawn})
    if model is not None and model.channels != len(config.channels):
        faults.insert(0, ListingFault(None, config.path, wrong_channels(config, model)))
    entries = [
        CaseFiles(case, tuple(file for file in files.channels if file), files.labels, part=part)
        for (case, files), part in zip(listed.items(), parts, strict=True)
    ]
    listing = VolumeSet(
        f"{kind}:{session(config)}",
        config.path.parent,
        config.path,
        tuple(sorted(entries, key=lambda entry: entry.case)),
        channels=tuple(names or config.channels),
        splits=config.path.parent / SPLITS,
        subjects=config.path.parent / SUBJECTS,
        labels=None if model is None else class_labels(model.classes),
        named_in=None if model is None else model.path,
        faults=tuple(faults),
        unvalidated=not config.validation,
        by_voxel=True,
    )
    return ConfiguredCases(listing, listed, model)


def session(config: TrainConfig) -> str:
    """Return the configuration's ``sessionName``, else the name of its folder."""
    named = config.values.get("sessionName") is not None
    return config.session if named else config.path.parent.name or config.path.stem


def class_labels(classes: int) -> dict[str, int]:
    """Return names of DeepMedic's classes, which have numbers only."""
    return {"background": 0, **{f"label {number}": number for number in range(1, classes)}}


def case_ids(cases: Sequence[ListedCase], channel: str) -> tuple[str, ...]:
    """Return the shortest unique names of cases: of the folder, of the file, of both, ..."""

    def file(case: ListedCase) -> str:
        first = _first(case)
        name = stem(first.name) or first.stem
        ending = f"_{channel}".casefold()
        return name[: -len(ending)] if name.casefold().endswith(ending) else name

    def within(depth: int) -> Callable[[ListedCase], str]:
        return lambda case: "_".join((*_first(case).parent.parts[-depth:], file(case)))

    namings: list[Callable[[ListedCase], str]] = [
        lambda case: "" if case.labels is None else case.labels.parent.name,
        lambda case: _first(case).parent.name,
        file,
        *(within(depth) for depth in range(1, _DEEPEST + 1)),
    ]
    for naming in namings:
        names = tuple(naming(case).replace(os.sep, "_") for case in cases)
        alike = {unicodedata.normalize("NFC", name).casefold() for name in names}
        if all(names) and len(alike) == len(names):
            return names
    return tuple(f"case_{number:04d}" for number in range(len(cases)))


def _first(case: ListedCase) -> Path:
    return next(file for file in case.channels if file is not None)


def wrong_channels(config: TrainConfig, model: ModelConfig) -> DataFault:
    """Return the error for a network with another number of channels."""
    return DataFault(
        f"{model.path}: numberOfInputChannels is {model.channels}, expected {len(config.channels)} "
        f"as {config.path} lists ({', '.join(config.channels)}); correct one of them"
    )


def _missing(
    listed: Mapping[str, ListedCase], skipped: Collection[str | None]
) -> Iterator[ListingFault]:
    for case, files in listed.items():
        for file in files.files:
            if case not in skipped and not os.path.isfile(file):
                yield ListingFault(case, file, missing(file, case))


def _synthetic(listed: Mapping[str, ListedCase]) -> Iterator[ListingFault]:
    """Yield faults of synthetic cases, which must not train a generator or validate."""
    exports: dict[Path, bool] = {}
    for case, files in listed.items():
        for file in files.files:
            homes = [home for home in _slot_folders(file) if _export(home, exports)]
            if homes:
                message = (
                    f"{file}: is a synthetic case of {homes[0]}, expected real ones for a "
                    "generator and for validation; list the real files of the original "
                    "configuration"
                )
                yield ListingFault(case, file, IntegrityFault(message))
                break


def _slot_folders(file: Path) -> Iterator[Path]:
    """Yield the exports whose folder of synthetic cases holds a file."""
    for path in dict.fromkeys((file, Path(os.path.realpath(file)))):
        yield from (home.parent for home in path.parents if home.name == SLOTS)


def _export(folder: Path, exports: dict[Path, bool]) -> bool:
    """Return whether ``gansynth augment`` has written a folder."""
    if folder not in exports:
        try:
            exports[folder] = "gansynth" in read_json(folder / MANIFEST)
        except GansynthError:
            exports[folder] = False
    return exports[folder]


def _both_sides(listed: Mapping[str, ListedCase], config: TrainConfig) -> Iterator[ListingFault]:
    """Yield faults of images in both training and validation."""
    ids = list(listed)
    trained = {os.path.realpath(_first(listed[case])): case for case in ids[: len(config.train)]}
    for case in ids[len(config.train) :]:
        file = _first(listed[case])
        twin = trained.get(os.path.realpath(file))
        if twin is not None:
            message = (
                f"{file}: is listed in {config.train_list.name}, to train on (case {twin!r}), and "
                f"in {config.validation_list}, to validate on (case {case!r}); expected each case "
                "on one side; remove it from one"
            )
            yield ListingFault(case, file, IntegrityFault(message))


def _native(value: object) -> object:
    return "native" if value is None else value


class DeepMedicOptions(ReadOptions):
    """Options for reading the cases of a DeepMedic configuration."""

    needs: ClassVar[Needs] = {**OF_BOXES, "resampling": "whole"}

    model: str | None = Field(
        None,
        description="`modelConfig.cfg`: its number of classes sets the labels, its number of "
        "channels is compared, and `gansynth check` checks whether segments fit; else labels are "
        "0 to the largest in the training cases",
    )
    channels: Words | None = Field(
        None,
        description="names of the channels, in the order of `channelsTraining`; else the "
        "distinguishing parts of the list files' names, or the csv's `channel_NAME`",
    )
    labels: LabelNames | None = Field(None, description="NAME:NUMBER,... of the labels")
    modality: Modalities | None = Field(
        None,
        description="`none` (as stored), `mr` (z-score over the case's nonzero voxels) or `ct` "
        "(clip, then z-score, by the training cases' foreground); one for all channels or one for "
        "each; `mr` for channels that DeepMedic normalises itself (`norm_zscore_prms`), else "
        "`none`: DeepMedic expects normalised images",
    )
    window: ClipWindow = None
    spacing: Annotated[Spacing, BeforeValidator(_native)] = Field(
        "native",
        description="`native`: voxels as stored, as in DeepMedic; or a voxel size in mm along "
        "z,y,x (one number for all three) to resample to, for a generator that is not used with "
        "DeepMedic",
    )
    size: CropSize = None
    frame: Frame = None
    whole: Whole = None
    resampling: Resampling = "linear"
    boxes: OfLabels = None
    least: LeastVoxels = 1

    @model_validator(mode="after")
    def _crops_or_whole(self) -> Self:
        check_whole(self.size, self.frame, self.whole)
        return self

    def volumes(self, config: TrainConfig) -> VolumeOptions:
        """Convert the options to those of any volumes."""
        count = len(config.channels)
        if self.channels is not None and len(set(self.channels)) != count:
            raise UsageFault(
                f"--read channels={','.join(self.channels)}: {len(self.channels)} name(s), but "
                f"{config.path} lists {count} channel(s) ({', '.join(config.channels)}); expected "
                "a name for each, no two alike"
            )
        modality = self.modality
        if modality is None:
            modality = tuple("mr" if normalises else "none" for normalises in config.normalised)
        same = {key: value for key, value in self if key not in ("model", "modality")}
        return VolumeOptions(**same, modality=modality, allow_absolute=True)
