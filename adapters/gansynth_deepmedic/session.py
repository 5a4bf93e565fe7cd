"""One DeepMedic training: sample bank, producer, training process, counts and record."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gansynth.bank.training_bank import BankRequirements
from gansynth.core.mix_config import MixerConfig, TrainingResult
from gansynth.hosts.record import LOG, epochs_done, read_sessions, training_result_of
from gansynth.hosts.session import HostSession
from gansynth.metrics.segmentation.results import account_of
from gansynth.runtime import processes
from gansynth.runtime.child import NAME
from gansynth.runtime.files import disk_errors, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth_deepmedic.guards import sample_bytes, stored
from gansynth_deepmedic.insertion import HostCase
from gansynth_deepmedic.layout import TRAIN, write_layout
from gansynth_deepmedic.program import command, environ_of
from gansynth_deepmedic.progress_reader import SubepochCounts, watch
from gansynth_deepmedic.real_space import training_cases
from gansynth_deepmedic.record import (
    COMPARED,
    DeepMedicJob,
    checkpoint_of,
    describe,
    newest_checkpoint,
    prediction_files,
)
from gansynth_deepmedic.training_order import ORDER, PROGRESS, TrainingOrder


class DeepMedicSession(HostSession[int]):
    """Trains, reads the progress and records; ``run`` does it all."""

    compared = COMPARED

    def __init__(self, job: DeepMedicJob, reporter: Reporter) -> None:
        self.job, self.reporter = job, reporter
        first = epochs_done(job.output)
        super().__init__(job.mix_config, job.output, first, job.config.epochs, reporter)
        self.batches = job.config.subepochs * (job.config.segments // job.config.batch)
        self._subepochs: dict[int, SubepochCounts] = {}
        self._metrics: Mapping[str, Any] = {}
        self._ended = False
        self._checkpoint: Path | None = None

    def run(self) -> None:
        """Train to the end. However it ends, no process is left and the record is written.

        Raises:
            EnvironmentFault: too little disk space for the bank, or the disk refuses.
            TrainingFault: the bank does not fill, or the training failed.
            KeyboardInterrupt, SystemExit: interrupted; the training process has ended too.
        """
        job = self.job
        self._checkpoint = checkpoint_of(job.output) if self.first else None
        self.open()
        note = job.mix_config.schedule.tuning_note(job.config.epochs, "epoch", ours=False)
        for text in filter(None, (*job.share.notes, note)):
            self.say(text)
        ended: processes.ProcessResult | None = None
        try:
            cases = training_cases(job.source, job.mix_config, job.output, self.reporter)
            self.start()
            self.steer()
            ended = self._train(self._order(cases))
        finally:
            self.close(complete=ended is not None and ended.code == 0 and self._ended)
        processes.raise_if_failed(ended, f"{job.output / LOG}: the training (deepmedic)")

    def outcome(self) -> TrainingResult:
        """Return the outcome of a finished training, over all its sessions."""
        job = self.job
        measured, why = account_of(
            lambda folder: prediction_files(job.source, folder), job.source, job.output, job.regions
        )
        sessions = read_sessions(job.output / self.file)
        metrics = measured or sessions[-1]["metrics_on_real_cases"]
        result = training_result_of(sessions, job.output, metrics)
        number = sum(one["spread"] for session in sessions for one in session["per_subepoch"])
        spread = (
            f"segments of {number} synthetic cases were taken from the whole case, because no "
            "voxel of the sample has room for a segment around it; fit the generator with a larger "
            "size, or train with smaller segments"
        )
        warnings = (*job.share.notes, *([spread] if number else []), *result.warnings, why)
        return replace(result, warnings=tuple(filter(None, warnings)))

    # -- before ----------------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        """See ``HostSession.describe``."""
        return describe(self.job)

    def demand(self) -> BankRequirements:
        """See ``HostSession.demand``."""
        job, sample_source = self.job, self.job.sample_source
        run = None if sample_source is None or job.mix_config.ratio.p == 0 else sample_source.run
        return BankRequirements(
            mix_config=job.mix_config,
            target="deepmedic",
            request=job.source.request.to_json(),
            run_id=None if sample_source is None else sample_source.run_id,
            cases=len(job.source.train_ids),
            sample_bytes=0 if run is None else sample_bytes(run.manifest, job.source),
            batch_size=job.slots,
            samples=job.total * job.share.cases,
            output=job.output,
            say=self.say,
            dtype=stored(job.source),
            progress=self.now(),
            gpus=job.choices.gpus,
        )

    def make_plan(self) -> MixerConfig[int]:
        """See ``HostSession.make_plan``."""
        job, ids = self.job, self.job.source.train_ids
        plan: MixerConfig[int] = job.mix_config.plan(
            self.bank,
            self.log,
            batches=job.total,
            subjects={index: job.source.header(case).subject for index, case in enumerate(ids)},
            done=self.first * job.config.subepochs,
        )
        # Tables are keyed by subepoch: those of a training that is continued go on, too.
        workers = max(1, job.config.processes)
        return replace(plan, stream=(0,), patience=job.patience, workers=workers)

    def case(self, key: int) -> str:
        """See ``HostSession.case``."""
        return self.job.source.train_ids[key]

    def more(self) -> dict[str, Any]:
        """See ``HostSession.more``."""
        checkpoint = self._checkpoint
        if checkpoint is not None and checkpoint.is_absolute():
            checkpoint = checkpoint.relative_to(self.output)
        return {
            "checkpoint": None if checkpoint is None else str(checkpoint),
            "metrics_on_real_cases": dict(self._metrics),
            "per_subepoch": [
                subepoch.to_json(number) for number, subepoch in sorted(self._subepochs.items())
            ],
        }

    def _order(self, cases: tuple[HostCase, ...]) -> TrainingOrder:
        job, choices, mix_config = self.job, self.job.choices, self.job.mix_config
        values = choices.values(
            job.source.config, job.output, augmented=mix_config.usual_augmentation
        )
        slots, _ = write_layout(
            job.source.config, job.output, job.share, cases, job.slots, values=values
        )
        arguments = choices.arguments
        if self._checkpoint is not None:  # in place of the user's, with what it says of the epochs
            kept = (word for word in arguments if word != "-resetopt")
            arguments = (*kept, "-load", str(self._checkpoint))
        return TrainingOrder(
            output=job.output,
            train_config=job.output / TRAIN,
            plan=self.plan,
            cases=cases,
            count=job.share.cases,
            slots=slots,
            model_config=choices.model,
            done=self.first,
            subepochs=job.config.subepochs,
            seed=mix_config.seed,
            augment_synthetic=mix_config.augment_synthetic,
            checkout=job.program.checkout,
            arguments=("-model", str(choices.model), *arguments),
        )

    # -- while training --------------------------------------------------------------------------

    def _train(self, order: TrainingOrder) -> processes.ProcessResult:
        output, program = self.job.output, self.job.program
        with disk_errors(output):
            (output / PROGRESS).unlink(missing_ok=True)
            write_json_atomic(output / ORDER, order.to_json())
        words, environ = command(program, output / ORDER), environ_of(program)
        assert self.display is not None
        with watch(output / PROGRESS, self._take, self.say):
            return processes.run(words, environ, output / LOG, show=self.display.line)

    def _take(self, document: Mapping[str, Any]) -> None:
        """Process one document of ``order.Progress``."""
        if "step" in document:
            self.step(*document["step"])
        elif "job" in document:
            job = document["job"]
            subepoch = self._subepochs.setdefault(int(job["subepoch"]), SubepochCounts())
            subepoch.jobs[int(job["place"])] = job
        elif "trained" in document:
            self._trained(int(document["trained"]))
        elif "epoch" in document:
            self._epoch(int(document["epoch"]), document.get("metrics") or {})
        elif "end" in document:
            self._ended, self._metrics = True, document["end"]

    def _trained(self, number: int) -> None:
        subepoch = self._subepochs.setdefault(number, SubepochCounts())
        subepoch.trained = True
        self.note(
            f"{NAME}subepoch {number + 1} of {self.job.total} trained on {subepoch.sentence()}"
        )
        self.report()

    def _epoch(self, done: int, metrics: Mapping[str, Any]) -> None:
        """Record the end of an epoch; a second call adds later metrics."""
        again = done == self.done
        self.finish_epoch(done, dict(flat(metrics)))
        self._checkpoint = newest_checkpoint(self.output)
        self.write()  # first: who reads the line may end the training
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
