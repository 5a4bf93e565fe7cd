"""Trains the dual-path network by gansynth's loop, on subepochs of segments.

A step of the loop is a batch of segments, and it checkpoints at the end of every epoch. Nothing
random is kept: whatever is drawn is keyed by seed and subepoch, or by seed and step.
"""

from __future__ import annotations

import math
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gansynth.core.generator import Batch, Generator, GeneratorOptions, Phase, Stage, Step
from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.core.schema import Condition, Sample, Schema
from gansynth.metrics.segmentation.regions import with_labels
from gansynth.runtime.devices import pick_device, resolve, seeded
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.progress import NullReporter
from gansynth.runtime.progress import Task as Progressing
from gansynth.training import checkpoint
from gansynth.training.checkpoint_manager import Callbacks
from gansynth.training.loop import FitOptions, train
from gansynth_deepmedic.cases import class_labels
from gansynth_deepmedic.configs import (
    ModelConfig,
    TrainConfig,
    read_model_config,
    read_train_config,
)
from gansynth_deepmedic.engine.cutting import Cutting, read_volume
from gansynth_deepmedic.engine.geometry import Geometry
from gansynth_deepmedic.engine.infer import (
    PREDICTIONS,
    Confusion,
    Held,
    Predictor,
    held_cases,
    placed,
    validate,
)
from gansynth_deepmedic.engine.network import DualPath, default_model
from gansynth_deepmedic.engine.optimiser import Optimiser, Rates, loss_of
from gansynth_deepmedic.engine.segments import DeepMedicSegments, Drawn
from gansynth_deepmedic.engine.settings import EngineSettings
from gansynth_deepmedic.order import PROGRESS, Order, Progress
from gansynth_deepmedic.subepochs import Subepochs

CHECKPOINTS = "checkpoints"
VALIDATION = "validation.json"
NETWORK = "network"
"""Name of the network, and of who trains it, in checkpoints."""
_HELD = 1
"""Number in the seed of validation segments."""
_DONE = "memory/rates/done"
"""Epochs done, in a checkpoint."""


@dataclass
class SegmentBatch(Batch):
    """Segments (``image``), and what is predicted of them (``labels``)."""

    low: tuple[Tensor, ...] = ()  # their surroundings (B, C, X, Y, Z) for each subsampled path

    @classmethod
    def of(cls, items: Mapping[str, Tensor]) -> SegmentBatch:
        """What ``DeepMedicSegments.batch`` gave, in memory of its own."""
        low = (value.clone() for name, value in items.items() if name.startswith("low_"))
        return cls(items["high"].clone(), items["labels"], low=tuple(low))

    def to(self, device: torch.device) -> SegmentBatch:
        """The same on a device."""
        assert self.labels is not None
        low = tuple(placed(part, device) for part in self.low)
        return SegmentBatch(placed(self.image, device), self.labels.to(device), low=low)


