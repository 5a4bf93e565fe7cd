"""``deepmedic:trainConfig.cfg``: the training and validation cases of a DeepMedic configuration.

DeepMedic ignores spacing and orientation. All files of a case are reoriented by the axes of its
label map, not by their own headers. Samples are written back by the same axes.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import OUTSIDE, Case, FloatArray, LabelArray, Schema
from gansynth.core.source import FoldSplit, SourceRequest
from gansynth.core.space import Space
from gansynth.core.synthetic import real_file
from gansynth.data.folds import absolute
from gansynth.data.grid import canonical, canonical_shape, stored_axes
from gansynth.data.nifti import VolumeSource
from gansynth.data.pairs import LABELS, other_shape
from gansynth.data.read_options import parse_read, register_read_options
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import NiftiVolume, read_nifti, read_nifti_header
from gansynth_deepmedic.cases import ConfiguredCases, DeepMedicOptions, class_labels, list_cases
from gansynth_deepmedic.configs import (
    ListedCase,
    ModelConfig,
    TrainConfig,
    read_model_config,
    read_train_config,
)
from gansynth_deepmedic.insertion import MISSING, HostCase
from gansynth_deepmedic.resplit import config_of, is_divided, write_folds

log = logging.getLogger("gansynth")


class DeepMedicSource(VolumeSource):
    """The cases of one configuration: fold 0 trains on its training lists, ``all`` on all cases.

    Labels outside regions of interest are -1: DeepMedic centres no segment there.
    """

    config: TrainConfig  # the configuration
    model: ModelConfig | None  # the network's; None if it was not named

    def __init__(
        self,
        request: SourceRequest,
        config: TrainConfig,
        cases: ConfiguredCases,
        options: DeepMedicOptions,
    ) -> None:
        self.config, self.model = config, cases.model
        self._listed = cases.listed
        super().__init__(request, cases.listing, options.volumes(config))

    # -- what it has -----------------------------------------------------------------------------

    def listed(self, case_id: str) -> ListedCase:
        """Return the files of a case (DataFault: no such case)."""
        self.entry(case_id)
        return self._listed[case_id]

    @property
    def case_ids(self) -> tuple[str, ...]:
        """All cases that the configuration lists."""
        return tuple(self._listed)

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Split the cases into folds, each with its own configuration and lists.

        The cases are those of this configuration.
        """
        return write_folds(self, self.config, self._listed, splits, folder)

    @property
    def _listed_fold(self) -> str:
        return "0" if is_divided(self.request.where) else self.request.fold

    @cached_property
    def regions(self) -> bool:
        """Whether there are regions of interest."""
        return any(case.roi is not None for case in self._listed.values())

    @cached_property
    def schema(self) -> Schema:
        """Channels, labels and spacing (z, y, x) of the arrays of ``load``."""
        schema: Schema = super().schema
        return replace(schema, has_outside=True) if self.regions else schema

    @cached_property
    def space(self) -> Space:
        """Crops of about the training cases' median size, or whole volumes if requested."""
        space: Space = super().space
        if not self.regions:
            return space
        host = {**space.host, "outside": "beyond the region of interest"}
        return replace(space, host=host, pad_label=OUTSIDE)

    # -- reading ---------------------------------------------------------------------------------

    def load(self, case_id: str) -> Case:
        """Read one case: image float32 (C, D, H, W), labels int16 (D, H, W).

        Missing channels are zeros, as in DeepMedic.

        Raises:
            DataFault: an unknown or damaged case, NaN, inconsistent files, an unknown label value,
                or an empty region of interest.
        """
        case = super().load(case_id)
        lacking = [file is None for file in self.listed(case_id).channels]
        if not any(lacking):
            return case
        image = case.image.copy()
        image[np.array(lacking)] = 0
        return replace(case, image=image)

    def _units_of(self, case_id: str, image: FloatArray) -> tuple[tuple[float, float], ...]:
        units, channels = super()._units_of(case_id, image), self.listed(case_id).channels
        return tuple(u if file else (1.0, 0.0) for u, file in zip(units, channels, strict=True))

    def host_case(self, case_id: str) -> HostCase:
        """Return a case in the form of DeepMedic's files; the image is read only for its units.

        Raises:
            UsageFault: it is resampled, so samples could not be inserted voxel by voxel.
            DataFault: a file cannot be read.
        """
        listed = self.listed(case_id)
        assert listed.labels is not None
        header = read_nifti_header(listed.labels)
        shape = canonical_shape(header.shape, header.affine)
        if self.header(case_id).shape != shape:
            raise UsageFault(
                f"--read spacing={self.request.read.get('spacing')}: case {case_id!r} is resampled "
                f"from {shape} to {self.header(case_id).shape} voxels, but DeepMedic takes voxels "
                "as stored, expected spacing=native; leave it out"
            )
        return HostCase(
            case_id,
            tuple(MISSING if file is None else str(file) for file in listed.channels),
            str(listed.labels),
            None if listed.roi is None else str(listed.roi),
            shape,
            stored_axes(header.affine),
            tuple(
                self._units(index, file, header.affine)
                for index, file in enumerate(listed.channels)
            ),
        )

    def _units(
        self, index: int, file: Path | None, affine: npt.NDArray[np.float64]
    ) -> tuple[float, float]:
        how = self.intensities[index]
        if file is None or how.modality == "none":
            return 1.0, 0.0
        # Turned as load turns it: sums differ in their last digit by the order of the voxels.
        turned = canonical(read_nifti(file)._replace(affine=affine))[0]
        return how.units(turned.astype(np.float32))

    def _read(self, case_id: str) -> tuple[npt.NDArray[Any], LabelArray | None, NiftiVolume]:
        """Read a case with labels of -1 outside the region of interest."""
        image, labels, reference = self._arrays(case_id)
        listed = self.listed(case_id)
        if listed.roi is None or labels is None:
            return image, labels, reference
        assert listed.labels is not None
        region = whole_numbers(self._turned(listed.roi, reference, listed.labels)) > 0
        if not region.any():
            raise empty_region(listed.roi)
        return image, np.where(region, labels, np.int16(OUTSIDE)), reference

    def _arrays(self, case_id: str) -> tuple[npt.NDArray[Any], LabelArray | None, NiftiVolume]:
        """Return reoriented image (C, D, H, W) and labels (D, H, W), and the label map's file."""
        listed = self.listed(case_id)
        assert listed.labels is not None
        reference = read_nifti(listed.labels, labels=True)
        labels = label_map(listed.labels, canonical(reference)[0], self.model)
        channels = [
            np.zeros(labels.shape, np.float32)
            if file is None
            else self._turned(file, reference, listed.labels)
            for file in listed.channels
        ]
        return np.stack(channels), labels, reference

    def _turned(self, file: Path, reference: NiftiVolume, labels: Path) -> npt.NDArray[Any]:
        """Return a file's array (D, H, W), reoriented like the label map."""
        volume = read_nifti(real_file(file, self.request))
        for problem in other_shape(file, volume.array.shape, labels, reference.array.shape):
            raise DataFault(problem)
        return canonical(volume._replace(affine=reference.affine))[0]

    # -- learnt from the training cases ----------------------------------------------------------

    @cached_property
    def _labels(self) -> Mapping[str, int]:
        """Label name -> value: as given, by the network's classes, else 0 to the largest."""
        labels = self.options.labels or self.listing.labels
        if labels is not None:
            return labels
        most = 0
        for case in self.train_ids:
            file = self.listed(case).labels
            assert file is not None
            largest = int(label_map(file, read_nifti(file, labels=True).array, None).max())
            if largest >= LABELS:
                raise DataFault(
                    f"{file}: holds label {largest}, expected fewer than {LABELS} classes; is it a "
                    "label map? If so, name the network's: --read model=modelConfig.cfg"
                )
            most = max(most, largest)
        return class_labels(most + 1)


