"""``nifti:WHERE`` and ``msd:FOLDER``: volumes from folders, BIDS, manifests and the Decathlon.

Intensities are normalised to about zero mean and unit variance: MR by case, CT by training cases.
CT follows nnU-Net (Isensee et al. 2021, Nat. Methods 18:203): clip to the 0.5 and 99.5 percentiles
of the training cases' foreground, subtract their mean, divide by their deviation.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.case_store import CaseStore
from gansynth.core.geometry import bounding_box, slabs
from gansynth.core.resample import resampling_record
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.source import (
    CaseHeader,
    CaseSource,
    CheckReport,
    DecodedCase,
    FoldSplit,
    SourceRequest,
    StoredCase,
)
from gansynth.core.space import ORIENTATION, Space
from gansynth.core.synthetic import real_file
from gansynth.core.volumes import read_volume, read_volume_header, written_ending
from gansynth.data.check import check_volumes
from gansynth.data.connected_components import LabelBoxes, box_record
from gansynth.data.folds import (
    choose_fold,
    fewer_folds,
    split_file,
    subjects_of,
    write_resplit,
)
from gansynth.data.grid import (
    canonical,
    canonical_shape,
    canonical_spacing,
    in_eights,
    mismatches,
    resample,
    resampled_shape,
    rounded_mm,
    same_spacing,
    stored_axes,
    values_of,
    whole_labels,
)
from gansynth.data.label_files import read_label_map
from gansynth.data.label_judge import FEWEST_OBJECTS, Held, likely_labels, odd_labels
from gansynth.data.listing import (
    CaseFiles,
    VolumeSet,
    described,
    list_folder,
    list_manifest,
    list_msd,
    located,
    objects_named_in,
    places_of_channels,
)
from gansynth.data.read_options import (
    FileOptions,
    Modality,
    VolumeOptions,
    how_read,
    parse_read,
    register_read_options,
)
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.serialise import Document
from gansynth.runtime.volumes import Volume

log = logging.getLogger("gansynth")

LARGEST = 128  # longest edge of a generator's arrays by default
Grid = tuple[tuple[int, ...], tuple[float, ...]]
"""Shape and spacing (z, y, x) of a case's files."""