class DualPathSegmenter(Generator):
    """The dual-path network as the training loop takes one.

    Args:
        model: of the network.
        settings: of its training.
        loss: of a step's segments.
    """

    name: ClassVar[str] = "deepmedic"
    ema: ClassVar[tuple[str, ...]] = ()
    if_not_finite: ClassVar[str] = (
        "Look for absurd intensities in the images, or lower learningRate of the configuration"
    )

    def __init__(
        self,
        model: ModelConfig,
        settings: EngineSettings,
        loss: Callable[[Step], Mapping[str, Tensor]],
    ) -> None:
        self.model, self.how, self._loss = model, settings.optimisation, loss
        self.rates = Rates(settings.rates, self.how.rate, self.how.momentum)
        channels = tuple(f"channel {number}" for number in range(model.channels))
        schema = Schema(channels, class_labels(model.classes), (1.0, 1.0, 1.0))
        super().__init__(schema, model.segment, GeneratorOptions())
        self.memories["rates"] = self.rates

    @property
    def network(self) -> DualPath:
        """The network itself."""
        network = self.nets[NETWORK]
        assert isinstance(network, DualPath)
        return network

    def networks(self) -> dict[str, nn.Module]:
        """The dual-path network alone."""
        return {NETWORK: DualPath(self.model)}

    def phases(self) -> Sequence[Phase]:
        """One player."""
        return [Phase(NETWORK, self._loss)]

    def optimizer(self, player: str, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """DeepMedic's own."""
        self.optimiser = Optimiser(parameters, self.network.convolved(), self.how)
        return self.optimiser

    def set_epoch(self, at: float) -> float:
        """What learning rates are multiplied by after so many epochs; sets the momentum."""
        for group in self.optimiser.param_groups:
            group["momentum"] = self.rates.momentum(at)
        return self.rates.rate(at) / self.rates.first if self.rates.first else 1.0

    def sample(self, conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        """Nothing: whole volumes are segmented by ``infer.Predictor``."""
        raise NotImplementedError

    def to(self, device: torch.device) -> Generator:
        """Move the network, as convolutions are fastest there."""
        self.device = device
        self.network.to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        return self


@dataclass(frozen=True)
class Task:
    """What an order means."""

    order: Order
    config: TrainConfig
    model: ModelConfig
    settings: EngineSettings

    @classmethod
    def of(cls, order: Order) -> Task:
        """Read the configurations that an order names.

        Raises:
            UsageFault, DataFault: they cannot be used.
        """
        settings = EngineSettings.from_json(order.options)
        if order.model_config is not None:
            model = read_model_config(order.model_config)
        else:
            model = default_model(settings.classes, settings.channels)
        return cls(order, read_train_config(order.train_config), model, settings)

    @cached_property
    def cutting(self) -> Cutting:
        """How segments are cut of training cases."""
        return Cutting.from_configs(self.config, self.model)

    def training(self, tell: Callable[..., None]) -> DeepMedicSegments:
        """Segments to train on.

        Raises:
            DataFault: fewer than a batch, or than cases.
        """
        config, order = self.config, self.order
        if config.segments < max(config.batch, order.count):
            raise DataFault(
                f"{config.path}: {config.segments} segment(s) of a subepoch, expected at least a "
                f"batch ({config.batch}) and one for each of {order.count} cases; enlarge "
                "numberTrainingSegmentsLoadedOnGpuPerSubep"
            )
        return DeepMedicSegments(
            order.made(),
            read_volume,
            Geometry.from_model(self.model),
            self.cutting,
            segments=config.segments,
            seed=order.seed,
            augment_synthetic=order.augment_synthetic,
            tell=tell,
        )

    def held_segments(self, held: tuple[Held, ...]) -> DeepMedicSegments | None:
        """Segments of real validation cases; None if there is no validation on any."""
        cases = tuple(one.case for one in held if one.truth)
        wanted = self.settings.validation
        if not wanted.samples or not cases:
            return None
        plan: MixPlan[int] = MixPlan(None, Ratio(1, 0), seed=self.order.seed, stream=(_HELD,))
        count = min(self.config.cases, len(cases))
        return DeepMedicSegments(
            Subepochs(plan, cases, count),
            read_volume,
            Geometry.from_model(self.model, "validation"),
            self.cutting.for_validation(self.config),
            segments=max(wanted.segments, count),
            seed=self.order.seed,
            augment=False,
        )


class Training:
    """One session of a training; ``run`` does it all.

    Args:
        task: what is to be done.
        say: writes a line for the user.
        progress: told how it goes; None for the order's own file.

    Attributes:
        steps: of a subepoch: its whole batches.
        each: steps of an epoch.
    """

    def __init__(
        self, task: Task, say: Callable[[str], None], progress: Progress | None = None
    ) -> None:
        self.task, self.say = task, say
        self.tell = (progress or Progress(task.order.output / PROGRESS)).tell
        self.device = pick_device(task.settings.device)
        self.bf16 = resolve(task.settings.precision, self.device) == "bf16"
        with seeded(task.order.seed):
            self.segmenter = DualPathSegmenter(task.model, task.settings, self._loss)
        self.segments = task.training(self.tell)
        self.held = held_cases(task.config)
        self.held_segments = task.held_segments(self.held)
        self.steps = len(self.segments) // task.config.batch
        self.each = self.steps * task.order.subepochs
        self._ahead: tuple[int, Future[tuple[Drawn, Drawn | None]]] | None = None
        self._held_drawn: Drawn | None = None
        self._seen = Confusion(task.settings.classes), list[float]()
        self._metrics: dict[str, Any] = {}
        self._end: dict[str, Any] | None = None
        self._index, self._began = 0, 0.0

    def run(self) -> Mapping[str, Any]:
        """Train what is left of it.

        Returns:
            What is known of the trained network on real validation cases.

        Raises:
            GansynthError: what is wrong with data, samples, disk or the training itself.
        """
        order, config, settings = self.task.order, self.task.config, self.task.settings
        first = self._go_on()
        self._say_what()
        train(
            self.segmenter,
            self._batch,
            FitOptions(
                steps=config.epochs * self.each,
                batch_size=config.batch,
                seed=order.seed % 2**31,
                precision=settings.precision,
                checkpoint_every=self.each,
                log_every=self.each,
            ),
            device=self.device,
            folder=order.output,
            resume=first > 0,
            rate=self._rate,
            callbacks=Callbacks(
                checkpoint=lambda path, step: self._checkpointed(step // self.each, first),
                metrics=self._epoch_ended,
                reporter=_Steps(self.say, self._stepped),
            ),
        )
        end = self.volumes(config.epochs) if self._end is None else self._end
        self.tell(end=end)
        return end

    def _say_what(self) -> None:
        parameters = sum(p.numel() for p in self.segmenter.network.parameters())
        self.say(
            f"gansynth: a network of {parameters} parameters on {self.device}, "
            f"{'bf16' if self.bf16 else 'fp32'}; segments of {list(self.segments.geometry.segment)}"
            f", {self.segments.segments} a subepoch in batches of {self.task.config.batch}"
        )
        if not self.held:
            self.say(
                "gansynth: the configuration validates on no cases: no Dice will be reported. To "
                "have it, name them and set performFullInferenceOnValidationImagesEveryFewEpochs"
            )

    def _go_on(self) -> int:
        """Epochs that the newest whole checkpoint has done; later ones come again and go.

        Raises:
            UsageFault: a training would begin where there is one, or it is of an older gansynth.
            IntegrityFault: there is no whole checkpoint.
        """
        folder, done = self.task.order.output / CHECKPOINTS, self.task.order.done
        if done == 0:
            begun = sorted(folder.glob("step-*[1-9]*"))
            if begun:
                raise UsageFault(
                    f"{folder}: holds {begun[-1].name}, expected no checkpoint where a training "
                    "begins; go on with it (--set resume=yes), or choose another -o"
                )
            return 0
        why = ""
        try:
            found = checkpoint.latest(folder, lambda one: epochs_of(one) <= done)
        except IntegrityFault as fault:
            found, why = None, f"; {fault}"
        if found is None:
            raise IntegrityFault(
                f"{folder}: no whole checkpoint of {done} epoch(s) or fewer{why}, expected one; "
                "restore it from a backup, or start anew in another folder"
            )
        for text in found.passed_over:
            name, _, error = text.partition(": ")
            self.say(
                f"gansynth: WARNING: checkpoint {name} is damaged and was passed over: {error}"
            )
        epochs = epochs_of(found)
        if found.state["step"] != epochs * self.each:  # an epoch has other steps now
            checkpoint.save(folder, epochs * self.each, found.tensors, {}, found.state)
        for path in folder.glob("step-*"):  # the record knows nothing of what is later
            if path.name != f"step-{epochs * self.each:08d}" and path.name >= found.folder.name:
                shutil.rmtree(path, ignore_errors=True)
        return epochs

    # -- what the loop asks for ------------------------------------------------------------------

    def _draw(self, k: int) -> tuple[Drawn, Drawn | None]:
        """Segments of subepoch k, to train and to validate on."""
        held = None if self.held_segments is None else self.held_segments.draw(k)
        return self.segments.draw(k), held

    def _batch(self, step: int, stage: Stage, which: range) -> SegmentBatch:
        """The segments of a step; a thread of the loop asks for them while the last one runs."""
        k, number = divmod(step, self.steps)
        if number == 0:
            ahead, self._ahead = self._ahead, None
            drawn, held = ahead[1].result() if ahead and ahead[0] == k else self._draw(k)
            self.segments.set_subepoch(k, drawn)
            self._held_drawn = held
            del drawn, ahead  # three subepochs would be in memory otherwise
            if self.task.config.processes != -1 and step + self.steps < self._total:
                self._ahead = k + 1, _begun(lambda: self._draw(k + 1))
        batch = self.task.config.batch
        return SegmentBatch.of(self.segments.batch(number * batch, (number + 1) * batch))

    @property
    def _total(self) -> int:
        """Steps of the whole training."""
        return self.task.config.epochs * self.each

    def _rate(self, step: int) -> float:
        epoch, epochs = step // self.each, self.task.config.epochs
        schedule = self.task.order.plan.schedule
        if schedule.kind == "finetune" and step == schedule.turn(epochs) * self.each:
            self.segmenter.rates.restart(epoch)
        return self.segmenter.set_epoch(schedule.restarted(epoch, epochs))

    def _loss(self, step: Step) -> dict[str, Tensor]:
        """The loss of a step, without L1 and L2; a subepoch begins with a look at validation."""
        if step.index % self.steps == 0:
            self._look(step.index)
        self._index, self._began = step.index, time.monotonic()
        return self.loss(step)

    def loss(self, step: Step) -> dict[str, Tensor]:
        """The loss of a step's segments, without L1 and L2."""
        batch = step.batch
        assert isinstance(batch, SegmentBatch)
        assert batch.labels is not None
        logits = self.segmenter.network(batch.image, batch.low)
        epoch = step.index // self.each
        return {"loss": loss_of(logits, batch.labels, self.task.settings.losses, epoch)[0]}

    # -- what the loop tells ---------------------------------------------------------------------

    def _stepped(self) -> None:
        self.tell(step=[self._began, time.monotonic()])
        k, number = divmod(self._index, self.steps)
        if number == self.steps - 1:
            self.tell(trained=k)

    def _epoch_ended(self, step: int, losses: Mapping[str, float]) -> None:
        """Before its checkpoint, which keeps what follows for the learning rate."""
        confusion, accuracies = self._seen
        metrics: dict[str, Any] = {"loss": losses[f"{NETWORK}/loss"]}
        if accuracies:
            metrics["val accuracy"] = sum(accuracies) / len(accuracies)
            metrics["val dice"] = {
                name: None if math.isnan(score) else score
                for name, score in confusion.dice().items()
            }
        self.segmenter.rates.end_epoch(step // self.each - 1, metrics.get("val accuracy"))
        self._metrics = metrics

    def _checkpointed(self, done: int, first: int) -> None:
        """Tell of an epoch, and validate on whole volumes if it is time to."""
        if done == first:  # gone on from
            return
        self.tell(epoch=done, metrics=self._metrics)
        wanted, self._end = self.task.settings.validation, None
        if wanted.volumes and done % wanted.every == 0:
            self._end = self.volumes(done)
            self.tell(epoch=done, metrics={"dice": self._end.get("dice", {})})

    # -- validation ------------------------------------------------------------------------------

    def _look(self, step: int) -> None:
        """Count what the network makes of validation segments before a subepoch."""
        if step % self.each == 0:
            self._seen = Confusion(self.task.settings.classes), []
        if self.held_segments is None:
            return
        self.held_segments.set_subepoch(step // self.steps, self._held_drawn)
        confusion = Confusion(self.task.settings.classes)
        size, count = self.task.settings.validation.batch, len(self.held_segments)
        with self.segmenter.at_rest():
            for first in range(0, count, size):
                items = self.held_segments.batch(first, min(first + size, count))
                batch = SegmentBatch.of(items).to(self.device)
                found = self.segmenter.network(batch.image, batch.low).argmax(dim=1)
                confusion.add_labels(items["labels"].numpy(), found.cpu().numpy())
        self._seen[0].add(confusion.counts)
        self._seen[1].append(confusion.accuracy())

    def volumes(self, done: int) -> dict[str, Any]:
        """Segment the whole validation cases, write ``VALIDATION`` and, if wanted, what was found.

        Returns:
            Mean Dice, for the record; empty without validation cases.
        """
        if not self.held:
            return {}
        output, settings = self.task.order.output, self.task.settings
        predictor = Predictor(
            self.segmenter.network,
            Geometry.from_model(self.task.model, "inference"),
            self.task.cutting,
            self.device,
            self.bf16,
            settings.validation.batch_volumes,
        )
        found = validate(
            predictor,
            self.held,
            read_volume,
            with_labels(settings.regions, range(1, settings.classes)),
            output / PREDICTIONS if settings.validation.save else None,
        )
        write_json_atomic(output / VALIDATION, {"epochs": done, **found})
        return {"dice": found["mean"]} if found["mean"] else {}


def epochs_of(found: checkpoint.Checkpoint) -> int:
    """Epochs that a checkpoint has done.

    Raises:
        UsageFault: it is of an older gansynth, which counted checkpoints by epochs.
    """
    if _DONE not in found.tensors:
        raise UsageFault(
            f"{found.folder}: is a checkpoint of an older gansynth, expected one whose steps are "
            "batches; start anew in another folder"
        )
    return int(found.tensors[_DONE])


def load_network(network: DualPath, output: Path) -> int:
    """Put the weights of a folder's newest whole checkpoint into a network.

    Returns:
        Epochs that it was trained for.

    Raises:
        UsageFault: there is none, or it is of an older gansynth.
        IntegrityFault: all are damaged, or of another network.
    """
    found = checkpoint.latest(output / CHECKPOINTS, lambda one: epochs_of(one) > 0)
    if found is None:
        raise UsageFault(f"{output / CHECKPOINTS}: no checkpoint, expected a trained network")
    own = {name: tensor for name, tensor in found.tensors.items() if name.startswith("net/")}
    checkpoint.restore(own, {NETWORK: network}, {}, {}, found.folder)
    return epochs_of(found)


class _Steps(NullReporter):
    """Hears of every step of the loop, and of what it warns of."""

    def __init__(self, say: Callable[[str], None], stepped: Callable[[], None]) -> None:
        self._say, self._stepped = say, stepped

    def warn(self, text: str) -> None:
        self._say(f"gansynth: WARNING: {text}")

    @contextmanager
    def task(self, total: int, title: str, done: int = 0) -> Iterator[Progressing]:
        yield self

    def advance(self, n: int = 1, **shown: object) -> None:
        self._stepped()


def _begun(work: Callable[[], Any]) -> Future[Any]:
    """Work that a thread does meanwhile; nobody waits for it where the training ends."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised where the result is taken
            future.set_exception(error)

    threading.Thread(target=run, name="gansynth-ahead", daemon=True).start()
    return future
