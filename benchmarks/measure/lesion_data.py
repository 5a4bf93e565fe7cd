"""Data sets for benchmarks of lesions: phantoms, and four subjects of BRATS 2015."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.schema import FloatArray, LabelArray
from gansynth.core.source import WrappedSource

BRATS = Path(__file__).resolve().parents[2] / "../shared/data/brats2015_deepmedic"
SUBJECTS = {
    "brats_2013_pat0005_1": "train",
    "brats_2013_pat0006_1": "train",
    "brats_2013_pat0003_1": "val",
    "brats_2013_pat0004_1": "val",
}
WHOLE, WHOLE_BRATS = "56,64,56", "72,88,72"
"""Crops of generators hold nearly all of a brain, at 3 and at 2 mm: there is room for lesions."""
LABELS = "necrosis:1,oedema:2,non-enhancing:3,enhancing:4"


JITTER = 4
"""Voxels by which a real lesion lies off the middle of its crop, at most."""


@dataclass(frozen=True)
class DataSet:
    """What is fitted on.

    Attributes:
        name: short.
        options: ``--data`` and how it is read, as typed.
        note: what it is.
    """

    name: str
    options: tuple[str, ...]
    note: str


class Swapped(WrappedSource):
    """A source whose held-out cases are the training ones, and the other way round."""

    @property
    def train_ids(self) -> tuple[str, ...]:
        """The source's held-out cases."""
        return self.base.held_out_ids

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        """The source's training cases."""
        return self.base.train_ids


def data_sets(names: Sequence[str], home: Path, *, subjects: int = 24) -> Iterable[DataSet]:
    """Those of the data sets asked for that are at hand.

    Args:
        names: ``phantoms``, ``brats15``.
        home: where phantoms and lists are written.
        subjects: number of phantoms; half of them are held out.
    """
    for name in names:
        if name == "phantoms":
            yield phantoms(home, subjects)
        elif not BRATS.is_dir():
            print(f"{name}: skipped, ../shared/data/brats2015_deepmedic is not there")
        else:
            yield brats15(home)


def phantoms(home: Path, subjects: int) -> DataSet:
    """Simulated brains with gliomas, 3 mm."""
    from gansynth.testing.phantoms import PhantomOptions, write_phantoms

    raw = home / "phantoms" / "nnUNet_raw" / "Dataset999_Phantom"
    options = PhantomOptions(spacing_mm=3.0, channels=("T1c", "FLAIR"))
    if not (raw / "dataset.json").exists():
        write_phantoms("nnunet", raw, subjects, options=options)
    source = ("--data", "nnunet-raw:999", "--root", str(raw.parents[1]))
    read = ("--read", f"size={WHOLE}", "--read", "folds=2")
    return DataSet("phantoms", source + read, f"{subjects} phantoms, 3 mm, half of them held out")


def brats15(home: Path) -> DataSet:
    """Two subjects to train on and two held out, FLAIR and T1c, 2 mm."""
    table = brats_table(home, SUBJECTS)
    read = ("allow_absolute=yes", f"labels={LABELS}", "spacing=2", f"size={WHOLE_BRATS}")
    words = tuple(word for pair in read for word in ("--read", pair))
    source = ("--data", f"nifti:{table}", *words)
    return DataSet("brats15", source, "BRATS 2015, 2 subjects to train on, 2 held out, 2 mm")


def brats_table(home: Path, splits: Mapping[str, str]) -> Path:
    """Write which subjects of BRATS 2015 are trained on, and where their images are."""
    home.mkdir(parents=True, exist_ok=True)
    table = home / "brats15.csv"
    with open(table, "w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "split", "FLAIR", "T1c", "label"])
        for case, split in splits.items():
            folder = (BRATS / case).resolve()
            images = [folder / f"{name}_subtrMeanDivStd.nii.gz" for name in ("Flair", "T1c")]
            rows.writerow([case, split, *images, folder / "OTMultiClass.nii.gz"])
    return table


@dataclass(frozen=True)
class Shown:
    """One image with a lesion that is looked at.

    Attributes:
        image: float32 (C, D, H, W).
        labels: int16 (D, H, W), all it shows.
        lesion: bool (D, H, W), the voxels that are looked at: new ones, or all foreground.
        who: the person, of a real one; of a sample its number.
    """

    image: FloatArray
    labels: LabelArray
    lesion: Any
    who: str


def whole(source: Any, space: Any, ids: Sequence[str]) -> list[Shown]:
    """Real cases with a lesion, in the generator's space."""
    cases = [space.to_generator(source.load(case)) for case in ids]
    return [
        Shown(case.image, case.labels, case.labels > 0, case.subject)
        for case in cases
        if case.labels is not None and (case.labels > 0).any()
    ]


def around(one: Shown, size: int, rng: np.random.Generator | None = None) -> Shown:
    """A crop around the middle of a lesion, or a little off it."""
    from gansynth.core.geometry import centroid

    middle = np.array(centroid(one.lesion))
    if rng is not None:
        middle += rng.integers(-JITTER, JITTER + 1, len(middle))
    most = np.maximum(np.array(one.lesion.shape) - size, 0)
    starts = np.clip(np.rint(middle - size / 2).astype(int), 0, most)
    cut = tuple(slice(a, a + size) for a in starts.tolist())
    return Shown(one.image[(slice(None), *cut)], one.labels[cut], one.lesion[cut], one.who)


def crops(cases: Sequence[Shown], size: int, count: int) -> list[Shown]:
    """Crops around real lesions, by turns of all cases."""
    rng = np.random.default_rng(0)
    return [around(cases[index % len(cases)], size, rng) for index in range(count)]
