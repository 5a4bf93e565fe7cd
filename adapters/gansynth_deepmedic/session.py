"""One DeepMedic training: sample bank, producer, training process, counts and record."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from gansynth.bank.training_bank import BankRequirements
from gansynth.core.mix_config import MixerConfig, TrainingResult
from gansynth.hosts.record import LOG, epochs_done, read_sessions, training_result_of
from gansynth.hosts.session import HostSession
from gansynth.metrics.segmentation.results import account_of
from gansynth.runtime.child import NAME, WARNING
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.processes import ProcessResult, raise_if_stopped, run
from gansynth.runtime.progress import Reporter
from gansynth_deepmedic.guards import sample_bytes
from gansynth_deepmedic.insertion import HostCase
from gansynth_deepmedic.layout import TRAIN, write_layout
from gansynth_deepmedic.program import command, environ_of
from gansynth_deepmedic.program_log import ProgramLog, dice_of
from gansynth_deepmedic.real_space import training_cases
from gansynth_deepmedic.record import (
    COMPARED,
    DeepMedicJob,
    checkpoint_of,
    newest_checkpoint,
    prediction_files,
)
from gansynth_deepmedic.training_order import ORDER, TrainingOrder

_PATIENCE = 45.0
"""Seconds that a forked process waits for a sample; after 60 DeepMedic asks for its case again."""


class DeepMedicSession(HostSession[int]):
    """Trains, reads DeepMedic's log and records; ``run`` does it all."""

    compared = COMPARED

    def __init__(self, job: DeepMedicJob, reporter: Reporter) -> None:
        self.job, self.reporter = job, reporter
        first = epochs_done(job.output)
        super().__init__(job.mix_config, job.output, first, job.config.epochs, reporter)
        self.batches = job.config.subepochs * (job.config.segments // job.config.batch)
        file = job.output / "logs" / f"{job.config.session}.txt"
        self.training_log = ProgramLog(file, first * job.config.subepochs)
        self._metrics: dict[str, Any] = {}
        self._checkpoint: str | None = None
        self._last = 0, 0.0  # batches of the subepoch, and when they were done
        self._failed = False

    def run(self) -> None:
        """Train to the end. However it ends, no process is left and the record is written.

        Raises:
            EnvironmentFault: too little disk space for the bank, or the disk refuses.
            TrainingFault: the bank does not fill, or the training failed.
            KeyboardInterrupt, SystemExit: interrupted; the training process has ended too.
        """
        job = self.job
        if self.first:
            self._checkpoint = checkpoint_of(job.output)
        self.open()
        note = job.mix_config.schedule.tuning_note(job.config.epochs, "epoch", ours=False)
        for text in filter(None, (*job.share.notes, note)):
            self.say(text)
        try:
            cases = training_cases(job.source, job.mix_config, job.output, self.reporter)
            self.start()
            self.steer()
            ended = self._train(self._order(cases))
        finally:
            self.close(self.training_log.complete)
        raise_if_stopped(ended)
        if not self.training_log.complete:
            raise self.training_log.fault(ended, job.output / LOG)

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
        return self.job.describe()

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
            batch_size=job.most_synthetic,
            samples=job.total * job.share.cases,
            output=job.output,
            say=self.say,
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
        workers = max(1, job.config.processes)
        patience = min(job.patience, _PATIENCE) if job.config.processes > 0 else job.patience
        # Tables are keyed by subepoch: those of a training that is continued go on, too.
        return replace(plan, stream=(0,), patience=patience, workers=workers)

    def case(self, key: int) -> str:
        """See ``HostSession.case``."""
        return self.job.source.train_ids[key]

    def more(self) -> dict[str, Any]:
        """See ``HostSession.more``."""
        return {
            "checkpoint": self._checkpoint,
            "metrics_on_real_cases": self._metrics,
            "per_subepoch": self.training_log.subepochs(),
        }

    def _order(self, cases: tuple[HostCase, ...]) -> TrainingOrder:
        job, arguments = self.job, self.job.choices.arguments
        augmented = job.mix_config.usual_augmentation
        values = job.choices.values(job.source.config, job.output, augmented=augmented)
        write_layout(job.source.config, job.output, job.share, cases, 0, values=values)
        if self._checkpoint is not None:  # in place of the user's, with what it says of the epochs
            kept = (word for word in arguments if word != "-resetopt")
            arguments = (*kept, "-load", str(job.output / self._checkpoint))
        files = "-model", str(job.choices.model), "-train", str(job.output / TRAIN)
        return TrainingOrder(
            checkout=job.program.checkout,
            arguments=(*files, *arguments),
            plan=self.plan,
            cases=cases,
            count=job.share.cases,
            first=self.first * job.config.subepochs,
            total=job.total,
            seed=job.mix_config.seed,
            augment_synthetic=job.mix_config.augment_synthetic,
        )

    # -- while training --------------------------------------------------------------------------

    def _train(self, order: TrainingOrder) -> ProcessResult:
        output, program = self.job.output, self.job.program
        write_json_atomic(output / ORDER, order.to_json())
        words, environ = command(program, output / ORDER), environ_of(program)
        ended = run(words, environ, output / LOG, show=self._look)
        self._look("")
        return ended

    def _look(self, line: str) -> None:
        """Process what is new in DeepMedic's log, which has every line that it prints."""
        assert self.display is not None
        try:
            self.display.line(line)
            for name, value in self.training_log.new():
                self._take(name, value)
        except Exception as error:  # training continues without complete counts
            if not self._failed:
                self._failed = True
                self.say(
                    f"{WARNING}the training continues, but its progress is not completely counted: "
                    f"{type(error).__name__}: {error}"
                )

    def _take(self, name: str, value: str) -> None:
        if name == "step":
            self._steps_done(int(value))
        elif name == "trained":
            number = self.training_log.trained
            words = sentence(self.training_log.counts(number - 1))
            self.note(f"{NAME}subepoch {number} of {self.job.total} trained on {words}")
            self.report()
        elif name == "epoch":
            self.finish_epoch(int(value) + 1, {})
            self._checkpoint = newest_checkpoint(self.output)
            self.write()  # first: who reads the line may end the training
            self.note(f"{NAME}epoch {self.done} of {self.total}: {self.sentence()}")
            self.pause()
            self.report()
        elif name == "dice":
            self._metrics = {"dice": dice_of(value)}
            self.note(f"{NAME}Dice of validation cases: {dict(self._metrics['dice'])}")
            self.write()

    def _steps_done(self, count: int) -> None:
        """Note the steps since DeepMedic's last line about them, as equally long."""
        now = time.monotonic()
        before, began = self._last
        self._last = count, now
        each = (now - began) / max(1, count - before)
        for number in range(count - before):  # none at the beginning of a subepoch
            self.step(began + number * each, began + (number + 1) * each)


def sentence(counts: Mapping[str, Any]) -> str:
    """Return the counts of a subepoch in words."""
    text = (
        "{cases_real} real and {cases_synthetic} synthetic cases ({segments_real} and "
        "{segments_synthetic} segments)"
    )
    if counts["fell_back"]:
        text += "; {fell_back} of the real ones in place of a missing synthetic one"
    if counts["spread"]:
        text += "; segments of {spread} of the synthetic ones lie anywhere in them"
    return text.format(**counts)
