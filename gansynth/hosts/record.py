"""The record of a training with synthetic samples: what each session mixed in.

A JSON document beside the checkpoints. A continued training adds a session.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatch
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gansynth.bank.training_bank import REJECTED
from gansynth.core.adapter import MixConfig, TrainingResult
from gansynth.core.lineage import Lineage
from gansynth.hosts.sample_source import SampleSource
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.files import TEMPORARY, read_json

FILE = "gansynth_session.json"  # the record, beside most frameworks' results
DRAWS = "gansynth_draws"  # folder of the draw logs, beside the record
LOG = "gansynth_launch.log"  # output of the training process
LEFT = frozenset(
    {DRAWS, LOG, REJECTED, ".lock", ".holder", "gansynth_producer.log", "gansynth_producer.json"}
)
"""Files that a training that never began may have left behind."""
COMPARED = (
    *("ratio", "schedule", "bank", "frozen", "size", "edits", "boxes", "conditions", "lesions"),
    *("weights", "filters", "keep_flawed"),
    *("usual_augmentation", "augment_synthetic"),
)
"""Keys that a continued training should share with the one it continues."""
ANEW = "start anew"  # hint that always applies
_MINE = ("run", "bank", "scratch", "device")
"""Settings of this machine and session, which are not recorded."""
_MEANS = ("refresh_seconds", "overhead", "overhead_low", "overhead_high", "duty")
"""Values averaged over sessions, weighted by their draws."""


def default_output(runs: Path, name: str, mix_config: MixConfig) -> Path:
    """Return the default folder of a training's results."""
    words = f"{name.rpartition(':')[2]}_{mix_config.ratio}".replace(":", "-")
    return (runs / re.sub(r"[^\w.-]+", "-", words)).absolute()


def check_new_folder(output: Path, left: Callable[[str], bool], option: str = "-o") -> None:
    """Refuse a folder for a new training that holds anything else.

    Args:
        left: whether a file of this name may be left from a training that never began.
    """
    hint = f"take another: {option}"
    if output.exists() and not output.is_dir():
        raise UsageFault(f"{output}: is a file, expected a folder; {hint}")
    held = sorted(path.name for path in output.iterdir()) if output.exists() else []
    extra = [name for name in held if not (left(name) or fnmatch(name, TEMPORARY))]
    if extra:
        if FILE in extra:
            hint += ", or go on with the training in it: --set resume=yes"
        raise UsageFault(
            f"{output}: holds {extra[0]}{' and more' if extra[1:] else ''}, expected a new "
            f"or empty folder; {hint}"
        )


def last_session(output: Path) -> dict[str, Any]:
    """Return the last session of the training in a folder."""
    earlier = read_sessions(output / FILE)
    if not earlier:
        raise UsageFault(
            f"{output}: holds no {FILE}, expected a training to go on with; start it without "
            "resume: leave out --set resume=yes"
        )
    return earlier[-1]


def check_same(
    output: Path, before: Mapping[str, Any], now: Mapping[str, Any], anew: str = ANEW
) -> None:
    """Refuse to continue a training with other settings."""
    for key, value in now.items():
        if before.get(key) != value:
            raise UsageFault(
                f"{output}: holds a training with {key} {before.get(key)}, not {value}, expected "
                f"the same to go on with; say that one, or {anew}"
            )


def version_of(package: str) -> str | None:
    """Return the version of an installed package; None if it is missing."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def read_sessions(path: Path) -> list[dict[str, Any]]:
    """Read the sessions of a training's record; none if there is no record."""
    sessions = read_json(path).get("sessions", []) if path.is_file() else []
    return [session for session in sessions if isinstance(session, dict)]


def describe_session(mix_config: MixConfig, sample_source: SampleSource | None) -> dict[str, Any]:
    """Describe what is mixed in and how, without settings of this machine."""
    document = {k: v for k, v in mix_config.to_json().items() if k not in _MINE}
    described = None if sample_source is None else dict(sample_source.described)
    return {
        **document,
        "bank": _bank(mix_config, described or {}),
        "generator": described,
        "lineage": None if sample_source is None else _lineage(sample_source.lineage),
    }


def _bank(mix_config: MixConfig, generator: Mapping[str, Any]) -> str:
    if mix_config.ratio.p == 0:
        return "none"
    if mix_config.bank is None:
        return "filled by a producer"
    return f"existing, SHA-256 {generator.get('bank_sha256')}"


