"""Do samples that copy real images stand apart from samples that do not, on all data sets.

Samples of ``copypaste`` hold a real image but for its lesions, those of ``elastic`` a deformed one;
``cgan3d``, ``dcgan`` and ``cpggan``, briefly trained, draw whole images. Of each: the share of
its own real image that a sample repeats, its similarity to any place of any training case, and how
many of its parts one training case has, as measured before samples are shared.

The same of images that no generator has drawn. ``people``: other people's real images, as a perfect
generator might draw; ``shrunk``: these at a quarter of their size and back, beside training cases
that are, too, as a small generator's samples are brought to size. ``crops``: 64 pixels (24 voxels)
of three training cases, flipped and rolled; ``turned``: those by 7 degrees instead, of which is
also counted how many share landmarks with a training case.

    python benchmarks/measure/bench_copies.py [--samples 8] [--steps 60] [--cases 150]
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from common import RESULTS, gansynth, write
from scipy.ndimage import rotate, zoom

from gansynth.core.fingerprint import prints_of, sharing
from gansynth.core.source import CaseSource
from gansynth.sampling.deidentify import CopySearch, repeated_share
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_moved
from gansynth.sampling.sampler import Sampler

DATA = Path(__file__).resolve().parents[2] / "../shared/data"
TCGA = r"(TCGA_[A-Z]+_[A-Z0-9]+)_"
SETS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "hippocampus": ("msd:{}/msd_task04_hippocampus", r"subjects.csv", ()),
    "LGG slices": ("pictures:{}/lgg_flair256", TCGA, ()),
    "BUSI": ("pictures:{}/busi256", r"(G\d+)_.*", ()),
    "tiles": ("pictures:{}/tiles128", r"([A-Z][a-z]+[0-9]+)_", ()),
    "feet": ("pictures:{}/fuseg128", r"(G[0-9]+)_", ()),
    "LGG sequences": ("pictures:{}/lgg_sequences96", TCGA, ("images=flair", "masks=labels")),
    "head CT slices": ("pictures:{}/phe_ct256", r"(P[0-9]+)_", ()),
    "retina": ("pictures:{}/retina", r"_([DC][0-9]+)", ()),
    "LGG volumes": ("nifti:{}/lgg_flair3d128", r"(.*)", ()),
}
"""Data, subjects, how they are read."""
MAKERS = ("copypaste", "elastic", "cgan3d")
IN_2D = ("dcgan", "cpggan")
SHRUNK = 4
Image = npt.NDArray[np.float32]


def measured(
    data: str, subjects: str, read: tuple[str, ...], home: Path, asked: argparse.Namespace
) -> dict[str, Any]:
    """What is found of samples of each generator, fitted here, and of images beside them."""
    shares: dict[str, list[float]] = {}
    search, shrunk, own = CopySearch(), CopySearch(), set[str]()
    flat = not data.startswith(("msd:", "nifti:"))
    makers = (*MAKERS, *IN_2D) if flat else MAKERS
    for maker in makers:
        options = [word for key in settings_of(maker, asked.steps) for word in ("--set", key)]
        options += [word for key in read for word in ("--read", key)]
        options += ["--read", "boxes=yes"] if flat else []
        where = ("--data", data, "--subjects", subjects, "-o", str(home / maker))
        gansynth("fit", maker, *where, "--device", "cpu", *options, quiet=True)
        run = load_run(home / maker, "cpu")
        source = open_moved(run, None, None)
        drawer = Sampler(run, source)
        for index in range(asked.samples):
            sample = drawer.draw_raw(index, 1)[0]
            real = drawer.matching_real_case(sample)
            own.add(real.id)
            share = repeated_share(sample.image, [real.image])
            shares.setdefault(maker, []).append(round(share, 4))
            search.add(run.space.to_host(sample, sample.provenance["shape"]).image)
    beside = images_beside(source, asked.samples)
    for images in beside.values():
        for image in images:
            search.add(image)
    for image in beside["people"]:
        shrunk.add(there_and_back(image))
    began = time.perf_counter()
    others = [case_id for case_id in source.train_ids if case_id not in own]
    step = max(1, len(others) // max(1, asked.cases - len(own)))
    searched = sorted(own.union(others[::step], copied(source)))
    most = np.zeros((2, (len(makers) + len(beside)) * asked.samples), int)
    for case in map(source.load, searched):
        most[0] = np.maximum(most[0], search.look_in(case.image))
        found = shrunk.look_in(there_and_back(case.image))
        most[1, : len(found)] = np.maximum(most[1, : len(found)], found)
    seconds = time.perf_counter() - began
    names = [*makers, *beside]
    similar = np.round(search.similarities(), 4).reshape(len(names), -1).tolist()
    similarity = dict(zip(names, similar, strict=True))
    similarity["shrunk"] = np.round(shrunk.similarities(), 4).tolist()
    parts = dict(zip(names, most[0].reshape(len(names), -1).tolist(), strict=True))
    parts["shrunk"] = most[1, : asked.samples].tolist()
    spacing = source.schema.spacing
    training = [prints_of(source.load(case_id).image, spacing) for case_id in copied(source)]
    turned = [prints_of(image, spacing) for image in beside["turned"]]
    return {
        "training_cases": len(source.train_ids),
        "searched_cases": len(searched),
        "seconds_of_search_per_sample": round(seconds / len(names) / asked.samples, 2),
        "repeated_share": shares,
        "similarity": similarity,
        "parts_of_one_case": parts,
        "turned_with_landmarks": len(sharing(training, turned)),
    }


def settings_of(maker: str, steps: int) -> list[str]:
    """Return the settings of a small network, of a few steps."""
    if maker not in ("cgan3d", *IN_2D):
        return []
    own = {"cgan3d": ["d_width=8"], "cpggan": ["stage_images=2", "fade_images=2"]}
    return [f"steps={steps}", "width=8", "batch_size=2", "diversity=0", *own.get(maker, [])]


def copied(source: CaseSource) -> list[str]:
    """Return three training cases whose crops are taken."""
    ids = source.train_ids
    return [ids[len(ids) * part // 4] for part in (1, 2, 3)]


def images_beside(source: CaseSource, count: int) -> dict[str, list[Image]]:
    """Return images that no generator has drawn, so many of each kind."""
    rng = np.random.default_rng(0)
    strangers = rng.choice(sorted(source.held_out_ids), count).tolist()
    real = [source.load(case_id).image for case_id in copied(source)]
    found: dict[str, list[Image]] = {kind: [] for kind in ("people", "crops", "turned")}
    for number, case_id in enumerate(strangers):
        image = real[number % len(real)]
        axes = tuple(range(1, image.ndim))
        edge = 64 if len(axes) == 2 else 24
        edges = [min(edge, length) for length in image.shape[1:]]
        slices = []
        for length, one in zip(image.shape[1:], edges, strict=True):
            low = max(0, (length - one) // 2 + int(rng.integers(-4, 5)))
            slices.append(slice(low, low + one))
        turned = rotate(image, 7, (axes[-1], axes[-2]), reshape=False, order=1, mode="nearest")
        crop = np.flip(image[:, *slices], axes[: 1 + number % len(axes)])
        rolled = np.roll(crop, [int(rng.integers(e)) for e in edges], axes)
        found["people"].append(source.load(case_id).image)
        found["crops"].append(np.ascontiguousarray(rolled))
        found["turned"].append(np.ascontiguousarray(turned[:, *slices]))
    return found


def there_and_back(image: Image) -> Image:
    """Return an image as a generator of a quarter of its edges would give it back."""
    shape = image.shape[1:]
    small = [max(2, length // SHRUNK) for length in shape]
    there = [n / old for n, old in zip(small, shape, strict=True)]
    back = [old / n for n, old in zip(small, shape, strict=True)]
    channels = []
    for channel in image:
        less = zoom(channel, there, order=1, grid_mode=True, mode="nearest")
        channels.append(zoom(less, back, order=1, grid_mode=True, mode="nearest"))
    return np.stack(channels).astype(np.float32)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=8)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument(
        "--cases", type=int, default=150, help="training cases, with the samples' own"
    )
    parser.add_argument("--only", choices=SETS, nargs="+", help="the other sets' results are kept")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print("skipped, ../shared/data is not there")
        return
    file = RESULTS / "copies.json"
    kept = arguments.only and file.is_file()
    results: dict[str, Any] = json.loads(file.read_text())["sets"] if kept else {}
    for name in arguments.only or SETS:
        where, subjects, read = SETS[name]
        data = where.format(DATA)
        table = Path(data.partition(":")[2]) / subjects
        subjects = str(table) if table.is_file() else subjects
        with tempfile.TemporaryDirectory() as home:
            found = measured(data, subjects, read, Path(home), arguments)
        results[name] = found
        for maker, similar in found["similarity"].items():
            share = found["repeated_share"].get(maker, [0.0])
            print(
                f"{name:14} {maker:10} repeats {min(share):.2f} to {max(share):.2f}, "
                f"similarity {min(similar):.3f} to {max(similar):.3f}, "
                f"parts of one case {found['parts_of_one_case'][maker]}",
                flush=True,
            )
        write("copies", {"sets": results})


if __name__ == "__main__":
    main()