class VolumeSource(CaseSource):
    """One fold of a data set of volumes.

    Raises UsageFault: no such fold, or options that do not fit. Raises DataFault: a missing file,
    or an unusable split. Raises IntegrityFault: a path leads out of the folder, or a subject is on
    both sides.
    """

    def __init__(self, request: SourceRequest, listing: VolumeSet, options: VolumeOptions) -> None:
        for fault in listing.faults:
            raise fault.error
        self.request = replace(request, read=dict(listing.understood) | dict(request.read))
        self.listing = listing
        self.options = options
        self._entries = {entry.case: entry for entry in listing.entries}
        self._subjects = subjects_of(listing, request.subjects)
        self._train, self._held_out = choose_fold(
            listing, self._subjects, options, self._listed_fold
        )
        dealt = not any(entry.part for entry in listing.entries)
        if dealt and split_file(listing, options) == listing.where and self._listed_fold != "all":
            self.note = fewer_folds(listing.where, options, len(set(self._subjects.values())))
        if options.labels is not None and not listing.labelled:
            named = ",".join([f"{name}:{value}" for name, value in options.labels.items()])
            raise UsageFault(
                "nifti.labels-without-label-maps",
                f"--read labels={named}: {listing.where} has no label maps, expected a column "
                "label, or a folder labels; add them, or leave that out",
            )
        self.channels = self._channel_names()
        self.modality = self._modalities()

    check_listing = staticmethod(check_volumes)
    """Checks what a listing names: ``(listing, request, options, progress)``."""

    # -- what it has -----------------------------------------------------------------------------

    @property
    def name(self) -> str:
        """For example ``msd:Task04_Hippocampus``."""
        return self.listing.name

    @property
    def train_ids(self) -> tuple[str, ...]:
        return self._train

    @property
    def held_out_ids(self) -> tuple[str, ...]:
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
    def space(self) -> Space:
        """Crops of about the training cases' median size, with all that changes the arrays."""
        o = self.options
        host: dict[str, Any] = {
            "dataset": self.name,
            "orientation": ORIENTATION,
            "spacing": "native" if o.spacing == "native" else list(self._spacing),
        }
        host |= resampling_record(any(self._shape_of(*grid) != grid[0] for grid in self._trained))
        host |= {
            "channels": list(self.channels),
            "labels": dict(self._labels),
            "intensity": [how.to_json() for how in self.intensities],
        }
        host |= box_record(o.boxes, o.least)
        if o.between is not None:
            host["between"] = o.between
        if any(entry.joined for entry in self.listing.entries):
            host["label_files"] = self.request.read["label"]
        if o.frame is None and o.whole is None:
            return Space("crop", self._size(), host=host, pad_label=0)
        frame, size = o.frame or (), o.whole or o.frame or ()
        return Space(
            "resample",
            size,
            host=host,
            pad_label=0,
            frame=frame,
            nearest=o.resampling == "nearest",
            typical=() if frame else tuple(map(int, self._median_shape())),
        )

    # -- reading ---------------------------------------------------------------------------------

    def read_like(self, other: CaseSource) -> None:
        """Take normalisation, by names of channels, and voxel size."""
        if not isinstance(other, VolumeSource):
            return
        how = {
            name.casefold(): each
            for name, each in zip(other.channels, other.intensities, strict=True)
        }
        if all(name.casefold() in how for name in self.channels):
            self.intensities = tuple([how[name.casefold()] for name in self.channels])
        if self.options.spacing is None:
            self._spacing = other.schema.spacing

    def places_of(self, channels: Sequence[str]) -> list[int] | None:
        """Return where channels are among those of the files; see ``places_of_channels``."""
        return places_of_channels(self.channels, channels)

    def load(self, case_id: str) -> Case:
        """Read one case: image float32 (C, D, H, W), labels int16 (D, H, W) if it has any.

        Raises DataFault: unknown, damaged, NaN, files that do not fit together, or an unknown label
        value.
        """
        return self.decode(case_id).prepare()

    def labels_of(self, case_id: str) -> LabelArray | None:
        """Read a case's file of labels alone, on its own grid."""
        entry = self.entry(case_id)
        return None if entry.labels is None else self._filled(self._label_map(entry)[0])

    def decode(self, case_id: str) -> DecodedCase:
        """Read a case's files: values as they are scaled by the files' headers."""
        image, labels, reference = self._read(case_id)
        spacing = canonical_spacing(reference.affine)
        prepare = partial(self._prepared, case_id, image, labels, spacing)
        return DecodedCase(prepare, image, labels, spacing)

    def _prepared(
        self,
        case_id: str,
        stored: npt.NDArray[Any],
        labels: LabelArray | None,
        spacing: tuple[float, ...],
    ) -> Case:
        """Normalise and resample what ``decode`` has read; a subclass may change more."""
        labels = self._filled(labels)
        image = np.empty(stored.shape, np.float32)
        for channel, how, values in zip(image, self.intensities, stored, strict=True):
            how.into(channel, values)
        shape = self._shape_of(image.shape[1:], spacing)
        if shape != image.shape[1:]:
            image, labels = resample(case_id, image, labels, shape)
        case = Case(case_id, self._subjects[case_id], image, labels)
        try:
            case.validate(self.schema)
        except DataFault as fault:
            raise DataFault(
                "nifti.case-invalid", f"{self.entry(case_id).reference}: {fault}; {self._way_out}"
            ) from fault
        boxes = LabelBoxes.asked(self.options.boxes, self.options.least, self.schema, self.name)
        return case if boxes is None else replace(case, boxes=boxes.of_case(case))

    def header(self, case_id: str) -> CaseHeader:
        """Subject, shape and spacing of a case; only the header of a file is read."""
        old, spacing = self._grid(case_id)
        shape = self._shape_of(old, spacing)
        spacing = tuple((np.array(spacing) * old / shape).tolist())
        return CaseHeader(self._subjects[case_id], shape, spacing)

    def files(self, case_id: str) -> StoredCase:
        """A case's volumes; with ``between``, slices of their label maps are not used."""
        entry, root = self.entry(case_id), self.listing.root
        homes = sorted({file.parent for file in entry.everything})
        header = read_volume_header(entry.reference)
        turn = stored_axes(header.affine)
        by_axis = {axis: n for (axis, _), n in zip(turn, header.spacing, strict=True)}
        return StoredCase(
            folders=(root, *[home for home in homes if not home.is_relative_to(root)]),
            truth=None if entry.joined or len(header.shape) > 3 else entry.labels,
            shape=canonical_shape(header.shape, header.affine),
            affine=header.affine,
            spacing=(by_axis[2], by_axis[1], by_axis[0]),
            ending=written_ending(entry.images[0]),
            own_labels=self.options.between is None,
            arrays=partial(self._in_own_units, case_id),
            units=partial(self._units_of, case_id),
            read=partial(self._read_predicted, entry.reference),
        )

    def store_of(self, case_id: str) -> CaseStore:
        """In the user's cache folder."""
        files = self._files_read(case_id)
        store = CaseStore.of(case_id, files, self.listing.root, beside=False)
        return store.read_as(how_read(self.request))

    def _files_read(self, case_id: str) -> Sequence[Path]:
        """The files that ``decode`` reads; a subclass may read more."""
        return self.entry(case_id).everything

    def _in_own_units(self, case_id: str) -> tuple[FloatArray, LabelArray | None]:
        image, labels, _ = self._stored(case_id)
        return image.astype(np.float32), self._filled(labels)

    def _units_of(self, case_id: str, image: FloatArray) -> tuple[tuple[float, float], ...]:
        each = zip(self.intensities, image, strict=True)
        return tuple([intensity.units(channel) for intensity, channel in each])

    def _read_predicted(self, reference: Path, file: Path) -> LabelArray:
        volume = read_volume(file)
        for problem in mismatches(file, volume, reference, read_volume(reference, ndim=(3, 4))):
            raise DataFault("nifti.prediction-grid-differs", problem)
        labels = whole_labels(file, canonical(volume)[0])
        unknown = sorted(set(np.unique(labels).tolist()) - set(self.schema.label_values))
        if unknown:
            raise DataFault(
                "nifti.prediction-label-unknown",
                f"{file}: label value(s) {unknown} unknown, expected among "
                f"{list(self.schema.label_values)}; predict again with a model of this data set",
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
                "nifti.case-unknown",
                f"{self.listing.where}: no case {case_id!r}, expected one of "
                f"{len(self._entries)}, for example {self._train[0]!r}",
            )
        return self._entries[case_id]

    def _read(self, case_id: str) -> tuple[npt.NDArray[Any], LabelArray | None, Volume]:
        """Read the arrays of ``decode``; a subclass may take labels away."""
        return self._stored(case_id)

    def _stored(self, case_id: str) -> tuple[npt.NDArray[Any], LabelArray | None, Volume]:
        """Image (C, D, H, W) and labels (D, H, W), if any, as stored; and the file of reference."""
        entry = self.entry(case_id)
        if entry.labels is None:
            labels, reference = None, self._image(entry.images[0])
        else:
            labels, reference = self._label_map(entry)
        channels = [self._channels_of(f, reference, entry.reference) for f in entry.images]
        image = np.concatenate(channels)
        if not self.listing.stacked:
            return image, labels, reference
        expected = self.listing.total or len(self.channels)
        if len(image) != expected:
            raise DataFault(
                "nifti.channel-count-differs",
                f"{entry.images[0]}: {len(image)} channel(s), expected {expected}; {self._way_out}",
            )
        picked = self.listing.picked
        return image if picked is None else image[list(picked)], labels, reference

    def _label_map(self, entry: CaseFiles) -> tuple[LabelArray, Volume]:
        volume = read_label_map(entry.drawn, layered=self.listing.layered)
        return whole_labels(entry.reference, canonical(volume)[0]), volume

    def _filled(self, labels: LabelArray | None) -> LabelArray | None:
        """Labels with those of the slices between, where these are asked for."""
        if labels is None or self.options.between is None:
            return labels
        return interpolate_slices(labels, every=self.options.between)

    def _image(self, file: Path) -> Volume:
        return read_volume(real_file(file, self.request), ndim=(3, 4)[: 1 + self.listing.stacked])

    def _channels_of(self, file: Path, reference: Volume, reference_file: Path) -> npt.NDArray[Any]:
        volume = reference if file == reference_file else self._image(file)
        for problem in mismatches(file, volume, reference_file, reference):
            raise DataFault("nifti.channel-grid-differs", problem)
        array, _ = canonical(volume)
        return array if array.ndim == 4 else array[None]

    # -- learnt from the training cases ----------------------------------------------------------

    @cached_property
    def _grids(self) -> dict[str, Grid]:
        return {}

    def _grid(self, case_id: str) -> Grid:
        if case_id not in self._grids:
            header = read_volume_header(self.entry(case_id).reference)
            shape = canonical_shape(header.shape, header.affine)
            self._grids[case_id] = shape, canonical_spacing(header.affine)
        return self._grids[case_id]

    @property
    def _trained(self) -> list[Grid]:
        return [self._grid(case) for case in self._train]

    @cached_property
    def _spacing(self) -> tuple[float, ...]:
        """The requested spacing, else the training cases' median."""
        if isinstance(self.options.spacing, tuple):
            return self.options.spacing
        each = [spacing for _, spacing in self._trained]
        median = rounded_mm(np.median(each, axis=0))
        differing = len([spacing for spacing in each if not same_spacing(spacing, median)])
        if differing and self.options.spacing is None:
            log.warning(
                "%s: %d of %d training cases are not of spacing %s mm (z, y, x) and are resampled "
                "to it, which is the median; choose another with --read spacing=",
                self.listing.where,
                differing,
                len(each),
                median,
            )
        return median

    def _size(self) -> tuple[int, ...]:
        if self.options.size is not None:
            return self.options.size
        return in_eights(self._median_shape(), LARGEST)

    def _median_shape(self) -> Sequence[float]:
        shapes = [self._shape_of(*grid) for grid in self._trained]
        return tuple(map(float, np.median(shapes, axis=0)))

    @cached_property
    def _labels(self) -> Mapping[str, int]:
        """Label name -> value: as requested, as the data set says, else as found in its files."""
        labels = self.options.labels or self.listing.labels
        if labels is not None:
            return labels
        values: dict[int, Path] = {}
        maps: list[Held] = []
        for case in self._train:
            entry = self.entry(case)
            if entry.labels is not None:
                drawn = [each.file for each in entry.drawn]
                store = CaseStore.of(case, drawn, self.listing.root, beside=False)
                held = store.arrays("held", partial(self._held_in, entry))
                found, single = [set(map(int, held[name])) for name in ("values", "single")]
                values = dict.fromkeys(found, entry.labels) | values
                maps.append(Held(dict.fromkeys(found, 0.0), {}, frozenset(single), frozenset()))
        likely = likely_labels(values, self.listing.likely)
        if likely is not None:
            return likely
        problem = odd_labels(values, maps, objects_named_in(self.listing))
        if problem:
            raise DataFault("nifti.label-values-odd", f"{self.listing.where}: {problem}")
        named = {"background": 0}
        for value in sorted(values.keys() - {0}):
            named[f"label {value}"] = value
        return named

    def _held_in(self, entry: CaseFiles) -> Mapping[str, npt.NDArray[Any]]:
        """Return the numbers of a label map, and those that are one connected part."""
        array = self._label_map(entry)[0]
        values = values_of(array)
        single = Held.of(array, values).single if values[-1] >= FEWEST_OBJECTS else ()
        return {"values": values, "single": np.array(sorted(single), np.int32)}

    @cached_property
    def intensities(self) -> tuple[ChannelNormalisation, ...]:
        """How each channel is normalised."""
        ct = [i for i, modality in enumerate(self.modality) if modality == "ct"]
        how = [ChannelNormalisation(modality) for modality in self.modality]
        if not ct:
            return tuple(how)
        drawn = [
            self.store_of(case).arrays("ct", partial(self._drawn, case)) for case in self._train
        ]
        voxels = [each["voxels"][ct] for each in drawn]
        learnt = ct_intensities(str(self.listing.where), voxels, self.options.window)
        for index, intensity in zip(ct, learnt, strict=True):
            how[index] = intensity
        return tuple(how)

    def _drawn(self, case_id: str) -> Mapping[str, npt.NDArray[Any]]:
        """Some voxels of a case's foreground, the same in every fold."""
        image, labels, _ = self._stored(case_id)
        rng = np.random.default_rng([self.options.seed, *case_id.encode()])
        return {"voxels": draw_foreground(image, self._filled(labels), rng)}

    def _channel_names(self) -> tuple[str, ...]:
        if self.listing.channels is not None:
            return self.listing.channels
        shape = read_volume_header(self.entry(self._train[0]).images[0]).shape
        return tuple([f"channel {i}" for i in range(shape[3] if len(shape) == 4 else 1)])

    def _modalities(self) -> tuple[Modality, ...]:
        requested, count = self.options.modality, len(self.channels)
        if requested is None:  # ``ct`` for channels called CT, ``none`` for noNorm: nnU-Net's words
            named: dict[str, Modality] = {"ct": "ct", "nonorm": "none"}
            each = [named.get(name.casefold(), "mr") for name in self.channels]
            if self.listing.normalised:
                each = ["none"] * count
            modality = tuple(each)
        elif len(requested) in (1, count):
            modality = requested * count if len(requested) == 1 else requested
        else:
            text = f"{len(requested)} for {count} channel(s) ({', '.join(self.channels)})"
            raise UsageFault(
                "nifti.modality-count-differs",
                f"--read modality={','.join(requested)}: {text}, expected one for all or for each",
            )
        if self.options.window is not None and "ct" not in modality:
            raise UsageFault(
                "nifti.window-without-ct", "--read window: no channel is CT; say --read modality=ct"
            )
        return modality

    @property
    def _way_out(self) -> str:
        return f"see all that is wrong: {self.request.check()}"


