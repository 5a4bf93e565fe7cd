"""Import of the labelled cases of any source as a raw nnU-Net data set."""

from __future__ import annotations

import contextlib
import itertools
import re
import shlex
import shutil
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from gansynth import (
    CaseSource,
    CommandReport,
    DataFault,
    FoldSplit,
    ImportRequest,
    ReadOptions,
    SourceRequest,
    UsageFault,
    VolumeSource,
    disk_errors,
    installed,
    open_source,
    parse_read,
    read_json,
    write_volume,
)
from gansynth.core.synthetic import real_file
from gansynth.core.volumes import read_volume_header
from gansynth.data.case_writer import affine_of
from gansynth.data.folds import grouped_splits
from gansynth.data.held_out import unnamed_people
from gansynth.data.read_options import refuse_idle_read
from gansynth.runtime.files import new_or_same, whole_folder
from gansynth.runtime.progress import counting
from gansynth_nnunet.dataset import FOLDS, NnunetRoot, refuse_other_nnunet, write_splits
from gansynth_nnunet.raw import raise_on_errors

ENDING = ".nii.gz"


def import_raw(request: ImportRequest) -> CommandReport:
    """Implement ``gansynth import SOURCE nnunet:ID``: the whole data set is written, or nothing.

    The source is checked first, unless it was imported before: then the files must be the same. A
    NIfTI file of one channel is copied byte for byte; others are written with the same voxels and
    geometry. Cases of a source that is no set of NIfTI files are written as it reads them, a
    picture or slice as a volume of one slice. The folds are those of the source.
    """
    refuse_other_nnunet()
    root = NnunetRoot.find(request.root)
    start = _start(request.where)
    there = [folder for home in root.homes for folder in home.glob(f"{start}*")]
    wanted = _source_request(request)
    if not there and wanted.kind in installed().names("checks"):
        with counting(request.reporter, "check") as progress:
            findings = installed().check(wanted.kind)(wanted, progress).findings
        raise_on_errors(findings, wanted)
        for finding in findings:
            if "read" in finding.cure:  # nnU-Net would normalise what is written otherwise
                other = ["gansynth", *request.replace(read=finding.cure["read"]).command_line]
                raise UsageFault(
                    "nnunet.import-reading-undecided",
                    f"{finding.message}; nothing is written yet: {shlex.join(other)}",
                )
            request.reporter.warn(finding.message)
    source, folds = _opened(wanted, named="fold" in request.reading)
    writer = _RawWriter(source)
    cases, name = writer.cases, f"{start}{writer.name}"
    splits = [
        FoldSplit(
            train=[cases[c] for c in fold.train_ids], val=[cases[c] for c in fold.held_out_ids]
        )
        for fold in folds
    ]
    subject_of = {case: source.header(old).subject for old, case in cases.items()}
    if not splits[0]["val"]:  # a cache of all cases
        count = max(2, min(FOLDS, len(set(subject_of.values()))))
        splits = grouped_splits(subject_of, subject_of, count, request.seed)
    taken = _taken(root, there) if there else ""
    if there and not _may_be(root.raw / name, there, cases.values()):
        raise UsageFault("nnunet.import-id-taken", taken)
    with (
        counting(request.reporter, "import") as progress,
        new_or_same(root.raw / name, taken) as place,
        whole_folder(place) as folder,
    ):
        for part in ("imagesTr", "labelsTr"):
            (folder / part).mkdir()
        for number, case in enumerate(cases, start=1):
            writer.write(case, folder)
            progress(number, len(cases))
        writer.describe(folder)
        refusal = "Remove it, if there are none"
        write_splits(root.preprocessed / name, splits, subject_of, refusal=refusal)
    subjects = len(set(subject_of.values()))
    if folds[0].note:
        request.reporter.say(folds[0].note)
    text = unnamed_people(source)
    if text:
        request.reporter.warn(text)
    changed = {str(old): new for old, new in writer.numbers.items() if old != new}
    document = {
        "imported_already": bool(there),
        "dataset": name,  # full name of the nnU-Net data set
        "folder": root.raw / name,
        "cases": len(cases),
        "copied": writer.copied,  # files, byte for byte
        "written": writer.written,  # split into channels, compressed, recast or renumbered
        "renumbered": changed,
        "subjects": subjects,
        # (training, held-out) cases of each fold
        "folds": tuple((len(split["train"]), len(split["val"])) for split in splits),
    }
    held = " or ".join(map(str, sorted({len(split["val"]) for split in splits})))
    lines = [
        f"{name}: {len(cases)} cases of {subjects} subject(s) in {root.raw / name}",
        f"channels: {', '.join(source.schema.channels)}; labels: {', '.join(writer.labels)}",
        f"{len(splits)} fold(s), holding out {held} cases each",
    ]
    if changed:
        became = ", ".join([f"{old} to {new}" for old, new in changed.items()])
        lines.append(f"label values: {became}, because nnU-Net takes no gaps")
    if writer.renamed:
        new, old = next(iter(writer.renamed.items()))
        names = f"{len(writer.renamed)} case(s) are renamed, {old!r} to {new!r} first"
        lines.append(f"{names}; case_names in dataset.json keeps the names")
    # The table of subjects names people where there are any; that nobody is named is said again.
    each = "each" if wanted.subjects == "each" else None
    made = SourceRequest("nnunet", request.where, root=request.root, subjects=each)
    return CommandReport(document, lines, prepares=made, already=bool(there))


