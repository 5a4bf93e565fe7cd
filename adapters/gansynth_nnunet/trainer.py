"""nnU-Net's trainer with synthetic samples in its training batches, otherwise unchanged.

``GANSynthMixin`` composes with any variant: ``class Mine(GANSynthMixin, nnUNetTrainerDA5)``; a name
``<Variant>GANSynth`` does so by itself. ``get_tr_and_val_datasets`` mixes. Other overrides change
augmentation on request, report and clean up. Validation data never change, so pseudo Dice and the
choice of checkpoint depend on real cases only.
"""

# ruff: noqa: D102 - methods that override nnU-Net's

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from gansynth.core.schedule import Schedule
from gansynth.runtime.child import cpu_threads, show
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth.runtime.files import disk_errors
from gansynth_nnunet import augmentation
from gansynth_nnunet.config import HOW_TO, TrainerConfig
from gansynth_nnunet.launch import SUFFIX
from gansynth_nnunet.mixed import LastDraw
from gansynth_nnunet.session import NnunetSession
from gansynth_nnunet.variants import find_variant, look_up

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as Host
else:
    Host = object

SAVE_EVERY = 10  # most epochs that an interruption loses


class GANSynthMixin(Host):  # type: ignore[misc]
    """Mixes samples of a bank into the training data set of the nnU-Net trainer behind it.

    The environment configures it (see ``TrainerConfig.from_environment``). Without configuration it
    can be built, for inference and validation, but not trained.
    """

    elastic = 0.0

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        # nnU-Net reads this signature by name and repeats the arguments at inference: no others.
        super().__init__(plans, configuration, fold, dataset_json, device)
        self.gansynth = TrainerConfig.from_environment()
        self.gansynth_session: NnunetSession | None = None
        self._last = LastDraw()
        self._asked_transforms = False
        self.save_every: int = min(self.save_every, SAVE_EVERY)
        if self.gansynth is not None:
            for name, value in self.gansynth.settings.attributes.items():
                setattr(self, name, value)

    def run_training(self) -> None:
        self._gansynth_config()
        if self.device.type == "cpu":
            torch.set_num_threads(cpu_threads())
        try:
            super().run_training()
        except (RuntimeError, TrainingFault) as error:
            # nnU-Net reports only that a worker is gone, not the worker's fault.
            stopped = self.gansynth_session and self.gansynth_session.stopped()
            if stopped:
                raise TrainingFault(stopped) from error
            raise
        finally:
            if self.gansynth_session is not None:
                self.gansynth_session.close()

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        config = self._gansynth_config()
        real, validation = super().get_tr_and_val_datasets()
        if self.gansynth_session is not None:
            self.gansynth_session.close()
        self.gansynth_session = NnunetSession(config, self, real, validation)
        mixed = self.gansynth_session.wrap(real)
        mixed.last = self._last
        return mixed, validation

    def get_dataloaders(self) -> tuple[Any, Any]:
        loaders: tuple[Any, Any] = super().get_dataloaders()
        if self.gansynth_session is None or not (self._augments_as_usual or self._asked_transforms):
            raise UsageFault(
                f"trainer {type(self).__name__}: the variant makes its own loaders, which leave "
                "out nnU-Net's get_tr_and_val_datasets or get_training_transforms; expected one "
                "that calls both, for example nnUNetTrainerDA5"
            )
        return loaders

    # -- augmentation ----------------------------------------------------------------------------

    def get_training_transforms(self, *positional: Any, **named: Any) -> Any:
        # nnU-Net's method is static; it is called on the trainer.
        usual = super().get_training_transforms
        if self.gansynth is None or self._augments_as_usual:
            return self._deformed(usual(*positional, **named))
        self._asked_transforms = True
        arguments = augmentation.arguments(positional, named)
        if not self.gansynth.mix_config.usual_augmentation:
            return augmentation.validation_pipeline(self, arguments)
        self.print_to_log_file(augmentation.SYNTHETIC_AS_DRAWN)
        plain = augmentation.plain_pipeline(self, arguments)
        real = self._deformed(usual(*positional, **named))
        return augmentation.SplitAugmentation(real, plain, self._last)

    def _deformed(self, transforms: Any) -> Any:
        if self.elastic:
            self.print_to_log_file(augmentation.deform(transforms, self.elastic))
        return transforms

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        rotation, dummy, initial, mirror = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self.gansynth is not None and not self.gansynth.mix_config.usual_augmentation:
            self.print_to_log_file(augmentation.NO_AUGMENTATION)
            initial, mirror = self.configuration_manager.patch_size, None
            self.inference_allowed_mirroring_axes = None
        return rotation, dummy, initial, mirror

    @property
    def _augments_as_usual(self) -> bool:
        mix_config = None if self.gansynth is None else self.gansynth.mix_config
        return mix_config is None or (
            mix_config.usual_augmentation and mix_config.augment_synthetic
        )

    # -- while training --------------------------------------------------------------------------

    def configure_optimizers(self) -> tuple[Any, Any]:
        optimizer, scheduler = super().configure_optimizers()
        schedule = Schedule() if self.gansynth is None else self.gansynth.mix_config.schedule
        if note := schedule.tuning_note(self.num_epochs, "epoch", ours=True):
            self.print_to_log_file(f"gansynth: {note}")
        return optimizer, RestartingScheduler(scheduler, schedule, self.num_epochs)

    def save_checkpoint(self, filename: str) -> None:
        # Atomic, and under the variant's name: nnU-Net looks the trainer up before it predicts,
        # also where gansynth is not installed.
        trainer_class, path = type(self), Path(filename)
        own_name, temporary = trainer_class.__name__, path.with_name(f".{path.name}.tmp")
        trainer_class.__name__ = stock_name(trainer_class)
        try:
            with disk_errors(path):
                super().save_checkpoint(str(temporary))
                if temporary.exists():
                    os.replace(temporary, path)
        finally:
            trainer_class.__name__ = own_name
            temporary.unlink(missing_ok=True)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        begin = time.monotonic()
        result: dict[str, Any] = super().train_step(batch)
        if self.gansynth_session is not None:
            self.gansynth_session.step(begin, time.monotonic())  # sets the producer's pace
        return result

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.gansynth_session is not None and self.local_rank == 0:
            logged = {"loss": "train_losses", "Dice": "mean_fg_dice"}
            values = {k: float(self.logger.get_value(v, step=-1)) for k, v in logged.items()}
            self.gansynth_session.epoch(self.current_epoch, values)

    def on_train_end(self) -> None:
        super().on_train_end()
        if self.gansynth_session is not None:
            self.gansynth_session.close(complete=True)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        if self.local_rank == 0:
            show(say="nnU-Net predicts the held-out cases")
        super().perform_actual_validation(save_probabilities)

    def _gansynth_config(self) -> TrainerConfig:
        if self.gansynth is None:
            raise UsageFault(f"nothing configures the synthetic samples to train with: {HOW_TO}")
        return self.gansynth