# -- intensities ---------------------------------------------------------------------------------

PERCENTILES = (0.5, 99.5)
VOXELS = 100_000  # largest number of foreground voxels drawn from a case


@dataclass(frozen=True)
class ChannelNormalisation(Document, optional=("low", "high", "mean", "std")):
    """Normalisation of a channel; ``low`` to ``std``, in the file's units, for CT only."""

    modality: Modality
    low: float | None = None
    high: float | None = None
    mean: float | None = None
    std: float | None = None

    def into(self, out: FloatArray, channel: npt.NDArray[Any]) -> None:
        """Normalise one channel (D, H, W) into another array; a constant one becomes zeros."""
        std, mean = self.units(channel)
        if std == 0:
            out[:] = 0
            return
        out[:] = channel
        if self.modality == "none":
            return
        if self.modality == "ct":
            np.clip(out, self.low, self.high, out=out)
        out -= mean
        out /= std

    def units(self, channel: npt.NDArray[Any]) -> tuple[float, float]:
        """Deviation (0 of a constant channel) and mean: normalised values to the file's."""
        if self.modality == "none":
            return 1.0, 0.0
        mean, std = self.mean or 0.0, self.std or 0.0
        if self.modality == "mr":
            mean, std = _mean_and_deviation(channel)
        return (std if std > 1e-8 * max(1.0, abs(mean)) else 0.0), mean


