"""``nifti:WHERE``: a folder of pairs, a folder per case, BIDS, or a manifest of volumes."""

from __future__ import annotations

import csv
import io
import logging
import os
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.findings import CheckReport
from gansynth.core.geometry import bounding_box
from gansynth.core.resample import pick, resampling_record
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseHeader, CaseSource, FoldSplit, SourceRequest, StoredCase
from gansynth.core.space import Space
from gansynth.core.synthetic import real_file
from gansynth.data.check import check_volumes
from gansynth.data.folds import absolute, choose_fold, subjects_of
from gansynth.data.grid import (
    ORIENTATION,
    canonical,
    canonical_shape,
    canonical_spacing,
    resample,
    resampled_shape,
    same_spacing,
    stored_axes,
)
from gansynth.data.intensity import ChannelNormalisation, by_name, ct_intensities, draw_foreground
from gansynth.data.label_boxes import LabelBoxes, box_record
from gansynth.data.listing import (
    LIKE_LABELS,
    SPLITS,
    SUBJECTS,
    CaseFiles,
    Collector,
    DataSetNames,
    VolumeSet,
    channel_places,
    like_labels,
    located,
    read_names,
    stem,
)
from gansynth.data.pairs import likely_labels, mismatches, odd_labels, whole_labels
from gansynth.data.read_options import (
    VolumeOptions,
    complete_labels,
    parse_read,
    register_read_options,
)
from gansynth.data.resplit import write_resplit
from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth.runtime.files import (
    MAX_JSON_BYTES,
    NiftiVolume,
    read_json,
    read_nifti,
    read_nifti_header,
    reading,
)

log = logging.getLogger("gansynth")

LARGEST = 128  # longest edge of a generator's arrays by default
STRIDE = 8  # the generator's edges are multiples of this, so that networks can halve them


