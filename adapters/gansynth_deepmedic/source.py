"""``deepmedic:trainConfig.cfg``: the training and validation cases of a DeepMedic configuration.

DeepMedic ignores spacing and orientation. All files of a case are reoriented by the axes of its
label map, not by their own headers. Samples are written back by the same axes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field

from gansynth import (
    OUTSIDE,
    Case,
    DataFault,
    FloatArray,
    IntegrityFault,
    LabelArray,
    Schema,
    SourceRequest,
    Space,
    UsageFault,
    VolumeOptions,
    VolumeSet,
    VolumeSource,
    parse_read,
    register_read_options,
)
from gansynth.core.synthetic import real_file
from gansynth.core.volumes import read_volume, read_volume_header
from gansynth.data.grid import canonical, canonical_shape, other_shape, stored_axes
from gansynth.data.listing import ListingFault, missing
from gansynth.data.read_options import CaseOptions, LabelNames, Modalities, Spacing
from gansynth.runtime.volumes import Volume
from gansynth_deepmedic.configs import (
    ON_SAMPLES,
    ON_VOLUMES,
    ListedCase,
    ModelConfig,
    TrainConfig,
    read_model_config,
    read_train_config,
    trains,
)
from gansynth_deepmedic.insertion import MISSING, HostCase

log = logging.getLogger("gansynth")

MOST_LABEL = 255  # where no network says how many classes there are


def _native(value: object) -> object:
    return "native" if value is None else value


class DeepMedicOptions(CaseOptions):
    """Options for reading the cases of a DeepMedic configuration."""

    model: str | None = Field(
        None,
        description="`modelConfig.cfg`: its number of classes sets the labels, its number of "
        "channels is compared, and `gansynth check` checks whether segments fit; else labels are "
        "0 to the largest in the training cases",
    )
    channels: tuple[str, ...] | None = Field(
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
    spacing: Annotated[Spacing, BeforeValidator(_native)] = Field(
        "native",
        description="`native`: voxels as stored, as in DeepMedic; or a voxel size in mm along "
        "z,y,x (one number for all three) to resample to, for a generator that is not used with "
        "DeepMedic",
    )

    def volumes(self, config: TrainConfig) -> VolumeOptions:
        """Convert the options to those of any volumes."""
        count = len(config.channels)
        if self.channels is not None and len(set(self.channels)) != count:
            raise UsageFault(
                "deepmedic.channel-names-mismatch",
                f"--read channels={','.join(self.channels)}: {len(self.channels)} name(s), but "
                f"{config.path} lists {count} channel(s) ({', '.join(config.channels)}); expected "
                "a name for each, no two alike",
            )
        own = tuple(["mr" if normalises else "none" for normalises in config.normalised])
        values = {key: value for key, value in self if key not in ("model", "modality")}
        values |= {"modality": self.modality or own, "allow_absolute": True}
        return VolumeOptions.model_validate(values)


class ConfiguredCases(NamedTuple):
    """The cases of a configuration; no image has been read."""

    request: SourceRequest  # with absolute paths
    config: TrainConfig
    model: ModelConfig | None  # the network's; None if it was not named
    options: VolumeOptions
    listing: VolumeSet  # as a data set of volumes, of ``ListedCase``


class DeepMedicSource(VolumeSource):
    """The cases of one configuration: fold 0 trains on its training lists, ``all`` on all cases.

    Labels outside regions of interest are -1: DeepMedic centres no segment there.
    """

    def __init__(self, cases: ConfiguredCases) -> None:
        self.config, self.model = cases.config, cases.model
        super().__init__(cases.request, cases.listing, cases.options)

    def entry(self, case_id: str) -> ListedCase:
        return cast(ListedCase, super().entry(case_id))

    @property
    def case_ids(self) -> tuple[str, ...]:
        """In the order of the lists."""
        return tuple([listed.case for listed in self.config.listed])

    @cached_property
    def schema(self) -> Schema:
        regions = any(listed.roi is not None for listed in self.config.listed)
        return replace(super().schema, has_outside=regions)

    @cached_property
    def space(self) -> Space:
        space: Space = super().space
        if not self.schema.has_outside:
            return space
        host = dict(space.host, outside="beyond the region of interest")
        return replace(space, host=host, pad_label=OUTSIDE)

    # -- reading ---------------------------------------------------------------------------------

    def _files_read(self, case_id: str) -> Sequence[Path]:
        model = () if self.model is None else (self.model.path,)
        return (*self.entry(case_id).everything, *model)

    def _prepared(self, case_id: str, *stored: Any) -> Case:
        case = super()._prepared(case_id, *stored)
        there = np.array([file is not None for file in self.entry(case_id).channels])
        if there.all():
            return case
        return replace(case, image=np.where(there[:, None, None, None], case.image, np.float32(0)))

    def _units_of(self, case_id: str, image: FloatArray) -> tuple[tuple[float, float], ...]:
        units, channels = super()._units_of(case_id, image), self.entry(case_id).channels
        each = zip(units, channels, strict=True)
        return tuple([unit if file else (1.0, 0.0) for unit, file in each])

    def host_case(self, case_id: str) -> HostCase:
        """Return a case in the form of DeepMedic's files; the image is read only for its units."""
        listed = self.entry(case_id)
        header = read_volume_header(listed.labels)
        units = ((1.0, 0.0),) * len(listed.channels)
        if any(modality != "none" for modality in self.modality):
            units = self._units_of(case_id, self._in_own_units(case_id)[0])
        return HostCase(
            case_id,
            channels=tuple([str(file or MISSING) for file in listed.channels]),
            labels=str(listed.labels),
            roi=None if listed.roi is None else str(listed.roi),
            shape=canonical_shape(header.shape, header.affine),
            stored=stored_axes(header.affine),
            units=units,
        )

    def labels_of(self, case_id: str) -> LabelArray:
        """Read a case's labels within its region of interest, without its channels."""
        listed = self.entry(case_id)
        reference = read_volume(listed.labels, labels=True)
        return self._within(listed, self._numbered(listed.labels, reference), reference)

    def _read(self, case_id: str) -> tuple[npt.NDArray[Any], LabelArray | None, Volume]:
        image, labels, reference = self._stored(case_id)
        return image, self._within(self.entry(case_id), labels, reference), reference

    def _within(self, listed: ListedCase, labels: LabelArray, reference: Volume) -> LabelArray:
        """Labels of a case, of which those outside its region of interest are not known."""
        if listed.roi is None:
            return labels
        region = region_of(listed.roi, self._turned(listed.roi, reference, listed.labels))
        return np.where(region > 0, labels, np.int16(OUTSIDE))

    def _numbered(self, file: Path, volume: Volume) -> LabelArray:
        return label_map(file, canonical(volume)[0], self.model)

    def _stored(self, case_id: str) -> tuple[npt.NDArray[Any], LabelArray, Volume]:
        listed = self.entry(case_id)
        reference = read_volume(listed.labels, labels=True)
        labels = self._numbered(listed.labels, reference)
        channels = [
            np.zeros(labels.shape, np.float32)
            if file is None
            else self._turned(file, reference, listed.labels)
            for file in listed.channels
        ]
        return np.stack(channels), labels, reference

    def _turned(self, file: Path, reference: Volume, labels: Path) -> npt.NDArray[Any]:
        volume = read_volume(real_file(file, self.request))
        for problem in other_shape(file, volume.array.shape, labels, reference.array.shape):
            raise DataFault("deepmedic.shape-differs-from-labels", problem)
        return canonical(volume._replace(affine=reference.affine))[0]

    @cached_property
    def _labels(self) -> Mapping[str, int]:
        named = self.options.labels or self.listing.labels
        if named is not None:
            return named
        highest = 0
        for case in self.train_ids:
            file = self.entry(case).labels
            labels = label_map(file, read_volume(file, labels=True).array, None)
            highest = max(highest, int(labels.max()))
        return _class_labels(1 + highest)


