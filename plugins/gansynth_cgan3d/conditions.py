"""The condition of the networks as channels: labels, body, context, given image channels.

``insert=lesion`` adds the hole, and for the generator alone the start image in the hole:
discriminators would recognise samples by it. Context means intensity clusters of the background,
which labels do not describe.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gansynth import (
    OUTSIDE,
    Batch,
    Case,
    ChannelStatistics,
    Condition,
    DataFault,
    FloatArray,
    LabelArray,
    Schema,
    UsageFault,
    one_hot,
)
from gansynth.core.body_mask import body_mask
from gansynth.data.label_statistics import label_share
from gansynth.nn.tiled_inference import Window, cut
from gansynth.runtime.errors import did_you_mean
from gansynth_cgan3d.lesion import LesionInsertion
from gansynth_cgan3d.options import CGANOptions

LEAST_DEVIATION = 1e-6  # deviation of an image below which it is even


@dataclass(frozen=True)
class ConditionInputs:
    """Conditions of a batch before they are encoded as channels; None for parts not in use.

    ``labels``, ``context``: int64 (B, D, H, W) or (B, H, W). ``given``: float32 (B, K, ...).
    """

    labels: Tensor | None
    context: Tensor | None
    given: Tensor | None
    insertion: LesionInsertion | None = None

    @property
    def size(self) -> tuple[int, ...]:
        """Spatial size in voxels."""
        if self.labels is not None:
            return tuple(self.labels.shape[1:])
        assert self.given is not None, "options guarantee labels or given channels"
        return tuple(self.given.shape[2:])


@dataclass(frozen=True)
class ImageUnits:
    """Mean and deviation (B or 1, C, 1, ...) of real images, for the networks.

    With ``insert=lesion`` each image has its own, of what lies around its lesion. Whole images
    share those of the training cases. A source may hold grey values from 0 to 1.
    """

    mean: Tensor
    deviation: Tensor

    @classmethod
    def around(cls, insertion: LesionInsertion) -> ImageUnits:
        """Return the units of a batch; voxels of the hole do not count."""
        image, known = insertion.background.float(), (~insertion.hole).float()
        axes = tuple(range(2, image.ndim))
        count = known.sum(axes, keepdim=True).clamp_min(1)
        mean = (image * known).sum(axes, keepdim=True) / count
        square = ((image - mean).square() * known).sum(axes, keepdim=True) / count
        deviation = square.sqrt()
        return cls(mean, torch.where(deviation > LEAST_DEVIATION, deviation, 1.0))

    def of(self, channels: Sequence[int]) -> ImageUnits:
        """Return the units of some channels."""
        return ImageUnits(self.mean[:, channels], self.deviation[:, channels])

    def standardised(self, image: Tensor) -> Tensor:
        """Return images (B, C, ...) in these units."""
        return (image - self.mean) / self.deviation

    def restored(self, image: Tensor, *, residual: bool = False) -> Tensor:
        """Return images, or differences of images, in the source's units."""
        return image * self.deviation if residual else image * self.deviation + self.mean


