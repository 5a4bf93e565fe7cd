"""Weights of conditions: draw more of what the target framework gets wrong.

Sampling, importance resampling (Rubin 1988): several conditions are drawn, and one is kept with a
probability in proportion to its weight: by its lesions, or without any by the false alarms there.
``gansynth hard-cases`` computes weights on inner folds of the training cases. They are bounded, so
that every condition keeps a chance. The file is JSON with a hash of its own content. It names cases
and holds numbers, no image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import gamma, pi, prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gansynth.core.geometry import Mask, Rng, bounding_box, mask_of, nearest_voxels
from gansynth.core.lineage import CaseRecord, Lineage, guard, same_data, same_host
from gansynth.core.schema import Condition, LabelArray, Schema
from gansynth.core.source import CaseSource, same_data_as
from gansynth.data.connected_components import LabelComponents, LesionPart, pieces
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import digest_of, read_own, write_json_atomic
from gansynth.runtime.serialise import Document

# -- lesions by size, place and class, and how well a framework found them -------------------------


FOUND = 0.1  # Dice from which a lesion counts as found
Span = tuple[tuple[float, float], ...]  # start and end along each axis


@dataclass(frozen=True)
class CropFrame:
    """Position of an array in its case."""

    # of the array's voxels, in the source's unit: mm, or px where no size is known
    spacing: tuple[float, ...]
    origin: tuple[float, ...]  # the case's voxel at the array's first voxel, per axis of the case
    scale: tuple[float, ...]  # the case's voxels per voxel of the array, per axis of the case
    shape: tuple[int, ...]  # of the case
    body: Span | None  # extent of the case's body, as shares of `shape`; None where unknown

    def place(self, centre: Sequence[float]) -> tuple[float, ...] | None:
        """Return the place of an array's voxel in the body, 0 to 1 per axis of the case."""
        if self.body is None:
            return None
        # Of a slice the array lacks the case's first axis.
        inner = (0.0,) * (len(self.shape) - len(centre)) + tuple(centre)
        axes = zip(inner, self.origin, self.scale, self.shape, self.body, strict=True)
        each = ((o + (c + 0.5) * k) / n - low for c, o, k, n, (low, _) in axes)
        spans = (max(high - low, 1e-6) for low, high in self.body)
        return tuple(min(max(x / span, 0.0), 1.0) for x, span in zip(each, spans, strict=True))

    def extent(self, shape: Sequence[int]) -> Span:
        """Return what an array covers of its case: first voxel and end along each axis."""
        lengths = (1,) * (len(self.shape) - len(shape)) + tuple(shape)
        axes = zip(self.origin, lengths, self.scale, self.shape, strict=True)
        return tuple((max(o, 0.0), min(o + n * k, float(end))) for o, n, k, end in axes)

    def cuts(self, box: Sequence[slice], shape: Sequence[int]) -> bool:
        """Whether a part of the array may go on in the case beyond the array."""
        first = len(self.shape) - len(shape)
        axes = zip(
            box, shape, self.origin[first:], self.scale[first:], self.shape[first:], strict=True
        )
        return any(
            (a.start == 0 and start > 0) or (a.stop == n and start + n * k < end)
            for a, n, start, k, end in axes
        )


@dataclass(frozen=True)
class Lesion:
    """A connected part of one class."""

    label: int  # the class's value
    size: float  # in the cube of the source's unit; of a slice in its square
    diameter: float  # of the ball, or the disc, of that size, in the source's unit
    # of its centre in the body, 0 to 1 per axis of the case; None where unknown
    place: tuple[float, ...] | None
    cut_off: bool = False  # whether it may go on beyond the array, so that its size is unknown


@dataclass(frozen=True)
class ScoredLesion:
    """A lesion, and how well a prediction found it."""

    lesion: Lesion
    dice: float  # of the lesion and the voxels of its class predicted there
    recall: float  # share of its voxels predicted as its class

    @property
    def found(self) -> bool:
        """Whether the Dice is at least ``FOUND``."""
        return self.dice >= FOUND