class VolumeSource(CaseSource):
    """One fold of a data set of volumes.

    Raises UsageFault: no such fold, or options that do not fit. Raises DataFault: a missing file,
    or an unusable split. Raises IntegrityFault: a path leads out of the folder, or a subject is on
    both sides.
    """

    def __init__(self, request: SourceRequest, listing: VolumeSet, options: VolumeOptions) -> None:
        listing.raise_first()
        self.request = request
        self.listing = listing
        self.options = options
        self._entries = {entry.case: entry for entry in listing.entries}
        self._subjects = subjects_of(listing, request.subjects)
        self._train, self._held_out = choose_fold(
            listing, self._subjects, options, self._listed_fold
        )
        self._refuse_labels()
        self.channels = self._channel_names()
        self.modality = self._modalities()

    # -- what it has -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """For example ``msd:Task04_Hippocampus``."""
        return self.listing.name

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Training cases of the fold, sorted."""
        return self._train

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Validation and test cases of the fold, sorted."""
        return self._held_out

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Split the cases into other folds: ``splits.json`` and ``subjects.csv`` in a folder."""
        return write_resplit(self, self._subjects, splits, folder).request(self.request)

    @property
    def _listed_fold(self) -> str:
        return self.request.fold

    @cached_property
    def schema(self) -> Schema:
        """Channels, labels and spacing (z, y, x) of the arrays that ``load`` returns."""
        plain = Schema(
            self.channels, dict(self._labels), self._spacing, ignore=self._labels.get("ignore")
        )
        boxes = LabelBoxes.asked(self.options.boxes, self.options.least, plain, self.name)
        return plain if boxes is None else replace(plain, box_classes=tuple(boxes.classes))

    @cached_property
    def _boxes(self) -> LabelBoxes | None:
        return LabelBoxes.asked(self.options.boxes, self.options.least, self.schema, self.name)

    @cached_property
    def space(self) -> Space:
        """Crops of about the training cases' median size, with all that changes the arrays."""
        host = {
            "dataset": self.name,
            "orientation": ORIENTATION,
            "spacing": "native" if self.options.spacing == "native" else list(self._spacing),
            **resampling_record(self._resampled),
            "channels": list(self.channels),
            "labels": dict(self._labels),
            "intensity": [how.to_json() for how in self.intensities],
            **box_record(self.options.boxes, self.options.least),
            **between_record(self.options.between),
        }
        o = self.options
        if o.frame is None and o.whole is None:
            return Space("crop", self._size(), host=host, pad_label=0)
        frame, size = o.frame or (), o.whole or o.frame or ()
        nearest = o.resampling == "nearest"
        return Space("resample", size, host=host, pad_label=0, frame=frame, nearest=nearest)

    # -- reading ---------------------------------------------------------------------------------

    def load(self, case_id: str) -> Case:
        """Read one case: image float32 (C, D, H, W), labels int16 (D, H, W) if it has any.

        Raises DataFault: unknown, damaged, NaN, files that do not fit together, or an unknown label
        value.
        """
        array, labels, reference = self._read(case_id)
        image = np.stack([how(c) for how, c in zip(self.intensities, array, strict=True)])
        shape = self._shape_of(image.shape[1:], canonical_spacing(reference.affine))
        if shape != image.shape[1:]:
            image, labels = resample(case_id, image, labels, shape)
        case = Case(case_id, self._subjects[case_id], image, labels)
        try:
            case.validate(self.schema)
        except DataFault as fault:
            raise DataFault(f"{self.entry(case_id).reference}: {fault}; {self._way_out}") from fault
        return case if self._boxes is None else replace(case, boxes=self._boxes.of_case(case))

    def header(self, case_id: str) -> CaseHeader:
        """Subject, shape and spacing of a case; only the header of a file is read."""
        reference = self.entry(case_id).reference
        if case_id not in self._grids:
            self._grids[case_id] = _grid(reference)
        old, spacing = self._grids[case_id]
        shape = self._shape_of(old, spacing)
        spacing = tuple((np.array(spacing) * old / shape).tolist())
        return CaseHeader(self._subjects[case_id], shape, spacing)

    def files(self, case_id: str) -> StoredCase:
        """A case's volumes; with ``between``, slices of their label maps are not used."""
        entry, root = self.entry(case_id), self.listing.root
        homes = sorted({file.parent for file in entry.files})
        header = read_nifti_header(entry.reference)
        turn = stored_axes(header.affine)
        by_axis = {axis: n for (axis, _), n in zip(turn, header.spacing, strict=True)}
        return StoredCase(
            folders=(root, *(home for home in homes if not home.is_relative_to(root))),
            truth=entry.labels,
            shape=canonical_shape(header.shape, header.affine),
            affine=header.affine,
            spacing=(by_axis[2], by_axis[1], by_axis[0]),
            own_labels=self.options.between is None,
            arrays=partial(self._in_own_units, case_id),
            units=partial(self._units_of, case_id),
            read=partial(self._read_predicted, entry.reference),
            to_load=lambda file: pick(
                self._read_predicted(entry.reference, file), self.header(case_id).shape
            ),
        )

    def _in_own_units(self, case_id: str) -> tuple[FloatArray, LabelArray | None]:
        image, labels, _ = self._arrays(case_id)
        return image.astype(np.float32), labels

    def _units_of(self, case_id: str, image: FloatArray) -> tuple[tuple[float, float], ...]:
        each = zip(self.intensities, image, strict=True)
        return tuple(intensity.units(channel) for intensity, channel in each)

    def _read_predicted(self, reference: Path, file: Path) -> LabelArray:
        volume = read_nifti(file)
        for problem in mismatches(file, volume, reference, read_nifti(reference, ndim=(3, 4))):
            raise DataFault(problem)
        labels = whole_labels(file, canonical(volume)[0])
        unknown = sorted(set(np.unique(labels).tolist()) - set(self.schema.label_values))
        if unknown:
            raise DataFault(
                f"{file}: label value(s) {unknown} unknown, expected among "
                f"{list(self.schema.label_values)}; predict again with a model of this data set"
            )
        return labels

    def _shape_of(self, shape: tuple[int, ...], spacing: tuple[float, ...]) -> tuple[int, ...]:
        if self.options.spacing == "native" or same_spacing(spacing, self._spacing):
            return shape
        return resampled_shape(shape, spacing, self._spacing)

    def entry(self, case_id: str) -> CaseFiles:
        """The files of a case. Raises DataFault: there is no such case."""
        if case_id not in self._entries:
            raise DataFault(
                f"{self.listing.where}: no case {case_id!r}, expected one of "
                f"{len(self._entries)}, for example {self._train[0]!r}"
            )
        return self._entries[case_id]

    def _read(self, case_id: str) -> tuple[npt.NDArray[Any], LabelArray | None, NiftiVolume]:
        """Read the arrays that ``load`` starts from; a subclass may change the labels."""
        return self._arrays(case_id)

    def _arrays(self, case_id: str) -> tuple[npt.NDArray[Any], LabelArray | None, NiftiVolume]:
        """Image (C, D, H, W) as stored, labels (D, H, W) if any, and the file of reference."""
        entry = self.entry(case_id)
        labels: LabelArray | None = None
        reference = (
            self._image(entry.images[0])
            if entry.labels is None
            else read_nifti(entry.labels, labels=True)
        )
        if entry.labels is not None:
            labels = whole_labels(entry.labels, canonical(reference)[0])
            if self.options.between is not None:
                labels = interpolate_slices(labels, every=self.options.between)
        channels = [self._channels_of(f, reference, entry.reference) for f in entry.images]
        return np.concatenate(channels), labels, reference

    def _image(self, file: Path) -> NiftiVolume:
        return read_nifti(real_file(file, self.request), ndim=(3, 4)[: 1 + self.listing.stacked])

    def _channels_of(
        self, file: Path, reference: NiftiVolume, reference_file: Path
    ) -> npt.NDArray[Any]:
        volume = reference if file == reference_file else self._image(file)
        for problem in mismatches(file, volume, reference_file, reference):
            raise DataFault(problem)
        array, _ = canonical(volume)
        array = array if array.ndim == 4 else array[None]
        if not self.listing.stacked:
            return array
        expected = self.listing.total or len(self.channels)
        if len(array) != expected:
            raise DataFault(
                f"{file}: {len(array)} channel(s), expected {expected}; {self._way_out}"
            )
        return array if self.listing.picked is None else array[list(self.listing.picked)]

    # -- learnt from the training cases ----------------------------------------------------------

    @cached_property
    def _grids(self) -> dict[str, tuple[tuple[int, ...], tuple[float, ...]]]:
        """Case -> shape and spacing (z, y, x), from headers; the training cases' and those read."""
        return {case: _grid(self.entry(case).reference) for case in self._train}

    @cached_property
    def _spacing(self) -> tuple[float, ...]:
        """The requested spacing, else the training cases' median."""
        if isinstance(self.options.spacing, tuple):
            return self.options.spacing
        each = [self._grids[case][1] for case in self._train]
        median = tuple(round(float(v), 6) for v in np.median(each, axis=0))
        differing = sum(not same_spacing(spacing, median) for spacing in each)
        if differing and self.options.spacing is None:
            log.warning(
                "%s: %d of %d training cases are not of spacing %s mm (z, y, x) and are resampled "
                "to it, which is the median; choose another with --read spacing=",
                *(self.listing.where, differing, len(each), median),
            )
        return median

    @property
    def _resampled(self) -> bool:
        """Whether ``load`` resamples a training case; ``native`` spacing leaves each its shape."""
        grids = (self._grids[case] for case in self._train)
        return any(self._shape_of(*grid) != grid[0] for grid in grids)

    def _size(self) -> tuple[int, ...]:
        if self.options.size is not None:
            return self.options.size
        shapes = [self._shape_of(*self._grids[case]) for case in self._train]
        median = np.median(shapes, axis=0)
        return tuple(ceil(min(float(n), LARGEST) / STRIDE) * STRIDE for n in median)

    @cached_property
    def _labels(self) -> Mapping[str, int]:
        """Label name -> value: as requested, as the data set says, else as found in its files."""
        labels = self.options.labels or self.listing.labels
        if labels is not None:
            return labels
        values: dict[int, Path] = {}
        files = [file for file in (self.entry(case).labels for case in self._train) if file]
        for file in files:
            found = np.unique(whole_labels(file, read_nifti(file, labels=True).array)).tolist()
            values = {**dict.fromkeys(found, file), **values}
        likely = likely_labels(values, self.listing.likely)
        if likely is not None:
            return likely
        problem = odd_labels(values)
        if problem:
            raise DataFault(f"{self.listing.where}: {problem}")
        return {"background": 0, **{f"label {v}": v for v in sorted(values.keys() - {0})}}

    @cached_property
    def intensities(self) -> tuple[ChannelNormalisation, ...]:
        """How each channel is normalised."""
        ct = [i for i, modality in enumerate(self.modality) if modality == "ct"]
        how = [ChannelNormalisation(modality) for modality in self.modality]
        if not ct:
            return tuple(how)
        rng = np.random.default_rng(self.options.seed)
        arrays = (self._arrays(case)[:2] for case in self._train)
        none = np.zeros((len(ct), 0), np.float32)
        drawn: list[FloatArray] = [
            none if labels is None else draw_foreground(a[ct], labels, rng) for a, labels in arrays
        ]
        learnt = ct_intensities(str(self.listing.where), drawn, self.options.window)
        for index, intensity in zip(ct, learnt, strict=True):
            how[index] = intensity
        return tuple(how)

    def _refuse_labels(self) -> None:
        if self.options.labels is not None and not self.listing.labelled:
            named = ",".join(f"{name}:{value}" for name, value in self.options.labels.items())
            raise UsageFault(
                f"--read labels={named}: {self.listing.where} has no label maps, expected a column "
                "label, or a folder labels; add them, or leave that out"
            )

    def _channel_names(self) -> tuple[str, ...]:
        if self.listing.channels is not None:
            return self.listing.channels
        shape = read_nifti_header(self.entry(self._train[0]).images[0]).shape
        return tuple(f"channel {i}" for i in range(shape[3] if len(shape) == 4 else 1))

    def _modalities(self) -> tuple[Any, ...]:
        requested, count = self.options.modality, len(self.channels)
        if requested is None:
            modality = ("none",) * count if self.listing.normalised else by_name(self.channels)
        elif len(requested) in (1, count):
            modality = requested * count if len(requested) == 1 else requested
        else:
            text = f"{len(requested)} for {count} channel(s) ({', '.join(self.channels)})"
            raise UsageFault(
                f"--read modality={','.join(requested)}: {text}, expected one for all or for each"
            )
        if self.options.window is not None and "ct" not in modality:
            raise UsageFault("--read window: no channel is CT; say --read modality=ct")
        return modality

    @property
    def _way_out(self) -> str:
        return f"see all that is wrong: gansynth check {self.request.kind}:{self.request.where}"


