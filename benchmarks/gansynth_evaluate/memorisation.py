"""Memorisation: distances of samples to subjects, and membership inference.

Samples are compared with training subjects and as many held-out ones. A near-copy is below half the
usual distance of its nearest training case. It must *also* be much closer to it than to the next
subject, as hardly any real image is. This excludes blurred images, which are close to everybody.
Attacks use distances to samples (GAN-Leaks, Chen et al. 2020, arXiv:1909.03935, full black box), or
the discriminator (LOGAN, Hayes et al. 2019, arXiv:1705.07663). That is in the checkpoints only: the
manifest has the weights that generate samples.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from gansynth.core.capabilities import AVERAGED
from gansynth.core.run_folder import MANIFEST, read_manifest
from gansynth.core.schema import Case, Sample, Schema
from gansynth.data.batches import batch_of
from gansynth.metrics.comparison import (
    LEVEL,
    Comparison,
    Floats,
    Indices,
    drawn_anew,
    median_estimate,
    numbered,
)
from gansynth.metrics.nearest import COPY, NearestSearch, SearchQuery, find_nearest
from gansynth.runtime.errors import IntegrityFault
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.tables import cell
from gansynth.sampling.evaluation_data import EvaluationData
from gansynth.sampling.open_run import load_run

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from gansynth.core.generator import Generator

FINELY = 128  # most samples whose nearest case is searched in full resolution
USUAL_CROPS = 24  # real crops whose nearest other subject defines the usual distance
SHOWN_PAIRS, ACROSS = 32, 4  # pairs in a preview grid, and in a row of it
CROPS = 4  # crops of a case for the discriminator
OWN = 0.5
"""Factor on that ratio for the case whose labels a sample is based on. Informative labels alone
halve the distance."""

Pairs = Sequence[tuple[str, tuple[Sample, Case]]]
"""Captions, with a sample and its nearest real crop."""


def measure_memory(
    gathered: EvaluationData, comparison: Comparison
) -> tuple[dict[str, Any], Pairs]:
    """``memorisation`` of the document, and near-copies beside the cases they copy.

    Without training cases the document holds only the reason.
    """
    cases = gathered.known
    if not cases.members:
        why = (
            f"{gathered.source.name} holds none of the cases that {gathered.name} was fitted on, "
            "so memorisation cannot be tested; name them with --real"
        )
        return {"why": why}, ()
    looked = _SubjectDistances(gathered, comparison)
    rng = comparison.rng("memory")
    document: dict[str, Any] = {
        "unit": "deviations of real intensities, on a grid of at most 16 blocks an axis",
        "distances": looked.distances(rng),
        "ratio": looked.ratio(rng),
        "own": looked.own(),
    }
    copies, pairs = near_copies(gathered, comparison)
    attacks = [*looked.attack(), *asked_discriminator(gathered, comparison)]
    document["copies"] = copies.to_json()
    lesions = ["lesions" in sample.provenance for sample in comparison.samples]
    document["in_real_images"] = any(lesions)
    document["membership"] = [attack.to_json() for attack in attacks]
    revealed = any(a.succeeds for a in attacks if a.attack == "distance")
    document["finding"] = "copies" if copies.pairs else "revealed" if revealed else "not shown"
    return document, pairs


class _SubjectDistances:
    """Coarse distances of samples and real crops to subjects, except their own."""

    def __init__(self, gathered: EvaluationData, comparison: Comparison) -> None:
        self.gathered, self.comparison = gathered, comparison
        cases, rng = gathered.known, np.random.default_rng((comparison.seed, 2))
        self.others = gathered.real(cases.others, len(comparison.real), rng) if cases.others else []
        images = [s.image for s in comparison.samples]
        real = [c.image for c in comparison.real]
        searched = {i: cases.people[i] for i in (*cases.members, *cases.others)}
        search = NearestSearch(searched, gathered.space, gathered.size, gathered.cache)
        search.learn_scale(real)
        others = [case.image for case in self.others]
        queries = [SearchQuery(image / search.scale) for image in (*images, *real, *others)]
        with comparison.reporter.task(len(searched), "distances to subjects") as bar:
            table = search.table(queries, bar.advance).astype(np.float64)
        first, second = len(images), len(images) + len(real)
        members = len(cases.members)
        self.samples = table[:first]
        theirs = [cases.people[i] for i in cases.members]
        strange = [cases.people[i] for i in cases.others]
        self.to_train = SubjectDistances.of(table[:first, :members], theirs, comparison.drawn_of)
        self.to_all = SubjectDistances.of(table[:first, :members], theirs)
        self.to_others = SubjectDistances.of(table[:first, members:], strange, comparison.drawn_of)
        self.real_to_train = SubjectDistances.of(
            table[first:second, :members], theirs, comparison.people
        )
        self.others_to_train = SubjectDistances.of(table[second:, :members], theirs)

    def distances(self, rng: np.random.Generator) -> list[dict[str, Any]]:
        """Quantiles of distances to equal numbers of training and held-out subjects."""
        others = len(self.to_others.names)
        members = len(self.to_train.names)
        size = min(others, members) if others else members
        chosen = np.sort(rng.permutation(members)[:size])
        words = f"{size} training subjects"
        rows = [
            (f"synthetic to {words}", self.to_train.nearest(chosen)),
            (f"real training to {words}, except their own", self.real_to_train.nearest(chosen)),
        ]
        if others:
            held_out = np.arange(others)[:size]
            rows.insert(
                1, (f"synthetic to {size} held-out subjects", self.to_others.nearest(held_out))
            )
            rows.insert(2, (f"held-out to {words}", self.others_to_train.nearest(chosen)))
        return [
            {"of": title, "quantiles": quantiles(values), "count": int(np.isfinite(values).sum())}
            for title, values in rows
        ]

    def ratio(self, rng: np.random.Generator) -> dict[str, float | None]:
        """Median distance of samples to training subjects over that of other real subjects."""
        mine = self.to_train.nearest()
        if self.others:
            people = [self.gathered.known.people[c.id] for c in self.others]
            return ratio_of_medians(
                mine, self.others_to_train.nearest(), self.comparison.drawn_of, people, rng
            )
        real = self.real_to_train.nearest()
        return ratio_of_medians(mine, real, self.comparison.drawn_of, self.comparison.people, rng)

    def own(self) -> dict[str, Any] | None:
        """Distance of samples to their own subjects, in usual distances."""
        columns = {name: n for n, name in enumerate(self.to_all.names)}
        pairs = [(n, columns[p]) for n, p in enumerate(self.comparison.drawn_of) if p in columns]
        usual = self.real_to_train.nearest()
        usual = usual[np.isfinite(usual)]
        if not pairs or not usual.size:
            return None
        near = [float(self.to_all.distances[n, column]) for n, column in pairs]
        return {"ratio": round(float(np.median(near) / np.median(usual)), 4), "samples": len(near)}

    def attack(self) -> list[MembershipAttack]:
        """Membership by distance to all samples; none with too few subjects."""
        cases = self.gathered.known
        sides = [[cases.people[i] for i in ids] for ids in (cases.members, cases.others)]
        if min(len(set(side)) for side in sides) < FEWEST:
            return []
        near, far = np.split(-self.samples.min(axis=0), [len(sides[0])])
        mine = list(nearest_by_subject(near, sides[0]).values())
        theirs = list(nearest_by_subject(far, sides[1]).values())
        return [attack_by("distance", "distance to the nearest sample", mine, theirs)]


def near_copies(gathered: EvaluationData, comparison: Comparison) -> tuple[NearCopies, Pairs]:
    """Near-copies among the first samples, by their nearest case in full resolution."""
    cases = gathered.known
    samples = list(comparison.samples)[:FINELY]
    nearest = find_nearest(
        samples,
        {i: cases.people[i] for i in cases.members},
        gathered.space,
        load=gathered.cache,
        real=USUAL_CROPS,
        seed=comparison.seed,
        reporter=comparison.reporter,
    )
    least = least_margin(np.array(nearest.margins))
    pairs, examples = {}, []
    for number, near in enumerate(nearest.near):
        own_case = cases.people.get(near.case) == comparison.drawn_of[number]
        most = COPY * OWN if own_case else COPY
        if near.ratio is not None and near.ratio < most and near.margin <= least:
            pairs[number] = (near.case, near.ratio, own_case)
            real = gathered.space.to_generator(gathered.cache(near.case), near.placement)
            examples.append((f"sample {number} | {near.case}", (samples[number], real)))
    return NearCopies(pairs, len(samples), COPY, least), examples


def asked_discriminator(gathered: EvaluationData, comparison: Comparison) -> list[MembershipAttack]:
    """Membership inference by the run's discriminator, if it is available."""
    from gansynth.runtime.devices import pick_device

    cases = gathered.known
    people = {i: cases.people[i] for i in (*cases.members, *cases.others)}
    theirs, strange = [{people[i] for i in side} for side in (cases.members, cases.others)]
    if gathered.run is None or min(len(theirs), len(strange)) < FEWEST:
        return []
    critic = load_discriminator(gathered.run.folder, pick_device(comparison.device))
    if critic is None:
        return []
    scores: dict[str, list[float]] = {}
    for number, case_id in enumerate(people):
        rng = np.random.default_rng((comparison.seed, 3, number))
        crops = [gathered.cut(case_id, rng) for _ in range(CROPS if gathered.space.cuts else 1)]
        scores_of_case = discriminator_scores(critic, crops)
        if scores_of_case is None:
            return []
        scores.setdefault(people[case_id], []).append(float(scores_of_case.mean()))
    means = {person: float(np.mean(values)) for person, values in scores.items()}
    description = "realness score of the run's discriminator, which is in the run folder only"
    mine = [means[p] for p in sorted(theirs)]
    return [attack_by("discriminator", description, mine, [means[p] for p in sorted(strange)])]


