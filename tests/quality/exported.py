"""A source of made-up patients on disk, and a clean folder that holds a file of every kind."""

import gzip
import io
import json
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import h5py
import nibabel as nib
import numpy as np
import safetensors.numpy
from PIL import Image

from gansynth.sharing import forget_times, nifti_bytes
from gansynth.sources.base import SourceRequest

CASES = ("muster_01", "muster_02", "beispiel_01", "beispiel_02")
PEOPLE = r"([a-z]+)_\d+"
SHAPE = (24, 20, 16)


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


def made_up(seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Any:
    """An image of nobody."""
    return np.random.default_rng((99, seed)).normal(100, 20, shape).astype(np.float32)


def picture(seed: int = 0) -> Any:
    return made_up(seed, (24, 20)).clip(0, 255).astype(np.uint8)


def png(seed: int = 0, **more: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture(seed)).save(stream, "PNG", **more)
    return stream.getvalue()


def jpeg(**more: Any) -> bytes:
    stream = io.BytesIO()
    Image.fromarray(picture()).save(stream, "JPEG", **more)
    return stream.getvalue()


def zipped(entries: dict[str, bytes]) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, data in entries.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    return stream.getvalue()


def tarred(entries: dict[str, bytes], **more: Any) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as archive:
        for name, data in entries.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            for key, value in more.items():
                setattr(info, key, value)
            archive.addfile(info, io.BytesIO(data))
    return stream.getvalue()


def write_h5(path: Path, *, attributes: Any = (), texts: Any = (), image: Any = None) -> None:
    with h5py.File(path, "w") as file:
        file["images"] = made_up(shape=(2, 24, 20)) if image is None else image
        file.attrs["channels"] = ["T1"]
        for key, value in dict(attributes).items():
            file.attrs[key] = value
        for key, value in dict(texts).items():
            file[key] = value


def volume(array: Any = None, *, affine: Any = None, **fields: Any) -> bytes:
    """A NIfTI file, gzipped without name and time; fields of its header as asked for."""
    array = made_up() if array is None else array
    image = nib.Nifti1Image(array, np.diag([1.0, 1.0, 2.0, 1.0]) if affine is None else affine)
    for key, value in fields.items():
        if key == "extension":
            image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", value))
        else:
            image.header[key] = value
    return gzip.compress(image.to_bytes(), mtime=0)


def write_clean(folder: Path) -> Path:
    """A folder that may be handed on, as far as can be seen: a file of every kind."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True)
    for number in range(4):
        name = f"sample-{number:04d}"
        data = nifti_bytes(made_up(number), np.diag([1.0, 1.0, 2.0, 1.0]))
        (folder / f"{name}_0000.nii.gz").write_bytes(data)
        (folder / f"{name}_seg.nii.gz").write_bytes(volume(np.ones(SHAPE, np.uint8)))
        told = {"sample": number, "seed": 7, "run": "0123456789ab", "edits": ["shift"]}
        (folder / f"{name}.json").write_text(json.dumps({**told, "case": name}))
        (folder / "images" / f"{name}.png").write_bytes(png(number))
    (folder / "photograph.jpg").write_bytes(jpeg())
    Image.fromarray(picture()).save(folder / "photograph.tif")
    Image.fromarray(picture()).save(folder / "photograph.bmp")
    (folder / "manifest.csv").write_text("case,file,seed\nsample-0000,images/sample-0000.png,7\n")
    (folder / "data.yaml").write_text("train: images/synth\nnc: 1\nnames:\n  0: lesion\n")
    (folder / "readme.txt").write_text("Drawn by a network. See https://example.org/a/b, and 1/2.")
    write_h5(folder / "samples.h5")
    np.savez(folder / "samples.npz", image=made_up(), names=np.array(["T1", "FLAIR"]))
    np.save(folder / "samples.npy", made_up())
    (folder / "samples.tar").write_bytes(tarred({"a/sample.txt": b"nothing"}))
    (folder / "samples.zip").write_bytes(zipped({"a/sample.txt": b"nothing"}))
    weights = {"layer": np.zeros(3, np.float32)}
    safetensors.numpy.save_file(weights, folder / "weights.safetensors", {"by": "gansynth"})
    forget_times(folder)
    return folder
