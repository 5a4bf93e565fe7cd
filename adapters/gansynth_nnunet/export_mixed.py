"""Real and synthetic cases in nnU-Net's preprocessed form, for ``nnUNetv2_train`` as it is."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.reader import BankReader
from gansynth.core.schema import LabelArray
from gansynth.core.synthetic import KEY
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.progress import Task
from gansynth_nnunet.class_locations import Key
from gansynth_nnunet.export_plan import ExportPlan
from gansynth_nnunet.splits import SPLITS

PARTS = (".b2nd", "_seg.b2nd", ".pkl")
"""Files of one preprocessed case."""
FINGERPRINT = "dataset_fingerprint.json"
TRUTH = "gt_segmentations"


def write(
    plan: ExportPlan, folder: Path, reader: BankReader, ids: Mapping[str, str], bar: Task
) -> None:
    """Write plans, real and synthetic cases, what they are validated against, and the one fold.

    Args:
        plan: the export.
        folder: an empty folder on the file system of nnU-Net's preprocessed data.
        reader: the bank with the samples.
        ids: name of a synthetic case -> id in the bank.
        bar: advanced by one for each case.

    Raises:
        DataFault: a file of a real case is missing.
    """
    _write_documents(plan, folder, tuple(ids))
    source = plan.source
    data, truth = folder / source.folder.name, folder / TRUTH
    data.mkdir()
    truth.mkdir()
    ending = str(source.dataset_json["file_ending"])
    for case in plan.real_cases:
        for part in PARTS:
            _link(source.folder / f"{case}{part}", data)
        _link(source.plans.folder / TRUTH / f"{case}{ending}", truth)
        bar.advance()
    for name, sample_id in ids.items():
        found = reader.read(sample_id)
        assert found.labels is not None  # see adapter.finalise
        write_case(plan, data / name, found.image, found.labels)
        bar.advance()
    fold = {"train": sorted((*plan.real, *ids)), "val": sorted(plan.held_out)}
    write_json_atomic(folder / SPLITS, [fold])


def _write_documents(plan: ExportPlan, folder: Path, synthetic: Sequence[str]) -> None:
    """Plans of the one configuration that there are data of, data set and fingerprint."""
    source = plan.source
    # A next stage would be looked for at validation; nothing of it is here.
    linked = ("inherits_from", "next_stage", "previous_stage")
    configuration = {k: v for k, v in source.config.items() if k not in linked}
    plans = {
        **source.plans.doc,
        "dataset_name": plan.name,
        "configurations": {source.configuration: configuration},
    }
    write_json_atomic(folder / source.plans.path.name, plans)
    document = {k: v for k, v in source.dataset_json.items() if k != "dataset"}
    document |= {"name": plan.name[11:], "numTraining": len(plan.real) + len(synthetic)}
    document[KEY] = list(synthetic)
    write_json_atomic(folder / "dataset.json", document)
    shutil.copyfile(source.plans.folder / FINGERPRINT, folder / FINGERPRINT)


def _link(file: Path, folder: Path) -> None:
    """Give a file a second name, or copy it where that cannot be (another disk, say)."""
    file, target = file.resolve(), folder / file.name
    try:
        with contextlib.suppress(OSError):
            os.link(file, target)
            return
        shutil.copy2(file, target)
    except FileNotFoundError:
        raise DataFault(
            f"{file}: missing, expected it from nnU-Net's preprocessing: its trainer reads it; "
            "run: gansynth prepare --force"
        ) from None


def write_case(plan: ExportPlan, stem: Path, image: Any, labels: LabelArray) -> None:
    """Write one case by nnU-Net's own function, as its preprocessing does.

    Args:
        plan: the export.
        stem: path without suffix.
        image: (C, D, H, W).
        labels: int16 (D, H, W).
    """
    from nnunetv2.training.dataloading.nnunet_dataset import (
        comp_blosc2_params,
        nnUNetDatasetBlosc2,
    )

    source = plan.source
    data, seg = np.asarray(image, np.float32), np.asarray(labels[None], np.int16)
    (blocks, chunks), (blocks_seg, chunks_seg) = (
        comp_blosc2_params(array.shape, source.patch_size, array.itemsize) for array in (data, seg)
    )
    properties = case_properties(
        labels, plan.keys, source.schema.spacing, source.plans.doc["transpose_forward"]
    )
    nnUNetDatasetBlosc2.save_case(
        data,
        seg,
        properties,
        str(stem),
        chunks=chunks,
        blocks=blocks,
        chunks_seg=chunks_seg,
        blocks_seg=blocks_seg,
    )


def case_properties(
    labels: LabelArray,
    keys: Sequence[Key],
    spacing: Sequence[float],
    transpose_forward: Sequence[int],
) -> dict[str, Any]:
    """What nnU-Net notes beside a preprocessed case: of one that was neither cropped nor resampled.

    Args:
        labels: int16 (D, H, W), -1 outside.
        keys: labels or regions whose voxels nnU-Net wants to know.
        spacing: mm per axis of ``labels``.
        transpose_forward: from the file's axes to those of ``labels``.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    shape, back = tuple(labels.shape), np.argsort(transpose_forward)
    own = [float(spacing[i]) for i in back]
    affine = np.diag([*own[::-1], 1.0])
    identity = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0)
    return {
        "spacing": own,
        # As each of nnU-Net's readers would have it, so that its predictions can be written.
        "sitk_stuff": {"spacing": tuple(own[::-1]), "origin": (0.0,) * 3, "direction": identity},
        "nibabel_stuff": {"original_affine": affine, "reoriented_affine": affine},
        "shape_before_cropping": shape,
        "bbox_used_for_cropping": [[0, n] for n in shape],
        "shape_after_cropping_and_before_resampling": shape,
        "class_locations": DefaultPreprocessor._sample_foreground_locations(
            labels[None], list(keys)
        ),
    }
