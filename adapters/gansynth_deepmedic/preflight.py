"""Finds data that would make DeepMedic fail in the middle of a training.

DeepMedic checks little: an unknown label, or a case without possible segments, ends a training
late.
The rules are DeepMedic's own (``dataManagement/sampling.py``, ``samplingType.py``).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.data.pairs import other_shape
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import NiftiHeader, read_nifti, read_nifti_header
from gansynth_deepmedic.cases import wrong_channels
from gansynth_deepmedic.configs import (
    PER_CLASS,
    UNIFORM,
    WHOLE,
    ListedCase,
    ModelConfig,
    TrainConfig,
    Triple,
    category_masks,
)
from gansynth_deepmedic.source import DeepMedicSource, empty_region, label_map, whole_numbers

WHOLE_IMAGE = (UNIFORM, WHOLE)  # types of sampling that use the region of interest as a weight map
_VALIDATION_SHARES = "proportionOfSamplesToExtractPerCategoryVal"
_VALIDATION_MAPS = "weightedMapsForSamplingEachCategoryVal"


@dataclass(frozen=True)
class SegmentSampling:
    """Sampling of segments from the cases of one side."""

    key: str  # key of the segments' size in ``modelConfig.cfg``
    size: Triple | None  # of a segment (x, y, z); None if the network is unknown
    kind: int | None  # type of sampling, 0 to 3; None for inference of whole volumes
    shares: tuple[float, ...] | None = None  # of the categories; None for equal ones


Found = tuple[Path, DataFault]  # the file, and its fault


def refuse_unusable(source: DeepMedicSource, model: ModelConfig | None) -> None:
    """Reject data at which DeepMedic would fail in the middle of its training.

    The headers of all cases are checked first, then all label maps and regions of interest. Weight
    maps are not checked.
    """
    config = source.config
    for _, fault in config_faults(config, model):
        raise fault
    for look in (header_faults, content_faults):
        for cases, trained in ((config.train, True), (config.validation, False)):
            for listed in cases:
                for _, fault in look(listed, config, model, trained=trained):
                    raise fault


def config_faults(config: TrainConfig, model: ModelConfig | None) -> Iterator[Found]:
    """Yield contradictions between both configurations."""
    if model is None:
        return
    assert model.path is not None
    if model.channels != len(config.channels):
        yield model.path, wrong_channels(config, model)
    shares = config.proportions
    if config.sampling == 3 and shares is not None and len(shares) != model.classes:
        message = (
            f"{config.path}: proportionOfSamplesToExtractPerCategoryTraining has {len(shares)} "
            f"number(s), expected {model.classes} as numberOfOutputClasses of {model.path}; "
            "correct one of them"
        )
        yield config.path, DataFault(message)


def samplings(
    config: TrainConfig, model: ModelConfig | None, *, trained: bool
) -> tuple[SegmentSampling, ...]:
    """Return the samplings of the cases of one side."""
    if trained:
        kind = None if config.weighted else config.sampling
        size = None if model is None else model.segment
        return (SegmentSampling("segmentsDimTrain", size, kind, config.proportions),)
    sides = []
    if config.validates_on_samples:
        weighted = config.values.get(_VALIDATION_MAPS) is not None
        shares = config.values.get(_VALIDATION_SHARES)
        has_shares = isinstance(shares, list | tuple) and config.sampling_validation in (0, 3)
        sides.append(
            SegmentSampling(
                "segmentsDimVal",
                None if model is None else model.segment_validation,
                None if weighted else config.sampling_validation,
                tuple(shares or ()) if has_shares else None,
            )
        )
    if config.validates_on_volumes:
        size = None if model is None else model.segment_inference
        sides.append(SegmentSampling("segmentsDimInference", size, None))
    return tuple(sides)


def header_faults(
    listed: ListedCase, config: TrainConfig, model: ModelConfig | None, *, trained: bool
) -> Iterator[Found]:
    """Yield faults of the headers of a case's files (DataFault: an unreadable file)."""
    assert listed.labels is not None
    labels = read_nifti_header(listed.labels, ndim=(3,))
    each = samplings(config, model, trained=trained)
    for file in dict.fromkeys(listed.files):
        header = read_nifti_header(file, ndim=(3,))
        for problem in other_shape(file, header.shape, listed.labels, labels.shape):
            yield file, DataFault(problem)
        if file == listed.roi:
            yield from _region_faults(file, header, each)
    if model is not None:
        for sampling in each:
            yield from _small(listed.labels, labels.shape, sampling, config, model)


def _region_faults(
    file: Path, header: NiftiHeader, each: Sequence[SegmentSampling]
) -> Iterator[Found]:
    """Yield regions of an unsigned type, which numpy cannot multiply by DeepMedic's int8."""
    if header.dtype.kind != "u" or header.scaled:
        return
    for sampling in each:
        if sampling.kind in WHOLE_IMAGE:
            key = "typeOfSamplingForTraining"
            key = key if sampling.key == "segmentsDimTrain" else "typeOfSamplingForVal"
            message = (
                f"{file}: a region of interest of type {header.dtype.name}, which DeepMedic cannot "
                f"sample from with {key} = {sampling.kind}, expected a signed type; store it as "
                "int16"
            )
            yield file, DataFault(message)
            return


