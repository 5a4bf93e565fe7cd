"""Volumes in folders: pairs of images and labels, BIDS, or files named by case and channel."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from pathlib import Path

from gansynth.data.case_folders import case_homes, flat_cases, list_homes
from gansynth.data.listing import (
    CaseFiles,
    Collector,
    DataSetNames,
    VolumeSet,
    like_labels,
    pick,
    read_names,
    stem,
)
from gansynth.data.read_options import VolumeOptions
from gansynth.runtime.errors import DataFault, UsageFault

PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))
LABELS = ("dseg", "mask")  # BIDS suffixes of label files; the first one found counts
_CHANNEL = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})", re.DOTALL)
_BIDS = re.compile(r"(?P<sub>sub-[^_]+)(_(?P<ses>ses-[^_]+))?(_[^_]+-[^_]+)*_(?P<suffix>[^_-]+)")


def list_folder(kind: str, folder: Path, options: VolumeOptions) -> VolumeSet:
    """List a folder: BIDS where it has ``sub-*`` folders, else pairs, else files named by case."""
    subjects = sorted(p for p in folder.glob("sub-*") if p.is_dir())
    if subjects:
        return _list_bids(kind, folder, subjects, options)
    paired = any((folder / part).is_dir() for pair in PAIRS for part in pair)
    homes, label = ([] if paired else case_homes(folder)), None
    if not paired and not homes:
        homes, label = flat_cases(folder)
    if homes:
        return list_homes(kind, folder, homes, options, label)
    return _list_pairs(kind, folder, options)


# -- pairs ---------------------------------------------------------------------------------------


def _list_pairs(kind: str, folder: Path, options: VolumeOptions) -> VolumeSet:
    collector = Collector(folder, options.allow_absolute)
    images, labels = next((p for p in PAIRS if (folder / p[0]).is_dir()), PAIRS[0])
    homes = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name[0] != ".")
    if labels not in homes:
        labels = like_labels(homes) or labels
    # Beside imagesTr/ it is nnU-Net's or the Decathlon's own: they have kinds of source.
    names = read_names(folder) if images == PAIRS[0][0] else None
    label_of = _files(collector, labels)
    labelled = (folder / labels).is_dir()
    cases: dict[str, dict[int | None, Path]] = defaultdict(dict)
    for name, path in _files(collector, images).items():
        match = _CHANNEL.fullmatch(name)
        if match is None or name in label_of:
            cases[name][None] = path
        else:
            cases[match["case"]][int(match["channel"])] = path
    channels = {number for files in cases.values() for number in files}
    stacked = channels <= {None}
    numbers = sorted(n for n in channels if n is not None)
    channel_names = None if names is None else names.channels
    picked = None
    if channel_names is not None:
        picked = pick(options.channels or channel_names, channel_names, folder)
    count = None if stacked else len(numbers)
    if stacked or picked is None or len(channel_names or ()) != count:
        chosen = numbers
    else:
        chosen = [numbers[place] for place in picked]
    for case in sorted(cases.keys() | label_of.keys()):
        label = None
        if labelled:
            label = label_of.get(case, folder / labels / f"{case}.nii.gz")
        files = cases[case]
        if stacked or None in files:
            only = [files.get(None, folder / images / f"{case}.nii.gz")]
            if not stacked:
                collector.fault(case, only[0], _one_way(only[0]))
            collector.add(CaseFiles(case, tuple(only), label))
            continue
        paths = [files.get(n, folder / images / f"{case}_{n:04d}.nii.gz") for n in chosen]
        collector.add(CaseFiles(case, tuple(paths), label))
    called = _names(collector, folder, count, names, options)
    return collector.volumes(
        f"{kind}:{folder.resolve().name}",
        "images/CASE.nii.gz (or CASE_0000.nii.gz, ...), and labels/CASE.nii.gz if there are any; "
        "or CASE_T1.nii.gz beside CASE_mask.nii.gz",
        channels=called,
        stacked=stacked,
        total=len(channel_names) if channel_names is not None and stacked else None,
        picked=picked if stacked else None,
        labels=None if names is None or not labelled else names.labels,
        normalised=names is not None and names.normalised,
    )


def _files(collector: Collector, folder: str) -> dict[str, Path]:
    """Map stems to files, of one folder's NIfTI files."""
    home = collector.root / folder
    files: dict[str, Path] = {}
    for name in sorted(os.listdir(home)) if home.is_dir() else ():
        short = stem(name)
        path = None if short is None else collector.file(f"{folder}/{name}", str(home), short)
        if short is None or path is None:
            continue
        if short in files:
            message = (
                f"{path}: there is {files[short].name} too, expected one file of this name; "
                "remove one"
            )
            collector.fault(short, path, DataFault(message))
            continue
        files[short] = path
    return files


