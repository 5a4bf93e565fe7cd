"""Two sites from one: gliomas in FLAIR, and the same kind of slices by a known change of look.

The second site looks like T2: fluid, dark in FLAIR, is bright, and tissue darker, so that no map of
grey values that only rises leads there; tumours are bright at both. It is blurred, and has noise.

    python known_shift.py --source lgg_flair256 -o FOLDER

writes FOLDER/cases (slices of 64 x 64 and masks; names begin with ``flair`` or ``likeT2``) and
FOLDER/scans, slices of the second site without masks, of people who are in neither; those of them
without a tumour are in FOLDER/free, too.
"""

from __future__ import annotations

import argparse
import zlib
from pathlib import Path

import lgg_data
import numpy as np
from scipy.ndimage import gaussian_filter

EDGE = 64
FLAIR, LIKE_T2 = (0, 12, 40, 90, 150, 255), (0, 10, 225, 60, 150, 250)
"""Grey values, and what they are at the second site; straight lines between them. Tissue has 90."""
BLUR, NOISE = 0.6, 6.0
"""Deviations, in pixels and in grey values."""
PEOPLE = {"flair": 30, "likeT2": 32, "scans": 15}


def like_t2(greys: np.ndarray, name: str) -> np.ndarray:
    """Return a slice's greys at the second site; noise depends on the file's name alone."""
    mapped = np.interp(greys, FLAIR, LIKE_T2)
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    grain = NOISE * rng.standard_normal(greys.shape)
    return (gaussian_filter(mapped, BLUR) + grain).round().clip(0, 255).astype(np.uint8)


def main() -> None:
    """Deal the people, in an order that a seed fixes, and write their slices."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--source", type=Path, required=True, help="folder of lgg_flair256")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    patients = list(lgg_data.patients(args.source, EDGE))
    sites = [site for site, count in PEOPLE.items() for _ in range(count)]
    if len(patients) != len(sites):
        raise SystemExit(f"{args.source}: {len(patients)} patients, expected {len(sites)}")
    order = np.random.default_rng(0).permutation(len(patients))
    for place, site in zip(order, sites, strict=True):
        for entry in patients[place][1]:
            image = entry.image if site == "flair" else like_t2(entry.image, entry.name)
            if site == "scans":
                lgg_data.save(args.out / "scans" / entry.name, image)
                if not entry.labels.any():
                    lgg_data.save(args.out / "free" / entry.name, image)
                continue
            name = f"{site}_{entry.name}"
            lgg_data.save(args.out / "cases/images" / name, image)
            lgg_data.save(args.out / "cases/labels" / name, entry.labels)
    print(
        f"cp benchmarks/sites/likeT2/plan.yaml {args.out}; gansynth benchmark {args.out}/plan.yaml"
    )


if __name__ == "__main__":
    main()
