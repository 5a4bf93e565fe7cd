"""nnU-Net as its own trainer knows it: the trainer opens the session of a training.

nnU-Net's command may be started by hand, and on several ranks.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth import (
    AugmentRequest,
    CaseSource,
    IntegrityFault,
    Job,
    Session,
    SourceRequest,
    case_records,
)
from gansynth.hosts.contract.launch import TrainingHandover
from gansynth_nnunet.adapter import NnunetAdapter
from gansynth_nnunet.source import NnunetSource
from gansynth_nnunet.workers import own_workers


class NnunetInTrainer(NnunetAdapter):
    """One training, whose numbers are those of nnU-Net's trainer, a ``GANSynthMixin``."""

    def __init__(
        self, source: CaseSource, request: AugmentRequest, folder: Path | None, trainer: Any
    ) -> None:
        self.trainer = trainer
        super().__init__(source, request, folder)

    def check_variant(self) -> None:
        """Nothing: its class is there."""

    def command(self) -> bool:
        return False

    def results_folder(self) -> Path:
        return Path(self.trainer.output_folder)

    @property
    def device(self) -> str:
        device = str(self.trainer.device.type)
        return "cpu" if device == "mps" else device

    @property
    def gpus(self) -> tuple[int, ...]:
        return tuple(range(self.trainer.gansynth_ranks)) if self.device == "cuda" else ()

    @property
    def loaders(self) -> int:
        return own_workers() * int(self.trainer.gansynth_ranks)

    @property
    def batches(self) -> int:
        return int(self.trainer.num_iterations_per_epoch)

    @property
    def length(self) -> tuple[int, int]:
        return int(self.trainer.num_epochs), self.source.batch_size

    def done(self, folder: Path) -> int:
        return int(self.trainer.current_epoch)

    def train(self, job: Job) -> None:
        if self.sample_source is not None:
            how = self.sample_source.described.get("conversion")
            if how:
                job.say(f"samples are converted by {how['by']}, in about {how['seconds']} s each")
            if not self.source.held_out_ids:
                job.say(
                    "fold 'all' trains on every case: nothing is held out, so leakage cannot be "
                    "checked, and the validation Dice is one on training cases"
                )
        self.trainer.gansynth_train(job)

    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Leave it to nnU-Net's command, which validates when its trainer has ended."""
        return {}


def session_in(training: TrainingHandover, trainer: Any) -> Session:
    """Return the session of a training whose trainer is built.

    Held-out cases are read now, unless the process that started this one just did.
    """
    plans, request, checked = trainer.plans_manager, training.request, training.folder
    own = Path(trainer.output_folder)
    if checked is not None and own.resolve() != checked.path.resolve():
        raise IntegrityFault(
            "nnunet.results-folder-differs",
            f"{own}: nnU-Net would write its results here, expected {checked.path}, which was "
            "checked; nothing was trained. Report it, or name the folder: -o",
        )
    subjects = training.source.get("subjects")
    if subjects is None and request.bank is None and request.run is not None:
        subjects = request.run.manifest["request"]["subjects"]
    source = NnunetSource(
        SourceRequest(
            kind="nnunet",
            where=plans.dataset_name,
            fold=str(trainer.fold),
            configuration=trainer.configuration_name,
            plans=plans.plans_name,
            subjects=subjects,
        )
    )
    held_out = None
    if request.mix.synthetic:
        records = {record.id: record for record in training.held_out}
        ids = set(source.held_out_ids)
        if trainer.fold != "all":
            ids |= set(map(str, trainer.do_split()[1]))
        missing = case_records(source, sorted(ids - set(records)))
        held_out = (*records.values(), *missing)
    folder = None if checked is None else checked.path
    host = NnunetInTrainer(source, request, folder, trainer)
    return Session(host, held_out=held_out, handed_over=checked)
