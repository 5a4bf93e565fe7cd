"""The evaluated segmenter: a small one trained here, or predictions of a target framework."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gansynth.core.lineage import some_names
from gansynth.core.schema import Case, FloatArray, LabelArray
from gansynth.core.source import CaseHeader, CaseSource, FoldSplit, StoredCase, WrappedSource
from gansynth.core.space import Space
from gansynth.data.batches import CaseCache
from gansynth.data.folds import grouped_splits
from gansynth.runtime.errors import DataFault, IntegrityFault, did_you_mean

if TYPE_CHECKING:
    import torch

    from gansynth.metrics.faithfulness import EvaluationSegmenter, EvaluationSegmenterOptions
    from gansynth.runtime.progress import Reporter

Host = Callable[[Case], LabelArray]  # a whole case of the source -> labels int16 of its shape
ENDINGS = (".nii.gz", ".nii")


def training_space(source: CaseSource, largest: int) -> Space:
    """Crops for training a small segmenter.

    Args:
        largest: longest edge of a crop in voxels.
    """
    space = source.space
    size = space.size
    if space.grid not in ("crop", "slice"):
        size = source.header(source.train_ids[0]).shape
        space = replace(space, grid="crop", size=size)
    return replace(space, size=tuple(min(n, largest) for n in size))


def small_host(
    source: CaseSource,
    space: Space,
    options: EvaluationSegmenterOptions,
    *,
    device: torch.device,
    reporter: Reporter,
) -> Host:
    """Train a small segmenter on a source's training cases."""
    from gansynth.data.batches import CaseBatches
    from gansynth.metrics.faithfulness import train_segmenter

    batches = CaseBatches(CaseCache(source), space, seed=options.seed)
    schema = space.generator_schema(source.schema)
    segmenter = train_segmenter(
        batches, schema, space.size, options, device=device, reporter=reporter
    )
    uncut = replace(space, grid="native", size=())

    def predict(case: Case) -> LabelArray:
        image = uncut.to_generator(case).image
        if space.grid != "slice":
            return by_windows(segmenter, image, space.size)
        slices = [by_windows(segmenter, image[:, i], space.size) for i in range(image.shape[1])]
        return np.stack(slices)

    return predict


def by_windows(
    segmenter: EvaluationSegmenter, image: FloatArray, size: Sequence[int]
) -> LabelArray:
    """Labels of an image of any size, by sliding windows that overlap by half.

    Args:
        image: float32 (C, D, H, W) or (C, H, W).
        size: of a window, as in training.
    """
    shape = image.shape[1:]
    if all(n <= s for n, s in zip(shape, size, strict=True)):
        return segmenter.predict(image)
    total = np.zeros((len(segmenter.values), *shape), np.float32)
    starts = [_starts(n, s) for n, s in zip(shape, size, strict=True)]
    for corner in product(*starts):
        axes = zip(corner, size, shape, strict=True)
        box = [slice(c, min(c + s, n)) for c, s, n in axes]
        window = (slice(None), *box)
        total[window] += segmenter.shares(image[window])
    return np.asarray(np.array(segmenter.values, np.int16)[total.argmax(axis=0)])


def _starts(length: int, size: int) -> list[int]:
    """Start of each window: windows cover a length and overlap by half or more."""
    if length <= size:
        return [0]
    steps_of_half_a_window = math.ceil(2 * (length - size) / size)
    count = 1 + steps_of_half_a_window
    return [round(x) for x in np.linspace(0, length - size, count)]


# -- predictions of a target framework -------------------------------------------------------------


