"""What benchmarks with boxes share: two data sets of slices, nobody in two parts of one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

DATA = Path(__file__).parents[2] / "../shared/data"
FIGSHARE = DATA / "figshare_brain_tumor_axial_yolo"
GAP = 10
"""Slices left out between parts of the figshare set, which is in patient order."""
RADIUS_MM = (5.0, 12.0)
"""Of the phantoms' lesions: three pixels and more in slices of 64 x 64."""
SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


@dataclass(frozen=True)
class DataSet:
    """A YOLO data set and how it is read.

    Attributes:
        file: ``data.yaml``.
        options: of the command line, that say whom a slice is of.
    """

    file: Path
    options: tuple[str, ...]

    @property
    def data(self) -> tuple[str, ...]:
        """``--data`` and the rest."""
        return ("--data", f"yolo:{self.file}", *self.options)


def phantoms(folder: Path, subjects: int = 20, spacing_mm: float = 1.5, seed: int = 0) -> DataSet:
    """Simulated brains with several small metastases, and many slices without."""
    from metastases import MetastasisOptions, write_metastases

    from gansynth.testing.phantoms import PhantomOptions

    file = folder / "data.yaml"
    if not file.exists():
        body = PhantomOptions(spacing_mm=spacing_mm, channels=("T1c",))
        write_metastases(folder, subjects, seed, MetastasisOptions(body, radius_mm=RADIUS_MM))
    options = ("--read", r"volumes=(sub-\d+)_z(\d+)")
    return DataSet(file, options)


def figshare(folder: Path) -> DataSet | None:
    """535 slices with one tumour each; None where they are not at hand.

    The slices of each of the three classes are numbered in patient order. Of each class blocks of
    numbers are training, validation and test, ``GAP`` slices between them left out. Patients are
    not known: ten neighbours count as one.
    """
    if not (FIGSHARE / "images").is_dir():
        return None
    names = (FIGSHARE / "classes.txt").read_text("utf-8").split()
    of_class: dict[int, list[str]] = {}
    for label in sorted((FIGSHARE / "labels").glob("*.txt")):
        number = int(label.read_text("utf-8").split()[0])
        of_class.setdefault(number, []).append(label.stem)
    for cases in of_class.values():
        for split, stems in blocks(cases).items():
            for stem in stems:
                for part, end in (("images", "jpg"), ("labels", "txt")):
                    to = folder / part / split
                    to.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(FIGSHARE / part / f"{stem}.{end}", to / f"{stem}.{end}")
    document = {split: f"images/{split}" for split in SHARES}
    content = {**document, "names": dict(enumerate(names)), "nc": len(names), "channels": 1}
    (folder / "data.yaml").write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return DataSet(folder / "data.yaml", ("--subjects", r"(\d{3})\d$"))


def blocks(cases: Sequence[str], gap: int = GAP) -> dict[str, list[str]]:
    """Contiguous blocks of cases for training, validation, test; neighbours by tens stay together.

    Args:
        cases: names that are numbers, sorted.
        gap: numbers left out between two blocks, at least.
    """
    first, last = int(cases[0]), int(cases[-1])
    edges, at = {}, first
    for split, share in SHARES.items():
        end = at + round(share * (last + 1 - first))
        edges[split] = (at, last + 1 if split == "test" else end // 10 * 10)
        at = edges[split][1] + gap
    return {
        split: [case for case in cases if low <= int(case) < high]
        for split, (low, high) in edges.items()
    }