def _mean_and_deviation(channel: npt.NDArray[Any]) -> tuple[float, float]:
    """Of all values of a channel (D, H, W) but 0, to the bit as numpy's, in a third of its memory.

    Of a CT each copy of the volume takes 840 MB.
    """
    body, filled = np.empty(channel.size, np.float64), 0
    for part in slabs(channel.shape):
        values = channel[part].astype(np.float32)
        values = values[values != 0]
        body[filled : filled + len(values)] = values
        filled += len(values)
    if not filled:
        return 0.0, 0.0
    body = body[:filled]
    mean = body.mean()
    body -= mean
    body *= body
    return float(mean), math.sqrt(body.mean())


def draw_foreground(
    image: npt.NDArray[Any], labels: LabelArray | None, rng: np.random.Generator
) -> FloatArray:
    """Foreground voxels (C, N) of a case, at most ``VOXELS`` of them, drawn without replacement."""
    if labels is None:
        return np.zeros((len(image), 0), np.float32)
    voxels: FloatArray = image[:, labels > 0].astype(np.float32)
    if voxels.shape[1] > VOXELS:
        voxels = voxels[:, rng.choice(voxels.shape[1], VOXELS, replace=False)]
    return voxels


def ct_intensities(
    where: str, foreground: Iterable[FloatArray], window: tuple[float, float] | None
) -> tuple[ChannelNormalisation, ...]:
    """Fit the normalisation of CT channels.

    ``foreground``: voxels (C, N) of each training case, CT channels only. Raises DataFault: no
    training case has a foreground.
    """
    voxels = np.concatenate(list(foreground), axis=1)
    if not voxels.shape[1]:
        raise DataFault(
            "nifti.no-labelled-voxels",
            f"{where}: no training case has voxels with a label above 0, expected some to take CT "
            "statistics from; leave intensities as they are: --read modality=none",
        )
    intensities = []
    for channel in voxels:
        low, high = window or np.percentile(channel, PERCENTILES)
        mean, std = channel.mean(dtype=np.float64), channel.std(dtype=np.float64)
        figures = [round(float(value), 4) for value in (low, high, mean, std)]
        intensities.append(ChannelNormalisation("ct", *figures))
    return tuple(intensities)


