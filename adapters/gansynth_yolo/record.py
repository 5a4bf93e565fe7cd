"""``gansynth_session.json`` beside a detector's results: what each session mixed in."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from gansynth.core.adapter import Outcome
from gansynth.core.lineage import Lineage
from gansynth.hosts import record
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import read_json
from gansynth_yolo.config import YoloConfig

FILE = "gansynth_session.json"
COMPARED = (*record.COMPARED, "imgsz", "batch", "options")
ANEW = "start anew without resume, into another --set output"
LICENCES: Mapping[str, str] = {
    "libreyolo": "MIT",
    "ultralytics": "AGPL-3.0: its terms apply to this training and to the weights it has made",
}
"""Detector -> its licence, and what that means for a training."""


def describe(
    config: YoloConfig, generator: Mapping[str, Any] | None, lineage: Lineage | None
) -> dict[str, Any]:
    """What one session mixes into what.

    Args:
        config: what it is told.
        generator: see ``gansynth.hosts.record``; None if nothing synthetic is drawn.
        lineage: every case the generator or bank has seen.
    """
    choices = asdict(config.choices)
    detector = config.choices.detector
    return {
        **record.describe_session(config.injection, generator, lineage),
        "data": config.request["where"],
        **{key: choices[key] for key in ("detector", "model", "imgsz", "batch", "options")},
        "licence": LICENCES[detector],
        "versions": {
            "python": platform.python_version(),
            **{name: _version(name) for name in ("torch", "torchvision", detector)},
        },
    }


def epochs_done(output: Path) -> int:
    """How many epochs the training in a folder has done.

    Raises:
        UsageFault: there is none.
        IntegrityFault: its record is damaged.
    """
    return int(_last(output)["epochs"][1])


def check_resumable(config: YoloConfig) -> None:
    """Refuse to go on with another training than the one that was begun.

    Raises:
        UsageFault: there is none, it is of another detector or model, or it has ended.
        IntegrityFault: its record is damaged.
    """
    last, output = _last(config.output), config.output
    for key in ("detector", "model"):
        before, now = last.get(key), getattr(config.choices, key)
        if before != now:
            raise UsageFault(
                f"{output}: holds a training of the {key} {before}, not of {now}, expected the "
                f"same to go on with; name that one, or {ANEW}"
            )
    epochs, complete = last["of_epochs"], bool(read_json(output / FILE).get("complete"))
    if complete and epochs != config.choices.epochs:
        raise UsageFault(
            f"--set epochs={config.choices.epochs}: the training in {output} has ended, as asked, "
            f"after {epochs}; expected that number (its weights are only looked at again). To "
            f"train longer, {ANEW}"
        )


def _last(output: Path) -> dict[str, Any]:
    """The last session of the training in a folder."""
    earlier = record.read_sessions(output / FILE)
    if not earlier:
        raise UsageFault(
            f"{output}: holds no {FILE}, expected a training to go on with; start it without resume"
        )
    return earlier[-1]


def read_outcome(output: Path, metrics: Mapping[str, Any]) -> Outcome:
    """What a training came to, over all its sessions.

    Args:
        output: folder of its results.
        metrics: on real validation images.
    """
    return record.outcome_of(record.read_sessions(output / FILE), output, metrics)


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None