def lesions_in(
    labels: LabelArray, values: Sequence[int], frame: CropFrame, *, least: int
) -> list[Lesion]:
    """Return all lesions of some classes; parts of less than ``least`` voxels do not count."""
    return [
        _lesion(part, value, frame)
        for value in values
        for part in pieces(labels, labels == value, frame.spacing, least=least)
    ]


def score_lesions(
    labels: LabelArray,
    predicted: LabelArray,
    values: Sequence[int],
    frame: CropFrame,
    *,
    least: int,
) -> list[ScoredLesion]:
    """Evaluate a prediction on every lesion of a case.

    Predicted voxels belong to the nearest lesion of their class, if their connected piece touches
    one. Other pieces are ``false_alarms``.
    """
    judged: list[ScoredLesion] = []
    for value in values:
        parts = pieces(labels, labels == value, frame.spacing, least=least)
        if not parts:
            continue
        owner = _owners(labels.shape, parts, predicted == value, frame.spacing)
        for number, part in enumerate(parts, 1):
            marked = int(np.count_nonzero(owner == number))
            right = int(np.count_nonzero(predicted[part.box][part.mask] == value))
            dice, recall = 2 * right / (marked + part.voxels), right / part.voxels
            judged.append(ScoredLesion(_lesion(part, value, frame), dice, recall))
    return judged


def false_alarms(
    labels: LabelArray,
    predicted: LabelArray,
    values: Sequence[int],
    spacing: tuple[float, ...],
    *,
    least: int,
) -> list[LesionPart]:
    """Return predicted pieces, of ``least`` voxels or more, that touch no lesion of their class."""
    return [
        part
        for value in values
        for part in pieces(predicted, predicted == value, spacing, least=least)
        if not (labels[part.box][part.mask] == value).any()
    ]


def _lesion(part: LesionPart, value: int, frame: CropFrame) -> Lesion:
    return Lesion(
        label=value,
        size=part.volume,
        diameter=diameter(part.volume, len(part.shape)),
        place=frame.place(part.centroid),
        cut_off=frame.cuts(part.box, part.shape),
    )


def diameter(size: float, axes: int) -> float:
    """Return the diameter of a ball (3 axes) or disc (2) of a size."""
    unit = pi ** (axes / 2) / gamma(axes / 2 + 1)
    return float(2 * (size / unit) ** (1 / axes))


def _owners(
    shape: tuple[int, ...], parts: Sequence[LesionPart], marked: Mask, spacing: Sequence[float]
) -> npt.NDArray[np.int32]:
    """Number each marked voxel by the lesion it belongs to, from 1; 0 for none."""
    truth = np.zeros(shape, np.int32)
    for number, part in enumerate(parts, 1):
        truth[part.box][part.mask] = number
    pieces = LabelComponents.of(marked)
    touching = np.zeros(len(pieces.numbers) + 1, bool)
    touching[pieces.numbered[truth > 0]] = True
    touching[0] = False
    assigned = touching[pieces.numbered]
    if len(parts) == 1 or not assigned.any():
        return np.where(assigned, np.int32(1), np.int32(0))
    box = bounding_box(assigned | (truth > 0))
    nearest = nearest_voxels(truth[box] > 0, spacing)
    owner = np.zeros(shape, np.int32)
    owner[box] = np.where(assigned[box], truth[box][nearest], np.int32(0))
    return owner


def body_span(body: Mask) -> Span:
    """Return the extent of a body in its case, as shares of the shape."""
    box = bounding_box(body)
    axes = zip(box, body.shape, strict=True)
    return tuple((a.start / n, a.stop / n) for a, n in axes)


# -- relative failure rates of lesions by size, place and class ------------------------------------
# Each factor is the observed failure over the expected one. It is shrunk with a gamma prior of
# mean 1, as in standardised mortality ratios (Clayton and Kaldor 1987, Biometrics 43). The expected
# one of a bin depends on the other factors, so that a class of small lesions does not count twice.
# A bin of few lesions stays near 1.


