"""Writes the data sets of the plans in ``gains/``; hippocampus is the user's own.

    python benchmarks/gain_data.py phantoms -o FOLDER      # simulated gliomas, as BraTS's
    python benchmarks/gain_data.py phantoms --subjects 90 --seed 1 -o FOLDER    # others, and more
    python benchmarks/gain_data.py figshare -o FOLDER      # slices with boxes, in blocks

``gansynth benchmark PLAN --data`` is then told where they are, as the line printed says.
"""

from __future__ import annotations

import argparse
from pathlib import Path

SUBJECTS, SPACING_MM = 44, 4.0


def main() -> None:
    """Write one of them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("which", choices=["phantoms", "figshare"])
    parser.add_argument("--subjects", type=int, default=SUBJECTS, help="phantoms")
    parser.add_argument("--seed", type=int, default=0, help="of the phantoms")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    if args.which == "phantoms":
        from gansynth.testing.phantoms import PhantomOptions, write_gliomas

        options = PhantomOptions(spacing_mm=SPACING_MM, channels=("FLAIR", "T1c"))
        write_gliomas(args.out, args.subjects, seed=args.seed, options=options)
        print(f"gansynth benchmark PLAN --data nifti:{args.out}")
        return
    from yolo_data import figshare

    found = figshare(args.out)
    if found is None:
        raise SystemExit("figshare: not at hand; see docs/yolo.md for where it comes from")
    print(f"gansynth benchmark benchmarks/gains/figshare.yaml --data yolo:{found.file}")


if __name__ == "__main__":
    main()
