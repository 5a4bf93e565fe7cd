"""Import of a Medical Segmentation Decathlon folder as a raw nnU-Net data set, split by subject."""

from __future__ import annotations

import filecmp
import gzip
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.host_commands import CommandReport, ImportRequest
from gansynth.data.pairs import AFFINE_TOLERANCE, affine_difference
from gansynth.data.subjects import read_subjects
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import (
    NiftiVolume,
    disk_errors,
    path_inside,
    read_json,
    read_nifti,
    remove_temporaries,
    sha256_file,
    write_bytes_atomic,
    write_json_atomic,
)
from gansynth.runtime.progress import counting
from gansynth_nnunet.dataset import LabelTable, read_channels, read_labels
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.splits import write_splits

MARKER = "gansynth_import.json"
"""File beside ``dataset.json`` that identifies the MSD ``dataset.json`` of the cases. With it an
interrupted import resumes, and cases of different folders are not mixed."""
_CASE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,200}")


@dataclass
class _MsdImport:
    """State of one import: source, target, finished work."""

    source: Path
    target: Path
    channels: tuple[str, ...]
    table: LabelTable
    entries: Mapping[str, tuple[Path, Path]]
    # files copied; split into channels, compressed or recast; left from an earlier import
    counts: dict[str, int] = field(default_factory=lambda: {"copied": 0, "rewritten": 0, "kept": 0})


def import_msd(request: ImportRequest) -> CommandReport:
    """Implement ``gansynth import msd:FOLDER nnunet:ID``; after an interruption it resumes.

    Every file is read to its checksum and checked before it is imported. Without a table or
    expression of subjects, ``FOLDER/subjects.csv`` is taken; without that file every case is its
    own subject.

    Raises:
        DataFault: names the first unusable file.
        IntegrityFault: a path in ``dataset.json`` leads out of the folder.
        UsageFault: the id is taken by another data set.
        EnvironmentFault: a disk error.
    """
    kind, _, folder = request.source.partition(":")
    if kind != "msd" or not folder:
        raise UsageFault(f"{request.source!r}: expected msd:FOLDER, the only kind imported so far")
    for key in request.reading.keys() - {"subjects", "root"}:
        raise UsageFault(f"--{key}: has no effect on msd:FOLDER to nnunet:ID; leave it out")
    root = NnunetRoot.find(request.reading.get("root"))
    job = _open(Path(folder), root, request.where)
    name, ids = job.target.name, list(job.entries)
    default, table = job.source / "subjects.csv", request.reading.get("subjects")
    if table is None and default.is_file():
        table = str(default)
    subject_of = read_subjects(table, ids) if table is not None else {case: case for case in ids}
    _claim(job)
    splits = write_splits(
        root.preprocessed / name, ids, subject_of, request.folds or 5, request.seed
    )
    with counting(request.reporter, "import") as progress:
        for number, case in enumerate(ids, start=1):
            _import_case(job, case)
            progress(number, len(ids))
    _write_dataset_json(job)
    subjects = len(set(subject_of.values()))
    if subjects == len(ids):
        request.reporter.warn("every case is a subject of its own; name subjects with --subjects")
    folds = tuple((len(split["train"]), len(split["val"])) for split in splits)
    held = " or ".join(map(str, sorted({val for _, val in folds})))
    of = f"{subjects} subject{'s' * (subjects != 1)}"
    return CommandReport(
        {
            "dataset": name,  # full name of the nnU-Net data set
            "folder": job.target,
            "cases": len(ids),
            **job.counts,
            "subjects": subjects,
            "folds": folds,  # (training, validation) cases of each fold
        },
        (
            f"{name}: {len(ids)} case{'s' * (len(ids) != 1)} of {of} in {job.target}",
            f"{len(folds)} folds, each holding out {held} cases",
        ),
        ("prepare", f"nnunet:{request.where}", "-c", "3d_fullres"),
    )


