"""List data sets whose files are named by case and channel: CASE_CHANNEL.nii.gz.

In a folder per case, such as BraTS's ``BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz``, or
one level of folders further down; or all in one folder, where label maps tell the cases.
"""

from __future__ import annotations

import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gansynth.data.listing import (
    LIKE_LABELS,
    CaseFiles,
    Collector,
    VolumeSet,
    like_labels,
    pick,
    stem,
)
from gansynth.data.read_options import VolumeOptions
from gansynth.runtime.errors import DataFault

LABELS = ("seg", "dseg", "label", "mask")
"""Suffixes of label maps; the first one that any case has counts."""
BRATS = frozenset({"flair", "t1", "t1ce", "t2", "t1n", "t1c", "t2w", "t2f"})
"""Channels of the BraTS challenges."""
PARTS = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
"""Labels of BraTS from 2017 to 2021."""
PARTS_2023 = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3}
"""Labels of BraTS's gliomas since 2023."""
_PERSON = re.compile(r"(?P<person>BraTS-[A-Za-z]+-\d{5})-\d{3}")
_GLIOMA_2023 = re.compile(r"BraTS-(GLI|SSA)-\d{5}-\d{3}")


@dataclass(frozen=True)
class CaseFolder:
    """The files of one case; ``files``: suffix after the case's name -> file names."""

    case: str
    folder: Path
    files: Mapping[str, tuple[str, ...]]
    others: tuple[str, ...] = ()


def case_homes(folder: Path) -> list[CaseFolder]:
    """Return the case folders of a folder, at most one level further down, sorted by path."""
    homes = []
    for child in _folders(folder):
        home = _home(child)
        homes += [home] if home.files else [h for h in map(_home, _folders(child)) if h.files]
    return homes


def _folders(folder: Path) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            yield child


def _home(folder: Path) -> CaseFolder:
    files: dict[str, tuple[str, ...]] = {}
    others = []
    start = len(folder.name)
    for name in sorted(os.listdir(folder)):
        short = stem(name)
        if short is None:
            continue
        if short.startswith(folder.name) and short[start : start + 1] in ("_", "-"):
            suffix = short[start + 1 :]
            files[suffix] = (*files.get(suffix, ()), name)
        else:
            others.append(name)
    named = {suffix: names for suffix, names in files.items() if suffix}
    return CaseFolder(folder.name, folder, named, tuple(others))


def flat_cases(folder: Path) -> tuple[list[CaseFolder], str | None]:
    """Group the files of one folder by case; return the cases and the suffix of label maps.

    ``pat01_T1.nii.gz`` and ``pat01_hippo_mask.nii.gz`` are the channel ``T1`` and the label map of
    ``pat01``. Without such pairs there is no case.
    """
    names = {short: name for name in sorted(os.listdir(folder)) if (short := stem(name))}
    cuts = {
        short: [(short[: m.start()], short[m.end() :]) for m in re.finditer(r"[._-]", short)]
        for short in names
    }
    begun = Counter([*names, *(start for each in cuts.values() for start, _ in each)])
    drawn: dict[str, set[str]] = defaultdict(set)  # suffix of label maps -> cases with more files
    for start, tail in (cut for each in cuts.values() for cut in each):
        if begun[start] > 1 and (tail in LABELS or LIKE_LABELS.search(tail)):
            drawn[tail].add(start)
    if not drawn:
        return [], None
    label = max(drawn, key=lambda tail: (len(drawn[tail]), -len(tail)))
    known = {short: _cut(short, cuts[short], drawn[label]) for short in names}
    suffixes = {cut[1] for cut in known.values() if cut is not None}
    files: dict[str, dict[str, tuple[str, ...]]] = defaultdict(dict)
    for short, name in names.items():  # a case without its label map ends in a known suffix
        others = (cut for cut in cuts[short] if cut[1] in suffixes)
        case, suffix = known[short] or next(others, (short, ""))
        files[case][suffix] = (*files[case].get(suffix, ()), name)
    return [CaseFolder(case, folder, files[case]) for case in sorted(files)], label


def _cut(short: str, cuts: list[tuple[str, str]], cases: set[str]) -> tuple[str, str] | None:
    """Split a name into the longest case that it begins with, and the rest."""
    return next((cut for cut in [(short, ""), *reversed(cuts)] if cut[0] in cases), None)


