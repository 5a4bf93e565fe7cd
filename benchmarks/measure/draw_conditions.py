"""The pictures of condition edits in the docs: label outlines on phantoms, before and after.

    python benchmarks/measure/draw_conditions.py [NAME ...]

Phantoms, not patients. The same pictures to the byte at every call, in ``docs/images/conditions``.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.conditions import BUILT_IN
from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.schema import OUTSIDE, Case, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth.report.png import outlined, png_bytes, scaled
from gansynth.runtime.files import write_bytes_atomic
from gansynth.testing.phantoms import LABELS, PhantomOptions, load_atlas, make_phantom

FOLDER = Path(__file__).parents[2] / "docs" / "images" / "conditions"
SPACING, COUNT = 3.0, 6
TISSUES = {"grey": 4, "white": 5}
EDGE = 220
"""Pixels of a panel, about."""
GAP = 8
"""White pixels between panels."""
TRIED = 24
"""Conditions of which the first is shown that is changed enough to be seen."""
CHANGED = 0.35
"""Enough: so many of a slice's foreground voxels have another label."""


SEEN = 12
"""Pixels of a core, or thirds of a tumour's, that can be seen."""


@dataclass(frozen=True)
class Picture:
    """What is shown of an edit.

    Attributes:
        asked: the edit, as text.
        first: edits that have been applied before what is shown as *before*.
        tissues: a case with a map of grey and white matter can be borrowed from.
        changed: see ``CHANGED``.
    """

    asked: str
    first: tuple[str, ...] = ()
    tissues: bool = False
    changed: float = CHANGED


TWO = "transplant:own=keep,where=anywhere"
"""Phantoms have one lesion; with another's there are two."""
PICTURES = {
    "identity": Picture("identity", changed=0),
    "elastic": Picture("elastic:amplitude_mm=5"),
    "flip": Picture("flip:axes=-1,probability=1"),
    "rotate": Picture("rotate:max_deg=60"),
    "scale": Picture("scale:low=0.6,high=1.6"),
    "shift": Picture("shift:max_mm=20"),
    "enlarge": Picture("enlarge"),
    "shrink": Picture("shrink"),
    "clip": Picture("clip:margin_mm=15", changed=0.1),
    "transplant": Picture("transplant"),
    "interpolate": Picture("interpolate:low=0.5,high=0.6"),
    "size": Picture("size:like=small"),
    "blob": Picture("blob"),
}