def _small(
    file: Path,
    shape: Sequence[int],
    sampling: SegmentSampling,
    config: TrainConfig,
    model: ModelConfig,
) -> Iterator[Found]:
    """Yield volumes that are smaller than a segment after DeepMedic's padding."""
    assert sampling.size is not None
    least = [n - p for n, p in zip(sampling.size, _padding(config, model), strict=True)]
    if any(n < m for n, m in zip(shape, least, strict=True)):
        pads = " with padInputImagesBool = True" if config.pad else ""
        message = (
            f"{file}: {tuple(shape)} voxels along x, y, z, expected at least {tuple(least)} for "
            f"{sampling.key} {list(sampling.size)} of {model.path}{pads}; shrink the segment, or "
            "remove the case from every list"
        )
        yield file, DataFault(message)


def _padding(config: TrainConfig, model: ModelConfig) -> Triple:
    """Return the voxels along x, y, z that DeepMedic pads, both sides together."""
    return model.unpredicted if config.pad else (0, 0, 0)


def content_faults(
    listed: ListedCase, config: TrainConfig, model: ModelConfig | None, *, trained: bool
) -> Iterator[Found]:
    """Yield faults of a case's label map and region of interest."""
    assert listed.labels is not None
    labels = label_map(listed.labels, read_nifti(listed.labels, labels=True).array, model)
    region: npt.NDArray[Any] | None = None
    if listed.roi is not None:
        region = whole_numbers(read_nifti(listed.roi).array)
        if not (region > 0).any():
            yield listed.roi, empty_region(listed.roi)
            return
        if region.shape != labels.shape:  # reported by the headers
            return
    for sampling in samplings(config, model, trained=trained):
        if sampling.kind is not None:
            yield from _nothing_to_take(listed, labels, region, sampling, config, model)


def _nothing_to_take(
    listed: ListedCase,
    labels: npt.NDArray[np.int16],
    region: npt.NDArray[Any] | None,
    sampling: SegmentSampling,
    config: TrainConfig,
    model: ModelConfig | None,
) -> Iterator[Found]:
    """Yield cases without possible segments, where DeepMedic divides by zero."""
    assert listed.labels is not None
    assert sampling.kind is not None
    file = listed.roi or listed.labels
    centres: tuple[slice, ...] = (slice(None),) * 3
    if sampling.size is not None and model is not None:
        centres = centre_range(labels.shape, sampling.size, _padding(config, model))
        if labels[centres].size == 0:  # reported by the headers
            return
    if region is not None and sampling.kind in WHOLE_IMAGE and (region < 0).any():
        text = f"{file}: holds {region.min()}, expected no weight below 0; correct the file"
        yield file, DataFault(text)
        return
    inside = np.ones(labels[centres].shape, bool) if region is None else region[centres] > 0
    if not inside.any():
        where = "" if sampling.size is None else f" of {list(sampling.size)} ({sampling.key})"
        message = (
            f"{file}: no voxel to take a segment{where} around, expected some that are far enough "
            "from the border of the volume; shrink the segment, or remove the case from every list"
        )
        yield file, DataFault(message)
        return
    shares = _weights(sampling, model)
    masks = category_masks(sampling.kind, labels[centres][inside], len(shares))
    classes_known = sampling.kind != PER_CLASS or len(shares) > 1
    if classes_known and not any(
        mask.any() for share, mask in zip(shares, masks, strict=True) if share
    ):
        message = (
            f"{listed.labels}: has none of the categories to sample segments from (shares "
            f"{[round(share, 3) for share in shares]}, type of sampling {sampling.kind}), expected "
            "one at least; give background a share, or remove the case from every list"
        )
        yield listed.labels, DataFault(message)


def centre_range(shape: Sequence[int], segment: Triple, padding: Triple) -> tuple[slice, ...]:
    """Return the allowed centres (x, y, z) of segments that lie in the padded volume."""
    ranges = []
    for n, size, pad in zip(shape, segment, padding, strict=True):
        before = (size - 1) // 2 - pad // 2
        after = n + pad - size // 2 - pad // 2
        ranges.append(slice(max(before, 0), max(after, 0)))
    return tuple(ranges)


def _weights(sampling: SegmentSampling, model: ModelConfig | None) -> tuple[float, ...]:
    if sampling.kind in WHOLE_IMAGE:
        return (1.0,)
    if sampling.shares:
        return sampling.shares
    if sampling.kind == 0:
        return 0.5, 0.5
    return (1.0,) if model is None else (1.0 / model.classes,) * model.classes
