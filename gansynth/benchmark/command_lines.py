"""Command lines of a benchmark's jobs, as a user would type them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_spec import texts

RUN = "run"  # run folder of a fit, below the job's folder


def each(option: str, values: Mapping[str, Any]) -> list[str]:
    """Return ``OPTION key=value`` for every value."""
    return [word for k, v in texts(values).items() for word in (option, f"{k}={v}")]


def source_words(request: SourceRequest, read: Mapping[str, str] | None = None) -> list[str]:
    """Return the options with which a command opens a source."""
    words = ["--data", f"{request.kind}:{request.where}", "--fold", request.fold]
    named = {
        "--configuration": request.configuration,
        "--plans": request.plans,
        "--subjects": request.subjects,
        "--root": request.root,
    }
    for option, value in named.items():
        words += [option, value] if value is not None else []
    return [*words, *each("--read", {**request.read, **(read or {})})]


def fit_words(
    generator: Mapping[str, Any], request: SourceRequest, seed: int, out: Path
) -> list[str]:
    """Return the words of ``gansynth fit``.

    Args:
        generator: see ``gansynth.benchmark.plan.GeneratorPlan``.
    """
    words = ["fit", generator["plugin"]]
    for key in ("recipe", "scale", "only"):
        words += [f"--{key}", generator[key]] if generator[key] else []
    words += source_words(request, generator["read"])
    return [*words, *each("--set", {**generator["set"], "seed": seed}), "-o", str(out), "--json"]


def augment_words(
    spec: Mapping[str, Any], request: SourceRequest, run: Path | None, out: Path | None
) -> list[str]:
    """Return the words of ``gansynth augment``.

    Args:
        spec: of a training, with ``host``, ``arm`` and ``seed``.
    """
    host, arm = spec["host"], spec["arm"]
    words = ["augment", "--target", host["target"], *source_words(request)]
    words += ["--ratio", arm["ratio"], "--schedule", arm["schedule"]]
    if run is not None:
        words += ["--generator", str(run), *_drawn(arm)]
    words += ["--no-host-augmentation"] if arm["augmentation"] == "none" else []
    words += [] if out is None else ["-o", str(out)]
    words += [*each("--set", host["set"]), "--seed", str(spec["seed"]), "--json"]
    return [*words, *(["--", *host["options"]] if host["options"] else [])]


def _drawn(arm: Mapping[str, Any]) -> list[str]:
    """Return the options of the samples."""
    words = [] if arm["bank"] == "live" else ["--offline", "--bank-size", arm["bank"]]
    words += [word for edit in arm["edits"] for word in ("--edit", edit)]
    words += [word for name in arm["filters"] for word in ("--filter", name)]
    for key in ("boxes", "prevalence", "lesions"):
        words += [f"--{key}", str(arm[key])] if arm[key] is not None else []
    return words if arm["augment_synthetic"] else [*words, "--augment-synthetic", "no"]
