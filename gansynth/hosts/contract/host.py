"""The contract of a host: a ``Framework`` that loads data of its own, and trains on them.

A framework says how long a training is, trains, and evaluates. What samples must be like for it,
its ``Intake`` says; bank, mixing, pace, resume, record and checks are those of every host, in
``gansynth.hosts.contract.session``. A framework that trains on crops is a ``CropHost``, which says
less.
"""

from __future__ import annotations

import copy
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

from pydantic import Field

from gansynth.bank.export import DataSetExport
from gansynth.bank.sample_source import SampleSource
from gansynth.core.choices import Choice
from gansynth.core.host_options import HostOptions
from gansynth.core.intake import Intake
from gansynth.core.lineage import CaseRecord
from gansynth.core.registry import installed
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.schema import Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth.hosts.contract.job import Job
from gansynth.hosts.contract.prediction import PredictJob
from gansynth.hosts.contract.record import TrainingResult
from gansynth.metrics.segmentation.evaluation import Prediction, headline, measure_counted
from gansynth.metrics.segmentation.held_out_scores import METRICS
from gansynth.metrics.segmentation.measures import Regions, read_regions, with_labels
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.option_kinds import Device
from gansynth.runtime.options import read_settings, refuse_unaugmented
from gansynth.runtime.parts import refuse_absent
from gansynth.runtime.progress import NullReporter, Reporter


def framework(name: str) -> type[Framework]:
    """Return the class registered for a target; UsageFault: there is none."""
    loaded: type[Framework] = installed().load("hosts", name)
    return loaded


def target_of_kind(kind: str) -> str:
    """Return the framework whose data sets these are, else the U-Net of gansynth.

    The opener of a kind that a framework of another name trains on says so: its ``host``.
    """
    known = installed()
    refuse_absent("source", kind)
    opener = known.load("sources", kind) if kind in known.names("sources") else None
    return getattr(opener, "host", kind if kind in known.names("hosts") else "segmenter")


class FrameworkOptions(HostOptions):
    """Options that every host has; a host's ``Options`` extend them."""

    output_key: ClassVar[str] = "output"
    device: Device = Field(
        "auto", description="training device: auto, cpu, cuda or cuda:N; --device is the producer's"
    )
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="seeds weights, order and augmentation, in place of --seed",
    )
    output: str = Field(
        "",
        description="folder for the results, as -o (runs/TARGET/NAME_GENERATOR_R-S_SCHEDULE)",
    )


