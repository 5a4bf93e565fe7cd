"""Import of labelled volumes, pictures or slices of any source as a raw nnU-Net data set."""

from __future__ import annotations

import gzip
import itertools
import re
import shutil
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.host_commands import CommandReport, ImportRequest
from gansynth.core.registry import installed
from gansynth.core.source import CaseSource, FoldSplit, SourceRequest
from gansynth.core.synthetic import real_file
from gansynth.data.api import find_kind, source_request
from gansynth.data.nifti import VolumeSource
from gansynth.data.pairs import whole_labels
from gansynth.data.pictures import PictureOptions
from gansynth.data.read_options import VolumeOptions, options_of
from gansynth.data.slices import SliceOptions
from gansynth.data.views import open_plain
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import (
    disk_errors,
    read_json,
    read_nifti,
    read_nifti_header,
    whole_folder,
    write_json_atomic,
)
from gansynth.runtime.progress import counting
from gansynth_nnunet.paths import NnunetRoot
from gansynth_nnunet.raw import raise_on_errors
from gansynth_nnunet.splits import write_splits

ENDING = ".nii.gz"
THICKNESS = 999.0
"""Millimetres of a picture's third axis, as nnU-Net's own reader of pictures says: it must be the
longest, so that nnU-Net trains across the other two."""
ABOUT = ("description", "reference", "licence", "release")  # kept of the source's dataset.json
_WITHOUT_EFFECT = {"window", "spacing", "size", "frame", "whole", "resampling", "between", "boxes"}


def import_raw(request: ImportRequest) -> CommandReport:
    """Implement ``gansynth import SOURCE nnunet:ID``: the whole data set is written, or nothing.

    The source is checked first. A NIfTI file of one channel is copied byte for byte; others are
    written with the same voxels and header. A picture or slice becomes a volume of one slice. The
    folds are those of the source.

    Raises:
        DataFault: the first error that the check finds.
        UsageFault: the id is taken, the source has no label maps or no files to copy, or options
            that have no effect.
        EnvironmentFault: a disk error.
    """
    place = request.reading.get("root")
    root = NnunetRoot.find(place)
    start = _free(root, request.where)
    asked = _asked(request)
    with counting(request.reporter, "check") as progress:
        checked = installed().check(asked.kind)(asked, progress)
    raise_on_errors(checked.findings)
    for finding in checked.findings:
        request.reporter.warn(finding.message)
    writer = _RawWriter(open_plain(replace(asked, fold="all")))
    cases, name = writer.cases, f"{start}{writer.name}"
    splits = _folds(asked, cases)
    subject_of = {case: writer.source.header(old).subject for old, case in cases.items()}
    with (
        counting(request.reporter, "import") as progress,
        whole_folder(root.raw / name) as folder,
    ):
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir()
        for number, case in enumerate(cases, start=1):
            writer.write(case, folder)
            progress(number, len(cases))
        write_json_atomic(folder / "dataset.json", writer.document())
        write_splits(root.preprocessed / name, splits, subject_of)
    subjects = len(set(subject_of.values()))
    if subjects == len(cases):
        request.reporter.warn("every case is a subject of its own; name subjects with --subjects")
    folds = tuple((len(split["train"]), len(split["val"])) for split in splits)
    held = " or ".join(map(str, sorted({val for _, val in folds})))
    lines = [
        f"{name}: {len(cases)} cases of {subjects} subject(s) in {root.raw / name}",
        f"channels: {', '.join(writer.source.schema.channels)}; labels: {', '.join(writer.labels)}",
        f"{len(folds)} fold(s), holding out {held} cases each",
    ]
    changed = {str(old): new for old, new in writer.numbers.items() if old != new}
    if changed:
        became = ", ".join(f"{old} to {new}" for old, new in changed.items())
        lines.append(f"label values: {became}, because nnU-Net takes no gaps")
    document = {
        "dataset": name,  # full name of the nnU-Net data set
        "folder": root.raw / name,
        "cases": len(cases),
        "copied": writer.copied,  # files, byte for byte
        "written": writer.written,  # split into channels, compressed, recast or renumbered
        "renumbered": changed,
        "subjects": subjects,
        "folds": folds,  # (training, held-out) cases of each fold
    }
    then = ("prepare", f"nnunet:{request.where}", *(("--root", place) if place else ()))
    return CommandReport(document, lines, then)


