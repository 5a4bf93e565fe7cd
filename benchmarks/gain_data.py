"""Writes the data sets of the plans in ``gains/``; hippocampus is the user's own.

    python benchmarks/gain_data.py phantoms -o FOLDER      # simulated gliomas, as BraTS's
    python benchmarks/gain_data.py phantoms --subjects 90 --seed 1 -o FOLDER    # others, and more
    python benchmarks/gain_data.py figshare -o FOLDER      # slices with boxes, in blocks
    python benchmarks/gain_data.py lgg --source FOLDER -o FOLDER    # slices, made smaller

``gansynth benchmark PLAN --data`` is then told where they are, as the line printed says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SUBJECTS, SPACING_MM = 44, 4.0
AIR, MEAN = 0.1, 90
"""lgg: share of the largest value below which a pixel is air; mean grey value of the others."""


def main() -> None:
    """Write one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["phantoms", "figshare", "lgg"])
    parser.add_argument("--subjects", type=int, default=SUBJECTS, help="phantoms")
    parser.add_argument("--seed", type=int, default=0, help="of the phantoms")
    parser.add_argument("--source", type=Path, help="lgg: folder with images/ and labels/")
    parser.add_argument("--edge", type=int, default=64, help="lgg: pixels of an edge")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    if args.which == "phantoms":
        from gansynth.testing.phantoms import PhantomOptions, write_gliomas

        options = PhantomOptions(spacing_mm=SPACING_MM, channels=("FLAIR", "T1c"))
        write_gliomas(args.out, args.subjects, seed=args.seed, options=options)
        print(f"gansynth benchmark PLAN --data nifti:{args.out}")
        return
    if args.which == "lgg":
        if args.source is None:
            raise SystemExit("lgg: expected --source FOLDER with images/ and labels/; see gains/")
        shrink(args.source, args.out, args.edge)
        print(f"gansynth benchmark benchmarks/gains/lgg.yaml --data pictures:{args.out}")
        return
    from yolo_data import figshare

    found = figshare(args.out)
    if found is None:
        raise SystemExit("figshare: not at hand; see docs/yolo.md for where it comes from")
    print(f"gansynth benchmark benchmarks/gains/figshare.yaml --data yolo:{found.file}")


def shrink(source: Path, out: Path, edge: int) -> None:
    """Write pictures of ``edge`` pixels, all patients' heads of one mean grey value.

    A pixel is the mean of those it covers; its label is the most frequent one. The benchmark then
    trains and evaluates on one grid, and reads a sixteenth of the bytes.
    """
    import numpy as np
    from PIL import Image

    def blocks(path: Path) -> np.ndarray:
        with Image.open(path) as picture:
            whole = np.asarray(picture, np.float32)
        return whole.reshape(edge, len(whole) // edge, edge, -1).mean((1, 3))

    def write(kind: str, name: str, pixels: np.ndarray) -> None:
        Image.fromarray(pixels.astype(np.uint8)).save(out / kind / name)

    patients: dict[str, dict[str, np.ndarray]] = {}
    for path in sorted((source / "images").glob("*.png")):
        patients.setdefault(path.stem.rpartition("_")[0], {})[path.name] = blocks(path)
    for kind in ("images", "labels"):
        (out / kind).mkdir(parents=True, exist_ok=True)
    for pictures in patients.values():
        tissue = np.stack(list(pictures.values()))
        tissue = tissue[tissue > AIR * tissue.max()]
        for name, pixels in pictures.items():
            write("images", name, (MEAN * pixels / tissue.mean()).round().clip(0, 255))
            write("labels", name, blocks(source / "labels" / name) >= 0.5)


if __name__ == "__main__":
    main()
