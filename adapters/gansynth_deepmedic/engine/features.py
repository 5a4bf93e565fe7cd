"""What a network of the torch engine makes of images: the features that enter its last convolution.

Images lie in gansynth's axes and units; the network has seen cases as their files have them. Both
are brought back by what the order says of the training cases.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from gansynth.adapter import Mask
from gansynth.errors import UsageFault
from gansynth.last_layer import Entering, Mean, check_fit, mask_of
from gansynth.precision import pick_device
from gansynth.schema import FloatArray, Schema
from gansynth_deepmedic.engine.context import tiles
from gansynth_deepmedic.engine.infer import Predictor
from gansynth_deepmedic.engine.network import Block, cropped
from gansynth_deepmedic.engine.predict import predictor_of
from gansynth_deepmedic.engine.train import Task
from gansynth_deepmedic.files import MISSING, HostCase
from gansynth_deepmedic.insertion import Loaded
from gansynth_deepmedic.order import ORDER, Order
from gansynth_deepmedic.written import stored_shape

T = TypeVar("T", bound=np.generic)
AS_STORED = ((0, 1), (1, 1), (2, 1))
"""Axes of files that lie as gansynth's arrays do."""


def features(
    folder: Path,
    images: Sequence[FloatArray],
    schema: Schema,
    where: Sequence[Mask | None] | None,
    device: str,
) -> tuple[FloatArray, str]:
    """See ``Adapter.features``.

    An image is looked at as a volume of its own: mirrored at its border, in segments of the size
    for inference, turned as most training cases' files lie.

    Raises:
        UsageFault: DeepMedic itself has trained, whose weights are TensorFlow's; or every training
            case was read in units of its own, which the network does not undo.
    """
    order = Order.read(folder / ORDER)
    if order.engine != "torch":
        raise UsageFault(
            f"{folder}: DeepMedic itself has trained there, and its network runs in its own "
            "Python only, expected a training of the torch engine: --set engine=torch"
        )
    task = Task.of(order)
    check_fit(folder, images, schema, channels=task.model.channels, ndim=3)
    units = _units(folder, order, task)
    predictor, done = predictor_of(folder, task, pick_device(device), "fp32")
    way = _way(order)
    rows = []
    for number, image in enumerate(images):
        lying = replace(way, shape=image.shape[1:])
        stored = _stored(lying, image * units[0] + units[1])
        chosen = _stored(lying, mask_of(image, where, number))
        rows.append(_look(predictor, stored, chosen))
    return np.stack(rows), f"DeepMedic (torch) {folder.name} ({done} epochs)"


def _look(predictor: Predictor, image: npt.NDArray[np.float32], chosen: Mask) -> FloatArray:
    """Features (K,) of one image (C, X, Y, Z)."""
    nothing = np.zeros(image.shape[1:], np.int16)
    ready, inner = predictor.ready(Loaded(image, nothing, None, None, "image"))
    inside = np.zeros(ready.labels.shape, np.bool_)
    inside[inner] = chosen
    # Segments overlap where a volume ends. A voxel is the last one's, as of what is predicted.
    owner = np.full(inside.shape, -1)
    for number, start in enumerate(tiles(inside.shape, predictor.geometry)):
        owner[predictor.geometry.predicted(start)] = number
    last = predictor.network.head.blocks[-1]
    assert isinstance(last, Block), "a path consists of blocks"
    mean = Mean()
    with Entering(last[-1]) as entering:
        for number, (start, logits) in enumerate(predictor.segments(ready)):
            at = predictor.geometry.predicted(start)
            found = entering.last[0][number % predictor.batch][None]
            own = inside[at] & (owner[at] == number)
            mean.add(cropped(found, logits.shape[1:]), own[None])
    return mean.value()


# -- as files have it ------------------------------------------------------------------------------


def _way(order: Order) -> HostCase:
    """A case that lies as most training cases do."""
    usual = Counter(case.stored or AS_STORED for case in order.cases).most_common(1)[0][0]
    return replace(order.cases[0], stored=usual)


def _stored(case: HostCase, array: npt.NDArray[T]) -> npt.NDArray[T]:
    """An array (..., D, H, W) in the axes (..., X, Y, Z) of files that lie like a case's."""
    stored = np.empty((*array.shape[:-3], *stored_shape(case)), array.dtype)
    case.view(stored)[...] = array
    return stored


def _units(folder: Path, order: Order, task: Task) -> tuple[FloatArray, FloatArray]:
    """Scale and offset (C, 1, 1, 1) from gansynth's units to the files'.

    Where every case has its own, the network has to normalise: of what comes it takes any.
    """
    normalise = task.cutting.normalise
    found = []
    for channel in range(task.model.channels):
        known = {
            case.units[channel] if case.units else (1.0, 0.0)
            for case in order.cases
            if case.channels[channel] != MISSING
        }
        own = normalise is not None and (normalise.channels is None or normalise.channels[channel])
        if len(known) > 1 and not own:
            raise UsageFault(
                f"{folder}: channel {channel} of its cases was normalised case by case to be read "
                "(--read modality=mr), and the network sees it as files have it, expected one way "
                "for all; read it as stored, or name another host"
            )
        found.append(known.pop() if len(known) == 1 else (1.0, 0.0))
    scale, offset = np.array(found, np.float32).T.reshape(2, -1, 1, 1, 1)
    return scale, offset