def config_in(where: Path) -> Path:
    """Return a folder's configuration of a training if it has only one; else the path itself."""
    found = [file for file in sorted(where.glob("*.cfg")) if trains(file)]
    return found[0] if len(found) == 1 else where


def describes(kind: str, where: Path) -> bool:
    """Whether a path is the configuration of a training, or a folder with one."""
    return trains(config_in(where))


@register_read_options(DeepMedicOptions)
def open_deepmedic(request: SourceRequest) -> DeepMedicSource:
    """Open ``deepmedic:trainConfig.cfg``."""
    source = DeepMedicSource(list_cases(request))
    for message in notes(source.config):
        log.warning("%s", message)
    return source


open_deepmedic.describes = describes  # type: ignore[attr-defined]


def notes(config: TrainConfig) -> list[str]:
    """Return the warnings about a valid configuration."""
    lines = []
    if config.repeated:
        lines.append(
            f"{config.path}: {config.repeated} entry(s) of its lists name a case again; each "
            "counts as one case"
        )
    if not config.validation:
        lines.append(
            f"{config.path}: has no validation, so no case is held out; list some, and set "
            f"{ON_SAMPLES} or {ON_VOLUMES}"
        )
    return lines


# -- listing ---------------------------------------------------------------------------------------


def list_cases(request: SourceRequest) -> ConfiguredCases:
    """Read a configuration, name its cases, and collect faults without reading an image."""
    options = parse_read(DeepMedicOptions, request)
    request = request.absolute(config_in(Path(request.where).expanduser()).absolute())
    model = None
    if options.model is not None:
        model = read_model_config(Path(options.model).expanduser())
        request = replace(request, read=dict(request.read, model=str(model.path)))
    config = read_train_config(Path(request.where))
    faults = list(_faults(config, request))
    if model is not None and model.channels != len(config.channels):
        faults.insert(0, ListingFault(None, config.path, wrong_channels(config, model)))
    home = config.path.parent
    session = config.values.get("sessionName") or home.name or config.path.stem
    listing = VolumeSet(
        f"{request.kind}:{session}",
        home,
        config.path,
        tuple(sorted(config.listed, key=lambda listed: listed.case)),
        channels=tuple(options.channels or config.channels),
        splits=home / "splits.json",
        subjects=home / "subjects.csv",
        labels=None if model is None else _class_labels(model.classes),
        named_in=None if model is None else model.path,
        faults=tuple(faults),
        unvalidated=not config.validation,
        by_voxel=True,
    )
    return ConfiguredCases(request, config, model, options.volumes(config), listing)


