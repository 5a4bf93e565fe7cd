"""nnU-Net's training data set with synthetic samples at a ratio.

nnU-Net's loader asks for exactly ``batch_size`` cases a batch, in order, in one process. Cropping,
padding, oversampling and augmentation follow in nnU-Net's own code, for synthetic samples too.
"""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gansynth.errors import DataFault, TrainingFault
from gansynth.ratio import SlotPlanner
from gansynth_nnunet.class_locations import Key, decode
from gansynth_nnunet.drawlog import DrawLog, Kind

if TYPE_CHECKING:
    from gansynth.bank import BankReader, BankSample

OnMissing = Literal["real", "wait", "stop"]
Loaded = tuple[Any, Any, Any, dict[str, Any]]
"""What nnU-Net's loader unpacks: image (C, D, H, W), labels (1, D, H, W), None, properties."""


class MixedDataset:
    """Stands in for nnU-Net's training data set; everything but ``load_case`` is the real one's.

    It goes to nnU-Net's workers by fork or by pickle. Whatever is random or open is made in the
    process that draws, keyed by (seed, stream, worker), never inherited.

    Args:
        real: nnU-Net's own data set of training cases.
        bank_folder: the bank to draw from; None if ``p`` is 0.
        p: share of synthetic samples, 0 to 1.
        batch_size: slots a batch.
        seed: seeds the choice of slots and samples.
        log_folder: where draws are counted; None counts nothing.
        keys: labels or regions whose voxels nnU-Net wants to know (``location_keys``).
        stream: further numbers of the seed: rank and first epoch, say.
        on_missing: ``real`` gives the real case, counted; ``wait`` waits ``patience`` seconds, then
            stops (a synthetic-only phase: no real case may slip in); ``stop`` stops at once.
        patience: seconds.

    Raises:
        DataFault: if the samples have other channels than the real cases.
    """

    def __init__(
        self,
        real: Any,
        bank_folder: Path | None,
        p: float,
        batch_size: int,
        seed: int,
        log_folder: Path | None,
        *,
        keys: Sequence[Key] = (),
        stream: Sequence[int] = (),
        on_missing: OnMissing = "real",
        patience: float = 300.0,
    ) -> None:
        self._real = real
        self._bank_folder = bank_folder
        self._p, self._batch_size, self._seed = p, batch_size, seed
        self._log = None if log_folder is None else DrawLog(log_folder)
        self._keys, self._stream = tuple(keys), tuple(stream)
        self._on_missing, self._patience = on_missing, patience
        self._pid = 0
        self._channels = int(real.load_case(real.identifiers[0])[0].shape[0])
        if bank_folder is not None:
            self._check_channels(bank_folder)

    @property
    def identifiers(self) -> Any:
        """Ids of the real cases."""
        return self._real.identifiers

    def load_case(self, identifier: str) -> Loaded:
        """The real case of this id, or a synthetic sample in its place; all arrays are copies."""
        if self._pid != os.getpid():
            self._begin()
        if not self._planner.next_is_synthetic():
            return self._give_real(identifier, "real")
        sample, reason = self._draw()
        if sample is None and self._on_missing != "real":
            sample, reason = self._insist(reason)
        if sample is None:
            return self._give_real(identifier, "fallback", reason)
        if self._log is not None:
            self._log.append("synthetic", sample.id, str(sample.provenance.get("case", "")))
        assert sample.labels is not None  # see _draw
        # float16 stays: the loader converts what it has cropped, which is cheaper.
        locations = decode(sample.extras, self._keys)
        return sample.image, sample.labels[None], None, {"class_locations": locations}

    def __getitem__(self, identifier: str) -> Loaded:
        return self.load_case(identifier)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # not yet unpickled, or a protocol nobody asked the real one about
            raise AttributeError(name)
        return getattr(self._real, name)

    def __getstate__(self) -> dict[str, Any]:
        mine = ("_planner", "_reader", "_rng")
        return {k: v for k, v in self.__dict__.items() if k not in mine} | {"_pid": 0}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)

    def _begin(self) -> None:
        """Make what belongs to this process alone: randomness, and the open bank."""
        worker = tuple(getattr(multiprocessing.current_process(), "_identity", ()))
        key = np.random.SeedSequence((self._seed, *self._stream), spawn_key=worker)
        slots, draws = key.spawn(2)
        self._planner = SlotPlanner(self._p, self._batch_size, np.random.default_rng(slots))
        self._rng = np.random.default_rng(draws)
        self._reader: BankReader | None = None
        self._pid = os.getpid()

    def _draw(self) -> tuple[BankSample | None, str]:
        """A sample, or None and why there is none."""
        if self._bank_folder is None:
            return None, "no bank"
        try:
            if self._reader is None:
                from gansynth.bank import BankReader

                self._reader = BankReader(self._bank_folder)
            sample = self._reader.draw(self._rng)
        except Exception as error:  # whatever ails a bank, the host's training goes on
            self._reader = None
            return None, f"{type(error).__name__}: {error}"
        if sample is None:
            return None, "the bank is empty"
        if sample.labels is None or sample.image.shape != (self._channels, *sample.labels.shape):
            # nnU-Net would broadcast a missing channel without a word.
            return None, f"sample {sample.id} has shape {sample.image.shape}"
        return sample, ""

    def _insist(self, reason: str) -> tuple[BankSample, str]:
        """Wait for a sample where no real case may take its place."""
        patience = self._patience if self._on_missing == "wait" else 0.0
        end = time.monotonic() + patience
        while time.monotonic() < end:
            time.sleep(0.2)
            sample, reason = self._draw()
            if sample is not None:
                return sample, ""
        fault = TrainingFault(
            f"{self._bank_folder}: no synthetic sample after {patience:g} s ({reason}), expected "
            "one: no real case may take its place here. Give the producer a faster device, or use "
            "a frozen bank"
        )
        if self._log is not None:  # nnU-Net tells its main process only that a worker has gone
            self._log.append("stopped", "", str(fault))
        raise fault

    def _give_real(self, identifier: str, kind: Kind, reason: str = "") -> Loaded:
        if self._log is not None:
            self._log.append(kind, identifier, reason)
        loaded: Loaded = self._real.load_case(identifier)
        return loaded

    def _check_channels(self, bank_folder: Path) -> None:
        from gansynth.bank import BankReader

        found = len(BankReader(bank_folder).spec.schema.channels)
        if found != self._channels:
            raise DataFault(
                f"{bank_folder}: samples have {found} channel(s), the training cases "
                f"{self._channels}; expected equal. Fit the generator on this data set"
            )