class ConditionEncoder:
    """Encodes label maps, context and given channels as condition channels.

    ``names``: ``label:0``, ``body``, ``context:1``, ``given:T1``, ``hole``, ``start:T1``.
    Discriminators see the first of them, ``judged``. Raises UsageFault: a given channel is unknown,
    or no channel is left to generate.
    """

    def __init__(self, schema: Schema, options: CGANOptions) -> None:
        self.schema, self.options = schema, options
        self.labelled = options.target == "image"
        channels = schema.channels
        self.intensities = ChannelStatistics(len(channels))
        for name in options.given:
            if name not in channels:
                raise UsageFault(
                    f"given: {name!r} is no channel, expected one of {', '.join(channels)}."
                    f"{did_you_mean(name, channels)}"
                )
        self.given = [channels.index(name) for name in options.given]
        targets = [i for i in range(len(channels)) if i not in self.given]
        self.drawn = targets if self.labelled else []
        if self.labelled and not self.drawn:
            raise UsageFault(
                f"given: {', '.join(options.given)} are all channels, none is left to generate; "
                "give fewer, or generate labels: target=labels"
            )
        inserts = options.insert == "lesion"
        judged = [f"label:{value}" for value in schema.label_values] if self.labelled else []
        if options.body:
            judged.append("body")
        judged += [f"context:{number + 1}" for number in range(options.context or 0)]
        judged += [f"given:{name}" for name in options.given]
        if inserts:
            judged.append("hole")
        starts = [f"start:{name}" for name in channels] if inserts else []
        self.judged, self.names = tuple(judged), (*judged, *starts)

    def of_batch(self, batch: Batch) -> ConditionInputs:
        """Return the conditions of a training batch; DataFault: a case has no labels."""
        given_image = batch.image[:, self.given] if self.given else None
        if batch.labels is None:
            raise DataFault("cgan3d: a training case has no labels, expected a label map for each")
        return ConditionInputs(batch.labels if self.labelled else None, batch.context, given_image)

    def asked_of_batch(self, batch: Batch) -> ConditionInputs:
        """Return the requested conditions of a training batch, where they differ from its own."""
        return ConditionInputs(batch.asked, batch.asked_context, None)

    def of_conditions(
        self, conditions: Sequence[Condition], device: torch.device
    ) -> ConditionInputs:
        """Return conditions as one batch; DataFault: labels or channels are missing."""
        labels = context = given_images = None
        if self.labelled:
            labels = _stacked([_asked(c.labels, "labels", 0) for c in conditions], device).long()
        if self.options.context or self.options.body:
            assert labels is not None
            blank = np.zeros(labels.shape[1:], np.int16)
            maps = [blank if c.context is None else c.context for c in conditions]
            context = _stacked(maps, device).long()
        if self.given:
            images = [_asked(c.given, "given", len(self.given)) for c in conditions]
            given_images = _stacked(images, device).float()
        return ConditionInputs(labels, context, given_images)

    def channels(self, conditioning: ConditionInputs, window: Window | None = None) -> Tensor:
        """Return condition channels float32 (B, len(names), ...), of a window or the volume."""

        def part(x: Tensor) -> Tensor:
            return x if window is None else cut(x, window)

        parts = []
        if conditioning.labels is not None:
            parts.append(one_hot(part(conditioning.labels), self.schema.label_values))
        if self.options.body:
            assert conditioning.context is not None, "the batch has the body of context()"
            parts.append(self._apart(parts[0], part(conditioning.context)))
        if self.options.context:
            assert conditioning.context is not None, (
                "the batch has the context of observe()'s clusters"
            )
            parts.append(one_hot(part(conditioning.context), range(1, self.options.context + 1)))
        if conditioning.given is not None:
            given = part(conditioning.given)
            units = self.units(None, given)
            parts.append(given if units is None else units.of(self.given).standardised(given))
        if conditioning.insertion is not None:
            start = conditioning.insertion.start
            units = self.units(conditioning.insertion, start)
            start = start if units is None else units.standardised(start)
            parts += [part(conditioning.insertion.hole).float(), part(start)]
        return parts[0] if len(parts) == 1 else torch.cat(parts, 1)

    def units(self, insertion: LesionInsertion | None, like: Tensor) -> ImageUnits | None:
        """Return the units of all channels in which networks see images; None: the source's.

        ``like``: a tensor (B, ...) of the images' device and dimensions.
        """
        if not self.options.standardise:
            return None
        if insertion is not None:
            return ImageUnits.around(insertion)
        return ImageUnits(*self.intensities.on(like))

    def _apart(self, labels: Tensor, body: Tensor) -> Tensor:
        """Return the body channel (B, 1, ...) and remove the body from the background channel."""
        background = labels[:, self.schema.label_values.index(0)]
        inside = background * (body == 1)
        background -= inside
        return inside[:, None]


def _asked(array: npt.NDArray[Any] | None, key: str, channels: int) -> npt.NDArray[Any]:
    if array is None or (channels and len(array) != channels):
        actual = "none" if array is None else f"{len(array)} channel(s)"
        expected = f"{channels} image channel(s)" if channels else "a label map"
        raise DataFault(f"cgan3d: a condition's {key} are {actual}, expected {expected}")
    return array


