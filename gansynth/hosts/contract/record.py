"""A training's folder, its record of what each session mixed in, and its result.

The record is a JSON document beside the checkpoints. A continued training adds a session.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gansynth.bank.draw_log import DrawCounter, DrawCounts, too_few
from gansynth.bank.sample_source import SampleSource
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.schedule import Mix
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth.runtime.files import elsewhere, read_json, remove_temporaries, write_json_atomic
from gansynth.runtime.serialise import differences
from gansynth.runtime.version import build, check_format

FILE = "gansynth_session.json"  # the record, beside the framework's results
DRAWS = "gansynth_draws"  # folder of the draw logs, beside the record
LOG = "gansynth_launch.log"  # output of the training process
LEFT = frozenset({".lock", ".holder"})
"""Files in the folder of a training that never began."""
COMPARED = (
    "generator",
    "ratio",
    "schedule",
    "seed",
    "bank",
    "offline",
    "bank_size",
    "edits",
    "boxes",
    "label_source",
    "unlabelled",
    "backgrounds",
    "self_train",
    "prevalence",
    "lesions",
    "weights",
    "filters",
    "keep_flawed",
    "host_augmentation",
    "augment_synthetic",
    "real_in_generator_space",
    "data",
    "read",
    "fold",
    "training_seed",
    "settings",
    "options",
)
"""Keys of a session that every further session of the same training shares."""
_RECORDED = (
    "offline",
    "refresh",
    "restarts",
    "strict",
    "allow_empty_bank",
    "host_augmentation",
    "augment_synthetic",
    "real_in_generator_space",
)
"""Fields of a request that are recorded as they are."""
_COUNTED = ("real", "synthetic", "fell_back")
_MEANS = ("refresh_seconds", "overhead", "overhead_low", "overhead_high", "duty")
"""Values averaged over sessions, weighted by their draws."""
TOLERATED = 0.01  # largest share of missing synthetic samples that still counts as success


@dataclass(frozen=True)
class TrainingFolder:
    """The folder of a training's results, and how far the training in it has come.

    ``done``, ``total``: ``unit``s of the newest checkpoint and of the whole training; None if
    unknown. ``begun``: by an earlier command. ``finished``: trained and evaluated.
    """

    path: Path
    done: int
    total: int | None
    unit: str = "epoch"
    begun: bool = False
    finished: bool = False

    def __str__(self) -> str:
        at = f"{self.unit} {self.done}" + ("" if self.total is None else f" of {self.total}")
        if self.finished:
            return "is finished: nothing is trained again"
        if self.done:
            return f"resumes at {at}"
        if self.begun:
            return "starts over: it has no checkpoint yet"
        return "starts"


@contextmanager
def training_in(look: Callable[[], TrainingFolder]) -> Iterator[TrainingFolder]:
    """Lock the folder of a training for this process; one without a checkpoint begins anew.

    Args:
        look: returns the folder, which another process may have changed meanwhile.
    """
    from gansynth.sampling.manifest import locked

    with locked(look().path, "take another folder: -o"):
        folder = look()
        remove_temporaries(folder.path)
        if not (folder.done or folder.finished):
            write_sessions(folder.path, [], complete=False)
        yield folder


def check_same(path: Path, before: Mapping[str, Any], now: Mapping[str, Any], taken: Path) -> None:
    """Refuse to go on with another training than the one in a folder; ``taken``: what -o names."""
    if "usual_augmentation" in before:
        raise UsageFault(
            "hosts.training-of-earlier-version",
            f"{path}: holds a training of an earlier version of gansynth; finish it with that, or "
            f"take another folder: {elsewhere(taken)}",
        )
    differing = "; ".join(differences(_comparable(before), _comparable(now)))
    if differing:
        raise UsageFault(
            "hosts.folder-holds-other-training",
            f"{path}: holds another training, with {differing}; expected the same command to go "
            f"on with it, or take another folder: {elsewhere(taken)}",
        )


def _comparable(session: Mapping[str, Any]) -> dict[str, Any]:
    """Return the compared values as JSON; the size of a live bank may change."""
    generator = (session.get("generator") or {}).get("manifest_sha256")
    values = dict(session, generator=generator and str(generator)[:12])
    if not session.get("offline"):
        values["bank_size"] = None
    document: dict[str, Any] = json.loads(json.dumps({key: values.get(key) for key in COMPARED}))
    return document


def version_of(package: str) -> str | None:
    """Return the version of an installed package; None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_record(folder: Path) -> dict[str, Any]:
    """Read the record of a training in its folder; empty if there is none."""
    file = folder / FILE
    document: dict[str, Any] = read_json(file) if file.is_file() else {}
    check_format(file, None, None, document.get("gansynth"), f"train again: {elsewhere(folder)}")
    return document


