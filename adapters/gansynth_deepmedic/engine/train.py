"""Trains the dual-path network with gansynth's loop on subepochs of segments.

A step of the loop is a batch of segments. Checkpoints are written after every epoch. There is no
random state: random numbers are keyed by seed and subepoch, or by seed and step.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from gansynth.core.generator import Stage, TrainingStep, at_rest
from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth.metrics.segmentation.regions import with_labels
from gansynth.runtime.devices import pick_device, resolve, seeded
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import write_json_atomic
from gansynth.runtime.progress import NullReporter
from gansynth.runtime.progress import ProgressTask as Progressing
from gansynth.training.checkpoint_manager import TrainingCallbacks
from gansynth.training.loop import FitOptions, train
from gansynth_deepmedic.engine.configs import (
    ModelConfig,
    TrainConfig,
    read_model_config,
    read_train_config,
)
from gansynth_deepmedic.engine.cutting import SegmentCutter, read_volume
from gansynth_deepmedic.engine.geometry import SegmentGeometry
from gansynth_deepmedic.engine.infer import (
    PREDICTIONS,
    Confusion,
    Predictor,
    held_cases,
    validate,
)
from gansynth_deepmedic.engine.network import default_model
from gansynth_deepmedic.engine.optimiser import loss_of
from gansynth_deepmedic.engine.segmenter import (
    CHECKPOINTS,
    NETWORK,
    DualPathSegmenter,
    SegmentBatch,
    go_on,
)
from gansynth_deepmedic.engine.segments import DeepMedicSegments, SubepochSegments
from gansynth_deepmedic.engine.settings import EngineSettings
from gansynth_deepmedic.insertion import MISSING, HostCase
from gansynth_deepmedic.subepochs import Subepochs
from gansynth_deepmedic.training_order import PROGRESS, ProgressWriter, TrainingOrder

VALIDATION = "validation.json"
_HELD = 1  # seed component of validation segments


@dataclass(frozen=True)
class TrainingTask:
    """An order with its configurations and settings."""

    order: TrainingOrder
    config: TrainConfig
    model: ModelConfig
    settings: EngineSettings

    @classmethod
    def of(cls, order: TrainingOrder) -> TrainingTask:
        """Read the configurations that an order names."""
        settings = EngineSettings.from_json(order.options)
        if order.model_config is not None:
            model = read_model_config(order.model_config)
        else:
            model = default_model(settings.classes, settings.channels)
        return cls(order, read_train_config(order.train_config), model, settings)

    @cached_property
    def cutting(self) -> SegmentCutter:
        """The cutting of training cases."""
        return SegmentCutter.from_configs(self.config, self.model)

    def training(self, tell: Callable[..., None]) -> DeepMedicSegments:
        """Return the training segments (DataFault: fewer than a batch, or than cases)."""
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
            SegmentGeometry.from_model(self.model),
            self.cutting,
            segments=config.segments,
            seed=order.seed,
            augment_synthetic=order.augment_synthetic,
            tell=tell,
        )

    def held_segments(self, held: tuple[HostCase, ...]) -> DeepMedicSegments | None:
        """Return the segments of real validation cases; None without validation on segments."""
        cases = tuple(case for case in held if case.labels != MISSING)
        validation = self.settings.validation
        if not validation.samples or not cases:
            return None
        plan: MixerConfig[int] = MixerConfig(
            None, Ratio(1, 0), seed=self.order.seed, stream=(_HELD,)
        )
        count = min(self.config.cases, len(cases))
        return DeepMedicSegments(
            Subepochs(plan, cases, count),
            read_volume,
            SegmentGeometry.from_model(self.model, "validation"),
            self.cutting.for_validation(self.config),
            segments=max(validation.segments, count),
            seed=self.order.seed,
            augment=False,
        )


class TorchTraining:
    """One session of a training; ``run`` does it all.

    Args:
        task: order, configurations and settings.
        say: a function that writes a line for the user.
        progress: receives progress; None for the order's own file.
    """

    def __init__(
        self, task: TrainingTask, say: Callable[[str], None], progress: ProgressWriter | None = None
    ) -> None:
        self.task, self.say = task, say
        self.tell = (progress or ProgressWriter(task.order.output / PROGRESS)).tell
        self.device = pick_device(task.settings.device)
        self.bf16 = resolve(task.settings.precision, self.device) == "bf16"
        with seeded(task.order.seed):
            self.segmenter = DualPathSegmenter(task.model, task.settings, self._loss)
        self.segments = task.training(self.tell)
        self.held = held_cases(task.config)
        self.held_segments = task.held_segments(self.held)
        self.steps = len(self.segments) // task.config.batch  # whole batches of a subepoch
        self.each = self.steps * task.order.subepochs  # steps of an epoch
        self._over: Future[None] = Future()
        self._ahead: tuple[int, Future[tuple[SubepochSegments, SubepochSegments | None]]] | None = (
            None
        )
        self._seen = Confusion(task.settings.classes), list[float]()
        self._metrics: dict[str, Any] = {}
        self._end: dict[str, Any] | None = None
        self._index, self._began = 0, 0.0

    def run(self) -> Mapping[str, Any]:
        """Train the remaining epochs.

        Returns:
            Metrics of the trained network on real validation cases.
        """
        order, config = self.task.order, self.task.config
        first = go_on(order.output / CHECKPOINTS, order.done, self.say)
        self._say_what()
        train(
            self.segmenter,
            self._batch,
            FitOptions(
                steps=config.epochs * self.each,
                batch_size=config.batch,
                seed=order.seed % 2**31,
                precision="bf16" if self.bf16 else "fp32",
                checkpoint_every=self.each,
                log_every=self.each,
            ),
            device=self.device,
            folder=order.output,
            resume=first > 0,
            rate=self._rate,
            callbacks=TrainingCallbacks(
                checkpoint=lambda path, step: self._checkpointed(step // self.each, first),
                metrics=self._epoch_ended,
                reporter=_StepListener(self.say, self._stepped, self._over),
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
                "gansynth: the configuration has no validation cases, so no Dice is reported. To "
                "have it, list them and set performFullInferenceOnValidationImagesEveryFewEpochs"
            )

    # -- what the loop asks for ------------------------------------------------------------------

    def _draw(self, k: int) -> tuple[SubepochSegments, SubepochSegments | None]:
        """Return the training and validation segments of subepoch k."""
        held = None if self.held_segments is None else self.held_segments.draw(k)
        return self.segments.draw(k), held

    def _batch(self, step: int, stage: Stage, which: range) -> SegmentBatch:
        """Return the segments of a step; a thread of the loop calls it during the previous step."""
        (k, number), held = divmod(step, self.steps), None
        if number == 0:
            ahead, self._ahead = self._ahead, None
            begun = ahead[1] if ahead and ahead[0] == k else _begun(lambda: self._draw(k))
            wait((begun, self._over), return_when=FIRST_COMPLETED)
            drawn, held = begun.result(0)
            self.segments.set_subepoch(k, drawn)
            del drawn, ahead, begun  # three subepochs would be in memory otherwise
            if self.task.config.processes != -1 and step + self.steps < self._total:
                self._ahead = k + 1, _begun(lambda: self._draw(k + 1))
        batch = self.task.config.batch
        return SegmentBatch.of(self.segments.batch(number * batch, (number + 1) * batch), held)

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

    def _loss(self, step: TrainingStep) -> dict[str, Tensor]:
        """Return the loss of a step; validation segments are evaluated before each subepoch."""
        if step.index % self.each == 0:
            self._seen = Confusion(self.task.settings.classes), []
        assert isinstance(step.batch, SegmentBatch)
        if step.batch.held is not None:
            self._look(step.batch.held)
        self._index, self._began = step.index, time.monotonic()
        return self.loss(step)

    def loss(self, step: TrainingStep) -> dict[str, Tensor]:
        """Return the loss of a step's segments, without L1 and L2."""
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
        """Update metrics and learning rate before the checkpoint of an epoch."""
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
        """Report an epoch, and validate on whole volumes when due."""
        if done == first:  # gone on from
            return
        self.tell(epoch=done, metrics=self._metrics)
        validation, self._end = self.task.settings.validation, None
        if validation.volumes and done % validation.every == 0:
            self._end = self.volumes(done)
            self.tell(epoch=done, metrics={"dice": self._end.get("dice", {})})

    # -- validation ------------------------------------------------------------------------------

    def _look(self, drawn: SubepochSegments) -> None:
        """Evaluate the network on validation segments before a subepoch."""
        assert self.held_segments is not None
        self.held_segments.set_subepoch(drawn.subepoch, drawn)
        confusion = Confusion(self.task.settings.classes)
        size, count = self.task.settings.validation.batch, len(self.held_segments)
        with at_rest(self.segmenter):
            for first in range(0, count, size):
                items = self.held_segments.batch(first, min(first + size, count))
                batch = SegmentBatch.of(items).to(self.device)
                predicted = self.segmenter.network(batch.image, batch.low).argmax(dim=1)
                confusion.add_labels(items["labels"].numpy(), predicted.cpu().numpy())
        self._seen[0].counts += confusion.counts
        self._seen[1].append(confusion.accuracy())

    def volumes(self, done: int) -> dict[str, Any]:
        """Segment the whole validation cases, and write ``VALIDATION`` and optionally predictions.

        Returns:
            Mean Dice, for the record; empty without validation cases.
        """
        if not self.held:
            return {}
        output, settings = self.task.order.output, self.task.settings
        predictor = Predictor(
            self.segmenter.network,
            SegmentGeometry.from_model(self.task.model, "inference"),
            self.task.cutting,
            self.device,
            self.bf16,
            settings.validation.batch_volumes,
        )
        scores = validate(
            predictor,
            self.held,
            read_volume,
            with_labels(settings.regions, range(1, settings.classes)),
            output / PREDICTIONS if settings.validation.save else None,
        )
        write_json_atomic(output / VALIDATION, {"epochs": done, **scores})
        return {"dice": scores["mean"]} if scores["mean"] else {}


class _StepListener(NullReporter):
    """Receives every step and warning of the loop."""

    def __init__(
        self, say: Callable[[str], None], stepped: Callable[[], None], over: Future[None]
    ) -> None:
        self._say, self._stepped, self._over = say, stepped, over

    def warn(self, text: str) -> None:
        self._say(f"gansynth: WARNING: {text}")

    @contextmanager
    def task(self, total: int, title: str, done: float = 0) -> Iterator[Progressing]:
        try:
            yield self
        finally:  # however it ends, the loop waits for no segments that are being drawn
            self._over.set_result(None)

    def advance(self, n: float = 1, **figures: object) -> None:
        self._stepped()


def _begun(work: Callable[[], Any]) -> Future[Any]:
    """Start work in a daemon thread, which does not delay the end of the training."""
    future: Future[Any] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # raised where the result is taken
            future.set_exception(error)

    threading.Thread(target=run, name="gansynth-ahead", daemon=True).start()
    return future
