"""Write ``reference.json``: what DeepMedic's own functions give, for the tests beside it.

    PYTHON -m tests.adapters.deepmedic.reference.make_reference CHECKOUT [-o FILE]

PYTHON needs numpy below 2, nibabel below 5 and scipy, as DeepMedic does, but no TensorFlow;
CHECKOUT is github.com/deepmedic/deepmedic. Volumes come from a formula, so nothing else is stored.
"""

from __future__ import annotations

import argparse
import importlib
import json
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.adapters.deepmedic.reference.formula import (
    GEOMETRIES,
    MODULUS,
    Array,
    Size,
    digest,
    label_map,
    shape_for,
    sizes,
    volume,
)

CENTRES = 24
SEED = 7


class Log:
    """DeepMedic says a good deal."""

    def print3(self, *_: object) -> None:
        """Nothing."""


def module(name: str) -> Any:
    """One of DeepMedic's."""
    return importlib.import_module(f"deepmedic.{name}")


class PathSizes:
    """What ``extractSegmentGivenSliceCoords`` asks of a path of the network."""

    def __init__(self, kind: Any, receptive: Size, factor: Size) -> None:
        self.kind, self.receptive, self.factor = kind, list(receptive), list(factor)

    def pType(self) -> Any:
        return self.kind

    def rec_field(self) -> tuple[list[int], list[int]]:
        return self.receptive, [1, 1, 1]

    def subs_factor(self) -> list[int]:
        return self.factor


class Network:
    """What it asks of the network: its paths."""

    def __init__(self, receptive: Size, factor: Size) -> None:
        kinds, one = module("neuralnet.pathwayTypes").PathwayTypes, [1, 1, 1]
        parts = ((kinds.NORM, receptive, one), (kinds.SUBS, receptive, factor))
        self.pathways = [PathSizes(*part) for part in (*parts, (kinds.FC, one, one))]


def cut(sampling: Any, image: Array, labels: Array, centre: Size, geometry: Any) -> dict[str, Any]:
    """One segment: its shapes and checksums."""
    segment, receptive, factor = geometry
    output, low_size = sizes(*geometry)
    shapes, net = [list(segment), low_size, [1, 1, 1]], Network(receptive, factor)
    (high, low), own = sampling.extractSegmentGivenSliceCoords(
        "train", net, np.asarray(centre), image, labels, shapes, output
    )
    found = {"centre": centre, "low_shape": low.shape[1:], "labels_shape": own.shape}
    return {**found, "high": digest(high), "low": digest(low), "labels": digest(own, "i2")}