def write_sessions(folder: Path, sessions: Sequence[Mapping[str, Any]], *, complete: bool) -> None:
    """Write the record of a training (EnvironmentFault: the disk refuses)."""
    document = {"gansynth": build(), "complete": complete, "sessions": sessions}
    write_json_atomic(folder / FILE, document)


def describe_session(request: AugmentRequest, sample_source: SampleSource | None) -> dict[str, Any]:
    """Describe what is mixed in and how, without settings of this machine."""
    described = None if sample_source is None else dict(sample_source.described)
    bank = "filled by a producer" if request.mix.synthetic else "none"
    if described is not None and request.bank is not None:
        bank = f"existing, SHA-256 {described['bank_sha256']}"
    document: dict[str, Any] = {
        "ratio": str(request.mix.ratio),
        "schedule": str(request.mix.schedule),
        "bank_size": str(request.size),
    }
    document.update(request.samples.to_json())
    for name in _RECORDED:
        document[name] = getattr(request, name)
    document |= {"bank": bank, "generator": described}
    return document


def describe_lineage(lineage: Lineage) -> dict[str, Any]:
    """Return what a session has seen as ``lineages_of`` reads it: hashes, and no prints."""
    document: dict[str, Any] = {
        "dataset": lineage.dataset,
        "fold": lineage.fold,
        "cases": [replace(case, prints=()).to_json() for case in lineage.cases],
    }
    if lineage.ancestors:
        document["ancestors"] = [describe_lineage(parent_run) for parent_run in lineage.ancestors]
    return document


def lineages_of(session: Mapping[str, Any]) -> tuple[Lineage, ...]:
    """Return what a recorded session has seen, by hash alone, ancestors beside it."""
    left, found = [session.get("lineage")], list[Lineage]()
    while left:
        document = left.pop()
        if document:
            cases = tuple([CaseRecord.from_json(case) for case in document["cases"]])
            found.append(Lineage(document["dataset"], document["fold"], cases))
            left += document.get("ancestors", ())
    return tuple(found)