def _grid(file: Path) -> tuple[tuple[int, ...], tuple[float, ...]]:
    header = read_nifti_header(file)
    return canonical_shape(header.shape, header.affine), canonical_spacing(header.affine)


Plane = npt.NDArray[np.float32]


def between_record(every: int | None) -> dict[str, Any]:
    """Return the record of ``between``; empty without it."""
    return {} if every is None else {"between": every}


def interpolate_slices(labels: LabelArray, every: int | None = None) -> LabelArray:
    """Fill the slices between labelled ones, by shape (Raya and Udupa, IEEE TMI 9(1):32, 1990).

    The signed distance to the outline, in voxels within the plane, is interpolated linearly between
    two labelled slices. Inside the common outline a voxel has the label it is deepest in, so that
    parts of a tumour leave no gaps. Interpolating values voxel by voxel would repeat the nearer
    slice. So "linear interpolation" of labels (Sun et al. 2020) is read as that of shapes.

    ``labels``: int16 (D, H, W), not changed. ``every``: slices further apart are not joined.
    """
    drawn = labels > 0
    labelled = np.flatnonzero(drawn.any(axis=(1, 2))).tolist()
    gaps = [(a, b) for a, b in pairwise(labelled) if 1 < b - a <= (every or len(labels))]
    if not gaps:
        return labels
    filled = labels.copy()
    for first, last in gaps:
        _fill(filled[first : last + 1])
    return filled


