"""Do samplers that paint lesions keep to tissue, to their contrast's sign, to the range of values?

Tissue: lesions put into the 83 tumour-free slices of 16 people of LGG who are kept back (folds=5,
seed=34, fold 0), 64 x 64 pixels, by all 61 others or by five of them. Many of these slices show the
face, the vertex, or noise. The brain is that of ``find_brain``, or was outlined by eye in ellipses
where that is wrong (``lgg_brains.json``). Printed: samples rejected, share of the others' pixels
off the brain, of lesions mostly off it, of lesions mostly on air, and of lesions astride: more than
a fifth of each on either side of the middle of the head, left to right, as of the real ones.

Contrast and range: 12 people of LGG and of BUSI, new lesions in their own pictures. Printed: share
of lesions whose contrast has not the sign of most training lesions (training cases, samples,
samples that are kept), and of samples with values below and above those of the training cases.

    python benchmarks/measure/bench_tissue.py [--samples 83] [--draws 3]
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from common import print_table, write
from PIL import Image
from scipy.ndimage import gaussian_filter
from strip_skulls import find_brain

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.lesion_placement import lesion_drawer
from gansynth.conditions.sampler import ConditionSampler
from gansynth.conditions.unlabelled import open_unlabelled
from gansynth.core.body_mask import organ_mask
from gansynth.core.generator import Generator, learn
from gansynth.core.registry import installed
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth.data.connected_components import parts
from gansynth.imaging.lesion_grain import LEAST_VOXELS, tissue_around
from gansynth.sampling.run_source import open_source

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
LGG, BUSI = SHARED / "lgg_flair256", SHARED / "busi256"
SUBJECTS = {LGG: r"(TCGA_[A-Z]+_[A-Z0-9]+)_", BUSI: r"(G[0-9]+)_"}
SIDE, AIR, ASTRIDE = 64, 0.1, 0.2
"""Pixels of an edge; share of nearly the largest value below which a smoothed pixel is air; least
share of a lesion on its lesser side of the head that makes it astride."""
BRAINS = json.loads((Path(__file__).parent / "lgg_brains.json").read_text(encoding="utf-8"))
SAMPLERS = ("copypaste", "parametric")


def opened(folder: Path, home: Path, train: Sequence[str] | None = None, **read: str) -> CaseSource:
    """The pictures of a folder, some of them to train on and one held out; or all."""
    read = {"resize": f"{SIDE}x{SIDE}", **read}
    if train is not None:
        others = [p.stem for p in sorted((folder / "images").glob("*.png"))]
        split = {"train": list(train), "val": [i for i in others if i not in set(train)][:1]}
        path = Path(tempfile.mkstemp(".json", dir=home)[1])
        path.write_text(json.dumps([split]), encoding="utf-8")
        read["splits"] = str(path)
    request = SourceRequest("pictures", str(folder), fold="0", subjects=SUBJECTS[folder], read=read)
    return open_source(request)


def some_people(source: CaseSource, ids: Sequence[str], count: int, draw: int) -> list[str]:
    """The cases of some people, drawn among those of ``ids``."""
    people = sorted({source.header(i).subject for i in ids})
    chosen = np.random.default_rng(draw).permutation(people)[:count].tolist()
    return [i for i in source.train_ids if source.header(i).subject in chosen]


def untrained(name: str, source: CaseSource) -> Generator:
    """A generator that has seen nothing."""
    kind = installed().generator(name)
    schema = source.space.generator_schema(source.schema)
    return kind(schema, source.space.size, kind.Options())


def conditions_of(
    generator: Generator,
    source: CaseSource,
    scans: Sequence[CaseSource],
    space: Space | None = None,
) -> ConditionSampler:
    """Conditions of a generator's samples: in scans, if there are any, each with a lesion.

    ``space``: the generator's; None for the source's own.
    """
    return ConditionSampler(
        source,
        space or source.space,
        build_edits(generator.capabilities.edits),
        seed=1,
        lesions=lesion_drawer(None, generator.capabilities.lesions),
        backgrounds=True,
        unlabelled=scans,
        share_unlabelled=1.0,
        prevalence=1.0 if scans else None,
    )


def sampler_of(
    name: str, source: CaseSource, scans: Sequence[CaseSource]
) -> tuple[Generator, ConditionSampler]:
    """An untrained generator that has seen the training cases, and its conditions."""
    generator = untrained(name, source)
    learn(generator, [source.load(i) for i in source.train_ids])
    return generator, conditions_of(generator, source, scans)


@lru_cache(maxsize=128)
def picture_of(case_id: str) -> tuple[np.ndarray, np.ndarray]:
    """A slice in full size, float32, and where it is air, by its smoothed values, bool."""
    picture = np.asarray(Image.open(LGG / "images" / f"{case_id}.png"), np.float32)
    smooth = gaussian_filter(picture, 1.5)
    return picture, smooth < AIR * np.percentile(smooth, 99)


def brain_and_air(case_id: str) -> tuple[np.ndarray, np.ndarray]:
    """Shares of brain and of air in the pixels of a slice, (SIDE, SIDE)."""
    (picture, dark), known = picture_of(case_id), BRAINS[case_id]
    row, column = np.indices(picture.shape)
    brain = find_brain(picture)
    if known["brain"] is not None:
        brain = np.zeros(picture.shape, bool)
        for x, y, wide, high in known["brain"]:
            brain |= ((column - x) / wide) ** 2 + ((row - y) / high) ** 2 <= 1
    air = known["air"] | dark
    step = len(picture) // SIDE
    blocks = [mask.reshape(SIDE, step, SIDE, step).mean((1, 3)) for mask in (brain, air & ~brain)]
    return blocks[0], blocks[1]


def lesser_side(case_id: str, lesion: np.ndarray) -> float:
    """Share of a lesion's pixels, bool (SIDE, SIDE), on its lesser side of the head's middle."""
    _, dark = picture_of(case_id)
    columns = np.flatnonzero((~dark).mean(axis=0) > AIR) * SIDE / len(dark)
    middle = (columns[0] + columns[-1]) / 2
    right = float((np.nonzero(lesion)[1] + 0.5 > middle).mean())
    return min(right, 1 - right)


def real_ones_astride(home: Path) -> float:
    """Share of the slices with a tumour whose tumour is astride."""
    source, sides = opened(LGG, home), []
    for case_id in source.train_ids:
        labels = source.load(case_id).labels
        assert labels is not None
        if labels.any():
            sides.append(lesser_side(case_id, labels > 0))
    return float((np.array(sides) > ASTRIDE).mean())


def on_tissue(name: str, people: int, draw: int, samples: int, home: Path) -> dict[str, float]:
    """Lesions put into the tumour-free slices, by some people's cases."""
    everyone = opened(LGG, home, folds="5", seed="34")
    train = list(everyone.train_ids)
    if people:
        train = some_people(everyone, train, people, draw)
    source = opened(LGG, home, train)
    free = opened(LGG, home, list(BRAINS)).request
    fields = {"kind": free.kind, "where": free.where, "fold": "0", "subjects": free.subjects}
    request = SampleRequest(unlabelled=({**fields, "read": dict(free.read)},))
    scans = open_unlabelled(request, source, source.schema.foreground)
    generator, conditions = sampler_of(name, source, scans)
    rows, backgrounds = [], set()
    for index in range(samples):
        condition = conditions.draw(index)
        sample = generator.sample([condition], [index])[0]
        lesion = condition.lesion > 0
        if generator.reject_reason(sample) or not lesion.any():
            continue
        backgrounds.add(condition.provenance["case"])
        brain, air = brain_and_air(condition.provenance["case"])
        side = lesser_side(condition.provenance["case"], lesion)
        rows.append((lesion.sum(), brain[lesion].mean(), air[lesion].mean(), side))
    pixels, brains, airs, sides = np.array(rows, float).T
    return {
        "rejected": 1 - len(rows) / samples,
        "slices used": len(backgrounds),
        "pixels off brain": 1 - float(np.average(brains, weights=pixels)),
        "lesions off brain": float((brains < 0.5).mean()),
        "lesions on air": float((airs > 0.5).mean()),
        "lesions astride": float((sides > ASTRIDE).mean()),
        "pixels": float(pixels.mean()),
    }


