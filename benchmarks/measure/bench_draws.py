"""One draw from a bank beside nnU-Net's own augmentation of one sample; bytes written to disk.

Samples are 4/3 of the patch, as nnU-Net's rotations need, float16 images and int16 labels with the
voxels of each label that nnU-Net asks for, in a bank in shared memory. The augmentation is that of
nnU-Net's default trainer (``get_training_transforms``, rotation by 30 degrees, deep supervision).
Both run in this process, in turn. Then a bank is filled in shared memory and on a disk, and draws
are logged, with an eye on what the kernel says this process has sent to storage.

    python benchmarks/measure/bench_draws.py [--seconds 20] [--patches 64 96 128] [--disk FOLDER]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, write

BANK = 8
CLASSES = (1, 2, 3)
SHARED_MEMORY = Path("/dev/shm")
LOGGED = 1000


def sample_of(rng: np.random.Generator, channels: int, edge: int) -> Any:
    """A sample with the size and the labels of a real one; what is in it costs the same."""
    from gansynth.core.schema import Sample

    image = rng.standard_normal((channels, edge, edge, edge), dtype=np.float32)
    coarse = rng.integers(0, len(CLASSES) + 1, (8, 8, 8))
    index = np.arange(edge) * 8 // edge
    labels = coarse[np.ix_(index, index, index)].astype(np.int16)
    return Sample(image, labels, None, {"case": "phantom"})


def fill(folder: Path, channels: int, edge: int) -> int:
    """A frozen bank of ``BANK`` samples with nnU-Net's extras; the bytes of its files."""
    from gansynth.bank.reader import BankSpec, BankWriter
    from gansynth.core.lineage import Lineage
    from gansynth.core.schema import Schema
    from gansynth_nnunet.mixed import encode

    labels = {"background": 0, **{f"class {k}": k for k in CLASSES}}
    schema = Schema(tuple(f"c{k}" for k in range(channels)), labels, (1.0, 1.0, 1.0))
    spec = BankSpec(schema, Lineage("toy", "0", ()), "run", "f", True, BANK)
    rng = np.random.default_rng(0)
    with BankWriter.create(folder, spec) as writer:
        for _ in range(BANK):
            sample = sample_of(rng, channels, edge)
            writer.publish(sample, encode(sample.labels, CLASSES))
        writer.finish()
    return sum(path.stat().st_size for path in folder.iterdir())


def augmentation(patch: Sequence[int]) -> tuple[Any, tuple[int, ...]]:
    """nnU-Net's own transforms for this patch, and the size of what goes into them."""
    from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    angle = (-30 / 360 * 2 * np.pi, 30 / 360 * 2 * np.pi)
    initial = get_patch_size(tuple(patch), angle, angle, angle, (0.85, 1.25))
    transforms = nnUNetTrainer.get_training_transforms(
        tuple(patch),
        angle,
        [[scale] * 3 for scale in (1.0, 0.5, 0.25, 0.125)],
        (0, 1, 2),
        False,
        use_mask_for_norm=[False],
        foreground_labels=CLASSES,
    )
    return transforms, tuple(int(n) for n in initial)


def middle_of(image: np.ndarray, labels: np.ndarray, size: Sequence[int]) -> tuple[Any, Any]:
    """The middle of a sample, which goes into the transforms: (C, ...) and (1, ...)."""
    import torch
    from acvl_utils.cropping_and_padding.bounding_boxes import crop_and_pad_nd

    box = []
    for length, edge in zip(labels.shape, size, strict=True):
        corner = (length - edge) // 2
        box.append([corner, corner + edge])
    cut = torch.from_numpy(crop_and_pad_nd(image, box, 0)).float()
    return cut, torch.from_numpy(crop_and_pad_nd(labels[None], box, -1))