def _faults(config: TrainConfig, request: SourceRequest) -> Iterator[ListingFault]:
    for listed in config.listed:
        for path in listed.everything:
            try:
                real_file(path, request)
            except IntegrityFault as fault:
                yield ListingFault(listed.case, path, fault)
            if not os.path.isfile(path):
                yield ListingFault(listed.case, path, missing(path, listed.case))
    trained = {os.path.realpath(listed.images[0]) for listed in config.train}
    for listed in config.validation:
        path = listed.images[0]
        if os.path.realpath(path) in trained:
            text = (
                f"{path}: {config.path} lists it to train on and to validate on, expected "
                "each case on one side; remove it from one"
            )
            yield ListingFault(None, path, IntegrityFault("deepmedic.case-on-both-sides", text))


def wrong_channels(config: TrainConfig, model: ModelConfig) -> DataFault:
    """Return the error for a network with another number of channels."""
    return DataFault(
        "deepmedic.network-channels-differ",
        f"{model.path}: numberOfInputChannels is {model.channels}, expected {len(config.channels)} "
        f"as {config.path} lists ({', '.join(config.channels)}); correct one of them",
    )


def _class_labels(classes: int) -> dict[str, int]:
    labels = {"background": 0}
    for number in range(1, classes):
        labels[f"label {number}"] = number
    return labels


# -- values ----------------------------------------------------------------------------------------


def label_map(file: Path, array: npt.NDArray[Any], model: ModelConfig | None) -> LabelArray:
    """Return labels as int16, rounded as in DeepMedic (DataFault: no class of the network)."""
    whole: npt.NDArray[Any] = np.rint(array)
    low, high = int(whole.min()), int(whole.max())
    most, by = MOST_LABEL, "; is it a label map? If so, name the network's: --read model="
    if model is not None:
        most, by = model.classes - 1, f", as numberOfOutputClasses of {model.path} says; correct it"
    if low < 0 or high > most:
        raise DataFault(
            "deepmedic.label-out-of-range",
            f"{file}: holds label {low if low < 0 else high}, expected whole numbers from 0 to "
            f"{most}{by}",
        )
    labels: LabelArray = whole.astype(np.int16)
    return labels


def region_of(file: Path, array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a region of interest, rounded as in DeepMedic (DataFault: an empty one)."""
    whole: npt.NDArray[Any] = np.rint(array)
    if not (whole > 0).any():
        raise DataFault(
            "deepmedic.region-empty",
            f"{file}: no voxel is above 0, expected a region of interest to take segments from; "
            "correct the file, or remove the case from every list",
        )
    return whole
