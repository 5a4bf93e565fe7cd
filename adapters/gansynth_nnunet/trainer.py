"""nnU-Net's trainer with synthetic samples in its training batches, otherwise unchanged.

``GANSynthMixin`` composes with any variant: ``class Mine(GANSynthMixin, nnUNetTrainerDA5)``; a name
``<Variant>GANSynth`` does so by itself. ``get_tr_and_val_datasets`` mixes. Other overrides change
augmentation on request, report and clean up. Validation data never change, so pseudo Dice and the
choice of checkpoint depend on real cases only.
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import numpy as np
import torch
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.cropping import center_crop
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as base_trainer
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from gansynth import (
    EnvironmentFault,
    GansynthError,
    Job,
    MixerConfig,
    UsageFault,
    disk_errors,
    read_json,
    read_settings,
    write_json_atomic,
)
from gansynth.runtime.child import show
from gansynth_nnunet.in_trainer import session_in
from gansynth_nnunet.launch import (
    HOW_TO,
    SUFFIX,
    NnunetSettings,
    find_variant,
    from_environment,
    look_up,
)
from gansynth_nnunet.mixed import LastDraw, MixedNnunetDataset, location_keys
from gansynth_nnunet.quick_validation import validate_quickly
from gansynth_nnunet.results import VALIDATION
from gansynth_nnunet.workers import counting_files, own_workers

if TYPE_CHECKING:
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer as Host
else:
    Host = object

DRAWS = "gansynth_draws"  # key of a training batch
EVALUATION = "nnU-Net's own evaluation"
"""What it does between its last prediction and its summary: it starts processes that measure."""
SAVE_EVERY = 10  # most epochs that an interruption loses


class GANSynthMixin(Host):  # type: ignore[misc]
    """Mixes samples of a bank into the training data set of the nnU-Net trainer behind it.

    The environment configures it (see ``from_environment``). Without configuration it
    can be built, for inference and validation, but not trained.
    """

    elastic = 0.0
    quick_validation = False

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int | str,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008 - nnU-Net's own signature
    ) -> None:
        # nnU-Net reads this signature by name and repeats the arguments at inference: no others.
        super().__init__(plans, configuration, fold, dataset_json, device=device)
        self.gansynth = from_environment()
        self.gansynth_job: Job | None = None  # on the rank that leads
        self.gansynth_plan: MixerConfig[str] | None = None
        self._last = LastDraw()
        self._log: Any = None  # of draws, see ``MixerConfig.draw_log``
        self._logged = 0  # draws that this rank has trained on
        self._mixes = self._asked_transforms = False
        self.save_every: int = min(self.save_every, SAVE_EVERY)
        if self.gansynth is not None:
            settings = read_settings(NnunetSettings, self.gansynth.request.set, "nnunet")
            for name, value in settings.attributes.items():
                setattr(self, name, value)

    def run_training(self) -> None:
        training = self.gansynth
        if training is None:
            raise UsageFault(
                "nnunet.synthetic-samples-not-configured",
                f"nothing configures the synthetic samples to train with: {HOW_TO}",
            )
        file = Path(self.output_folder) / f".gansynth_ranks_{os.getppid()}.json"
        if self.local_rank > 0:
            self.gansynth_mix(follow(file, int(self.local_rank)))
            super().run_training()
            return
        try:
            session_in(training, self).train(None)
        except Exception as error:
            if self.gansynth_plan is None and self.gansynth_ranks > 1:
                code, line = 1, str(error) or type(error).__name__
                if isinstance(error, GansynthError):
                    code, line = error.exit_code, error.line
                write_json_atomic(file, {"fault": {"code": code, "line": line}})
            raise

    def gansynth_train(self, job: Job) -> None:
        """Train as nnU-Net does, with what a job says; on the rank that leads."""
        self.gansynth_job = job
        self.gansynth_mix(job.plan)
        file = Path(self.output_folder) / f".gansynth_ranks_{os.getppid()}.json"
        if self.gansynth_ranks > 1:
            write_json_atomic(file, {"plan": job.plan.to_json()})
        try:
            super().run_training()
        finally:
            file.unlink(missing_ok=True)

    def gansynth_mix(self, plan: MixerConfig[str]) -> None:
        """Let nnU-Net's loaders draw by a plan."""
        self.gansynth_plan = replace(plan, workers=max(1, own_workers()))
        self._log = plan.draw_log()

    @property
    def gansynth_ranks(self) -> int:
        """Processes that train together."""
        return torch.distributed.get_world_size() if self.is_ddp else 1

    def get_tr_and_val_datasets(self) -> tuple[Any, Any]:
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        real, validation = super().get_tr_and_val_datasets()
        assert self.gansynth_plan is not None, "see run_training"
        mixed = MixedNnunetDataset(
            real,
            self.gansynth_plan,
            int(self.batch_size),
            determine_num_input_channels(
                self.plans_manager, self.configuration_manager, self.dataset_json
            ),
            location_keys(self.label_manager),
        )
        self._mixes, mixed.last = True, self._last
        return mixed, validation

    def get_dataloaders(self) -> tuple[Any, Any]:
        with patch.object(base_trainer, "nnUNetDataLoader", TellingLoader):
            loaders: tuple[Any, Any] = super().get_dataloaders()
        if not self._mixes or not (self._augments_as_usual or self._asked_transforms):
            raise UsageFault(
                "nnunet.trainer-makes-own-loaders",
                f"trainer {type(self).__name__}: the variant makes its own loaders, which leave "
                "out nnU-Net's get_tr_and_val_datasets or get_training_transforms; expected one "
                "that calls both, for example nnUNetTrainerDA5",
            )
        training, validation = [len(getattr(each, "_processes", ())) for each in loaders]
        self.print_to_log_file(
            f"gansynth: nnU-Net has started {training} processes for training batches, "
            f"{validation} for validation"
        )
        return loaders

    # -- augmentation ----------------------------------------------------------------------------

    def get_training_transforms(self, *positional: Any, **named: Any) -> Any:
        # nnU-Net's method is static; it is called on the trainer.
        usual = super().get_training_transforms
        if self.gansynth is None or self._augments_as_usual:
            return self._deformed(usual(*positional, **named))
        self._asked_transforms = True
        bound = inspect.signature(nnUNetTrainer.get_training_transforms).bind(*positional, **named)
        bound.apply_defaults()
        given = bound.arguments
        keys = ("is_cascaded", "foreground_labels", "regions", "ignore_label")
        validation = self.get_validation_transforms(
            given["deep_supervision_scales"], **{key: given[key] for key in keys}
        )
        if not self.gansynth.request.host_augmentation:
            return validation
        self.print_to_log_file("gansynth: synthetic samples are not augmented, real ones are")
        plain: list[Any] = [CentreCrop(given["patch_size"])]  # what of training is not random
        masked = [i for i, mask in enumerate(given["use_mask_for_norm"] or ()) if mask]
        if masked:
            plain.append(MaskImageTransform(masked, channel_idx_in_seg=0, set_outside_to=0))
        real = self._deformed(usual(*positional, **named))
        return SplitAugmentation(real, ComposeTransforms([*plain, validation]), self._last)

    def _deformed(self, transforms: Any) -> Any:
        if self.elastic:
            self.print_to_log_file(deform(transforms, self.elastic))
        return transforms

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> tuple[Any, ...]:
        rotation, dummy, initial, mirror = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if self.gansynth is not None and not self.gansynth.request.host_augmentation:
            self.print_to_log_file(
                "gansynth: nnU-Net's augmentation is off, as in its nnUNetTrainerNoDA: no "
                "mirroring at inference either, and images are not masked again after normalisation"
            )
            initial, mirror = self.configuration_manager.patch_size, None
            self.inference_allowed_mirroring_axes = None
        return rotation, dummy, initial, mirror

    @property
    def _augments_as_usual(self) -> bool:
        request = None if self.gansynth is None else self.gansynth.request
        return request is None or (request.host_augmentation and request.augment_synthetic)

    # -- while training --------------------------------------------------------------------------

    def configure_optimizers(self) -> tuple[Any, Any]:
        optimizer, scheduler = super().configure_optimizers()
        if self.gansynth is not None:  # each phase of its schedule begins with the first rate
            schedule, epochs = self.gansynth.request.mix.schedule, self.num_epochs
            usual = scheduler.step

            def step(epoch: int | None = None) -> None:
                usual(epoch if epoch is None else schedule.restarted(epoch, epochs))

            scheduler.step = step
        return optimizer, scheduler

    def save_checkpoint(self, filename: str) -> None:
        # Atomic, and under the variant's name: nnU-Net looks the trainer up before it predicts,
        # also where gansynth is not installed. Other ranks write none, and share the folder.
        if self.local_rank > 0:
            return
        trainer_class, path = type(self), Path(filename)
        own_name, temporary = trainer_class.__name__, path.with_name(f".{path.name}.tmp")
        trainer_class.__name__ = stock_name(trainer_class)
        try:
            with disk_errors(path):
                with temporary.open("wb") as file:  # of a path torch raises no OSError
                    try:
                        super().save_checkpoint(file)
                    except RuntimeError as error:  # torch's own, after the disk's
                        if isinstance(error.__context__, OSError):
                            raise error.__context__ from None
                        raise
                if temporary.stat().st_size:  # else checkpoints are disabled
                    os.replace(temporary, path)
        finally:
            trainer_class.__name__ = own_name
            temporary.unlink(missing_ok=True)

    def train_step(self, batch: dict[str, Any]) -> dict[str, Any]:
        begin = time.monotonic()
        draws: list[Any] = batch.pop(DRAWS, [])
        result: dict[str, Any] = super().train_step(batch)
        for kind, sample_id, source, provenance in draws:
            assert self._log is not None, "the plan that it was drawn by has a log"
            place = int(self.current_epoch), int(self.local_rank), self._logged
            self._log.append(kind, sample_id, source, provenance, place)
            self._logged += 1
        if self.gansynth_job is not None:
            self.gansynth_job.log_step(begin, time.monotonic())  # sets the producer's pace
        return result

    def on_epoch_end(self) -> None:
        super().on_epoch_end()
        if self.gansynth_job is not None:
            logged = {"loss": "train_losses", "Dice": "mean_fg_dice"}
            values = {k: float(self.logger.get_value(v, step=-1)) for k, v in logged.items()}
            self.gansynth_job.end_round(self.current_epoch, **values)

    def on_train_end(self) -> None:
        if self.local_rank == 0:  # its processes end and others start before a case is predicted
            _told(0, len(self.do_split()[1]))
        super().on_train_end()
        if self.gansynth_ranks > 1:  # others' workers may still draw from the bank
            torch.distributed.barrier()

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with ExitStack() as stack:
            if self.local_rank == 0:
                folder = Path(self.output_folder) / VALIDATION
                told = self.dataset_json["file_ending"], _told, len(self.do_split()[1])
                stack.enter_context(counting_files(folder, *told))
            if self.quick_validation:
                validate_quickly(self, save_probabilities)
            else:
                super().perform_actual_validation(save_probabilities)
        if self.local_rank == 0:
            show(unit=EVALUATION, done=1, total=1)


