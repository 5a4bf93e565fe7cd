"""A source of made-up patients on disk, and a clean folder that holds a file of every kind."""

import gzip
import io
import json
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from PIL import Image

from gansynth.core.source import SourceRequest
from gansynth.data.case_writer import stored_bytes

CASES = ("muster_01", "muster_02", "beispiel_01", "beispiel_02")
PEOPLE = r"([a-z]+)_\d+"
SHAPE = (24, 20, 16)
PLAIN = np.diag([1.0, 1.0, 2.0, 1.0])


def write_source(folder: Path) -> SourceRequest:
    """Four scans of two people, each where it lay in its scanner; whole numbers, as scanners do."""
    for number, case in enumerate(CASES):
        rng = np.random.default_rng(number)
        image = rng.normal(100, 10, SHAPE).round().clip(0).astype(np.int16)
        labels = np.zeros(SHAPE, np.uint8)
        labels[3:8, 3:7, 2:6] = 1
        affine = np.diag([2.0, 1.0, 1.0, 1.0])
        affine[:3, 3] = rng.uniform(-90, 90, 3)
        turn = rng.uniform(0.02, 0.1)
        affine[:2, :2] @= [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
        for part, array in (("images", image), ("labels", labels)):
            path = folder / part / f"{case}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            nib.save(nib.Nifti1Image(array, affine), path)
            os.utime(path, ns=(0, (1_600_000_000 + 1000 * number) * 10**9 + number))
    return SourceRequest("nifti", str(folder), fold="all", subjects=PEOPLE)


def made_up(shape: tuple[int, ...] = SHAPE) -> Any:
    return np.random.default_rng(99).normal(100, 20, shape).astype(np.float32)


def png(**more: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(made_up((24, 20)).clip(0, 255).astype(np.uint8)).save(stream, "PNG", **more)
    return stream.getvalue()


def volume(*, affine: Any = PLAIN, mtime: int = 0, **fields: Any) -> bytes:
    """A NIfTI file, gzipped without name; fields of its header as asked for."""
    image = nib.Nifti1Image(made_up(), affine)
    for key, value in fields.items():
        if key == "extension":
            image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", value))
        else:
            image.header[key] = value
    return gzip.compress(image.to_bytes(), mtime=mtime)


def write_clean(folder: Path) -> Path:
    """A folder that may be handed on, as far as can be seen: a file of every kind."""
    (folder / "images").mkdir(parents=True)
    for name in ("sample-0000", "sample-0001"):
        image = stored_bytes(made_up(), PLAIN, synthetic=True)
        (folder / f"{name}_0000.nii.gz").write_bytes(image)
        (folder / f"{name}_seg.nii.gz").write_bytes(volume())
        told = {"sample": 0, "seed": 7, "run": "0123456789ab", "edits": ["shift"], "case": name}
        (folder / f"{name}.json").write_text(json.dumps(told))
        (folder / "images" / f"{name}.png").write_bytes(png())
    (folder / "manifest.csv").write_text("case,file,seed\nsample-0000,images/sample-0000.png,7\n")
    (folder / "data.yaml").write_text("train: images/synth\nnc: 1\nnames:\n  0: lesion\n")
    (folder / "readme.txt").write_text("Drawn by a network. See https://example.org/a/b, and 1/2.")
    return folder
