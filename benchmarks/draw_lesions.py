"""The picture of lesions in real images in the docs: one condition a row, one way to draw a column.

    python benchmarks/bench_lesion.py --data phantoms --steps 1200 -o FOLDER     # fits the runs
    python benchmarks/draw_lesions.py FOLDER

Phantoms, not patients. Every column is asked for the same lesions in the same places: the
background as it is, then what copy-paste, the coarse insertion, the refinement into an empty hole,
and both together make of it; last, the outlines of the new lesion.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
from bench_lesion import EDITS, LESIONS

from gansynth.asking import Asking
from gansynth.integrity import write_bytes_atomic
from gansynth.own_source import open_source
from gansynth.png import outlined, png_bytes, scaled
from gansynth.run import load_run
from gansynth.sampling import SampleDrawer
from gansynth.schema import Condition, FloatArray, Sample

OUT = Path(__file__).parents[1] / "docs" / "images" / "lesions.png"
ARMS = ("copypaste", "coarse", "refine", "both")
SHOWN, LOOKED_AT = 3, 12
"""Rows, and conditions that are looked at for them: those with the largest new lesions."""
EDGE, GAP = 150, 6
"""Pixels of a panel, about, and white ones between panels."""
AROUND = 14
"""Voxels shown on each side of the middle of a lesion."""

Picture = npt.NDArray[np.uint8]


def drawn(folder: Path, arm: str, numbers: range) -> tuple[list[Condition], list[Sample]]:
    """The conditions of a run and what it makes of them."""
    run = load_run(folder / f"run-phantoms-{arm}-0", "cpu")
    source = open_source(run.request)
    drawer = SampleDrawer(run, source, EDITS, 0, judged=False, asking=Asking(lesions=LESIONS))
    conditions = [drawer.sampler.draw(number) for number in numbers]
    return conditions, drawer.draw_raw(numbers.start, len(numbers))


def panel(image: FloatArray, condition: Condition, *, lines: bool) -> Picture:
    """One channel in the slice and the square where the new lesion is largest."""
    assert condition.lesion is not None
    assert condition.background is not None
    plane = int((condition.lesion > 0).sum(axis=(1, 2)).argmax())
    middle = [int(axis.mean()) for axis in np.nonzero(condition.lesion[plane])]
    sides = tuple(
        slice(start, start + 2 * AROUND)
        for start in (
            int(np.clip(at - AROUND, 0, length - 2 * AROUND))
            for at, length in zip(middle, condition.lesion.shape[1:], strict=True)
        )
    )
    low, high = np.percentile(condition.background[-1], (1, 99.8))
    grey = scaled(image[-1][plane][sides][None], [(float(low), float(high))], 8)[0][0]
    labels = condition.lesion[plane][sides] if lines else np.zeros(grey.shape, np.int16)
    return np.asarray(outlined(grey, labels, (1, 2, 3), edge=EDGE), np.uint8)


def main(folder: Path) -> None:
    """Draw the picture."""
    found = {arm: drawn(folder, arm, range(LOOKED_AT)) for arm in ARMS}
    conditions = found["copypaste"][0]
    sizes = [0 if c.lesion is None else int((c.lesion > 0).sum()) for c in conditions]
    rows = []
    for number in np.argsort(sizes)[::-1][:SHOWN].tolist():
        condition = conditions[number]
        for arm in ARMS:  # what is compared was asked for alike
            assert np.array_equal(found[arm][0][number].lesion, condition.lesion)
        images = [condition.background, *(found[arm][1][number].image for arm in ARMS)]
        panels = [panel(image, condition, lines=False) for image in images]
        panels.append(panel(images[-1], condition, lines=True))
        rows.append(joined(panels, axis=1))
    write_bytes_atomic(OUT, png_bytes(joined(rows, axis=0)))


def joined(pictures: list[Picture], axis: int) -> Picture:
    """Pictures side by side, or one below the other, with white between them."""
    shape = list(pictures[0].shape)
    shape[axis] = GAP
    white = np.full(shape, 255, np.uint8)
    parts = [part for one in pictures for part in (one, white)][:-1]
    return np.asarray(np.concatenate(parts, axis=axis), np.uint8)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
