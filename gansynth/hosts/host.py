"""The contract of a host plugin: ``patch``, ``length``, ``train(job)`` and ``predict``.

A host says what it trains on, trains, and predicts. Bank, mixing, pace, resume, record, evaluation
and checks are the same for all hosts, and stand here.
"""

from __future__ import annotations

import copy
import os
import time
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, final

import numpy as np
from pydantic import Field

from gansynth.bank.reader import BankReader, verify_bank
from gansynth.bank.training_bank import BankRequirements, read_patience
from gansynth.core.adapter import Adapter, HostArrays, HostOptions
from gansynth.core.bank_options import BankCapacity
from gansynth.core.host_commands import TrainingFolder, TrainingRequest
from gansynth.core.mix_config import Mix, MixConfig, MixerConfig, TrainingResult
from gansynth.core.prediction import Prediction
from gansynth.core.run_folder import RunFolder
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray, Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.hosts import record
from gansynth.hosts.checks import HostLimits, check_drawing, check_origin, plan_own_bank
from gansynth.hosts.held_out import (
    LEVELS,
    METRICS,
    PREDICTIONS,
    evaluate_held_out,
    prediction_files,
    refuse_unmeasurable,
)
from gansynth.hosts.launch import gpus_of
from gansynth.hosts.sample_source import SampleSource
from gansynth.hosts.session import CachedResult, HostSession, training_in
from gansynth.hosts.training_data import (
    Pair,
    TrainingData,
    misfit,
    on_own_grid,
    training_space,
)
from gansynth.metrics.segmentation.evaluation import headline
from gansynth.metrics.segmentation.regions import Regions
from gansynth.metrics.segmentation.results import asked_regions
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.files import disk_errors, read_json, write_json_atomic
from gansynth.runtime.option_kinds import Device
from gansynth.runtime.options import read_settings, refuse_unaugmented
from gansynth.runtime.progress import Reporter
from gansynth.runtime.signals import Interrupted, StopRequest, stop_request

if TYPE_CHECKING:
    import torch

CHECKPOINTS = "checkpoints"
METADATA_BYTES = 4096  # of a sample in a bank
REPORT_SECONDS = 1.0  # least time between two looks for messages of the producer
COMPARED = (*record.COMPARED, "data", "read", "fold", "training_seed", "settings")
"""Keys of a session that every further session of the same training shares."""


class TrainingOptions(HostOptions):
    """Options that every host has; a host's ``Options`` extend them."""

    place: ClassVar[str] = "output"
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
    device: Device = Field("auto", description="training device: auto, cpu, cuda or cuda:N")
    seed: int | None = Field(
        None,
        ge=0,
        lt=2**31,
        description="seeds weights, crops and augmentation, in place of --seed",
    )
    checkpoint_every: int = Field(500, ge=1, description="steps between checkpoints")
    output: str = Field(
        "",
        description="folder for the results, as -o (runs/TARGET/NAME_GENERATOR_R-S_SCHEDULE)",
    )


