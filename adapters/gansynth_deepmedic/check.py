"""``gansynth check deepmedic:trainConfig.cfg``, and the data at which DeepMedic would stop late.

DeepMedic checks little: an unknown label, or a case without possible segments, ends a training
in its middle. The rules are its own (``dataManagement/sampling.py``, ``samplingType.py``).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.source import SourceRequest
from gansynth.data.check import check_volumes, in_order
from gansynth.data.grid import AFFINE_TOLERANCE, affine_difference, other_shape
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError
from gansynth.runtime.files import read_nifti, read_nifti_header
from gansynth_deepmedic.configs import (
    FORE_BACKGROUND,
    MAPS,
    PER_CLASS,
    SCORES,
    SHARES,
    UNIFORM,
    WHOLE,
    ListedCase,
    ModelConfig,
    TrainConfig,
    Triple,
)
from gansynth_deepmedic.source import (
    DeepMedicSource,
    label_map,
    list_cases,
    notes,
    region_of,
    wrong_channels,
)

FRACTION = 1e-3  # tolerated distance of a label from a whole number; scaling by headers rounds
Mask = npt.NDArray[np.bool_]


def check_deepmedic(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Find all faults of ``deepmedic:trainConfig.cfg``; every file is read."""
    cases = list_cases(request)
    config, options = cases.config, cases.options.volumes(cases.config)
    report = check_volumes(cases.listing, cases.request, options, progress)
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
        try:
            refuse_unusable_case(listed, config, cases.model, trained=listed in config.train)
            findings += [Finding("warning", case, listed.labels, text) for text in _odd(listed)]
        except EnvironmentFault:
            raise
        except GansynthError as fault:
            findings.append(Finding("error", case, listed.labels, str(fault)))
    each = {(finding.level, finding.case, finding.message): finding for finding in findings}
    return replace(report, findings=in_order(list(each.values())))


def _odd(listed: ListedCase) -> Iterator[str]:
    labels = read_nifti(listed.labels, labels=True)
    if not np.allclose(labels.array, np.rint(labels.array), atol=FRACTION):
        yield (
            f"{listed.labels}: holds fractions, which DeepMedic rounds, expected whole numbers; "
            "resample label maps to the nearest voxel"
        )
    for file in listed.files:
        apart = affine_difference(read_nifti_header(file).affine, labels.affine)
        if apart > AFFINE_TOLERANCE:
            yield (
                f"{file}: affine differs from that of {listed.labels.name} by up to {apart:.3g} "
                "mm; DeepMedic and gansynth ignore it and take voxels as stored; if the voxels "
                "match, copy the header"
            )


def refuse_unusable(source: DeepMedicSource, model: ModelConfig | None, *, mixed: bool) -> None:
    """Refuse data at which DeepMedic would fail in the middle, or that no sample fits.

    Label maps and regions of interest are read, of images the headers. ``mixed``: with samples.
    """
    config = source.config
    key = MAPS if config.weighted else SCORES if mixed and any(config.normalised) else None
    if key is not None:
        raise DataFault(
            f"{config.path}: {key} is set, so DeepMedic samples or normalises by what a synthetic "
            "case has not; expected sampling by labels (typeOfSamplingForTraining), and normalised "
            "images. Remove that key"
        )
    refuse_contradictions(config, model)
    for case in (*source.train_ids, *source.held_out_ids):
        trained = case in source.train_ids
        refuse_unusable_case(source.listed(case), config, model, trained=trained)


def refuse_contradictions(config: TrainConfig, model: ModelConfig | None) -> None:
    """Refuse configurations that contradict each other."""
    if model is not None and model.channels != len(config.channels):
        raise wrong_channels(config, model)
    shares, count = config.shares, None if model is None else model.classes
    if shares is not None and config.sampling in (FORE_BACKGROUND, PER_CLASS):
        count = 2 if config.sampling == FORE_BACKGROUND else count
        if len(shares) != (count or len(shares)) or not sum(shares) > 0:
            raise DataFault(
                f"{config.path}: {SHARES} is {list(shares)}, expected {count} number(s) that do "
                "not sum up to 0, for foreground and background (sampling 0) or for each class "
                "(numberOfOutputClasses); correct it"
            )


