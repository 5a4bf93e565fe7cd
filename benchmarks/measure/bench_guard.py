"""How near prints of one image are to each other, disguised, and how near those of two people.

Each case of a data set is compared with every other person's, and with itself in disguise: what a
copy may have gone through before it is called something else. The thresholds ``ALIKE`` and
``AGREED`` of ``gansynth.core`` lie between both; the table says which disguises are recognised by
either, among all cases of the set. Of slices, those of one person beside each other are counted
apart: by them no threshold could be set. Pairs of "different people" above a threshold are listed:
of breast ultrasound these are pictures published twice.

``seen``: how many are recognised the other way round, where the disguised image is the one that was
trained on and the original is held out. An image that lies beside other people's in one file is
compared with everybody else, too: ``strangers`` counts those it is taken for, ``largest_stranger``
says how many landmarks agreed at most.

LGG volumes are compared without their skulls, too, as BraTS is published.

``crowds``: all pictures of a set, at three sizes, compared as the guard does, each with those that
have most words in common. The more images, the further the largest value of two people goes.

    python benchmarks/measure/bench_guard.py [--data ../shared/data] [--disguised 32] [--jobs 1]

``--brats FOLDER`` adds subjects of BraTS from elsewhere, such as the six of DeepMedic's examples.
"""

from __future__ import annotations

import argparse
import itertools
import re
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
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
Composite = Callable[[Sequence[Array]], Array]
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