def _fill(planes: LabelArray) -> None:
    """Fill all but the outer ones of some planes."""
    window = bounding_box((planes[0] > 0) | (planes[-1] > 0))
    ends = [np.maximum(plane, 0)[window] for plane in (planes[0], planes[-1])]
    outline = [_depth(end > 0) for end in ends]
    values = np.unique(np.concatenate([end[end > 0] for end in ends]))
    each = [[_depth(end == value) for value in values] for end in ends]
    for number in range(1, len(planes) - 1):
        share = np.float32(number / (len(planes) - 1))
        inside = (1 - share) * outline[0] + share * outline[1] > 0
        deepest = np.argmax(
            [(1 - share) * first + share * last for first, last in zip(*each, strict=True)], axis=0
        )
        planes[number][window][inside] = values[deepest][inside]


def _depth(shape: npt.NDArray[np.bool_]) -> Plane:
    """Depth of each pixel in a shape, (H, W), in pixels; negative outside, far if empty."""
    from scipy import ndimage

    if not shape.any():
        return np.full(shape.shape, -float(sum(shape.shape)), np.float32)
    padded = np.pad(shape, 1)
    inside, outside = (ndimage.distance_transform_edt(p)[1:-1, 1:-1] for p in (padded, ~padded))
    # Half a pixel: the outline runs between pixels.
    return np.where(shape, inside - 0.5, 0.5 - outside).astype(np.float32)


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
        files = [suffixes[place] for place in channel_places(options.channels, names, folder)]
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