def _stacked(arrays: Sequence[npt.NDArray[Any]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack(arrays)).to(device)


SMOOTHING = 1.0
"""Standard deviation in voxels of the blur before clustering; it removes fine texture."""
VOXELS_PER_CASE = 2000


EXPLAINED, CLUSTERS = 0.4, 4
"""Share of variance below which labels say too little of the surroundings; clusters used then."""
DEVIATIONS = 0.5, 2.0
"""Deviations of images that networks learn well from as they are; others are standardised."""


def automatic(options: CGANOptions, cases: Iterable[Case]) -> tuple[CGANOptions, str]:
    """Return options with values for ``context`` and ``standardise``, and why they are on."""
    crops = list(cases)
    chosen: dict[str, int | bool] = {}
    reasons = []
    if options.context is None:
        shown = options.body or bool(options.given) or options.insert == "lesion"
        share = 1.0 if shown else label_share((case.image, case.labels) for case in crops)
        chosen["context"] = CLUSTERS if share < EXPLAINED else 0  # NaN: nothing in the body
        if chosen["context"]:
            reasons.append(
                f"context={CLUSTERS}: labels explain {share:.0%} of the images' variance, less "
                f"than {EXPLAINED:.0%}, so intensity clusters of the background are conditions, "
                "too; labels alone: --set context=0"
            )
    if options.standardise is None:
        whole = options.insert == "none" and options.output == "linear"
        found = _deviation(crops) if whole and options.target == "image" else 1.0
        chosen["standardise"] = not DEVIATIONS[0] <= found <= DEVIATIONS[1]
        if chosen["standardise"]:
            reasons.append(
                f"standardise=yes: the images' standard deviation is {found:.2g}, and networks "
                "learn best near 1; images as they are: --set standardise=no"
            )
    return options.model_copy(update=chosen), "; ".join(reasons)


def _deviation(crops: Sequence[Case]) -> float:
    """Return the standard deviation of crops, the geometric mean over channels."""
    statistics = ChannelStatistics(len(crops[0].image))
    for case in crops:
        statistics.add(case.image)
    return float(np.exp(np.log(statistics.deviation).mean()))


class ContextClusters:
    """K-means clusters of intensities over all channels; a count of 0 switches them off."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.centres: npt.NDArray[np.float64] | None = None

    def fit(self, cases: Iterable[Case]) -> None:
        """Fit the centres to background voxels of the training cases (fixed seed)."""
        if not self.count:
            return
        from sklearn.cluster import KMeans

        rng = np.random.default_rng(0)
        voxels = []
        for case in cases:
            inside = _surroundings(case)
            values = _smooth(case.image)[:, inside].T
            take = rng.choice(len(values), min(VOXELS_PER_CASE, len(values)), replace=False)
            voxels.append(values[take])
        model = KMeans(self.count, n_init=3, random_state=0).fit(np.concatenate(voxels))
        order = np.argsort(model.cluster_centers_.mean(axis=1))
        self.centres = model.cluster_centers_[order].astype(np.float64)

    def map(self, case: Case) -> LabelArray:
        """Return clusters 1..K of the background, int16 (D, H, W); 0 on foreground and outside."""
        assert self.centres is not None, "context clusters are fitted by observe() first"
        smooth = _smooth(case.image)
        distance = np.stack(
            [
                np.square(smooth - c.reshape(-1, *[1] * (smooth.ndim - 1))).sum(0)
                for c in self.centres
            ]
        )
        clusters = (distance.argmin(0) + 1).astype(np.int16)
        return np.where(_surroundings(case), clusters, np.int16(0))

    def to_json(self) -> dict[str, Any]:
        """Return cluster centres per channel, in the generator's intensity units."""
        return {"centres": None if self.centres is None else self.centres.tolist()}

    def load_json(self, state: Mapping[str, Any]) -> None:
        """Restore what ``to_json`` wrote."""
        centres = state.get("centres")
        self.centres = None if centres is None else np.array(centres, np.float64)


class BodyChannel:
    """Body mask of images; the last mask is cached, as each image is requested twice."""

    def __init__(self) -> None:
        self._last: tuple[FloatArray, npt.NDArray[np.bool_]] | None = None

    def __call__(self, image: FloatArray) -> npt.NDArray[np.bool_]:
        """Return the mask, bool (D, H, W), of an image (C, D, H, W)."""
        last = self._last
        if last is None or last[0] is not image:
            last = self._last = image, body_mask(image)
        return last[1]


def body_map(case: Case, body_of: BodyChannel) -> LabelArray:
    """Return 1 in the body outside the foreground, else 0: int16 (D, H, W).

    Doncenco 2022 (sec. 2.3) and Sun et al. 2020 (MM-GAN, sec. V-A) give the brain around the tumour
    its own class.
    """
    labels = case.labels
    if labels is None:
        return body_of(case.image).astype(np.int16)
    body = labels != OUTSIDE
    if body.all():
        body = body_of(case.image)
    return np.asarray(body & (labels == 0), np.int16)


def _surroundings(case: Case) -> npt.NDArray[np.bool_]:
    if case.labels is None:
        return np.ones(case.image.shape[1:], bool)
    background: npt.NDArray[np.bool_] = (case.labels == 0) & (case.labels != OUTSIDE)
    return background


def _smooth(image: FloatArray) -> FloatArray:
    from scipy.ndimage import gaussian_filter

    return np.stack([gaussian_filter(channel, SMOOTHING) for channel in image])
