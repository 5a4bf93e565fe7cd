"""Images without labels, to be predicted: any layout that a source reads, its label maps left out.

A folder of nothing but images is read, too: each file is a case, or each ``CASE_0000``,
``CASE_T1`` a channel of one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path

from gansynth.core.registry import installed
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.volumes import volume_stem
from gansynth.data.listing import (
    CaseFiles,
    VolumeSet,
    like_labels,
    list_folder,
    list_manifest,
    list_msd,
    located,
    numbered_channel,
    places_of_channels,
    volumes_in,
)
from gansynth.data.nifti import ChannelNormalisation, VolumeSource
from gansynth.data.picture_files import SUFFIXES
from gansynth.data.read_options import FileOptions, VolumeOptions, parse_read
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import walk_all
from gansynth.runtime.parts import refuse_absent

OF_CASES = (
    "splits",
    "folds",
    "seed",
    "boxes",
    "least",
    "between",
    "size",
    "frame",
    "whole",
    "images",
    "masks",
    "mask_suffix",
    "classes",
    "channels",
    "allow_absolute",
)
"""Keys of reading that are about labels, folds and crops, or about one folder's files."""


def open_images(
    where: str, read: Mapping[str, str], channels: Sequence[str], like: CaseSource | None = None
) -> CaseSource:
    """Open the images of a folder, a file or KIND:WHERE; fold ``all`` has every one.

    Args:
        read: how they are read, as typed.
        channels: those that are needed, in their order; the files' names are compared with them.
        like: the cases whose units and spacing the images get; None leaves them as stored.
    """
    kind, place = _kind_of(where)
    volumes = kind in ("nifti", "msd")
    usual: dict[str, str] = {}
    if like is not None and (kind == like.request.kind or volumes):
        read_before = like.request.read
        if volumes:
            taken = VolumeOptions.model_fields.keys() - {*OF_CASES, "labels"}
        else:
            taken = read_before.keys() - set(OF_CASES)
        usual = {key: text for key, text in read_before.items() if key in taken}
    usual.update(read)
    request = SourceRequest(kind, place, fold="all", read=usual)
    if not volumes:
        source: CaseSource = installed().load("sources", kind)(request)
        if len(source.schema.channels) != len(channels):
            raise _other_channels(where, source.schema.channels, channels)
        _check_axes(source, place, like)
        return source
    options = parse_read(FileOptions, request)
    listing = list_images(request, options, channels)
    request = replace(request, where=str(located(request)))
    opened = UnlabelledVolumes(request, listing, options, like)
    _check_axes(opened, f"{kind}:{place}", like)
    return opened


def _check_axes(source: CaseSource, where: str, like: CaseSource | None) -> None:
    if like is None or source.schema.ndim == like.schema.ndim:
        return
    if source.schema.ndim == 2:
        raise UsageFault(
            "images.pictures-for-volumes",
            f"{where}: are pictures, but the training was on volumes; expected NIfTI files",
        )
    raise UsageFault(
        "images.volumes-for-slices",
        f"{where}: are volumes, but the training was on slices; expected slices:nifti:FOLDER, with "
        "the volumes in FOLDER/images",
    )


def _kind_of(where: str) -> tuple[str, str]:
    kind, colon, place = where.partition(":")
    if colon and kind in installed().names("sources"):
        return kind, place
    path = Path(where).expanduser()
    if not path.exists():
        refuse_absent("source", kind)
        raise UsageFault(
            "images.path-missing",
            f"{where}: no such file or folder, expected images, or KIND:WHERE",
        )
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        raise UsageFault(
            "images.single-picture", f"{where}: is one picture, expected the folder that it is in"
        )
    names = [path.name]
    if path.is_dir():
        names = [name for _, _, found in walk_all(path) for name in found]
    pictures = [name for name in names if Path(name).suffix.lower() in SUFFIXES]
    volumes = any(volume_stem(name) for name in names) or path.is_file()
    return ("pictures" if pictures and not volumes else "nifti"), where


class UnlabelledVolumes(VolumeSource):
    """Volumes in the units and the spacing of other cases, or as they are stored."""

    def __init__(
        self,
        request: SourceRequest,
        listing: VolumeSet,
        options: VolumeOptions,
        like: CaseSource | None,
    ) -> None:
        super().__init__(request, listing, options)
        self._like = like if isinstance(like, VolumeSource) else None

    @cached_property
    def intensities(self) -> tuple[ChannelNormalisation, ...]:
        """How each channel is normalised: as the channels of the other cases."""
        return super().intensities if self._like is None else self._like.intensities

    @cached_property
    def _spacing(self) -> tuple[float, ...]:
        return super()._spacing if self._like is None else self._like.schema.spacing


# -- the files -------------------------------------------------------------------------------------


