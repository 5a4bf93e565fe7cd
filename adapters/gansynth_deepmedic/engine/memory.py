"""Cases in memory as if they were files, for a training loop of one's own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault
from gansynth_deepmedic.files import HostCase
from gansynth_deepmedic.insertion import OUTSIDE
from gansynth_deepmedic.subepochs import Read

Arrays = tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[Any] | None]
"""Image (C, D, H, W), labels (D, H, W), and region of interest (D, H, W) or None.

Labels may be -1 outside of the region, as sources give them; without a region that is what it is.
"""
_AS_THEY_ARE = ((2, 1), (1, 1), (0, 1))
"""``HostCase.stored`` of files whose axes are z, y, x."""


def in_memory(
    cases: Mapping[str, Arrays], units: Sequence[tuple[float, float]] | None = None
) -> tuple[list[HostCase], Read]:
    """Cases by names that stand for files, and what reads these.

    Raises:
        DataFault: there are none, or shapes that do not fit.
    """
    files: dict[str, npt.NDArray[Any]] = {}
    hosts = []
    for case, (image, labels, roi) in cases.items():
        _check(case, image, labels, roi)
        if (labels == OUTSIDE).any():
            inside = labels != OUTSIDE
            roi = inside.astype(np.int16) if roi is None else roi
            labels = np.where(inside, labels, 0)
        own = {f"{case}/{number}": channel for number, channel in enumerate(image)}
        files |= {**own, f"{case}/labels": labels}
        if roi is not None:
            files[f"{case}/roi"] = roi
        scales = tuple(units) if units is not None else ((1.0, 0.0),) * len(image)
        if len(scales) != len(image):
            raise DataFault(f"{case}: {len(image)} channel(s), expected units for each of them")
        hosts.append(
            HostCase(
                case,
                tuple(own),
                f"{case}/labels",
                None if roi is None else f"{case}/roi",
                tuple(labels.shape),
                _AS_THEY_ARE,
                scales,
            )
        )
    if len({len(host.channels) for host in hosts}) != 1:
        raise DataFault("no cases, or cases of different numbers of channels; expected the same")
    return hosts, files.__getitem__


def _check(
    case: str,
    image: npt.NDArray[Any],
    labels: npt.NDArray[Any],
    roi: npt.NDArray[Any] | None,
) -> None:
    shape = image.shape[1:]
    others = [labels.shape] if roi is None else [labels.shape, roi.shape]
    if len(shape) != 3 or any(other != shape for other in others):
        raise DataFault(
            f"{case}: image has shape {image.shape}, labels and region of interest {others}; "
            "expected (C, D, H, W) and (D, H, W)"
        )
    if not np.isfinite(image).all():
        raise DataFault(f"{case}: image holds values that are not finite; replace them")
