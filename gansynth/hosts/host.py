"""The contracts of a host plugin: ``Host`` trains on crops, a ``Framework`` on data of its own.

A host says what it trains on, trains, and predicts. Bank, mixing, pace, resume, record, evaluation
and checks are the same for all hosts, and stand here.
"""

# ruff: noqa: D102 - methods that override those of Adapter and Framework

from __future__ import annotations

import atexit
import contextlib
import copy
import math
import os
import platform
import re
import time
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, final

import numpy as np
from pydantic import Field

from gansynth.bank.draw_log import DrawCounter, DrawCounts
from gansynth.bank.placement import FILE_BYTES
from gansynth.bank.reader import BankReader, BankSample, verify_bank
from gansynth.bank.store import SPEC
from gansynth.bank.training_bank import TrainingBank
from gansynth.core.adapter import Adapter, HostOptions
from gansynth.core.bank_options import BankCapacity
from gansynth.core.lineage import guard, guard_host
from gansynth.core.registry import installed
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.run_folder import RunFolder
from gansynth.core.schedule import Mix
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Sample, Schema
from gansynth.core.source import SourceRequest, case_content, same_data_as
from gansynth.core.space import Space
from gansynth.core.units import IMAGES, compare_with_cases
from gansynth.hosts import record
from gansynth.hosts.choices import Choice
from gansynth.hosts.epoch_plan import PARTNERS, EpochPlan, count_places
from gansynth.hosts.held_out import (
    LEVELS,
    METRICS,
    PREDICTIONS,
    evaluate_held_out,
    prediction_files,
    refuse_unmeasurable,
)
from gansynth.hosts.launch import ApartTraining, TrainingDisplay, train_apart
from gansynth.hosts.mixer import MixerConfig
from gansynth.hosts.prediction import PredictJob, write_labels
from gansynth.hosts.record import TrainingFolder, TrainingResult
from gansynth.hosts.sample_source import (
    SampleSource,
    check_asked,
    check_learnable,
    find_sample_source,
    fit_again,
    sample_bytes,
)
from gansynth.hosts.training_data import (
    Pair,
    TrainingData,
    misfit,
    on_own_grid,
    training_space,
)
from gansynth.metrics.segmentation.evaluation import Prediction, asked_regions, headline
from gansynth.metrics.segmentation.measures import Regions
from gansynth.runtime.child import NAME, WARNING, limit_threads, show
from gansynth.runtime.errors import (
    DataFault,
    EnvironmentFault,
    IntegrityFault,
    TrainingFault,
    UsageFault,
)
from gansynth.runtime.files import TEMPORARY, disk_errors, read_json, write_json_atomic
from gansynth.runtime.option_kinds import Device
from gansynth.runtime.options import read_settings, refuse_unaugmented
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.signals import Interrupted, StopRequest, stop_request
from gansynth.sampling.open_run import check_weights

if TYPE_CHECKING:
    import torch

CHECKPOINTS, CONFIG = "checkpoints", "gansynth_config.json"
REPORT_SECONDS = 1.0  # least time between two looks for messages of the producer
SHOW_SECONDS = 0.5  # least time between two reports of progress
BEGUN = 1e-3  # the part of a unit that counts as done when it begins


def framework(name: str) -> type[Framework]:
    """Return the class registered for a target; UsageFault: there is none."""
    loaded: type[Framework] = installed().load("hosts", name)
    return loaded


def shortened(settings: Mapping[str, str], share: float, option: str) -> dict[str, str]:
    """Return settings with a share of an option's number, at least 1; the same without it."""
    if option not in settings or share == 1:
        return dict(settings)
    return {**settings, option: str(max(1, round(float(settings[option]) * share)))}


class FrameworkOptions(HostOptions):
    """Options that every host has; a host's ``Options`` extend them."""

    place: ClassVar[str] = "output"
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


