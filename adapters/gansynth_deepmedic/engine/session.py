"""A training by the torch engine: its order, progress, record and predictions."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from gansynth.core.prediction import Prediction
from gansynth.core.schema import Schema
from gansynth.hosts.record import FILE, LOG, read_sessions
from gansynth.runtime import processes
from gansynth.runtime.child import NAME
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import disk_errors, read_json, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth_deepmedic import session as real
from gansynth_deepmedic.config import DeepMedicChoices
from gansynth_deepmedic.configs import TrainConfig, read_model_config
from gansynth_deepmedic.engine.order import ORDER, PROGRESS, TrainingOrder
from gansynth_deepmedic.engine.progress_reader import SubepochCounts, watch
from gansynth_deepmedic.engine.settings import EngineSettings, read_settings
from gansynth_deepmedic.insertion import HostCase
from gansynth_deepmedic.layout import TRAIN
from gansynth_deepmedic.real_space import training_cases
from gansynth_deepmedic.record import WAY_OUT, DeepMedicJob, labelled_pairs
from gansynth_deepmedic.source import DeepMedicSource


class TorchSession(real.DeepMedicSession):
    """Trains, reads the progress and records; ``run`` does it all."""

    def __init__(self, job: DeepMedicJob, reporter: Reporter) -> None:
        super().__init__(job, reporter)
        self._counts: dict[int, SubepochCounts] = {}
        self._ended = False

    def run(self) -> None:
        """See ``DeepMedicSession.run``."""
        job = self.job
        self.open()
        note = job.mix_config.schedule.tuning_note(job.config.epochs, "epoch", ours=True)
        for text in filter(None, (*job.share.notes, note)):
            self.say(text)
        ended: processes.ProcessResult | None = None
        try:
            cases = training_cases(job.source, job.mix_config, job.output, self.reporter)
            self.start()
            self.steer()
            ended = self._train_apart(self._torch_order(cases))
        finally:
            self.close(complete=ended is not None and ended.code == 0 and self._ended)
        processes.raise_if_failed(ended, f"{job.output / LOG}: the training (torch)")

    def judge(self, folder: Path) -> Mapping[str, Prediction]:
        """See ``DeepMedicSession.judge``."""
        return prediction_files(self.job.source, folder)

    def more(self) -> dict[str, Any]:
        """See ``HostSession.more``."""
        return {
            "checkpoint": None,
            "metrics_on_real_cases": dict(self._metrics),
            "per_subepoch": [each.to_json(n) for n, each in sorted(self._counts.items())],
        }

    def _torch_order(self, cases: tuple[HostCase, ...]) -> TrainingOrder:
        job = self.job
        self.write_input(cases)
        return TrainingOrder(
            engine="torch",
            output=job.output,
            train_config=job.output / TRAIN,
            plan=self.plan,
            cases=cases,
            count=job.share.cases,
            model_config=job.choices.model,
            done=self.first,
            subepochs=job.config.subepochs,
            seed=job.mix_config.seed,
            augment_synthetic=job.mix_config.augment_synthetic,
            options=job.engine.to_json(),
        )

    def _train_apart(self, order: TrainingOrder) -> processes.ProcessResult:
        output = self.job.output
        with disk_errors(output):
            (output / PROGRESS).unlink(missing_ok=True)
            write_json_atomic(output / ORDER, order.to_json())
        words = [sys.executable, "-m", "gansynth_deepmedic.engine.launch", str(output / ORDER)]
        assert self.display is not None
        with watch(output / PROGRESS, self._take_document, self.say):
            return processes.run(words, dict(os.environ), output / LOG, show=self.display.line)

    def _take_document(self, document: Mapping[str, Any]) -> None:
        if "step" in document:
            self.step(*document["step"])
        elif "job" in document:
            job = document["job"]
            subepoch = self._counts.setdefault(int(job["subepoch"]), SubepochCounts())
            subepoch.jobs[int(job["place"])] = job
        elif "trained" in document:
            number = int(document["trained"])
            subepoch = self._counts.setdefault(number, SubepochCounts())
            subepoch.trained = True
            words = subepoch.sentence()
            self.note(f"{NAME}subepoch {number + 1} of {self.job.total} trained on {words}")
            self.report()
        elif "epoch" in document:
            self._epoch(int(document["epoch"]), document.get("metrics") or {})
        elif "end" in document:
            self._ended, self._metrics = True, document["end"]

    def _epoch(self, done: int, metrics: Mapping[str, Any]) -> None:
        again = done == self.done
        self.finish_epoch(done, dict(flat(metrics)))
        self.write()
        numbers = ", ".join(f"{key} {value:.4g}" for key, value in flat(metrics))
        sentences = filter(None, ["" if again else self.sentence(), numbers])
        self.note(f"{NAME}epoch {done} of {self.total}: {'; '.join(sentences)}")
        self.pause()
        self.report()


def flat(metrics: Mapping[str, Any], name: str = "") -> Iterator[tuple[str, float]]:
    """Yield the numbers of nested documents with their names."""
    for key, value in metrics.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{name}{key} ")
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield f"{name}{key}", value


def trained(folder: Path) -> bool:
    """Whether the torch engine has trained in a folder."""
    return any(one.get("engine") == "torch" for one in read_sessions(folder / FILE)[-1:])


def settings_of(choices: DeepMedicChoices, config: TrainConfig, schema: Schema) -> EngineSettings:
    """Return the engine's settings, checked with the network."""
    if choices.model is not None:
        model = read_model_config(choices.model)
    else:
        from gansynth_deepmedic.engine.network import default_model

        model = default_model(max(schema.labels.values()) + 1, len(schema.channels))
    return read_settings(choices.torch, config, model)


def dice_of_cases(folder: Path) -> dict[str, Any]:
    """Return the Dice of every held-out case."""
    return {case["name"]: case["dice"] for case in read_json(folder / "validation.json")["cases"]}


def refuse_unmeasurable(source: DeepMedicSource, settings: Mapping[str, str]) -> None:
    """Reject a training that would save no segmentations of validation cases."""
    default = "yes" if source.config.values.get("saveSegmentationVal", True) else "no"
    if settings.get("save_predictions", default) == "no":
        raise UsageFault(
            f"{source.name}: no segmentations are saved, expected --set save_predictions=yes"
        )


def prediction_files(source: DeepMedicSource, folder: Path) -> dict[str, Prediction]:
    """Return validation case -> predicted and true label map, without unlabelled cases."""
    from gansynth_deepmedic.engine.infer import PREDICTIONS
    from gansynth_deepmedic.engine.train import VALIDATION

    predicted = {}
    for case in read_json(folder / VALIDATION, hint=WAY_OUT)["cases"]:
        if "prediction" not in case:
            raise UsageFault(
                f"{folder}: no segmentations were saved, expected --set save_predictions=yes. Only "
                f"the Dice of {folder / VALIDATION} is written"
            )
        predicted[os.path.realpath(case["image"])] = folder / PREDICTIONS / case["prediction"]
    return labelled_pairs(source, folder, predicted)
