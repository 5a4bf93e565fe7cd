"""Requests of a benchmark's jobs, from its plan and its data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_spec import texts

RUN = "run"  # run folder of a fit, below the job's folder


def data_words(request: SourceRequest, read: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the fields with which a request opens a source."""
    words = {
        "data": f"{request.kind}:{request.where}",
        "fold": request.fold,
        "configuration": request.configuration,
        "plans": request.plans,
        "subjects": request.subjects,
        "root": request.root,
        "read": texts({**request.read, **(read or {})}),
    }
    return {key: value for key, value in words.items() if value}


def fit_request(
    generator: Mapping[str, Any], request: SourceRequest, seed: int, out: Path
) -> FitRequest:
    """Return the request of a fit.

    Args:
        generator: see ``gansynth.benchmark.plan.GeneratorPlan``.
    """
    recipe = {key: generator[key] for key in ("recipe", "scale", "only") if generator[key]}
    data = data_words(request, generator["read"])
    settings = texts({**generator["set"], "seed": seed})
    return FitRequest(generator=generator["plugin"], **recipe, **data, set=settings, out=out)


def augment_request(
    spec: Mapping[str, Any], request: SourceRequest, run: Path | None, out: Path | None
) -> AugmentRequest:
    """Return the request of a training.

    Args:
        spec: of a training, with ``host``, ``arm`` and ``seed``.
    """
    host, arm = spec["host"], spec["arm"]
    given: dict[str, Any] = {"ratio": arm["ratio"], "schedule": arm["schedule"]}
    if run is not None:
        given |= {"generator": run, **_drawn(arm)}
    if arm["augmentation"] == "none":
        given["host_augmentation"] = False
    if out is not None:
        given["out"] = out
    if host["options"]:
        given["options"] = host["options"]
    settings = texts(host["set"])
    data = data_words(request)
    return AugmentRequest(target=host["target"], **data, **given, set=settings, seed=spec["seed"])


def _drawn(arm: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the samples."""
    given: dict[str, Any] = {"edit": arm["edits"], "filter": arm["filters"]}
    if arm["bank"] != "live":
        given |= {"offline": True, "bank_size": arm["bank"]}
    given |= {key: arm[key] for key in ("boxes", "prevalence", "lesions") if arm[key] is not None}
    return given if arm["augment_synthetic"] else {**given, "augment_synthetic": False}