class Framework(ABC):
    """One training of a framework that loads data of its own; a subclass has three members.

    Attributes:
        source: the real cases.
        request: all that was asked of ``gansynth augment``.
        options: of the training, an instance of ``Options``.
        own: arguments of the framework's own command line, as ``read_own`` has read them.
        seed: for all random numbers.
        output: folder of the results.
        intake: which samples fit.
        regions: of which Dice is reported; ``open`` may set it.
        sample_source: the checked generator or bank; None without samples, and before the check.
        reporter: shows progress and warnings.
    """

    name: ClassVar[str]
    """The value of ``--target``."""
    title: ClassVar[str] = ""
    """Its name in reports, if it is written otherwise than ``name``."""
    Options: ClassVar[type[HostOptions]] = FrameworkOptions
    """Settings of ``gansynth augment``, each a flag of the command and a key of ``--set``. A field
    that is called as an option of the command itself (``device``) is a key of ``--set`` only."""
    Intake: ClassVar[type[Intake]] = Intake
    """Which samples fit the training cases, and how they are stored: a producer builds it alone."""
    unit: ClassVar[str] = "epoch"
    """What ``length`` counts: ``step``, or a round such as ``epoch`` or ``subepoch``."""
    length_options: ClassVar[tuple[str, ...]] = ("steps",)
    """Options that ``length`` depends on; the number of the first is proportional to the steps."""
    own_process: ClassVar[bool] = False
    """Whether it trains in a process of its own, with all its output in a log. SIGTERM then ends
    ``train`` at once, by ``SystemExit``; else ``Job.stop`` asks it to end."""
    restarts_rate: ClassVar[bool] = False
    """Whether the learning rate goes through its schedule again when fine-tuning begins."""
    rewrites_real: ClassVar[bool] = False
    """Whether it can also pass real cases through the generator's space."""
    result: ClassVar[str] = METRICS
    """The file that ``evaluate`` writes last."""
    own_metrics: ClassVar[str] = "gansynth_metrics.json"
    """The file of ``account_of``, of frameworks that write metrics of their own, too."""
    packages: ClassVar[Sequence[str]] = ("torch", "numpy")
    """Distributions whose versions are recorded with a training."""
    may_change: ClassVar[tuple[str, ...]] = ()
    """Options that may differ when a training is resumed, beside place, device and checkpoints."""
    augmentation: ClassVar[tuple[str, ...]] = ()
    """Options of the usual augmentation, refused with ``--no-host-augmentation``."""
    variables: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the environment variables that it reads: jobs elsewhere get them, too."""
    options: Any
    regions: Regions = ()
    sample_source: SampleSource | None = None
    reporter: Reporter = NullReporter()

    def __init__(
        self, source: CaseSource, request: AugmentRequest, folder: Path | None = None
    ) -> None:
        """Read the options of one training.

        Args:
            folder: of the results, in place of ``place``: a process of the training may have
                variables that name other folders than those checked.
        """
        self.source, self.request = source, request
        self.intake = self.Intake(source, self.name)
        self.check_ways()
        self.own = self.read_own(request.options)
        self.options = read_settings(self.Options, request.set, self.name)
        refuse_unaugmented(request.set, self.augmentation, usual=request.host_augmentation)
        self.seed: int = request.seed if self.options.seed is None else self.options.seed
        self.output = self.results_folder() if folder is None else folder

    # -- what a framework defines ----------------------------------------------------------------

    @property
    @abstractmethod
    def length(self) -> tuple[int, int]:
        """Units of the whole training, and samples of an optimiser step."""

    @abstractmethod
    def train(self, job: Job) -> None:
        """Train from unit ``job.first`` to the end, filled as ``job.rounds`` says.

        A framework whose unit is a round calls ``job.log_step`` after each optimiser step and
        ``job.end_round`` after each round, when its own checkpoint is written. It is also called to
        load a training that has nothing left to train.
        """

    @abstractmethod
    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Evaluate on the real held-out cases, write ``result`` last, and return main figures."""

    # -- what it may use -------------------------------------------------------------------------

    def asked_regions(self) -> Regions:
        """The foreground, each label, and the requested regions; UsageFault if they do not fit."""
        labels = self.source.schema.foreground
        return with_labels(read_regions(self.options.regions, labels), labels)

    def account_of(
        self,
        predictions: Callable[[Any, Path], Mapping[str, Prediction]],
        folder: Path,
        count: Callable[[str, int, int], None],
    ) -> tuple[dict[str, Any], str]:
        """Measure a training's predictions in ``regions``, and write ``own_metrics``.

        ``count`` is called as ``Job.count``. Returns main figures, and why if there are none.
        """
        try:
            found, ignore = predictions(self.source, folder), self.source.schema.ignore
            document = measure_counted(found, self.regions, ignore, count)
        except (UsageFault, DataFault) as fault:
            return {}, f"no Dice and HD95 of gansynth's own measures: {fault}"
        write_json_atomic(folder / self.own_metrics, document)
        return headline(document), ""

    @staticmethod
    def device_of(device: str) -> str:
        """Resolve ``auto`` to CUDA if available; the framework checks other devices itself."""
        if device != "auto":
            return device
        import torch

        return "cuda" if torch.cuda.is_available() else "cpu"

    # -- what it may refuse ----------------------------------------------------------------------

    def validate(self) -> None:  # noqa: B027 - optional
        """Refuse data that it cannot train on, before any long computation; optional."""

    def check_ways(self) -> None:
        """Refuse ways of mixing that it does not support, for training and exports."""
        if self.request.real_in_generator_space and not self.rewrites_real:
            raise UsageFault(
                "hosts.real-in-generator-space-unsupported",
                f"--real-in-generator-space: {self.name} takes real cases as they are, expected a "
                "host that can bring them through the generator's space; leave it out",
            )

    @classmethod
    def read_own(cls, options: Sequence[str]) -> Mapping[str, Any]:
        """Read the arguments after ``--``; optional, the base class refuses."""
        if options:
            raise UsageFault(
                "hosts.no-own-command-line",
                f"-- {options[0]}: {cls.name} has no command line of its own, expected "
                "--set KEY=VALUE; leave what follows -- out",
            )
        return {}

    @classmethod  # noqa: B027 - optional
    def check_settings(cls, settings: Mapping[str, str]) -> None:
        """Refuse what can be seen to be wrong before the data are prepared for it; optional."""

    @classmethod
    def needed(cls, settings: Mapping[str, str]) -> Mapping[str, str]:
        """Return the variables without which another shell does not find what settings name."""
        return {}

    def open(self) -> None:  # noqa: B027 - optional
        """Set what follows from the options, such as ``regions``, and refuse them; optional.

        Called once in each process of a training, before samples are checked. An export does
        without.
        """

    def check(self) -> None:  # noqa: B027 - optional
        """Refuse what only the process that trains would find; optional.

        Called last, before a training or a dry run.
        """

    @property
    def one_subject(self) -> str:
        """How a user gives cases one subject, for messages."""
        return "--subjects FILE"

    def check_samples(self, found: SampleSource, held_out: Sequence[CaseRecord]) -> SampleSource:
        """Check a generator further, beyond ``Intake.check_run``; return it, described further."""
        return found

    # -- where and how long it trains; optional --------------------------------------------------

    @property
    def schema(self) -> Schema:
        """Channels and labels of the cases."""
        return self.source.schema

    @cached_property
    def space(self) -> Space:
        """The space of the items; a ``CropHost`` sets it by the options."""
        return self.source.space

    @property
    def round_size(self) -> int | None:
        """Samples of a round; None for every real case once and its synthetic share."""
        return None

    @property
    def batches(self) -> int | None:
        """Optimiser steps of a round, for a framework whose own loader asks a ``Mixer`` of
        ``job.plan`` for one sample after another; None where ``job.rounds`` fills the places."""
        return None

    @property
    def length_known(self) -> bool:
        """Whether ``length`` is that of the training; else the framework's own code decides."""
        return True

    @property
    def samples_of_a_unit(self) -> int:
        """Places of a unit, real and synthetic."""
        return self.round_size or self.request.mix.ratio.places(len(self.source.train_ids))

    @property
    def usual_samples(self) -> int | None:
        """Samples that a training of the default length draws; None if it has no default."""
        fields = self.Options.model_fields
        keys = [key for key in self.length_options if key in fields]
        if not keys:
            return None
        usual = copy.copy(self)
        defaults = {key: fields[key].get_default() for key in keys}
        usual.options = self.options.model_copy(update=defaults)
        return usual.length[0] * usual.samples_of_a_unit

    @property
    def device(self) -> str:
        """Where it trains: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``."""
        return str(self.options.device)

    @property
    def gpus(self) -> tuple[int, ...]:
        """CUDA devices that the training occupies."""
        from gansynth.runtime.devices import pick_device

        picked = pick_device(self.device)
        return (picked.index or 0,) if picked.type == "cuda" else ()

    @property
    def loaders(self) -> int:
        """Processes in which it loads and augments; 0 if it does so in its own."""
        return 0

    def results_folder(self) -> Path:
        """Return the folder of the results."""
        chosen = self.options.output
        data = re.sub(r"[^\w.-]+", "-", self.source.name.rpartition(":")[2])
        default = Path("runs", self.name, f"{data}_{self.request.mix_name}")
        return (Path(chosen).expanduser() if chosen else default).absolute()

    def done(self, folder: Path) -> int:
        """Return the unit at which a training in this folder resumes; by default, the record's."""
        sessions = TrainingResult.sessions_in(folder)
        return int(sessions[-1]["epochs"][1]) if sessions else 0

    @property
    def results(self) -> Path:
        """What ``-o`` names: the folder of the results, or one that it lies in."""
        return self.output

    @property
    def evaluates_again(self) -> bool:
        """Whether a finished training is to be evaluated once more."""
        return False

    def environment(self, file: Path) -> Mapping[str, str]:
        """Return the variables of the process in which it trains with ``own_process``.

        ``file`` describes the training, a ``TrainingHandover``.
        """
        return os.environ

    def command(self) -> bool:
        """Train by the framework's own command, whose trainer opens the ``Session`` itself.

        Returns:
            Whether there is such a command; by default none.
        """
        return False

    # -- what is told of it; optional ------------------------------------------------------------

    def describe_training(self) -> Mapping[str, Any]:
        """Return further entries of a dry run's plan and of the record."""
        return {}

    def planned(self, usual: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a dry run's entries about the training; ``usual`` are those of every host."""
        return usual

    def recorded(self, usual: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return what the record says of a session; ``usual`` is what it says for every host.

        A training is resumed only if its settings are the same.
        """
        return usual

    def reported(self, result: TrainingResult) -> TrainingResult:
        """Return a finished training with further figures and warnings for the user."""
        return result

    def time_of(self) -> Mapping[str, Any]:
        """Return the hours of this training, of real cases alone, measured on some steps.

        Returns:
            ``training_hours``, and whatever else was measured; empty: a training is begun.
        """
        return {}

    @classmethod
    def suited(cls, request: AugmentRequest) -> Sequence[Choice]:
        """Return what suits this machine where the user has said nothing."""
        return ()

    # -- data sets and new images; optional ------------------------------------------------------

    @classmethod
    def exporter(cls, request: AugmentRequest) -> type[DataSetExport]:
        """Return the class that writes data sets for the stock framework, without gansynth.

        Raises:
            UsageFault: there is none.
        """
        raise UsageFault(
            "hosts.no-data-sets-to-export",
            f"--export {request.export}: {cls.name} has no data sets to write, expected a target "
            "that has. Leave it out to train with samples mixed in",
        )

    @classmethod
    def predicts_levels(cls) -> bool:
        """Whether ``predict_images`` honours ``PredictJob.sure``."""
        return False

    @classmethod
    def predict_images(cls, job: PredictJob) -> Sequence[Path]:
        """Predict new images by a finished training, and write a file for each case.

        Raises:
            GansynthError: images that do not fit, or a training that cannot predict.
        """
        raise UsageFault(
            "hosts.predicts-no-new-images",
            f"{job.folder}: {cls.name} predicts no new images by gansynth, expected a target that "
            "does; use its own command",
        )

    @classmethod
    def reopened(cls, job: PredictJob) -> Self:
        """Return the host of a training that predicts, with its options, on the given device.

        Raises:
            GansynthError: the cases that it was trained on cannot be opened.
        """
        from gansynth.sampling.run_source import open_source

        recorded = job.session["settings"]
        known = {key: recorded[key] for key in cls.Options.model_fields if key in recorded}
        source = open_source(SourceRequest.from_json(job.session["source"]))
        host = cls(source, AugmentRequest(target=cls.name, ratio="1:0"), job.folder)
        host.own = dict(job.session["options"])
        known["device"] = job.device
        host.options = cls.Options(**known)
        host.seed = int(job.session["training_seed"])
        host.open()
        return host
