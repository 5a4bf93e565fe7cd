"""``gansynth check deepmedic:trainConfig.cfg``, and the data at which DeepMedic would stop late.

DeepMedic checks little: an unknown label, or a case without possible segments, ends a training
in its middle. The rules are its own (``dataManagement/sampling.py``, ``samplingType.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.schema import LabelArray
from gansynth.core.source import SourceRequest
from gansynth.data.check import check_volumes, in_order
from gansynth.data.pairs import AFFINE_TOLERANCE, affine_difference, other_shape
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError
from gansynth.runtime.files import read_nifti, read_nifti_header
from gansynth_deepmedic.cases import wrong_channels
from gansynth_deepmedic.configs import (
    FORE_BACKGROUND,
    PER_CLASS,
    UNIFORM,
    WHOLE,
    ListedCase,
    ModelConfig,
    TrainConfig,
    Triple,
    category_masks,
)
from gansynth_deepmedic.source import (
    DeepMedicSource,
    empty_region,
    label_map,
    listed_by,
    notes,
    whole_numbers,
)

FRACTION = 1e-3  # tolerated distance of a label from a whole number; scaling by headers rounds
WHOLE_IMAGE = (UNIFORM, WHOLE)  # types of sampling that use the region of interest as a weight map


def check_deepmedic(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Find all faults of ``deepmedic:trainConfig.cfg``; every file is read.

    Raises:
        UsageFault: invalid options.
        DataFault: a configuration or list that cannot be read.
    """
    request, config, cases, options = listed_by(request)
    report = check_volumes(cases.listing, request, options.volumes(config), progress)
    findings = [*report.findings]
    findings += [Finding("warning", None, config.path, text) for text in notes(config)]
    try:
        refuse_contradictions(config, cases.model)
    except DataFault as fault:
        findings.append(Finding("error", None, config.path, str(fault)))
    damaged = {finding.case for finding in findings if finding.level == "error"}
    for case, listed in cases.listed.items():
        if case in damaged or not all(map(os.path.isfile, listed.files)):
            continue
        file = listed.labels or config.path
        try:
            findings += [Finding("warning", case, file, text) for text in _warnings(listed)]
            refuse_unusable_case(listed, config, cases.model, trained=listed in config.train)
        except EnvironmentFault:
            raise
        except GansynthError as fault:
            findings.append(Finding("error", case, file, str(fault)))
    each = {(finding.level, finding.case, finding.message): finding for finding in findings}
    return replace(report, findings=in_order(list(each.values())))


def _warnings(listed: ListedCase) -> Iterator[str]:
    assert listed.labels is not None
    labels = read_nifti(listed.labels, labels=True)
    if not np.allclose(labels.array, np.rint(labels.array), atol=FRACTION):
        yield (
            f"{listed.labels}: holds fractions, which DeepMedic rounds, expected whole numbers; "
            "resample label maps to the nearest voxel"
        )
    for file in dict.fromkeys(listed.files):
        apart = affine_difference(read_nifti_header(file).affine, labels.affine)
        if apart > AFFINE_TOLERANCE:
            yield (
                f"{file}: affine differs from that of {listed.labels.name} by up to {apart:.3g} "
                "mm; DeepMedic and gansynth ignore it and take voxels as stored; if the voxels "
                "match, copy the header"
            )


def refuse_unusable(source: DeepMedicSource, model: ModelConfig | None) -> None:
    """Refuse data at which DeepMedic would fail in the middle of its training.

    Label maps and regions of interest are read, of images the headers. Weight maps are not checked.
    """
    config = source.config
    refuse_contradictions(config, model)
    for listed in (*config.train, *config.validation):
        refuse_unusable_case(listed, config, model, trained=listed in config.train)


def refuse_contradictions(config: TrainConfig, model: ModelConfig | None) -> None:
    """Refuse configurations that contradict each other."""
    if model is None:
        return
    if model.channels != len(config.channels):
        raise wrong_channels(config, model)
    shares = config.proportions
    if config.sampling == PER_CLASS and shares is not None and len(shares) != model.classes:
        raise DataFault(
            f"{config.path}: proportionOfSamplesToExtractPerCategoryTraining has {len(shares)} "
            f"number(s), expected {model.classes} as numberOfOutputClasses of {model.path}; "
            "correct one of them"
        )


class SegmentSampling(NamedTuple):
    """How segments of cases are sampled."""

    key: str  # of the segments' size in ``modelConfig.cfg``
    size: Triple | None  # of a segment (x, y, z); None if the network is unknown
    kind: int | None  # type of sampling, 0 to 3; None for maps, and for inference of whole volumes
    shares: Sequence[float] | None = None  # of the categories; None for equal ones


