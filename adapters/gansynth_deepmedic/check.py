"""``gansynth check deepmedic:trainConfig.cfg``: all faults, file by file."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gansynth.core.findings import CheckReport, Finding
from gansynth.core.source import SourceRequest
from gansynth.data.check import (
    CheckState,
    check_folds,
    check_values,
    even_channels,
    hash_image,
    in_order,
    same_content,
    unused_labels,
)
from gansynth.data.folds import folds_of, subjects_of
from gansynth.data.pairs import AFFINE_TOLERANCE, affine_difference
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError
from gansynth.runtime.files import NiftiHeader, read_nifti, read_nifti_header
from gansynth_deepmedic.cases import ConfiguredCases, DeepMedicOptions
from gansynth_deepmedic.configs import ListedCase, TrainConfig
from gansynth_deepmedic.preflight import Found, config_faults, content_faults, header_faults
from gansynth_deepmedic.source import label_map, listed_by, notes

FRACTION = 1e-3  # tolerated distance of a label from a whole number; scaling by headers rounds


def check_deepmedic(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Find all faults of ``deepmedic:trainConfig.cfg``; every file is read.

    Raises:
        UsageFault: no such file, or invalid options.
        DataFault: a configuration or list that cannot be read.
    """
    request, config, cases, options = listed_by(request)
    listing, model = cases.listing, cases.model
    findings = [Finding("error", f.case, f.file, str(f.error)) for f in listing.faults]
    findings += [Finding("warning", None, config.path, text) for text in notes(config)]
    faults = [] if model is None else list(config_faults(config, model))
    findings += [Finding("error", None, file, str(fault)) for file, fault in faults]
    labels = options.labels or listing.labels
    tally = CheckState(
        None if labels is None else frozenset(labels.values()),
        "--read labels" if options.labels or model is None else str(model.path),
    )
    trained = set(config.train)
    for number, (case, listed) in enumerate(cases.listed.items(), start=1):
        findings += _check_case(case, listed, tally, cases, config, trained=listed in trained)
        progress(number, len(cases.listed))
    if labels is not None:
        findings += unused_labels(config.path, tally)
    findings += _sides(request, config, cases, options, tally)
    return CheckReport(listing.name, len(cases.listed), in_order(_each_once(findings)))


def _each_once(findings: list[Finding]) -> list[Finding]:
    """Remove repeated findings; several checks may report the same."""
    return list({(f.level, f.case, f.message): f for f in findings}.values())


def _check_case(
    case: str,
    listed: ListedCase,
    tally: CheckState,
    cases: ConfiguredCases,
    config: TrainConfig,
    *,
    trained: bool,
) -> Iterator[Finding]:
    assert listed.labels is not None
    if not all(os.path.isfile(file) for file in listed.files):  # reported already
        return
    for look in (header_faults, content_faults):
        faults = look(listed, config, cases.model, trained=trained)
        yield from _told(case, listed.labels, faults)
    yield from _labels(case, listed.labels, tally, cases)
    digest, flat, whole = hashlib.sha256(), True, True
    for file in dict.fromkeys(file for file in listed.channels if file is not None):
        try:
            volume = read_nifti(file)
        except EnvironmentFault:
            raise
        except GansynthError as fault:
            whole = False
            yield Finding("error", case, file, str(fault))
            continue
        flat &= hash_image(digest, volume.array)
        yield from even_channels(case, file, volume.array)
    if whole and not flat:
        tally.content[digest.hexdigest()].append(case)
    yield from _headers(case, listed)


def _told(case: str, file: Path, faults: Iterator[Found]) -> Iterator[Finding]:
    try:
        for where, fault in faults:
            yield Finding("error", case, where, str(fault))
    except EnvironmentFault:
        raise
    except GansynthError as fault:
        yield Finding("error", case, file, str(fault))


def _labels(case: str, file: Path, tally: CheckState, cases: ConfiguredCases) -> Iterator[Finding]:
    try:
        array = read_nifti(file, labels=True).array
        labels = label_map(file, array, cases.model)
    except DataFault:  # reported already
        return
    if array.dtype.kind == "f" and not np.allclose(array, np.rint(array), atol=FRACTION):
        text = (
            f"{file}: holds fractions, which DeepMedic rounds, expected whole numbers; "
            "resample label maps to the nearest voxel"
        )
        yield Finding("warning", case, file, text)
    yield from check_values(tally, case, file, labels)


def _headers(case: str, listed: ListedCase) -> Iterator[Finding]:
    """Warn of files whose affine differs from the label map's; DeepMedic does not check."""
    assert listed.labels is not None
    reference: NiftiHeader | None = None
    for file in dict.fromkeys((listed.labels, *listed.files)):
        try:
            header = read_nifti_header(file)
        except GansynthError:  # reported already
            return
        reference = reference or header
        difference = affine_difference(header.affine, reference.affine)
        if difference > AFFINE_TOLERANCE:
            text = (
                f"{file}: affine differs from that of {listed.labels.name} by up to "
                f"{difference:.3g} mm; DeepMedic and gansynth ignore it and take voxels as "
                "stored; if the voxels match, copy the header"
            )
            yield Finding("warning", case, file, text)


def _sides(
    request: SourceRequest,
    config: TrainConfig,
    cases: ConfiguredCases,
    options: DeepMedicOptions,
    tally: CheckState,
) -> Iterator[Finding]:
    listing = cases.listing
    try:
        subject_of = subjects_of(listing, request.subjects)
        folds = folds_of(listing, subject_of, options.volumes(config))
    except GansynthError as error:
        yield Finding("error", None, listing.where, str(error))
        return
    if config.validation:
        yield from check_folds(listing.where, subject_of, folds)
    yield from same_content(listing.where, tally.content, folds)
