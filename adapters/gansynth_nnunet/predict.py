"""Prediction of new images by nnU-Net's own predictor, on the device of this machine."""

from __future__ import annotations

import io
import re
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np

from gansynth import (
    DataFault,
    PredictJob,
    read_json,
)
from gansynth.core.volumes import endings
from gansynth.hosts.contract.prediction import raw_files
from gansynth.runtime import torchvision_compat
from gansynth.runtime.child import limit_threads
from gansynth_nnunet.converter import REORIENT
from gansynth_nnunet.dataset import (
    read_channels,
    read_labels,
    refuse_other_nnunet,
)
from gansynth_nnunet.launch import find_variant
from gansynth_nnunet.results import VALIDATION


def predict_images(job: PredictJob, checkpoint: str) -> list[Path]:
    """Predict each case by a fold of a trained model; a file for each case, on its image's grid.

    Args:
        checkpoint: name of the file with the weights.
    """
    refuse_other_nnunet()
    model = job.folder.parent
    about = read_json(model / "dataset.json")
    ending = str(about["file_ending"])
    if ending not in endings():
        raise DataFault(
            "nnunet.model-files-not-volumes",
            f"{model / 'dataset.json'}: file_ending is {ending}, expected one of "
            f"{', '.join(endings())}; predict by nnUNetv2_predict_from_modelfolder -m {model}",
        )
    channels = read_channels(about, model / "dataset.json")
    read = read_labels(about, model / "dataset.json")
    labels, ignore = read.values, read.ignore
    job.check_sure(ignore)
    images, axes = job.opened(channels), _trained_axes(job)
    predictor = _predictor(job, checkpoint)
    job.begin(target="nnunet", labels=labels, checkpoint=checkpoint)
    files = []
    with (
        job.scratch() as scratch,
        job.reporter.task(len(images.train_ids), "case") as task,
    ):
        for case in images.train_ids:
            raw = raw_files(images, case, len(channels), scratch, axes)
            predicted = scratch / f"predicted{ending}"
            _predict(predictor, raw, predicted, ending, probabilities=job.sure is not None)
            if job.sure is not None and ignore is not None:
                _mark_unsure(job, predicted, ending, ignore, regions=bool(read.regions))
            files.append(job.place_labels(images, case, predicted))
            task.advance(1)
    job.say_turned(images, axes)
    return files


def _trained_axes(job: PredictJob) -> str:
    """Return along which axes the training's files lie, as far as they can be seen; else ""."""
    reader = read_json(job.folder.parent / "plans.json").get("image_reader_writer", "")
    if reader.endswith(REORIENT):
        return ""  # nnU-Net turns them itself
    known: str = job.session.get("axes") or ""
    return known or job.axes_of(sorted((job.folder / VALIDATION).glob("*.nii*")))


def _predictor(job: PredictJob, checkpoint: str) -> Any:
    import torch

    from gansynth import pick_device

    torchvision_compat.apply()
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    device = pick_device(job.device)
    limit_threads(device.type)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    fold = job.folder.name.removeprefix("fold_")
    try:
        with redirect_stdout(io.StringIO()):
            predictor = nnUNetPredictor(device=device, allow_tqdm=False)
            predictor.initialize_from_trained_model_folder(
                str(job.folder.parent), use_folds=(fold,), checkpoint_name=checkpoint
            )
    except RuntimeError as error:
        unknown = re.search(r"Could not find requested nnunet trainer (\w+)", str(error))
        if unknown is None:
            raise
        find_variant(unknown[1])  # refuses it
        raise
    return predictor


def _predict(
    predictor: Any, raw: Sequence[Path], target: Path, ending: str, *, probabilities: bool
) -> None:
    files, name = [str(file) for file in raw], str(target).removesuffix(ending)
    try:
        with redirect_stdout(io.StringIO()):
            predictor.predict_from_files_sequential(
                [files], [name], save_probabilities=probabilities
            )
    except (AssertionError, RuntimeError, ValueError) as error:
        if "out of memory" in str(error):
            raise
        words = " ".join(str(error).split())
        raise DataFault(
            "nnunet.image-not-predicted", f"{raw[0]}: nnU-Net does not predict it: {words:.300}"
        ) from error


def _mark_unsure(
    job: PredictJob, predicted: Path, ending: str, ignore: int, *, regions: bool
) -> None:
    """Write the ignore label into a predicted file where the probabilities beside it are unsure."""
    with np.load(f"{str(predicted).removesuffix(ending)}.npz") as held:
        probabilities = held["probabilities"]  # (K, D, H, W); each its own where there are regions
    foreground = range(0 if regions else 1, len(probabilities))
    job.mark_unsure(predicted, probabilities, foreground, ignore)