def list_homes(
    kind: str,
    folder: Path,
    homes: list[CaseFolder],
    options: VolumeOptions,
    label: str | None = None,
) -> VolumeSet:
    """List cases: channels as requested (else UsageFault), or those of half the cases."""
    collector = Collector(folder, options.allow_absolute)
    counts = Counter(suffix for home in homes for suffix in home.files)
    likely: tuple[Mapping[str, int], ...] = ()
    if label is None:
        label = next((suffix for suffix in LABELS if suffix in counts), None)
    else:
        likely = ({"background": 0, label: 1},)
    suffixes = sorted(suffix for suffix in counts if suffix not in (*LABELS, label))
    names = [suffix or "image" for suffix in suffixes]
    usual = [suffix for suffix in suffixes if 2 * counts[suffix] >= len(homes)] or suffixes
    files = usual
    if options.channels is not None:
        files = [suffixes[place] for place in pick(options.channels, names, folder)]
    else:
        _refuse_alike(collector, usual, label)
    if not files:
        message = f"{folder}: no images, expected CASE/CASE_T1.nii.gz or the like; add them"
        collector.fault(None, folder, DataFault(message))
    for home in homes:
        _add(collector, home, files, label)
    return collector.volumes(
        f"{kind}:{folder.resolve().name}",
        "CASE/CASE_T1.nii.gz, and CASE/CASE_seg.nii.gz if there are label maps",
        channels=options.channels or tuple(file or "image" for file in files) or ("image",),
        likely=_likely(homes, suffixes, label) or likely,
    )


def _refuse_alike(collector: Collector, channels: list[str], label: str | None) -> None:
    meant = like_labels(channels)
    if meant is not None:
        instead = "but none in seg" if label is None else f"and others in {label!r}"
        message = (
            f"{collector.root}: files of cases end in {meant!r} {instead}, expected one label map "
            "called CASE_seg.nii.gz; rename or merge them, or if it is a channel, name them all: "
            f"--read channels={','.join(channels)}"
        )
        collector.fault(None, collector.root, DataFault(message))


def _add(collector: Collector, home: CaseFolder, channels: list[str], label: str | None) -> None:
    images = [_file(collector, home, channel) for channel in channels]
    drawn = None if label is None else _file(collector, home, label)
    paths = [file for file in images if file is not None]
    if not channels or len(paths) < len(images) or (label is not None and drawn is None):
        return
    match = _PERSON.fullmatch(home.case)
    subject = None if match is None else match["person"]
    collector.add(CaseFiles(home.case, tuple(paths), drawn, subject))


def _file(collector: Collector, home: CaseFolder, suffix: str) -> Path | None:
    """Return a case's file, present or not; None, and a fault, if its path is not allowed."""
    names = home.files.get(suffix)
    if names is None:
        path = home.folder / _like(home, suffix)
        if home.others:
            message = (
                f"{home.folder / home.others[0]}: does not begin with its folder's name, and "
                f"{path.name} is missing; rename it if it is that, else remove it"
            )
            collector.fault(home.case, home.folder / home.others[0], DataFault(message))
        return path
    if len(names) > 1:
        message = (
            f"{home.folder / names[1]}: there is {names[0]} too, expected one file for "
            f"{suffix!r}; remove one"
        )
        collector.fault(home.case, home.folder / names[1], DataFault(message))
    where = os.path.relpath(home.folder / names[0], collector.root)
    return collector.file(where, str(home.folder), home.case)


def _like(home: CaseFolder, suffix: str) -> str:
    """Return the name of a missing file, spelled as a case's others."""
    name = next(iter(home.files.values()))[0]
    short = stem(name) or ""
    joint = short[len(home.case) :][:1] or "_"
    return f"{home.case}{joint if suffix else ''}{suffix}{name[len(short) :]}"


def _likely(
    homes: list[CaseFolder], channels: list[str], label: str | None
) -> tuple[Mapping[str, int], ...]:
    """Return the label names of BraTS, if the channels are BraTS's."""
    if label != "seg" or not channels or not BRATS.issuperset(channels):
        return ()
    if all(_GLIOMA_2023.fullmatch(home.case) for home in homes):
        return PARTS, PARTS_2023
    return (PARTS,)