PAIRS = (("images", "labels"), ("imagesTr", "labelsTr"))
BIDS_LABELS = ("dseg", "mask")  # BIDS suffixes of label files; the first one found counts
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
        picked = channel_places(options.channels or channel_names, channel_names, folder)
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
                if match is None or not (raw or match["suffix"] in BIDS_LABELS):
                    continue
                case = "_".join(filter(None, (match["sub"], match["ses"])))
                path = collector.file(os.path.relpath(os.path.join(at, name), folder), at, case)
                if path is not None:
                    group = labels if match["suffix"] in BIDS_LABELS else images
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
    drawn = next((labels[s] for s in BIDS_LABELS if s in labels), None)
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


SUBJECT = ("subject", "subject_group")
SPLIT_PARTS = ("train", "val", "test")
_COLUMNS = ("case", "label", "split", "fold", *SUBJECT)


def list_manifest(kind: str, path: Path, options: VolumeOptions) -> VolumeSet:
    """List what a manifest says; without a column ``label`` its cases are unlabelled.

    Raises DataFault: not readable, without images, or a column that looks like ``label`` only;
    UsageFault: channels are named that it does not have.
    """
    rows = _json_rows(path) if path.suffix.lower() == ".json" else _csv_rows(path)
    channels = _channels(path, rows, options)
    labelled = any("label" in row for _, row in rows)
    collector = Collector(path, options.allow_absolute)
    for number, row in rows:
        entry = _entry(collector, number, row, channels, labelled)
        if entry is not None:
            collector.add(entry)
    expected = "rows with an image per channel, and a label if there are any"
    return collector.volumes(f"{kind}:{path.stem}", expected, channels=channels)


Rows = Sequence[tuple[str, dict[str, str]]]  # (place in the file, column -> text) of each row


def _csv_rows(path: Path) -> Rows:
    with reading(path):
        if path.stat().st_size > MAX_JSON_BYTES:
            raise DataFault(f"{path}: larger than {MAX_JSON_BYTES} bytes, expected a manifest")
        data = path.read_bytes()
    try:
        text = data.decode("utf-8-sig")
        table = list(csv.reader(io.StringIO(text), delimiter="\t" if "\t" in text else ","))
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataFault(f"{path}: not readable as CSV: {error}; save it as UTF-8") from error
    header = [name.strip() for name in table[0]] if table else []
    twice = [name for name in header if header.count(name) > 1]
    if twice:
        raise DataFault(f"{path}: column {twice[0]!r} occurs twice, expected once; rename one")
    return [
        (f"line {number}", dict(zip(header, (cell.strip() for cell in row), strict=False)))
        for number, row in enumerate(table[1:], start=2)
        if any(row)
    ]


