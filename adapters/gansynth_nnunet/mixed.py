"""nnU-Net's training data set with synthetic samples mixed in at a ratio.

nnU-Net's loader asks for exactly ``batch_size`` cases a batch, in order, in one process. Cropping,
padding, oversampling and augmentation follow in nnU-Net's own code, for synthetic samples too.
Foreground crops are centred on voxels that are sampled beforehand, per label or region
(``class_locations``): by nnU-Net's own function, before a sample enters a bank.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth import LabelArray, Mixer, MixerConfig

if TYPE_CHECKING:
    from gansynth import BankSample

Key = int | tuple[int, ...]  # a label, or the labels of a region
Loaded = tuple[Any, Any, Any, dict[str, Any]]
"""Tuple for nnU-Net's loader: image (C, D, H, W), labels (1, D, H, W), None (labels of a cascade's
first stage), properties."""
VOXELS = 1000
"""Voxels stored per label, or all if there are fewer. Each draw of a sample uses one, and a sample
is drawn far less often."""


@dataclass
class LastDraw:
    """Whether the last sample loaded in this process is synthetic; None once read."""

    synthetic: bool | None = None


class MixedNnunetDataset:
    """Replaces nnU-Net's training data set; everything but ``load_case`` is the real one's.

    It opens only real cases that are requested and that the plan's schedule allows.
    """

    def __init__(
        self,
        real: Any,
        plan: MixerConfig[str],
        batch_size: int,
        channels: int,
        keys: Sequence[Key] = (),
    ) -> None:
        self._real = real
        self._batch_size, self._channels, self._keys = batch_size, channels, tuple(keys)
        self._mixer = Mixer(plan, self._refuse)
        self.last = LastDraw()

    def load_case(self, identifier: str) -> Loaded:
        """Return the real case of this id, or the plan's replacement; all arrays are copies."""
        slot = self._mixer.slot(identifier, self._batch_size)
        self.last.synthetic = slot.sample is not None
        if slot.sample is None:
            loaded: Loaded = self._real.load_case(slot.real)
            return loaded
        assert slot.sample.labels is not None  # see _refuse
        # float16 stays: the loader converts only the crop, which is cheaper.
        locations = decode(slot.sample.extras, self._keys)
        return slot.sample.image, slot.sample.labels[None], None, {"class_locations": locations}

    def held(self) -> AbstractContextManager[Any]:
        """Keep the draws of this block, for who trains on them to log."""
        return self._mixer.held()

    def __getitem__(self, identifier: str) -> Loaded:
        return self.load_case(identifier)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not yet unpickled, or a protocol that does not concern nnU-Net
            raise AttributeError(name)
        return getattr(self._real, name)

    def _refuse(self, sample: BankSample) -> str:
        if sample.labels is None or sample.image.shape != (self._channels, *sample.labels.shape):
            # nnU-Net would silently broadcast a missing channel.
            return f"sample {sample.id} has shape {sample.image.shape}"
        return ""


# -- voxels on which crops are centred -------------------------------------------------------------


def location_keys(label_manager: Any) -> tuple[Key, ...]:
    """Return labels or regions whose voxels nnU-Net needs, from its own LabelManager.

    With an ignore label, nnU-Net also needs a region of all annotated labels.
    """
    regions = label_manager.has_regions
    keys = [*(label_manager.foreground_regions if regions else label_manager.foreground_labels)]
    if label_manager.has_ignore_label:
        keys.append((-1, *label_manager.all_labels))
    # Python's integers: numpy's are not JSON.
    return tuple(tuple(map(int, k)) if isinstance(k, list | tuple) else int(k) for k in keys)


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


def _name(key: Key) -> str:
    return "class_locations:" + json.dumps(key, separators=(",", ":"))