def _free(root: NnunetRoot, dataset_id: str) -> str:
    """Return the beginning of the data set's name, ``Dataset004_``; an id in use is refused."""
    if not re.fullmatch(r"0*[1-9]\d{0,2}", dataset_id):
        raise UsageFault(f"dataset id is {dataset_id!r}, expected a number from 1 to 999")
    start = f"Dataset{int(dataset_id):03d}_"
    homes = (root.raw, root.preprocessed, root.results)
    there = [str(folder) for home in homes for folder in home.glob(f"{start}*")]
    if there:
        raise UsageFault(
            f"{there[0]}: id {int(dataset_id):03d} is taken, expected a free one: an import "
            f"never changes a data set; choose another id, or remove {' and '.join(there)}"
        )
    return start


def _asked(request: ImportRequest) -> SourceRequest:
    """Return the request of the source, whose folds are those that nnU-Net gets."""
    words = dict(request.reading)
    if words.pop("fold", None) is not None:
        raise UsageFault("--fold: has no effect, nnU-Net gets all folds; leave it out")
    named = request.source
    if ":" not in named:
        named = find_kind(named, words.get("root"))
    read = dict(words.pop("read", {}))
    if request.folds is not None:
        read["folds"] = str(request.folds)
    asked = source_request(named, read=read, **words)
    opener = installed().load("sources", asked.kind)
    if getattr(opener, "read_options", None) not in (VolumeOptions, PictureOptions, SliceOptions):
        raise UsageFault(
            f"{named}: no files that nnU-Net can read, expected what they were made from, as "
            "nifti:, msd:, nnunet-raw:, pictures: or slices:"
        )
    options = options_of(opener, asked)
    idle = options.model_fields_set & _WITHOUT_EFFECT if type(options) is VolumeOptions else ()
    for key in sorted(idle):
        raise UsageFault(
            f"--read {key}: has no effect, nnU-Net gets the files as they are; leave it out"
        )
    if "splits" not in read:
        read.setdefault("seed", str(request.seed))
    return replace(asked, read=read)


def _folds(asked: SourceRequest, names: Mapping[str, str]) -> list[FoldSplit]:
    splits: list[FoldSplit] = []
    for fold in itertools.count():
        try:
            source = open_plain(replace(asked, fold=str(fold)))
        except UsageFault:  # no such fold
            if not splits:
                raise
            break
        train, val = ([names[c] for c in ids] for ids in (source.train_ids, source.held_out_ids))
        splits.append(FoldSplit(train=train, val=val))
    return splits