def write_copies(
    folder: Path,
    memory: Mapping[str, Any] | None,
    pairs: Pairs,
    schema: Schema,
    *,
    oriented: bool = False,
) -> dict[str, Path]:
    """Write ``near_copies.csv``, one pair a line, and ``near_copies.png`` of the first pairs.

    They identify training cases, so they stay in the folder. Older files are removed.
    """
    import csv
    import io

    from gansynth.report.image_grid import write_image_grid

    rows = ((memory or {}).get("copies") or {}).get("pairs") or ()
    paths = {name: folder / name for name in ("near_copies.csv", "near_copies.png")}
    for path in paths.values():
        path.unlink(missing_ok=True)
    written: dict[str, Path] = {}
    if rows:
        stream = io.StringIO()
        table = csv.DictWriter(stream, ("sample", "case", "ratio", "own"), lineterminator="\n")
        table.writeheader()
        for row in rows:
            table.writerow({column: cell(value) for column, value in row.items()})
        written["near_copies.csv"] = paths["near_copies.csv"]
        write_bytes_atomic(paths["near_copies.csv"], stream.getvalue().encode())
    if pairs:
        cells = [(caption, pair) for caption, pair in pairs[:SHOWN_PAIRS]]
        written["near_copies.png"] = write_image_grid(
            paths["near_copies.png"], cells, schema, across=ACROSS, oriented=oriented
        )
    return written


