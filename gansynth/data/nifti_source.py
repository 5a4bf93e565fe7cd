"""A CaseSource over NIfTI volumes: one orientation, one spacing, normalised intensities.

All statistics come from the training cases of the fold alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.resample import pick, resampling_record
from gansynth.core.schema import Case, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseSource, FoldSplit, OriginalCase, SourceRequest, StoredCase
from gansynth.core.space import Space
from gansynth.core.synthetic import real_file
from gansynth.data.folds import choose_fold, subjects_of
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
from gansynth.data.listing import CaseFiles, VolumeSet
from gansynth.data.pairs import likely_labels, mismatches, odd_labels, whole_labels
from gansynth.data.read_options import VolumeOptions
from gansynth.data.resplit import write_resplit
from gansynth.data.slice_interpolation import between_record, interpolate_slices
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import NiftiVolume, read_nifti, read_nifti_header

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

    def subject(self, case_id: str) -> str:
        """The subject a case belongs to."""
        return self._subjects[case_id]

    @property
    def places(self) -> tuple[Path, ...]:
        """The data set's folder, and those of files that lie elsewhere."""
        root = self.listing.root
        homes = {file.parent for entry in self.listing.entries for file in entry.files}
        return root, *sorted(home for home in homes if not home.is_relative_to(root))

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Split the cases into other folds: ``splits.json`` and ``subjects.csv`` in a folder."""
        return write_resplit(self, self._subjects, splits, folder).request(self.request)

    @property
    def _listed_fold(self) -> str:
        return self.fold

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
        case = Case(case_id, self.subject(case_id), image, labels)
        try:
            case.validate(self.schema)
        except DataFault as fault:
            raise DataFault(f"{self.entry(case_id).reference}: {fault}; {self._way_out}") from fault
        return case if self._boxes is None else replace(case, boxes=self._boxes.of_case(case))

    def original(self, case_id: str) -> OriginalCase:
        """Case in its files' intensities, on the grid of ``load``; UsageFault: no labels."""
        array, labels, reference = self._arrays(case_id)
        if labels is None:
            raise UsageFault(
                f"{self.name}: case {case_id!r} has no labels, expected some for a framework that "
                "learns from them; add label maps"
            )
        image, turn = array.astype(np.float32), stored_axes(reference.affine)
        each = zip(self.intensities, image, strict=True)
        units = tuple(intensity.units(channel) for intensity, channel in each)
        old = labels.shape
        new = self._shape_of(old, canonical_spacing(reference.affine))
        if new != old:
            image, drawn = resample(case_id, image, labels, new)
            labels = drawn if drawn is not None else labels
        by_axis = {axis: size for (axis, _), size in zip(turn, reference.spacing, strict=True)}
        sizes = (by_axis[2], by_axis[1], by_axis[0])
        spacing = tuple(s * (o / n) for s, o, n in zip(sizes, old, new, strict=True))
        return OriginalCase(image, labels, spacing, turn, units, exact=new == old)

    def stored(self, case_id: str, labels: LabelArray) -> StoredCase:
        """The image in its files' own units, labels by the nearest voxel, and the affine."""
        array, _, reference = self._arrays(case_id)
        return array.astype(np.float32), pick(labels, array.shape[1:]), reference.affine

    def predicted(self, case_id: str, file: Path) -> LabelArray:
        """Read a predicted label map of a case, on the grid of ``load``; DataFault if unfit."""
        reference, volume = self.entry(case_id).reference, read_nifti(file)
        for problem in mismatches(file, volume, reference, read_nifti(reference, ndim=(3, 4))):
            raise DataFault(problem)
        labels = whole_labels(file, canonical(volume)[0])
        unknown = sorted(set(np.unique(labels).tolist()) - set(self.schema.label_values))
        if unknown:
            raise DataFault(
                f"{file}: label value(s) {unknown} unknown, expected among "
                f"{list(self.schema.label_values)}; predict again with a model of this data set"
            )
        return pick(labels, self.shape(case_id))

    def shape(self, case_id: str) -> tuple[int, ...]:
        """Spatial shape (D, H, W) of what ``load`` returns; only a header is read."""
        return self._shape_of(*_grid(self.entry(case_id).reference))

    def spacing(self, case_id: str) -> tuple[float, ...]:
        """Spacing (D, H, W) of what ``load`` returns, in mm; reads a header only."""
        old, spacing = _grid(self.entry(case_id).reference)
        return tuple((np.array(spacing) * old / self._shape_of(old, spacing)).tolist())

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
        """Training case -> shape and spacing (z, y, x), from headers."""
        return {case: _grid(self.entry(case).reference) for case in self._train}

    @cached_property
    def _spacing(self) -> tuple[float, ...]:
        """The requested spacing, else the training cases' median."""
        if isinstance(self.options.spacing, tuple):
            return self.options.spacing
        each = [spacing for _, spacing in self._grids.values()]
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
        return any(self._shape_of(*grid) != grid[0] for grid in self._grids.values())

    def _size(self) -> tuple[int, ...]:
        if self.options.size is not None:
            return self.options.size
        shapes = [self._shape_of(shape, spacing) for shape, spacing in self._grids.values()]
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