PRIOR = 2.0  # observed and expected failures that the prior adds to every bin
ROUNDS = 50  # rounds of fitting each factor with the others fixed
SIZES = 4  # largest number of bins of size
A_BIN = 8  # least number of lesions in a bin, if there are so many
PLACES = 3  # largest number of bins of a place along an axis

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True)
class RiskBin:
    """Lesions that are alike in one respect."""

    name: str  # `4.2 - 6.1 mm`, `low`, a class
    lesions: int  # number of evaluated lesions
    missed: int  # number of these that were not found
    failure: float  # mean of 1 - Dice; 0 without lesions
    ratio: float  # observed over expected failure, shrunk towards 1


@dataclass(frozen=True)
class RiskFactor:
    """Failure rates by one property of lesions."""

    name: str  # `size`, `class`, `place D`
    edges: tuple[float, ...]  # between bins, of a number; empty for the class
    values: tuple[int, ...]  # of labels, for the class; empty for others
    bins: tuple[RiskBin, ...]  # in order


@dataclass(frozen=True)
class RiskModel(Document):
    """Failure rates of a target framework, the one you train, e.g. nnU-Net."""

    mean_failure: float  # mean of 1 - Dice over all lesions
    bound: float  # largest weight over smallest
    factors: tuple[RiskFactor, ...]  # multiplied to a weight

    def __post_init__(self) -> None:
        for factor in self.factors:
            if len(factor.bins) != (len(factor.values) or len(factor.edges) + 1):
                raise ValueError(f"factor {factor.name}: {len(factor.bins)} bins do not fit it")
            if not all(b.ratio > 0 for b in factor.bins):
                raise ValueError(f"factor {factor.name}: a ratio is not above 0")
        if not self.bound >= 1:
            raise ValueError(f"bound is {self.bound}, expected 1 or more")

    @classmethod
    def fit(
        cls,
        judged: Sequence[ScoredLesion],
        names: Mapping[int, str],
        axes: str,
        bound: float,
        unit: str = "mm",
    ) -> RiskModel:
        """Fit failure rates to evaluated lesions, at least one.

        ``names``: classes by value. ``axes``: of cases (``DHW``). ``unit``: of diameters.
        """
        lesions = [lesion.lesion for lesion in judged]
        failed = np.array([1 - lesion.dice for lesion in judged], np.float64)
        missed = np.array([not lesion.found for lesion in judged])
        mean = float(failed.mean())
        frames = _frames(lesions, names, axes, unit)
        which = [np.array([_bin(frame, lesion) for lesion in lesions]) for frame, _ in frames]
        ratios = _ratios(failed, which, [len(titles) for _, titles in frames])
        factors = []
        for (frame, titles), at, ratio in zip(frames, which, ratios, strict=True):
            bins = []
            for number, title in enumerate(titles):
                here = at == number
                count = int(here.sum())
                share = float(failed[here].mean()) if count else 0.0
                bins.append(
                    RiskBin(title, count, int(missed[here].sum()), share, float(ratio[number]))
                )
            factors.append(RiskFactor(frame.name, frame.edges, frame.values, tuple(bins)))
        return cls(mean, bound, tuple(factors))

    def of(self, lesion: Lesion) -> float:
        """Return the weight of a lesion, 1 on average, within the bound.

        Unknown properties are left out: a place, or the size of a lesion that is cut off.
        """
        product = 1.0
        for factor in self.factors:
            number = _bin(factor, lesion)
            if number >= 0:
                product *= factor.bins[number].ratio
        return self.bounded(product)

    def bounded(self, weight: float) -> float:
        """Return a weight within the bound."""
        most = float(self.bound**0.5)
        return min(max(weight, 1 / most), most)


def _frames(
    lesions: Sequence[Lesion], names: Mapping[int, str], axes: str, unit: str
) -> list[tuple[RiskFactor, list[str]]]:
    """Return factors without their bins, and the bins' titles."""
    values = tuple(sorted(names))
    cuts = _cuts([lesion.diameter for lesion in lesions], SIZES)
    frames = [
        (RiskFactor("size", cuts, (), ()), _titles(cuts, f" {unit}")),
        (RiskFactor("class", (), values, ()), [names[value] for value in values]),
    ]
    places = [lesion.place for lesion in lesions if lesion.place is not None]
    for axis, along in zip(axes, zip(*places, strict=True), strict=True):
        cuts = _cuts(along, PLACES)
        frames.append((RiskFactor(f"place {axis}", cuts, (), ()), _titles(cuts, "")))
    return frames


