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

from gansynth import CheckReport, DataFault, Finding, GansynthError, SourceRequest
from gansynth.core.volumes import read_volume, read_volume_header
from gansynth.data.grid import other_shape
from gansynth_deepmedic.configs import (
    FORE_BACKGROUND,
    MAPS,
    PER_CLASS,
    SCORES,
    SHARES,
    UNIFORM,
    VALIDATION_MAPS,
    WHOLE,
    ListedCase,
    ModelConfig,
    TrainConfig,
)
from gansynth_deepmedic.source import (
    DeepMedicSource,
    label_map,
    list_cases,
    notes,
    region_of,
    wrong_channels,
)

AFFINE_TOLERANCE = 1e-3  # mm by which affines of a case may differ
FRACTION = 1e-3  # tolerated distance of a label from a whole number; scaling by headers rounds


def check_deepmedic(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Find all faults of ``deepmedic:trainConfig.cfg``; every file is read."""
    cases = list_cases(request)
    config = cases.config
    report = DeepMedicSource.check_listing(cases.listing, cases.request, cases.options, progress)
    findings = [*report.findings]
    findings += [Finding("warning", None, config.path, text) for text in notes(config)]
    try:
        refuse_contradictions(config, cases.model)
    except DataFault as fault:
        findings.append(Finding.of(None, config.path, fault))
    damaged = {finding.case for finding in findings if finding.level == "error"}
    for listed in config.listed:
        if listed.case in damaged or not all(map(os.path.isfile, listed.everything)):
            continue
        about = listed.case, listed.labels
        try:
            refuse_unusable_case(listed, config, cases.model)
            findings += [Finding("warning", *about, text) for text in _odd(listed)]
        except GansynthError as fault:
            findings.append(Finding.of(*about, fault))
    each = {(finding.level, finding.case, finding.message): finding for finding in findings}
    return report.with_findings(each.values())


def _odd(listed: ListedCase) -> Iterator[str]:
    labels = read_volume(listed.labels, labels=True)
    if not np.allclose(labels.array, np.rint(labels.array), atol=FRACTION):
        yield (
            f"{listed.labels}: holds fractions, which DeepMedic rounds, expected whole numbers; "
            "resample label maps to the nearest voxel"
        )
    for file in listed.everything:
        apart = float(np.abs(read_volume_header(file).affine - labels.affine).max())
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
            "deepmedic.sampling-unusable-key",
            f"{config.path}: {key} is set, so DeepMedic samples or normalises by what a synthetic "
            "case has not; expected sampling by labels (typeOfSamplingForTraining), and normalised "
            "images. Remove that key",
        )
    refuse_contradictions(config, model)
    for side, cases in (("train", source.train_ids), ("val", source.held_out_ids)):
        for case in cases:
            refuse_unusable_case(replace(source.entry(case), part=side), config, model)


def refuse_contradictions(config: TrainConfig, model: ModelConfig | None) -> None:
    """Refuse configurations that contradict each other."""
    if model is not None and model.channels != len(config.channels):
        raise wrong_channels(config, model)
    shares, count = config.shares, None if model is None else model.classes
    if shares is not None and config.sampling in (FORE_BACKGROUND, PER_CLASS):
        count = 2 if config.sampling == FORE_BACKGROUND else count
        if len(shares) != (count or len(shares)) or not sum(shares) > 0:
            raise DataFault(
                "deepmedic.sampling-shares-invalid",
                f"{config.path}: {SHARES} is {list(shares)}, expected {count} number(s) that do "
                "not sum up to 0, for foreground and background (sampling 0) or for each class "
                "(numberOfOutputClasses); correct it",
            )


@dataclass(frozen=True)
class SegmentSampling:
    """How segments of cases are sampled."""

    config: TrainConfig
    model: ModelConfig | None  # None if the network is unknown
    key: str  # of the segments' size in ``modelConfig.cfg``
    kind: int | None = None  # 0 to 3; None for maps, and for inference of whole volumes
    shares: Sequence[float] | None = None  # of the categories; None for equal ones

    def centres(
        self, labels: npt.NDArray[np.int16], region: npt.NDArray[Any] | None
    ) -> npt.NDArray[np.bool_]:
        """Return the allowed centres (X, Y, Z) of segments that lie in the padded volume."""
        box: tuple[slice, ...] = (slice(None),) * 3
        if self.model is not None:
            size = self.model.segments[self.key]
            padding = self.model.unpredicted if self.config.pad else (0, 0, 0)
            sides = []
            for extent, n, pad in zip(labels.shape, size, padding, strict=True):
                first = max((n - 1) // 2 - pad // 2, 0)
                last = max(extent + pad - n // 2 - pad // 2, 0)
                sides.append(slice(first, last))
            box = tuple(sides)
        centres = np.zeros(labels.shape, np.bool_)
        centres[box] = True if region is None or self.kind is None else region[box] > 0
        if self.shares is not None and self.kind in (FORE_BACKGROUND, PER_CLASS):
            category = labels <= 0 if self.kind == FORE_BACKGROUND else labels
            centres &= np.isin(category, np.flatnonzero(self.shares))
        return centres


def samplings_of(
    config: TrainConfig, model: ModelConfig | None, part: str
) -> list[SegmentSampling]:
    """Return how cases to train on (``train``), or to validate on, are sampled."""
    if part == "train":
        kind = None if config.weighted else config.sampling
        return [SegmentSampling(config, model, "segmentsDimTrain", kind, config.shares)]
    found = []
    if config.validates_on_samples:
        kind = config.sampling_validation if config.values.get(VALIDATION_MAPS) is None else None
        shares = config.shares_validation
        found.append(SegmentSampling(config, model, "segmentsDimVal", kind, shares))
    if config.validates_on_volumes:
        found.append(SegmentSampling(config, model, "segmentsDimInference"))
    return found


def refuse_unusable_case(
    listed: ListedCase, config: TrainConfig, model: ModelConfig | None
) -> None:
    """Refuse a case from which DeepMedic could not sample, on the side of its ``part``."""
    shape = read_volume_header(listed.labels, ndim=(3,)).shape
    for file in listed.everything:
        header = read_volume_header(file, ndim=(3,))
        for problem in other_shape(file, header.shape, listed.labels, shape):
            raise DataFault("deepmedic.shape-differs-from-labels", problem)
    labels = label_map(listed.labels, read_volume(listed.labels, labels=True).array, model)
    region, unsigned = None, False
    if listed.roi is not None:
        region = region_of(listed.roi, read_volume(listed.roi).array)
        header = read_volume_header(listed.roi)
        unsigned = header.dtype.kind == "u" and not header.scaled
    for sampling in samplings_of(config, model, listed.part):
        weighs = region is not None and sampling.kind in (UNIFORM, WHOLE)
        # As a weight map: numpy cannot multiply an unsigned one by DeepMedic's int8.
        if region is not None and weighs and (unsigned or (region < 0).any()):
            raise DataFault(
                "deepmedic.region-weights-unusable",
                f"{listed.roi}: a region of interest of an unsigned type, or with weights below 0 "
                f"({int(region.min())}), which DeepMedic cannot sample from with typeOfSampling "
                f"{sampling.kind}, expected a signed type without negative weights; store it as "
                "int16",
            )
        if not sampling.centres(labels, region).any():
            size = (
                "" if model is None else f" of {[*model.segments[sampling.key]]} ({sampling.key})"
            )
            raise DataFault(
                "deepmedic.no-voxel-to-sample",
                f"{listed.roi or listed.labels}: no voxel of {tuple(shape)} to take a segment{size}"
                f" around, by type of sampling {sampling.kind} and shares {sampling.shares}; "
                "expected some in the region of interest, far enough from the border of the "
                "volume; shrink the segment, or remove the case from every list",
            )
