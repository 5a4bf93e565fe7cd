"""Random 64³ patches per second: ``h5:`` beside nibabel and nnU-Net's own blosc2 files.

Every side reads image and labels of the same random places in the same volumes, as float32 and
int16, from files in the page cache, in one thread. ``h5`` is ``H5Source.load_part`` (checksums
compared); nibabel is ``nib.load(...).dataobj[...]``, a file per channel, as a user would; blosc2 is
what nnU-Net's data loader does with the files its own writer made. A round reads ``--reads``
patches on each side, sides alternate.

    python benchmarks/scripts/bench_reads.py [--rounds 20] [--reads 8]
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import alternate, print_table, ratio, write

from gansynth.core.schema import Case, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space

CASES = 4


class Made(CaseSource):
    """Smooth noise with a body, and labels of two balls."""

    def __init__(self, edge: int, channels: int) -> None:
        self.request = SourceRequest("made", f"{edge}x{channels}")
        self.edge, self.channels = edge, channels

    @property
    def name(self) -> str:
        return f"made:{self.edge}"

    @property
    def schema(self) -> Schema:
        names = tuple(f"c{i}" for i in range(self.channels))
        return Schema(names, {"background": 0, "one": 1, "two": 2}, (1.0, 1.0, 1.0))

    @property
    def space(self) -> Space:
        return Space("crop", (min(64, self.edge),) * 3, pad_label=0)

    @property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(f"case_{i}" for i in range(CASES))

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return ()

    def load(self, case_id: str) -> Case:
        from scipy.ndimage import gaussian_filter

        rng = np.random.default_rng(int(case_id[-1]))
        noise = rng.standard_normal((self.channels, *[self.edge] * 3)).astype(np.float32)
        image = np.stack([gaussian_filter(channel, 1) for channel in noise])
        grid = np.linspace(-1, 1, self.edge) ** 2
        radius = grid[:, None, None] + grid[:, None] + grid
        image[:, radius > 0.9] = 0
        labels = (radius < 0.3).astype(np.int16) + (radius < 0.1)
        return Case(case_id, case_id, image, labels)


def write_files(source: Made, folder: Path) -> None:
    """Every format's files of every case."""
    import nibabel as nib
    from nnunetv2.training.dataloading.nnunet_dataset import (
        comp_blosc2_params,
        nnUNetDatasetBlosc2,
    )

    from gansynth.data.h5 import write_h5

    write_h5(source, folder / "cases.h5")
    write_h5(source, folder / "half.h5", dtype="float16")
    write_h5(source, folder / "lzf.h5", compression="lzf")
    edge = min(64, source.edge)
    for case in map(source.load, source.train_ids):
        assert case.labels is not None
        for ending in ("nii", "nii.gz"):
            for number, channel in enumerate(case.image):
                nib.save(
                    nib.Nifti1Image(channel, np.eye(4)), folder / f"{case.id}_{number}.{ending}"
                )
            nib.save(nib.Nifti1Image(case.labels, np.eye(4)), folder / f"{case.id}_seg.{ending}")
        blocks, chunks = comp_blosc2_params(case.image.shape, (edge,) * 3, 4)
        labels = case.labels[None]
        b_seg, c_seg = comp_blosc2_params(labels.shape, (edge,) * 3, 2)
        nnUNetDatasetBlosc2.save_case(
            case.image, labels, {}, str(folder / case.id), chunks, blocks, c_seg, b_seg
        )


Box = tuple[slice, ...]
Read = Callable[[str, Box], tuple[Any, Any]]