def contexts(sampling: Any) -> list[Any]:
    """Segments at all sorts of centres: within, near low borders, near high borders."""
    found = []
    for number, geometry in enumerate(GEOMETRIES):
        shape = shape_for(*geometry)
        image, labels = volume(shape).astype("f8"), label_map(shape)
        mask = sampling.comp_valid_sampling_mask_excluding_edges(geometry[0], shape)
        allowed = np.argwhere(mask)
        rng = np.random.RandomState(SEED + number)
        centres = allowed[rng.choice(len(allowed), CENTRES)].tolist()
        centres += [allowed[0].tolist(), allowed[len(allowed) // 2].tolist(), allowed[-1].tolist()]
        ends = [*allowed.min(axis=0).tolist(), *allowed.max(axis=0).tolist(), len(allowed)]
        entry: dict[str, Any] = dict(zip(("segment", "receptive", "factor"), geometry, strict=True))
        entry |= {"shape": shape, "allowed": ends}
        cuts = [cut(sampling, image, labels, centre, geometry) for centre in centres]
        found.append({**entry, "segments": cuts})
    return found


def shares(log: Log) -> list[Any]:
    """Samples of each category: the fewest and the most in many draws."""
    kinds = module("dataManagement.samplingType").SamplingType
    found = []
    keys = ("kind", "classes", "proportions", "present", "count")
    rows: tuple[Any, ...] = (
        (3, 5, None, [1, 1, 1, 1, 1], 50),
        (3, 5, None, [1, 1, 0, 1, 0], 30),
        (3, 4, [1, 2, 3, 4], [1, 1, 1, 1], 100),
        (3, 4, [1, 2, 3, 4], [1, 0, 1, 1], 64),
        (3, 4, None, [1, 1, 1, 0], 10),
        (0, 4, [3, 1], [1, 1], 40),
        (0, 4, [3, 1], [0, 1], 17),
        (1, 4, None, [1], 9),
    )
    np.random.seed(SEED)  # noqa: NPY002 - what DeepMedic draws from
    for kind, classes, proportions, present, count in rows:
        sampling = kinds(log, kind, classes)
        categories = sampling.get_n_sampling_cats()
        sampling.set_perc_of_samples_per_cat(proportions or [1.0 / categories] * categories)
        maps, many = [np.full((2, 2, 2), flag, "i1") for flag in present], np.int32(count)
        draws = [sampling.distribute_n_samples_to_categs(many, maps)[0] for _ in range(400)]
        least, most = np.stack(draws).min(axis=0), np.stack(draws).max(axis=0)
        told = dict(zip(keys, (kind, classes, proportions, present, count), strict=True))
        found.append({**told, "least": least.tolist(), "most": most.tolist()})
    return found


def maps(log: Log) -> dict[str, Any]:
    """How many voxels each category has, with and without a region of interest."""
    kinds = module("dataManagement.samplingType").SamplingType
    shape, found = (20, 22, 24), []
    labels = label_map(shape)
    roi = (volume(shape, 1)[0] < MODULUS / 2).astype("i2")
    for kind in range(4):
        for region in (None, roi):
            sampled = kinds(log, kind, 4).derive_sampling_maps_per_cat(None, labels, region, shape)
            voxels = [digest(np.flatnonzero(found_map), "i8") for found_map in sampled]
            found.append({"kind": kind, "roi": region is not None, "voxels": voxels})
    return {"shape": shape, "rows": found}


def tilings(log: Log, sampling: Any) -> list[Any]:
    """First voxels of the tiles of whole volumes."""
    found = []
    for segment, receptive, shape, masked in (
        ((13, 13, 13), (7, 7, 7), (30, 27, 13), False),
        ((13, 13, 13), (7, 7, 7), (30, 27, 13), True),
        ((25, 25, 25), (17, 17, 17), (60, 43, 52), False),
        ((14, 15, 16), (7, 9, 5), (40, 41, 42), True),
    ):
        output, _ = sizes(segment, receptive, (1, 1, 1))
        roi = None
        if masked:
            roi = np.zeros(shape, "i2")
            roi[3:12, 4:9, 2:8] = 1
        boxes = sampling.get_slice_coords_of_all_img_tiles(log, segment, output, 1, shape, roi)
        starts = [[axis[0] for axis in box] for box in boxes]
        entry = {"segment": segment, "receptive": receptive, "shape": shape, "roi": masked}
        entry["starts"] = starts if len(starts) < 20 else digest(starts, "i8")
        found.append({**entry, "count": len(starts)})
    return found


def padding(preprocessing: Any) -> list[Any]:
    """A volume padded by the margin that is not predicted."""
    found = []
    for receptive, shape in (((7, 7, 7), (12, 11, 9)), ((17, 9, 3), (10, 12, 14))):
        margin = [[(r - 1) // 2, r - 1 - (r - 1) // 2] for r in receptive]
        arrays = (volume(shape), label_map(shape))
        image, labels, *_ = preprocessing.pad_imgs_of_case(*arrays, None, None, True, margin)
        entry = {"receptive": receptive, "shape": shape, "padded": labels.shape}
        found.append({**entry, "image": digest(image), "labels": digest(labels, "i2")})
    return found


def normalisation(log: Log, preprocessing: Any) -> dict[str, Any]:
    """Mean, deviation and some values after each cut-off."""
    shape, found = (16, 17, 18), []
    roi = (label_map(shape) > 0).astype("i2")
    cases: tuple[dict[str, Any], ...] = (
        {},
        {"cutoff_percents": [5.0, 95.0]},
        {"cutoff_times_std": [1.0, 1.5]},
        {"cutoff_below_mean": True},
        {"cutoff_percents": [5.0, 95.0], "cutoff_times_std": [3, 3], "cutoff_below_mean": True},
        {"apply_to_all_channels": False, "apply_per_channel": [False, True]},
    )
    usual: dict[str, Any] = {"apply_to_all_channels": True, "cutoff_below_mean": False}
    usual |= dict.fromkeys(("apply_per_channel", "cutoff_percents", "cutoff_times_std"))
    for parts in cases:
        values = {**usual, **parts}
        for region in (None, roi):
            asked, given = {"verbose_lvl": 0, "zscore": values}, volume(shape).astype("f8")
            image = preprocessing.normalize_int_of_subj(log, given, region, asked, "")
            entry = {"values": values, "roi": region is not None}
            entry |= {"mean": image.mean(axis=(1, 2, 3)).tolist()}
            entry |= {"std": image.std(axis=(1, 2, 3)).tolist()}
            found.append({**entry, "first": image[:, 0, 0, :3].tolist()})
    return {"shape": shape, "rows": found}


def affine() -> dict[str, Any]:
    """Matrices for the numbers of ``RandomState(seed)``, and what they make of a volume."""
    kind = module("dataManagement.augmentImage").AugmenterAffine
    shape, found = (12, 15, 10), []
    for seed, angles, scaling, order, mode in (
        (0, (45.0, 45.0, 45.0), 0.1, 1, "nearest"),
        (1, (10.0, 0.0, 0.0), 0.0, 0, "nearest"),
        (2, (0.0, 20.0, 0.0), 0.3, 2, "min"),
        (3, (0.0, 0.0, 30.0), 0.2, 3, "constant"),
        (4, (5.0, 15.0, 25.0), 0.2, 1, "mirror"),
    ):
        augmenter = kind(1.0, angles, scaling, seed)
        matrix = augmenter.roll_dice_and_get_random_transformation()
        image = augmenter._apply_transformation(volume(shape)[0], matrix, order, mode)
        labels = augmenter._apply_transformation(label_map(shape), matrix, 0, mode)
        entry = {"drawn": [seed, angles, scaling], "order": order, "mode": mode}
        entry |= {"matrix": matrix.tolist()}
        entry |= {"some": image[::5, ::6, ::4].astype("f8").ravel().tolist()}
        found.append({**entry, "labels": digest(labels, "i2")})
    return {"shape": shape, "rows": found}


def changes() -> list[Any]:
    """Segments with what DeepMedic does to them at random, where nothing is left to chance."""
    augment = module("dataManagement.augmentSample").augment_sample
    planes, found = ("xy", "yz", "xz"), []
    for mirrored, turned, shift, scale in (
        ((1, 0, 0), (0, 0, 0), 0.0, 1.0),
        ((0, 1, 1), (0, 0, 0), 0.5, 2.0),
        ((0, 0, 0), (1, 0, 0), 0.0, 1.0),
        ((0, 0, 0), (0, 1, 0), 0.0, 1.0),
        ((0, 0, 0), (0, 0, 1), 0.0, 1.0),
        ((1, 0, 1), (3, 2, 1), 0.25, 4.0),
    ):
        chances = {
            plane: {str(90 * n): float(n == times) for n in range(4)}
            for plane, times in zip(planes, turned, strict=True)
        }
        intensities = {"shift": {"mu": shift, "std": 0}, "scale": {"mu": scale, "std": 0}}
        values = {"hist_dist": intensities, "reflect": mirrored, "rotate90": chances}
        given, own = [volume((9,) * 3), volume((7,) * 3)], label_map((5,) * 3)
        (high, low), labels = augment(given, own, dict(values))
        sums = {"high": digest(high), "low": digest(low), "labels": digest(labels, "i2")}
        found.append({"values": values, **sums})
    return found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("checkout", type=Path)
    beside = Path(__file__).with_name("reference.json")
    parser.add_argument("-o", "--output", type=Path, default=beside)
    asked = parser.parse_args()
    sys.path.insert(0, str(asked.checkout))
    import scipy

    log, sampling = Log(), module("dataManagement.sampling")
    preprocessing = module("dataManagement.preprocessing")
    words = ["git", "-C", str(asked.checkout), "rev-parse", "HEAD"]
    commit = subprocess.run(words, capture_output=True, text=True)
    found = {
        "deepmedic": commit.stdout.strip(),
        "versions": [platform.python_version(), np.__version__, scipy.__version__],
        "contexts": contexts(sampling),
        "shares": shares(log),
        "maps": maps(log),
        "tiles": tilings(log, sampling),
        "padding": padding(preprocessing),
        "normalisation": normalisation(log, preprocessing),
        "affine": affine(),
        "changes": changes(),
    }
    asked.output.write_text(lines(found, 4) + "\n")


def lines(value: Any, depth: int, indent: str = "") -> str:
    """JSON, one line for each entry down to a depth, so that a change shows where it is."""
    inner, plain = indent + " ", str | int | float
    if depth and isinstance(value, dict):
        rows = [f"{json.dumps(key)}: {lines(of, depth - 1, inner)}" for key, of in value.items()]
    elif depth and isinstance(value, list) and value and not isinstance(value[0], plain):
        rows = [lines(of, depth - 1, inner) for of in value]
    else:
        return json.dumps(value)
    ends = "{}" if isinstance(value, dict) else "[]"
    return ends[0] + ",".join(f"\n{inner}{row}" for row in rows) + f"\n{indent}{ends[1]}"


if __name__ == "__main__":
    main()
