"""nnU-Net's trainer with synthetic samples in its training batches, and nothing else changed.

``GANSynthMixin`` composes with any variant: ``class Mine(GANSynthMixin, nnUNetTrainerDA5)``. One
method of nnU-Net is overridden to mix, ``get_tr_and_val_datasets``; the others report and tidy up.
Validation data are never touched, so pseudo Dice and the choice of checkpoint rest on real cases.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from gansynth.errors import TrainingFault, UsageFault
from gansynth_nnunet.class_locations import location_keys
from gansynth_nnunet.config import HOW_TO, MixConfig
from gansynth_nnunet.cpu_inference import twice_if_faster
from gansynth_nnunet.launch import cpu_threads
from gansynth_nnunet.session import MixSession, Training

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as Host
else:
    Host = object


class GANSynthMixin(Host):  # type: ignore[misc]
    """Mixes samples of a bank into the training data set of the nnU-Net trainer it is put before.

    It is told what to do by the environment (see ``MixConfig.from_environment``). Without that it
    can be built, for inference and validation, but not trained.
    """

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
        self.gansynth = MixConfig.from_environment()
        self.gansynth_session: MixSession | None = None
        if self.gansynth is not None:
            for name, value in self.gansynth.settings.items():
                setattr(self, name, value)

    def run_training(self) -> None:
        """Train; whatever happens, the producer is stopped and the record is written.

        Raises:
            UsageFault: nobody said what to mix in.
            TrainingFault: a synthetic sample was missing where no real case may take its place.
        """
        self._gansynth_config()
        if self.device.type == "cpu":
            torch.set_num_threads(cpu_threads())
        try:
            super().run_training()
        except RuntimeError as error:
            stopped = self.gansynth_session and self.gansynth_session.counts().stopped
            if stopped:
                raise TrainingFault(stopped) from error
            raise
        finally:
            if self.gansynth_session is not None:
                self.gansynth_session.close(self.current_epoch)

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        """nnU-Net's two data sets, the one for training wrapped.

        Raises:
            UsageFault: nobody said what to mix in.
            IntegrityFault: the generator or bank has seen a validation case, or is of another
                space.
            TrainingFault: the producer fills no bank.
        """
        config = self._gansynth_config()
        real, validation = super().get_tr_and_val_datasets()
        if self.gansynth_session is not None:
            self.gansynth_session.close(self.current_epoch)
        self.gansynth_session = MixSession(config, self._describe(real, validation))
        return self.gansynth_session.wrap(real), validation

    def on_epoch_end(self) -> None:
        """Also report what was drawn."""
        super().on_epoch_end()
        if self.gansynth_session is not None and self.local_rank == 0:
            self.gansynth_session.report(self.current_epoch)

    def on_train_end(self) -> None:
        """Also stop the producer, and record in ``gansynth.json`` that training is complete."""
        super().on_train_end()
        if self.gansynth_session is not None:
            self.gansynth_session.close(self.current_epoch, complete=True)

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """nnU-Net's own validation on real cases, on a CPU without its slow convolutions."""
        if self.device.type != "cpu":
            super().perform_actual_validation(save_probabilities)
            return
        self.set_deep_supervision_enabled(False)
        shape = (self.num_input_channels, *self.configuration_manager.patch_size)
        with twice_if_faster(self.network, shape):
            super().perform_actual_validation(save_probabilities)

    def _gansynth_config(self) -> MixConfig:
        if self.gansynth is None:
            raise UsageFault(f"nothing says which synthetic samples to train with: {HOW_TO}")
        return self.gansynth

    def _describe(self, real: Any, validation: Any) -> Training:
        training = tuple(str(case) for case in real.identifiers)
        held_out = () if self.fold == "all" else tuple(str(c) for c in validation.identifiers)
        # Raw intensities may exceed what float16 holds; normalised ones do not.
        schemes = self.configuration_manager.normalization_schemes
        return Training(
            dataset=self.plans_manager.dataset_name,
            configuration=self.configuration_name,
            plans=self.plans_manager.plans_name,
            fold=str(self.fold),
            train_ids=training,
            held_out_ids=held_out,
            patch=tuple(int(n) for n in self.configuration_manager.patch_size),
            channels=len(self.dataset_json.get("channel_names", self.dataset_json.get("modality"))),
            batch_size=int(self.batch_size),
            keys=location_keys(self.label_manager),
            dtype="float32" if "NoNormalization" in schemes else "float16",
            epoch=int(self.current_epoch),
            epochs=int(self.num_epochs),
            batches=int(self.num_iterations_per_epoch),
            output=Path(self.output_folder),
            rank=int(self.local_rank),
            ranks=torch.distributed.get_world_size() if self.is_ddp else 1,
            say=self.print_to_log_file,
        )


class nnUNetTrainerGANSynth(GANSynthMixin, nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's default trainer with synthetic samples; the name nnU-Net looks it up by."""