def beside(images: Sequence[Array], axis: int) -> Array:
    """Images as a viewer shows them: each in its own window, the smaller with a black border."""
    shape = np.max([image.shape for image in images], axis=0)
    shape[axis] = 0
    panels = []
    for image in images:
        low, high = np.percentile(image, (0.5, 99.5))
        window = np.clip((image - low) / max(high - low, 1e-9), 0, 1)
        missing = np.maximum(shape - image.shape, 0)
        panels.append(np.pad(window, [(n // 2, n - n // 2) for n in missing]))
    return np.concatenate(panels, axis)


def mosaic(images: Sequence[Array]) -> Array:
    """Four images, two by two in the first two axes."""
    return beside([beside(images[:2], 1), beside(images[2:], 1)], 0)


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
    "smoothed by 1 voxel": lambda x, _: gaussian_filter(x, 1),
    "smoothed by 2 voxels": lambda x, _: gaussian_filter(x, 2),
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
COMPOSITES: dict[str, Composite] = {
    "before another person's along one axis": lambda x: beside([x[0], x[1]], 0),
    "behind another person's along another axis": lambda x: beside([x[1], x[0]], 1),
    "a quarter of four people's": lambda x: mosaic([x[1], x[2], x[0], x[3]]),
    "a quarter of four people's, of half the size": lambda x: mosaic(
        [zoom(one, 0.5, order=1) for one in (x[3], x[0], x[1], x[2])]
    ),
}
"""How an image and three other people's come to lie in one file."""


Read = tuple[npt.NDArray[np.float32], tuple[float, ...]]
Known = tuple[npt.NDArray[np.float32], list[Landmarks]]


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


def known(image: Array, spacing: tuple[float, ...], number: int = 0) -> Known | None:
    """The fingerprints (N, cells) of an image and its panels, their landmarks; None without any.

    ``number``: of the image, which its landmarks are given.
    """
    prints = prints_of(np.asarray(image, np.float32)[None], spacing)
    marks = [text for text in prints if text.startswith(f"{image.ndim}/")]
    if not marks:
        return None
    wholes = [unpacked(text) for text in prints if text and text not in marks]
    nothing = np.zeros((0, CELLS[image.ndim] ** image.ndim), np.float32)
    return np.stack(wholes) if wholes else nothing, [read_landmarks(text, number) for text in marks]


def closenesses(prints: Sequence[Known], ndim: int) -> Array:
    """Correlations (N, N) of each pair of images, of whichever fingerprints are closest."""
    of = np.repeat(np.arange(len(prints)), [len(vectors) for vectors, _ in prints])
    vectors = np.concatenate([vectors for vectors, _ in prints])
    close = np.zeros((len(prints), len(prints)), np.float32)
    np.maximum.at(close, (of[:, None], of[None]), closeness(vectors, vectors, ndim))
    return close


def agreements(prints: Sequence[Known], ndim: int) -> Array:
    """Landmarks that agree (N, N) of each pair, candidates or not; 0 below the diagonal."""
    agreed = np.zeros((len(prints), len(prints)))
    for column, (_, others) in enumerate(prints):
        for other in others:
            turns = turned(other, ndim)
            for row in range(column):
                for one in prints[row][1]:
                    score = agreement(one, other, turns, ndim)
                    agreed[row, column] = max(agreed[row, column], score)
    return agreed


def measure(
    files: Sequence[Path], pattern: str, disguised: int, strip: bool, words: Sequence[str]
) -> dict[str, Any]:
    """Closeness of different people's images, and of disguised ones to themselves.

    Of ``words``, if there are any, disguises have one in their name; then of different people's
    images only those that were taken for composites are compared.
    """
    prints, kept, seconds = [], [], 0.0
    for file in files:
        image, spacing = read(file, strip)
        began = time.process_time()
        found = known(image, spacing, len(prints))
        seconds += time.process_time() - began
        if found is not None:
            prints.append(found)
            kept.append(file)
    ndim = image.ndim
    stems = [str(file.parent / file.name.split(".")[0]) for file in kept]
    people = np.array([re.fullmatch(pattern, stem)[1] for stem in stems])
    chosen = _spaced(len(kept), disguised)
    images = [read(kept[n], strip) for n in chosen]
    three = [_of_others(people, number) for number in chosen]
    rows = {
        "disguises": _disguises(images, prints, chosen, ndim, words),
        "composites": _composites(kept, strip, images, prints, chosen, three, people, words),
    }
    if words:
        return {
            "cases": len(prints),
            "people": len(set(people.tolist())),
            "cpu_seconds_of_prints": round(seconds, 2),
            "taken_for_composites": _panels_of_one(prints, people, ndim),
            **rows,
        }
    began = time.process_time()
    close = closenesses(prints, ndim)
    comparing = time.process_time() - began
    began = time.process_time()
    agreed = agreements(prints, ndim)
    agreeing = time.process_time() - began
    upper = np.triu(np.ones(close.shape, bool), 1)
    same = people[:, None] == people[None]
    apart, own = upper & ~same, upper & same
    side = np.unique(people, return_inverse=True)[1] % 2  # every other person
    halves = [np.logical_and.outer(side == k, side == k) for k in (0, 1)]
    alarms = np.argwhere(apart & ((close >= ALIKE[ndim]) | (agreed >= RECOGNISED[ndim])))
    row: dict[str, Any] = {
        "cases": len(prints),
        "without_a_print": len(files) - len(prints),
        "taken_for_composites": _panels_of_one(prints, people, ndim),
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
    row["disguised_are_of_half"] = side[chosen].tolist()
    return row | rows


def _panels_of_one(prints: Sequence[Known], people: Array, ndim: int) -> dict[str, Any]:
    """How many single images are taken for composites, their panels beside all other people's."""
    split = [number for number, (_, marks) in enumerate(prints) if len(marks) > 1]
    scores, pairs = [0.0], 0
    for number in split:
        others = [one for one in range(len(prints)) if people[one] != people[number]]
        pairs += len(others)
        for panel in prints[number][1][1:]:
            turns = turned(panel, ndim)
            for one in others:
                scores += [agreement(mark, panel, turns, ndim) for mark in prints[one][1]]
    whole = [0.0]
    for number in split:
        for one in np.flatnonzero(people != people[number]):
            if len(prints[one][0]):
                near = closeness(prints[number][0][1:], prints[one][0], ndim)
                whole.append(float(near.max(initial=0)))
    return {
        "of_single_images": len(split),
        "pairs": pairs,
        "largest": round(max(scores), 2),
        "largest_whole": round(max(whole), 3),
        "alarms": sum(score >= RECOGNISED[ndim] for score in scores)
        + sum(near >= ALIKE[ndim] for near in whole),
    }


def _of_others(people: Array, number: int) -> Array:
    """Three people's images, each another's, spread over the set."""
    order = np.roll(np.arange(len(people)), -number - len(people) // 3)
    _, first = np.unique(people[order], return_index=True)
    others = order[np.sort(first)]
    others = others[people[others] != people[number]]
    return others[_spaced(len(others), 3)]


def crowd(files: Sequence[Path], pattern: str, edge: int | None) -> dict[str, Any]:
    """Landmarks that agree of two people's pictures, among all of a set; ``edge``: their pixels."""
    prints, people = list[Landmarks](), list[str]()
    for file in files:
        image, spacing = read(file, False)
        found = known(image if edge is None else _smaller(image, edge), spacing, len(people))
        if found is not None:
            prints += found[1]
            people.append(str(re.fullmatch(pattern, str(file.parent / file.stem))[1]))  # type: ignore[index]
    scores = [
        score
        for row, column, score in candidate_scores(prints, prints, 2)
        if people[prints[row].image] != people[prints[column].image]
    ]
    largest = np.sort(scores)[::-1]
    return {
        "edge": edge,
        "pictures": len(people),
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
    images: Sequence[Read],
    prints: Sequence[Known],
    chosen: Array,
    ndim: int,
    words: Sequence[str],
) -> dict[str, Any]:
    rows = {}
    for name, change in _named(DISGUISES, words):
        rng = np.random.default_rng(0)
        numbered = zip(images, chosen, strict=True)
        changed = [known(change(image, rng), mm, number) for (image, mm), number in numbered]
        rows[name] = _recognised(prints, changed, chosen, ndim)
    return rows


def _composites(
    files: Sequence[Path],
    strip: bool,
    images: Sequence[Read],
    prints: Sequence[Known],
    chosen: Array,
    others: Sequence[Array],
    people: Array,
    words: Sequence[str],
) -> dict[str, Any]:
    rows, ndim = {}, images[0][0].ndim
    for name, put_together in _named(COMPOSITES, words):
        changed = []
        for (image, spacing), number, three in zip(images, chosen, others, strict=True):
            all_four = [image, *(read(files[other], strip)[0] for other in three)]
            changed.append(known(put_together(all_four), spacing, number))
        row = _recognised(prints, changed, chosen, ndim)
        inside = {
            number: {*people[[number, *three]]}
            for number, three in zip(chosen, others, strict=True)
        }
        everyone = [one for _, marks in prints for one in marks]
        there = [one for found in changed if found for one in found[1]]
        scores = [
            score
            for one, other, score in candidate_scores(everyone, there, ndim)
            if people[everyone[one].image] not in inside[there[other].image]
        ]
        row["strangers"] = sum(score >= RECOGNISED[ndim] for score in scores)
        row["largest_stranger"] = round(max(scores, default=0.0), 2)
        rows[name] = row
    return rows


def _named(rows: dict[str, Any], words: Sequence[str]) -> list[tuple[str, Any]]:
    return [row for row in rows.items() if not words or any(word in row[0] for word in words)]


def _recognised(
    prints: Sequence[Known], changed: Sequence[Known | None], chosen: Array, ndim: int
) -> dict[str, Any]:
    """What is recognised, by landmarks if the image is a candidate among all of the set."""
    nothing = np.zeros((0, CELLS[ndim] ** ndim), np.float32), list[Landmarks]()
    instead = [found or nothing for found in changed]
    whole = [
        float(closeness(prints[number][0], one[0], ndim).max(initial=0))
        for number, one in zip(chosen, instead, strict=True)
    ]
    theirs = dict(zip(chosen.tolist(), instead, strict=True))
    seen = [theirs.get(number, one) for number, one in enumerate(prints)]
    originals = [prints[number] for number in chosen]
    values = np.array([whole, _agreed(prints, instead, chosen, ndim)]).T
    other_way = np.array([whole, _agreed(seen, originals, chosen, ndim)]).T
    recognised = values >= (ALIKE[ndim], RECOGNISED[ndim])
    return {
        "of": len(values),
        "recognised": int(recognised.any(axis=1).sum()),
        "whole": int(recognised[:, 0].sum()),
        "landmarks": int(recognised[:, 1].sum()),
        "seen": int((other_way >= (ALIKE[ndim], RECOGNISED[ndim])).any(axis=1).sum()),
        "median_whole": round(float(np.median(values[:, 0])), 3),
        "median_landmarks": round(float(np.median(values[:, 1])), 1),
        "agreed": values[:, 1].round(1).tolist(),
    }


def _agreed(
    seen: Sequence[Known], held_out: Sequence[Known], chosen: Array, ndim: int
) -> list[float]:
    """Landmarks of each held-out image that agree with the seen image of the same number."""
    first = [one for _, marks in seen for one in marks]
    second = [one for _, marks in held_out for one in marks]
    most = dict.fromkeys(chosen.tolist(), 0.0)
    for row, column in candidates(first, second, ndim):
        one, other = first[row], second[column]
        if one.image == other.image:
            score = agreement(one, other, turned(other, ndim), ndim)
            most[one.image] = max(most[one.image], score)
    return list(most.values())


def _quantiles(values: npt.NDArray[np.float32]) -> dict[str, float]:
    shares = {"median": 0.5, "p99": 0.99, "p999": 0.999, "largest": 1.0}
    return {name: round(float(np.quantile(values, q)), 3) for name, q in shares.items()}


def measured(options: argparse.Namespace, name: str) -> tuple[dict[str, Any], list[Any]] | None:
    """Rows of a set and of the crowds of its pictures; None if it is not there."""
    pattern, person = SETS[name]
    files = sorted(options.data.glob(pattern))
    if name.startswith("brats") and options.brats:
        files = sorted(options.brats.glob(f"**/{Path(pattern).name}"))
    if not files:
        return None
    edges = (64, 128, None) if name in CROWDS and not options.only else ()
    crowds = [crowd(files, person, edge) for edge in edges]
    files = files[:: -(-len(files) // MOST) or 1]
    row = measure(files, person, options.disguised, "stripped" in name, options.only)
    return row, crowds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=DATA, help="folder of the data sets")
    parser.add_argument("--disguised", type=int, default=32, help="cases of each data set")
    parser.add_argument("--brats", type=Path, help="further subjects of BraTS")
    parser.add_argument("--sets", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--jobs", type=int, default=1, help="sets that are measured at once")
    parser.add_argument(
        "--only",
        nargs="*",
        default=[],
        metavar="WORD",
        help="disguises with one of these in their names; writes guard_only.json, without pairs",
    )
    options = parser.parse_args()
    found, crowds = dict[str, Any](), dict[str, Any]()
    with ProcessPoolExecutor(options.jobs) as pool:
        results = pool.map(partial(measured, options), options.sets)
        for name, result in zip(options.sets, results, strict=True):
            if result is None:
                print(f"{name}: no {SETS[name][0]} in {options.data}")
                continue
            found[name], crowd_rows = result
            if crowd_rows:
                crowds[name] = crowd_rows
                print_table([list(crowd_rows[0]), *(list(row.values()) for row in crowd_rows)])
            _print_set(name, found[name])
    if options.only:
        print(f"\n{write('guard_only', {'sets': found})}")
    elif found:
        unseen = held_out(found)
        print_table([list(unseen[0]), *(list(row.values()) for row in unseen)] if unseen else [])
        print(f"\n{write('guard', {'held_out': unseen, 'crowds': crowds, 'sets': found})}")


def _print_set(name: str, row: dict[str, Any]) -> None:
    said = {k: v for k, v in row.items() if k not in ("disguises", "composites")}
    print(f"\n{name}: {said}", flush=True)
    for kind in ("disguises", "composites"):
        if not row[kind]:
            continue
        heads = [head for head in next(iter(row[kind].values())) if head != "agreed"]
        table = [(name, *(r[head] for head in heads)) for name, r in row[kind].items()]
        print_table([(kind, *heads), *table])


if __name__ == "__main__":
    main()
