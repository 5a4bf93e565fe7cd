"""Preset experiment arms: the controls that a GAN must beat, and the usual ways to use a GAN."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "default": {
        "title": "usual augmentation",
        "what": "real cases alone, with the host's usual augmentation",
    },
    "none": {
        "title": "no augmentation",
        "what": "real cases alone, without augmentation",
        "augmentation": "none",
    },
    "heavier": {
        "title": "heavier augmentation",
        "what": "real cases alone, augmented more than the host usually does",
        "augmentation": "heavier",
    },
    "double": {
        "title": "twice the real cases",
        "what": "twice as many real subjects: the yardstick",
        "real": 2,
    },
    "elastic": {
        "title": "elastic control",
        "what": "real pairs deformed, mixed in as a GAN's samples would be",
        "generator": "elastic",
    },
    "copy-paste": {
        "title": "copy-paste",
        "what": "lesions of one case in the image of another, no network",
        "generator": "copypaste",
    },
    "parametric": {
        "title": "parametric lesions",
        "what": "lesions of sampled contrast and grain in real images, no network and no copy",
        "generator": "parametric",
    },
    "coarse-paste": {
        "title": "coarse paste and cGAN",
        "what": "lesions pasted coarsely, then refined by a conditional GAN",
        "generator": "cgan3d-lesion",
    },
    "whole": {
        "title": "whole-image cGAN, edited labels",
        "what": "whole images drawn by a conditional GAN of training label maps that were edited",
        "generator": "cgan3d",
    },
    "unedited": {
        "title": "whole-image cGAN, unedited labels",
        "what": "whole images drawn by a conditional GAN of the training label maps as they are",
        "generator": "cgan3d",
        "edits": ["identity"],
    },
    "interpolated": {
        "title": "whole-image cGAN, interpolated labels",
        "what": "whole images drawn by a conditional GAN of shapes between two training cases'",
        "generator": "cgan3d",
        "edits": ["interpolate"],
    },
    "dcgan": {
        "title": "DCGAN with mask",
        "what": "images and masks drawn together from noise",
        "generator": "dcgan",
    },
    "cpggan": {
        "title": "CPGGAN",
        "what": "images drawn around boxes by a progressive GAN",
        "generator": "cpggan",
    },
    "synthetic-only": {
        "title": "synthetic cases alone",
        "what": "no real case: whole images of a conditional GAN only",
        "generator": "cgan3d",
        "ratio": "0:1",
    },
    "pretrain": {
        "title": "synthetic first, then 10 % real",
        "what": "synthetic cases up to 80 % of the steps, then a tenth of the real ones",
        "generator": "cgan3d",
        "ratio": "0:1",
        "schedule": "finetune:10%@80%",
    },
}
"""Name -> keys of ``gansynth.benchmark.plan.ArmPlan``. A plan may change any of them."""

PRESET_GENERATORS: Mapping[str, Mapping[str, Any]] = {
    "cgan3d-lesion": {"plugin": "cgan3d", "recipe": "lesion"},
    "dcgan": {"plugin": "dcgan", "set": {"with_mask": "yes"}},
}
"""Generators of these arms that need more than a plugin name: name -> keys of
``gansynth.benchmark.plan.GeneratorPlan``. A generator of that name in the plan takes precedence."""