def list_images(request: SourceRequest, options: FileOptions, channels: Sequence[str]) -> VolumeSet:
    """List the image files of each case, one for each of ``channels`` or one for all."""
    where = located(request)
    chosen = options.model_copy(update={"channels": None})
    wanted = options.channels or channels
    by_channel = where.is_dir() and _by_channel(where, wanted)
    if by_channel:
        found = _grouped(request, where, by_channel, wanted)
    elif where.is_file() and volume_stem(where.name):
        found = _loose(request, where.parent, [(volume_stem(where.name) or "", where)], wanted)
    elif where.is_file():
        found = list_manifest(request.kind, where, chosen)
    elif request.kind == "msd":
        found = list_msd(where, chosen)
    else:
        found = list_folder(request.kind, where, chosen)
        if not found.entries:
            found = _loose(request, where, volumes_in(where), wanted)
    if not found.entries:
        raise DataFault(
            "images.no-images",
            f"{where}: no images, expected CASE.nii.gz, CASE_0000.nii.gz or CASE_"
            f"{wanted[0]}.nii.gz in it, a layout that gansynth import reads, or pictures",
        )
    entries = []
    for entry in found.entries:
        subject = entry.subject or entry.case
        entries.append(replace(entry, labels=None, joined=(), part="", subject=subject))
    found = replace(found, entries=tuple(entries), labels=None, faults=(), likely=())
    return found if found.stacked else _in_order(found, wanted, where)


def _loose(
    request: SourceRequest, folder: Path, files: list[tuple[str, Path]], channels: Sequence[str]
) -> VolumeSet:
    """List volumes that lie in one folder: channels end in a number or in a channel's name."""
    cases: dict[str, dict[str, Path]] = defaultdict(dict)
    for short, path in files:
        case, channel = _cut(short, channels)
        cases[case][channel] = path
    return _grouped(request, folder, cases, channels)


def _by_channel(folder: Path, channels: Sequence[str]) -> dict[str, dict[str, Path]]:
    """Return the channels of each case whose folder has files called by them alone."""
    wanted = {name.casefold(): name for name in channels}
    cases = {}
    for home in sorted(path for path in folder.iterdir() if path.is_dir()):
        files = {wanted.get(short.casefold(), ""): path for short, path in volumes_in(home)}
        files.pop("", None)
        if files:
            cases[home.name] = files
    return cases


def _grouped(
    request: SourceRequest,
    folder: Path,
    grouped: Mapping[str, Mapping[str, Path]],
    channels: Sequence[str],
) -> VolumeSet:
    names = sorted({channel for found in grouped.values() for channel in found})
    if names == ["0000"] or len(channels) == 1:  # each file is a case
        names = names[:1]
        grouped = {case: dict(list(found.items())[:1]) for case, found in grouped.items()}
    entries = []
    for case, found in sorted(grouped.items()):
        lacking = [name for name in names if name not in found] if len(names) > 1 else []
        if lacking:
            raise DataFault(
                "images.channel-file-missing",
                f"{folder}: case {case!r} has no file of channel {lacking[0]!r}, expected one for "
                f"each of {', '.join(names)}; add it, or take the case's other files out",
            )
        images = [found[name] for name in names] if len(names) > 1 else found.values()
        entries.append(CaseFiles(case, tuple(images), None))
    named = tuple(names) if len(names) > 1 else None
    if named and all(name.isdecimal() for name in named) and len(named) == len(channels):
        named = tuple(channels)  # numbered in the order of the data set that was trained on
    return VolumeSet(
        f"{request.kind}:{folder.name}",
        folder,
        folder,
        tuple(entries),
        channels=named,
        splits=folder / "splits.json",
        subjects=folder / "subjects.csv",
        stacked=named is None,
    )


def _cut(short: str, channels: Sequence[str]) -> tuple[str, str]:
    """Divide a file's name into case and channel."""
    numbered = numbered_channel(short)
    if numbered is not None:
        return numbered
    for channel in sorted(channels, key=len, reverse=True):
        start, end = short[: -len(channel)], short[-len(channel) :]
        if len(channels) > 1 and start[-1:] in ("_", "-", ".") and end.lower() == channel.lower():
            return start[:-1], channel
    return short, ""


def _in_order(found: VolumeSet, channels: Sequence[str], where: Path) -> VolumeSet:
    """Put each case's files into the order of ``channels``."""
    there = found.channels or ()
    order = places_of_channels(there, channels)
    if order is None and len(there) == len(channels) == 1:
        order = [0]
    if order is None:
        raise _other_channels(str(where), there, channels)
    entries = []
    for entry in found.entries:
        images = [entry.images[place] for place in order]
        entries.append(replace(entry, images=tuple(images)))
    return replace(found, entries=tuple(entries), channels=tuple(channels))


def _other_channels(where: str, there: Sequence[str], channels: Sequence[str]) -> UsageFault:
    meant = like_labels(there)
    hint = f" ({meant!r} looks like label maps)" if meant else ""
    return UsageFault(
        "images.channels-differ",
        f"{where}: has the channels {', '.join(there) or 'none'}{hint}, expected "
        f"{', '.join(channels)}; name the files' channels in that order: --read channels=A,B, or "
        "rename the files CASE_0000.nii.gz, CASE_0001.nii.gz in that order",
    )