def _told(done: int, cases: int) -> None:
    show(unit="predict held-out case", done=done, total=cases)
    if done == cases:
        show(unit=EVALUATION, done=0, total=1)


class TellingLoader(nnUNetDataLoader):  # type: ignore[misc]
    """nnU-Net's loader, whose training batches also tell what was drawn for them.

    nnU-Net's workers load ahead, and it leaves the first batch out: only ``train_step`` knows what
    is trained on. Of a variant that makes loaders of its own, draws are logged as they are drawn.
    """

    def generate_train_batch(self) -> dict[str, Any]:
        if not isinstance(self._data, MixedNnunetDataset):  # of validation
            return dict(super().generate_train_batch())
        with self._data.held() as kept:
            batch = dict(super().generate_train_batch())
        return batch | {DRAWS: [] if kept is None else kept.draws}


class nnUNetTrainerGANSynth(GANSynthMixin, nnUNetTrainer):  # type: ignore[misc]
    """nnU-Net's default trainer with synthetic samples, under the name that nnU-Net looks up."""


def follow(file: Path, rank: int) -> MixerConfig[str]:
    """Wait for the plan of the rank that leads; its failure ends this one, too."""
    while not file.is_file():
        time.sleep(0.2)
    document = read_json(file)
    fault = document.get("fault")
    if fault:
        raise GansynthError.printed(fault["code"], fault["line"])
    plan = document["plan"]
    plan["stream"] = [rank, *plan["stream"][1:]]
    counter = plan["batch_counter"]
    if counter:
        counter[0] = str(Path(counter[0]).with_name(f"batches-{rank}"))
    return MixerConfig.from_json(plan)