class Phantoms(CaseSource):
    """A few phantoms in memory.

    Args:
        tissues: label maps may hold grey and white matter; the last case's does, and no tumour.
    """

    def __init__(self, tissues: bool = False) -> None:
        self.request = SourceRequest("phantoms", str(COUNT))
        self._cases = {f"phantom_{i}": phantom(i) for i in range(COUNT)}
        self._tissues = TISSUES if tissues else {}
        if tissues:
            last = f"phantom_{COUNT - 1}"
            atlas = load_atlas(SPACING)
            matter = np.where(atlas.tissue[1:].max(axis=0) > 0.5, atlas.tissue[1:].argmax(0) + 4, 0)
            brain = atlas.tissue.sum(axis=0) > 0.5
            image = np.where(brain, atlas.tissue[2] + 0.6 * atlas.tissue[1], 0)[None]
            labels = np.where(brain, matter, OUTSIDE).astype(np.int16)
            self._cases[last] = Case(last, last, image.astype(np.float32), labels)

    @property
    def name(self) -> str:
        """``phantoms:6``."""
        return f"phantoms:{COUNT}"

    @property
    def schema(self) -> Schema:
        """FLAIR; the label values of phantoms, and -1 outside of the brain."""
        labels = {**LABELS, **self._tissues}
        return Schema(("FLAIR",), labels, (SPACING,) * 3, has_outside=True, outside_fill=(0.0,))

    @property
    def space(self) -> Space:
        """Whole volumes."""
        return Space("native")

    @property
    def train_ids(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(self._cases)

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """None."""
        return ()

    def load(self, case_id: str) -> Case:
        """A phantom."""
        return self._cases[case_id]


@lru_cache
def phantom(index: int) -> Case:
    """One phantom, 0 and ``OUTSIDE`` beyond its brain."""
    made = make_phantom(index, options=PhantomOptions(spacing_mm=SPACING, channels=("FLAIR",)))
    labels = np.where(made.image[0] > 0, made.labels, np.int16(OUTSIDE))
    return Case(f"phantom_{index}", f"phantom_{index}", made.image.astype(np.float32), labels)


@dataclass(frozen=True)
class Drawn:
    """A case before and after an edit.

    Attributes:
        case: the case at hand; its labels are those *before*.
        after: int16 (D, H, W).
        donor: the case that something was borrowed from, if any was.
        cut: the slice that shows most.
        changed: share of foreground voxels there that have another label.
    """

    case: Case
    after: npt.NDArray[np.int16]
    donor: Case | None
    cut: int
    changed: float


def draw(picture: Picture) -> Drawn:
    """The first condition of an edit that is changed enough, or the one changed most."""
    source = Phantoms(picture.tissues)
    edits = build_edits((*picture.first, picture.asked))
    sampler = ConditionSampler(source, source.space, edits, seed=0)
    before = ConditionSampler(source, source.space, build_edits(picture.first), seed=0)
    found = []
    for index in range(TRIED):
        one = drawn(sampler, before, index, len(picture.first))
        if one is not None and one.changed >= picture.changed:
            return one
        found += [] if one is None else [one]
    return max(found, key=lambda one: one.changed)


def drawn(
    sampler: ConditionSampler, earlier: ConditionSampler, index: int, before: int
) -> Drawn | None:
    """One condition; None if no slice shows the tumours' cores in both panels.

    Args:
        sampler: draws it.
        earlier: draws it without the edit that is shown.
        index: its number.
        before: edits that are not shown; each has added a tumour.
    """
    condition = sampler.draw(index)
    told = condition.provenance
    first = earlier.draw(index).labels
    assert first is not None
    assert condition.labels is not None, "conditions are drawn of labelled cases"
    both = [np.isin(labels, list(LABELS.values())[1:]) for labels in (first, condition.labels)]
    cores = [(first >= LABELS["core"]) & both[0], (condition.labels >= LABELS["core"]) & both[1]]
    areas = [core.sum(axis=(1, 2)).astype(float) for core in cores]
    usable = areas[0] * areas[1] * (pieces(both[0]) > before)
    usable[np.minimum(*areas) < SEEN] = 0
    if usable.max() == 0:
        return None
    cut = int(usable.argmax())
    shown = (both[0] | both[1])[cut]
    changed = (first != condition.labels)[cut].sum() / max(1, shown.sum())
    donor = told["edits"][before]["params"].get("donor") if len(told["edits"]) > before else None
    case = replace(sampler.cases(told["case"]), labels=first)
    other = None if donor is None else sampler.cases(donor)
    return Drawn(case, condition.labels, other, cut, float(changed))


def pieces(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.intp]:
    """How many connected pieces each slice shows enough of, (D,)."""
    from scipy.ndimage import label

    numbered = label(mask, np.ones((3, 3, 3)))[0]
    return np.array([(np.bincount(plane.ravel())[1:] >= 3 * SEEN).sum() for plane in numbered])


def panel(case: Case, labels: npt.NDArray[np.int16], cut: int, schema: Schema) -> Any:
    """One slice with outlines, the front of the head on top: uint8 (H, W, 3)."""
    inside = case.image[0][case.image[0] > 0]
    windows = [tuple(np.percentile(inside, (1, 99.5)))]
    grey = scaled(case.image[:, cut, ::-1], windows, 8)[0][0]
    return outlined(grey, labels[cut, ::-1], schema.foreground, edge=EDGE)


def picture_of(found: Drawn, schema: Schema) -> Any:
    """What is borrowed, if anything is; before; after: uint8 (H, W, 3)."""
    assert found.case.labels is not None, "phantoms are labelled"
    panels = [
        panel(found.case, found.case.labels, found.cut, schema),
        panel(found.case, found.after, found.cut, schema),
    ]
    if found.donor is not None and found.donor.labels is not None:
        most = int((found.donor.labels > 0).sum(axis=(1, 2)).argmax())
        panels.insert(0, panel(found.donor, found.donor.labels, most, schema))
    gap = np.full((panels[0].shape[0], GAP, 3), 255, np.uint8)
    row = [part for one in panels for part in (one, gap)][:-1]
    return np.concatenate(row, axis=1)


def main(names: list[str]) -> None:
    """Draw the pictures asked for, or all."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name in names or [name for name in PICTURES if name in BUILT_IN]:
        picture = PICTURES[name]
        found = draw(picture)
        pixels = picture_of(found, Phantoms(picture.tissues).schema)
        size = len(data := png_bytes(pixels))
        write_bytes_atomic(FOLDER / f"{name}.png", data)
        print(f"{name}.png: {size / 1000:.0f} kB, {found.changed:.0%} changed, {picture.asked}")


if __name__ == "__main__":
    main(sys.argv[1:])
