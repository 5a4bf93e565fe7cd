"""DeepMedic as a target framework: data sets extended on disk, or training fed on the fly.

On the fly, the user's unmodified checkout trains in its own Python, as a child process. This
process owns the sample bank and its producer.
"""

from __future__ import annotations

import argparse
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import ceil
from pathlib import Path
from typing import Annotated, Any, ClassVar, NoReturn

from pydantic import Field

from gansynth import (
    AugmentRequest,
    DataSetExport,
    Device,
    Framework,
    FrameworkOptions,
    Job,
    PredictJob,
    TrainingResult,
    UsageFault,
)
from gansynth_deepmedic.check import refuse_unusable
from gansynth_deepmedic.configs import TrainConfig, read_model_config
from gansynth_deepmedic.hook import TrainingOrder
from gansynth_deepmedic.intake import DeepMedicIntake
from gansynth_deepmedic.layout import TRAIN, training_cases, write_layout
from gansynth_deepmedic.program import (
    CHECKOUT,
    DeepMedicProgram,
    ProgramSettings,
    check_checkpoint,
    checkpoint_in,
    commit_of,
    find_program,
    run_program,
)
from gansynth_deepmedic.results import predictions, rounds_of
from gansynth_deepmedic.source import DeepMedicSource
from gansynth_deepmedic.subepoch_shares import SubepochShare, share_on_the_fly

AUGMENTATION = ("augm_img_prms_tr", "augm_sample_prms_tr", "reflectImagesPerAxis", "performIntAugm")
"""Keys that augment training cases or segments, also those of earlier versions."""
LENGTH_KEYS = ("epochs", "subepochs", "segments")
"""Keys that say how long a training is."""
OF_THE_MACHINE = ("folderForOutput", "num_processes_sampling")
"""Settings that may change when a training goes on."""
LONGEST_WAIT = 45.0
"""Seconds that a forked process waits for a sample; after 60 DeepMedic asks for its case again."""

Count = Annotated[int | None, Field(ge=1)]


class DeepMedicSettings(ProgramSettings, FrameworkOptions):
    """``gansynth augment --target deepmedic --set``."""

    device: Device = Field("cpu", description="training device, as -dev: cpu, cuda or cuda:N")
    regions: str = Field(
        "",
        description="regions to report Dice and HD95 of, as unions of labels: WT:1+2+3+4,TC:1+3+4",
    )
    model: str | None = Field(None, description="modelConfig.cfg of the network")
    epochs: Count = Field(None, description="epochs to train (numberOfEpochs)")
    subepochs: Count = Field(None, description="subepochs of an epoch (numberOfSubepochs)")
    cases: Count = Field(None, description="cases of a subepoch (numOfCasesLoadedPerSubepoch)")
    segments: Count = Field(
        None, description="segments of a subepoch (numberTrainingSegmentsLoadedOnGpuPerSubep)"
    )
    batch: Count = Field(
        None, le=65536, description="segments of a training step (batchsize_train)"
    )
    processes: int | None = Field(
        None,
        ge=-1,
        description="processes that sample segments; -1 for none (num_processes_sampling)",
    )
    affine: float | None = Field(
        None,
        ge=0,
        le=1,
        description="probability that a training case is rotated (up to 45 degrees) and zoomed "
        "(up to 10 %); replaces augm_img_prms_tr",
    )

    @property
    def numbers(self) -> dict[str, int]:
        """Fields of ``TrainConfig`` that the settings replace."""
        keys = ("epochs", "subepochs", "cases", "segments", "batch", "processes")
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}

    @property
    def values(self) -> dict[str, Any]:
        """Keys of ``trainConfig.cfg`` that the settings replace."""
        fields = TrainConfig.model_fields
        values: dict[str, Any] = {
            str(fields[key].alias): number for key, number in self.numbers.items()
        }
        if self.affine is not None:
            values["augm_img_prms_tr"] = {"affine": {"prob": self.affine}}
        return values


