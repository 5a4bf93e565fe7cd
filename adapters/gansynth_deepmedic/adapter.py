"""DeepMedic as a target framework: data sets extended on disk, or training fed on the fly.

On the fly, the user's unmodified checkout trains in its own Python, as a child process. This
process owns the sample bank and its producer.
"""

# ruff: noqa: D102 - methods that override those of Framework

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Any, ClassVar, Literal

from gansynth.bank.reader import BankReader
from gansynth.core.host_commands import ExportRequest, TrainingRequest
from gansynth.core.mix_config import Mix, MixConfig, TrainingResult
from gansynth.core.prediction import Prediction
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import CaseSource
from gansynth.hosts.host import Framework, Job
from gansynth.hosts.launch import device_of
from gansynth.hosts.record import FILE, read_sessions
from gansynth.hosts.sample_source import SampleSource, check_drawing
from gansynth.metrics.segmentation.results import FILE as METRICS
from gansynth.metrics.segmentation.results import account_of, asked_regions
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.progress import NullReporter
from gansynth_deepmedic.config import (
    AUGMENTATION,
    DeepMedicSettings,
    absolute,
    program_options,
    refuse_without_checkout,
)
from gansynth_deepmedic.configs import TrainConfig, read_model_config
from gansynth_deepmedic.guards import SMALLEST, check_bank, check_run
from gansynth_deepmedic.layout import TRAIN, write_layout
from gansynth_deepmedic.predictions import WAY_OUT, prediction_files, refuse_unmeasurable
from gansynth_deepmedic.program import DeepMedicProgram, commit_of, find_program
from gansynth_deepmedic.real_space import training_cases
from gansynth_deepmedic.source import DeepMedicSource
from gansynth_deepmedic.subepoch_shares import SubepochShare, same_segments, share_on_the_fly
from gansynth_deepmedic.subepochs import TrainingOrder
from gansynth_deepmedic.training import check_checkpoint, checkpoint_in, run_program

OF_THE_MACHINE = ("folderForOutput", "num_processes_sampling")
"""Settings that may change when a training goes on."""
PATIENCE = 45.0
"""Seconds that a forked process waits for a sample; after 60 DeepMedic asks for its case again."""