def contrasts(image: Any, around: Any, lesion: Any, labels: Any, schema: Any) -> Iterator[float]:
    """Mean of each lesion minus that of the tissue around, in the first channel."""
    tissue = organ_mask(around) & (labels != 1)
    for part in parts(lesion, schema, (1,), least=LEAST_VOXELS):
        box, near = tissue_around(part, around, tissue)
        held = part.whole()[box] > 0
        yield float(image[0][box][held].mean() - near[0])


def sign_and_range(
    name: str, folder: Path, draw: int, samples: int, home: Path
) -> dict[str, float]:
    """New lesions in the pictures of 12 people."""
    everyone = opened(folder, home)
    sick = [i for i in everyone.train_ids if "normal" not in i]
    source = opened(folder, home, some_people(everyone, sick, 12, draw))
    cases = [source.load(i) for i in source.train_ids]
    low, high = (end([end(c.image) for c in cases]) for end in (np.min, np.max))
    schema = source.space.generator_schema(source.schema)
    real = [v for c in cases for v in contrasts(c.image, c.image, c.labels, c.labels, schema)]
    generator, conditions = sampler_of(name, source, ())
    sign, drawn, kept, beyond, none = np.sign(np.median(real)), [], [], [], 0
    for index in range(samples):
        condition = conditions.draw(index)
        sample = generator.sample([condition], [index])[0]
        if not condition.lesion.any():
            none += 1
            continue
        image = sample.image
        beyond.append((image.min() < low - 1e-6, image.max() > high + 1e-6))
        found = contrasts(image, condition.background, condition.lesion, sample.labels, schema)
        drawn += (values := list(found))
        kept += [] if generator.reject_reason(sample) else values
    shares = {"training": real, "drawn": drawn, "kept": kept}
    reversed_ = {
        f"reversed, {k}": float((sign * np.array(v) < 0).mean()) for k, v in shares.items()
    }
    below, above = np.mean(beyond, axis=0).tolist()
    return {**reversed_, "below": below, "above": above, "no room": none / samples}


