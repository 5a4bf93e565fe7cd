"""How near prints of one image are to each other, disguised, and how near those of two people.

Each case of a data set is compared with every other person's, and with itself in disguise: what a
copy may have gone through before it is called something else. The thresholds ``ALIKE`` and
``AGREED`` of ``gansynth.core`` lie between both; the table says which disguises are recognised by
either, among all cases of the set. Of slices, those of one person beside each other are counted
apart: by them no threshold could be set. Pairs of "different people" above a threshold are listed:
of breast ultrasound these are pictures published twice.

LGG volumes are compared without their skulls, too, as BraTS is published.

``crowds``: all pictures of a set, at three sizes, compared as the guard does, each with those that
have most words in common. The more images, the further the largest value of two people goes.

    python benchmarks/scripts/bench_guard.py [--data ../shared/data] [--disguised 32]

``--brats FOLDER`` adds subjects of BraTS from elsewhere, such as the six of DeepMedic's examples.
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import numpy.typing as npt
from common import print_table, write
from PIL import Image
from scipy.ndimage import (
    binary_closing,
    binary_erosion,
    binary_fill_holes,
    gaussian_filter,
    label,
    rotate,
    zoom,
)

from gansynth.core.body_mask import otsu
from gansynth.core.fingerprint import ALIKE, CELLS, closeness, prints_of, unpacked
from gansynth.core.landmarks import (
    AGREED,
    Landmarks,
    agreement,
    candidate_scores,
    candidates,
    read_landmarks,
    turned,
)

DATA = Path(__file__).parents[2] / "../shared/data"
Array = npt.NDArray[Any]
Disguise = Callable[[Array, np.random.Generator], Array]
SETS = {
    "hippocampus": ("msd_task04_hippocampus/imagesTr/*.nii.gz", r"(.*)"),
    "lgg volumes": ("lgg_flair3d128/images/*.nii.gz", r"(.*)"),
    "lgg volumes, stripped": ("lgg_flair3d128/images/*.nii.gz", r"(.*)"),
    "brats FLAIR": ("brats2015_deepmedic/**/Flair_*.nii.gz", r"(.*)"),
    "brats T1c": ("brats2015_deepmedic/**/T1c_*.nii.gz", r"(.*)"),
    "breast ultrasound": ("busi256/images/*.png", r"(.*)_[a-z]+\d+$"),
    "lgg slices": ("lgg_flair256/images/*.png", r"(.*)_\d+$"),
    "head CT slices": ("phe_ct256/images/*.png", r"(.*)_\d+$"),
    "photographs": ("fuseg128/images/*.png", r"(.*)"),
}
"""Files, and what of a file's name is the person."""
CROWDS = ("breast ultrasound", "lgg slices", "head CT slices", "photographs")
LARGE = 1 << 22
"""Voxels."""
MOST = 160  # files of a data set, evenly spaced
MARGIN, TOP = 1.2, 20  # of a threshold over different people's; so many of theirs are kept
RECOGNISED = dict(AGREED)
AGREED.update({2: 2.5, 3: 3.0})  # below it, scores are only upper bounds


def _ramp(image: Array) -> Array:
    return np.linspace(-1, 1, image.shape[0]).reshape(-1, *[1] * (image.ndim - 1))


def _cut(image: Array, voxels: int) -> Array:
    return image[(slice(voxels, -voxels),) * image.ndim]


def _inner(image: Array, share: float) -> Array:
    """The middle of an image, so much of each axis."""
    edges = [(round(n * (1 - share) / 2), n) for n in image.shape]
    return image[tuple(slice(edge, n - edge) for edge, n in edges)]


def _equalised(image: Array) -> Array:
    """Each value's share of the image's values that are smaller."""
    _, place, counts = np.unique(image, return_inverse=True, return_counts=True)
    shares = (np.cumsum(counts) - counts) / image.size
    return shares[place].reshape(image.shape)


def stripped(image: Array) -> Array:
    """A head (x, y, z) without its skull: Otsu's head, filled, and 6 voxels off its rim."""
    head = binary_closing(image > 0.6 * otsu(image, 128), iterations=2)
    parts, count = label(binary_fill_holes(head))
    if count > 1:
        head = parts == np.argmax(np.bincount(parts.ravel())[1:]) + 1
    planes = [binary_fill_holes(head[..., z]) for z in range(head.shape[2])]
    inside = binary_erosion(np.stack(planes, -1), np.ones((3, 3, 1)), iterations=6)
    return np.where(inside, image, 0)


def _span(image: Array) -> float:
    return float(np.ptp(image))