class DeepMedicAdapter(Framework):
    """Augments the training of one DeepMedic configuration."""

    name: ClassVar[str] = "deepmedic"
    title: ClassVar[str] = "DeepMedic"
    length_option: ClassVar[str] = "epochs"
    Options = DeepMedicSettings
    needs: ClassVar[Literal["labels", "boxes"]] = "labels"
    rewrites_real: ClassVar[bool] = True
    unit = "subepoch"
    result = ""
    may_change = ("dev",)
    augmentation = ("affine",)
    stronger: ClassVar[Mapping[str, str]] = {"affine": "0.5"}
    same = ("channels",)
    source: DeepMedicSource
    options: DeepMedicSettings
    model: str
    """Path of the network's configuration."""
    config: TrainConfig
    """The user's file with the numbers of this training."""
    share: SubepochShare
    program: DeepMedicProgram

    def __init__(self, source: CaseSource) -> None:
        if not isinstance(source, DeepMedicSource):
            raise UsageFault(
                f"--data {source.request.kind}:{source.request.where}: DeepMedic trains by its own "
                "configuration, expected deepmedic:trainConfig.cfg"
            )
        super().__init__(source)
        self._looked: set[str] = set()

    @property
    def sample_size(self) -> tuple[int, ...]:
        return SMALLEST

    def validate(self) -> None:
        source = self.source
        if source.request.fold == "all":
            raise UsageFault(
                "--fold all: leaves no case to validate DeepMedic on; expected fold 0, the lists "
                f"of {source.config.path}"
            )
        if source.options.spacing != "native":
            raise UsageFault(
                f"--read spacing={source.request.read.get('spacing', source.options.spacing)}: "
                "DeepMedic reads voxels as stored, and resampled samples cannot be converted back "
                "exactly; expected native. Leave it out, here and for the generator"
            )

    def check_run(self, run: RunFolder, mix_config: MixConfig) -> None:
        check_run(run, mix_config, self.source)

    def check_bank(self, reader: BankReader) -> None:
        check_bank(reader, self.source)

    # -- the training ----------------------------------------------------------------------------

    @classmethod
    def read_own(cls, options: Sequence[str]) -> Mapping[str, Any]:
        return program_options(options)

    def open_training(self) -> None:
        """Read the network and the numbers of a subepoch."""
        super().open_training()
        source, options, mix_config = self.source, self.options, self.mix_config
        refuse_without_checkout(options.deepmedic, list(self.own))
        named, asked = self.own.get("model"), options.model and absolute(options.model)
        if named and asked and named != asked:
            raise UsageFault(
                f"-- -model {named} and --set model={options.model}: expected one of them; leave "
                "the other out"
            )
        model = named or asked or (source.model and str(source.model.path))
        if not model:
            raise UsageFault(
                "--set model: DeepMedic has no network of its own, expected its configuration: "
                "-- -model modelConfig.cfg"
            )
        self.model, self.config = model, options.asked(source.config)
        self._check_data()
        self.share = share_on_the_fly(
            *(mix_config.ratio, self.config.cases, self.config.segments, self.config.batch),
            real=len(source.train_ids),
            constant=mix_config.schedule.kind == "constant",
        )
        self.regions = asked_regions(options.regions, source)

    def check_options(self) -> None:
        """Find the program, and check the run whose space real cases go through."""
        of_run = self._check_real_space(self.mix_config)
        self.sample_source = self.sample_source or of_run
        self.program = find_program(self.options.deepmedic, self.options.deepmedic_python)

    def check(self, request: TrainingRequest) -> None:
        super().check(request)
        training = self.opened(request)
        if training.done(training.output) < training.total:
            check_checkpoint(training.output)

    @property
    def length(self) -> tuple[int, int]:
        """Subepochs, and the cases that one loads together."""
        return self.config.epochs * self.config.subepochs, self.share.cases

    @property
    def places(self) -> int:
        return self.share.cases

    @property
    def program_device(self) -> str:
        """Device as DeepMedic writes it: ``cpu``, ``cuda`` or ``cuda1``."""
        return str(self.own.get("dev") or device_of(self.options.device).replace(":", ""))

    @property
    def gpus(self) -> tuple[int, ...]:
        match = re.fullmatch(r"cuda(\d*)", self.program_device)
        return () if match is None else (int(match[1] or 0),)

    def done(self, folder: Path) -> int:
        """Return the subepochs before DeepMedic's newest checkpoint: it has one an epoch."""
        return int(checkpoint_in(folder)["subepochs"])

    def describe_training(self) -> Mapping[str, Any]:
        """Describe cases and segments of a subepoch, and roundings."""
        config, share = self.config, self.share
        each = share.segments // share.cases
        cases: dict[str, Any] = {"all": share.cases, "synthetic_at_most": self._most_synthetic()}
        segments: dict[str, Any] = {"all": share.segments, "of_each_case": each}
        if share.real is not None and share.synthetic is not None:
            cases = {"real": share.real, "synthetic": share.synthetic}
            segments = {key: each * count for key, count in cases.items()}
        commit = commit_of(self.program.checkout)
        return {
            "model": self.model,
            "session": config.session,
            "epochs_of_deepmedic": config.epochs,
            "subepochs_of_an_epoch": config.subepochs,
            "batch": config.batch,
            "cases_per_subepoch": cases,
            "segments_per_subepoch": segments,
            "said": list(share.notes),
            "versions": {**self.program.versions, "deepmedic": commit},
        }

    def described(self) -> dict[str, Any]:
        """Describe one session, with all keys of the configuration as its settings."""
        values = {**self.config.values, "regions": self.options.regions}
        settings = {key: value for key, value in values.items() if key not in OF_THE_MACHINE}
        settings |= {"model": self.model, "session": self.config.session}
        return {**super().described(), "settings": settings, **self.describe_training()}

    def train(self, job: Job) -> None:
        """Start the program, unless nothing is left to train."""
        for text in self.share.notes:
            job.say(text)
        if job.first < job.steps:
            run_program(job, self._order(job), self.program, self.config)

    def _order(self, job: Job) -> TrainingOrder:
        source, config = self.source, self.source.config
        if self.mix_config.real_in_generator_space:
            job.say("real cases go through the generator's space")
        cases = training_cases(source, self.mix_config, job.folder, NullReporter())
        off = () if self.mix_config.usual_augmentation else AUGMENTATION
        values = {**self.options.changed(), "folderForOutput": str(job.folder)}
        values |= dict.fromkeys(key for key in off if config.values.get(key))
        write_layout(config, job.folder, self.share, cases, 0, values=values)
        arguments = ["-model", self.model, "-train", str(job.folder / TRAIN)]
        arguments += ["-dev", self.program_device]
        if job.first:  # in place of the user's, with what it says of the epochs
            arguments += ["-load", str(job.folder / checkpoint_in(job.folder)["file"])]
        else:
            arguments += ["-load", self.own["load"]] if "load" in self.own else []
            arguments += ["-resetopt"] if "resetopt" in self.own else []
        plan, processes = job.rounds.plan, self.config.processes
        patience = min(plan.patience, PATIENCE) if processes > 0 else plan.patience
        return TrainingOrder(
            checkout=self.program.checkout,
            arguments=tuple(arguments),
            plan=replace(plan, patience=patience, workers=max(1, processes)),
            cases=cases,
            count=self.share.cases,
            first=job.first,
            total=job.steps,
            seed=job.seed,
            augment_synthetic=self.mix_config.augment_synthetic,
        )

    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Compare DeepMedic's segmentations; without them, return the Dice in its log."""
        measured, why = account_of(
            lambda folder: prediction_files(self.source, folder),
            *(self.source, job.folder, self.regions),
        )
        return measured or {"dice": checkpoint_in(job.folder)["dice"], "not_measured": why}

    def start(self, request: TrainingRequest) -> TrainingResult:
        """Train and evaluate; warn of roundings, and of segments that lie anywhere in a case."""
        result = super().start(request)
        rounds = _rounds(result.folder)
        number = sum(counts["spread"] for counts in rounds.values())
        spread = (
            f"segments of {number} synthetic cases were taken from the whole case, because no "
            "voxel of the sample has room for a segment around it; fit the generator with a larger "
            "size, or train with smaller segments"
        )
        notes = self.opened(request).describe_training()["said"]
        said = (*notes, *([spread] if number else []))
        why = result.metrics.get("not_measured")
        return replace(result, warnings=(*said, *result.warnings, *([why] if why else [])))

    def check_judged(self, settings: Mapping[str, str]) -> None:
        refuse_unmeasurable(self.source)

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        return prediction_files(self.source, folder)

    @classmethod
    def scores(cls, folder: Path) -> dict[str, Any]:
        """Return the steps of a training, and the Dice of every case."""
        batch = read_sessions(folder / FILE)[-1]["batch"]
        segments = (
            counts["segments_real"] + counts["segments_synthetic"]
            for counts in _rounds(folder).values()
        )
        measured = read_json(folder / METRICS, hint=WAY_OUT)["per_case"]
        return {
            "steps": sum(count // batch for count in segments),
            "per_case": {case: scores["dice"] for case, scores in measured.items()},
        }

    # -- benchmarks and exports ------------------------------------------------------------------

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Return epochs, and the least segments of a subepoch that fit all ratios exactly."""
        config = self.source.config
        segments = int(settings.get("segments", config.segments))
        kinds = [(ratio, schedule.kind == "constant") for ratio, schedule in mixes]
        segments = same_segments(kinds, config.cases, segments, config.batch, real=cases)
        each = int(settings.get("subepochs", config.subepochs)) * (segments // config.batch)
        length = {"segments": str(segments), "epochs": str(max(1, round(steps / each)))}
        return [length for _ in mixes]

    def export(self, request: ExportRequest) -> Mapping[str, Any]:
        from gansynth_deepmedic.export import DeepMedicExport

        self.validate()
        self._check_real_space(request.mix_config)
        if request.mix_config.ratio.p > 0:
            self.check_samples(request.mix_config)
        check_drawing(self, request.mix_config)
        return DeepMedicExport(self.source, request).run()

    # -- one training ----------------------------------------------------------------------------

    def _most_synthetic(self) -> int:
        ratio, share = self.mix_config.ratio, self.share
        if self.mix_config.schedule.kind != "constant":
            return share.cases if ratio.p > 0 else 0
        return min(share.cases, ceil(ratio.p * share.cases))

    def _check_real_space(self, mix_config: MixConfig) -> SampleSource | None:
        if not mix_config.real_in_generator_space:
            return None
        if mix_config.run is None:
            raise UsageFault(
                "--real-in-generator-space: no run of a generator is named, expected the run of "
                "that space; name it by --generator"
            )
        samples = SampleRequest(edits=mix_config.samples.edits if mix_config.ratio.p > 0 else None)
        return self.check_samples(replace(mix_config, bank=None, samples=samples))

    def _check_data(self) -> None:
        """Reject configurations that no sample fits, and check the network once with all data."""
        from gansynth_deepmedic.check import refuse_unusable

        config = self.source.config
        if config.weighted:
            raise DataFault(
                f"{config.path}: weightedMapsForSamplingEachCategoryTrain is set, but synthetic "
                "cases have no such maps; expected sampling by labels (typeOfSamplingForTraining). "
                "Remove that key"
            )
        if self.mix_config.ratio.p > 0 and any(config.normalised):
            raise DataFault(
                f"{config.path}: norm_zscore_prms is set, so DeepMedic normalises each case within "
                "its region of interest, which is the sample of a synthetic case. Expected images "
                "that are normalised already; remove that key"
            )
        if self.model not in self._looked:
            refuse_unusable(self.source, read_model_config(Path(self.model)))
            self._looked.add(self.model)


def _rounds(folder: Path) -> dict[int, Mapping[str, Any]]:
    """Return the counts of each subepoch in the record, when it was last trained on."""
    sessions = read_sessions(folder / FILE)
    return {counts["epoch"]: counts for session in sessions for counts in session["per_epoch"]}