def _open(source: Path, root: NnunetRoot, dataset_id: str) -> _MsdImport:
    """Read the MSD ``dataset.json`` without writing anything."""
    path = source / "dataset.json"
    doc = read_json(path, hint="give the folder of one MSD task, for example Task04_Hippocampus")
    if not re.fullmatch(r"0*[1-9]\d{0,2}", dataset_id):
        raise UsageFault(f"dataset id is {dataset_id!r}, expected a number from 1 to 999")
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", str(doc.get("name") or source.resolve().name))
    target = root.raw / f"Dataset{int(dataset_id):03d}_{name}"
    taken = [n for n in root.datasets() if n[:10] == target.name[:10] and n != target.name]
    if taken:
        raise UsageFault(
            f"{root.raw}: id {int(dataset_id):03d} is taken by {taken[0]}, expected a free one; "
            "choose another id"
        )
    table = read_labels({"labels": _v2_labels(doc.get("labels"), path)}, str(path))
    return _MsdImport(
        source, target, read_channels(doc, str(path)), table, _entries(source, doc, path)
    )


def _v2_labels(labels: Any, path: Path) -> dict[str, Any]:
    """Turn ``{"0": "background", "1": "Anterior"}`` into ``{"background": 0, "Anterior": 1}``."""
    if not isinstance(labels, dict) or not all(str(value).isdigit() for value in labels):
        raise DataFault(
            f"{path}: labels is {labels!r:.200}, expected MSD's style: "
            '{"0": "background", "1": "name"}'
        )
    named = {int(value): str(name) for value, name in labels.items()}
    named[0] = "background"
    if len(set(named.values())) != len(named):
        raise DataFault(
            f"{path}: labels {labels!r:.200}: a name occurs twice, expected unique names"
        )
    return {name: value for value, name in sorted(named.items())}


def _entries(source: Path, doc: Mapping[str, Any], path: Path) -> dict[str, tuple[Path, Path]]:
    """Map cases to image and label file, sorted; paths stay inside the folder."""
    training = doc.get("training")
    if not isinstance(training, list) or not training:
        raise DataFault(f"{path}: training is {training!r:.80}, expected a list of cases")
    entries: dict[str, tuple[Path, Path]] = {}
    for number, entry in enumerate(training):
        match entry:
            case {"image": str(image), "label": str(label)}:
                where = f"{path}: training: {number}"
                files = (
                    path_inside(source, image, key=where),
                    path_inside(source, label, key=where),
                )
            case _:
                raise DataFault(
                    f"{path}: training: {number} is {entry!r:.200}, expected image and label"
                )
        name = re.sub(r"\.nii(\.gz)?$", "", Path(image).name)
        if not _CASE.fullmatch(name):
            raise DataFault(
                f"{path}: training: {number}: file name {name!r} is unusual, expected letters, "
                "digits, '_', '-' and '.'; rename the file"
            )
        if name.casefold() in {entry.casefold() for entry in entries}:
            raise DataFault(
                f"{path}: training: {number}: case {name!r} occurs twice (upper and lower case are "
                "not told apart), expected unique names; remove one"
            )
        entries[name] = files
    return dict(sorted(entries.items()))


def _claim(job: _MsdImport) -> None:
    """Make the target's folders, or resume in those of an earlier import of the same source."""
    marker = {"source_sha256": sha256_file(job.source / "dataset.json")}
    path = job.target / MARKER
    if path.is_file():
        if read_json(path) != marker:
            raise UsageFault(
                f"{job.target}: was imported from another MSD folder (or its dataset.json has "
                "changed since); choose another id, or remove that folder"
            )
    elif job.target.is_dir() and any(job.target.iterdir()):
        raise UsageFault(
            f"{job.target}: exists, and not from an import; choose another id, or remove it"
        )
    with disk_errors(job.target):
        for part in ("imagesTr", "labelsTr"):
            (job.target / part).mkdir(parents=True, exist_ok=True)
        remove_temporaries(job.target)
    write_json_atomic(path, marker)