class nnUNetTrainerGANSynth(GANSynthMixin, nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's default trainer with synthetic samples, under the name that nnU-Net looks up."""


class RestartingScheduler:
    """Restarts an nnU-Net scheduler in each phase of a schedule."""

    def __init__(self, scheduler: Any, schedule: Schedule, epochs: int) -> None:
        self.scheduler, self.schedule, self.epochs = scheduler, schedule, epochs

    def step(self, epoch: int | None = None) -> None:
        """Set the rate of an epoch, counted from 0."""
        at = epoch if epoch is None else self.schedule.restarted(epoch, self.epochs)
        self.scheduler.step(at)

    def __getattr__(self, name: str) -> Any:
        if name == "scheduler":  # not yet unpickled
            raise AttributeError(name)
        return getattr(self.scheduler, name)


# -- other trainers with synthetic samples ---------------------------------------------------------

_composed: dict[str, type[Any]] = {}


def composed(name: str) -> type[Any]:
    """Return the trainer ``<Variant>GANSynth``, which belongs to this module so that it pickles.

    Raises:
        AttributeError: not a name of gansynth's, or the user has defined a class of that name.
        UsageFault: see ``find_variant``.
    """
    base = name.removesuffix(SUFFIX)
    if base in ("", name) or look_up(name) is not None:
        raise AttributeError(name)
    variant = find_variant(base)
    if name not in _composed or not issubclass(_composed[name], variant):
        body = {"__module__": __name__, "__doc__": f"``{base}`` with synthetic samples"}
        _composed[name] = type(name, (GANSynthMixin, variant), body)
    return _composed[name]


def __getattr__(name: str) -> type[Any]:
    if name.startswith("_"):
        raise AttributeError(name)
    return _composed[name] if name in _composed else composed(name)


def stock_name(trainer: type[Any]) -> str:
    """Return the name of a trainer's first base that is not gansynth's and builds its network."""
    for base in trainer.__mro__:
        if not issubclass(base, GANSynthMixin) and hasattr(base, "build_network_architecture"):
            same = base.build_network_architecture is trainer.build_network_architecture
            return base.__name__ if same else trainer.__name__
    return trainer.__name__
