"""``nnunet-raw:ID``: the raw volumes of an nnU-Net data set, and the check of them."""

from __future__ import annotations

import json
import re
import shlex
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Literal

from gansynth import (
    CheckReport,
    DataFault,
    Finding,
    GansynthError,
    ReadOptions,
    SourceRequest,
    VolumeOptions,
    VolumeSource,
    parse_read,
    register_read_options,
)
from gansynth.core.volumes import endings
from gansynth.data.case_writer import NiftiWriter
from gansynth_nnunet.cases import PreprocessedArrays, hashes_of
from gansynth_nnunet.dataset import (
    NAME,
    NnunetRoot,
    RawSet,
    describes,
    hidden_regions,
    located,
    raw_set,
    read_labels,
)
from gansynth_nnunet.plans import check_plans, preparing


@register_read_options(VolumeOptions)
def open_raw(request: SourceRequest) -> VolumeSource:
    """Open the cases of ``imagesTr`` and ``labelsTr`` with the folds of ``splits_final.json``."""
    options = parse_read(VolumeOptions, request)
    raw = raw_set(*NnunetRoot.of(request.where, request.root))
    listing = raw.listing
    if options.channels is not None:
        listing = listing.with_channels(options.channels)
    return VolumeSource(request.absolute(located(request.where)), listing, options)


open_raw.by_name = True  # type: ignore[attr-defined]
open_raw.describes = describes  # type: ignore[attr-defined]


def check_nnunet(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """List all faults of the raw data set of ``nnunet:ID`` or ``nnunet-raw:ID``."""
    report = check_raw(request, progress)
    root, name = NnunetRoot.of(request.where, request.root)
    return report.with_findings([*report.findings, *_check_arrays(root, name)])


def check_raw(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Read every file of a raw data set to its last byte and list its faults, errors first."""
    if request.kind == "nnunet-raw":
        options = parse_read(VolumeOptions, request)
    else:  # nnU-Net resamples and normalises by its plans, and makes its own folds
        parse_read(ReadOptions, request)
        options = VolumeOptions.model_validate(
            {"spacing": "native", "folds": 2, "modality": "none"}
        )
    root, name = NnunetRoot.of(request.where, request.root)
    raw = raw_set(root, name)
    listing = raw.listing
    report = VolumeSource.check_listing(listing, request, options, progress)
    own = _check_set(root, raw, prepares=request.kind != "nnunet-raw")
    return replace(report, name=name).with_findings([*report.findings, *own])


def _check_set(root: NnunetRoot, raw: RawSet, prepares: bool) -> Iterator[Finding]:
    listing, path, volumes = raw.listing, raw.listing.where, raw.ending in endings()
    level: Literal["error", "warning"] = "error" if prepares else "warning"
    if not NAME.fullmatch(path.parent.name):
        new = f"Dataset{root.free_id(1):03d}_{re.sub('[^A-Za-z0-9_.-]', '_', path.parent.name)}"
        text = (
            f"{path.parent}: its name is none that nnU-Net finds, expected DatasetNNN_NAME; rename "
            f"it: mv {shlex.quote(str(path.parent))} {shlex.quote(str(path.parent.with_name(new)))}"
        )
        yield Finding(level, None, path.parent, text)
    code = json.detect_encoding(path.read_bytes())
    if code != "utf-8":
        text = (
            f"{path}: is written in {code}, which nnU-Net does not read, expected UTF-8 without a "
            "byte order mark; save it so"
        )
        yield Finding(level, None, path, text)
    if raw.hidden:
        text = (
            f"{raw.hidden[0]}: a hidden file, as macOS leaves them; nnU-Net takes the "
            f"{len(raw.hidden)} of its folder for cases. Remove them: "
            f"find {shlex.quote(str(raw.hidden[0].parent))} -name '.*{raw.ending}' -delete"
        )
        yield Finding(level, None, raw.hidden[0], text)
    values, cases = sorted((listing.labels or {}).values()), len(listing.entries)
    if values != list(range(len(values))):
        text = (
            f"{path}: label values are {values}, expected 0, 1, 2, ... without a gap; renumber "
            "them here and in labelsTr"
        )
        yield Finding("error", None, path, text)
    hidden = hidden_regions(raw.doc, read_labels(raw.doc, path))
    if hidden:
        yield Finding("warning", None, path, f"{path}: {hidden}")
    lie = Counter([entry.axes for entry in listing.entries]) if volumes else {}
    if len(lie) > 1:
        text = ", ".join([f"{count} along {axes or 'several'}" for axes, count in lie.items()])
        text = (
            f"{path.parent}: files lie along different axes: {text}. nnU-Net takes voxels as they "
            "are stored, and learns each way apart; turn them alike (nibabel.as_closest_canonical)"
        )
        yield Finding("warning", None, path.parent, text)
    if raw.doc.get("numTraining") != cases:
        text = (
            f"{path}: numTraining is {raw.doc.get('numTraining')!r}, expected the {cases} cases "
            "there are; correct it"
        )
        yield Finding("warning", None, path, text)
    if "dataset" not in raw.doc:
        known = set(raw.hidden)
        for entry in listing.entries:
            known.update(entry.images)
        for file in sorted({*(listing.root / "imagesTr").glob(f"*{raw.ending}")} - known):
            text = (
                f"{file}: of no channel, {path.name} names {len(listing.channels or ())}; name it, "
                "or remove it"
            )
            yield Finding("error", None, file, text)


def _check_arrays(root: NnunetRoot, dataset: str) -> Iterator[Finding]:
    preprocessed = root.preprocessed / dataset
    yield from check_plans(root, dataset)
    for folder in sorted({file.parent for file in preprocessed.glob("*/*.b2nd")}):
        again = f"preprocess again: {preparing(root, dataset, folder)}"
        arrays = PreprocessedArrays(folder, again, keep=False)
        unnoted = len(arrays.unnoted())
        if unnoted:
            text = (
                f"{folder}: {unnoted} arrays are not verified, for {hashes_of(folder).name} has no "
                "hash of them: they can be decoded, but a flipped bit may go unnoticed; to be "
                f"sure, {again}"
            )
            yield Finding("warning", None, folder, text)
        for file in sorted(folder.glob("*.b2nd")):
            try:
                arrays.checked(file.name)
            except GansynthError as fault:
                yield Finding.of(file.stem.removesuffix("_seg"), file, fault)


def raise_on_errors(findings: Sequence[Finding], request: SourceRequest) -> None:
    """Stop if a check of a request's data found errors."""
    errors = [finding for finding in findings if finding.level == "error"]
    if errors:
        note = f" ({len(errors)} errors in all; see: {request.check()})" if len(errors) > 1 else ""
        raise DataFault("nnunet.raw-data-faulty", f"{errors[0].message}{note}")


class SampleWriter(NiftiWriter):
    """Samples in the folders of a raw nnU-Net data set."""

    name = "nnunet-raw"
    reader = ""
    images, labels = "imagesTr", "labelsTr"
