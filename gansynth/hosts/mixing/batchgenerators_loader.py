"""Synthetic samples in the batches of a batchgenerators data loader: ``gansynth.mix_batches``.

The mixed loader replaces the real one in a ``SingleThreadedAugmenter`` or a
``MultiThreadedAugmenter``, whose transforms then also apply to samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self, Unpack

import numpy as np
import numpy.typing as npt
from pydantic import Field

from gansynth.bank.reader import BankSample
from gansynth.core.geometry import mask_of
from gansynth.core.ratio import Ratio
from gansynth.core.requests.arguments import with_checked_arguments
from gansynth.core.resample import crop_pad, draw_corner
from gansynth.core.schedule import Schedule
from gansynth.core.schema import OUTSIDE, Schema
from gansynth.hosts.mixing.mixer import Mixer
from gansynth.hosts.mixing.mixture import MixOptions, Mixture
from gansynth.runtime.errors import DataFault, UsageFault

Array = npt.NDArray[Any]
ImageType = Literal["float16", "float32", "float64"]
LabelType = Literal["int8", "int16", "int32", "int64", "uint8", "float32"]


class MixedBatches(Mixture):
    """Put synthetic samples into slots of a loader's batches of *training* cases.

    A batch is a dictionary with ``data`` (B, C, ...) and ``seg`` (B, 1, ...). Samples are cropped
    at random, or padded, to its size and converted to its types. Other entries stay, and
    ``synthetic`` marks the slots. In a synthetic-only phase the loader is not called, and batches
    hold these three alone. Unknown attributes are those of the loader.

    Args:
        loader: a ``SlimDataLoaderBase``: gives a batch on ``next()``, and has a ``batch_size``.
        shape: voxels of a batch on each spatial axis in a synthetic-only phase; None takes the
            loader's ``patch_size``.
        dtypes: of ``data`` and ``seg`` in a synthetic-only phase.
        foreground: share of the samples that are cropped around a foreground voxel, 0 to 1.

    Raises:
        UsageFault: an invalid option, or no bank. Also fine-tuning: a loader cannot be kept from
            opening cases that were not chosen.
        IntegrityFault: the bank's generator has seen a case of ``held_out``.
    """

    def __init__(
        self,
        loader: Any,
        bank: Path | str | None,
        ratio: Ratio | str,
        *,
        shape: Sequence[int] | None = None,
        dtypes: tuple[ImageType, LabelType] = ("float32", "int16"),
        foreground: Annotated[float, Field(ge=0, le=1)] = 0.0,
        **options: Unpack[MixOptions],
    ) -> None:
        schedule = Schedule.parse(str(options.get("schedule", "constant")))
        if not hasattr(loader, "__next__"):
            raise UsageFault(
                "hosts.loader-without-next",
                f"loader: a {type(loader).__name__} gives no batches on next(); expected a data "
                "loader, as a SlimDataLoaderBase; of batches that are iterated, iter(...)",
            )
        if schedule.kind == "finetune":
            raise UsageFault(
                "hosts.schedule-with-batch-loader",
                f"schedule {schedule}: a loader of batches cannot be kept from opening cases that "
                "were not chosen. Train with mix_batches(loader, bank, '0:1') first, then go on "
                "with a loader of gansynth.choose_cases(...); or use gansynth.mix on a data set",
            )
        super().__init__(bank, ratio, **options)
        alone = schedule.at(0.0, self.plan.ratio).real == "none"
        self._patch = _patch(loader, shape) if alone else ()
        self._loader, self._dtypes, self._foreground = loader, dtypes, foreground
        self._mixer = Mixer[int](self.plan)

    @property
    def was_initialized(self) -> Any:
        """The loader's own flag, which an augmenter sets."""
        return self._loader.was_initialized

    @was_initialized.setter
    def was_initialized(self, value: Any) -> None:
        self._loader.was_initialized = value

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> dict[str, Any]:
        return self.generate_train_batch()

    def generate_train_batch(self) -> dict[str, Any]:
        """Return the next batch.

        Raises:
            StopIteration: the loader is exhausted.
            DataFault: batch and samples have other channels, axes or units.
            TrainingFault: a sample is missing and no real case may replace it.
        """
        if self._patch:  # a synthetic-only phase does not call the loader
            slots = self._mixer.batch(range(self._loader.batch_size))
            only = self._mixer.phase.real == "none"
            batch = self._blank() if only else dict(next(self._loader))
        else:
            batch = dict(next(self._loader))
            slots = self._mixer.batch(range(len(batch["data"])))
        samples = [slot.sample for slot in slots[: len(batch["data"])]]
        if any(samples):  # a loader's batch may be a view of its own data
            batch |= {key: batch[key].copy() for key in ("data", "seg") if key in batch}
        for place, sample in enumerate(samples):
            if sample is not None:
                self._put(batch, place, sample)
            self._units.look(batch["data"][place], synthetic=sample is not None)
        return batch | {"synthetic": [sample is not None for sample in samples]}

    def _blank(self) -> dict[str, Any]:
        assert self.spec is not None  # without a bank nothing is drawn, see Mixture
        size, channels = self._loader.batch_size, len(self.spec.schema.channels)
        return {
            "data": np.zeros((size, channels, *self._patch), self._dtypes[0]),
            "seg": np.zeros((size, 1, *self._patch), self._dtypes[1]),
        }

    def _put(self, batch: dict[str, Any], place: int, sample: BankSample) -> None:
        assert self.spec is not None
        schema, rng, labels = self.spec.schema, self._mixer.rng, sample.labels
        data, seg = batch["data"], batch.get("seg")
        _check(data, seg, sample, schema)
        centre, size = None, data.shape[2:]
        if rng.random() < self._foreground and labels is not None:
            foreground = np.flatnonzero(mask_of(labels, schema.foreground))
            if foreground.size:
                voxel = int(rng.choice(foreground))
                centre = np.array(np.unravel_index(voxel, labels.shape), np.int64)
        corner = draw_corner(sample.image.shape[1:], size, centre, rng)
        for channel, value in enumerate(schema.outside_fill or (0.0,) * len(sample.image)):
            data[place, channel] = crop_pad(sample.image[channel], corner, size, value)
        if seg is not None and labels is not None:
            fill = OUTSIDE if schema.has_outside else 0
            seg[place, 0] = crop_pad(labels, corner, size, fill)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")
        return getattr(self._loader, name)