def compare(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    epochs: int | None,
    compared: Sequence[str] = COMPARED,
    anew: str = ANEW,
) -> list[str]:
    """Describe the differences between a session and the one it continues."""
    kinds = [
        str(session.get("schedule", "constant")).partition(":")[0] for session in (before, now)
    ]
    if kinds[0] != kinds[1]:
        raise UsageFault(
            f"--schedule {now['schedule']}: the training to be continued has the schedule "
            f"{before['schedule']}, expected one of the same kind; {anew}"
        )
    origins = [session.get("lineage") for session in (before, now)]
    if all(origins):
        datasets = [
            f"{sample_source['dataset']} fold {sample_source['fold']}"
            for sample_source in origins
            if sample_source
        ]
        if datasets[0] != datasets[1]:
            raise IntegrityFault(
                f"lineage: the training to be continued used samples of {datasets[0]}, now "
                f"they are of {datasets[1]}; expected the same. Name that generator, or {anew}"
            )
    # The seed determines the cases of fine-tuning.
    keys = (*compared, "seed") if kinds[0] == "finetune" else compared
    differing = [key for key in keys if before.get(key, now.get(key)) != now.get(key)]
    changed = [f"{key}: {before[key]} before, {now.get(key)} now" for key in differing]
    if _hash(before) != _hash(now):
        changed.append("another generator")
    lasted = before.get("of_epochs")
    if kinds[0] != "constant" and None not in (lasted, epochs) and lasted != epochs:
        changed.append(f"epochs: {lasted} before, {epochs} now, which shifts the schedule")
    return changed


def _hash(session: Mapping[str, Any]) -> str | None:
    generator: Mapping[str, Any] = session.get("generator") or {}
    return generator.get("manifest_sha256")


def _lineage(lineage: Lineage) -> dict[str, Any]:
    document: dict[str, Any] = {
        "dataset": lineage.dataset,
        "fold": lineage.fold,
        "cases": [case.plain.to_json() for case in lineage.cases],
    }
    if lineage.ancestors:
        document["ancestors"] = [_lineage(parent_run) for parent_run in lineage.ancestors]
    return document


# -- over all sessions ---------------------------------------------------------------------------


def training_result_of(
    sessions: Sequence[Mapping[str, Any]], folder: Path, metrics: Mapping[str, Any]
) -> TrainingResult:
    """Summarise a training over all its sessions, with its metrics on real cases."""
    drawn = [session["drawn"] for session in sessions]
    total = {k: sum(d[k] for d in drawn) for k in ("real", "synthetic", "fell_back")}
    reasons: Counter[str] = Counter()
    for counts in drawn:
        reasons.update(counts["reasons"])
    return TrainingResult(
        folder=folder,
        drawn_real=total["real"],
        drawn_synthetic=total["synthetic"],
        fell_back=total["fell_back"],
        metrics=metrics,
        reasons=dict(reasons),
        asked=_mean(sessions, [session.get("asked") for session in sessions]),
        training_bank=_training_bank(sessions),
        warnings=(
            *(text for session in sessions for text in session.get("changes", ())),
            *(doc["worn"] for session in sessions if "worn" in (doc := session.get("supply", {}))),
        ),
    )


def _training_bank(sessions: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Summarise the producers of all sessions."""
    each = [session.get("supply", {}) for session in sessions]
    document: dict[str, Any] = {}
    distinct = sum(session["drawn"].get("distinct_synthetic", 0) for session in sessions)
    if distinct:
        synthetic = sum(session["drawn"]["synthetic"] for session in sessions)
        document["draws_per_sample"] = round(synthetic / distinct, 4)
    for key in _MEANS:
        mean = _mean(sessions, [training_bank.get(key) for training_bank in each])
        if mean is not None:
            document[key] = mean
    if any("restarts" in training_bank for training_bank in each):
        document["restarts"] = sum(training_bank.get("restarts", 0) for training_bank in each)
    ended = [training_bank["ended"] for training_bank in each if training_bank.get("ended")]
    return document | ({"ended": ended[-1]} if ended else {})


def _mean(sessions: Sequence[Mapping[str, Any]], values: Sequence[float | None]) -> float | None:
    """Mean of the known values, weighted by draws; None if there are none."""
    weights = [s["drawn"]["real"] + s["drawn"]["synthetic"] for s in sessions]
    weighted = [(w, v) for w, v in zip(weights, values, strict=True) if v is not None]
    total = sum(weight for weight, _ in weighted)
    return round(sum(w * v for w, v in weighted) / total, 6) if total else None
