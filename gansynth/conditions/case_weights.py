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
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.conditions.lesion_risk import CropFrame, Lesion, RiskModel, Span, lesions_in
from gansynth.core.geometry import Rng, mask_of
from gansynth.core.lineage import CaseRecord, Lineage, guard, same_data, same_host
from gansynth.core.schema import Condition, Schema
from gansynth.core.source import CaseSource, same_data_as
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.files import digest_of, read_own, write_json_atomic

FORMAT, VERSION = "gansynth hard-cases", 2
MAKE_AGAIN = "make it again: gansynth hard-cases --data KIND:WHERE --fold FOLD -o FILE"
Draw = Callable[[int, Rng], "Condition"]  # (index, rng) -> a condition
_MAKE_AGAIN = f"{MAKE_AGAIN[0].upper()}{MAKE_AGAIN[1:]}"


@dataclass(frozen=True)
class CaseWeights:
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
    def read(cls, path: Path) -> CaseWeights:
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
                "conditions.case-weights-malformed",
                f"{path}: not as gansynth hard-cases writes it ({type(error).__name__}: {error}), "
                f"expected its tables; {MAKE_AGAIN}",
            ) from error

    def choose(self, draw: Draw, schema: Schema, seed: int, index: int) -> Condition:
        """Return the ``index``-th condition of a seed; always the same.

        ``draw`` gets the index and a random generator for each candidate. All candidates of an
        index should have a lesion, or none, so that weights change no prevalence.
        """
        rng = np.random.default_rng(np.random.SeedSequence((seed, index, self.candidates)))
        chosen, chosen_number, chosen_weight, total = None, 0, 1.0, 0.0
        # One by one (Chao 1982): all at once would hold as many images.
        for number in range(self.candidates):
            candidate_rng = np.random.default_rng(np.random.SeedSequence((seed, index, number)))
            drawn = draw(index, candidate_rng)
            weight = self.weigh(drawn, schema)
            total += weight
            if rng.random() * total < weight:
                chosen, chosen_number, chosen_weight = drawn, number, weight
        assert chosen is not None, "the first candidate is always taken"
        provenance = dict(chosen.provenance)
        provenance["weights"] = {
            "sha256": self.sha256,
            "candidate": chosen_number,
            "of": self.candidates,
            "weight": round(chosen_weight, 6),
        }
        return replace(chosen, provenance=provenance)

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
            origin = list(placement["corner"])
            if placement["slice_index"] is not None:
                origin.insert(0, placement["slice_index"])
            return CropFrame(schema.spacing, tuple(map(float, origin)), unscaled, case, body)
        scale = tuple(n / m for n, m in zip(case, shape, strict=True))
        spacing = tuple(mm * k for mm, k in zip(schema.spacing, scale, strict=True))
        return CropFrame(spacing, (0.0,) * len(case), scale, case, body)

    # -- whose they are --------------------------------------------------------------------------

    def check(self, lineage: Lineage, labels: Mapping[str, int]) -> None:
        """Refuse weights that are not of a run's own training cases; no case is read for it."""
        own_lineage = self.lineage
        cases = {case.id: case for case in own_lineage.cases}
        if own_lineage.fold != lineage.fold or not same_data(lineage, cases, cases.__getitem__):
            raise IntegrityFault(
                "conditions.case-weights-of-other-fold",
                f"--case-weights {self.path}: made of {own_lineage.dataset} fold "
                f"{own_lineage.fold}, the run has "
                f"seen {lineage.dataset} fold {lineage.fold}; expected the same. {_MAKE_AGAIN}",
            )
        odd = [name for name, value in self.labels.items() if labels.get(name) != value]
        if odd:
            raise IntegrityFault(
                "conditions.case-weights-labels-differ",
                f"--case-weights {self.path}: label {odd[0]!r} is {self.labels[odd[0]]} "
                "there, the run "
                f"has {dict(labels)}; expected the same. {_MAKE_AGAIN}",
            )
        if not same_host(own_lineage.host, lineage.host):
            return
        hashes = {case.id: case.sha256 for case in lineage.cases}
        changed = [c.id for c in own_lineage.cases if hashes.get(c.id, c.sha256) != c.sha256]
        if changed:
            raise IntegrityFault(
                "conditions.case-weights-cases-differ",
                f"--case-weights {self.path}: {len(changed)} case(s) are not those the run "
                "has seen, "
                f"{changed[0]!r} first; expected the same content. {_MAKE_AGAIN}",
            )

    def guard(self, held_out: Iterable[CaseRecord], source: CaseSource) -> None:
        """Refuse weights that have seen a held-out case, its subject or its content."""
        model = f"host behind --case-weights {self.path}"
        guard(self.lineage, held_out, kind=model, same=same_data_as(source), hint=_MAKE_AGAIN)


def open_case_weights(path: Path, lineage: Lineage, source: CaseSource) -> CaseWeights:
    """Read weights and check that they come from a run's own training cases."""
    weights = CaseWeights.read(path)
    weights.check(lineage, source.schema.labels)
    held_out = [CaseRecord(i, source.header(i).subject, "") for i in source.held_out_ids]
    weights.guard(held_out, source)
    return weights


def _lesion_free(condition: Condition, schema: Schema) -> bool:
    if condition.lesion is not None:
        return "shows" in condition.provenance.get("lesions", {})
    return condition.labels is not None and not mask_of(condition.labels, schema.foreground).any()


def _span(axes: Any) -> Span:
    span = tuple((float(low), float(high)) for low, high in axes)
    for low, high in span:
        if not low < high:
            raise ValueError(f"{axes!r} is no box")
    return span


def _volume(box: Span, other: Span | None = None) -> float:
    """Volume of a box, or of what it shares with another one."""
    volume = 1.0
    axes = zip(box, box if other is None else other, strict=True)
    for (low, high), (other_low, other_high) in axes:
        volume *= max(min(high, other_high) - max(low, other_low), 0.0)
    return volume


def _positive(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is no positive number")
    return value


# -- the file -------------------------------------------------------------------------------------


def write_failures(path: Path, document: Mapping[str, Any]) -> str:
    """Write a file of weights; return its hash."""
    content: dict[str, Any] = {"format": FORMAT, "version": VERSION}
    content.update(document)
    digest = digest_of(content, "sha256")
    write_json_atomic(path, dict(content, sha256=digest))
    return digest


def read_failures(path: Path) -> dict[str, Any]:
    """Read what ``write_failures`` wrote."""
    if not path.is_file():
        raise DataFault(
            "conditions.failures-file-missing",
            f"{path}: no such file, expected one of failures; {MAKE_AGAIN}",
        )
    document = read_own(path, hint=MAKE_AGAIN)
    header = document.get("format"), document.get("version")
    if header != (FORMAT, VERSION):
        raise UsageFault(
            "conditions.failures-format-differs",
            f"{path}: format is {header[0]!r}, version {header[1]!r}, expected {FORMAT!r}, version "
            f"{VERSION}; {MAKE_AGAIN}",
        )
    if document.get("sha256") != digest_of(document, "sha256"):
        raise IntegrityFault(
            "conditions.failures-content-changed",
            f"{path}: its content does not have the SHA-256 it was written with, expected the "
            f"same; it was changed or damaged; {MAKE_AGAIN}",
        )
    return document