mix_batches = with_checked_arguments(MixedBatches, "mix_batches", options=Mixture)


def _patch(loader: Any, shape: Sequence[int] | None) -> tuple[int, ...]:
    size = getattr(loader, "patch_size", None) if shape is None else shape
    if size is None or not hasattr(loader, "batch_size"):
        raise UsageFault(
            "hosts.loader-batch-size-unknown",
            f"a {type(loader).__name__} does not say how large its batches are. A phase of "
            "synthetic samples only needs that; expected its batch_size, and shape=(D, H, W)",
        )
    if getattr(loader, "infinite", True) is False:
        raise UsageFault(
            "hosts.loader-ends-with-cases",
            f"a {type(loader).__name__} with infinite=False ends with its cases. A phase of "
            "synthetic samples only draws none and would never end; expected infinite=True",
        )
    return tuple(map(int, size))


def _check(data: Array, seg: Array | None, sample: BankSample, schema: Schema) -> None:
    """Refuse a sample that numpy would silently broadcast, wrap around or truncate."""
    description, labels = f"sample {sample.id} is {sample.image.shape}", sample.labels
    if data.ndim != sample.image.ndim + 1 or data.shape[1] != len(sample.image):
        raise DataFault(
            "hosts.loader-data-shape-differs",
            f"{description}, the loader's data {data.shape}; expected as many channels and axes. "
            "Fit the generator on the data that the loader reads",
        )
    if seg is not None and (labels is None or seg.shape[:2] != (len(data), 1)):
        raise DataFault(
            "hosts.loader-seg-shape-differs",
            f"{description}{', without labels' if labels is None else ''}, the loader's seg "
            f"{seg.shape}; expected labels, and seg ({len(data)}, 1, ...)",
        )
    if seg is not None and schema.has_outside and seg.dtype.kind not in "if":
        raise DataFault(
            "hosts.loader-seg-unsigned",
            f"{description}, with label {OUTSIDE} outside the body, the loader's seg {seg.dtype}; "
            "expected a signed type",
        )