def samplings(
    config: TrainConfig, model: ModelConfig | None, *, trained: bool
) -> list[SegmentSampling]:
    """Return the samplings of the cases to train, or to validate on."""
    if trained:
        kind = None if config.weighted else config.sampling
        size = None if model is None else model.segment
        return [SegmentSampling("segmentsDimTrain", size, kind, config.proportions)]
    each = []
    if config.validates_on_samples:
        kind, shares = config.sampling_validation, None
        if kind in (FORE_BACKGROUND, PER_CLASS):
            shares = config.values.get("proportionOfSamplesToExtractPerCategoryVal")
        mapped = config.values.get("weightedMapsForSamplingEachCategoryVal") is not None
        size = None if model is None else model.segment_validation
        each.append(SegmentSampling("segmentsDimVal", size, None if mapped else kind, shares))
    if config.validates_on_volumes:
        size = None if model is None else model.segment_inference
        each.append(SegmentSampling("segmentsDimInference", size, None))
    return each


def refuse_unusable_case(
    listed: ListedCase, config: TrainConfig, model: ModelConfig | None, *, trained: bool
) -> None:
    """Refuse a case from which DeepMedic could not sample."""
    assert listed.labels is not None
    shape = read_nifti_header(listed.labels, ndim=(3,)).shape
    for file in dict.fromkeys(listed.files):
        header = read_nifti_header(file, ndim=(3,))
        for problem in other_shape(file, header.shape, listed.labels, shape):
            raise DataFault(problem)
    labels = label_map(listed.labels, read_nifti(listed.labels, labels=True).array, model)
    region, unsigned, file = None, "", listed.labels
    if listed.roi is not None:
        file, header = listed.roi, read_nifti_header(listed.roi)
        region = whole_numbers(read_nifti(file).array)
        if not (region > 0).any():
            raise empty_region(file)
        unsigned = header.dtype.name if header.dtype.kind == "u" and not header.scaled else ""
    padding = model.unpredicted if model is not None and config.pad else (0, 0, 0)
    for sampling in samplings(config, model, trained=trained):
        centres: tuple[slice, ...] = (slice(None),) * 3
        if sampling.size is not None and model is not None:
            least = tuple(n - pad for n, pad in zip(sampling.size, padding, strict=True))
            if any(n < minimum for n, minimum in zip(shape, least, strict=True)):
                pads = " with padInputImagesBool = True" if config.pad else ""
                raise DataFault(
                    f"{listed.labels}: {tuple(shape)} voxels along x, y, z, expected at least "
                    f"{least} for {sampling.key} {list(sampling.size)} of {model.path}{pads}; "
                    "shrink the segment, or remove the case from every list"
                )
            centres = centre_range(shape, sampling.size, padding)
        if sampling.kind is None:
            continue
        if region is not None and sampling.kind in WHOLE_IMAGE:
            if unsigned:  # numpy cannot multiply it by DeepMedic's int8
                part = "ForTraining" if trained else "ForVal"
                raise DataFault(
                    f"{file}: a region of interest of type {unsigned}, which DeepMedic cannot "
                    f"sample from with typeOfSampling{part} = {sampling.kind}, expected a signed "
                    "type; store it as int16"
                )
            if (region < 0).any():
                raise DataFault(
                    f"{file}: holds {region.min()}, expected no weight below 0; correct the file"
                )
        inside = np.ones(labels[centres].shape, bool) if region is None else region[centres] > 0
        if not inside.any():
            size = "" if sampling.size is None else f" of {list(sampling.size)} ({sampling.key})"
            raise DataFault(
                f"{file}: no voxel to take a segment{size} around, expected some that are far "
                "enough from the border of the volume; shrink the segment, or remove the case "
                "from every list"
            )
        _refuse_lacking(listed.labels, labels[centres][inside], sampling, model)


def _refuse_lacking(
    file: Path, labels: LabelArray, sampling: SegmentSampling, model: ModelConfig | None
) -> None:
    """Refuse a case without a category to sample, where DeepMedic divides by zero."""
    if sampling.kind not in (FORE_BACKGROUND, PER_CLASS):
        return
    classes = 2 if sampling.kind == FORE_BACKGROUND else model and model.classes
    shares = sampling.shares or (1.0 / classes if classes else 1.0,) * (classes or 1)
    masks = category_masks(sampling.kind, labels, len(shares))
    there = any(mask.any() for share, mask in zip(shares, masks, strict=True) if share)
    if len(shares) > 1 and not there:
        raise DataFault(
            f"{file}: has none of the categories to sample segments from (shares "
            f"{[round(share, 3) for share in shares]}, type of sampling {sampling.kind}), expected "
            "one at least; give background a share, or remove the case from every list"
        )


def centre_range(shape: Sequence[int], segment: Triple, padding: Triple) -> tuple[slice, ...]:
    """Return the allowed centres (x, y, z) of segments that lie in the padded volume."""
    ranges = []
    for n, size, pad in zip(shape, segment, padding, strict=True):
        before = (size - 1) // 2 - pad // 2
        after = n + pad - size // 2 - pad // 2
        ranges.append(slice(max(before, 0), max(after, 0)))
    return tuple(ranges)
