"""Trains the network on subepochs of segments, and looks at real validation cases."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gansynth.core.injection import MixPlan
from gansynth.core.ratio import Ratio
from gansynth.runtime.devices import autocast, pick_device, resolve
from gansynth.runtime.errors import DataFault, TrainingFault
from gansynth.runtime.files import write_json_atomic
from gansynth_deepmedic.configs import (
    ModelConfig,
    TrainConfig,
    read_model_config,
    read_train_config,
)
from gansynth_deepmedic.engine.ahead import Ahead
from gansynth_deepmedic.engine.checkpoints import Learner
from gansynth_deepmedic.engine.cutting import Cutting, read_volume
from gansynth_deepmedic.engine.geometry import Geometry
from gansynth_deepmedic.engine.infer import (
    PREDICTIONS,
    Held,
    Predictor,
    held_cases,
    placed,
    validate,
)
from gansynth_deepmedic.engine.losses import loss_of
from gansynth_deepmedic.engine.metrics import Confusion, with_labels
from gansynth_deepmedic.engine.network import DualPath, default_model
from gansynth_deepmedic.engine.optimiser import Optimiser, Rates
from gansynth_deepmedic.engine.segments import DeepMedicSegments, Drawn
from gansynth_deepmedic.engine.settings import EngineSettings
from gansynth_deepmedic.order import PROGRESS, Order, Progress
from gansynth_deepmedic.subepochs import Subepochs

VALIDATION = "validation.json"
_HELD = 1
"""Number in the seed of validation segments."""
_UNSEEN = object()


@dataclass(frozen=True)
class Task:
    """What an order means."""

    order: Order  # what was ordered
    config: TrainConfig  # the training's configuration
    model: ModelConfig  # the network's
    settings: EngineSettings  # of the engine

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

    @property
    def total(self) -> int:
        """Subepochs of the whole training."""
        return self.config.epochs * self.order.subepochs

    @cached_property
    def cutting(self) -> Cutting:
        """How segments are cut of training cases."""
        return Cutting.from_configs(self.config, self.model)

    def learner(self, device: torch.device) -> Learner:
        """A network before its training, its weights drawn by the order's seed."""
        torch.manual_seed(self.order.seed)
        network = DualPath(self.model).to(device, memory_format=torch.channels_last_3d)  # type: ignore[call-overload]
        how = self.settings.optimisation
        return Learner(
            network,
            Optimiser(network.parameters(), network.convolved(), how),
            Rates(self.settings.rates, how.rate, how.momentum),
        )

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
    """One session of a training; ``run`` does it all."""

    def __init__(
        self, task: Task, say: Callable[[str], None], progress: Progress | None = None
    ) -> None:
        self.task, self.say = task, say
        self.tell = (progress or Progress(task.order.output / PROGRESS)).tell
        settings = task.settings
        self.device = pick_device(settings.device)
        self.bf16 = resolve(settings.precision, self.device) == "bf16"
        self.learner = task.learner(self.device)
        self.segments = task.training(self.tell)
        self.held = held_cases(task.config)
        self.held_segments = task.held_segments(self.held)

    def run(self) -> Mapping[str, Any]:
        """Train what is left of it.

        Returns:
            What is known of the trained network on real validation cases.

        Raises:
            GansynthError: what is wrong with data, samples, disk or the training itself.
        """
        task = self.task
        done, said = self.learner.resume(task.order.output, task.order.done)
        for line in said:
            self.say(f"gansynth: WARNING: {line}")
        self._say_what()
        ahead = Ahead(self._draw)
        checked: Any = _UNSEEN
        for epoch in range(done, task.config.epochs):
            metrics = self._epoch(epoch, ahead)
            self.learner.rates.end_epoch(epoch, metrics.get("val accuracy"))
            self.learner.save(task.order.output, epoch + 1)
            self.tell(epoch=epoch + 1, metrics=metrics)
            checked = self._volumes_after(epoch + 1)
            if checked is not _UNSEEN:
                self.tell(epoch=epoch + 1, metrics={"dice": checked.get("dice", {})})
        end = self.volumes(task.config.epochs) if checked is _UNSEEN else checked
        self.tell(end=end)
        return dict(end)

    def _say_what(self) -> None:
        parameters = sum(p.numel() for p in self.learner.network.parameters())
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

    # -- one epoch -------------------------------------------------------------------------------

    def _draw(self, k: int) -> tuple[Drawn, Drawn | None]:
        """Segments of subepoch k, to train and to validate on."""
        held = None if self.held_segments is None else self.held_segments.draw(k)
        return self.segments.draw(k), held

    def _epoch(self, epoch: int, ahead: Ahead[tuple[Drawn, Drawn | None]]) -> dict[str, Any]:
        """Train for an epoch.

        Returns:
            Its mean loss, and what validation segments say.
        """
        learner, task = self.learner, self.task
        schedule, epochs = task.order.plan.schedule, task.config.epochs
        if schedule.kind == "finetune" and epoch == schedule.turn(epochs):
            learner.rates.restart(epoch)
        at = schedule.restarted(epoch, epochs)
        for group in learner.optimiser.param_groups:
            group["lr"] = learner.rates.rate(at)
            group["momentum"] = learner.rates.momentum(at)
        losses: list[float] = []
        accuracies: list[float] = []
        confusion = Confusion(task.settings.classes)
        for k in range(epoch * task.order.subepochs, (epoch + 1) * task.order.subepochs):
            drawn, held = ahead.take(k)
            if held is not None:
                one = self._look(k, held)
                confusion.add(one.counts)
                accuracies.append(one.accuracy())
            self.segments.set_subepoch(k, drawn)
            del drawn, held  # three subepochs would be in memory otherwise
            if task.config.processes != -1 and k + 1 < task.total:
                ahead.begin(k + 1)
            losses += self._subepoch(k, epoch)
            self.tell(trained=k)
        metrics: dict[str, Any] = {"loss": sum(losses) / len(losses)}
        if accuracies:
            metrics["val accuracy"] = sum(accuracies) / len(accuracies)
            metrics["val dice"] = {
                name: None if math.isnan(score) else score
                for name, score in confusion.dice().items()
            }
        return metrics

    def _subepoch(self, k: int, epoch: int) -> Iterator[float]:
        """Train on all whole batches; yields the loss of each."""
        torch.manual_seed(_seed(self.task.order.seed, k))  # of what is dropped
        batch = self.task.config.batch
        self.learner.network.train()
        for first in range(0, len(self.segments) - batch + 1, batch):
            begin = time.monotonic()
            loss = self.step(self.segments.batch(first, first + batch), epoch)
            self.tell(step=[begin, time.monotonic()])
            if not math.isfinite(loss):
                raise TrainingFault(
                    f"{self.task.order.output}: the loss is {loss} in subepoch {k + 1}, expected a "
                    "number; lower learningRate, or look for absurd intensities in the images. The "
                    "last checkpoint is whole"
                )
            yield loss

    def step(self, batch: Mapping[str, Tensor], epoch: int = 0) -> float:
        """One step on a batch of segments; returns its loss, without L1 and L2."""
        network, optimiser = self.learner.network, self.learner.optimiser
        optimiser.zero_grad()
        with autocast(self.device, self.bf16):
            logits = self._logits(batch)
        labels = batch["labels"].to(self.device)
        loss, _ = loss_of(logits, labels, self.task.settings.losses, epoch)
        torch.autograd.backward(loss)
        optimiser.step()
        assert network.training
        return float(loss.detach())

    def _logits(self, batch: Mapping[str, Tensor]) -> Tensor:
        low = [placed(batch[f"low_{n}"], self.device) for n in range(len(self.task.model.factors))]
        logits: Tensor = self.learner.network(placed(batch["high"], self.device), low)
        return logits

    # -- validation ------------------------------------------------------------------------------

    def _look(self, k: int, drawn: Drawn) -> Confusion:
        """What the network makes of validation segments."""
        assert self.held_segments is not None
        self.held_segments.set_subepoch(k, drawn)
        confusion = Confusion(self.task.settings.classes)
        size = self.task.settings.validation.batch
        self.learner.network.eval()
        for first in range(0, len(self.held_segments), size):
            batch = self.held_segments.batch(first, min(first + size, len(self.held_segments)))
            with torch.inference_mode(), autocast(self.device, self.bf16):
                found = self._logits(batch).argmax(dim=1).cpu().numpy()
            confusion.add_labels(batch["labels"].numpy(), found)
        return confusion

    def _volumes_after(self, done: int) -> Any:
        """Validate on whole volumes if it is time to; ``_UNSEEN`` if it is not."""
        wanted = self.task.settings.validation
        due = wanted.volumes and done % wanted.every == 0
        return self.volumes(done) if due else _UNSEEN

    def volumes(self, done: int) -> dict[str, Any]:
        """Segment the whole validation cases, write ``VALIDATION`` and, if wanted, what was found.

        Returns:
            Mean Dice, for the record; empty without validation cases.
        """
        if not self.held:
            return {}
        task, output = self.task, self.task.order.output
        settings = task.settings
        found = validate(
            self.predictor(),
            self.held,
            read_volume,
            with_labels(settings.regions, settings.classes),
            output / PREDICTIONS if settings.validation.save else None,
        )
        write_json_atomic(output / VALIDATION, {"epochs": done, **found})
        return {"dice": found["mean"]} if found["mean"] else {}

    def predictor(self) -> Predictor:
        """Applies the network to whole volumes."""
        return Predictor(
            self.learner.network,
            Geometry.from_model(self.task.model, "inference"),
            self.task.cutting,
            self.device,
            self.bf16,
            self.task.settings.validation.batch_volumes,
        )


def _seed(*key: int) -> int:
    """A seed of this key."""
    return int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
