"""Synthetic samples in any map-style torch data set: ``gansynth.mix``.

A mixed data set replaces the real one in a ``DataLoader``, a MONAI ``Dataset`` or a TorchIO
``Queue``. docs/mixing.md has an example of each.
"""

from __future__ import annotations

import contextlib
import operator
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import numpy.typing as npt
import torch
from pydantic import PositiveInt
from torch.utils.data import Dataset, IterableDataset

from gansynth.bank.reader import BankReader, BankSample
from gansynth.core.ratio import Ratio
from gansynth.core.requests.arguments import with_checked_arguments
from gansynth.core.schedule import Schedule
from gansynth.hosts.mixing.mixer import BatchItem, Mixer
from gansynth.hosts.mixing.mixture import MixOptions, Mixture
from gansynth.runtime.errors import UsageFault

NOT_DELEGATED = frozenset({"dataset", "set_random_state"})
"""MONAI does not descend into objects with this method; hiding it lets MONAI seed the transform."""


def as_dict(sample: BankSample) -> dict[str, torch.Tensor]:
    """Return a sample as tensors: ``image`` float32 (C, D, H, W), ``label`` int16 (1, D, H, W)."""
    assert sample.labels is not None  # see _unlabelled
    image = torch.from_numpy(sample.image.astype(np.float32))
    return {"image": image, "label": torch.from_numpy(sample.labels[None])}


class MixedDataset(Mixture, Dataset[Any]):
    """Replace items of a data set of *training* cases by synthetic samples.

    The length stays, and unknown attributes are those of the data set. Items that are not replaced
    are untouched. Only requested real items that the schedule allows are opened.

    Args:
        real: has ``len()`` and takes indices. Apply random crops and augmentation after mixing, so
            that samples get them too.
        as_item: converts a sample, with ``image`` (C, D, H, W) and ``labels`` (D, H, W), to an
            item, e.g. its image and its class (``provenance["class"]``). None: a dictionary of
            tensors, ``image`` float32 (C, D, H, W) and ``label`` int16 (1, D, H, W).
        transform: applied to items and samples alike.
        batch_size: items of a batch if items are requested one by one. A ``DataLoader`` requests
            whole batches, unless the mixed data set is wrapped again. None, with a constant
            schedule only, treats each list as a batch, and each single item as one.
        subjects: index -> subject, for fine-tuning on whole subjects; None: each item is one.

    Raises:
        UsageFault: an invalid option, no bank, or images without labels and no ``as_item``.
        DataFault: later, from an item: samples have other units than the real images.
        IntegrityFault: the bank's generator has seen a case of ``held_out``.
    """

    def __init__(
        self,
        real: Any,
        bank: Path | str | None,
        ratio: Ratio | str,
        *,
        as_item: Callable[[BankSample], Any] | None = None,
        transform: Callable[[Any], Any] | None = None,
        batch_size: PositiveInt | None = None,
        subjects: Mapping[int, str] | Sequence[str] | None = None,
        **options: Unpack[MixOptions],
    ) -> None:
        size = _length(real)
        schedule = Schedule.parse(str(options.get("schedule", "constant")))
        if batch_size is None and schedule.kind != "constant":
            raise UsageFault(
                "hosts.schedule-without-batch-size",
                f"schedule {schedule}: counts batches, expected batch_size=N",
            )
        given = range(size) if subjects is None else subjects
        try:
            of = {place: str(given[place]) for place in range(size)}
        except LookupError:
            raise UsageFault(
                "hosts.subjects-count-differs",
                f"subjects: {len(given)} of them, expected one for each of {size} items",
            ) from None
        super().__init__(bank, ratio, of, **options)
        if as_item is None and self.plan.bank is not None:
            _check_labelled(self.plan.bank)
        self.dataset, self._batch_size = real, batch_size or 1
        self._as_item, self._transform = as_item or as_dict, transform
        self._mixer = Mixer[int](self.plan, None if as_item else _unlabelled)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        """Return the item of this index, or the sample that replaces it.

        Raises:
            IndexError: there is no such item.
            TrainingFault: a sample is missing and no real case may replace it.
        """
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Return the items of a batch, in order; a shorter list is taken as a part of one.

        Raises:
            IndexError, TrainingFault: as for one item.
        """
        places = [self._place(index) for index in indices]
        if len(places) < self._batch_size:
            return self._items([self._mixer.slot(place, self._batch_size) for place in places])
        return self._items(self._mixer.batch(places))

    def _place(self, index: int) -> int:
        size, place = len(self.dataset), operator.index(index)
        if not -size <= place < size:  # otherwise a loop over the items would never end
            raise IndexError(f"item {place} of {size}")
        return place % size

    def _items(self, slots: Sequence[BatchItem[int]]) -> list[Any]:
        places = [slot.real for slot in slots if slot.sample is None]
        together = getattr(self.dataset, "__getitems__", None) if len(places) > 1 else None
        real = iter(together(places) if together else map(self.dataset.__getitem__, places))
        items = [next(real) if s.sample is None else self._as_item(s.sample) for s in slots]
        for slot, item in () if self._units.over else zip(slots, items, strict=True):
            image = _image(item)
            if image is not None:
                self._units.look(image[None], synthetic=slot.sample is not None)
        return items if self._transform is None else [self._transform(item) for item in items]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in NOT_DELEGATED:
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self.dataset, name)


mix = with_checked_arguments(MixedDataset, "mix", options=Mixture)


def _unlabelled(sample: BankSample) -> str:
    return f"sample {sample.id} has no labels" if sample.labels is None else ""


def _check_labelled(bank: Path) -> None:
    """Refuse a bank of images without labels; other faults of the bank show later."""
    reader, sample = BankReader(bank), None
    with contextlib.suppress(Exception):
        for first in reader.ids()[:1]:
            sample = reader.read(first)
    if sample is not None and sample.labels is None:
        raise UsageFault(
            "hosts.bank-samples-without-labels",
            f"{bank}: its samples have no labels, expected them; convert samples with "
            "as_item=, or fit a generator that draws labels",
        )


def _image(item: Any) -> npt.NDArray[Any] | None:
    """Return the image of an item: its entry "image", or its first; None if it is no array."""
    if isinstance(item, Mapping):
        item = item.get("image", next(iter(item.values()), None))
    elif isinstance(item, (tuple, list)) and item:
        item = item[0]
    if hasattr(item, "affine"):  # an image of TorchIO
        item = item.data
    if isinstance(item, torch.Tensor):
        item = item.detach().float().cpu()
    array = np.asarray(item if hasattr(item, "shape") or hasattr(item, "size") else None)
    return array if array.ndim > 1 and array.dtype.kind in "iuf" else None


def _length(real: Any) -> int:
    others = (IterableDataset, str, bytes, Mapping)
    if isinstance(real, others) or not hasattr(real, "__getitem__"):
        raise UsageFault(
            "hosts.dataset-without-index",
            f"real: a {type(real).__name__} is no map-style data set, expected items with an "
            "index, each a training case. For a stream of batches there is gansynth.mix_batches",
        )
    try:
        size = len(real)
    except TypeError:
        size = 0
    if not size:
        raise UsageFault(
            "hosts.dataset-without-length",
            f"real: a {type(real).__name__} without length or items, expected training cases",
        )
    return size