@register_read_options(DeepMedicOptions)
def open_deepmedic(request: SourceRequest) -> DeepMedicSource:
    """Open ``deepmedic:trainConfig.cfg``.

    Raises:
        UsageFault: no such file, or invalid options.
        DataFault: an invalid configuration, list or case.
        IntegrityFault: a subject is on both sides, or a listed case is synthetic.
    """
    request, config, cases, options = listed_by(request)
    source = DeepMedicSource(request, config, cases, options)
    for message in notes(config):
        log.warning("%s", message)
    return source


def listed_by(
    request: SourceRequest,
) -> tuple[SourceRequest, TrainConfig, ConfiguredCases, DeepMedicOptions]:
    """Return a request with absolute paths, and its configuration, cases and options."""
    options = parse_read(DeepMedicOptions, request)
    request = absolute(request)
    model = None
    if options.model is not None:
        path = Path(os.path.abspath(os.path.expanduser(options.model)))
        request = replace(request, read={**request.read, "model": str(path)})
        model = read_model_config(path)
    config = read_train_config(config_of(request))
    options.volumes(config)
    if model is not None and options.labels and max(options.labels.values()) >= model.classes:
        raise UsageFault(
            f"--read labels={request.read['labels']}: names {max(options.labels.values())}, but "
            f"numberOfOutputClasses of {model.path} is {model.classes}; expected numbers below it"
        )
    return request, config, list_cases(request.kind, config, model, options.channels), options


def notes(config: TrainConfig) -> list[str]:
    """Return the warnings about a valid configuration."""
    lines = []
    for case in config.repeated:
        lines.append(
            f"{config.path}: entry {case.line} of its lists names {case.channels[0]} again; it "
            "counts as one case"
        )
    if not config.validation:
        lines.append(
            f"{config.path}: has no validation, so no case is held out; list some, and set "
            "performValidationOnSamplesThroughoutTraining or "
            "performFullInferenceOnValidationImagesEveryFewEpochs"
        )
    return lines


def whole_numbers(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return an array in whole numbers, rounded as in DeepMedic."""
    return array if array.dtype.kind in "iu" else np.rint(array)


def label_map(file: Path, array: npt.NDArray[Any], model: ModelConfig | None) -> LabelArray:
    """Return labels as int16, rounded as in DeepMedic."""
    whole = whole_numbers(array)
    low, high = int(whole.min()), int(whole.max())
    most = 2**15 - 1 if model is None else model.classes - 1
    if low < 0 or high > most:
        odd = low if low < 0 else high
        by = "" if model is None else f", as numberOfOutputClasses of {model.path} says"
        raise DataFault(
            f"{file}: holds label {odd}, expected whole numbers from 0 to {most}{by}; correct the "
            f"file{'' if model is None else ' or the number of classes'}"
        )
    return whole.astype(np.int16)


def empty_region(file: Path) -> DataFault:
    """Return the error for an empty region of interest."""
    return DataFault(
        f"{file}: no voxel is above 0, expected a region of interest to take segments from; "
        "correct the file, or remove the case from every list"
    )
