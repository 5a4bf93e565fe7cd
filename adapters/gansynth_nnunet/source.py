"""The training cases of one nnU-Net fold, read from nnU-Net's own preprocessed arrays.

nnU-Net's ``.pkl`` files are not read: nothing here unpickles.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from gansynth import (
    OUTSIDE,
    Case,
    CaseFiles,
    CaseHeader,
    CaseSource,
    CaseStore,
    DataFault,
    FloatArray,
    FoldSplit,
    ForegroundIndex,
    GansynthError,
    LabelArray,
    PatchSource,
    PrepareRequest,
    Schema,
    SourceRequest,
    Space,
    StoredCase,
    UsageFault,
    disk_errors,
    read_json,
    write_json_atomic,
)
from gansynth.core.synthetic import refuse_named
from gansynth.core.volumes import endings, read_volume
from gansynth.data.folds import (
    grouped_splits,
    one_fold,
    write_resplit,
)
from gansynth.data.grid import in_eights, whole_labels
from gansynth.runtime.files import write_bytes_atomic
from gansynth_nnunet.cases import PreprocessedArrays, hashes_of
from gansynth_nnunet.dataset import (
    FINGERPRINT,
    FOLDS,
    SPLITS,
    SUBJECTS,
    TRUTH,
    NnunetRoot,
    describes,
    hidden_regions,
    known_subjects,
    located,
    one_subject,
    raw_set,
    read_channels,
    read_labels,
)
from gansynth_nnunet.mixed import Key, location_keys
from gansynth_nnunet.plans import OLD, NnunetPlans

log = logging.getLogger("gansynth")

Arrays = Mapping[str, npt.NDArray[Any]]
MARGIN = 4 / 3
"""Edge of the generator's arrays in patches: the reach of nnU-Net's rotations and crops."""
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


class NnunetSource(PatchSource):
    """``nnunet:ID``: one fold of a preprocessed nnU-Net data set; fold ``all`` holds nothing out.

    Attributes:
        dataset: full name, ``Dataset004_Hippocampus``.
        config: the configuration, with inherited values.
        folder: of the configuration's cases.
        dataset_json: nnU-Net's copy of ``dataset.json`` beside the plans.
        labels: its labels, regions and the ignore label.
        ending: of raw files.
        patch_size: nnU-Net's patch in voxels: (D, H, W), or (H, W) for 2d.
        patch: the same as (D, H, W); a 2d patch is one slice, (1, H, W).
        batch_size: nnU-Net's.
    """

    by_name: ClassVar[bool] = True
    describes = staticmethod(describes)
    name: str = ""
    train_ids: tuple[str, ...] = ()
    held_out_ids: tuple[str, ...] = ()

    def __init__(self, request: SourceRequest) -> None:
        self.root, self.dataset = NnunetRoot.of(request.where, request.root)
        self.name, home = f"nnunet:{self.dataset}", self.root.preprocessed / self.dataset
        self.plans = NnunetPlans(home, request)
        self.configuration = request.configuration or self.plans.usual(prepared=True)
        self.request = replace(
            self.plans.request, where=located(request.where), configuration=self.configuration
        )
        self.config = self.plans.configuration(self.configuration)
        first = self.config.get("previous_stage")
        if first:
            raise UsageFault(
                "nnunet.cascade-second-stage",
                f"-c {self.configuration}: a cascade's second stage learns from predictions of its "
                f"first, which no synthetic sample has; expected the first, -c {first}, or "
                "3d_fullres. nnU-Net's own second stage follows an augmented first: gansynth help "
                "nnunet",
            )
        self.patch_size = tuple(map(int, self.config["patch_size"]))
        self.patch = (1, *self.patch_size)[-3:]
        self.batch_size = int(self.config["batch_size"])
        self._prepare = self.request.command(PrepareRequest)
        again = self.request.command(PrepareRequest, force=True)
        self._again = f"preprocess again: {again}"
        path = home / "dataset.json"
        self.dataset_json = read_json(path, hint=self._prepare)
        self.labels = read_labels(self.dataset_json, path)
        self.ending = str(self.dataset_json.get("file_ending", ".nii.gz"))
        self._channels = read_channels(self.dataset_json, path)
        self.folder = home / str(self.config["data_identifier"])
        self._files = PreprocessedArrays(self.folder, self._again)
        self._outlines: dict[str, Arrays] = {}
        self._ids = self._find_cases()
        self._subjects = known_subjects(home, self._ids, request.subjects)
        self.train_ids, self.held_out_ids = self._fold()
        refuse_named(self.dataset_json, path, (*self.train_ids, *self.held_out_ids), request)

    def header(self, case_id: str) -> CaseHeader:
        return CaseHeader(self._subjects[case_id], self._shape(case_id), self.schema.spacing)

    def files(self, case_id: str) -> StoredCase:
        return StoredCase(  # what is preprocessed has no way back to the raw files
            folders=(self.root.raw / self.dataset, self.root.preprocessed / self.dataset),
            arrays=lambda: self._raw_arrays(case_id),
            read=_raw_labels,
        )

    def files_of(self, cases: Iterable[str]) -> Iterator[Path]:
        """Yield the files of preprocessed cases, by their paths in the folder of the plans."""
        for case in cases:
            for part in (".b2nd", "_seg.b2nd", ".pkl"):
                yield Path(self.folder.name, f"{case}{part}")
            yield Path(TRUTH, f"{case}{self.ending}")

    def divided(self, splits: Sequence[FoldSplit], folder: Path) -> SourceRequest:
        """Split the cases into other folds: nnU-Net's three folders below ``folder``.

        They contain only the named cases. Results of a fold have one place below
        ``nnUNet_results``, so two trainings of one fold need a folder each.
        """
        division = write_resplit(self, self._ids, splits, folder)
        root, plans, dataset = NnunetRoot.find(division.folder), self.plans, self.dataset
        old, new = plans.folder, root.preprocessed / dataset
        files = list(self.files_of(division.cases))
        with disk_errors(new):
            for folder in (root.raw, root.results, new / self.folder.name, new / TRUTH):
                folder.mkdir(parents=True, exist_ok=True)
        for name in ("dataset.json", FINGERPRINT, plans.path.name):
            if (old / name).is_file():
                write_bytes_atomic(new / name, (old / name).read_bytes())
        _link(self.root.raw / dataset, root.raw / dataset)
        for file in files:
            _link(old / file, new / file)
        noted = hashes_of(self.folder)
        if noted.is_file():  # so that they are still compared
            hashes = read_json(noted)
            copied = {file.name: hashes[file.name] for file in files if file.name in hashes}
            write_json_atomic(new / noted.name, copied)
        write_bytes_atomic(new / SUBJECTS, division.subjects.read_bytes())
        write_json_atomic(new / SPLITS, division.splits)
        return replace(
            self.request,
            where=dataset,
            fold="0",
            root=str(division.folder),
            subjects=str(division.subjects),
        )

    def preparing(self, other: CaseSource) -> CaseSource:
        if isinstance(other, NnunetSource):
            return other
        from gansynth_nnunet.scans import PreprocessedScans

        return PreprocessedScans(other, self)

    @cached_property
    def axes(self) -> str:
        """Along which axes the files of training cases lie, as ``RAS``.

        "" if they differ, or are not at hand.
        """
        if self.ending not in endings() or not (self.root.raw / self.dataset).is_dir():
            return ""
        with contextlib.suppress(GansynthError):  # files that lack or are damaged
            raw = raw_set(self.root, self.dataset)
            known = dict(zip(raw.ids, raw.listing.entries, strict=True))
            lie = {known[case].axes for case in self.train_ids if case in known}
            return lie.pop() if len(lie) == 1 else ""
        return ""

    @cached_property
    def keys(self) -> tuple[Key, ...]:
        """Labels or regions whose voxels nnU-Net needs to sample crops."""
        return location_keys(self.plans.manager.get_label_manager(dict(self.dataset_json)))

    @cached_property
    def schema(self) -> Schema:
        """Channels, labels and spacing of the preprocessed arrays, always (D, H, W).

        In 2d the slice distance is the median of the data set: nnU-Net does not resample that axis.
        """
        spacing = [float(s) for s in self.config["spacing"]]
        if len(spacing) == 2:
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
        """Crops (or slices) of about 4/3 of the patch, within any case, with the host's record."""
        schema, doc = self.schema, self.plans.doc  # the schema's reading tells most of the shapes
        record: dict[str, Any] = {
            "dataset": self.dataset,
            "plans": self.plans.path.stem,
            "configuration": self.configuration,
        }
        record |= {key: self.config.get(key) for key in _HOST_KEYS}
        record |= {key: doc.get(key) for key in _PLANS_KEYS}
        record |= {
            "channel_names": list(schema.channels),
            "labels": dict(schema.labels),
            "regions": {name: list(values) for name, values in self.labels.regions.items()},
            "regions_class_order": self.dataset_json.get("regions_class_order"),
            "ignore": schema.ignore,
        }
        grid: Literal["slice", "crop"] = "slice" if len(self.patch_size) == 2 else "crop"
        return Space(grid, self._size, host=json.loads(json.dumps(record)))

    @property
    def hidden_regions(self) -> str:
        """Which labels nnU-Net can never predict by its order of regions; "" for none."""
        return hidden_regions(self.dataset_json, self.labels)

    @cached_property
    def _size(self) -> tuple[int, ...]:
        extent = zip(self.patch_size, np.max(self._trained_shapes, axis=0).tolist(), strict=True)
        return in_eights(max(p, min(MARGIN * p, longest)) for p, longest in extent)

    # -- reading -----------------------------------------------------------------------------------

    def load(self, case_id: str) -> Case:
        return self.load_part(case_id, ())

    def load_part(self, case_id: str, box: Sequence[slice]) -> Case:
        image, labels = self._image(case_id, box), self.labels_of(case_id, box)
        case = Case(case_id, self._subjects[case_id], image, labels)
        try:
            case.validate(self.schema)
        except DataFault as fault:
            raise DataFault(
                "nnunet.preprocessed-case-faulty",
                f"{self.folder}: {fault}; {self._again}, which checks the raw data first",
            ) from fault
        return case

    def train_bytes(self) -> int:
        voxel = 4 * len(self._channels) + 2
        return voxel * sum([math.prod(self._shape(case)) for case in self.train_ids])

    def outline(self, case_id: str) -> ForegroundIndex:
        read = partial(self.labels_of, case_id)
        return ForegroundIndex.from_arrays(self._outline(case_id), self.labels.ignore, read)

    def store_of(self, case_id: str) -> CaseStore:
        # Of a division in folds, these are links to the data set that it was made of.
        files = [
            Path(os.path.realpath(self.folder / f"{case_id}{part}"))
            for part in (".b2nd", "_seg.b2nd")
        ]
        store = CaseStore.of(case_id, files, files[0].parent, beside=True)
        return store.read_as(json.dumps([self.config["spacing"], list(self._channels)]))

    def _image(self, case_id: str, box: Sequence[slice] = ()) -> FloatArray:
        return self._files.read(f"{case_id}.b2nd", box).astype(np.float32, copy=False)

    def labels_of(self, case_id: str, box: Sequence[slice] = ()) -> LabelArray:
        labels = self._files.read(f"{case_id}_seg.b2nd", box)
        if len(labels) != 1:
            raise DataFault(
                "nnunet.preprocessed-labels-several-channels",
                f"{self.folder / case_id}_seg.b2nd: shape is {labels.shape}, expected one "
                f"channel; {self._again}",
            )
        volume: LabelArray = labels[0].astype(np.int16, copy=False)
        return volume

    def _shape(self, case_id: str) -> tuple[int, ...]:
        return tuple(self._outline(case_id)["shape"].tolist())

    def windows(self, cases: Iterable[str], *, mirrored: bool) -> int:
        """Return how many patches nnU-Net predicts of cases: they are half a patch apart."""
        count = 0
        for case in cases:
            shape = self._shape(case)
            planes = shape[0] if len(self.patch_size) == 2 else 1
            extent = zip(shape[-len(self.patch_size) :], self.patch_size, strict=True)
            each = [math.ceil(max(0, n - patch) / (patch / 2)) + 1 for n, patch in extent]
            count += planes * math.prod(each) * (2 ** len(each) if mirrored else 1)
        return count

    def _outline(self, case_id: str) -> Arrays:
        """Shape of a case, and where its labels lie."""

        def find() -> Arrays:
            return ForegroundIndex.of_labels(self.labels_of(case_id)).to_arrays()

        if case_id not in self._outlines:
            self._outlines[case_id] = self.store_of(case_id).arrays("outline", find)
        return self._outlines[case_id]

    @property
    def _trained_shapes(self) -> list[tuple[int, ...]]:
        return [self._shape(case)[-len(self.patch_size) :] for case in self.train_ids]

    def _outside_fill(self) -> tuple[float, ...] | None:
        low = np.full(len(self._channels), np.inf, np.float32)
        high = -low
        for case in self.train_ids:
            found = self.store_of(case).arrays("outside", partial(self._outside, case))
            if not found["low"].size:
                continue
            low, high = np.minimum(low, found["low"]), np.maximum(high, found["high"])
            if (high - low).max() > CONSTANT:
                return None
        if not np.isfinite(low).all() or np.abs([low, high]).max() <= CONSTANT:
            return (0.0,) * len(low)
        if (np.min(self._trained_shapes, axis=0) < self._size).any():
            return None
        return tuple(map(float, (low + high) / 2))

    def _outside(self, case_id: str) -> Arrays:
        """The least and the largest value of each channel outside the body (C,), if there is any.

        Of a case of another shape, about which ``load`` complains, none.
        """
        outside = self.labels_of(case_id) == OUTSIDE
        nothing = np.zeros(0, np.float32)
        if not outside.any():
            return {"low": nothing, "high": nothing}
        image = self._image(case_id)
        if image.shape != (len(self._channels), *outside.shape):
            return {"low": nothing, "high": nothing}
        values = image[:, outside]  # (C, N)
        return {"low": values.min(axis=1), "high": values.max(axis=1)}

    def _find_cases(self) -> tuple[str, ...]:
        names = {file.name for file in self.folder.glob("*.b2nd")}
        ids = sorted(n.removesuffix(".b2nd") for n in names if not n.endswith("_seg.b2nd"))
        if not ids:
            if next(self.folder.glob("*.npz"), None) is not None:
                raise DataFault(
                    "nnunet.preprocessed-by-old-version", f"{self.folder}: {OLD}; {self._again}"
                )
            raise DataFault(
                "nnunet.no-preprocessed-cases",
                f"{self.folder}: no preprocessed cases (*.b2nd); run: {self._prepare}",
            )
        lacking = [case for case in ids if f"{case}_seg.b2nd" not in names]
        if lacking:
            raise DataFault(
                "nnunet.preprocessed-cases-without-labels",
                f"{self.folder}: {len(lacking)} case(s) without labels, "
                f"{lacking[0]}_seg.b2nd first; {self._again}",
            )
        return tuple(ids)

    def _fold(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        if self.request.fold == "all":
            return self._ids, ()
        path = self.plans.folder / SPLITS
        missing = [] if path.is_file() else self._default_splits()
        try:
            sides = one_fold(path, self.request.fold, self._subjects, self.folder, missing)
        except GansynthError as fault:
            if isinstance(fault, UsageFault):  # no such fold
                raise
            again = f"{self._prepare}, or {one_subject(self.root, self.dataset)}"
            raise fault.reworded(f"{fault}; or run: {again}") from fault
        if missing:
            few = len(self._ids) < FOLDS
            how = "as many folds as subjects" if few else "the 5 folds nnU-Net itself would make"
            what = "made, with" if path.is_file() else "missing, so this dry run takes"
            self.note = f"{path}: {what} {how}"
            log.info(self.note)
        return sides

    def _default_splits(self) -> list[FoldSplit]:
        from nnunetv2.utilities.crossval_split import generate_crossval_split

        if len(self._ids) < FOLDS:
            subjects = len(set(self._subjects.values()))
            return grouped_splits(self._ids, self._subjects, max(2, subjects), seed=12345)
        splits = generate_crossval_split(sorted(self._ids), seed=12345, n_splits=FOLDS)
        return [FoldSplit(train=[*map(str, s["train"])], val=[*map(str, s["val"])]) for s in splits]

    # -- raw files, and predictions on their grid --------------------------------------------------

    def _raw_arrays(self, case_id: str) -> tuple[FloatArray, LabelArray | None]:
        raw = self._raw(case_id)
        arrays = [read_volume(image, ndim=(3, 4)).array.T for image in raw.images]
        channels = [array if array.ndim == 4 else array[None] for array in arrays]
        return np.concatenate(channels).astype(np.float32), _raw_labels(raw.reference)

    def preprocess(
        self, images: Sequence[str], labels: str | None
    ) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Have nnU-Net preprocess the files of a case, one image for each channel.

        Returns:
            Image (C, D, H, W) and labels (1, D, H, W); without a label map 0 in the body. Outside
            of it they are -1.
        """
        plans = self.plans.manager
        config = plans.get_configuration(self.configuration)
        with contextlib.redirect_stdout(io.StringIO()):
            image, mapped, _ = config.preprocessor_class(verbose=False).run_case(
                images, labels, plans, config, dict(self.dataset_json)
            )
        return image, mapped

    def _raw(self, case_id: str) -> CaseFiles:
        raw = raw_set(self.root, self.dataset)
        if case_id not in raw.ids:
            raise UsageFault(
                "nnunet.no-raw-files-of-case",
                f"{raw.listing.root}: has no files of case {case_id!r}, expected those that "
                f"{self.name} was preprocessed from: predictions are on their grid. Bring them "
                "along",
            )
        return raw.listing.entries[raw.ids.index(case_id)]


def _raw_labels(file: Path) -> LabelArray:
    return np.ascontiguousarray(whole_labels(file, read_volume(file).array).T)


# -- other folds ----------------------------------------------------------------------------------


def _link(old: Path, new: Path) -> None:
    if not old.exists():
        return
    target = os.path.realpath(old)
    with disk_errors(new):
        if new.is_symlink() and os.path.realpath(new) != target:  # it was moved since
            new.unlink()
        with contextlib.suppress(FileExistsError):
            os.symlink(target, new, target_is_directory=old.is_dir())