def _start(dataset_id: str) -> str:
    if not re.fullmatch(r"0*[1-9]\d{0,2}", dataset_id):
        raise UsageFault(
            "nnunet.import-id-out-of-range",
            f"dataset id is {dataset_id!r}, expected a number from 1 to 999",
        )
    return f"Dataset{int(dataset_id):03d}_"


def _may_be(raw: Path, there: Sequence[Path], cases: Collection[str]) -> bool:
    held = {path.name for path in (raw / "labelsTr").glob("*")}
    same = all(folder.name == raw.name for folder in there)
    return same and held == {f"{case}{ENDING}" for case in cases}


def _taken(root: NnunetRoot, there: Sequence[Path]) -> str:
    number = int(there[0].name[7:10])
    return (
        f"{there[0]}: id {number:03d} is taken, expected a free one: an import never changes a "
        f"data set; choose another id, such as {root.free_id(number)}, or remove "
        f"{' and '.join(map(str, there))}"
    )


def _source_request(request: ImportRequest) -> SourceRequest:
    wanted = request.request
    read = dict(wanted.read)
    if request.folds is not None:
        read["folds"] = str(request.folds)
    wanted = replace(wanted, read=read)
    refuse_idle_read(wanted, read)
    opener = installed().load("sources", wanted.kind)
    options = parse_read(getattr(opener, "read_options", ReadOptions), wanted)
    for key in sorted(options.model_fields_set & options.of_arrays):
        raise UsageFault(
            "nnunet.import-read-without-effect",
            f"--read {key}: has no effect, nnU-Net gets the files as they are; leave it out",
        )
    typed = "seed" in request.given and "splits" not in read
    if typed and "seed" in type(options).model_fields:
        read.setdefault("seed", str(request.seed))  # else the source's own, as of a fit on it
    return replace(wanted, read=read)


def _opened(wanted: SourceRequest, *, named: bool) -> tuple[CaseSource, list[CaseSource]]:
    folds = list[CaseSource]()
    with contextlib.suppress(UsageFault):  # no such fold
        for number in itertools.count():
            fold = open_source(replace(wanted, fold=str(number)))
            if folds and _divides_alike(fold, folds[0]):  # a source that knows no folds
                break
            folds.append(fold)
    if not folds:
        folds = [open_source(wanted)]
    elif named:
        raise UsageFault(
            "nnunet.import-fold-without-effect",
            "--fold: has no effect, nnU-Net gets all folds; leave it out",
        )
    try:
        return open_source(replace(wanted, fold="all")), folds
    except UsageFault:
        return folds[0], folds


def _divides_alike(first: CaseSource, second: CaseSource) -> bool:
    """Whether two folds train on the same cases and hold out the same."""
    alike = first.train_ids == second.train_ids
    return alike and first.held_out_ids == second.held_out_ids


