"""A folder per case, whose files begin with its name and go on with the channel: BraTS, and alike.

``BraTS20_Training_001/BraTS20_Training_001_flair.nii.gz``, or one level of folders further down.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from gansynth.data.listing import (
    SPLITS,
    SUBJECTS,
    Collector,
    Entry,
    VolumeSet,
    like_labels,
    pick,
    stem,
)
from gansynth.data.reading import VolumeOptions
from gansynth.runtime.errors import DataFault

LABELS = ("seg", "dseg", "label", "mask")
"""What stands for a label map; the first one that any case has counts."""
BRATS = frozenset({"flair", "t1", "t1ce", "t2", "t1n", "t1c", "t2w", "t2f"})
"""Channels of the BraTS challenges."""
PARTS = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 4}
"""Labels of BraTS from 2017 to 2021."""
PARTS_2023 = {"background": 0, "necrosis": 1, "oedema": 2, "enhancing": 3}
"""Labels of BraTS's gliomas since 2023."""
_PERSON = re.compile(r"(?P<person>BraTS-[A-Za-z]+-\d{5})-\d{3}")
_GLIOMA_2023 = re.compile(r"BraTS-(GLI|SSA)-\d{5}-\d{3}")


@dataclass(frozen=True)
class Home:
    """The folder of one case; ``files``: what comes after the folder's name -> file names."""

    folder: Path
    files: Mapping[str, tuple[str, ...]]
    others: tuple[str, ...]

    @property
    def case(self) -> str:
        """Its name."""
        return self.folder.name


def case_homes(folder: Path) -> list[Home]:
    """The folders of cases in a folder or, where one is none itself, in its folders; by path."""
    homes = []
    for child in _folders(folder):
        own = _home(child)
        homes += [own] if own.files else [h for h in map(_home, _folders(child)) if h.files]
    return homes


def _folders(folder: Path) -> Iterator[Path]:
    for child in sorted(folder.iterdir()):
        if child.is_dir() and not child.name.startswith("."):
            yield child


def _home(folder: Path) -> Home:
    files: dict[str, tuple[str, ...]] = {}
    others = []
    start = len(folder.name)
    for name in sorted(os.listdir(folder)):
        short = stem(name)
        if short is None:
            continue
        if short.startswith(folder.name) and short[start : start + 1] in ("_", "-"):
            rest = short[start + 1 :]
            files[rest] = (*files.get(rest, ()), name)
        else:
            others.append(name)
    return Home(folder, {rest: names for rest, names in files.items() if rest}, tuple(others))


def list_homes(kind: str, folder: Path, homes: list[Home], options: VolumeOptions) -> VolumeSet:
    """List a folder of case folders: channels as asked (else UsageFault), or of half the cases."""
    found = Collector(folder, options.allow_absolute)
    counts = Counter(rest for home in homes for rest in home.files)
    label = next((rest for rest in LABELS if rest in counts), None)
    known = sorted(rest for rest in counts if rest not in LABELS)
    usual = [rest for rest in known if 2 * counts[rest] >= len(homes)] or known
    files = usual
    if options.channels is not None:
        files = [known[place] for place in pick(options.channels, known, folder)]
    elif label is None:
        _refuse_alike(found, usual)
    if not files:
        message = f"{folder}: no images, expected CASE/CASE_T1.nii.gz or the like; add them"
        found.fault(None, folder, DataFault(message))
    for home in homes:
        _add(found, home, files, label)
    return VolumeSet(
        f"{kind}:{folder.resolve().name}",
        folder,
        folder,
        found.entries("CASE/CASE_T1.nii.gz, and CASE/CASE_seg.nii.gz if there are label maps"),
        channels=options.channels or tuple(files) or ("image",),
        stacked=False,
        splits=folder / SPLITS,
        subjects=folder / SUBJECTS,
        faults=tuple(found.faults),
        likely=_likely(homes, known, label),
    )


def _refuse_alike(found: Collector, channels: list[str]) -> None:
    meant = like_labels(channels)
    if meant is not None:
        message = (
            f"{found.root}: files of cases end in {meant!r} but none in seg, expected label maps "
            "to be called CASE_seg.nii.gz; rename them, or if it is a channel, name them all: "
            f"--read channels={','.join(channels)}"
        )
        found.fault(None, found.root, DataFault(message))


def _add(found: Collector, home: Home, channels: list[str], label: str | None) -> None:
    images = [_file(found, home, channel) for channel in channels]
    drawn = None if label is None else _file(found, home, label)
    paths = [file for file in images if file is not None]
    if not channels or len(paths) < len(images) or (label is not None and drawn is None):
        return
    person = _PERSON.fullmatch(home.case)
    subject = None if person is None else person["person"]
    found.add(Entry(home.case, tuple(paths), drawn, subject))


def _file(found: Collector, home: Home, rest: str) -> Path | None:
    """A case's file, as it ought to be; None, and a fault, if it may not lie where it does."""
    names = home.files.get(rest)
    if names is None:
        start, ending = _like(home)
        path = home.folder / f"{start}{rest}{ending}"
        if home.others:
            message = (
                f"{home.folder / home.others[0]}: does not begin with its folder's name, and "
                f"{path.name} is missing; rename it if it is that, else remove it"
            )
            found.fault(home.case, home.folder / home.others[0], DataFault(message))
        return path
    if len(names) > 1:
        message = (
            f"{home.folder / names[1]}: there is {names[0]} too, expected one file for "
            f"{rest!r}; remove one"
        )
        found.fault(home.case, home.folder / names[1], DataFault(message))
    where = os.path.relpath(home.folder / names[0], found.root)
    return found.file(where, str(home.folder), home.case)


def _like(home: Home) -> tuple[str, str]:
    """How the names of a case's files begin and end."""
    name = next(iter(home.files.values()))[0]
    short = stem(name) or ""
    return name[: len(home.case) + 1], name[len(short) :]


def _likely(
    homes: list[Home], channels: list[str], label: str | None
) -> tuple[Mapping[str, int], ...]:
    """What label values mean if those found are BraTS's."""
    if label != "seg" or not channels or not BRATS.issuperset(channels):
        return ()
    if all(_GLIOMA_2023.fullmatch(home.case) for home in homes):
        return PARTS, PARTS_2023
    return (PARTS,)