# -- augmentation ----------------------------------------------------------------------------------

WIDTHS = 0.1, 0.25
"""Smallest and largest sigma of the Gaussian for elastic displacements, as share of the patch."""
REACH = 0.5
"""Largest elastic displacement, in multiples of that sigma: small enough to avoid folding."""


class CentreCrop(BasicTransform):  # type: ignore[misc]
    """Crops to a patch, as nnU-Net's SpatialTransform without rotation and scaling; not random."""

    def __init__(self, patch_size: Sequence[int]) -> None:
        super().__init__()
        self.patch_size = tuple(map(int, patch_size))

    def _apply_to_image(self, img: Any, **params: Any) -> Any:
        return center_crop(img, self.patch_size)

    def _apply_to_segmentation(self, segmentation: Any, **params: Any) -> Any:
        return center_crop(segmentation, self.patch_size, pad_kwargs={"value": -1})


class SplitAugmentation:
    """Passes real samples through one pipeline and synthetic ones through another.

    nnU-Net's loader loads a case, crops it, and passes it to its transforms at once. So the
    transformed sample is the last loaded, as ``last`` says: the data set shares it, which must be
    pickled or forked together with this.
    """

    def __init__(self, real: Any, synthetic: Any, last: LastDraw) -> None:
        self.real, self.synthetic, self.last = real, synthetic, last

    def __call__(self, **sample: Any) -> Any:
        """Transform the sample loaded last."""
        synthetic, self.last.synthetic = self.last.synthetic, None
        if synthetic is None:
            raise EnvironmentFault(
                "nnunet.synthetic-cases-not-separable",
                "--augment-synthetic no: this nnU-Net does not transform each case right after "
                "loading it, so synthetic ones cannot be told apart; use --augment-synthetic yes, "
                "or nnunetv2 2.8",
            )
        return self.synthetic(**sample) if synthetic else self.real(**sample)


def deform(transforms: Any, share: float) -> str:
    """Add elastic deformation of a share of samples to a pipeline's spatial transforms, in place.

    Returns a message for the log.
    """
    steps = getattr(transforms, "transforms", ())
    spatial = [step for step in steps if isinstance(step, SpatialTransform)]
    if not spatial:
        raise UsageFault(
            "nnunet.no-spatial-transform",
            f"--set elastic={share:g}: this trainer's augmentation has no spatial transform that "
            "could deform, expected one like nnUNetTrainer's or nnUNetTrainerDA5's; leave it out",
        )
    for step in spatial:
        step.p_elastic_deform = share
        step.elastic_deform_scale = WIDTHS
        step.elastic_deform_magnitude = displaced
    return f"gansynth: {share:.0%} of the samples are deformed elastically, too"


def displaced(*, dim: int, patch_size: Sequence[int], deformation_scale: float, **_: Any) -> float:
    """Return the largest displacement of a sample in voxels, a callback of nnU-Net's transform."""
    return float(np.random.uniform(0, REACH * deformation_scale * patch_size[dim]))  # noqa: NPY002


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