def _write_dataset_json(job: _MsdImport) -> None:
    """Write it last: it marks the cases as complete. Unchanged, it keeps its date."""
    source_json = read_json(job.source / "dataset.json")
    about = ("description", "reference", "licence", "release")
    doc = {
        "name": job.target.name[11:],
        **{key: source_json[key] for key in about if isinstance(source_json.get(key), str)},
        "channel_names": {str(i): name for i, name in enumerate(job.channels)},
        "labels": dict(job.table.values),
        "numTraining": len(job.entries),
        "file_ending": ".nii.gz",
    }
    path = job.target / "dataset.json"
    if not path.is_file() or read_json(path) != doc:
        write_json_atomic(path, doc)


# -- one case ------------------------------------------------------------------------------------


def _import_case(job: _MsdImport, case: str) -> None:
    image, label = job.entries[case]
    images = [job.target / "imagesTr" / f"{case}_{c:04d}.nii.gz" for c in range(len(job.channels))]
    labels = job.target / "labelsTr" / f"{case}.nii.gz"
    if all(_newer(target, image) for target in images) and _newer(labels, label):
        job.counts["kept"] += len(images) + 1
        return
    volume, seg = read_nifti(image, ndim=(3, 4)), read_nifti(label)
    _check_pair(job, image, volume, label, seg)
    if volume.array.ndim == 3:
        _publish(job, image, volume.array, images[0])
    else:
        for channel, target in enumerate(images):
            _rewrite(job, image, volume.array[..., channel], target)
    if seg.array.dtype.kind in "iu":
        _publish(job, label, seg.array, labels)
    else:
        _rewrite(
            job, label, seg.array.astype(np.uint8 if seg.array.max() < 256 else np.int16), labels
        )


def _newer(target: Path, source: Path) -> bool:
    """Whether an earlier import has published this file, and the source has not changed since."""
    return target.is_file() and target.stat().st_mtime_ns >= source.stat().st_mtime_ns


def _check_pair(
    job: _MsdImport, image: Path, volume: NiftiVolume, label: Path, seg: NiftiVolume
) -> None:
    shape, channels = volume.array.shape[:3], len(job.channels)
    count = volume.array.shape[3] if volume.array.ndim == 4 else 1
    if count != channels:
        raise DataFault(
            f"{image}: {count} channel(s) of shape {volume.array.shape}, expected {channels} "
            f"({', '.join(job.channels)}) by dataset.json; correct modality there"
        )
    if seg.array.shape != shape:
        raise DataFault(
            f"{label}: shape is {seg.array.shape}, but {shape} in {image.name}; expected equal; "
            "resample one to the other, or leave the case out"
        )
    difference = affine_difference(seg.affine, volume.affine)
    if difference > AFFINE_TOLERANCE:
        raise DataFault(
            f"{label}: affine differs from that of {image.name} by up to {difference:.3g} mm, "
            f"expected at most {AFFINE_TOLERANCE}; resample, or leave the case out"
        )
    values = np.unique(seg.array)
    unknown = [v.item() for v in values if v != round(v) or int(v) not in job.table.allowed]
    if unknown:
        raise DataFault(
            f"{label}: label value(s) {unknown[:8]} are not in dataset.json, expected among "
            f"{sorted(job.table.allowed)}; correct the file or dataset.json"
        )


def _publish(job: _MsdImport, source: Path, array: npt.NDArray[Any], target: Path) -> None:
    """Copy a file byte for byte; compress it first if it is not compressed."""
    if source.suffix != ".gz":
        _rewrite(job, source, array, target)
        return
    if target.is_file() and filecmp.cmp(source, target, shallow=False):
        job.counts["kept"] += 1
        return
    write_bytes_atomic(target, source.read_bytes())
    job.counts["copied"] += 1


def _rewrite(job: _MsdImport, source: Path, array: npt.NDArray[Any], target: Path) -> None:
    """Write an array with its source file's header; every call gives the same bytes."""
    import nibabel as nib

    original: Any = nib.load(source)
    header = original.header.copy()
    header.set_data_dtype(array.dtype)
    image: Any = nib.Nifti1Image(np.ascontiguousarray(array), original.affine, header)
    image.header.set_slope_inter(1, 0)
    write_bytes_atomic(target, gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))
    job.counts["rewritten"] += 1