# -- the run's discriminator -----------------------------------------------------------------------

BANK = "bank.json"
AT_ONCE = 16  # batch size of the discriminator


def load_discriminator(run: Path, device: torch.device) -> Generator | None:
    """Load a run's generator with the discriminator of its newest complete checkpoint.

    The generating network has averaged weights, as in ``load_run``; all other networks have the
    last ones.

    Composite runs have none: their parts use other channels or classes, units and labels, so their
    scores do not combine. Test a part, ``RUN/parts/NAME``, on its own cases instead.

    Returns:
        None without a discriminator: no such network, a run without checkpoints, a composite run, a
            bank.

    Raises:
        UsageFault: the folder is none of these.
        IntegrityFault: the run, or every checkpoint of it, is damaged.
    """
    from gansynth.training import checkpoint

    if (run / BANK).is_file() and not (run / MANIFEST).is_file():
        return None
    manifest, folder = read_manifest(run), run / "checkpoints"
    if "parts" in manifest or not any(folder.glob(f"step-*/{checkpoint.TENSORS}")):
        return None
    saved = checkpoint.latest(folder)
    generator = load_run(run, str(device)).generator
    names = [name for name in generator.nets if name != AVERAGED]
    if saved is None or not names:
        return None
    for name in names:
        prefix = f"net/{name}/"
        net = {k.removeprefix(prefix): v for k, v in saved.tensors.items() if k.startswith(prefix)}
        _check(saved.folder, name, generator.nets[name].state_dict(), net)
        generator.nets[name].load_state_dict(net)
    return generator


