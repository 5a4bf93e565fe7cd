"""Do new lesions lie on air, in scans of whole heads that nnU-Net has prepared?

The 77 gliomas of ``gains/lgg_nnunet.yaml``: their slices have a frame of zeros, which nnU-Net
labels outside, and noisy air within it. Conditions of ``copypaste`` and ``parametric`` for each of
the five folds, in the training cases and in their pool's lesion-free slices (``gain_unlabelled``).
Air is found apart from the product: the darkest tenth of the range of the slice without a lesion,
smoothed. Printed: share of lesions' pixels on air, and of lesions of which more than a tenth is,
of real ones and of new ones. ``--as`` names the state of the code; others in the result stay.

    python benchmarks/scripts/bench_lesion_air.py --root FOLDER/nnunet --free FOLDER/free --as NAME
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from bench_tissue import SAMPLERS, conditions_of, untrained
from common import known_states, print_table, write
from scipy.ndimage import gaussian_filter

from gansynth.conditions.unlabelled import open_unlabelled
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, FloatArray, LabelArray
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.sampling.run_source import open_source

NAME, FOLDS = "lesion_air", 5
DARK, SMOOTH, SHARE = 0.1, 0.5, 0.1
"""Share of a slice's range below which it is air; deviation of the smoothing, in pixels; share of
a lesion on air from which on it counts."""


def on_air(image: FloatArray, labels: LabelArray, lesion: np.ndarray) -> float:
    """Share of a lesion's pixels (H, W) on air, by an image (C, H, W) without it."""
    inside = labels != OUTSIDE
    smooth = gaussian_filter(image[0], SMOOTH)
    low, high = np.percentile(smooth[inside], (0.5, 99))
    return float((smooth < low + DARK * (high - low))[lesion].mean())


def summary(shares: Sequence[float]) -> dict[str, float]:
    """What is printed of lesions' shares on air."""
    found = np.array(shares)
    return {
        "lesions": len(found),
        "pixels on air": float(found.mean()),
        "lesions on air": float((found > SHARE).mean()),
    }


def real(source: CaseSource) -> list[float]:
    """Shares of the training lesions."""
    shares = []
    for case_id in source.train_ids:
        case = source.load(case_id)
        assert case.labels is not None
        for number, labels in enumerate(case.labels):
            if (labels > 0).any():
                shares.append(on_air(case.image[:, number], labels, labels > 0))
    return shares


def new(name: str, source: CaseSource, free: Path | None, samples: int) -> list[float]:
    """Shares of new lesions, in training cases or in scans."""
    asked = () if free is None else ({"kind": "nifti", "where": str(free)},)
    request = SampleRequest(unlabelled=asked)
    scans = open_unlabelled(request, source, source.schema.foreground)
    conditions = conditions_of(untrained(name, source), source, scans)
    shares = []
    for index in range(samples):
        condition = conditions.draw(index)
        lesion = condition.required("lesion") > 0
        if lesion.any():
            background, labels = map(condition.required, ("background", "labels"))
            shares.append(on_air(background, labels, lesion))
    return shares


def main() -> None:
    """Measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--root", required=True, help="folder above nnUNet_raw")
    parser.add_argument("--free", type=Path, required=True, help="lesion-free slices")
    parser.add_argument("--samples", type=int, default=60, help="of each fold")
    parser.add_argument("--as", dest="state", required=True)
    args = parser.parse_args()
    states = known_states(NAME)
    found: dict[str, list[float]] = {}
    for fold in range(FOLDS):
        request = SourceRequest(
            "nnunet",
            "077",
            fold=str(fold),
            configuration="2d",
            plans="smallPlans",
            root=args.root,
        )
        source = open_source(request)
        found.setdefault("real", []).extend(real(source))
        for name in SAMPLERS:
            for place, free in (("own slices", None), ("others' slices", args.free)):
                shares = new(name, source, free, args.samples)
                found.setdefault(f"{name}, {place}", []).extend(shares)
    states[args.state] = {row: summary(shares) for row, shares in found.items()}
    write(NAME, {"states": states})
    rows = [
        (state, row, *numbers.values())
        for state, kinds in states.items()
        for row, numbers in kinds.items()
    ]
    print_table([("state", "lesions", "number", "pixels on air", "lesions on air"), *rows])


if __name__ == "__main__":
    main()