def _draws(sessions: Sequence[Mapping[str, Any]], folder: Path) -> DrawCounts:
    """Count the draws of all sessions together, as far as trained on; none where a log is missing.

    A further session has a bank of its own, which begins with the samples of the first one: the
    sum of their numbers would count these twice.
    """
    logs = [folder / DRAWS / str(session.get("draw_log")) for session in sessions]
    counts = DrawCounter(*logs).update(*(session["epochs"][1] for session in sessions))
    recorded = sum(session["drawn"]["synthetic"] for session in sessions)
    return counts if counts.synthetic >= recorded else DrawCounts()


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a host's training with synthetic samples.

    Attributes:
        folder: where the host wrote its results.
        drawn_real: samples the host drew from real cases.
        drawn_synthetic: samples it drew from the bank.
        fell_back: real samples drawn because the bank was empty (part of ``drawn_real``).
        metrics: the host's validation metrics on real cases only, e.g. ``{"dice": 0.87}``.
        reasons: short reason -> how many of ``fell_back``, as far as the host knows.
        asked: share of synthetic samples by ratio and schedule over the whole training.
        training_bank: of the producer, as far as known: draws per sample, seconds to renew the
            bank, slowdown of the host's steps as a share, restarts.
        warnings: for the user.
    """

    folder: Path
    drawn_real: int
    drawn_synthetic: int
    fell_back: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    asked: float | None = None
    training_bank: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @classmethod
    def of(cls, sessions: Sequence[Mapping[str, Any]], folder: Path) -> TrainingResult:
        """Summarise a training over all its sessions."""
        drawn = [session["drawn"] for session in sessions]
        supplies = [session.get("supply", {}) for session in sessions]
        weights = [counts["real"] + counts["synthetic"] for counts in drawn]

        def mean(values: Sequence[float | None]) -> float | None:
            """Mean of the known values, weighted by draws; None if there are none."""
            known = [(w, v) for w, v in zip(weights, values, strict=True) if v is not None]
            whole = sum(weight for weight, _ in known)
            weighted = sum([weight * value for weight, value in known])
            return round(weighted / whole, 6) if whole else None

        total, reasons = Counter[str](), Counter[str]()
        for counts in drawn:
            total.update({key: counts.get(key, 0) for key in _COUNTED})
            reasons.update(counts["reasons"])
        draws = _draws(sessions, folder)
        restarts = [supply["restarts"] for supply in supplies if "restarts" in supply]
        endings = [supply["ended"] for supply in supplies if supply.get("ended")]
        producer: dict[str, Any] = {}
        producer["draws_per_sample"] = round(draws.reuse, 4) if draws.synthetic else None
        for key in _MEANS:
            producer[key] = mean([supply.get(key) for supply in supplies])
        producer["restarts"] = sum(restarts) if restarts else None
        producer["ended"] = endings[-1] if endings else None
        return cls(
            folder=folder,
            drawn_real=total["real"],
            drawn_synthetic=total["synthetic"],
            fell_back=total["fell_back"],
            metrics=sessions[-1].get("metrics_on_real_cases", {}),
            reasons=dict(reasons),
            asked=mean([session.get("asked") for session in sessions]),
            training_bank={key: value for key, value in producer.items() if value is not None},
            warnings=tuple(filter(None, [too_few(draws.synthetic, draws.distinct, draws.most)])),
        )

    @staticmethod
    def sessions_in(folder: Path) -> list[dict[str, Any]]:
        """Read the sessions of a training's record in its folder; none if there is no record."""
        sessions = read_record(folder).get("sessions", [])
        return [session for session in sessions if isinstance(session, dict)]

    @staticmethod
    def complete_in(folder: Path) -> bool:
        """Whether the training in a folder has come to its end, by its record."""
        return bool(read_record(folder).get("complete"))

    @property
    def realised(self) -> float:
        """Realised share of synthetic samples."""
        return self.drawn_synthetic / max(1, self.drawn_real + self.drawn_synthetic)

    def describe(self, mix: Mix) -> dict[str, Any]:
        """Return a JSON document, with the requested ratio and schedule."""
        return {
            "folder": str(self.folder),
            "ratio": str(mix.ratio),
            "schedule": str(mix.schedule),
            "drawn_real": self.drawn_real,
            "drawn_synthetic": self.drawn_synthetic,
            "realised_synthetic_share": self.realised,
            "asked_synthetic_share": self.asked,
            "fell_back": self.fell_back,
            "supply": dict(self.training_bank),
            "warnings": list(self.warnings),
            "metrics_on_real_cases": dict(self.metrics),
        }

    def refuse_missing(self) -> None:
        """Refuse a training that missed too many synthetic samples.

        Raises:
            TrainingFault: more than 1 % of the requested synthetic samples were missing.
        """
        total = self.drawn_synthetic + self.fell_back
        missing = self.fell_back / max(1, total)
        if missing > TOLERATED:
            why = max(self.reasons, key=lambda reason: self.reasons[reason], default="")
            ended = self.training_bank.get("ended")
            if ended:
                why += f": {ended}"
            raise TrainingFault(
                "hosts.synthetic-samples-missing",
                f"{self.folder}: training finished and its results are kept, but "
                f"{self.fell_back} of {total} synthetic samples were missing ({missing:.1%}"
                f"{f', {why}' if why else ''}). Real cases took their place; expected at most "
                f"{TOLERATED:.0%}. Give the generator a faster --device, or fill the bank first "
                "with --offline",
            )
