"""The training cases of one nnU-Net fold, read from nnU-Net's own preprocessed arrays.

nnU-Net's ``.pkl`` files are not read: nothing here unpickles.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property, partial
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.schema import OUTSIDE, Case, FloatArray, LabelArray, Schema
from gansynth.core.source import CaseHeader, CaseSource, FoldSplit, SourceRequest, StoredCase
from gansynth.core.space import Space
from gansynth.core.synthetic import refuse_named
from gansynth.data.folds import FoldFiles, json_text, one_fold, write_resplit, write_small
from gansynth.data.grid import mismatches, whole_labels
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth.runtime.files import disk_errors, read_json, read_nifti, write_json_atomic
from gansynth_nnunet.cases import PreprocessedArrays, hashes_of
from gansynth_nnunet.dataset import (
    NIFTI,
    NnunetRoot,
    RawSet,
    raw_cases,
    read_channels,
    read_labels,
)
from gansynth_nnunet.plans import DEFAULT_PLANS, NnunetPlans
from gansynth_nnunet.splits import SPLITS, SUBJECTS, known_subjects

log = logging.getLogger("gansynth")

MARGIN = 4 / 3
"""Edge of the generator's arrays in patches: the reach of nnU-Net's rotations and crops."""
STRIDE = 8  # the generator's edges are multiples of this, so that networks can halve them
CONSTANT = 1e-4
"""Largest difference of image values outside the body that still counts as one constant."""
_HOST_KEYS = (
    "data_identifier",
    "spacing",
    "patch_size",
    "normalization_schemes",
    "use_mask_for_norm",
    "resampling_fn_data",
    "resampling_fn_data_kwargs",
    "resampling_fn_seg",
    "resampling_fn_seg_kwargs",
)
_PLANS_KEYS = ("transpose_forward", "foreground_intensity_properties_per_channel")


def open_nnunet(request: SourceRequest) -> NnunetSource:
    """Open ``nnunet:ID``.

    Raises:
        UsageFault: unknown data set, plans, configuration or fold.
        DataFault: not preprocessed, or cases are missing.
        IntegrityFault: a subject is in training and in validation.
    """
    return NnunetSource(request)


open_nnunet.by_name = True  # type: ignore[attr-defined]


class NnunetSource(CaseSource):
    """One fold of a preprocessed nnU-Net data set.

    Attributes:
        dataset: full name, ``Dataset004_Hippocampus``.
        config: the configuration, with inherited values.
        folder: of the configuration's cases.
        dataset_json: nnU-Net's copy of ``dataset.json`` beside the plans.
        labels: its labels, regions and the ignore label.
    """

    def __init__(self, request: SourceRequest) -> None:
        self.root = NnunetRoot.find(request.root)
        self.dataset = self.root.dataset(request.where)
        home = self.root.preprocessed / self.dataset
        self.plans = NnunetPlans(home, request.plans or DEFAULT_PLANS)
        self.configuration = request.configuration or self.plans.usual(prepared=True)
        self.request = replace(request, configuration=self.configuration)
        self.config = self.plans.configuration(self.configuration)
        if first := self.config.get("previous_stage"):
            raise UsageFault(
                f"-c {self.configuration}: a cascade's second stage learns from predictions of its "
                f"first, which no synthetic sample has; expected the first, -c {first}, or "
                "3d_fullres"
            )
        path = home / "dataset.json"
        self.dataset_json = read_json(path, hint=self._prepare)
        self.labels = read_labels(self.dataset_json, str(path))
        self._channels = read_channels(self.dataset_json, str(path))
        self.folder = home / str(self.config["data_identifier"])
        self._files = PreprocessedArrays(self.folder, self._again)
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._ids = self._find_cases()
        self._subjects = known_subjects(home, self._ids, request.subjects)
        self._train, self._held_out = self._fold()
        refuse_named(self.dataset_json, path, (*self._train, *self._held_out), request)

    @property
    def name(self) -> str:
        """``nnunet:Dataset004_Hippocampus``."""
        return f"nnunet:{self.dataset}"

    @property
    def patch_size(self) -> tuple[int, ...]:
        """nnU-Net's patch in voxels: (D, H, W), or (H, W) for 2d."""
        return tuple(int(n) for n in self.config["patch_size"])

    @property
    def patch(self) -> tuple[int, ...]:
        """nnU-Net's patch as (D, H, W); a 2d patch is one slice, (1, H, W)."""
        return (1, *self.patch_size)[-3:]

    @property
    def batch_size(self) -> int:
        """nnU-Net's batch size."""
        return int(self.config["batch_size"])

    @property
    def is_2d(self) -> bool:
        """Whether nnU-Net trains on slices along the first axis; cases are volumes anyway."""
        return len(self.patch_size) == 2

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Training cases of the fold, sorted."""
        return self._train

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Validation cases of the fold, sorted; none for fold ``all``."""
        return self._held_out

    @property
    def case_ids(self) -> tuple[str, ...]:
        """All preprocessed cases of every fold, sorted."""
        return self._ids

    def header(self, case_id: str) -> CaseHeader:
        """Return subject, shape of its labels, the smaller file, and spacing."""
        return CaseHeader(self._subjects[case_id], self._shape(case_id), self.schema.spacing)

    def files(self, case_id: str) -> StoredCase:
        """Return a case's raw files; what is preprocessed has no way back to them."""
        return StoredCase(
            folders=(self.root.raw / self.dataset, self.root.preprocessed / self.dataset),
            arrays=partial(_raw_arrays, self, case_id),
            read=_raw_labels,
            to_load=partial(_preprocessed_labels, self, case_id),
        )

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Split the cases into other folds: nnU-Net's three folders below ``folder``.

        They contain only the named cases. Results of a fold have one place below
        ``nnUNet_results``, so two trainings of one fold need a folder each.
        """
        return _write_root(self, write_resplit(self, self._ids, splits, folder))

    @cached_property
    def schema(self) -> Schema:
        """Channels, labels and spacing of the preprocessed arrays, always (D, H, W).

        In 2d the slice distance is the median of the data set: nnU-Net does not resample that axis.
        """
        spacing = [float(s) for s in self.config["spacing"]]
        if self.is_2d:
            spacing.insert(0, float(self.plans.doc["original_median_spacing_after_transp"][0]))
        return Schema(
            channels=self._channels,
            labels=dict(self.labels.values),
            spacing=tuple(spacing),
            has_outside=True,  # nnU-Net pads with it, even if no case holds any
            outside_fill=self._outside_fill(),
            ignore=self.labels.ignore,
        )

    @cached_property
    def space(self) -> Space:
        """Crops (or slices) of about 4/3 of the patch, with the host's record."""
        shapes = [self._shape(case)[-len(self.patch_size) :] for case in self.train_ids]
        return Space(
            grid="slice" if self.is_2d else "crop",
            size=generator_size(self.patch_size, np.max(shapes, axis=0).tolist()),
            host=self._record(),
        )

    def _record(self) -> dict[str, Any]:
        doc = self.plans.doc
        record = {
            "dataset": self.dataset,
            "plans": self.plans.path.stem,
            "configuration": self.configuration,
            **{key: self.config.get(key) for key in _HOST_KEYS},
            **{key: doc.get(key) for key in _PLANS_KEYS},
            "channel_names": list(self._channels),
            "labels": dict(self.labels.values),
            "regions": {name: list(values) for name, values in self.labels.regions.items()},
            "regions_class_order": self.dataset_json.get("regions_class_order"),
            "ignore": self.labels.ignore,
        }
        stable: dict[str, Any] = json.loads(json.dumps(record))
        return stable

    def load(self, case_id: str) -> Case:
        """Read one preprocessed case: float32 (C, D, H, W), int16 (D, H, W)."""
        image, labels = self._image(case_id), self._read_labels(case_id)
        case = Case(case_id, self._subjects[case_id], image, labels)
        try:
            case.validate(self.schema)
        except DataFault as fault:
            raise DataFault(
                f"{self.folder}: {fault}; find it in the raw data: gansynth check "
                f"{self._id}, then {self._again}"
            ) from fault
        return case

    def _shape(self, case_id: str) -> tuple[int, ...]:
        if case_id not in self._shapes:
            self._shapes[case_id] = self._files.shape(f"{case_id}_seg.b2nd")[1:]
        return self._shapes[case_id]

    def _image(self, case_id: str) -> FloatArray:
        return self._files.read(f"{case_id}.b2nd").astype(np.float32, copy=False)

    def _read_labels(self, case_id: str) -> LabelArray:
        labels = self._files.read(f"{case_id}_seg.b2nd")
        if len(labels) != 1:
            raise DataFault(
                f"{self.folder / case_id}_seg.b2nd: shape is {labels.shape}, expected one "
                f"channel; {self._again}"
            )
        volume: LabelArray = labels[0].astype(np.int16, copy=False)
        return volume

    def _outside_fill(self) -> tuple[float, ...] | None:
        low = high = None
        for case in self.train_ids:
            outside = self._read_labels(case) == OUTSIDE
            if not outside.any():
                continue
            image = self._image(case)
            if image.shape[1:] != outside.shape:  # ``load`` says so
                continue
            values = image[:, outside]  # (C, N)
            least, most = values.min(axis=1), values.max(axis=1)
            low = least if low is None else np.minimum(low, least)
            high = most if high is None else np.maximum(high, most)
            if (high - low).max() > CONSTANT:
                return None
        if low is None or high is None or max(abs(low).max(), abs(high).max()) <= CONSTANT:
            return (0.0,) * len(self._channels)
        size = self.space.size
        shapes = [self._shape(case)[-len(size) :] for case in self.train_ids]
        if (np.min(shapes, axis=0) < size).any():
            return None
        return tuple(float(v) for v in (low + high) / 2)

    @property
    def _id(self) -> str:
        return f"nnunet:{self.dataset[7:10]}"

    @property
    def _prepare(self) -> str:
        return f"gansynth prepare {self._id} -c {self.configuration}"

    @property
    def _again(self) -> str:
        return f"preprocess again: {self._prepare} --force"

    def _find_cases(self) -> tuple[str, ...]:
        names = {file.name for file in self.folder.glob("*.b2nd")}
        ids = sorted(n.removesuffix(".b2nd") for n in names if not n.endswith("_seg.b2nd"))
        if not ids:
            raise DataFault(f"{self.folder}: no preprocessed cases (*.b2nd); run: {self._prepare}")
        if lacking := [case for case in ids if f"{case}_seg.b2nd" not in names]:
            raise DataFault(
                f"{self.folder}: {len(lacking)} case(s) without labels, "
                f"{lacking[0]}_seg.b2nd first; {self._again}"
            )
        return tuple(ids)

    def _fold(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.request.fold == "all":
            return self._ids, ()
        path = self.plans.folder / SPLITS
        made = not path.is_file()
        if made:
            write_json_atomic(path, self._default_splits(path))
        try:
            sides = one_fold(path, self.request.fold, self._subjects, self.folder)
        except GansynthError as fault:
            if made:
                path.unlink(missing_ok=True)
            if isinstance(fault, UsageFault):  # no such fold
                raise
            again = f"{self._prepare}, or gansynth splits {self._id} --subjects CSV --force"
            raise type(fault)(f"{fault}; or run: {again}") from fault
        if made:
            log.info("%s: made, with the 5 folds nnU-Net itself would make", path)
        return sides

    def _default_splits(self, path: Path) -> list[dict[str, list[str]]]:
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        if len(self._ids) < 5:
            raise DataFault(
                f"{path}: missing, and nnU-Net's five folds need 5 cases, found {len(self._ids)}; "
                f"make fewer: gansynth splits {self._id} --folds 2"
            )
        splits = generate_crossval_split(sorted(self._ids), seed=12345, n_splits=5)
        return [{side: list(map(str, ids)) for side, ids in split.items()} for split in splits]


def generator_size(patch: Sequence[int], extent: Sequence[int]) -> tuple[int, ...]:
    """Return the edges of the generator's arrays: 4/3 of the patch, within any case, in eights."""
    return tuple(
        ceil(max(p, min(MARGIN * p, e)) / STRIDE) * STRIDE
        for p, e in zip(patch, extent, strict=True)
    )


# -- raw files, and predictions on their grid -----------------------------------------------------


def _raw_labels(file: Path) -> LabelArray:
    return np.ascontiguousarray(whole_labels(file, read_nifti(file).array).T)


def _raw_arrays(source: NnunetSource, case_id: str) -> tuple[FloatArray, LabelArray | None]:
    raw = _raw(source, case_id)
    arrays = [read_nifti(image).array.T for image in raw.images[case_id]]
    return np.stack(arrays).astype(np.float32), _raw_labels(raw.labels[case_id])


def _preprocessed_labels(source: NnunetSource, case_id: str, file: Path) -> LabelArray:
    raw = _raw(source, case_id)
    volume, reference = read_nifti(file), raw.labels[case_id]
    for problem in mismatches(file, volume, reference, read_nifti(reference)):
        raise DataFault(problem)
    allowed = {*source.labels.values.values()}
    if unknown := {*np.unique(whole_labels(file, volume.array)).tolist()} - allowed:
        raise DataFault(
            f"{file}: label value(s) {sorted(unknown)} unknown, expected among {sorted(allowed)}; "
            "predict again with a model of this data set"
        )
    plans = source.plans.manager
    config = plans.get_configuration(source.configuration)
    with contextlib.redirect_stdout(io.StringIO()):
        preprocessor = config.preprocessor_class(verbose=False)
        images = [str(image) for image in raw.images[case_id]]
        _, labels, _ = preprocessor.run_case(
            images, str(file), plans, config, dict(source.dataset_json)
        )
    preprocessed: LabelArray = labels[0].astype(np.int16)
    return preprocessed


def _raw(source: NnunetSource, case_id: str) -> RawSet:
    raw = raw_cases(source.root.raw / source.dataset)
    if case_id not in raw.labels or raw.ending not in NIFTI:
        raise UsageFault(
            f"{raw.folder}: has no NIfTI files of case {case_id!r}, expected those that "
            f"{source.name} was preprocessed from: predictions are on their grid. Bring them along"
        )
    return raw


# -- other folds ----------------------------------------------------------------------------------


def _write_root(source: NnunetSource, division: FoldFiles) -> SourceRequest:
    root, plans, dataset = NnunetRoot.find(division.folder), source.plans, source.dataset
    old, new = plans.folder, root.preprocessed / dataset
    arrays, truth = new / source.folder.name, new / "gt_segmentations"
    with disk_errors(new):
        for folder in (root.raw, root.results, arrays, truth):
            folder.mkdir(parents=True, exist_ok=True)
    for name in ("dataset.json", "dataset_fingerprint.json", plans.path.name):
        if (old / name).is_file():
            write_small(new / name, (old / name).read_text("utf-8"))
    _link(source.root.raw / dataset, root.raw / dataset)
    ending = str(source.dataset_json.get("file_ending", ".nii.gz"))
    endings = (".b2nd", "_seg.b2nd", ".pkl")
    names = [f"{case}{end}" for case in division.cases for end in endings]
    for name in names:
        _link(source.folder / name, arrays / name)
    for case in division.cases:
        _link(old / truth.name / f"{case}{ending}", truth / f"{case}{ending}")
    if (noted := hashes_of(source.folder)).is_file():  # so that they are still compared
        hashes = read_json(noted)
        copied = {name: hashes[name] for name in names if name in hashes}
        write_small(hashes_of(arrays), json_text(copied))
    write_small(new / SUBJECTS, division.subjects.read_text("utf-8"))
    write_small(new / SPLITS, json_text(division.splits))
    return replace(
        source.request,
        where=dataset,
        fold="0",
        root=str(division.folder),
        subjects=str(division.subjects),
    )


def _link(old: Path, new: Path) -> None:
    if not old.exists():
        return
    target = os.path.realpath(old)
    with disk_errors(new):
        if new.is_symlink() and os.path.realpath(new) != target:  # it was moved since
            new.unlink()
        with contextlib.suppress(FileExistsError):
            os.symlink(target, new, target_is_directory=old.is_dir())