def main() -> None:
    """Measure, print, and write the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=83)
    parser.add_argument("--draws", type=int, default=3, help="draws of people to train on")
    parser.add_argument("--name", default="tissue", help="of the file of results")
    args = parser.parse_args()
    if not LGG.is_dir() or not BUSI.is_dir():
        print("skipped, ../shared/data/lgg_flair256 or busi256 is not there")
        return
    fits = [(0, 0), *((5, draw) for draw in range(args.draws))]
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        tissue = {
            f"{name}, {people or 'all'} people, draw {draw}": on_tissue(
                name, people, draw, args.samples, home
            )
            for people, draw in fits
            for name in SAMPLERS
        }
        looks = {
            f"{name}, {data.name}, draw {draw}": sign_and_range(
                name, data, draw, args.samples, home
            )
            for data in (LGG, BUSI)
            for draw in range(args.draws)
            for name in SAMPLERS
        }
        astride = real_ones_astride(home)
    found = {"tissue": tissue, "real lesions astride": astride, "contrast and range": looks}
    write(args.name, found)
    print(f"real lesions astride: {astride:.3f}")
    for table in (tissue, looks):
        keys = list(next(iter(table.values())))
        print_table([("samples", *keys), *((k, *v.values()) for k, v in table.items())])


if __name__ == "__main__":
    main()
