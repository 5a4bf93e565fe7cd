"""Preset experiment arms: the controls that a GAN must beat, and those that plugins register."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from gansynth.core.registry import installed
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.yaml_text import read_yaml

CONTROLS: Mapping[str, Mapping[str, Any]] = {
    "default": {
        "title": "usual augmentation",
        "what": "real cases alone, with the host's usual augmentation",
    },
    "none": {
        "title": "no augmentation",
        "what": "real cases alone, without augmentation",
        "host_augmentation": False,
    },
    "heavier": {
        "title": "heavier augmentation",
        "what": "real cases alone, augmented more than the host usually does",
        "heavier": True,
    },
    "again": {
        "title": "usual augmentation again",
        "what": "the control with other random numbers: what chance alone does",
        "again": True,
    },
    "double": {
        "title": "twice the real cases",
        "what": "twice as many real subjects: the yardstick",
        "real": 2,
    },
    "target": {
        "title": "labels of the target site",
        "what": "as many subjects of the site that is evaluated: the most that can be regained",
        "at_target": True,
    },
}


def preset_names() -> tuple[str, ...]:
    """Return the names of the preset arms; plugins offer theirs by hook ``register_arms``."""
    return (*CONTROLS, *installed().names("arms"))


def preset(name: str) -> Mapping[str, Any]:
    """Return a preset arm: keys of ``gansynth_benchmark.plan.ArmPlan``."""
    return CONTROLS[name] if name in CONTROLS else _file(name)[0]


def preset_generators() -> dict[str, Any]:
    """Return the preset arms' generators: name -> keys of ``GeneratorPlan``.

    A generator of that name in the plan takes precedence.
    """
    files = map(_file, installed().names("arms"))
    return {name: plan for _, plans in files for name, plan in plans.items()}


@functools.cache
def _file(name: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arm in a plugin's file and its ``generators``, as in a plan."""
    path = installed().load("arms", name)
    expected = "an arm of a benchmark's plan in YAML"
    document, _ = read_yaml(path, expected)
    if not isinstance(document, dict):
        raise UsageFault(
            "benchmark.arm-file-not-mapping", f"{path}: not a mapping, expected {expected}"
        )
    generators = document.pop("generators", {})
    return document, generators