def _one_way(file: Path) -> DataFault:
    return DataFault(
        f"{file}: one file for all channels, where other cases have one for each (_0000, ...); "
        "expected the same for all cases; rename or split it"
    )


def _names(
    collector: Collector,
    folder: Path,
    count: int | None,
    given_names: DataSetNames | None,
    options: VolumeOptions,
) -> tuple[str, ...] | None:
    """Return names of the channels to read; None if only the files tell their number."""
    names = options.channels
    if given_names is not None and given_names.channels is not None:
        if count is not None and len(given_names.channels) != count:
            message = (
                f"{given_names.where}: channel_names has {len(given_names.channels)} name(s), but "
                f"{folder} has {count} channel(s); expected a name for each; correct or remove it"
            )
            collector.fault(None, given_names.where, DataFault(message))
        return names or given_names.channels
    if count is None:
        return names
    if names is not None and len(names) != count:
        raise UsageFault(
            f"--read channels={','.join(names)}: {len(names)} name(s), but {folder} has {count} "
            "channel(s); expected a name for each"
        )
    return names or tuple(f"channel {i}" for i in range(count))


# -- BIDS ----------------------------------------------------------------------------------------


def _list_bids(kind: str, folder: Path, subjects: list[Path], options: VolumeOptions) -> VolumeSet:
    collector = Collector(folder, options.allow_absolute)
    images: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    labels: dict[str, dict[str, list[Path]]] = defaultdict(lambda: defaultdict(list))
    for home in (*subjects, folder / "derivatives"):
        for at, folders, names in os.walk(home):
            folders.sort()
            raw = Path(at).name == "anat" and home.name != "derivatives"
            for name in sorted(names):
                match = _BIDS.fullmatch(stem(name) or "")
                if match is None or not (raw or match["suffix"] in LABELS):
                    continue
                case = "_".join(filter(None, (match["sub"], match["ses"])))
                path = collector.file(os.path.relpath(os.path.join(at, name), folder), at, case)
                if path is not None:
                    group = labels if match["suffix"] in LABELS else images
                    group[case][match["suffix"]].append(path)
    channels = options.channels or _shared(images)
    labelled = any(labels.values())
    for case in sorted(images.keys() | labels.keys()):
        _add_bids(collector, case, images[case], labels[case], channels, labelled)
    return collector.volumes(
        f"{kind}:{folder.resolve().name}",
        "sub-XX/anat/sub-XX_T1w.nii.gz, and derivatives/NAME/sub-XX/anat/sub-XX_dseg.nii.gz if "
        "there are label maps",
        channels=channels or ("T1w",),
    )


def _shared(images: dict[str, dict[str, list[Path]]]) -> tuple[str, ...]:
    """Return the suffixes that every case has, sorted; all suffixes if none is shared."""
    each = [set(files) for files in images.values() if files]
    shared = set.intersection(*each) if each else set()
    return tuple(sorted(shared or set().union(*each)))


def _add_bids(
    collector: Collector,
    case: str,
    images: dict[str, list[Path]],
    labels: dict[str, list[Path]],
    channels: tuple[str, ...],
    labelled: bool,
) -> None:
    anat = collector.root / case.replace("_", "/") / "anat"
    files = [images.get(c, [anat / f"{case}_{c}.nii.gz"]) for c in channels]
    drawn = next((labels[s] for s in LABELS if s in labels), None)
    lacking = collector.root / "derivatives" / "labels" / anat.relative_to(collector.root)
    for several in (*files, drawn or ()):
        if len(several) > 1:
            message = (
                f"{several[1]}: a second file beside {several[0].name} for case {case!r}, expected "
                "one; remove one, or list the files in a manifest (gansynth help sources nifti)"
            )
            collector.fault(case, several[1], DataFault(message))
    collector.add(
        CaseFiles(
            case,
            tuple(f[0] for f in files),
            (drawn[0] if drawn else lacking / f"{case}_dseg.nii.gz") if labelled else None,
            subject=case.partition("_")[0],
        )
    )
