"""Grain of lesions that a run draws into real images, beside the real ones that they came from.

Power inside lesions by band of frequency, contrast to the tissue around them (both in deviations of
the image around the lesion), and the discriminators' losses. The spectrum is that of the lesion
less its mean, tapered at its edge; real and new lesions have like shapes, so that the taper weighs
on both alike.

    gansynth fit cgan3d-lesion --data ... -o RUN
    python lesion_grain.py RUN [RUN ...] [--samples 120] [--sheet FOLDER] [--name NAME]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, write
from lesion_data import Shown, around, whole

from gansynth.report.figures import read_metrics

EDITS = ("rotate", "scale", "elastic")
BANDS = (0.03, 0.125, 0.25, 0.375, 0.5, 0.71)
"""Edges of the bands, cycles a voxel; the last band lies in the corners of the spectrum."""
LEAST = 30
"""Voxels of the smallest lesion that has a spectrum."""
CHANCE = 20
"""Lines of metrics.csv (20 steps each) at the end of a fit whose losses are averaged."""
EDGE = 32
"""Edge of the window around a lesion in a sheet, voxels."""


def power_inside(one: Shown) -> Any:
    """Power (bands,) of an image's first channel inside its lesion, a voxel."""
    from scipy.ndimage import distance_transform_edt

    taper = np.clip(distance_transform_edt(np.pad(one.lesion, 1)) / 2, 0, 1)
    image = np.pad(one.image[0] / one.image[0].std(where=~one.lesion), 1, mode="edge")
    mean = (image * taper).sum() / taper.sum()
    power = np.abs(np.fft.fftn((image - mean) * taper, norm="ortho")) ** 2
    axes = np.meshgrid(*[np.fft.fftfreq(n) for n in image.shape], indexing="ij")
    band = np.digitize(np.sqrt(sum(a**2 for a in axes)), BANDS)
    inside = [power[band == i].mean() for i in range(1, len(BANDS))]
    return np.array(inside) / (taper**2).sum()


def spectrum(shown: Sequence[Shown]) -> Any:
    """Geometric mean of the power in lesions of at least ``LEAST`` voxels, by band.

    A bright donor in a dark image would outweigh all others in an arithmetic one.
    """
    rows = [power_inside(one) for one in shown if one.lesion.sum() >= LEAST]
    return np.exp(np.mean(np.log(rows), axis=0))


def contrast(shown: Sequence[Shown]) -> float:
    """Median of the mean intensity in lesions less that 2 to 4 voxels around them."""
    from scipy.ndimage import distance_transform_edt

    gaps = []
    for one in shown:
        away = distance_transform_edt(~one.lesion)
        ring = (away > 2) & (away <= 4) & (one.labels == 0)
        gap = one.image[0][one.lesion].mean() - one.image[0][ring].mean()
        gaps.append(gap / one.image[0].std(where=~one.lesion))
    return float(np.nanmedian(gaps))


def drawn(run: Path, count: int, device: str) -> tuple[list[Shown], list[Shown]]:
    """New lesions of a run, and those of their donors in the donors' own images."""
    from gansynth.core.sample_request import SampleRequest
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.run_source import open_source
    from gansynth.sampling.sampler import Sampler

    opened = load_run(run, device)
    source = open_source(opened.request)
    sampler = Sampler(opened, source, SampleRequest(0, EDITS, keep_flawed=True))
    own = {case: whole(source, opened.space, [case]) for case in source.train_ids}
    shown, donors = [], []
    for index in range(count):
        sample, lesion = sampler.draw_raw(index, 1)[0], sampler.sampler.draw(index).lesion
        if sample.labels is not None and lesion is not None and (lesion > 0).any():
            shown.append(Shown(sample.image, sample.labels, lesion > 0, str(index)))
            donors += own[sample.provenance["lesions"]["donor"]]
    return shown, donors


def settings(run: Path) -> dict[str, Any]:
    """Steps, and options that are not the generator's default."""
    from gansynth.core.registry import installed

    manifest = json.loads((run / "manifest.json").read_text(encoding="utf-8"))
    default = installed().generator(manifest["generator"]).Options().model_dump(mode="json")
    changed = {k: v for k, v in manifest["options"].items() if v != default.get(k)}
    return {"generator": manifest["generator"], "steps": manifest["steps"], **changed}


def losses(run: Path) -> dict[str, float]:
    """The last losses of a run's discriminators."""
    path = run / "metrics.csv"
    columns = read_metrics(path) if path.exists() else {}
    kept = {name: v for name, v in columns.items() if name.startswith("discriminator/")}
    return {name: float(np.mean(values[-CHANCE:])) for name, values in kept.items()}


def sheet(path: Path, shown: Sequence[Shown], real: Sequence[Shown]) -> None:
    """Write windows around lesions: new ones in the upper three rows, real ones below."""
    from PIL import Image

    def windows(side: Sequence[Shown]) -> Any:
        big = [one for one in side if one.lesion.sum() >= LEAST]
        chosen = [big[i] for i in np.linspace(0, len(big) - 1, 36).astype(int)]
        tiles = [around(one, EDGE).image[0] for one in chosen]
        tiles = [np.pad(np.clip(t / np.quantile(t, 0.99), 0, 1), 1) for t in tiles]
        return np.concatenate([np.concatenate(tiles[r : r + 12], 1) for r in range(0, 36, 12)])

    grid = np.concatenate([windows(shown), np.ones((4, 12 * (EDGE + 2))), windows(real)])
    pixels = np.repeat(np.repeat((255 * grid).astype(np.uint8), 4, 0), 4, 1)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def main() -> None:
    """Measure runs."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--sheet", type=Path, help="folder of a picture for each run (2D)")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--name", help="of the file in measure/results; else none is written")
    args = parser.parse_args()
    found: dict[str, Any] = {}
    for run in args.runs:
        shown, real = drawn(run, args.samples, args.device)
        ratio = spectrum(shown) / spectrum(real)
        gap = contrast(shown) / contrast(real)
        found[run.name] = {
            "power_over_real": [round(float(v), 3) for v in ratio],
            "contrast_over_real": round(gap, 3),
            "settings": settings(run),
            "losses": {k: round(v, 4) for k, v in losses(run).items()},
        }
        if args.sheet:
            sheet(args.sheet / f"{run.name}.png", shown, real)
    bands = [f"{a:g}-{b:g}" for a, b in pairwise(BANDS)]
    lines = [
        (name, *one["power_over_real"], one["contrast_over_real"], one["losses"])
        for name, one in found.items()
    ]
    print_table([("run", *bands, "contrast", "losses"), *lines])
    if args.name:
        write(args.name, {"bands_cycles_per_voxel": BANDS, "samples": args.samples, "runs": found})


if __name__ == "__main__":
    main()