def compare(folder: Path, channels: int, patch: int, seconds: float) -> dict[str, Any]:
    """Milliseconds of one draw and of one augmentation, in turn."""
    from gansynth.bank.reader import BankReader
    from gansynth_nnunet.mixed import decode

    reader, rng = BankReader(folder), np.random.default_rng(0)
    transforms, initial = augmentation((patch,) * 3)
    draws, augmentations = [], []
    end = time.monotonic() + seconds
    while time.monotonic() < end or len(draws) < 8:
        for _ in range(4):
            began = time.perf_counter()
            sample = reader.draw(rng)
            decode(sample.extras, CLASSES)
            draws.append(time.perf_counter() - began)
        image, labels = middle_of(sample.image, sample.labels, initial)
        began = time.perf_counter()
        transforms(image=image, segmentation=labels)
        augmentations.append(time.perf_counter() - began)
    found = {"draw": draws, "augmentation": augmentations}
    return {
        "patch": patch,
        "sample_shape": [channels, *sample.labels.shape],
        **{f"{k}_ms_median": 1e3 * float(np.median(v)) for k, v in found.items()},
        **{f"{k}_ms_mean": 1e3 * float(np.mean(v)) for k, v in found.items()},
        **{f"{k}s": len(v) for k, v in found.items()},
        "mean_draw_over_mean_augmentation": float(np.mean(draws) / np.mean(augmentations)),
    }


# -- bytes ---------------------------------------------------------------------------------------


def sent_to_storage() -> int | None:
    """Bytes that this process has sent to storage so far, as the kernel counts; None elsewhere."""
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return None
    return next((int(x.split()[1]) for x in lines if x.startswith("write_bytes")), None)


def file_system(folder: Path) -> str:
    """Type of the file system a folder is on, if the kernel tells."""
    try:
        mounts = [line.split()[1:3] for line in Path("/proc/mounts").read_text().splitlines()]
    except OSError:
        return "unknown"
    parents = {str(p) for p in (folder.resolve(), *folder.resolve().parents)}
    return max((m for m in mounts if m[0] in parents), key=lambda m: len(m[0]))[1]


def bytes_per_1000(work: Any, count: int) -> dict[str, Any]:
    """What a piece of work writes, for each 1,000 samples."""
    before = sent_to_storage()
    size = work()
    after = sent_to_storage()
    sent = None if before is None or after is None else round((after - before) * 1000 / count)
    return {"sent_to_storage": sent, "size_of_files": round(size * 1000 / count)}


def log_draws(folder: Path) -> int:
    """Log draws as a host's worker does; bytes of the log."""
    from gansynth.bank.draw_log import DrawLog

    log = DrawLog(folder)
    for index in range(LOGGED):
        log.append("synthetic", f"{index:06d}", f"case_{index % 100:03d}")
    return sum(path.stat().st_size for path in folder.iterdir())


@contextmanager
def scratch(base: Path) -> Iterator[Path]:
    """A folder that goes afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="gansynth-bench-", dir=base))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def written(disk: Path, patch: int) -> dict[str, Any]:
    """Bytes written for each 1,000 samples of four channels."""
    edge = round(4 / 3 * patch)
    places = {"bank in shared memory": SHARED_MEMORY, "bank on disk": disk}
    found = {}
    for name, base in places.items():
        with scratch(base) as folder:
            found[name] = bytes_per_1000(lambda at=folder: fill(at / "bank", 4, edge), BANK)
            found[name]["file_system"] = file_system(folder)
    with scratch(disk) as folder:
        found["draw log on disk"] = bytes_per_1000(lambda: log_draws(folder), LOGGED)
    return found


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=20, help="for each shape")
    parser.add_argument("--patches", type=int, nargs="+", default=[64, 96, 128])
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()))
    args = parser.parse_args(arguments)
    import torch

    torch.set_num_threads(1)  # as in nnU-Net's workers
    results = []
    for patch in args.patches:
        for channels in (1, 4):
            with scratch(SHARED_MEMORY) as folder:
                fill(folder / "bank", channels, round(4 / 3 * patch))
                results.append(compare(folder / "bank", channels, patch, args.seconds))
    document = {"results": results, "bytes_per_1000_samples": written(args.disk, args.patches[0])}
    write("draws", document)
    keys = ("draw_ms_median", "draw_ms_mean", "augmentation_ms_median", "augmentation_ms_mean")
    ratio = "mean_draw_over_mean_augmentation"
    print_table(
        [
            ("patch", "channels", *keys, "means"),
            *((r["patch"], r["sample_shape"][0], *(r[k] for k in keys), r[ratio]) for r in results),
        ]
    )
    for name, found in document["bytes_per_1000_samples"].items():
        print(f"{name}, bytes per 1,000 samples: {found}")


if __name__ == "__main__":
    main()