def _check(
    folder: Path, name: str, expected: Mapping[str, Tensor], saved: Mapping[str, Tensor]
) -> None:
    shapes = {k: v.shape for k, v in expected.items()}, {k: v.shape for k, v in saved.items()}
    differing = [k for k in expected.keys() | saved.keys() if shapes[0].get(k) != shapes[1].get(k)]
    if differing:
        first = min(differing)
        raise IntegrityFault(
            "evaluate.network-tensors-differ",
            f"{folder}: {len(differing)} tensor(s) do not fit network {name!r}, first {first}: "
            f"{shapes[1].get(first)}, expected {shapes[0].get(first)}; this run was made by "
            "another version of its plugin. Fit it again",
        )


def discriminator_scores(
    generator: Generator, cases: Sequence[Case]
) -> npt.NDArray[np.float32] | None:
    """Realness scores of a discriminator for cases, float32 (N,); higher is more real.

    Args:
        generator: of ``load_discriminator``; its last stage is used.
        cases: in the generator's space, of one size, with their conditions.

    Returns:
        None where there are no scores (``Generator.realness``).
    """
    from gansynth.core.generator import context_of

    stage, scores = generator.stages()[-1], []
    context = partial(context_of, generator)
    for start in range(0, len(cases), AT_ONCE):
        batch = batch_of(cases[start : start + AT_ONCE], context)
        values = generator.realness(batch.to(generator.device), stage)
        if values is None:
            return None
        scores.append(values.cpu().numpy())
    return np.concatenate(scores) if scores else np.zeros(0, np.float32)


# -- numbers of distances and of attacks -----------------------------------------------------------

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
MARGIN = 0.05  # share of real images whose margin is as small as that of a copy


@dataclass(frozen=True)
class SubjectDistances:
    """Distances (N, subjects) to the nearest case of each subject; infinite for an image's own."""

    distances: Floats
    names: Sequence[str]

    @classmethod
    def of(
        cls, table: Floats, people: Sequence[str], own_people: Sequence[str | None] = ()
    ) -> SubjectDistances:
        """Reduce distances to cases (N, cases); ``own_people``: subjects to ignore."""
        names = sorted(set(people))
        where = {name: n for n, name in enumerate(names)}
        nearest = np.full((len(table), len(names)), np.inf)
        for column, person in zip(table.T, people, strict=True):
            at = where[person]
            nearest[:, at] = np.minimum(nearest[:, at], column)
        for row, mine in enumerate(own_people):
            if mine in where:
                nearest[row, where[mine]] = np.inf
        return cls(nearest, names)

    def nearest(self, people: Indices | None = None) -> Floats:
        """Distance of each image to the nearest of some subjects; of all if None."""
        chosen = self.distances if people is None else self.distances[:, people]
        return np.asarray(chosen.min(axis=1))


def quantiles(distances: Floats) -> list[float | None]:
    """Quantiles at ``QUANTILES``; None if there are no finite values."""
    finite = distances[np.isfinite(distances)]
    if not finite.size:
        return [None] * len(QUANTILES)
    return [round(float(q), 5) for q in np.quantile(finite, QUANTILES)]


def ratio_of_medians(
    mine: Floats, real: Floats, of: Sequence[str], people: Sequence[str], rng: np.random.Generator
) -> dict[str, float | None]:
    """Ratio of the medians of two sets of distances, (N,) and (M,), with a 95 % interval."""
    if not np.isfinite(mine).any() or not np.isfinite(real).any():
        return {"value": None, "low": None, "high": None}
    drawn = [_median(mine, of, rng) / _median(real, people, rng) for _ in range(500)]
    low, high = median_estimate(drawn)
    value = float(np.median(mine) / max(float(np.median(real)), 1e-9))
    return {"value": value, "low": low, "high": high}


def _median(values: Floats, owners: Sequence[str], rng: np.random.Generator) -> float:
    """Bootstrap median of values by owner; never 0."""
    weights = drawn_anew(numbered(owners), rng)
    return max(float(np.median(np.repeat(values, weights))), 1e-9)