DISGUISES: dict[str, Disguise] = {
    "int16, rounded": lambda x, _: np.rint(x).astype(np.int16),
    "int16, over its whole range": lambda x, _: np.rint(
        (x - x.min()) / _span(x) * 65535 - 32768
    ).astype(np.int16),
    "x 0.37 + 12": lambda x, _: x * 0.37 + 12,
    "8 bits": lambda x, _: np.rint((x - x.min()) / _span(x) * 255).astype(np.uint8),
    "one slice off each side": lambda x, _: _cut(x, 1),
    "one slice off one side": lambda x, _: x[1:],
    "two slices off each side": lambda x, _: _cut(x, 2),
    "padded by 4": lambda x, _: np.pad(x, 4, constant_values=x.min()),
    "one axis flipped": lambda x, _: x[::-1],
    "turned by 90 degrees": lambda x, _: np.rot90(x),
    "axes in another order": lambda x, _: x.T,
    "resampled to 95 %": lambda x, _: zoom(x, 0.95, order=1),
    "resampled to 104 %": lambda x, _: zoom(x, 1.04, order=1),
    "resampled to 80 %": lambda x, _: zoom(x, 0.8, order=1),
    "noise of 1 % of its range": lambda x, rng: x + rng.normal(0, 0.01 * _span(x), x.shape),
    "noise of 5 % of its range": lambda x, rng: x + rng.normal(0, 0.05 * _span(x), x.shape),
    "bias field of 20 %": lambda x, _: x * (1 + 0.2 * _ramp(x)),
    "cut at percentiles 1 and 99": lambda x, _: np.clip(x, *np.percentile(x, (1, 99))),
    "gamma of 0.8": lambda x, _: ((x - x.min()) / _span(x)) ** 0.8,
    "gamma of 1.8": lambda x, _: ((x - x.min()) / _span(x)) ** 1.8,
    "smoothed by 0.7 voxels": lambda x, _: gaussian_filter(x, 0.7),
    "turned by 3 degrees": lambda x, _: rotate(x, 3, reshape=False, order=1, mode="nearest"),
    "inverted": lambda x, _: -x,
    "cropped by 10 % of each axis": lambda x, _: _inner(x, 0.9),
    "10 % of each axis cut off one side": lambda x, _: x[
        tuple(slice(n // 10, None) for n in x.shape)
    ],
    "cropped to 80 % of each axis": lambda x, _: _inner(x, 0.8),
    "resampled to 125 %": lambda x, _: zoom(x, 1.25, order=1),
    "a narrow window (percentiles 20 and 80)": lambda x, _: np.clip(x, *np.percentile(x, (20, 80))),
    "equalised": lambda x, _: _equalised(x),
    "8 grey levels": lambda x, _: np.floor((x - x.min()) / _span(x) * 7.99),
    "the middle third of one axis": lambda x, _: x[..., x.shape[-1] // 3 : -(x.shape[-1] // 3)],
    "40 to 70 % of one axis, flipped": lambda x, _: x[
        ::-1, ..., x.shape[-1] * 2 // 5 : x.shape[-1] * 7 // 10
    ],
    "one half": lambda x, _: x[:, : x.shape[1] // 2],
    "the middle half of each axis": lambda x, _: _inner(x, 0.5),
    "resampled to 50 % (1 mm to 2 mm)": lambda x, _: zoom(x, 0.5, order=1),
    "turned by 10 degrees": lambda x, _: rotate(x, 10, reshape=False, order=1, mode="nearest"),
    "rolled by 3 voxels": lambda x, _: np.roll(x, 3, tuple(range(x.ndim))),
    "inverted, one half": lambda x, _: -x[:, : x.shape[1] // 2],
    "flipped, one half": lambda x, _: x[::-1, : x.shape[1] // 2],
    "resampled to 80 %, one half": lambda x, _: zoom(x, 0.8, order=1)[:, : x.shape[1] * 2 // 5],
}
"""What is done to an image (D, H, W) or (H, W), float32."""


Read = tuple[npt.NDArray[np.float32], tuple[float, ...]]
Known = tuple[npt.NDArray[np.float32], Landmarks]


def read(file: Path, strip: bool) -> Read:
    """A volume (x, y, z), of large ones every other voxel along each axis, or a picture (H, W).

    Also the spacing of its voxels.
    """
    if file.suffix == ".png":
        return np.asarray(Image.open(file).convert("L"), np.float32), (1.0, 1.0)
    image = nib.load(file)
    volume, spacing = np.asarray(image.dataobj, np.float32), image.header.get_zooms()
    volume = volume[::2, ::2, ::2] if volume.size > LARGE else volume
    return (stripped(volume) if strip else volume), spacing


def known(image: Array, spacing: tuple[float, ...]) -> Known | None:
    """The fingerprint of a whole image, and its landmarks; None without landmarks."""
    prints = prints_of(np.asarray(image, np.float32)[None], spacing)
    if len(prints) < 2 or not prints[1]:
        return None
    whole = (
        unpacked(prints[0]) if prints[0] else np.zeros(CELLS[image.ndim] ** image.ndim, np.float32)
    )
    return whole, read_landmarks(prints[1])


def agreements(prints: Sequence[Known], ndim: int) -> Array:
    """Landmarks that agree (N, N) of each pair, candidates or not; 0 below the diagonal."""
    agreed = np.zeros((len(prints), len(prints)))
    for column, (_, other) in enumerate(prints):
        turns = turned(other, ndim)
        for row in range(column):
            agreed[row, column] = agreement(prints[row][1], other, turns, ndim)
    return agreed


def measure(files: Sequence[Path], pattern: str, disguised: int, strip: bool) -> dict[str, Any]:
    """Closeness of different people's images, and of disguised ones to themselves."""
    prints, kept, seconds = [], [], 0.0
    for file in files:
        image, spacing = read(file, strip)
        began = time.process_time()
        found = known(image, spacing)
        seconds += time.process_time() - began
        if found is not None:
            prints.append(found)
            kept.append(file)
    vectors = np.stack([vector for vector, _ in prints])
    ndim = image.ndim
    began = time.process_time()
    close = closeness(vectors, vectors, ndim)
    comparing = time.process_time() - began
    began = time.process_time()
    agreed = agreements(prints, ndim)
    agreeing = time.process_time() - began
    stems = [str(file.parent / file.name.split(".")[0]) for file in kept]
    people = np.array([re.fullmatch(pattern, stem)[1] for stem in stems])
    upper = np.triu(np.ones(close.shape, bool), 1)
    same = people[:, None] == people[None]
    apart, own = upper & ~same, upper & same
    side = np.unique(people, return_inverse=True)[1] % 2  # every other person
    halves = [np.logical_and.outer(side == k, side == k) for k in (0, 1)]
    alarms = np.argwhere(apart & ((close >= ALIKE[ndim]) | (agreed >= RECOGNISED[ndim])))
    row: dict[str, Any] = {
        "cases": len(prints),
        "without_a_print": len(files) - len(prints),
        "people": len(set(people.tolist())),
        "pairs": int(apart.sum()),
        "thresholds": [ALIKE[ndim], RECOGNISED[ndim]],
        "different_people": _quantiles(close[apart]),
        "different_people_landmarks": _quantiles(agreed[apart]),
        "halves": [_largest(agreed[apart & half]) for half in halves],
        "alarms": len(alarms),
        "alarms_of": [sorted(Path(stems[k]).name for k in pair) for pair in alarms],
        "cpu_seconds_of_prints": round(seconds, 2),
        "cpu_seconds_of_comparing": round(comparing, 2),
        "cpu_seconds_of_comparing_landmarks": round(agreeing, 2),
    }
    if own.any():
        row["one_person"] = _quantiles(close[own])
        row["one_person_landmarks"] = _quantiles(agreed[own])
    chosen = _spaced(len(kept), disguised)
    images = [read(kept[n], strip) for n in chosen]
    row["disguised_are_of_half"] = side[chosen].tolist()
    row["disguises"] = _disguises(images, prints, chosen, ndim)
    return row


def crowd(files: Sequence[Path], pattern: str, edge: int | None) -> dict[str, Any]:
    """Landmarks that agree of two people's pictures, among all of a set; ``edge``: their pixels."""
    prints, people = list[Landmarks](), list[str]()
    for file in files:
        image, spacing = read(file, False)
        found = known(image if edge is None else _smaller(image, edge), spacing)
        if found is not None:
            prints.append(found[1]._replace(image=len(people)))
            people.append(str(re.fullmatch(pattern, str(file.parent / file.stem))[1]))  # type: ignore[index]
    scores = [
        score
        for row, column, score in candidate_scores(prints, prints, 2)
        if people[row] != people[column]
    ]
    largest = np.sort(scores)[::-1]
    return {
        "edge": edge,
        "pictures": len(prints),
        "people": len(set(people)),
        "pairs_looked_at": len(scores),
        "largest": largest[:TOP].round(2).tolist(),
        "alarms": int((largest >= RECOGNISED[2]).sum()),
    }


def _smaller(image: Array, edge: int) -> Array:
    picture = Image.fromarray(np.asarray(image, np.float32), "F")
    return np.asarray(picture.resize((edge, edge), Image.Resampling.BOX))


def _largest(agreed: Array) -> dict[str, Any]:
    return {"pairs": agreed.size, "largest": np.sort(agreed)[: -TOP - 1 : -1].round(2).tolist()}


def held_out(found: dict[str, Any]) -> list[dict[str, Any]]:
    """Thresholds of landmarks that were set on some people or data sets, tried on the others."""
    rows = []
    for ndim in (2, 3):
        sets = {n: row for n, row in found.items() if row["thresholds"][0] == ALIKE[ndim]}
        for name in (None, *sets) if len(sets) > 1 else ():
            # The first halves of all sets against the second; or all other sets against one.
            seen = [
                half["largest"][:1]
                for other, row in sets.items()
                if other != name
                for half in (row["halves"] if name else row["halves"][:1])
            ]
            least = MARGIN * max(itertools.chain.from_iterable(seen))
            tried = [sets[name]] if name else list(sets.values())
            halves = [half for row in tried for half in row["halves"][0 if name else 1 :]]
            scores = [
                score
                for row in tried
                for disguise in row["disguises"].values()
                for score, half in zip(
                    disguise["agreed"], row["disguised_are_of_half"], strict=True
                )
                if name or half == 1
            ]
            rows.append(
                {
                    "held_out": name or f"every other person, {ndim}D",
                    "threshold": round(least, 2),
                    "pairs": sum(half["pairs"] for half in halves),
                    "alarms": sum(x >= least for half in halves for x in half["largest"]),
                    "disguised": len(scores),
                    "recognised": sum(score >= least for score in scores),
                    "recognised_at_ours": sum(score >= RECOGNISED[ndim] for score in scores),
                }
            )
    return rows


def _spaced(number: int, most: int) -> Array:
    return np.unique(np.linspace(0, number - 1, most).astype(int))


def _disguises(
    images: Sequence[Read], prints: Sequence[Known], chosen: Array, ndim: int
) -> dict[str, Any]:
    """What is recognised, by landmarks if the image is a candidate among all of the set."""
    rows = {}
    everyone = [marks for _, marks in prints]
    for name, change in DISGUISES.items():
        rng = np.random.default_rng(0)
        changed = [known(change(image, rng), spacing) for image, spacing in images]
        seen = [k for k, other in enumerate(changed) if other is not None]
        marks = [other[1] for other in changed if other is not None]
        looked_at = {(row, seen[column]) for row, column in candidates(everyone, marks, ndim)}
        found = []
        for k, number in enumerate(chosen):
            own, other = prints[number], changed[k]
            if other is None:
                found.append((0.0, 0.0))
                continue
            whole = closeness(own[0][None], other[0][None], ndim)[0, 0]
            agreed = agreement(own[1], other[1], turned(other[1], ndim), ndim)
            found.append((whole, agreed if (number, k) in looked_at else 0.0))
        values = np.array(found)
        recognised = values >= (ALIKE[ndim], RECOGNISED[ndim])
        rows[name] = {
            "of": len(values),
            "recognised": int(recognised.any(axis=1).sum()),
            "whole": int(recognised[:, 0].sum()),
            "landmarks": int(recognised[:, 1].sum()),
            "median_whole": round(float(np.median(values[:, 0])), 3),
            "median_landmarks": round(float(np.median(values[:, 1])), 1),
            "agreed": values[:, 1].round(1).tolist(),
        }
    return rows


def _quantiles(values: npt.NDArray[np.float32]) -> dict[str, float]:
    shares = {"median": 0.5, "p99": 0.99, "p999": 0.999, "largest": 1.0}
    return {name: round(float(np.quantile(values, q)), 3) for name, q in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--disguised", type=int, default=32, help="cases of each data set")
    parser.add_argument("--brats", type=Path, help="further subjects of BraTS")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    options = parser.parse_args()
    found, crowds = dict[str, Any](), dict[str, Any]()
    for name in options.sets:
        pattern, person = SETS[name]
        files = sorted(options.data.glob(pattern))
        if name.startswith("brats") and options.brats:
            files = sorted(options.brats.glob(f"**/{Path(pattern).name}"))
        if not files:
            print(f"{name}: no {pattern} in {options.data}")
            continue
        if name in CROWDS:
            crowds[name] = [crowd(files, person, edge) for edge in (64, 128, None)]
            print_table([list(crowds[name][0]), *(list(row.values()) for row in crowds[name])])
        files = files[:: -(-len(files) // MOST) or 1]
        row = found[name] = measure(files, person, options.disguised, "stripped" in name)
        said = {k: v for k, v in row.items() if k != "disguises"}
        print(f"\n{name}: {said}", flush=True)
        table = [
            ("disguise", "of", "recognised", "whole", "landmarks", "median", "median landmarks")
        ]
        rows = row["disguises"].items()
        print_table([*table, *((d, *list(r.values())[:-1]) for d, r in rows)])
    if found:
        unseen = held_out(found)
        print_table([list(unseen[0]), *(list(row.values()) for row in unseen)] if unseen else [])
        print(f"\n{write('guard', {'held_out': unseen, 'crowds': crowds, 'sets': found})}")


if __name__ == "__main__":
    main()
