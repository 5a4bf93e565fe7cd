"""nnU-Net's ``class_locations`` as arrays that a bank can store.

nnU-Net centres its foreground crops on voxels sampled beforehand, per label or region. The
same function of nnU-Net is called before a sample enters a bank, so that drawing costs nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.schema import LabelArray

Key = int | tuple[int, ...]  # a label, or the labels of a region

PREFIX = "class_locations:"
VOXELS = 1000
"""Voxels stored per label, or all if there are fewer. Each draw of a sample uses one, and a sample
is drawn far less often."""


def keys_of(plans: Mapping[str, Any], dataset_json: Mapping[str, Any]) -> tuple[Key, ...]:
    """Return ``location_keys`` of a data set, from its plans and its ``dataset.json``."""
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    manager = PlansManager(dict(plans))
    return location_keys(manager.get_label_manager(dict(dataset_json)))


def location_keys(label_manager: Any) -> tuple[Key, ...]:
    """Return labels or regions whose voxels nnU-Net needs, from its own LabelManager.

    With an ignore label, nnU-Net also needs a region of all annotated labels.
    """
    regions = label_manager.has_regions
    foreground = label_manager.foreground_regions if regions else label_manager.foreground_labels
    keys = [_plain(key) for key in foreground]
    if label_manager.has_ignore_label:
        keys.append(_plain((-1, *label_manager.all_labels)))
    return tuple(keys)


def encode(labels: LabelArray, keys: Sequence[Key]) -> dict[str, npt.NDArray[np.int16]]:
    """Sample voxels of each label or region of labels int16 (D, H, W).

    Returns name -> int16 (N, 4): channel (always 0), D, H, W; N is 0 where a key does not occur.
    """
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor

    locations = DefaultPreprocessor._sample_foreground_locations(
        labels[None], list(keys), min_num_samples=VOXELS
    )
    return {_name(key): np.asarray(locations[key], np.int16).reshape(-1, 4) for key in keys}


def decode(
    extras: Mapping[str, npt.NDArray[Any]], keys: Sequence[Key]
) -> dict[Key, npt.NDArray[np.int64]]:
    """Return locations for nnU-Net's loader: every key, with int64 (N, 4) voxels, N may be 0.

    A missing key would stop nnU-Net's worker with a KeyError, so all are present.
    """
    nothing = np.zeros((0, 4), np.int64)
    return {key: extras.get(_name(key), nothing).astype(np.int64) for key in keys}


def _plain(key: Any) -> Key:
    """Convert a key to Python's integers: numpy's are not JSON."""
    return tuple(int(k) for k in key) if isinstance(key, list | tuple) else int(key)


def _name(key: Key) -> str:
    return PREFIX + json.dumps(key, separators=(",", ":"))