class TrainingOptions(FrameworkOptions):
    """Options that every ``Host`` has; a host's ``Options`` extend them."""

    regions: str = Field(
        "",
        description="regions to report Dice and HD95 of, as unions of labels: WT:1+2+4,TC:1+4,ET:4",
    )
    save_predictions: bool = Field(
        True, description="write label maps of the held-out cases, where the source has files"
    )
    save_levels: bool = Field(
        False,
        description="write the level of each voxel's foreground probability beside its label "
        "map, for a benchmark at equal false alarms",
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")


class Framework(Adapter):
    """A framework that loads data of its own; a subclass has three members of its own.

    Within ``length``, ``train``, ``evaluate`` and the optional members, ``self.options`` holds the
    options of the training, ``self.own`` those of its own command line, ``self.request`` all that
    was asked of ``gansynth augment``, ``self.seed`` and ``self.output`` seed and folder,
    ``self.source`` the real cases, ``self.space`` the space of the items and ``self.schema`` their
    channels and labels.
    """

    title: ClassVar[str] = ""
    """Its name in reports, if it is written otherwise than ``name``."""
    Options: ClassVar[type[HostOptions]] = FrameworkOptions
    """Settings of ``gansynth augment``, each a flag of the command and a key of ``--set``. A field
    that is called as an option of the command itself (``device``) is a key of ``--set`` only.
    ``read_settings`` reads them."""
    rewrites_real: ClassVar[bool] = False
    """Whether the adapter can also pass real cases through the generator's space."""
    variables: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the environment variables that the host reads: jobs elsewhere get them, too."""
    length_option: ClassVar[str] = "steps"
    """The option whose number is proportional to the optimiser steps; ``lasting`` sets it."""
    length_options: ClassVar[tuple[str, ...]] = ()
    """All options that ``length`` depends on, if not ``length_option`` alone."""
    unit: ClassVar[str] = "epoch"
    """What ``length`` counts: ``step``, or a round such as ``epoch`` or ``subepoch``."""
    apart: ClassVar[bool] = False
    """Whether it trains in a process of its own, with all its output in a log. SIGTERM then ends
    ``train`` at once, by ``SystemExit``; else ``Job.stop`` asks it to end."""
    restarts_rate: ClassVar[bool] = False
    """Whether the learning rate goes through its schedule again when fine-tuning begins."""
    result: ClassVar[str] = METRICS
    """The file that ``evaluate`` writes last."""
    packages: Sequence[str] = ("torch", "numpy")
    """Distributions whose versions are recorded with a training."""
    may_change: ClassVar[tuple[str, ...]] = ()
    """Options that may differ when a training is resumed, beside place, device and checkpoints."""
    augmentation: ClassVar[tuple[str, ...]] = ()
    """Options of the usual augmentation, refused with ``--no-host-augmentation``."""
    stronger: ClassVar[Mapping[str, str]] = {}
    """Settings of stronger augmentation than usual, for benchmarks; none if there are none."""
    dtype: Literal["float16", "float32"] = "float16"
    """Type of images in a bank."""
    same: ClassVar[tuple[str, ...]] = ("channels", "labels")
    """Attributes of the schema that samples share with the training cases."""
    options: Any
    own: Mapping[str, Any]
    request: AugmentRequest
    reporter: Reporter = NullReporter()
    """Shows progress and warnings."""
    output: Path
    seed: int
    regions: Regions = ()
    total: int
    batch_size: int
    sample_source: SampleSource | None
    handed_over: TrainingFolder | None = None
    """The folder of a training as it was checked and locked, for whoever trains in it."""
    _opened: tuple[AugmentRequest, Self] | None = None
    _drawable: AugmentRequest | None = None

    # -- what a framework defines ----------------------------------------------------------------

    @property
    @abstractmethod
    def length(self) -> tuple[int, int]:
        """Units of the whole training, and samples of an optimiser step."""

    @abstractmethod
    def train(self, job: Job) -> None:
        """Train from unit ``job.first`` to the end, filled as ``job.rounds`` says.

        A framework whose unit is a round calls ``job.took`` after each optimiser step and
        ``job.round`` after each round, when its own checkpoint is written. It is also called to
        load a training that has nothing left to train.
        """

    @abstractmethod
    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Evaluate on the real held-out cases, write ``result`` last, and return main figures."""

    @abstractmethod
    def validate(self) -> None:
        """Check host and data before any long computation.

        Raises:
            GansynthError: the first fault found.
        """

    @property
    def places(self) -> int | None:
        """Samples of a unit; None for every real case once and its synthetic share."""
        return None

    @property
    def one_subject(self) -> str:
        """How a user gives cases one subject, for messages."""
        return "--subjects FILE"

    @property
    def batches(self) -> int | None:
        """Optimiser steps of a round, for a framework whose own loader asks a ``Mixer`` of
        ``job.plan`` for one sample after another; None where ``job.rounds`` fills the places."""
        return None

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

    def environment(self, file: Path) -> Mapping[str, str]:
        """Return the variables of the process in which it trains ``apart``.

        ``file`` describes the training, an ``ApartTraining``.
        """
        return os.environ

    def sample_bytes(self, manifest: Mapping[str, Any]) -> int:
        """Return the most bytes of a run's sample in a bank."""
        return sample_bytes(manifest, self.source, self.needs)

    def place(self) -> Path:
        """Return the folder of the results, once options and ``request`` are known."""
        chosen = self.options.output
        data = re.sub(r"[^\w.-]+", "-", self.source.name.rpartition(":")[2])
        default = Path("runs", self.name, f"{data}_{record.mix_name(self.request)}")
        return (Path(chosen).expanduser() if chosen else default).absolute()

    def done(self, folder: Path) -> int:
        """Return the unit at which a training in this folder resumes; by default, the record's."""
        sessions = record.read_sessions(folder)
        return int(sessions[-1]["epochs"][1]) if sessions else 0

    def open_training(self) -> None:
        """Set what follows from the options, such as ``regions``, once they are known; optional."""

    @cached_property
    def space(self) -> Space:
        """The space of the items; a ``Host`` sets it by the options."""
        return self.source.space

    def check_options(self) -> None:
        """Refuse options (UsageFault) before anything is trained, beyond their types; optional."""

    @classmethod
    def read_own(cls, options: Sequence[str]) -> Mapping[str, Any]:
        """Read the arguments after ``--``; optional, the base class refuses."""
        if options:
            raise UsageFault(
                f"-- {options[0]}: {cls.name} has no command line of its own, expected "
                "--set KEY=VALUE; leave what follows -- out"
            )
        return {}

    def check_run(self, run: RunFolder, request: AugmentRequest) -> None:
        """Refuse a generator's run whose samples do not fit; optional."""

    def converts(self, run: RunFolder) -> bool:
        """Whether ``bring`` takes samples of a run that was fitted in another space; optional."""
        return False

    def check_bank(self, reader: BankReader) -> None:
        """Refuse a bank whose samples do not fit; optional."""

    def describe_training(self) -> Mapping[str, Any]:
        """Return further entries of a dry run's plan and of the record; optional."""
        return {}

    def check_ways(self, request: AugmentRequest) -> None:
        """Refuse options of mixing that this host does not support, for training and exports."""
        if request.real_in_generator_space and not self.rewrites_real:
            raise UsageFault(
                f"--real-in-generator-space: {self.name} takes real cases as they are, expected a "
                "host that can bring them through the generator's space; leave it out"
            )

    @classmethod
    def predict_images(cls, job: PredictJob) -> Sequence[Path]:
        """Predict new images by a finished training, and write a file for each case; optional.

        Raises:
            GansynthError: images that do not fit, or a training that cannot predict.
        """
        raise UsageFault(
            f"{job.folder}: {cls.name} predicts no new images by gansynth, expected a target that "
            "does; use its own command"
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
        host = cls(open_source(SourceRequest.from_json(job.session["source"])))
        host.own = dict(job.session["options"])
        host.options = cls.Options(**{**known, "device": job.device})
        host.request = AugmentRequest(target=cls.name, ratio="1:0")
        host.seed, host.output = int(job.session["training_seed"]), job.folder
        host.open_training()
        return host

    def time_of(self, alone: AugmentRequest) -> Mapping[str, Any]:
        """Return the hours of a training on real cases alone, measured on some steps; optional.

        Returns:
            ``training_hours``, and whatever else was measured; empty: a training is begun.
        """
        return {}

    @classmethod
    def suited(cls, request: AugmentRequest) -> Sequence[Choice]:
        """Return what suits this machine where the user has said nothing; optional."""
        return ()

    def export(self, request: AugmentRequest) -> Mapping[str, Any]:
        """Write a data set that the stock host trains on without gansynth; optional.

        Returns:
            A JSON document: folder, counts, bytes, place of the record, and the next command.

        Raises:
            GansynthError: what ``check`` refuses; a name that is taken; the disk is full.
        """
        raise UsageFault(
            f"--export {request.export}: {self.name} has no data sets to write, expected a target "
            "that has. Leave it out to train with samples mixed in"
        )

    # -- what benchmarks ask; optional. Settings and options are those of all trainings ----------

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Return what to set for each of ``mixes``, so that all take as many optimiser steps.

        By default ``length_option``, if it counts steps; else the base class refuses.

        Args:
            steps: optimiser steps, as nearly as the host's own units allow.
            cases: real training cases of each training, perhaps fewer than the source's.

        Raises:
            UsageFault: a number of steps that the host does not support.
        """
        if self.unit != "step" or self.length_option not in self.Options.model_fields:
            raise UsageFault(
                f"{self.name}: does not say how it trains for a number of steps, expected a host "
                "that does"
            )
        return [{self.length_option: str(steps)} for _ in mixes]

    @classmethod
    def shortened(cls, settings: Mapping[str, str], share: float) -> dict[str, str]:
        """Return settings, with those of ``lasting``, for a share of their optimiser steps."""
        return shortened(settings, share, cls.length_option)

    @classmethod
    def impartial(cls, options: Sequence[str], settings: Mapping[str, str]) -> tuple[str, ...]:
        """Return host options under which held-out cases select nothing.

        Raises:
            UsageFault: the host would still use held-out cases, for example to select weights.
        """
        return tuple(options)

    @classmethod
    def heavier(cls, settings: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return settings and host options for stronger augmentation; by default ``stronger``.

        Raises:
            UsageFault: the host has no stronger augmentation.
        """
        if cls.stronger:
            return cls.stronger, ()
        raise UsageFault(
            f"{cls.name}: knows no heavier augmentation of its own, expected a host that does; "
            "leave the arm out, or say what to set in it"
        )

    def check_judged(self, settings: Mapping[str, str]) -> None:
        """Check before a training that ``judged`` will find predictions, or raise UsageFault."""
        if type(self).judged is Framework.judged:
            self.judged(Path())

    @classmethod
    def saving_levels(cls) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return settings and host options with which ``judged`` also has ``levels``.

        Raises:
            UsageFault: the host keeps no probabilities of held-out cases.
        """
        raise UsageFault(
            f"operating_point: {cls.name} keeps no probabilities of held-out cases, expected a "
            "host that does; leave it out"
        )

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        """Return the prediction of each held-out case by a finished training.

        ``gansynth.metrics.segmentation.evaluate`` reads them.

        Args:
            folder: ``TrainingResult.folder``.

        Raises:
            UsageFault: the host writes no label maps, only its own metrics.
            DataFault: the training is not finished.
        """
        raise UsageFault(
            f"{self.name} leaves no label maps of held-out cases, expected a host that does; its "
            "own metrics are in its outcome"
        )

    @classmethod
    def scores(cls, folder: Path) -> dict[str, Any]:
        """Return scores of a finished training, for tables of papers.

        Returns:
            ``steps`` (of the optimiser), and ``per_case`` (case -> region -> Dice) or ``figures``
            of a detector (name -> value, as in ``gansynth.metrics.detection.measures.summary``).
        """
        raise UsageFault(f"{cls.name}: keeps no scores that a table could show")

    # -- what follows from it, for every host ----------------------------------------------------

    def check(self, request: AugmentRequest) -> None:
        """Check everything about a training that is known before it starts, without writing.

        Called after ``validate``, for dry and real runs alike.

        Raises:
            IntegrityFault: leakage, or a generator or bank made for another data set or space.
            UsageFault: a missing run or bank, or an invalid value.
        """
        self.check_ways(request)
        self.opened(request)
        self.check_drawing(request)

    def check_samples(self, request: AugmentRequest) -> SampleSource:
        """Check the generator or bank, and return it with everything that it has seen.

        Raises:
            IntegrityFault: leakage, another space, or a damaged bank.
            UsageFault, DataFault: samples that the host cannot learn from, or an invalid request.
        """
        found, source = find_sample_source(request), self.source
        run, bank, lineage = found.run, found.bank, found.lineage
        kind = "generator" if bank is None else "bank"
        if run is not None:
            check_learnable(run, self.name, self.needs)
        if run is None or not self.converts(run):
            guard_host(lineage.host, source.space.host, kind=kind)
        name, where = "GENERATOR" if run is None else run.manifest["generator"], source.request
        hint = (
            f"Fit a generator on the training cases of this fold: gansynth fit {name} --data "
            f"{where.kind}:{where.where}{f' -c {where.configuration}' * bool(where.configuration)}"
            f"{f' --root {where.root}' * bool(where.root)} --fold {where.fold} -o NEW"
        )
        guard(
            *(lineage, self.held_out),
            kind=kind,
            same=same_data_as(source),
            hint=hint,
            one_subject=self.one_subject,
        )
        if run is not None:
            self.check_run(run, request)
            check_weights(run)
            return check_asked(request, found, source, self.held_out)
        assert bank is not None, "it is no run"
        verify_bank(bank.folder)
        for key in self.same:
            names = [getattr(each, key) for each in (bank.spec.schema, source.schema)]
            if names[0] != names[1]:
                sampled, real = (list(v) if isinstance(v, tuple) else v for v in names)
                raise DataFault(
                    f"{bank.folder}: samples have the {key.replace('_', ' ')} {sampled}, the "
                    f"training cases {real}; expected the same in the same order. Make the bank "
                    "again"
                )
        self.check_bank(bank)
        return found

    def check_each(self, reader: BankReader, look: Callable[[BankSample], object]) -> None:
        """Check every sample of a bank, as a producer checks its own; for ``check_bank``.

        Args:
            look: raises ``DataFault`` or ``UsageFault``.
        """
        from gansynth.sampling.quality_gate import validate_sample

        for sample_id in reader.ids():
            try:
                sample = reader.read(sample_id)
            except KeyError:  # it was retired in between
                continue
            try:
                look(sample)
                made = Sample(sample.image, sample.labels)
                validate_sample(made, self.schema, self.sample_size, reader.spec.dtype)
            except (DataFault, UsageFault) as fault:
                where = f"{reader.folder}: {sample_id}"
                raise type(fault)(f"{where}: {fault}. Make the bank again") from fault

    def check_export(self, request: AugmentRequest) -> None:
        """Check the samples of an export: of the training's own cases, and in their units."""
        self.check_ways(request)
        if request.mix.synthetic:
            self.check_samples(request)
        self.check_drawing(request)

    def check_drawing(self, request: AugmentRequest) -> None:
        """Check, last and once, that samples are of the training's own cases.

        A run is opened as a producer will open it. Every training case is read and compared by
        content, whatever the data set's name.
        """
        if not request.mix.synthetic or request == self._drawable:
            return
        from gansynth.runtime.devices import pick_device

        pick_device(request.device)
        self.bank_plan(request)
        source = self.source
        if request.bank is not None:
            folder = Path(request.bank)
            reader = BankReader(folder)
            lineage = reader.spec.lineage
            hashes = {case.sha256 for case in lineage.cases}
            others = source.train_ids if lineage.dataset != source.name else ()
            unseen = [case_id for case_id in others if case_content(source, case_id) not in hashes]
            if unseen:
                raise IntegrityFault(
                    f"{folder}: its samples are made of {lineage.dataset}, which lacks "
                    f"{len(unseen)} of {len(source.train_ids)} training case(s) of {source.name}, "
                    f"first {unseen[0]}; expected the same data set. Fill a bank by a generator "
                    "that was fitted on it"
                )
            from gansynth.data.batches import CaseCache

            drawn = [reader.draw(np.random.default_rng(seed)) for seed in range(IMAGES)]
            compare_with_cases(folder, CaseCache(source), [s.image for s in drawn if s])
        else:
            from gansynth.sampling.sampler import open_drawer

            assert request.run is not None, "see AugmentRequest"
            of = (source, self, request.run, request.samples)
            open_drawer(*of, device="cpu", learn=False)[0].check_cases()
        self._drawable = request

    def planned(self, request: AugmentRequest) -> Mapping[str, Any]:
        """Return the plan of a training that passed ``check``, for dry runs."""
        training = self.opened(request)
        return {
            **training.describe_training(),
            f"{self.unit}s": training.total,
            "samples_of_a_step": training.batch_size,
        }

    def samples_drawn(self, request: AugmentRequest) -> int | None:
        """Return how many samples a training draws, without partners; None if unknown."""
        training = self.opened(request)
        return training.total * training.samples_of_a_unit

    @property
    def samples_of_a_unit(self) -> int:
        """Places of a unit, real and synthetic."""
        return self.places or count_places(self.request.mix.ratio, len(self.source.train_ids))

    @property
    def usual_samples(self) -> int | None:
        """Samples that a training of the host's default length draws; None if it has no default."""
        fields = self.Options.model_fields
        keys = [key for key in self.length_options or (self.length_option,) if key in fields]
        if not keys:
            return None
        usual = copy.copy(self)
        defaults = {key: fields[key].get_default() for key in keys}
        usual.options = self.options.model_copy(update=defaults)
        return usual.length[0] * usual.samples_of_a_unit

    @property
    def share_of_usual_length(self) -> float | None:
        """How long the whole training is, as a share of the host's default length."""
        usual = self.usual_samples
        return None if usual is None else self.total * self.samples_of_a_unit / usual

    def bank_plan(self, request: AugmentRequest) -> BankCapacity | None:
        """Return the size of the bank that a training makes; None if none is made."""
        if request.run is None or request.bank is not None or not request.mix.synthetic:
            return None
        size = self.sample_bytes(request.run.manifest)
        held = request.size.capacity(len(self.source.train_ids), size)
        held = max(1 if request.offline else 2, held)  # so that one can be retired
        return BankCapacity(held, (size + FILE_BYTES) * (held + 2))

    def start(self, request: AugmentRequest) -> TrainingResult:
        """Train, evaluate on the real held-out cases, and write both to the output folder.

        Returns:
            The outcome, even if many samples were missing; the caller decides if it is acceptable.

        Raises:
            GansynthError: what ``check`` refuses, or a failed training, with the last lines of the
                host's output.
            Interrupted: by SIGTERM or SIGINT. A checkpoint is written, and no process or bank is
                left.
        """
        self.validate()
        self.check(request)
        output = self.opened(request).output
        with record.training_in(lambda: self.training_folder(request)) as folder:
            if not folder.finished:
                self.opened(request).handed_over = folder
                if self.apart:
                    self._train_apart(request, folder)
                else:
                    self.train_here(request, self.reporter)
            return TrainingResult.of(record.read_sessions(output), output)

    def _train_apart(self, request: AugmentRequest, folder: TrainingFolder) -> None:
        file, opened = folder.path / CONFIG, self.opened(request)
        held_out = opened.held_out if request.mix.synthetic else ()
        training = ApartTraining(request, self.source.request.to_json(), held_out, folder)
        write_json_atomic(file, training.to_json())
        train_apart(
            *("gansynth.hosts.launch", [str(file)], folder.path),
            f"the training of {self.title or self.name}",
            variables=opened.environment(file),
            reporter=self.reporter,
        )

    def train_here(self, request: AugmentRequest, reporter: Reporter | None) -> None:
        """Train and evaluate in this process; without a reporter, its parent shows progress."""
        Job(self.opened(request), reporter).run()

    def training_folder(self, request: AugmentRequest) -> TrainingFolder:
        """Return the folder of a training that passed ``check``.

        ``start`` goes on with an unfinished training in it, and trains nothing if the training
        there is finished.

        Raises:
            UsageFault: it holds another training, or other files.
        """
        training = self.opened(request)
        path, described = training.output, training.described()
        done = training.done(path)
        if path.exists() and not path.is_dir():
            raise UsageFault(f"{path}: is a file, expected a folder; {record.ELSEWHERE}")
        document = read_json(path / record.FILE) if (path / record.FILE).is_file() else {}
        if not document and path.exists():
            held = sorted(entry.name for entry in path.iterdir())
            extra = [n for n in held if not (n in record.LEFT or fnmatch(n, TEMPORARY))]
            if extra:
                raise UsageFault(
                    f"{path}: holds {extra[0]}{' and more' if extra[1:] else ''}, expected a new "
                    f"or empty folder; {record.ELSEWHERE}"
                )
        complete = bool(document.get("complete"))
        if done or complete:
            record.check_same(path, (document.get("sessions") or [{}])[-1], described)
        finished = complete and (path / self.result).exists()
        return TrainingFolder(path, done, training.total, self.unit, bool(document), finished)

    def described(self) -> dict[str, Any]:
        """Describe the data, mix and settings of one session."""
        request = self.source.request
        varying = {"device", "output", "seed", "checkpoint_every", *self.may_change}
        return {
            **record.describe_session(self.request, self.sample_source),
            "target": self.name,
            "source": request.to_json(),
            "data": f"{request.kind}:{request.where}",
            "read": dict(request.read),
            "fold": request.fold,
            "counted_in": f"{self.unit}s",
            "training_seed": self.seed,
            "settings": {
                **self.options.model_dump(mode="json", exclude=varying),
                f"{self.unit}s": self.total,
            },
            "options": {k: v for k, v in self.own.items() if k not in varying},
            **self.describe_training(),
            "versions": {
                "python": platform.python_version(),
                **{name: record.version_of(name) for name in self.packages},
            },
        }

    def configured(self, request: AugmentRequest) -> Self:
        """Return a copy of the host with options, seed and folder of one training."""
        host = copy.copy(self)
        host.own = self.read_own(request.options)
        host.options = read_settings(self.Options, request.set, self.name)
        host.request = request
        refuse_unaugmented(request.set, self.augmentation, usual=request.host_augmentation)
        host.seed = request.seed if host.options.seed is None else host.options.seed
        # A process of the training may have variables that name other folders than those checked.
        host.output = host.place() if self.handed_over is None else self.handed_over.path
        host.open_training()
        return host

    def opened(self, request: AugmentRequest) -> Self:
        """Return a copy of the host with all that one training has, which is checked.

        A command asks several times for one training, whose samples are checked only once.
        """
        from gansynth.runtime.devices import pick_device

        if self._opened is None or self._opened[0] != request:
            host, mixing = self.configured(request), request.mix.synthetic
            pick_device(host.device)
            host.sample_source = host.check_samples(request) if mixing else None
            host.check_options()
            host.total, host.batch_size = host.length
            self._opened = request, host
        return self._opened[1]


class Host(Framework):
    """A framework that trains a segmenter on crops; a subclass has four members of its own."""

    Options: ClassVar[type[HostOptions]] = TrainingOptions
    unit: ClassVar[str] = "step"
    restarts_rate: ClassVar[bool] = True
    selects: ClassVar[bool] = False
    """Whether held-out cases select weights. Such a host is refused in benchmarks."""

    # -- what a host defines ---------------------------------------------------------------------

    @property
    @abstractmethod
    def patch(self) -> tuple[int, ...] | None:
        """Voxels (D, H, W) or (H, W) of a training crop; None for those of the source's space."""

    @property
    @abstractmethod
    def length(self) -> tuple[int, int]:
        """Optimiser steps of the whole training, and samples of a step."""

    @abstractmethod
    def train(self, job: Job) -> None:
        """Train from step ``job.first`` to the end, on the items of ``job.data``.

        Call ``job.step`` after each step, then ``job.checkpoint``. The order of items, and all
        random numbers of the host, must depend on ``job.seed`` and the step alone: then an
        interrupted training has the weights of an undisturbed one. It is also called to load a
        training that has no step left.
        """

    @abstractmethod
    def predict(self, image: FloatArray, folder: Path) -> LabelArray:
        """Return the label map of a whole case by the training in ``folder``.

        Called for one case after another, after ``train`` or without it.

        Args:
            image: float32 (C, D, H, W) or (C, H, W) of any size, in the units of the items.

        Returns:
            Values of ``self.schema.labels``, of the image's spatial shape; ``OUTSIDE`` counts as
            background.
        """

    def predict_levels(self, image: FloatArray, folder: Path) -> tuple[LabelArray, LabelArray]:
        """Return what ``predict`` does, and levels of the foreground's probability; optional.

        Raises:
            UsageFault: the host has no probabilities.
        """
        raise UsageFault(
            f"--set save_levels=yes: {self.name} has no probabilities, expected a host that has; "
            "leave it out"
        )

    def augment(self, image: FloatArray, labels: LabelArray, rng: np.random.Generator) -> Pair:
        """Augment one item (C, D, H, W) and (D, H, W) into new arrays; optional.

        Called for the items to augment only, so ``--no-host-augmentation`` and
        ``--augment-synthetic`` hold. A host that augments elsewhere cannot honour them.
        """
        return image, labels

    @property
    def foreground(self) -> float:
        """Share of the real samples that are drawn from cases with foreground."""
        return 0.0

    def done(self, folder: Path) -> int:
        """Return the step of the newest checkpoint; for hosts that write their own."""
        found = self.checkpoint(folder)
        return 0 if found is None else int(found.stem.removeprefix("step-"))

    @final
    def checkpoint(self, folder: Path) -> Path | None:
        """Return the newest file that ``Job.checkpoint`` has saved in a training's folder."""
        return max((folder / CHECKPOINTS).glob("step-*.ckpt"), default=None)

    # -- what follows from it --------------------------------------------------------------------

    @classmethod
    def predict_images(cls, job: PredictJob) -> Sequence[Path]:
        """Predict each image in the units and the spacing of the training cases."""
        host = cls.reopened(job)
        images = job.opened(host.source.schema.channels, host.source)
        job.begin(target=cls.name, labels=dict(host.source.schema.labels))

        def predicted(image: FloatArray) -> list[LabelArray]:
            labels = host.predict(image, job.folder)
            return [np.where(labels == OUTSIDE, 0, labels).astype(np.int16)]

        files = []
        with job.reporter.task(len(images.train_ids), "case") as task:
            for case in images.train_ids:
                image = images.load(case).image
                labels = on_own_grid(host.space, host.source.schema, image, predicted)[0]
                files.append(write_labels(images, case, labels, job.out))
                task.advance(1)
        return files

    @property
    def places(self) -> int:
        return self.length[1]

    def validate(self) -> None:
        """Reject fold ``all``, and cases without labels above background."""
        source = self.source
        if not source.held_out_ids:
            raise UsageFault(
                f"--fold {source.request.fold}: {source.name} holds no case out, expected a fold "
                f"with held-out cases to evaluate {self.name} on; choose one, such as --fold 0"
            )
        if not source.schema.foreground:
            raise UsageFault(
                f"{source.name}: its label maps have no label above background, expected at least "
                "one"
            )

    @classmethod
    def impartial(cls, options: Sequence[str], settings: Mapping[str, str]) -> tuple[str, ...]:
        if cls.selects:
            raise UsageFault(
                f"host.target: {cls.name} selects weights by the held-out cases, expected a host "
                "that does not"
            )
        return super().impartial(options, settings)

    def planned(self, request: AugmentRequest) -> Mapping[str, Any]:
        training = self.opened(request)
        space = training.space
        return {
            **super().planned(request),
            "trained_on": {"grid": space.grid, "size": list(space.size)},
            "judged_on": "real held-out cases, whole, on their own grid",
            "regions": {name: list(labels) for name, labels in training.regions},
        }

    def described(self) -> dict[str, Any]:
        found = super().described()
        found["settings"] |= {"space": list(self.space.size), "grid": self.space.grid}
        return found

    def open_training(self) -> None:
        self.space = training_space(self.source, self.patch)
        self.regions = asked_regions(self.options.regions, self.source)
        if self.options.save_levels and type(self).predict_levels is Host.predict_levels:
            self.predict_levels(np.empty(0, np.float32), Path())  # refuses

    def check_run(self, run: RunFolder, request: AugmentRequest) -> None:
        source, space, why = self.source, self.space, ""
        if run.space.grid == "slice":
            why = "generates slices, expected a generator of volumes"
        elif space.grid == "resample" and run.space.cuts:
            why = (
                f"generates crops of {run.space.size} voxels, expected whole cases (--read whole=)"
            )
        elif run.space.cuts or run.space.frame:
            why = misfit(space, run.space.host_shape(()))
        if why:
            raise UsageFault(
                f"{run.folder}: {why}; train on smaller crops (--set patch=), or fit the generator "
                f"in the space of the training: {fit_again(run, source.request, self.patch or ())}"
            )

    def check_bank(self, reader: BankReader) -> None:
        for sample_id in reader.ids()[:1]:
            sample = reader.read(sample_id)
            why = "samples have no labels" if sample.labels is None else ""
            if why := why or misfit(self.space, sample.image.shape[1:]):
                raise UsageFault(
                    f"{reader.folder}: {why}; make the bank again, or see --set patch="
                )

    def evaluate(self, job: Job) -> Mapping[str, Any]:
        """Predict the held-out cases, write their label maps, Dice and HD95."""
        options, source, output = self.options, self.source, job.folder
        job.say(f"evaluating on {len(source.held_out_ids)} real held-out cases")

        def predicted(image: FloatArray) -> list[LabelArray]:
            if options.save_levels:
                labels, *levels = self.predict_levels(image, output)
            else:
                labels, levels = self.predict(image, output), []
            return [np.where(labels == OUTSIDE, 0, labels).astype(np.int16), *levels]

        def on_grid(image: FloatArray) -> list[LabelArray]:
            return on_own_grid(self.space, source.schema, image, predicted)

        folder = output / PREDICTIONS if options.save_predictions else None
        levels = output / LEVELS if options.save_levels else None
        metrics = evaluate_held_out(source, self.regions, on_grid, folder, job.say, levels=levels)
        write_json_atomic(output / METRICS, {"steps": job.steps, **metrics})
        return headline(metrics)

    def check_judged(self, settings: Mapping[str, str]) -> None:
        options: Any = read_settings(self.Options, settings, self.name)
        refuse_unmeasurable(self.source, saved=options.save_predictions)

    @classmethod
    def saving_levels(cls) -> tuple[Mapping[str, str], tuple[str, ...]]:
        if cls.predict_levels is Host.predict_levels:
            return super().saving_levels()
        return {"save_levels": "yes"}, ()

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        return prediction_files(self.source, folder)

    @classmethod
    def scores(cls, folder: Path) -> dict[str, Any]:
        document = read_json(folder / METRICS)
        each = {case: scores["dice"] for case, scores in document["per_case"].items()}
        return {"steps": document["steps"], "per_case": each}


# -- one training ----------------------------------------------------------------------------------


class Job:
    """One session of a training, as ``train`` gets it; it has the bank, and writes the record.

    Attributes:
        folder: of the training's results.
        first: steps, or rounds, that earlier sessions have done.
        steps: of the whole training, or its rounds.
        batch_size: samples of a step.
        seed: for all random numbers of the host.
        schema: channels and labels of the items.
        plan: what is mixed in, for hosts with data of their own: ``Mixer(job.plan)``. Its
            ``to_json`` is read by ``MixerConfig.from_json`` in another process.
        stop: whether SIGTERM or SIGINT has asked to stop.
    """

    plan: MixerConfig[str]

    def __init__(self, host: Framework, reporter: Reporter | None) -> None:
        self.host, self.folder, self.steps = host, host.output, host.total
        self.first = self.done = self._stepped = host.done(host.output)
        self.batch_size, self.seed = host.batch_size, host.seed
        self.schema: Schema = host.space.generator_schema(host.source.schema)
        self.request = host.request
        self.stop = StopRequest()
        self.display = TrainingDisplay(reporter) if reporter else None
        self._show = self.display.show if self.display else show
        # Optimiser steps of a round, of which parts are shown.
        self._batches = math.ceil(host.samples_of_a_unit / host.batch_size)
        self._pid = os.getpid()
        # Two sessions of one process may begin in the same second, and have separate logs.
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**9:09d}-{self._pid}"
        self.log = self.folder / record.DRAWS / stamp
        self._drawn, self._partners = DrawCounter(self.log), DrawCounter(self.log / PARTNERS)
        self._described = {**host.described(), "of_epochs": self.steps}
        self._earlier = record.read_sessions(self.folder) if self.first > 0 else []
        for last in self._earlier[-1:]:  # it may have ended between a checkpoint and its record
            last["epochs"][1] = max(last["epochs"][1], self.first)
        self._rounds: list[dict[str, Any]] = []
        self._metrics: Mapping[str, Any] = {}
        self._taken, self._showed, self._reported = 0, -math.inf, time.monotonic()
        self._last: float | None = None
        self._stopping = self._closed = False
        self.training_bank = TrainingBank(
            request=host.request,
            source=host.source.request.to_json(),
            planned=host.bank_plan(host.request),
            batch_size=host.batch_size,
            samples=host.total * host.samples_of_a_unit,
            output=host.output,
            say=self.say,
            show=self._show,
            dtype=host.dtype,
            progress=self._now(),
            gpus=host.gpus,
        )
        atexit.register(self.close)

    # -- for the host ----------------------------------------------------------------------------

    @cached_property
    def data(self) -> TrainingData:
        """Items of the whole training of a ``Host``, real and synthetic."""
        host = self.host
        assert isinstance(host, Host), "other frameworks have data of their own"
        return TrainingData(
            *(host.source, host.space, self.plan),
            steps=self.steps,
            batch_size=self.batch_size,
            augment=host.augment if self.request.host_augmentation else None,
            augment_synthetic=self.request.augment_synthetic,
            foreground=host.foreground,
        )

    @cached_property
    def rounds(self) -> EpochPlan:
        """What fills each place of each round; real cases by their place in ``train_ids``.

        The same in every session: ``Mixer(job.rounds.plan).fill`` fills a place.
        """
        cases, plan = self.host.source.train_ids, replace(self.plan, stream=(0,))
        return EpochPlan.of(plan, cases, count=self.host.places)

    @property
    def places(self) -> range:
        """Places in ``data`` of the steps that are left: a ``sampler`` for a ``DataLoader``."""
        return range(self.first * self.batch_size, self.steps * self.batch_size)

    @cached_property
    def device(self) -> torch.device:
        """Where to train."""
        from gansynth.runtime.devices import pick_device

        return pick_device(self.host.device)

    def step(self, **values: float) -> None:
        """Record that one more step is done; show it with values such as its loss.

        Raises:
            Interrupted: asked to stop, and no checkpoint followed the last step.
        """
        if self._stopping:
            raise Interrupted(self.stop.number)
        now = time.monotonic()
        if self._last is not None:
            self.training_bank.step(self._last, now)
        self._stepped += 1
        self._progress(self._stepped - self.done, **values)
        if now - self._reported > REPORT_SECONDS:
            self._reported = now
            self._report()
        self._stopping = bool(self.stop())
        self._last = time.monotonic()

    def checkpoint(self, step: int, save: Callable[[Path], object] | None = None) -> None:
        """Let the training be resumed at a step: only this does.

        Args:
            step: steps of the whole training that are done.
            save: writes a file with everything that later steps depend on. It is called every
                ``--set checkpoint_every`` steps, at the last one, and before a stop. None: the host
                has written a checkpoint of its own, which ``Host.done`` finds.

        Raises:
            Interrupted: asked to stop; the checkpoint is written.
            EnvironmentFault: the disk refuses.
        """
        if save is not None:
            every = self.host.options.checkpoint_every
            if not (step % every == 0 or step == self.steps or self.stop()):
                return
            path = self.folder / CHECKPOINTS / f"step-{step:08d}.ckpt"
            with disk_errors(path):
                path.parent.mkdir(exist_ok=True)
                save(path.with_suffix(".partial"))
                os.replace(path.with_suffix(".partial"), path)
                for older in path.parent.glob("step-*.ckpt"):
                    if older != path:
                        older.unlink()
        self.done = step
        self.pause()
        if save is not None and self.stop() and step < self.steps:
            raise Interrupted(self.stop.number)

    def took(self, begin: float, end: float) -> None:
        """Record an optimiser step of a round, by ``time.monotonic()`` at its begin and end."""
        self.training_bank.step(begin, end)
        self._taken += 1
        if end - self._showed >= SHOW_SECONDS:
            self._showed = end
            # What follows the last step, such as validation, counts as one more.
            self._progress(min(self._taken, self._batches) / (self._batches + 1))

    def round(self, done: int, counts: Mapping[str, int] | None = None, /, **values: float) -> None:
        """Let the training be resumed after ``done`` rounds, whose checkpoint is written.

        Args:
            counts: of the framework's own, for the record, beside the draws.
            values: such as losses, which are shown.
        """
        self.done, self._taken = done, 0
        self._progress(0.0, **values)
        if self.host.batches is None:
            self._note_places(done, counts or {})
        self._report()
        numbers = "".join(f"; {key} {value:.4g}" for key, value in values.items())
        since = " since it went on" if self._earlier else ""
        self.note(f"{NAME}so far{since} {self._sentence()}{numbers}")
        self.pause()

    def say(self, line: str) -> None:
        """Write a line for the user, and to the log, with the name of its sender there."""
        self.note(f"{NAME}{line}")
        self._show(say=line)

    def note(self, text: str) -> None:
        """Write a whole line to the training's log."""
        with contextlib.suppress(OSError), (self.folder / record.LOG).open("a") as log:
            log.write(f"{text}\n")

    # -- from its begin to its end ---------------------------------------------------------------

    def run(self) -> None:
        """Train and evaluate. However it ends, no process is left and the record is written.

        Raises:
            EnvironmentFault: no room for the bank, or the disk refuses.
            TrainingFault: the bank does not fill, a required sample is missing, or losses are not
                finite.
            Interrupted: asked to stop.
        """
        import torch

        from gansynth.runtime.devices import pick_device

        host, complete, threads = self.host, False, torch.get_num_threads()
        self._say_where_it_begins()
        asked = nullcontext(StopRequest()) if host.apart else stop_request()
        with asked as self.stop:
            limit_threads(pick_device(host.device).type)
            try:
                self.begin()
                with self.stop.deferred():
                    self._train()
                self.training_bank.close()  # no producer during the evaluation
                self._metrics = host.evaluate(self)
                complete = True
            finally:
                torch.set_num_threads(threads)
                self.close(complete)

    def _say_where_it_begins(self) -> None:
        checked = self.host.handed_over
        if checked is not None and checked.done != self.first:
            unit, title = self.host.unit, self.host.title or self.host.name
            raise IntegrityFault(
                f"{self.folder}: {title} begins at {unit} {self.first}, expected {unit} "
                f"{checked.done}, that of the newest checkpoint in {checked.path}. Nothing was "
                f"trained and nothing overwritten; report it, or {record.ELSEWHERE}"
            )
        begun = checked is not None and checked.begun
        begins = TrainingFolder(self.folder, self.first, self.steps, self.host.unit, begun)
        self.say(f"the training {begins}")

    def begin(self) -> None:
        """Start the producer, wait for samples, make the plan, and write the record."""
        bank = self.training_bank
        for last in self._earlier[-1:]:
            record.check_same(self.folder, last, self._described)
        if self.first < self.steps:
            bank.start()
            bank.wait()
        source, each = self.host.source, self.host.batches or 1
        there = bank.bank is not None and (bank.bank / SPEC).exists()  # else its producer died
        plan: MixerConfig[str] = MixerConfig.of(
            *(self.request.mix, bank.bank if there else None, self.log),
            seed=self.request.seed,
            strict=self.request.strict,
            patience=self.request.patience,
            batches=self.steps * each,
            subjects={case: source.header(case).subject for case in source.train_ids},
            done=self.first * each,
        )
        self.plan = replace(plan, seed=self.seed)
        bank.steer(self.counts, lambda: self._partners.update().synthetic)
        self._write()  # before the first checkpoint, which is gone on with only beside a record
        if self.first < self.steps:
            self._progress(BEGUN)
        unit, ours = self.host.unit, self.host.restarts_rate
        if note := self.request.mix.schedule.tuning_note(self.steps, unit, ours=ours):
            self.say(note)

    def _train(self) -> None:
        try:
            self.host.train(self)
        except Exception as error:
            # A framework may only learn that a worker has gone, not why.
            if why := self.counts().stopped or self._partners.update().stopped:
                supervisor = self.training_bank.supervisor
                if supervisor is not None and supervisor.ended:
                    why += f". The producer had ended: {supervisor.ended}"
                raise TrainingFault(why) from error
            raise

    def pause(self) -> None:
        """Record a checkpoint; see ``TrainingBank.pause``."""
        self.training_bank.pause(self._now())
        self._write()

    def close(self, complete: bool = False) -> None:
        """Stop the producer, remove its bank and write the record; only once."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self.display:
            self.display.close()
        try:
            self.training_bank.close()
        finally:
            if hasattr(self, "plan"):  # else it drew nothing
                with contextlib.suppress(OSError):  # the output may be closed
                    self._write(complete)
                    whole = "since it went on" if self._earlier else "in all"
                    self.note(f"{NAME}{whole} {self._sentence()}")

    # -- what is recorded and shown --------------------------------------------------------------

    def _note_places(self, done: int, counts: Mapping[str, int]) -> None:
        """Record the draws of a round; workers draw ahead, some by rounds."""
        drawn = {}
        for kind, draws in (("", self.counts()), ("partners_", self._partners.update())):
            for key in ("real", "synthetic", "fell_back"):
                before = sum(each[kind + key] for each in self._rounds)
                drawn[kind + key] = getattr(draws, key) - before
        table = self.rounds.table(done - 1)
        synthetic = int(table.synthetic.sum())
        real = len(table.synthetic) - synthetic
        self._rounds.append(
            {"epoch": done, "places_real": real, "places_synthetic": synthetic, **drawn, **counts}
        )
        text = f"{drawn['real']} real, {drawn['synthetic']} synthetic"
        if drawn["partners_real"] or drawn["partners_synthetic"]:
            text += (
                f", with {drawn['partners_real']} real, {drawn['partners_synthetic']} synthetic "
                "partners"
            )
        if missing := drawn["fell_back"] + drawn["partners_fell_back"]:
            text += f"; {missing} of the real ones in place of a missing synthetic one"
        self.note(
            f"{NAME}{self.host.unit} {done} of {self.steps} had places for {real} real and "
            f"{synthetic} synthetic samples; drawn meanwhile: {text}"
        )

    def _progress(self, part: float, **values: float) -> None:
        """Show the units done, with a part of the current one, and the share drawn so far."""
        share = f"{self.counts().realised:.0%}"
        finite = {key: value for key, value in values.items() if math.isfinite(value)}
        done = round(self.done + part, 3)
        self._show(unit=self.host.unit, done=done, total=self.steps, synthetic=share, **finite)

    def _report(self) -> None:
        """Write new messages about the producer and the samples."""
        for message in self.training_bank.messages():
            self.say(message)

    def counts(self) -> DrawCounts:
        """Return the draws of all workers so far, without partners."""
        return self._drawn.update()

    def _now(self) -> float:
        """Return the progress, 0 to 1."""
        # Of drawing, slightly ahead of training, where each batch is counted.
        if self.host.batches is not None and hasattr(self, "plan") and self.plan.batch_counter:
            return self.plan.batch_counter.now()
        return min(1.0, self.done / self.steps)

    def _asked(self) -> float:
        """Return the requested share of synthetic samples in this session until now."""
        begin = min(1.0, self.first / self.steps)
        return self.request.mix.share_of(begin, self._now())

    def _sentence(self) -> str:
        texts = self.counts().sentence(self._asked()), self.training_bank.sentence()
        return ", ".join(filter(None, texts))

    def _write(self, complete: bool = False) -> None:
        """Write the record of all sessions; a failing disk does not stop the training."""
        counts = self.counts()
        this = {
            "epochs": [self.first, self.done],
            **self._described,
            "chosen": list(self.plan.chosen),
            "drawn": counts.to_json(),
            "draw_log": self.log.name,
            "asked": round(self._asked(), 6),
            "supply": self.training_bank.summary(counts),
            "metrics_on_real_cases": dict(self._metrics),
        }
        if self.host.unit != "step" and self.host.batches is None:
            this |= {"partners": self._partners.update().to_json(), "per_epoch": self._rounds}
        try:
            record.write_sessions(self.folder, [*self._earlier, this], complete=complete)
        except EnvironmentFault as error:
            self.say(f"{WARNING}{error}")
