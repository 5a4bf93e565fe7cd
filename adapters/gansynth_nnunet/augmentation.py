"""Changes of nnU-Net's augmentation: off for all samples or for synthetic ones, or stronger.

Everything here runs inside nnU-Net's own loader, sample by sample. The loader loads a case, crops
it, and passes it to its transforms at once. So the transformed sample is always the last loaded.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from batchgeneratorsv2.transforms.base.basic_transform import BasicTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.cropping import center_crop
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from gansynth.runtime.errors import EnvironmentFault, UsageFault
from gansynth_nnunet.mixed import LastDraw

NO_AUGMENTATION = (
    "gansynth: nnU-Net's augmentation is off, as in its nnUNetTrainerNoDA: no mirroring at "
    "inference either, and images are not masked again after normalisation"
)
SYNTHETIC_AS_DRAWN = "gansynth: synthetic samples are not augmented, real ones are"
WIDTHS = 0.1, 0.25
"""Smallest and largest sigma of the Gaussian for elastic displacements, as share of the patch."""
REACH = 0.5
"""Largest elastic displacement, in multiples of that sigma: small enough to avoid folding."""


class CentreCrop(BasicTransform):  # type: ignore[misc]
    """Crops image and labels to a patch, as nnU-Net's SpatialTransform does without rotation and
    scaling. It draws no random numbers.
    """

    def __init__(self, patch_size: Sequence[int]) -> None:
        super().__init__()
        self.patch_size = tuple(int(n) for n in patch_size)

    def _apply_to_image(self, img: Any, **params: Any) -> Any:
        return center_crop(img, self.patch_size)

    def _apply_to_segmentation(self, segmentation: Any, **params: Any) -> Any:
        return center_crop(segmentation, self.patch_size, pad_kwargs={"value": -1})


class SplitAugmentation:
    """Passes real samples through one pipeline and synthetic ones through another.

    It shares ``last`` with the data set, which must be pickled or forked together with it.
    """

    def __init__(self, real: Any, synthetic: Any, last: LastDraw) -> None:
        self.real, self.synthetic, self.last = real, synthetic, last

    def __call__(self, **sample: Any) -> Any:
        """Transform the sample loaded last."""
        synthetic, self.last.synthetic = self.last.synthetic, None
        if synthetic is None:
            raise EnvironmentFault(
                "--augment-synthetic no: this nnU-Net does not transform each case right after "
                "loading it, so synthetic ones cannot be told apart; use --augment-synthetic yes, "
                "or nnunetv2 2.8"
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
            f"--set elastic={share:g}: this trainer's augmentation has no spatial transform that "
            "could deform, expected one like nnUNetTrainer's or nnUNetTrainerDA5's; leave it out"
        )
    for step in spatial:
        step.p_elastic_deform = share
        step.elastic_deform_scale = WIDTHS
        step.elastic_deform_magnitude = displaced
    return f"gansynth: {share:.0%} of the samples are deformed elastically, too"


def displaced(*, dim: int, patch_size: Sequence[int], deformation_scale: float, **_: Any) -> float:
    """Return the largest displacement of a sample in voxels, a callback of nnU-Net's transform."""
    return float(np.random.uniform(0, REACH * deformation_scale * patch_size[dim]))  # noqa: NPY002


def arguments(positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of a call to nnU-Net's ``get_training_transforms``, by name."""
    bound = inspect.signature(nnUNetTrainer.get_training_transforms).bind(*positional, **named)
    bound.apply_defaults()
    return dict(bound.arguments)


def validation_pipeline(trainer: Any, arguments: Mapping[str, Any]) -> Any:
    """Return the trainer's own validation transforms, given arguments for training transforms."""
    keys = ("is_cascaded", "foreground_labels", "regions", "ignore_label")
    return trainer.get_validation_transforms(
        arguments["deep_supervision_scales"], **{key: arguments[key] for key in keys}
    )


def plain_pipeline(trainer: Any, arguments: Mapping[str, Any]) -> Any:
    """Return the training transforms without any random ones.

    They crop, mask the channels normalised inside the nonzero region, and apply validation's
    steps: -1 removed, previous stage as channels, regions, targets of deep supervision.
    """
    steps: list[Any] = [CentreCrop(arguments["patch_size"])]
    masked = [i for i, mask in enumerate(arguments["use_mask_for_norm"] or ()) if mask]
    if masked:
        steps.append(MaskImageTransform(masked, channel_idx_in_seg=0, set_outside_to=0))
    return ComposeTransforms([*steps, validation_pipeline(trainer, arguments)])
