"""Whether samples have the units of real images: 0 to 1 among 0 to 255 trains on grey planes."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.runtime.errors import DataFault

if TYPE_CHECKING:
    from gansynth.core.case_pool import CaseReader

FACTOR = 10
IMAGES = 4  # of each kind that are compared
EDGE = 64  # voxels of the middle that is measured: samples may be crops of what real images show


def values_of(image: Any) -> npt.NDArray[np.float64]:
    """Return median, deviation and range of each channel of an image (C, ...): (C, 3)."""
    middle = [slice(max(0, (n - EDGE) // 2), (n + EDGE) // 2) for n in image.shape[1:]]
    piece = np.asarray(image[(slice(None), *middle)], np.float64)
    return np.array([(np.median(c), c.std(), np.ptp(c)) for c in piece])


class UnitCheck:
    """Compares the first real images of a training with its first samples, once.

    Args:
        where: where the samples come from, for the message.
    """

    def __init__(self, where: Path | None) -> None:
        self._where = where
        self._figures: dict[bool, list[npt.NDArray[Any]]] = {False: [], True: []}
        self._why = ""

    @property
    def over(self) -> bool:
        """Whether enough was measured, and nothing refused."""
        return not self._why and all(len(each) == IMAGES for each in self._figures.values())

    @property
    def medians(self) -> list[npt.NDArray[Any]]:
        """Of real images, then of samples: (C, 3), medians of median, deviation and range."""
        return [np.median(self._figures[synthetic], axis=0) for synthetic in (False, True)]

    def look(self, image: Any, *, synthetic: bool) -> None:
        """Measure an image (C, ...), real or of a sample; DataFault: as ``compare``."""
        figures = self._figures[synthetic]
        if len(figures) < IMAGES:
            figures.append(values_of(image))
            if self.over:
                self.compare()
        elif self._why:
            raise DataFault("units.samples-differ-from-real", self._why)

    def compare(self) -> None:
        """Compare what was measured."""
        real, samples = self.medians
        for number, (here, there) in enumerate(zip(real.tolist(), samples.tolist(), strict=False)):
            if not all(here[1:] + there[1:]):
                continue
            ratios = [b / a for a, b in zip(here[1:], there[1:], strict=True)]
            shift = abs(there[0] - here[0]) / max(here[1], there[1])
            if shift > FACTOR or min(ratios) > FACTOR or max(ratios) * FACTOR < 1:
                self._why = (
                    f"{self._where}: channel {number}: its samples have the median {there[0]:.3g} "
                    f"and deviation {there[1]:.3g}, the real images {here[0]:.3g} and "
                    f"{here[1]:.3g}, expected both within a factor of {FACTOR}. Give real images "
                    "in the units that the generator was fitted on; if its samples are flat, fit "
                    "it longer"
                )
                raise DataFault("units.samples-differ-from-real", self._why)


def compare_with_cases(where: Path, cases: CaseReader, samples: Iterable[Any]) -> None:
    """Compare images (C, ...) of samples with training cases; DataFault: as ``UnitCheck``."""
    units, images = UnitCheck(where), list(samples)
    for image in images:
        units.look(image, synthetic=True)
    ids = cases.source.train_ids[:IMAGES] if images else ()
    for case_id in ids:
        units.look(cases(case_id).image, synthetic=False)
    if ids:
        units.compare()
