"""Writes the data sets of the plans in ``gains/``; hippocampus is the user's own.

    python gain_data.py phantoms -o FOLDER      # simulated gliomas, as BraTS's
    python gain_data.py phantoms --subjects 90 --seed 1 -o FOLDER    # others, and more
    python gain_data.py figshare -o FOLDER      # slices with boxes, in blocks
    python gain_data.py lgg --source FOLDER -o FOLDER    # slices, made smaller
    python gain_data.py lgg --form nnunet --source FOLDER -o FOLDER    # for nnU-Net
    python gain_data.py lgg --form yolo --edge 128 --source FOLDER -o FOLDER

``gansynth benchmark PLAN`` is then told where they are, as the line printed says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SUBJECTS, SPACING_MM = 44, 4.0


def main() -> None:
    """Write one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["phantoms", "figshare", "lgg"])
    parser.add_argument("--subjects", type=int, default=SUBJECTS, help="phantoms")
    parser.add_argument("--seed", type=int, default=0, help="of the phantoms")
    parser.add_argument("--source", type=Path, help="lgg: folder with images/ and labels/")
    parser.add_argument("--edge", type=int, default=64, help="lgg: pixels of an edge")
    parser.add_argument("--form", choices=["pictures", "nnunet", "yolo"], default="pictures")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    if args.which == "phantoms":
        from gansynth.testing.phantoms import PhantomOptions, write_phantoms

        options = PhantomOptions(spacing_mm=SPACING_MM, channels=("FLAIR", "T1c"))
        write_phantoms("brats", args.out, args.subjects, args.seed, options)
        print(f"gansynth benchmark PLAN --data nifti:{args.out}")
        return
    if args.which == "lgg":
        if args.source is None:
            raise SystemExit("lgg: expected --source FOLDER with images/ and labels/; see gains/")
        if not any((args.source / "images").glob("*.png")):
            raise SystemExit(f"lgg: --source {args.source}: has no images/*.png; see gains/")
        import lgg_data

        write = {
            "pictures": lgg_data.pictures,
            "nnunet": lgg_data.nnunet_raw,
            "yolo": lgg_data.yolo,
        }
        print(write[args.form](args.source, args.out, args.edge))
        return
    from yolo_data import figshare

    found = figshare(args.out)
    if found is None:
        raise SystemExit("figshare: not at hand; see docs/yolo.md for where it comes from")
    print(f"gansynth benchmark benchmarks/gains/figshare.yaml --data yolo:{found.file}")


if __name__ == "__main__":
    main()
