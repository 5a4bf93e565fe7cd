"""What differential privacy costs ``dcgan``, and what it keeps from an attacker.

Middle slices (32 x 32) of simulated abdomens, one a person, in Hounsfield units that are known
beforehand. ``dcgan`` is fitted without privacy, and within an epsilon, by the same settings and as
many steps; then

- samples are held against slices of people it has not seen: spectrum and histogram, as in
  ``bench_realism.py``, with the same controls;
- its discriminator is asked how real it finds those it has learnt from, and as many others: the
  area under the ROC curve, 0.5 being that of a guess (Hayes et al. 2019, LOGAN).

Intervals are bootstrapped over images and over people; there is one fit of each.

    python benchmarks/bench_privacy.py [--people 40 300] [--epsilon 2 8 30 100]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from common import print_table, write

from gansynth.critic import realness
from gansynth.phantoms import LiverOptions, make_liver
from gansynth.privacy import terms
from gansynth.private_fit import PeopleBatches
from gansynth.quality.realism import blurred_mean, distances, white_noise
from gansynth.schema import Case, Condition, FloatArray, Schema
from gansynth.sources.base import CaseSource, SourceRequest
from gansynth.sources.batches import CaseBatches
from gansynth.sources.cache import CaseCache
from gansynth.space import Space
from gansynth.training import FitOptions, train
from gansynth_dcgan.model import DCGAN, DCGANOptions

EDGE, SAMPLES = 32, 100
SPACING = (8.0, 8.0)
FITS = {40: {"batch_size": 8, "steps": 1500}, 300: {"batch_size": 30, "steps": 600}}
"""By people: small enough for minutes, long enough for samples to show slices without privacy."""
OWN: dict[str, Any] = {
    **{"objective": "gan", "width": 8, "latent": 16, "d_norm": "instance"},
    **{"lr_generator": 2e-3, "lr_discriminator": 1e-3},
}


class Abdomens(CaseSource):
    """A slice of each of so many simulated people; the first half is learnt from.

    Args:
        number: of people in each half.
    """

    def __init__(self, number: int) -> None:
        self.request = SourceRequest("abdomens", str(number))
        self._cases = {case.id: case for case in map(slice_of, range(2 * number))}
        self._number = number

    @property
    def name(self) -> str:
        return "abdomens"

    @property
    def schema(self) -> Schema:
        return Schema(("CT",), {"background": 0}, SPACING, "HW")

    @property
    def space(self) -> Space:
        return Space("crop", (EDGE, EDGE))

    @property
    def train_ids(self) -> tuple[str, ...]:
        return tuple(self._cases)[: self._number]

    @property
    def held_out_ids(self) -> tuple[str, ...]:
        return tuple(self._cases)[self._number :]

    def load(self, case_id: str) -> Case:
        return self._cases[case_id]


def slice_of(person: int) -> Case:
    """In units of 200 HU, from -1 to 1.5: a window that is known beforehand."""
    spacing = (SPACING[0], *SPACING)
    volume = make_liver(person, 0, LiverOptions(spacing, radius_mm=(16.0, 30.0))).image
    d, h, w = (n // 2 for n in volume.shape)
    half = EDGE // 2
    image = volume[d, h - half : h + half, w - half : w + half] / np.float32(200)
    name = f"p{person:04d}"
    return Case(name, name, np.clip(image, -1, 1.5)[None].astype(np.float32))


def fitted(source: Abdomens, epsilon: float | None, batch_size: int, steps: int) -> DCGAN:
    """A generator, private if there is an epsilon."""
    torch.manual_seed(0)
    private = {} if epsilon is None else {"privacy_epsilon": epsilon, "privacy_units": (0, 1)}
    gan = DCGAN(source.schema, source.space.size, DCGANOptions.model_validate({**OWN, **private}))
    crops = CaseBatches(CaseCache(source), source.space)
    options = FitOptions(steps=steps, batch_size=batch_size, precision="fp32", ema_half_life=2000)
    if gan.privacy is None:
        gan.observe(source.cases())
        train(gan, crops, options)
        return gan
    ids = source.train_ids
    gan.privacy.terms = terms(
        noise=None,
        epsilon=epsilon,
        clip=gan.privacy.clip,
        delta=None,
        people=len(ids),
        batch_size=batch_size,
        steps=steps,
    )
    gan.privacy.key = b"the same numbers in every run..."
    train(gan, PeopleBatches(gan.privacy, crops, {i: (i,) for i in ids}), options)
    return gan


def area(gan: DCGAN, known: Sequence[Case], others: Sequence[Case]) -> dict[str, float]:
    """Area under the ROC curve of the discriminator's values, with a 95 % interval."""
    members, rest = realness(gan, known), realness(gan, others)
    assert members is not None
    assert rest is not None
    above = (members[:, None] > rest) + 0.5 * (members[:, None] == rest)
    rng = np.random.default_rng(0)
    drawn = [
        above[
            np.ix_(
                rng.integers(len(members), size=len(members)),
                rng.integers(len(rest), size=len(rest)),
            )
        ].mean()
        for _ in range(1000)
    ]
    low, high = np.percentile(drawn, [2.5, 97.5])
    return {"value": float(above.mean()), "low": float(low), "high": float(high)}


def measure(number: int, epsilons: Sequence[float]) -> dict[str, Any]:
    """Fits of so many people without privacy and within each epsilon, and how they compare."""
    source, loop = Abdomens(number), FITS[number]
    known, others = list(source.cases()), list(source.cases(source.held_out_ids))
    real = [case.image for case in others]
    sides: dict[str, Sequence[FloatArray]] = {
        "people learnt from": [case.image for case in known],
        "noise": white_noise(real, SAMPLES, np.random.default_rng(1)),
        "blurred mean": blurred_mean(real, SAMPLES, np.random.default_rng(2)),
    }
    fits: dict[str, Any] = {}
    for epsilon in (None, *sorted(epsilons, reverse=True)):
        name = "without" if epsilon is None else f"{epsilon:g}"
        began = time.process_time()
        gan = fitted(source, epsilon, **loop)
        drawn = gan.sample([Condition()] * SAMPLES, range(SAMPLES))
        sides[name] = [sample.image for sample in drawn]
        fits[name] = {
            "privacy": None if gan.privacy is None else gan.privacy.to_json(),
            "members_auc": area(gan, known, others),
            "cpu_seconds": round(time.process_time() - began, 1),
        }
    found = distances(sides, real, SPACING)
    return {
        "people": number,
        **loop,
        "fits": fits,
        "distances": {k: {m: asdict(d) for m, d in v.items()} for k, v in found.items()},
    }


def main() -> None:
    """Measure, print a table and write ``results/privacy.json``."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--people", type=int, nargs="+", choices=FITS, default=list(FITS))
    parser.add_argument("--epsilon", type=float, nargs="+", default=[2, 8, 30, 100])
    args = parser.parse_args()
    began, found = time.process_time(), {}
    rows: list[Sequence[object]] = [("people", "epsilon", "noise", "spectrum", "histogram", "AUC")]
    for number in args.people:
        found[str(number)] = one = measure(number, args.epsilon)
        for name, values in one["distances"].items():
            fit = one["fits"].get(name, {})
            noise = (fit.get("privacy") or {}).get("noise", "-")
            auc = fit["members_auc"]["value"] if fit else "-"
            rows.append((number, name, noise, *(d["value"] for d in values.values()), auc))
    print_table(rows)
    document = {"data": "simulated abdomens, one slice a person", "options": OWN, "sizes": found}
    print(write("privacy", {**document, "cpu_seconds": round(time.process_time() - began)}))


if __name__ == "__main__":
    main()