def readers(source: Made, folder: Path) -> dict[str, Read]:
    """(case, box) -> image, labels; by format."""
    import nibabel as nib
    from nnunetv2.training.dataloading.nnunet_dataset import nnUNetDatasetBlosc2

    from gansynth.data.h5 import H5Source

    def of_h5(name: str) -> Read:
        opened = H5Source(SourceRequest("h5", str(folder / name)))

        def read(case: str, box: Box) -> tuple[Any, Any]:
            part = opened.load_part(case, box)
            return part.image, part.labels

        return read

    def of_nifti(ending: str) -> Read:
        def part(name: str, box: Box) -> Any:
            opened: Any = nib.load(folder / f"{name}.{ending}")
            return np.asarray(opened.dataobj[box])

        def read(case: str, box: Box) -> tuple[Any, Any]:
            image = np.stack([part(f"{case}_{c}", box) for c in range(source.channels)])
            return image, part(f"{case}_seg", box)

        return read

    cases = nnUNetDatasetBlosc2(str(folder), list(source.train_ids))

    def of_blosc2(case: str, box: Box) -> tuple[Any, Any]:
        image, labels, _, _ = cases.load_case(case)
        return np.asarray(image[(slice(None), *box)]), np.asarray(labels[(slice(0, 1), *box)])[0]

    return {
        "h5": of_h5("cases.h5"),
        "h5 float16": of_h5("half.h5"),
        "h5 lzf": of_h5("lzf.h5"),
        "nibabel .nii": of_nifti("nii"),
        "nibabel .nii.gz": of_nifti("nii.gz"),
        "blosc2 (nnU-Net)": of_blosc2,
    }


def measure(edge: int, channels: int, patch: int, rounds: int, reads: int) -> dict[str, Any]:
    """One volume size and number of channels: patches per second of every format."""
    source = Made(edge, channels)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_files(source, folder)
        sides = readers(source, folder)
        check(source, sides, patch)
        rngs = {side: np.random.default_rng(0) for side in sides}
        seconds = alternate(
            {side: lambda s=side: draw(source, sides[s], rngs[s], patch, reads) for side in sides},
            rounds,
        )
    median = {side: float(np.median(s)) for side, s in seconds.items()}
    return {
        "volume": [channels, edge, edge, edge],
        "patch": [patch] * 3,
        "reads_per_second": {side: reads / s for side, s in median.items()},
        "h5_times_faster_than": {
            side: ratio(s, seconds["h5"]) for side, s in seconds.items() if side != "h5"
        },
    }


def boxes(edge: int, patch: int, rng: np.random.Generator) -> Box:
    """A random place."""
    return tuple(slice(int(c), int(c) + patch) for c in rng.integers(0, edge - patch + 1, 3))


def draw(source: Made, read: Read, rng: np.random.Generator, patch: int, reads: int) -> None:
    """Read some patches."""
    for _ in range(reads):
        case = source.train_ids[int(rng.integers(CASES))]
        read(case, boxes(source.edge, patch, rng))


def check(source: Made, sides: dict[str, Read], patch: int) -> None:
    """Every side must give what the case has; float16 nearly."""
    case = source.load(source.train_ids[0])
    box = boxes(source.edge, patch, np.random.default_rng(1))
    for side, read in sides.items():
        image, labels = read(case.id, box)
        close = 2e-3 if "float16" in side else 0.0
        same = np.allclose(image, case.image[(slice(None), *box)], rtol=close, atol=close)
        if not same or not np.array_equal(labels, case.labels[box]):  # type: ignore[index]
            raise SystemExit(f"{side}: reads something else than was written")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="rounds per side")
    parser.add_argument("--reads", type=int, default=8, help="patches a round")
    parser.add_argument("--edges", type=int, nargs="+", default=[128, 160], help="volumes, voxels")
    parser.add_argument("--channels", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--patch", type=int, default=64, help="edge of the patch, voxels")
    parser.add_argument("--no-write", action="store_true", help="print only, for a trial")
    args = parser.parse_args(arguments)
    results = [
        measure(edge, channels, args.patch, args.rounds, args.reads)
        for edge in args.edges
        for channels in args.channels
    ]
    if not args.no_write:
        write("reads", {"cases": CASES, "reads_per_round": args.reads, "results": results})
    sides = list(results[0]["reads_per_second"])
    print_table(
        [
            ("patches per second", *sides),
            *(
                (f"{r['volume']}", *(r["reads_per_second"][side] for side in sides))
                for r in results
            ),
        ]
    )


if __name__ == "__main__":
    main()