def _cuts(numbers: Sequence[float], most: int) -> tuple[float, ...]:
    """Return edges between bins of equally many numbers."""
    count = min(max(len(numbers) // A_BIN, 1), most)
    cuts = np.unique(np.quantile(numbers, np.arange(1, count) / count))
    return tuple(float(cut) for cut in cuts)


def _titles(cuts: Sequence[float], unit: str) -> list[str]:
    if not cuts:
        return ["any"]
    between = [f"{a:.3g} - {b:.3g}{unit}" for a, b in pairwise(cuts)]
    return [f"below {cuts[0]:.3g}{unit}", *between, f"from {cuts[-1]:.3g}{unit}"]


def _bin(factor: RiskFactor, lesion: Lesion) -> int:
    """Return the number of a lesion's bin; -1 where unknown."""
    if factor.name == "class":
        return factor.values.index(lesion.label) if lesion.label in factor.values else -1
    if factor.name == "size":
        if lesion.cut_off:
            return -1
        return int(np.searchsorted(factor.edges, lesion.diameter, side="right"))
    axis = "DHW"[-len(lesion.place) :].find(factor.name[-1]) if lesion.place else -1
    if lesion.place is None or axis < 0:
        return -1
    return int(np.searchsorted(factor.edges, lesion.place[axis], side="right"))


def _ratios(
    failed: Numbers, which: Sequence[npt.NDArray[np.int64]], counts: Sequence[int]
) -> list[Numbers]:
    ratios = [np.ones(count) for count in counts]
    mean = failed.mean()
    for _ in range(ROUNDS):
        for number, (at, count) in enumerate(zip(which, counts, strict=True)):
            binned = at >= 0
            others = np.full(len(failed), mean)
            for factor, bins in enumerate(which):
                if factor != number:
                    others *= np.where(bins >= 0, ratios[factor][bins], 1.0)
            observed = np.bincount(at[binned], failed[binned], count)
            expected = np.bincount(at[binned], others[binned], count)
            ratios[number] = (observed + PRIOR) / (expected + PRIOR)
    return ratios


# -- the weights -----------------------------------------------------------------------------------


FORMAT, VERSION = "gansynth hard-cases", 2
AGAIN = "make it again: gansynth hard-cases --data KIND:WHERE --fold FOLD -o FILE"
Draw = Callable[[int, Rng], "Condition"]  # (index, rng) -> a condition
_AGAIN = f"{AGAIN[0].upper()}{AGAIN[1:]}"


@dataclass(frozen=True)
class SamplingWeights:
    """Draws several candidates for each condition, and chooses one by its weight."""

    path: Path
    sha256: str  # of the file's content
    candidates: int  # number of candidates for each condition
    least: int  # voxels; smaller parts of a label map do not count
    risk: RiskModel  # relative failure rates of lesions
    alarms: Mapping[str, Sequence[tuple[int, Span]]]  # case -> voxels and boxes of false alarms
    alarm_share: float  # of the voxels of all evaluated cases
    bodies: Mapping[str, Span]  # case -> extent of its body
    labels: Mapping[str, int]  # label name -> value, of the evaluated cases
    lineage: Lineage  # the evaluated cases

    @classmethod
    def read(cls, path: Path) -> SamplingWeights:
        """Read a file that ``gansynth hard-cases`` wrote.

        Raises:
            UsageFault: no such file, or of another kind or version.
            IntegrityFault: a damaged one.
        """
        doc = read_failures(path)
        try:
            alarms: dict[str, list[tuple[int, Span]]] = {}
            for row in doc["false_alarms"]["pieces"]:
                box = _span(row["box"])
                alarms.setdefault(str(row["case"]), []).append((_positive(row["voxels"]), box))
            return cls(
                path=path,
                sha256=str(doc["sha256"]),
                candidates=_positive(doc["options"]["candidates"]),
                least=_positive(doc["options"]["least"]),
                risk=RiskModel.from_json(doc["risk"]),
                alarms=alarms,
                alarm_share=float(doc["false_alarms"]["share_of_voxels"]),
                bodies={str(case): _span(row["body"]) for case, row in doc["cases"].items()},
                labels={str(name): int(value) for name, value in doc["labels"].items()},
                lineage=Lineage.from_json(doc["lineage"]),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise IntegrityFault(
                f"{path}: not as gansynth hard-cases writes it ({type(error).__name__}: {error}), "
                f"expected its tables; {AGAIN}"
            ) from error

    def choose(self, draw: Draw, schema: Schema, seed: int, index: int) -> Condition:
        """Return the ``index``-th condition of a seed; always the same.

        ``draw`` gets the index and a random generator for each candidate. All candidates of an
        index should have a lesion, or none, so that weights change no prevalence.
        """
        rng = np.random.default_rng(np.random.SeedSequence((seed, index, self.candidates)))
        chosen, chosen_weight, total = None, (0, 1.0), 0.0
        # One by one (Chao 1982): all at once would hold as many images.
        for number in range(self.candidates):
            candidate_rng = np.random.default_rng(np.random.SeedSequence((seed, index, number)))
            drawn = draw(index, candidate_rng)
            weight = self.weigh(drawn, schema)
            total += weight
            if rng.random() * total < weight:
                chosen, chosen_weight = drawn, (number, weight)
        assert chosen is not None, "the first candidate is always taken"
        noted = {
            "sha256": self.sha256,
            "candidate": chosen_weight[0],
            "of": self.candidates,
            "weight": round(chosen_weight[1], 6),
        }
        return replace(chosen, provenance={**chosen.provenance, "weights": noted})

    def weigh(self, condition: Condition, schema: Schema) -> float:
        """Weight of a condition: the mean over its lesions; 1 without labels.

        Without a lesion it is the mean of 1 and the density of false alarms there, relative to that
        of all evaluated cases, within the bound.
        """
        labels = condition.labels
        if labels is None or not _lesion_free(condition, schema):
            each = [self.risk.of(lesion) for lesion in self.lesions(condition, schema)]
            return float(np.mean(each)) if each else 1.0
        frame = self._frame(condition.provenance, labels.shape, schema)
        if frame.body is None or not self.alarm_share:
            return 1.0
        extent = frame.extent(labels.shape)
        alarms = self.alarms.get(condition.provenance["case"], ())
        marked = sum(voxels * _volume(extent, box) / _volume(box) for voxels, box in alarms)
        density = marked / _volume(extent) / self.alarm_share
        return self.risk.bounded((1 + density) / 2)

    def lesions(self, condition: Condition, schema: Schema) -> list[Lesion]:
        """The lesions of a condition that are weighed: the new ones, if it says which."""
        labels = condition.labels if condition.lesion is None else condition.lesion
        if labels is None:
            return []
        frame = self._frame(condition.provenance, labels.shape, schema)
        return lesions_in(labels, schema.foreground, frame, least=self.least)

    def _frame(
        self, provenance: Mapping[str, Any], shape: tuple[int, ...], schema: Schema
    ) -> CropFrame:
        case, placement = tuple(provenance["shape"]), provenance["placement"]
        # The body of a case of another data set, or read otherwise, is not known.
        same_data_set = provenance["dataset"] == self.lineage.dataset
        body = self.bodies.get(provenance["case"]) if same_data_set else None
        if body is not None and len(body) != len(case):
            body = None
        unscaled = (1.0,) * len(case)
        if placement["corner"]:
            plane = placement["slice_index"]
            origin = (*(() if plane is None else (plane,)), *placement["corner"])
            return CropFrame(schema.spacing, tuple(map(float, origin)), unscaled, case, body)
        scale = tuple(n / m for n, m in zip(case, shape, strict=True))
        spacing = tuple(mm * k for mm, k in zip(schema.spacing, scale, strict=True))
        return CropFrame(spacing, (0.0,) * len(case), scale, case, body)

    # -- whose they are --------------------------------------------------------------------------

    def check(self, lineage: Lineage, labels: Mapping[str, int]) -> None:
        """Refuse weights that are not of a run's own training cases; no case is read for it."""
        judged = self.lineage
        cases = {case.id: case for case in judged.cases}
        if judged.fold != lineage.fold or not same_data(lineage, cases, cases.__getitem__):
            raise IntegrityFault(
                f"--sampling-weights {self.path}: made of {judged.dataset} fold {judged.fold}, "
                "the run has "
                f"seen {lineage.dataset} fold {lineage.fold}; expected the same. {_AGAIN}"
            )
        odd = [name for name, value in self.labels.items() if labels.get(name) != value]
        if odd:
            raise IntegrityFault(
                f"--sampling-weights {self.path}: label {odd[0]!r} is {self.labels[odd[0]]} "
                "there, the run "
                f"has {dict(labels)}; expected the same. {_AGAIN}"
            )
        if not same_host(judged.host, lineage.host):
            return
        hashes = {case.id: case.sha256 for case in lineage.cases}
        changed = [c.id for c in judged.cases if hashes.get(c.id, c.sha256) != c.sha256]
        if changed:
            raise IntegrityFault(
                f"--sampling-weights {self.path}: {len(changed)} case(s) are not those the run "
                "has seen, "
                f"{changed[0]!r} first; expected the same content. {_AGAIN}"
            )

    def guard(self, held_out: Iterable[CaseRecord], source: CaseSource) -> None:
        """Refuse weights that have seen a held-out case, its subject or its content."""
        model = f"host behind --sampling-weights {self.path}"
        guard(self.lineage, held_out, kind=model, same=same_data_as(source), hint=_AGAIN)


def open_sampling_weights(path: Path, lineage: Lineage, source: CaseSource) -> SamplingWeights:
    """Read weights and check that they come from a run's own training cases."""
    weights = SamplingWeights.read(path)
    weights.check(lineage, source.schema.labels)
    weights.guard(
        (CaseRecord(i, source.header(i).subject, "") for i in source.held_out_ids), source
    )
    return weights


def _lesion_free(condition: Condition, schema: Schema) -> bool:
    if condition.lesion is not None:
        return "shows" in condition.provenance.get("lesions", {})
    return condition.labels is not None and not mask_of(condition.labels, schema.foreground).any()


def _span(axes: Any) -> Span:
    span = tuple((float(low), float(high)) for low, high in axes)
    if not all(low < high for low, high in span):
        raise ValueError(f"{axes!r} is no box")
    return span


def _volume(box: Span, other: Span | None = None) -> float:
    """Volume of a box, or of what it shares with another one."""
    axes = zip(box, box if other is None else other, strict=True)
    return float(prod(max(min(a[1], b[1]) - max(a[0], b[0]), 0.0) for a, b in axes))


def _positive(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is no positive number")
    return value


# -- the file -------------------------------------------------------------------------------------


def write_failures(path: Path, document: Mapping[str, Any]) -> str:
    """Write a file of weights; return its hash."""
    content = {"format": FORMAT, "version": VERSION, **document}
    digest = digest_of(content, "sha256")
    write_json_atomic(path, {**content, "sha256": digest})
    return digest


def read_failures(path: Path) -> dict[str, Any]:
    """Read what ``write_failures`` wrote."""
    if not path.is_file():
        raise DataFault(f"{path}: no such file, expected one of failures; {AGAIN}")
    document = read_own(path, hint=AGAIN)
    header = document.get("format"), document.get("version")
    if header != (FORMAT, VERSION):
        raise UsageFault(
            f"{path}: format is {header[0]!r}, version {header[1]!r}, expected {FORMAT!r}, version "
            f"{VERSION}; {AGAIN}"
        )
    if document.get("sha256") != digest_of(document, "sha256"):
        raise IntegrityFault(
            f"{path}: its content does not have the SHA-256 it was written with, expected the "
            f"same; it was changed or damaged; {AGAIN}"
        )
    return document