@dataclass(frozen=True)
class NearCopies:
    """Near-copies among samples: number -> nearest case, ratio, whether it is the sample's own
    case.

    ``threshold``: largest ratio, halved for the sample's own case. ``margin``: largest quotient of
    the distances to the copied and to the next subject.
    """

    pairs: Mapping[int, tuple[str, float, bool]]
    of: int
    threshold: float
    margin: float

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document; it names training cases."""
        return {
            "count": len(self.pairs),
            "of": self.of,
            "threshold": self.threshold,
            "margin": round(self.margin, 4),
            "pairs": [
                {"sample": sample, "case": case, "ratio": round(ratio, 4), "own": own_case}
                for sample, (case, ratio, own_case) in sorted(self.pairs.items())
            ],
        }


def least_margin(real: Floats) -> float:
    """The margin that all but ``MARGIN`` of real images have, at most 0.9."""
    finite = real[np.isfinite(real)]
    return min(0.9, float(np.quantile(finite, MARGIN))) if finite.size else 0.9


FEWEST = 3  # fewest subjects on each side for which an attack is evaluated


@dataclass(frozen=True)
class MembershipAttack:
    """How well an attack, ``distance`` or ``discriminator``, distinguishes members from others.

    ``auc``: probability that a member scores higher than another subject, with its 95 % interval.
    ``p``: two-sided. Below 0.05 the interval excludes 0.5, and only then: both are one test.
    """

    attack: str
    what: str
    auc: float
    low: float
    high: float
    p: float
    members: int
    others: int

    @property
    def succeeds(self) -> bool:
        """Whether it identifies members better than chance: the interval lies above 0.5."""
        return self.low > 0.5

    def to_json(self) -> dict[str, Any]:
        """Return a JSON document."""
        document = dict(vars(self))
        for key in ("auc", "low", "high", "p"):
            document[key] = round(document[key], 5)
        document["succeeds"] = self.succeeds
        return document


def attack_by(
    name: str, text: str, members: Sequence[float], others: Sequence[float]
) -> MembershipAttack:
    """Evaluate an attack by its scores, one for each subject; higher means a member."""
    from scipy.special import ndtr
    from scipy.stats import mannwhitneyu

    sizes = len(members), len(others)
    auc = float(mannwhitneyu(members, others).statistic) / (sizes[0] * sizes[1])
    low, high = auc_interval(auc, *sizes)
    p = 2 * float(ndtr(-abs(auc - 0.5) / _auc_error(0.5, *sizes)))
    return MembershipAttack(name, text, auc, low, high, p, *sizes)


def _auc_error(area: float, first: int, second: int) -> float:
    """Standard error of an area (Hanley & McNeil 1982); that of ranks at 0.5."""
    mean_others = (first + second) / 2 - 1
    spread = 1 + mean_others * (1 - area) / (2 - area) + mean_others * area / (1 + area)
    return math.sqrt(area * (1 - area) * spread / (first * second))


def auc_interval(auc: float, first: int, second: int) -> tuple[float, float]:
    """Interval of an AUC, valid for few subjects and at 0 and 1; ``LEVEL`` of them may miss.

    Newcombe 2006 (Stat. Med. 25:559), method 5. It holds the areas within their own standard error
    times the normal quantile.
    """
    from scipy.optimize import brentq
    from scipy.special import ndtri

    away = -float(ndtri(LEVEL / 2))

    def off(area: float) -> float:
        return abs(auc - area) - away * _auc_error(area, first, second)

    def end(bound: float) -> float:
        if auc == bound:
            return bound
        # The error is 0 at both ends. A little inside, it is larger than the distance at one end
        # and smaller at the other.
        near, far = auc + 1e-6 * (bound - auc), bound + 1e-9 * (auc - bound)
        return float(brentq(off, near, far)) if off(near) < 0 < off(far) else bound

    return end(0.0), end(1.0)


def nearest_by_subject(scores: Floats, people: Sequence[str]) -> dict[str, float]:
    """Subject -> the highest score of its cases."""
    best: dict[str, float] = {}
    for score, person in zip(scores.tolist(), people, strict=True):
        best[person] = max(score, best.get(person, -math.inf))
    return best