# -- slices between labelled ones ----------------------------------------------------------------


def interpolate_slices(labels: LabelArray, every: int | None = None) -> LabelArray:
    """Fill the slices between labelled ones, by shape (Raya and Udupa, IEEE TMI 9(1):32, 1990).

    The signed distance to the outline, in voxels within the plane, is interpolated linearly between
    two labelled slices. Inside the common outline a voxel has the label it is deepest in, so that
    parts of a tumour leave no gaps. Interpolating values voxel by voxel would repeat the nearer
    slice. So "linear interpolation" of labels (Sun et al. 2020) is read as that of shapes.

    ``labels``: int16 (D, H, W), not changed. ``every``: slices further apart are not joined.
    """
    labelled = np.flatnonzero((labels > 0).any(axis=(1, 2))).tolist()
    filled = labels.copy()
    for first, last in pairwise(labelled):
        if 1 < last - first <= (every or len(labels)):
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


def _depth(shape: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
    """Depth of each pixel in a shape, (H, W), in pixels; negative outside, far if empty."""
    from scipy import ndimage

    if not shape.any():
        return np.full(shape.shape, -float(sum(shape.shape)), np.float32)
    padded = np.pad(shape, 1)
    inside = ndimage.distance_transform_edt(padded)[1:-1, 1:-1]
    outside = ndimage.distance_transform_edt(~padded)[1:-1, 1:-1]
    # Half a pixel: the outline runs between pixels.
    return np.where(shape, inside - 0.5, 0.5 - outside).astype(np.float32)


# -- kinds of source -----------------------------------------------------------------------------


def _list(request: SourceRequest, options: FileOptions) -> VolumeSet:
    where = located(request)
    listing = (list_folder if where.is_dir() else list_manifest)(request.kind, where, options)
    return replace(listing, layered=True)


@register_read_options(FileOptions)
def open_volumes(request: SourceRequest) -> VolumeSource:
    """Open ``nifti:FOLDER`` or ``nifti:MANIFEST``; raises as ``VolumeSource``."""
    options = parse_read(FileOptions, request)
    return VolumeSource(request.absolute(), _list(request, options), options)


def check(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``nifti:FOLDER`` or ``nifti:MANIFEST`` for all faults."""
    options = parse_read(FileOptions, request)
    return check_volumes(_list(request, options), request, options, progress)


@register_read_options(VolumeOptions)
def open_msd(request: SourceRequest) -> VolumeSource:
    """Open ``msd:FOLDER``; raises as ``VolumeSource``."""
    options = parse_read(VolumeOptions, request)
    return VolumeSource(
        request.absolute(), list_msd(located(request, folder=True), options), options
    )


def describes(kind: str, where: Path) -> bool:
    """Whether a folder's ``dataset.json`` lists its cases, one file for all channels of each."""
    listed = described(where / "dataset.json").get("training")
    if kind != "msd" or listed is None:
        return False
    match listed:
        case [{"image": str(first)}, *_]:
            image = where / first
            name, dot, ending = image.name.partition(".")
            return image.is_file() or not image.with_name(f"{name}_0000{dot}{ending}").is_file()
    return True


open_msd.describes = describes  # type: ignore[attr-defined]


def check_msd(request: SourceRequest, progress: Callable[[int, int], None]) -> CheckReport:
    """Check ``msd:FOLDER`` for all faults."""
    options = parse_read(VolumeOptions, request)
    listing = list_msd(located(request, folder=True), options)
    return check_volumes(listing, request, options, progress)
