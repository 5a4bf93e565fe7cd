"""nnU-Net's training data set with synthetic samples at a ratio.

nnU-Net's loader asks for exactly ``batch_size`` cases a batch, in order, in one process. Cropping,
padding, oversampling and augmentation follow in nnU-Net's own code, for synthetic samples too.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.errors import DataFault
from gansynth.mixing import Mixer, MixPlan
from gansynth_nnunet.class_locations import Key, decode

if TYPE_CHECKING:
    from gansynth.bank import BankSample

Loaded = tuple[Any, Any, Any, dict[str, Any]]
"""What nnU-Net's loader unpacks: image (C, D, H, W), labels (1, D, H, W), None, properties."""


class MixedDataset:
    """Stands in for nnU-Net's training data set; everything but ``load_case`` is the real one's.

    It opens no real case but those that it is asked for and that the plan's schedule allows.

    Args:
        real: nnU-Net's own data set of training cases.
        plan: what is mixed in.
        batch_size: slots a batch.
        channels: of the real cases.
        keys: labels or regions whose voxels nnU-Net wants to know (``location_keys``).

    Raises:
        DataFault: if the samples have other channels than the real cases.
    """

    def __init__(
        self,
        real: Any,
        plan: MixPlan[str],
        batch_size: int,
        channels: int,
        keys: Sequence[Key] = (),
    ) -> None:
        self._real = real
        self._batch_size, self._channels, self._keys = batch_size, channels, tuple(keys)
        self._mixer = Mixer(plan, self._refuse)
        self.drew_synthetic = False
        """Whether the last ``load_case`` in this process gave a synthetic sample."""
        if plan.bank is not None:
            self._check_channels(plan.bank)

    @property
    def identifiers(self) -> Any:
        """Ids of the real cases."""
        return self._real.identifiers

    def load_case(self, identifier: str) -> Loaded:
        """The real case of this id, or what the plan puts in its place; all arrays are copies."""
        slot = self._mixer.slot(identifier, self._batch_size)
        self.drew_synthetic = slot.sample is not None
        if slot.sample is None:
            loaded: Loaded = self._real.load_case(slot.real)
            return loaded
        assert slot.sample.labels is not None  # see _refuse
        # float16 stays: the loader converts what it has cropped, which is cheaper.
        locations = decode(slot.sample.extras, self._keys)
        return slot.sample.image, slot.sample.labels[None], None, {"class_locations": locations}

    def __getitem__(self, identifier: str) -> Loaded:
        return self.load_case(identifier)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not yet unpickled, or a protocol nobody asked the real one about
            raise AttributeError(name)
        return getattr(self._real, name)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _refuse(self, sample: BankSample) -> str:
        if sample.labels is None or sample.image.shape != (self._channels, *sample.labels.shape):
            # nnU-Net would broadcast a missing channel without a word.
            return f"sample {sample.id} has shape {sample.image.shape}"
        return ""

    def _check_channels(self, bank_folder: Path) -> None:
        from gansynth.bank import BankReader

        found = len(BankReader(bank_folder).spec.schema.channels)
        if found != self._channels:
            raise DataFault(
                f"{bank_folder}: samples have {found} channel(s), the training cases "
                f"{self._channels}; expected equal. Fit the generator on this data set"
            )