class _RawWriter:
    """Writes the cases of a source; ``cases``: its name of a case -> that in nnU-Net's files."""

    def __init__(self, source: CaseSource) -> None:
        if len(source.schema.labels) < 2:
            raise UsageFault(f"{source.name}: no label maps, expected some: nnU-Net needs them")
        self.source, self.copied, self.written = source, 0, 0
        path = source.listing.root / "dataset.json" if isinstance(source, VolumeSource) else None
        self.about = read_json(path) if path is not None and path.is_file() else {}
        self.name = _plain(str(self.about.get("name") or source.name.rpartition(":")[2]))
        self.cases = {c: _plain(c) for c in sorted((*source.train_ids, *source.held_out_ids))}
        same: dict[str, list[str]] = defaultdict(list)
        for case, name in self.cases.items():
            same[name.casefold()].append(case)
        for first, second, *_ in (cases for cases in same.values() if len(cases) > 1):
            raise DataFault(
                f"{source.name}: cases {first!r} and {second!r} are both {self.cases[first]!r} in "
                "nnU-Net's files, expected different names; rename one"
            )
        named = source.schema.labels.items()
        ordered = sorted(named, key=lambda item: (item[0] == "ignore", item[1]))
        # label value -> that in nnU-Net's files, which are 0, 1, 2, ...
        self.numbers = {value: number for number, (_, value) in enumerate(ordered)}
        self.labels = {name: number for number, (name, _) in enumerate(ordered) if number}

    def document(self) -> dict[str, Any]:
        """Return ``dataset.json``; nnU-Net normalises a channel as CT if it is called so."""
        channels = self.source.schema.channels
        modality = getattr(self.source, "modality", channels)
        names = ["CT" if how == "ct" else c for c, how in zip(channels, modality, strict=True)]
        return {
            "name": self.name,
            **{key: self.about[key] for key in ABOUT if key in self.about},
            "channel_names": {str(number): channel for number, channel in enumerate(names)},
            "labels": {"background": 0, **self.labels},
            "numTraining": len(self.cases),
            "file_ending": ENDING,
        }

    def write(self, case: str, folder: Path) -> None:
        """Write the files of one case."""
        source, name = self.source, self.cases[case]
        channels = range(len(source.schema.channels))
        images = [folder / "imagesTr" / f"{name}_{c:04d}{ENDING}" for c in channels]
        labels = folder / "labelsTr" / f"{name}{ENDING}"
        if isinstance(source, VolumeSource):
            self._copy_volumes(source, case, images, labels)
            return
        plane = source.load(case)
        affine = np.diag([*source.schema.spacing[::-1], THICKNESS, 1.0])
        for channel, target in zip(plane.image, images, strict=True):
            self._write(channel[None].T, target, affine=affine)
        assert plane.labels is not None
        self._write(self._renumber(plane.labels[None].T), labels, affine=affine)

    def _copy_volumes(
        self, source: VolumeSource, case: str, images: list[Path], labels: Path
    ) -> None:
        entry, picked = source.entry(case), source.listing.picked or range(len(images))
        for file in entry.images:
            real_file(file, source.request)
        if len(read_nifti_header(entry.images[0]).shape) == 4:
            array = read_nifti(entry.images[0], ndim=(4,)).array
            for target, channel in zip(images, picked, strict=True):
                self._write(array[..., channel], target, entry.images[0])
        else:
            for file, target in zip(entry.images, images, strict=True):
                self._copy(file, target)
        assert entry.labels is not None
        header = read_nifti_header(entry.labels)
        kept = all(value == number for value, number in self.numbers.items())
        if kept and header.dtype.kind in "iu" and not header.scaled:
            self._copy(entry.labels, labels)
        else:
            drawn = whole_labels(entry.labels, read_nifti(entry.labels, labels=True).array)
            self._write(self._renumber(drawn), labels, entry.labels)

    def _renumber(self, drawn: npt.NDArray[Any]) -> npt.NDArray[Any]:
        table = np.zeros(max(self.numbers) + 1, np.uint8 if len(self.numbers) < 256 else np.int16)
        for value, number in self.numbers.items():
            table[value] = number
        renumbered: npt.NDArray[Any] = table[drawn]
        return renumbered

    def _copy(self, file: Path, target: Path) -> None:
        if file.suffix != ".gz":  # nnU-Net needs one ending for all files
            self._write(read_nifti(file).array, target, file)
            return
        with disk_errors(target, file.stat().st_size):
            shutil.copyfile(file, target)
        self.copied += 1

    def _write(
        self, array: npt.NDArray[Any], target: Path, like: Path | None = None, affine: Any = None
    ) -> None:
        """Write a volume with the header of the file ``like``; equal calls write equal bytes."""
        import nibabel as nib

        header = None
        if like is not None:
            original: Any = nib.load(like)
            header, affine = original.header.copy(), original.affine
            header.set_data_dtype(array.dtype)
        image: Any = nib.Nifti1Image(np.ascontiguousarray(array), affine, header)
        image.header.set_slope_inter(1, 0)
        packed = gzip.compress(image.to_bytes(), compresslevel=6, mtime=0)
        with disk_errors(target, len(packed)):
            target.write_bytes(packed)
        self.written += 1


def _plain(name: str) -> str:
    """Return a name of the characters that nnU-Net takes anywhere."""
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name) or "_"