@dataclass(frozen=True)
class SegmentSampling:
    """How segments of cases are sampled."""

    key: str  # of the segments' size in ``modelConfig.cfg``
    size: Triple | None  # of a segment (x, y, z); None if the network is unknown
    kind: int | None  # type of sampling, 0 to 3; None for maps, and for inference of whole volumes
    shares: Sequence[float] | None  # of the categories; None for equal ones
    padding: Triple  # voxels padded to a volume, both sides together

    @classmethod
    def of(
        cls, config: TrainConfig, model: ModelConfig | None, *, trained: bool
    ) -> list[SegmentSampling]:
        """Return the samplings of the cases to train, or to validate on."""
        kinds: dict[str, tuple[int | None, Sequence[float] | None]] = {}
        if trained:
            own = None if config.weighted else config.sampling
            kinds["segmentsDimTrain"] = own, config.shares
        elif config.validates_on_samples:
            weighted = config.values.get("weightedMapsForSamplingEachCategoryVal") is not None
            own = None if weighted else config.sampling_validation
            kinds["segmentsDimVal"] = own, config.shares_validation
        if not trained and config.validates_on_volumes:
            kinds["segmentsDimInference"] = None, None
        padding = model.unpredicted if model is not None and config.pad else (0, 0, 0)
        sizes = {} if model is None else model.segments
        return [cls(key, sizes.get(key), *kind, padding) for key, kind in kinds.items()]

    def centres(self, labels: npt.NDArray[np.int16], region: npt.NDArray[Any] | None) -> Mask:
        """Return the allowed centres of segments (X, Y, Z), without those near the border."""
        box: tuple[slice, ...] = (slice(None),) * 3
        if self.size is not None:
            box = centre_range(labels.shape, self.size, self.padding)
        centres = np.zeros(labels.shape, np.bool_)
        centres[box] = True if region is None or self.kind is None else region[box] > 0
        if self.shares is not None and self.kind in (FORE_BACKGROUND, PER_CLASS):
            category = labels <= 0 if self.kind == FORE_BACKGROUND else labels
            centres &= np.isin(category, np.flatnonzero(self.shares))
        return centres


def refuse_unusable_case(
    listed: ListedCase, config: TrainConfig, model: ModelConfig | None, *, trained: bool
) -> None:
    """Refuse a case from which DeepMedic could not sample."""
    shape = read_nifti_header(listed.labels, ndim=(3,)).shape
    for file in listed.files:
        header = read_nifti_header(file, ndim=(3,))
        for problem in other_shape(file, header.shape, listed.labels, shape):
            raise DataFault(problem)
    labels = label_map(listed.labels, read_nifti(listed.labels, labels=True).array, model)
    region, unsigned = None, False
    if listed.roi is not None:
        region = region_of(listed.roi, read_nifti(listed.roi).array)
        header = read_nifti_header(listed.roi)
        unsigned = header.dtype.kind == "u" and not header.scaled
    for sampling in SegmentSampling.of(config, model, trained=trained):
        weighs = region is not None and sampling.kind in (UNIFORM, WHOLE)
        # As a weight map: numpy cannot multiply an unsigned one by DeepMedic's int8.
        if region is not None and weighs and (unsigned or (region < 0).any()):
            raise DataFault(
                f"{listed.roi}: a region of interest of an unsigned type, or with weights below 0 "
                f"({int(region.min())}), which DeepMedic cannot sample from with typeOfSampling "
                f"{sampling.kind}, expected a signed type without negative weights; store it as "
                "int16"
            )
        if not sampling.centres(labels, region).any():
            size = "" if sampling.size is None else f" of {list(sampling.size)} ({sampling.key})"
            raise DataFault(
                f"{listed.roi or listed.labels}: no voxel of {tuple(shape)} to take a segment{size}"
                f" around, by type of sampling {sampling.kind} and shares {sampling.shares}; "
                "expected some in the region of interest, far enough from the border of the "
                "volume; shrink the segment, or remove the case from every list"
            )


def centre_range(shape: Sequence[int], segment: Triple, padding: Triple) -> tuple[slice, ...]:
    """Return the allowed centres (x, y, z) of segments that lie in the padded volume."""
    ranges = []
    for n, size, pad in zip(shape, segment, padding, strict=True):
        before = (size - 1) // 2 - pad // 2
        after = n + pad - size // 2 - pad // 2
        ranges.append(slice(max(before, 0), max(after, 0)))
    return tuple(ranges)
