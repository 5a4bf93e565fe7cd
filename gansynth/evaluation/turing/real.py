"""Real images as the run's training crops are cut, and what is black and white in them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

import numpy as np

from gansynth.core.lineage import matches
from gansynth.core.schema import FloatArray, content_hash
from gansynth.core.source import CaseSource
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.evaluation.turing.choosing import Chosen
from gansynth.runtime.errors import DataFault, UsageFault

if TYPE_CHECKING:
    from gansynth.core.lineage import Lineage
    from gansynth.sampling.run import Run

PERCENTILES = (0.5, 99.5)
"""What is black and white of images: nearly all of their intensities lie between."""
VOXELS = 50_000
"""Most voxels of a channel of an image whose intensities are looked at."""
TRIES = 50
"""Places that are drawn in a case for one that training would learn from and nobody has yet."""
Windows = tuple[tuple[float, float], ...]


class Cutter:
    """Cuts real images in a run's space, no two alike.

    Args:
        rng: draws places.
    """

    def __init__(self, source: CaseSource, run: Run, rng: np.random.Generator) -> None:
        self._crops = CaseBatches(CaseCache(source), run.space)
        self._accepts, self._cuts = run.generator.accepts, run.space.cuts
        self._rng = rng
        self._seen: set[str] = set()

    def __call__(self, case_id: str) -> FloatArray:
        """An image of a case: float32 (C, D, H, W) or (C, H, W).

        Raises:
            UsageFault: every place of the case has been cut already.
            DataFault: NaN, or what the source finds wrong.
        """
        fallback: FloatArray | None = None
        for _ in range(TRIES if self._cuts else 1):
            case = self._crops.cut(case_id, self._rng)
            if not np.isfinite(case.image).all():
                raise DataFault(
                    f"case {case_id!r}: holds NaN or infinite voxels, expected finite ones; see "
                    "gansynth check"
                )
            if content_hash(case.image) in self._seen:
                continue
            fallback = case.image
            if self._accepts(case):
                break
        if fallback is None:
            raise UsageFault(
                f"case {case_id!r}: shows nothing that another real image does not show already, "
                "expected different images; leave --per-case out, lower -n, or look at the cases "
                "with gansynth check"
            )
        self._seen.add(content_hash(fallback))
        return fallback


def find_windows(images: Sequence[FloatArray]) -> Windows:
    """Intensities that become black and white in each channel of images (C, ...); never empty."""
    parts = []
    for image in images:
        flat = image.reshape(len(image), -1)
        parts.append(flat[:, :: -(-flat.shape[1] // VOXELS)])
    low, high = np.percentile(np.concatenate(parts, axis=1), PERCENTILES, axis=1)
    ends = zip(low.tolist(), high.tolist(), strict=True)
    return tuple((float(a), float(max(b, a + 1e-6))) for a, b in ends)


def seen_by_run(source: CaseSource, chosen: Sequence[Chosen], lineage: Lineage) -> Collection[str]:
    """Which of the chosen cases the run was fitted on, or what came before it."""
    cases = [source.record(case) for case in {one.case for one in chosen}]
    found = [matches(one, cases, source.name) for one in lineage.everyone()]
    return {case for one in found for case, match in one.items() if match.what != "subject"}