def _json_rows(path: Path) -> Rows:
    doc = read_json(path, expected=object, hint="see: gansynth help sources nifti")
    rows = doc.get("cases") if isinstance(doc, dict) else doc
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise DataFault(
            f"{path}: expected a list of objects, or one under 'cases', each with 'label' and a "
            "key per channel; see: gansynth help sources nifti"
        )
    return [
        (f"entry {number}", {str(k): _text(path, number, k, v) for k, v in row.items()})
        for number, row in enumerate(rows)
    ]


def _text(path: Path, number: int, key: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | None):
        raise DataFault(
            f"{path}: entry {number}: {key} is {value!r:.80}, expected a text or a whole number"
        )
    return "" if value is None else str(value)


def _channels(path: Path, rows: Rows, options: VolumeOptions) -> tuple[str, ...]:
    header = list(dict.fromkeys(key for _, row in rows for key in row))
    images = tuple(
        name
        for name in header
        if name not in _COLUMNS and any(stem(Path(row.get(name, "")).name) for _, row in rows)
    )
    unknown = [name for name in options.channels or () if name not in images]
    if unknown:
        raise UsageFault(
            f"--read channels={','.join(options.channels or ())}: {path} has no column "
            f"{unknown[0]!r} of images, expected among: {', '.join(images) or 'none'}."
            f"{did_you_mean(unknown[0], images)}"
        )
    if rows and not images:
        raise DataFault(
            f"{path}: columns are {header}, expected one for each channel that names .nii or "
            ".nii.gz files; see: gansynth help sources nifti"
        )
    meant = None if options.channels or "label" in header else like_labels(images)
    if meant is not None:
        raise DataFault(
            f"{path}: columns are {header}, expected label maps in one called label; rename "
            f"{meant!r}, or if it is a channel, name them all: --read channels={','.join(images)}"
        )
    return options.channels or images or ("image",)


def _entry(
    collector: Collector,
    number: str,
    row: dict[str, str],
    channels: tuple[str, ...],
    labelled: bool,
) -> CaseFiles | None:
    """Return a row's case; None, and a fault, if it is incomplete or leads out of the folder."""
    path = collector.where
    label = row.get("label", "")
    named_by = label if labelled else row.get(channels[0], "")
    case = row.get("case") or stem(Path(named_by).name) or ""
    empty = [k for k in (("label",) if labelled else ()) + channels if not row.get(k)]
    if empty or not case:
        text = f"{path}: {number}: {empty[0] if empty else 'case'} is empty, expected a value; "
        collector.fault(case or None, path, DataFault(f"{text}complete the row, or remove it"))
        return None
    part = row.get("fold") or ""
    if row.get("split") and (row["split"] == "test" or not part):
        part = row["split"]
    if part and not part.isdecimal() and part not in SPLIT_PARTS:
        key = "split" if part == row.get("split") else "fold"
        expected = "train, val or test" if key == "split" else "a whole number"
        message = f"{path}: {number}: {key} is {part!r}, expected {expected}; correct it"
        collector.fault(case, path, DataFault(message))
        return None
    where = f"{path}: {number}"
    files = [collector.file(row[c], f"{where}: {c}", case) for c in channels]
    drawn = collector.file(label, f"{where}: label", case) if labelled else None
    images = tuple(file for file in files if file is not None)
    if (labelled and drawn is None) or len(images) < len(channels):
        return None
    subject = next((row[s] for s in SUBJECT if row.get(s)), None)
    return CaseFiles(case, images, drawn, subject, part)


@register_read_options(VolumeOptions)
def open_nifti(request: SourceRequest) -> VolumeSource:
    """Open ``nifti:FOLDER`` or ``nifti:MANIFEST``. Raises what ``VolumeSource`` does."""
    options = parse_read(VolumeOptions, request)
    return VolumeSource(absolute(request), _list(request, options), options)


def check_nifti(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``nifti:FOLDER`` or ``nifti:MANIFEST`` for all faults."""
    options = parse_read(VolumeOptions, request)
    return check_volumes(_list(request, options), request, options, progress)


def _list(request: SourceRequest, options: VolumeOptions) -> VolumeSet:
    where = located(request)
    listed = list_folder if where.is_dir() else list_manifest
    return listed(request.kind, where, options)


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
        _add_listed(collector, path, number, entry)
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


def _add_listed(collector: Collector, path: Path, number: int, entry: Any) -> None:
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