class DeepMedicAdapter(Framework):
    """Augments the training of one DeepMedic configuration."""

    name: ClassVar[str] = "deepmedic"
    title: ClassVar[str] = "DeepMedic"
    length_options = ("epochs",)
    Options = DeepMedicSettings
    Intake = DeepMedicIntake
    rewrites_real: ClassVar[bool] = True
    unit = "subepoch"
    result = ""
    may_change = ("dev",)
    augmentation = ("affine",)
    source: DeepMedicSource
    options: DeepMedicSettings
    model: str
    """Path of the network's configuration."""
    config: TrainConfig
    """The user's file with the numbers of this training."""
    share: SubepochShare
    program: DeepMedicProgram

    # -- what it refuses -------------------------------------------------------------------------

    def validate(self) -> None:
        source = self.source
        if source.request.fold == "all":
            raise UsageFault(
                "deepmedic.nothing-to-validate",
                "--fold all: leaves no case to validate DeepMedic on; expected fold 0, the lists "
                f"of {source.config.path}",
            )
        if source.options.spacing != "native":
            raise UsageFault(
                "deepmedic.spacing-resampled",
                f"--read spacing={source.request.read.get('spacing', source.options.spacing)}: "
                "DeepMedic reads voxels as stored, and resampled samples cannot be converted back "
                "exactly; expected native. Leave it out, here and for the generator",
            )

    def check(self) -> None:
        if self.done(self.output) < self.length[0]:
            check_checkpoint(self.output)

    # -- the training ----------------------------------------------------------------------------

    @classmethod
    def read_own(cls, options: Sequence[str]) -> Mapping[str, Any]:
        """Read arguments for ``deepMedicRun``, with absolute paths."""
        parser = argparse.ArgumentParser(add_help=False)
        for name in ("-model", "-load", "-dev", "-train", "-test"):
            parser.add_argument(name)
        parser.add_argument("-resetopt", action="store_true")

        def refuse(message: str) -> NoReturn:
            text = message.removeprefix("argument ")
            raise UsageFault(
                "deepmedic.own-options-unreadable",
                f"-- {text}; expected options of deepMedicRun, such as -dev cuda0",
            )

        parser.error = refuse  # type: ignore[method-assign]
        found = {key: value for key, value in vars(parser.parse_args(options)).items() if value}
        for name in {"train", "test"} & found.keys():
            raise UsageFault(
                "deepmedic.own-data-option",
                f"-- -{name}: --data sets the training data, and augment only trains; leave it "
                "out, and test afterwards by DeepMedic",
            )
        if not re.fullmatch(r"cpu|cuda\d*", found.get("dev", "cpu")):
            raise UsageFault(
                "deepmedic.device-unknown",
                f"-- -dev {found['dev']}: expected cpu, cuda, or cuda0 and so on",
            )
        return {k: _absolute(v) if k in ("model", "load") else v for k, v in found.items()}

    def open(self) -> None:
        """Read the network and the numbers of a subepoch, and find the program."""
        source, options, request = self.source, self.options, self.request
        if options.deepmedic is None and not (self.own and os.environ.get(CHECKOUT)):
            raise UsageFault(
                "deepmedic.no-checkout-or-output",
                "no checkout or output is given, expected one of: --export DIR, a data set for "
                "stock DeepMedic; --deepmedic CHECKOUT, your own DeepMedic trained on the fly (or "
                f"{CHECKOUT} with -- -model modelConfig.cfg); or, without one, its network in "
                "torch: --target segmenter --network deepmedic",
            )
        model = self.own.get("model") or (options.model and _absolute(options.model))
        model = model or (source.model and str(source.model.path))
        if not model:
            raise UsageFault(
                "deepmedic.no-network-configuration",
                "--set model: DeepMedic has no network of its own, expected its configuration: "
                "-- -model modelConfig.cfg",
            )
        changes: dict[str, Any] = {"values": dict(source.config.values) | dict(options.values)}
        changes.update(options.numbers)
        self.model = model
        self.config = source.config.model_copy(update=changes)
        mixed = bool(request.mix.synthetic)
        refuse_unusable(source, read_model_config(Path(model)), mixed=mixed)
        self.share = share_on_the_fly(
            request.mix.ratio,
            self.config.cases,
            self.config.segments,
            self.config.batch,
            real=len(source.train_ids),
            constant=request.mix.schedule.kind == "constant",
        )
        self.regions = self.asked_regions()
        self.program = find_program(options.deepmedic, options.deepmedic_python)

    @property
    def length(self) -> tuple[int, int]:
        return self.config.epochs * self.config.subepochs, self.share.cases

    @property
    def round_size(self) -> int:
        return self.share.cases

    @property
    def loaders(self) -> int:
        return max(0, self.config.processes)

    @property
    def usual_samples(self) -> int:
        """Cases of DeepMedic's default epochs, with as many segments as it has by default."""
        usual = {key: int(TrainConfig.model_fields[key].default) for key in LENGTH_KEYS}
        subepochs = usual["epochs"] * usual["subepochs"]
        return subepochs * self.round_size * usual["segments"] // self.config.segments

    @property
    def program_device(self) -> str:
        """Device as DeepMedic writes it: ``cpu``, ``cuda`` or ``cuda1``."""
        return str(self.own.get("dev") or self.device_of(self.options.device).replace(":", ""))

    @property
    def gpus(self) -> tuple[int, ...]:
        match = re.fullmatch(r"cuda(\d*)", self.program_device)
        return () if match is None else (int(match[1] or 0),)

    def done(self, folder: Path) -> int:
        """Return the subepochs before DeepMedic's newest checkpoint: it has one an epoch."""
        return int(checkpoint_in(folder)["subepochs"])

    def describe_training(self) -> Mapping[str, Any]:
        """Describe cases and segments of a subepoch, and roundings."""
        config, share, mix = self.config, self.share, self.request.mix
        cases, segments = share.described
        if not cases:
            part = mix.ratio.p if mix.schedule.kind == "constant" else mix.ratio.p > 0
            cases = {"all": share.cases, "synthetic_at_most": ceil(part * share.cases)}
            segments = {"all": share.segments, "of_each_case": share.segments // share.cases}
        commit = commit_of(self.program.checkout)
        return {
            "model": self.model,
            "program": [str(self.program.checkout), str(self.program.python)],
            "session": config.session,
            "epochs_of_deepmedic": config.epochs,
            "subepochs_of_an_epoch": config.subepochs,
            "batch": config.batch,
            "cases_per_subepoch": cases,
            "segments_per_subepoch": segments,
            "said": list(share.notes),
            "versions": dict(self.program.versions, deepmedic=commit),
        }

    def recorded(self, usual: Mapping[str, Any]) -> Mapping[str, Any]:
        """Describe one session, with all keys of the configuration as its settings."""
        values = dict(self.config.values, regions=self.options.regions)
        settings = {key: value for key, value in values.items() if key not in OF_THE_MACHINE}
        settings |= {"model": self.model, "session": self.config.session}
        record = dict(usual, settings=settings)
        record.update(self.describe_training())
        return record

    def train(self, job: Job) -> None:
        """Start the program, unless nothing is left to train."""
        for text in self.share.notes:
            job.say(text)
        if job.first < job.steps:
            run_program(job, self._order(job), self.program, self.config)

    def _order(self, job: Job) -> TrainingOrder:
        source, request = self.source, self.request
        if request.real_in_generator_space:
            job.say("real cases go through the generator's space")
        silent = Framework.reporter  # a training shows its own steps
        cases = training_cases(source, request, job.folder, silent)
        values = dict(self.options.values) | dict(self.share.values)
        values["folderForOutput"] = str(job.folder)
        if not request.host_augmentation:
            for key in AUGMENTATION:
                if source.config.values.get(key):
                    values[key] = None
        write_layout(source, job.folder, cases, values)
        arguments = ["-model", self.model, "-train", str(job.folder / TRAIN)]
        arguments += ["-dev", self.program_device]
        if job.first:  # in place of the user's, with what it says of the epochs
            arguments += ["-load", str(job.folder / checkpoint_in(job.folder)["file"])]
        else:
            arguments += ["-load", self.own["load"]] if "load" in self.own else []
            arguments += ["-resetopt"] if "resetopt" in self.own else []
        plan, processes = job.rounds.plan, self.config.processes
        sample_timeout = plan.sample_timeout
        if processes > 0:
            sample_timeout = min(sample_timeout, LONGEST_WAIT)
        return TrainingOrder(
            checkout=self.program.checkout,
            arguments=tuple(arguments),
            plan=replace(plan, sample_timeout=sample_timeout, workers=max(1, processes)),
            cases=cases,
            count=self.share.cases,
            first=job.first,
            total=job.steps,
            seed=job.seed,
            augment_synthetic=request.augment_synthetic,
        )

    def reported(self, result: TrainingResult) -> TrainingResult:
        """Warn of roundings, and of segments that lie anywhere in a case."""
        said = list(self.share.notes)
        number = sum(counts["spread"] for counts in rounds_of(result.folder))
        if number:
            said.append(
                f"segments of {number} synthetic cases were taken from the whole case, because no "
                "voxel of the sample has room for a segment around it; fit the generator with a "
                "larger size, or train with smaller segments"
            )
        said += result.warnings
        why = result.metrics.get("not_measured")
        if why:
            said.append(why)
        return replace(result, warnings=tuple(said))

    # -- its predictions -------------------------------------------------------------------------

    @classmethod
    def predict_images(cls, job: PredictJob) -> Sequence[Path]:
        from gansynth_deepmedic.predict import predict_images

        return predict_images(job, cls.device_of(job.device))

    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Compare DeepMedic's segmentations; without them, return the Dice in its log."""
        measured, why = self.account_of(predictions, job.folder, job.count)
        return measured or {"dice": checkpoint_in(job.folder)["dice"], "not_measured": why}

    @classmethod
    def exporter(cls, request: AugmentRequest) -> type[DataSetExport]:
        from gansynth_deepmedic.export import DeepMedicExport

        return DeepMedicExport


def _absolute(text: str) -> str:
    return os.path.abspath(os.path.expanduser(text))
