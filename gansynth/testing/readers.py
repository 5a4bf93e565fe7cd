"""``check_reader``: conformance checks of a format of volumes, on files of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from gansynth.core.conformance import CheckFailed, CheckSkipped, ConformanceReport
from gansynth.core.volumes import (
    FOLDER,
    VolumeReader,
    ending_of,
    read_volume,
    read_volume_header,
    reader_of,
)
from gansynth.runtime.errors import GansynthError

FILES = 16  # most files that are read
AXES = (3, 4)
CHECKS = ("same_voxels_twice", "refuses_half_a_file", "writes_label_maps")


def check_reader(cls: type[VolumeReader], where: Path) -> ConformanceReport:
    """Read files of a registered format as commands do, spoil a copy, and write a label map.

    Args:
        cls: what the plugin registers.
        where: a file, or a folder of such files; at most 16 are read.
    """
    report = ConformanceReport(cls.__name__)
    trial = _ReaderTrial(cls, where)
    if report.run("files are its own", trial.files_are_its_own) and report.run(
        "files are read as announced", trial.files_are_read
    ):
        for name in CHECKS:
            report.run(name.replace("_", " "), getattr(trial, name))
    return report


class _ReaderTrial:
    def __init__(self, cls: type[VolumeReader], where: Path) -> None:
        self.cls, self.files = cls, [where]
        if where.is_dir() and FOLDER not in cls.endings:
            found = sorted([path for path in where.rglob("*") if path.is_file()])
            self.files = [path for path in found if ending_of(path.name) in cls.endings][:FILES]
        self.where = where

    def files_are_its_own(self) -> None:
        odd = [e for e in self.cls.endings if e != FOLDER and (e != e.lower() or e[:1] != ".")]
        if odd or not self.cls.endings:
            raise CheckFailed(f"endings are {self.cls.endings}, expected some as .vox, lower case")
        if not self.files:
            raise CheckFailed(f"{self.where}: holds no file that ends in {self.cls.endings}")
        reader = type(reader_of(self.files[0]))
        if reader is not self.cls:
            raise CheckFailed(
                f"{self.files[0]}: is read by {reader.__name__}, which has its ending already"
            )

    def files_are_read(self) -> None:
        for path in self.files:
            read_volume_header(path)
            read_volume(path, ndim=AXES)

    def same_voxels_twice(self) -> None:
        one, two = (read_volume(self.files[0], ndim=AXES) for _ in range(2))
        if not np.array_equal(one.array, two.array) or not np.array_equal(one.affine, two.affine):
            raise CheckFailed(
                f"{self.files[0]}: has other voxels, or another place, when read again"
            )

    def refuses_half_a_file(self) -> None:
        """What ends too early is a fault, and not fewer voxels, or zeros."""
        path = self.files[0]
        with TemporaryDirectory() as folder:
            if path.is_dir():
                copy = Path(shutil.copytree(path, Path(folder, path.name)))
                parts = [part for part in copy.rglob("*") if part.is_file()]
            else:
                short = path.name.removesuffix(path.name[-len(ending_of(path.name) or "") :])
                others = [path.with_name(f"{short}{ending}") for ending in self.cls.beside]
                own = [path, *[other for other in others if other.is_file()]]
                parts = [Path(shutil.copy(part, folder)) for part in own]
                copy = parts[0]
            largest = max(parts, key=lambda part: part.stat().st_size)
            largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
            try:
                read_volume(copy, ndim=AXES)
            except GansynthError:
                return
        raise CheckFailed(f"{path}: half of its bytes are read without an error")

    def writes_label_maps(self) -> None:
        if not self.cls.writes():
            raise CheckSkipped("has no write: predictions are .nii.gz")
        labels = np.arange(60, dtype=np.uint8).reshape(3, 4, 5)
        affine = read_volume_header(self.files[0]).affine
        with TemporaryDirectory() as folder:
            path = Path(folder, f"labels{self.cls.endings[0]}")
            self.cls().write(path, labels, affine)
            back = read_volume(path)
        if not np.array_equal(back.array, labels) or not np.allclose(
            back.affine, affine, atol=1e-3
        ):
            raise CheckFailed("a label map read back is not the one written, or lies elsewhere")