def predicted_files(source: CaseSource, folders: Sequence[Path]) -> dict[str, Path]:
    """The predicted label map of each training case.

    Args:
        folders: of label maps, named by case: NIfTI, or PNG of 2D cases.

    Raises:
        DataFault: no such folder; a missing, duplicate or unknown case.
        IntegrityFault: a prediction of a held-out case.
    """
    files: dict[str, Path] = {}
    for folder in folders:
        if not folder.is_dir():
            raise DataFault(
                "hard-cases.predictions-folder-missing",
                f"--predictions {folder}: no such folder, expected one of label maps",
            )
        for case, file in _named_by_case(source, folder):
            if case in files:
                raise DataFault(
                    "hard-cases.case-predicted-twice",
                    f"{file}: case {case!r} has another prediction in {files[case]}, expected one "
                    "of each, by the model not trained on it; remove one",
                )
            files[case] = file
    refuse_held_out(source, files)
    for case, file in files.items():
        if case not in source.train_ids:
            raise DataFault(
                "hard-cases.prediction-of-unknown-case",
                f"{file}: {case!r} is no case of {source.name} fold {source.request.fold}, "
                f"expected training cases.{did_you_mean(case, source.train_ids)}",
            )
    missing = [case for case in source.train_ids if case not in files]
    if missing:
        raise DataFault(
            "hard-cases.cases-without-prediction",
            f"--predictions {', '.join(map(str, folders))}: {len(missing)} of "
            f"{len(source.train_ids)} training case(s) have no prediction, {some_names(missing)}; "
            "expected one of each. Train on every inner fold, and name each one's folder",
        )
    return files


def _named_by_case(source: CaseSource, folder: Path) -> Iterator[tuple[str, Path]]:
    """Label maps in a folder, and their cases by name."""
    if source.schema.ndim == 2:  # names may be paths
        for file in sorted(folder.rglob("*.png")):
            yield file.relative_to(folder).with_suffix("").as_posix(), file
        return
    for file in sorted(folder.iterdir()):
        endings = [ending for ending in ENDINGS if file.name.endswith(ending)]
        if endings:
            yield file.name.removesuffix(endings[0]), file


def refuse_held_out(source: CaseSource, files: Mapping[str, Path]) -> None:
    """Refuse files of held-out cases."""
    barred = [case for case in files if case in source.held_out_ids]
    if barred:
        raise IntegrityFault(
            "hard-cases.predictions-of-held-out-cases",
            f"leakage: {files[barred[0]].parent} has predictions of {len(barred)} held-out case(s) "
            f"of {source.name} fold {source.request.fold}: {some_names(barred)}; expected training "
            "cases only. Predict them with the inner folds of gansynth hard-cases ... "
            "--write-splits FILE",
        )


# -- inner folds -----------------------------------------------------------------------------------


def inner_folds(source: CaseSource, folds: int, seed: int) -> list[FoldSplit]:
    """Split a fold's training cases into inner folds without shared subjects."""
    subject_of = {case: source.header(case).subject for case in source.train_ids}
    return grouped_splits(source.train_ids, subject_of, folds, seed)


class InnerSource(WrappedSource):
    """An inner fold of a source; held-out cases of the outer fold cannot be read through it."""

    same_cases = False  # records are by ``load`` below, which reads no other case

    def __init__(self, outer: CaseSource, split: FoldSplit) -> None:
        super().__init__(outer)
        self._train, self._held_out = tuple(sorted(split["train"])), tuple(sorted(split["val"]))
        self._known = frozenset((*self._train, *self._held_out))
        self._refuse(self._known - set(outer.train_ids))

    @property
    def train_ids(self) -> tuple[str, ...]:
        """Training cases of the inner fold."""
        return self._train

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """Training cases of the outer fold that the inner one holds out."""
        return self._held_out

    def header(self, case_id: str) -> CaseHeader:
        """Header of a training case of the outer fold."""
        self._refuse({case_id} - self._known)
        return self.base.header(case_id)

    def files(self, case_id: str) -> StoredCase | None:
        """Files of a training case of the outer fold."""
        self._refuse({case_id} - self._known)
        return self.base.files(case_id)

    def load(self, case_id: str) -> Case:
        """Read a training case of the outer fold."""
        self._refuse({case_id} - self._known)
        return self.base.load(case_id)

    def _refuse(self, cases: Collection[str]) -> None:
        if cases:
            raise IntegrityFault(
                "hard-cases.inner-case-not-training-case",
                f"{self.name} fold {self.request.fold}: {min(cases)!r} is no training case, "
                "expected those only: held-out cases must not influence sampling. Use other inner "
                "folds",
            )
