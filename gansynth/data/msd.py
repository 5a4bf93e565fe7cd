"""``msd:FOLDER``: a Medical Segmentation Decathlon task, read as it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from gansynth.core.findings import CheckReport
from gansynth.core.source import SourceRequest
from gansynth.data.check import check_volumes
from gansynth.data.folds import absolute
from gansynth.data.listing import SPLITS, SUBJECTS, CaseFiles, Collector, VolumeSet, located, stem
from gansynth.data.nifti_source import VolumeSource
from gansynth.data.read_options import (
    VolumeOptions,
    complete_labels,
    parse_read,
    register_read_options,
)
from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth.runtime.files import read_json


@register_read_options(VolumeOptions)
def open_msd(request: SourceRequest) -> VolumeSource:
    """Open ``msd:FOLDER``. Raises DataFault: no usable ``dataset.json``; as ``VolumeSource``."""
    options = parse_read(VolumeOptions, request)
    return VolumeSource(
        absolute(request), list_msd(located(request, folder=True), options), options
    )


def check_msd(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``msd:FOLDER`` for all faults."""
    options = parse_read(VolumeOptions, request)
    listing = list_msd(located(request, folder=True), options)
    return check_volumes(listing, request, options, progress)


def list_msd(folder: Path, options: VolumeOptions) -> VolumeSet:
    """List what ``dataset.json`` names; DataFault: unusable, UsageFault: unknown channels."""
    path = folder / "dataset.json"
    doc = read_json(path, hint="give the folder of one MSD task, for example Task04_Hippocampus")
    names = _numbered(doc, path)
    training = doc.get("training")
    if not isinstance(training, list):
        raise DataFault(f"{path}: training is {training!r:.80}, expected a list of cases")
    collector = Collector(folder, options.allow_absolute)
    for number, entry in enumerate(training):
        _add(collector, path, number, entry)
    chosen = options.channels or names
    unknown = [name for name in chosen if name not in names]
    if unknown:
        raise UsageFault(
            f"--read channels={','.join(chosen)}: {path} has no modality {unknown[0]!r}, expected "
            f"among: {', '.join(names)}.{did_you_mean(unknown[0], names)}"
        )
    return VolumeSet(
        f"msd:{folder.resolve().name}",
        folder,
        path,
        collector.entries("image and label of each case under training"),
        channels=chosen,
        stacked=True,
        total=len(names),
        picked=tuple(names.index(name) for name in chosen),
        labels=_labels(doc, path),
        splits=folder / SPLITS,
        subjects=folder / SUBJECTS,
        faults=tuple(collector.faults),
    )


def _numbered(doc: Mapping[str, Any], path: Path) -> tuple[str, ...]:
    names = doc.get("modality", doc.get("channel_names"))
    numbers = {str(i) for i in range(len(names))} if isinstance(names, dict) else set()
    if not numbers or set(names) != numbers:
        raise DataFault(
            f"{path}: modality is {names!r:.200}, expected names numbered from 0, for example "
            '{"0": "MRI"}'
        )
    return tuple(str(names[str(i)]) for i in range(len(names)))


def _labels(doc: Mapping[str, Any], path: Path) -> dict[str, int]:
    """Turn ``{"0": "background", "1": "Anterior"}`` into ``{"background": 0, "Anterior": 1}``."""
    labels = doc.get("labels")
    if not isinstance(labels, dict) or not all(k.isdecimal() and len(k) < 9 for k in labels):
        raise DataFault(
            f"{path}: labels is {labels!r:.200}, expected names by number, for example "
            '{"0": "background", "1": "tumour"}'
        )
    named = {str(name): int(number) for number, name in labels.items()}
    if len(named) != len(labels):
        raise DataFault(f"{path}: labels {labels!r:.200}: a name occurs twice, expected each once")
    return complete_labels(named)


def _add(collector: Collector, path: Path, number: int, entry: Any) -> None:
    where = f"{path}: training: {number}"
    match entry:
        case {"image": str(image), "label": str(label)}:
            case = stem(Path(image).name) or ""
        case _:
            message = f"{where} is {entry!r:.200}, expected image and label; correct the entry"
            collector.fault(None, path, DataFault(message))
            return
    if not case:
        message = f"{where}: image is {image!r:.200}, expected a .nii.gz file; correct the entry"
        collector.fault(None, path, DataFault(message))
        return
    files = (
        collector.file(image, f"{where}: image", case),
        collector.file(label, f"{where}: label", case),
    )
    if files[0] is not None and files[1] is not None:
        collector.add(CaseFiles(case, (files[0],), files[1]))
