"""nnU-Net's augmentation changed: switched off, for all samples or for synthetic ones, or heavier.

Everything here runs inside nnU-Net's own loader, sample by sample: it loads a case, crops it, and
at once hands it to its transforms. So what was loaded last is what is being transformed.
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
"""Narrowest and widest Gaussian that smooths elastic displacements, as a share of the patch."""
REACH = 0.5
"""Longest elastic displacement, in widths of that Gaussian: not so long that space would fold."""


class CentreCrop(BasicTransform):  # type: ignore[misc]
    """Crops image and labels to a patch, as nnU-Net's SpatialTransform does where it neither
    rotates nor scales, and without drawing random numbers.
    """

    def __init__(self, patch_size: Sequence[int]) -> None:
        super().__init__()
        self.patch_size = tuple(int(n) for n in patch_size)

    def _apply_to_image(self, img: Any, **params: Any) -> Any:
        return center_crop(img, self.patch_size)

    def _apply_to_segmentation(self, segmentation: Any, **params: Any) -> Any:
        return center_crop(segmentation, self.patch_size, pad_kwargs={"value": -1})


class ByKind:
    """Real samples through one pipeline, synthetic ones through another.

    It shares ``last`` with the data set that it is pickled or forked together with.
    """

    def __init__(self, real: Any, synthetic: Any, last: LastDraw) -> None:
        self.real, self.synthetic, self.last = real, synthetic, last

    def __call__(self, **sample: Any) -> Any:
        """Transform the sample loaded last.

        Raises:
            EnvironmentFault: nnU-Net loads and transforms in another order than it used to.
        """
        synthetic, self.last.synthetic = self.last.synthetic, None
        if synthetic is None:
            raise EnvironmentFault(
                "--augment-synthetic no: this nnU-Net does not transform each case right after "
                "loading it, so synthetic ones cannot be told apart; use --augment-synthetic yes, "
                "or nnunetv2 2.8"
            )
        return self.synthetic(**sample) if synthetic else self.real(**sample)


def deform(transforms: Any, share: float) -> str:
    """Have a pipeline's spatial transforms deform a share of samples elastically, too, in place.

    Returns what was done, for the log.

    Raises:
        UsageFault: there is no such transform in it.
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
    """The longest displacement of one sample in voxels, as nnU-Net's transform asks for it."""
    return float(np.random.uniform(0, REACH * deformation_scale * patch_size[dim]))  # noqa: NPY002


def arguments(positional: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a call to nnU-Net's ``get_training_transforms``, by name."""
    bound = inspect.signature(nnUNetTrainer.get_training_transforms).bind(*positional, **named)
    bound.apply_defaults()
    return dict(bound.arguments)


def validation_pipeline(trainer: Any, arguments: Mapping[str, Any]) -> Any:
    """The trainer's own validation transforms, for what training transforms were asked for."""
    keys = ("is_cascaded", "foreground_labels", "regions", "ignore_label")
    return trainer.get_validation_transforms(
        arguments["deep_supervision_scales"], **{key: arguments[key] for key in keys}
    )


def plain_pipeline(trainer: Any, arguments: Mapping[str, Any]) -> Any:
    """What is left of the training transforms without anything random.

    Crop, mask of the channels that were normalised inside the nonzero region, then what validation
    does: -1 removed, previous stage as channels, regions, targets of deep supervision.
    """
    steps: list[Any] = [CentreCrop(arguments["patch_size"])]
    masked = [i for i, mask in enumerate(arguments["use_mask_for_norm"] or ()) if mask]
    if masked:
        steps.append(MaskImageTransform(masked, channel_idx_in_seg=0, set_outside_to=0))
    return ComposeTransforms([*steps, validation_pipeline(trainer, arguments)])
