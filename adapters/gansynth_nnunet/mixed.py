"""nnU-Net's training data set with synthetic samples mixed in at a ratio.

nnU-Net's loader asks for exactly ``batch_size`` cases a batch, in order, in one process. Cropping,
padding, oversampling and augmentation follow in nnU-Net's own code, for synthetic samples too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.mix_config import MixerConfig
from gansynth.hosts.mixer import Mixer
from gansynth.runtime.errors import DataFault
from gansynth_nnunet.class_locations import Key, decode

if TYPE_CHECKING:
    from gansynth.bank.reader import BankSample

Loaded = tuple[Any, Any, Any, dict[str, Any]]
"""Tuple for nnU-Net's loader: image (C, D, H, W), labels (1, D, H, W), None (labels of a cascade's
first stage), properties."""


@dataclass
class LastDraw:
    """Whether the last sample loaded in this process is synthetic; None once read."""

    synthetic: bool | None = None


class MixedNnunetDataset:
    """Replaces nnU-Net's training data set; everything but ``load_case`` is the real one's.

    It opens only real cases that are requested and that the plan's schedule allows.

    Raises:
        DataFault: the samples have other channels than the real cases.
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
        if plan.bank is not None:
            self._check(plan.bank)

    @property
    def identifiers(self) -> Any:
        """Ids of the real cases."""
        return self._real.identifiers

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

    def _check(self, bank_folder: Path) -> None:
        from gansynth.bank.reader import BankReader

        reader = BankReader(bank_folder)
        channels = len(reader.spec.schema.channels)
        if channels != self._channels:
            raise DataFault(
                f"{bank_folder}: samples have {channels} channel(s), the training cases "
                f"{self._channels}; expected equal. Fit the generator on this data set"
            )
