"""A short way to validate, for demonstrations: no mirroring, no further processes.

It calls what nnU-Net's own validation calls, and leaves the same files.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from nnunetv2.evaluation.evaluate_predictions import compute_metrics, save_summary_json
from nnunetv2.inference.export_prediction import export_prediction_from_logits
from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor
from nnunetv2.utilities.json_export import recursive_fix_for_json_export

from gansynth_nnunet.dataset import TRUTH
from gansynth_nnunet.results import SUMMARY, VALIDATION

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer


def validate_quickly(trainer: nnUNetTrainer, save_probabilities: bool) -> None:
    """Predict the held-out cases of a trainer, measure them, write both to its folder.

    Of several ranks the first does it, while the others wait.
    """
    if trainer.local_rank == 0:
        trainer.set_deep_supervision_enabled(False)
        trainer.network.eval()
        cases = _predict(trainer, save_probabilities)
        _measure(trainer, cases)
        trainer.set_deep_supervision_enabled(True)
    if trainer.is_ddp:
        torch.distributed.barrier()


def _predict(trainer: nnUNetTrainer, save_probabilities: bool) -> list[str]:
    folder = Path(trainer.output_folder) / VALIDATION
    folder.mkdir(exist_ok=True)
    told = (trainer.configuration_manager, trainer.plans_manager, trainer.dataset_json)
    predictor = nnUNetPredictor(use_mirroring=False, device=trainer.device, allow_tqdm=False)
    network = trainer.network.module if trainer.is_ddp else trainer.network
    predictor.manual_initialization(
        network, trainer.plans_manager, trainer.configuration_manager, None, trainer.dataset_json,
        type(trainer).__name__, None,
    )  # fmt: skip
    _, held_out = trainer.do_split()
    dataset = trainer.dataset_class(trainer.preprocessed_dataset_folder, held_out)
    for case in dataset.identifiers:
        image, _, _, properties = dataset.load_case(case)
        logits = predictor.predict_sliding_window_return_logits(torch.from_numpy(image[:]))
        target = str(folder / case)
        export_prediction_from_logits(logits.cpu(), properties, *told, target, save_probabilities)
    return list(dataset.identifiers)


def _measure(trainer: nnUNetTrainer, cases: list[str]) -> None:
    """Write the summary of nnU-Net's measures: of each case, and means."""
    predicted, ending = (
        Path(trainer.output_folder) / VALIDATION,
        trainer.dataset_json["file_ending"],
    )
    truth = Path(trainer.preprocessed_dataset_folder_base) / TRUTH
    manager = trainer.label_manager
    labels = manager.foreground_regions if manager.has_regions else manager.foreground_labels
    reader = trainer.plans_manager.image_reader_writer_class()
    of_cases = []
    for case in cases:
        files = [str(folder / f"{case}{ending}") for folder in (truth, predicted)]
        of_cases.append(compute_metrics(*files, reader, labels, manager.ignore_label))
    names = list(of_cases[0]["metrics"][labels[0]])
    means: dict[Any, dict[str, float]] = {}
    for label in labels:
        values = {name: [of["metrics"][label][name] for of in of_cases] for name in names}
        means[label] = {name: float(np.nanmean(found)) for name, found in values.items()}
    foreground = {name: float(np.mean([of[name] for of in means.values()])) for name in names}
    summary = {"metric_per_case": of_cases, "mean": means, "foreground_mean": foreground}
    recursive_fix_for_json_export(summary)
    save_summary_json(summary, str(Path(trainer.output_folder) / SUMMARY))