class _RawWriter:
    def __init__(self, source: CaseSource) -> None:
        if len(source.schema.labels) < 2:
            raise UsageFault(
                "nnunet.import-without-label-maps",
                f"{source.name}: no label maps, expected some: nnU-Net needs them",
            )
        self.source, self.copied, self.written = source, 0, 0
        path = source.listing.root / "dataset.json" if isinstance(source, VolumeSource) else None
        self.about = read_json(path) if path is not None and path.is_file() else {}
        self.name = _plain(str(self.about.get("name") or source.name.rpartition(":")[2]))
        self.cases = {c: _plain(c) for c in sorted((*source.train_ids, *source.held_out_ids))}
        for name, count in Counter(map(str.casefold, self.cases.values())).items():
            if count > 1:
                same = [case for case, file in self.cases.items() if file.casefold() == name]
                raise DataFault(
                    "nnunet.import-case-names-collide",
                    f"{source.name}: cases {same} are all {self.cases[same[0]]!r} in nnU-Net's "
                    "files, expected different names; rename all but one",
                )
        self.renamed = {new: old for old, new in self.cases.items() if new != old}
        named = source.schema.labels.items()
        ordered = sorted(named, key=lambda item: (item[0] == "ignore", item[1]))
        # label value -> that in nnU-Net's files, which are 0, 1, 2, ...
        self.numbers = {value: number for number, (_, value) in enumerate(ordered)}
        self.labels = {name: number for number, (name, _) in enumerate(ordered) if number}

    def describe(self, folder: Path) -> None:
        from nnunetv2.dataset_conversion.generate_dataset_json import generate_dataset_json

        channels = self.source.schema.channels
        modality = getattr(self.source, "modality", channels)
        # nnU-Net normalises a channel as CT if it is called so.
        names = ["CT" if how == "ct" else c for c, how in zip(channels, modality, strict=True)]
        known = ("description", "reference", "release", "label_files", "case_names")
        joined = self.source.space.host.get("label_files")
        if joined is not None:
            self.about["label_files"] = joined
        if self.renamed:
            self.about["case_names"] = self.renamed
        generate_dataset_json(
            str(folder),
            {str(number): channel for number, channel in enumerate(names)},
            {"background": 0} | dict(self.labels),
            len(self.cases),
            ENDING,
            dataset_name=self.name,
            license=self.about.get("licence", "not stated"),
            converted_by="gansynth import",
            **{key: self.about[key] for key in known if key in self.about},
        )

    def write(self, case: str, folder: Path) -> None:
        source, name = self.source, self.cases[case]
        channels = range(len(source.schema.channels))
        targets = [folder / "imagesTr" / f"{name}_{c:04d}{ENDING}" for c in channels]
        targets.append(folder / "labelsTr" / f"{name}{ENDING}")
        copied: dict[Path, Path] = {}
        if isinstance(source, VolumeSource):
            files = zip(targets, self._fit_as_they_are(source, case), strict=True)
            copied = {target: file for target, file in files if file is not None}
            for target, file in copied.items():
                with disk_errors(target, file.stat().st_size):
                    shutil.copyfile(file, target)
            self.copied += len(copied)
            if len(copied) == len(targets):
                return
            stored, truth = source.files(case), source.entry(case).labels
            assert stored.arrays is not None
            assert truth is not None
            images_copied = copied.keys() >= {*targets[:-1]}
            image, labels = ((), source.labels_of(case)) if images_copied else stored.arrays()
            affine = stored.affine
        else:
            read, affine = source.load(case), affine_of(source.schema.spacing)
            image, labels = read.image, read.labels
        if labels is None or affine is None:
            raise DataFault(
                "nnunet.import-case-without-label-map",
                f"{source.name}: case {case!r}: no label map, nnU-Net needs one",
            )
        table = np.zeros(max(self.numbers) + 1, np.uint8 if len(self.numbers) < 256 else np.int16)
        table[list(self.numbers)] = list(self.numbers.values())
        arrays = [*image, table[labels.clip(0)]]
        for target, array in zip(targets[-len(arrays) :], arrays, strict=True):
            if target not in copied:  # (H, W) is one slice
                write_volume(target, np.atleast_3d(array.T).T, affine)
                self.written += 1

    def _fit_as_they_are(self, source: VolumeSource, case: str) -> list[Path | None]:
        """Return the files of each channel and of the labels; None where nnU-Net needs another."""
        entry, channels = source.entry(case), len(source.schema.channels)
        images = [real_file(file, source.request) for file in entry.images]
        files: list[Path | None] = [None] * channels
        if len(images) == channels:
            for number, file in enumerate(images):
                if _packed(file) and len(read_volume_header(file).shape) == 3:
                    files[number] = file
        assert entry.labels is not None
        header = read_volume_header(entry.labels)
        fits = header.dtype.kind in "iu" and not header.scaled and _packed(entry.labels)
        fits &= not entry.joined and len(header.shape) == 3
        same = [*self.numbers] == [*self.numbers.values()]
        return [*files, entry.labels if fits and same else None]


def _packed(file: Path) -> bool:
    """Whether a file is compressed NIfTI by its name, and by its bytes."""
    if not file.name.endswith(ENDING):
        return False
    with file.open("rb") as stream:
        return stream.read(2) == b"\x1f\x8b"


def _plain(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name) or "_"