class Host(Adapter):
    """A framework that trains a segmenter on crops; a subclass has four members of its own.

    Within ``patch``, ``length``, ``train``, ``predict`` and the optional members, ``self.options``
    holds the options of the training, ``self.source`` the real cases, ``self.space`` the space of
    the items and ``self.schema`` their channels and labels.
    """

    Options: ClassVar[type[HostOptions]] = TrainingOptions
    packages: ClassVar[tuple[str, ...]] = ("torch", "numpy")
    """Distributions whose versions are recorded with a training."""
    may_change: ClassVar[tuple[str, ...]] = ()
    """Options that may differ when a training is resumed, beside place, device and checkpoints."""
    augmentation: ClassVar[tuple[str, ...]] = ()
    """Options of ``augment``, refused with ``--no-host-augmentation``."""
    stronger: ClassVar[Mapping[str, str]] = {}
    """Settings of stronger augmentation than usual, for benchmarks; none if there are none."""
    selects: ClassVar[bool] = False
    """Whether held-out cases select weights. Such a host is refused in benchmarks."""
    options: Any
    space: Space

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

    def check_options(self) -> None:
        """Check options before anything is trained, beyond their types; optional.

        Raises:
            UsageFault: names an option.
        """

    def describe_training(self) -> Mapping[str, Any]:
        """Return further entries of a dry run's plan; optional."""
        return {}

    def steps_done(self, folder: Path) -> int:
        """Return the step of the newest checkpoint; for hosts that write their own."""
        found = self.checkpoint(folder)
        return 0 if found is None else int(found.stem.removeprefix("step-"))

    @final
    def checkpoint(self, folder: Path) -> Path | None:
        """Return the newest file that ``Job.checkpoint`` has saved in a training's folder."""
        return max((folder / CHECKPOINTS).glob("step-*.ckpt"), default=None)

    # -- what follows from it, for every host ----------------------------------------------------

    def __init__(self, source: CaseSource) -> None:
        super().__init__(source)
        self._training = CachedResult(self._new_training)

    def finalise(self, sample: Sample) -> HostArrays:
        """Return no arrays beside image and labels."""
        if sample.labels is None:
            raise DataFault(
                f"sample: no labels, expected them, because {self.name} learns from labels"
            )
        return {}

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

    def check(self, request: TrainingRequest) -> None:
        """Check options, and the generator or bank."""
        self._checked_training(request)

    @classmethod
    def impartial(cls, options: Sequence[str], settings: Mapping[str, str]) -> tuple[str, ...]:
        """Refuse a host that ``selects``."""
        if cls.selects:
            raise UsageFault(
                f"host.target: {cls.name} selects weights by the held-out cases, expected a host "
                "that does not"
            )
        return super().impartial(options, settings)

    @classmethod
    def heavier(cls, settings: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return ``stronger``."""
        return (cls.stronger, ()) if cls.stronger else super().heavier(settings)

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Return the option ``steps``; a host that counts otherwise overrides it."""
        if self.length_option not in self.Options.model_fields:
            return super().lasting(steps, mixes, settings, cases)
        return [{self.length_option: str(steps)} for _ in mixes]

    def planned(self, request: TrainingRequest) -> Mapping[str, Any]:
        """Describe steps, items and evaluation for a dry run."""
        training = self._training(request)
        space = training.host.space
        return {
            **training.host.describe_training(),
            "steps": training.steps,
            "samples_of_a_step": training.batch_size,
            "trained_on": {"grid": space.grid, "size": list(space.size)},
            "judged_on": "real held-out cases, whole, on their own grid",
            "regions": {name: list(labels) for name, labels in training.regions},
        }

    def samples_drawn(self, request: TrainingRequest) -> int:
        """Return the samples of all steps."""
        training = self._training(request)
        return training.steps * training.batch_size

    def bank_plan(self, mix_config: MixConfig) -> BankCapacity | None:
        """Plan the sample bank of a run."""
        return plan_own_bank(self, mix_config, self._sample_bytes)

    def _sample_bytes(self, manifest: Mapping[str, Any]) -> int:
        """Return the most bytes of a run's sample: image (float16) and labels (int16)."""
        space = Space.from_json(manifest["space"])
        if space.cuts or space.frame:
            voxels = prod(space.host_shape(()))
        else:
            voxels = max(prod(self.source.header(case).shape) for case in self.source.train_ids)
        return voxels * (2 * len(manifest["schema"]["channels"]) + 2) + METADATA_BYTES

    def start(self, request: TrainingRequest) -> TrainingResult:
        """Train, evaluate on the real held-out cases, and write both to the output folder.

        Raises:
            Interrupted: by SIGTERM or SIGINT. A checkpoint is written, and no process or bank is
                left.
        """
        self.validate()
        training = self._checked_training(request)
        with training_in(lambda: self.training_folder(request)) as folder:
            if not folder.finished:
                _Session(training, request.reporter).run()
            sessions = record.read_sessions(training.output / record.FILE)
            metrics = sessions[-1]["metrics_on_real_cases"]
            return record.training_result_of(sessions, training.output, metrics)

    def training_folder(self, request: TrainingRequest) -> TrainingFolder:
        """Look into the output folder."""
        training = self._training(request)
        return record.training_folder(
            *(training.output, training.describe(), COMPARED),
            done=training.host.steps_done(training.output),
            total=training.steps,
            unit="step",
            result=METRICS,
        )

    def check_judged(self, settings: Mapping[str, str]) -> None:
        """Reject cases without files, and ``save_predictions=no``."""
        options: Any = read_settings(self.Options, settings, self.name)
        refuse_unmeasurable(self.source, saved=options.save_predictions)

    @classmethod
    def saving_levels(cls) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return the setting that writes levels, if the host has ``predict_levels``."""
        if cls.predict_levels is Host.predict_levels:
            return super().saving_levels()
        return {"save_levels": "yes"}, ()

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        """Return the label maps of the held-out cases."""
        return prediction_files(self.source, folder)

    @classmethod
    def scores(cls, folder: Path) -> dict[str, Any]:
        """Return steps, and the Dice of every case."""
        document = read_json(folder / METRICS)
        each = {case: scores["dice"] for case, scores in document["per_case"].items()}
        return {"steps": document["steps"], "per_case": each}

    def _checked_training(self, request: TrainingRequest) -> _Training:
        self.check_ways(request.mix_config)
        training = self._training(request)
        check_drawing(self, request.mix_config)
        return training

    def _new_training(self, request: TrainingRequest) -> _Training:
        from gansynth.runtime.devices import pick_device

        mix_config, source = request.mix_config, self.source
        if request.options:
            raise UsageFault(
                f"-- {request.options[0]}: {self.name} has no command line of its own, expected "
                "--set KEY=VALUE; leave what follows -- out"
            )
        host = copy.copy(self)
        options: Any = read_settings(self.Options, request.settings, self.name)
        host.options = options
        refuse_unaugmented(request.settings, self.augmentation, usual=mix_config.usual_augmentation)
        host.space = training_space(source, host.patch)
        regions = asked_regions(options.regions, source)
        pick_device(options.device)
        if options.save_levels and type(self).predict_levels is Host.predict_levels:
            self.predict_levels(np.empty(0, np.float32), Path())  # refuses
        host.check_options()
        steps, batch_size = host.length
        sample_source = None if mix_config.ratio.p == 0 else _sample_source(mix_config, host)
        runs = Path("runs") / self.name
        output = Path(options.output).expanduser() if options.output else None
        return _Training(
            host=host,
            mix_config=mix_config,
            regions=regions,
            steps=steps,
            batch_size=batch_size,
            output=(output or record.default_output(runs, source.name, mix_config)).absolute(),
            sample_source=sample_source,
        )


# -- checks of a generator or bank -----------------------------------------------------------------


def _sample_source(mix_config: MixConfig, host: Host) -> SampleSource:
    """Check the generator or bank of a training."""
    source, space = host.source, host.space

    def check_run(run: RunFolder) -> None:
        why = ""
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
                f"{run.folder}: {why}; train on smaller crops (--set patch=), or fit a generator "
                f"in the space of the training: gansynth fit {run.manifest['generator']} --data "
                f"{source.request.kind}:{source.request.where} with the same --read"
            )

    def check_bank(reader: BankReader) -> None:
        verify_bank(reader.folder)
        for sample_id in reader.ids()[:1]:
            sample = reader.read(sample_id)
            why = "samples have no labels" if sample.labels is None else ""
            if why := why or misfit(space, sample.image.shape[1:]):
                raise UsageFault(
                    f"{reader.folder}: {why}; make the bank again, or see --set patch="
                )

    limits = HostLimits(
        host.name,
        source,
        host.held_out,
        same=("channels", "labels"),
        check_run=check_run,
        check_bank=check_bank,
    )
    return check_origin(mix_config, limits)


# -- one training ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Training:
    """One training that has passed every check."""

    host: Host  # with the options and the space of this training
    mix_config: MixConfig
    regions: Regions  # for Dice, with all labels
    steps: int  # of the whole training
    batch_size: int
    output: Path  # folder for results
    sample_source: SampleSource | None  # None without synthetic samples

    @property
    def seed(self) -> int:
        """The seed of weights, crops and augmentation."""
        seed: int | None = self.host.options.seed
        return self.mix_config.seed if seed is None else seed

    def describe(self) -> dict[str, Any]:
        """Describe the data, mix and settings of one session."""
        host, request = self.host, self.host.source.request
        varying = {"device", "checkpoint_every", "output", "seed", *host.may_change}
        return {
            **record.describe_session(self.mix_config, self.sample_source),
            "data": f"{request.kind}:{request.where}",
            "read": dict(request.read),
            "fold": host.source.request.fold,
            "counted_in": "steps",
            "training_seed": self.seed,
            "settings": {
                **host.options.model_dump(mode="json", exclude=varying),
                "space": list(host.space.size),
                "grid": host.space.grid,
                "steps": self.steps,
            },
            "versions": {name: version(name) for name in host.packages},
        }


class Job:
    """One session of a training, as ``Host.train`` gets it.

    Attributes:
        folder: of the training's results.
        data: items of the whole training, real and synthetic; see ``TrainingData``.
        first: steps that earlier sessions have done.
        steps: of the whole training.
        batch_size: samples of a step.
        seed: for all random numbers of the host.
        schema: channels and labels of the items.
        space: of the items.
        regions: name and labels of each region that is evaluated.
        plan: what is mixed in, for hosts with data of their own: ``Mixer(job.plan)``.
        stop: whether SIGTERM or SIGINT has asked to stop.
    """

    def __init__(self, session: _Session, stop: StopRequest) -> None:
        training = session.training
        host, mix_config = training.host, training.mix_config
        self.folder, self.first, self.steps = training.output, session.first, training.steps
        self.batch_size, self.seed = training.batch_size, training.seed
        self.regions, self.space = training.regions, host.space
        self.plan, self.stop, self.schedule = session.plan, stop, mix_config.schedule
        self.schema: Schema = host.space.generator_schema(host.source.schema)
        self.data = TrainingData(
            *(host.source, host.space, session.plan),
            steps=training.steps,
            batch_size=training.batch_size,
            augment=host.augment if mix_config.usual_augmentation else None,
            augment_synthetic=mix_config.augment_synthetic,
            foreground=host.foreground,
        )
        self.say = session.say
        self._session, self._options = session, host.options
        self._done, self._stopping = session.first, False
        self._last: float | None = None
        self._reported = time.monotonic()

    @property
    def places(self) -> range:
        """Places in ``data`` of the steps that are left: a ``sampler`` for a ``DataLoader``."""
        return range(self.first * self.batch_size, self.steps * self.batch_size)

    @cached_property
    def device(self) -> torch.device:
        """Where to train."""
        from gansynth.runtime.devices import pick_device

        return pick_device(self._options.device)

    def step(self, **values: float) -> None:
        """Record that one more step is done; show it with values such as its loss.

        Raises:
            Interrupted: asked to stop, and no checkpoint followed the last step.
        """
        if self._stopping:
            raise Interrupted(self.stop.number)
        now, session = time.monotonic(), self._session
        if self._last is not None:
            session.step(self._last, now)
        self._done += 1
        session.show_progress(self._done - session.done, **values)
        if now - self._reported > REPORT_SECONDS:
            self._reported = now
            session.report()
        self._stopping = bool(self.stop())
        self._last = time.monotonic()

    def checkpoint(self, step: int, save: Callable[[Path], object] | None = None) -> None:
        """Let the training be resumed at a step: only this does.

        Args:
            step: steps of the whole training that are done.
            save: writes a file with everything that later steps depend on. It is called every
                ``--set checkpoint_every`` steps, at the last one, and before a stop. None: the host
                has written a checkpoint of its own, which ``Host.steps_done`` finds.

        Raises:
            Interrupted: asked to stop; the checkpoint is written.
            EnvironmentFault: the disk refuses.
        """
        if save is None:
            self._session.move(step)
            return
        if not (step % self._options.checkpoint_every == 0 or step == self.steps or self.stop()):
            return
        path = self.folder / CHECKPOINTS / f"step-{step:08d}.ckpt"
        with disk_errors(path):
            path.parent.mkdir(exist_ok=True)
            save(path.with_suffix(".partial"))
            os.replace(path.with_suffix(".partial"), path)
            for older in path.parent.glob("step-*.ckpt"):
                if older != path:
                    older.unlink()
        self._session.move(step)
        if self.stop() and step < self.steps:
            raise Interrupted(self.stop.number)


class _Session(HostSession[str]):
    """Trains, evaluates and records; ``run`` does it all."""

    unit = "step"
    compared = COMPARED

    def __init__(self, training: _Training, reporter: Reporter) -> None:
        self.training = training
        first = training.host.steps_done(training.output)
        super().__init__(training.mix_config, training.output, first, training.steps, reporter)
        self._metrics: dict[str, Any] = {}

    def run(self) -> None:
        """Train and evaluate. However it ends, no process is left and the record is written.

        Raises:
            EnvironmentFault: no room for the bank, or the disk refuses.
            TrainingFault: the bank does not fill, a required sample is missing, or losses are not
                finite.
            Interrupted: asked to stop.
        """
        self.open()
        complete = False
        with stop_request() as stop, _one_core_left(self.training.host.options.device):
            try:
                self.start()
                self.steer()
                if note := self.mix_config.schedule.tuning_note(self.total, "step", ours=True):
                    self.say(note)
                job = Job(self, stop)
                with stop.deferred():
                    self.training.host.train(job)
                self.training_bank.close()  # no producer during the evaluation
                self._evaluate()
                complete = True
            finally:
                self.close(complete)

    def move(self, step: int) -> None:
        """Record a checkpoint of a step."""
        self.done = step
        self.pause()
        self.write()

    def describe(self) -> dict[str, Any]:
        return self.training.describe()

    def demand(self) -> BankRequirements:
        training, host = self.training, self.training.host
        run = None if training.sample_source is None else training.sample_source.run
        return BankRequirements(
            mix_config=training.mix_config,
            target=host.name,
            request=host.source.request.to_json(),
            run_id=None if run is None else run.run_id,
            cases=len(host.source.train_ids),
            sample_bytes=0 if run is None else host._sample_bytes(run.manifest),
            batch_size=training.batch_size,
            samples=training.steps * training.batch_size,
            output=training.output,
            say=self.say,
            progress=self.now(),
            gpus=gpus_of(host.options.device),
        )

    def make_plan(self) -> MixerConfig[str]:
        training, source = self.training, self.training.host.source
        plan: MixerConfig[str] = training.mix_config.plan(
            self.bank,
            self.log,
            batches=training.steps,
            subjects={case: source.header(case).subject for case in source.train_ids},
            done=self.first,
        )
        return replace(plan, seed=training.seed, patience=read_patience())

    def more(self) -> dict[str, Any]:
        return {"metrics_on_real_cases": self._metrics}

    def _evaluate(self) -> None:
        training, host = self.training, self.training.host
        options, source, output = host.options, host.source, training.output
        self.say(f"evaluating on {len(source.held_out_ids)} real held-out cases")

        def predicted(image: FloatArray) -> list[LabelArray]:
            if options.save_levels:
                labels, *levels = host.predict_levels(image, output)
            else:
                labels, levels = host.predict(image, output), []
            return [np.where(labels == OUTSIDE, 0, labels).astype(np.int16), *levels]

        def on_grid(image: FloatArray) -> list[LabelArray]:
            return on_own_grid(host.space, source.schema, image, predicted)

        folder = output / PREDICTIONS if options.save_predictions else None
        levels = output / LEVELS if options.save_levels else None
        metrics = evaluate_held_out(
            source, training.regions, on_grid, folder, self.say, levels=levels
        )
        write_json_atomic(output / METRICS, {"steps": training.steps, **metrics})
        self._metrics = headline(metrics)


@contextmanager
def _one_core_left(device: str) -> Iterator[None]:
    """Leave the producer one core; see ``gansynth.runtime.child.limit_threads``."""
    import torch

    from gansynth.runtime.child import limit_threads
    from gansynth.runtime.devices import pick_device

    before = torch.get_num_threads()
    limit_threads(pick_device(device).type)
    try:
        yield
    finally:
        torch.set_num_threads(before)
