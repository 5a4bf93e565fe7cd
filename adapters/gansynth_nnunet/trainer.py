"""nnU-Net's trainer with synthetic samples in its training batches, otherwise unchanged.

``GANSynthMixin`` composes with any variant: ``class Mine(GANSynthMixin, nnUNetTrainerDA5)``.
``variants`` does so for the names ``<Variant>GANSynth``. ``get_tr_and_val_datasets`` mixes. Other
overrides change augmentation on request, report and clean up. Validation data never change, so
pseudo Dice and the choice of checkpoint depend on real cases only.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from gansynth.core.schedule import Schedule
from gansynth.runtime.child import cpu_threads, show
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth_nnunet import augmentation, stock
from gansynth_nnunet.config import HOW_TO, TrainerMix, TrainingInfo
from gansynth_nnunet.mixed import LastDraw
from gansynth_nnunet.session import NnunetSession

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as Host
else:
    Host = object


SAVE_EVERY = 10  # most epochs that an interruption loses


class GANSynthMixin(Host):  # type: ignore[misc]
    """Mixes samples of a bank into the training data set of the nnU-Net trainer behind it.

    The environment configures it (see ``TrainerMix.from_environment``). Without configuration it
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
        self.gansynth = TrainerMix.from_environment()
        self.gansynth_session: NnunetSession | None = None
        self._last = LastDraw()
        self._asked_transforms = False
        self.save_every: int = min(self.save_every, SAVE_EVERY)
        if self.gansynth is not None:
            for name, value in self.gansynth.settings.items():
                setattr(self, name, value)

    def run_training(self) -> None:
        """Train; in any case stop the producer and write the record.

        Raises:
            UsageFault: nothing is configured.
            TrainingFault: a synthetic sample was missing where no real case may take its place.
        """
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
        """Return nnU-Net's two data sets, the one for training wrapped.

        Raises:
            GansynthError: what ``NnunetSession`` refuses.
        """
        config = self._gansynth_config()
        real, validation = super().get_tr_and_val_datasets()
        if self.gansynth_session is not None:
            self.gansynth_session.close()
        self.gansynth_session = NnunetSession(config, TrainingInfo(self, real, validation))
        mixed = self.gansynth_session.wrap(real)
        mixed.last = self._last
        return mixed, validation

    def get_dataloaders(self) -> tuple[Any, Any]:
        """Return nnU-Net's two loaders."""
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
        """Return the variant's transforms, unless augmentation is off, for all or synthetic.

        nnU-Net's method is static; it is called on the trainer.
        """
        if self.gansynth is None or self._augments_as_usual:
            return self._usual_transforms(*positional, **named)
        self._asked_transforms = True
        arguments = augmentation.arguments(positional, named)
        if not self.gansynth.mix_config.usual_augmentation:
            return augmentation.validation_pipeline(self, arguments)
        self.print_to_log_file(augmentation.SYNTHETIC_AS_DRAWN)
        plain = augmentation.plain_pipeline(self, arguments)
        usual = self._usual_transforms(*positional, **named)
        return augmentation.SplitAugmentation(usual, plain, self._last)

    def _usual_transforms(self, *positional: Any, **named: Any) -> Any:
        """Return the variant's own transforms, with elastic deformation if requested."""
        usual = super().get_training_transforms(*positional, **named)
        if self.elastic:
            self.print_to_log_file(augmentation.deform(usual, self.elastic))
        return usual

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        """Return the variant's own; without augmentation crops of the patch, no mirroring."""
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
        """Return the variant's own; the learning rate restarts with fine-tuning."""
        optimizer, scheduler = super().configure_optimizers()
        schedule = Schedule() if self.gansynth is None else self.gansynth.mix_config.schedule
        if note := schedule.tuning_note(self.num_epochs, "epoch", ours=True):
            self.print_to_log_file(f"gansynth: {note}")
        return optimizer, RestartingScheduler(scheduler, schedule, self.num_epochs)

    def save_checkpoint(self, filename: str) -> None:
        """Write nnU-Net's checkpoint atomically, under the variant's name.

        So nnU-Net predicts from it where gansynth is not installed.
        """
        trainer_class = type(self)
        with (
            stock.replacing(Path(filename)) as temporary,
            stock.called(trainer_class, stock.stock_name(trainer_class, GANSynthMixin)),
        ):
            super().save_checkpoint(str(temporary))

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Run nnU-Net's own step, timed: its duration sets the producer's pace."""
        begin = time.monotonic()
        result: dict[str, Any] = super().train_step(batch)
        if self.gansynth_session is not None:
            self.gansynth_session.step(begin, time.monotonic())
        return result

    def on_epoch_end(self) -> None:
        """Also log the draws."""
        super().on_epoch_end()
        if self.gansynth_session is not None and self.local_rank == 0:
            logged = {"loss": "train_losses", "Dice": "mean_fg_dice"}
            values = {k: float(self.logger.get_value(v, step=-1)) for k, v in logged.items()}
            self.gansynth_session.epoch(self.current_epoch, values)

    def on_train_end(self) -> None:
        """Also stop the producer, and record in ``gansynth.json`` that training is complete."""
        super().on_train_end()
        if self.gansynth_session is not None:
            self.gansynth_session.close(complete=True)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Run nnU-Net's own validation on real cases."""
        if self.local_rank == 0:
            show(say="nnU-Net predicts the held-out cases")
        super().perform_actual_validation(save_probabilities)

    def _gansynth_config(self) -> TrainerMix:
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
