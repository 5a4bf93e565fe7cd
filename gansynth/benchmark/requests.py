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
        generator: see ``gansynth.benchmark.plan.GeneratorPlan.document``.
    """
    data = data_words(request, generator.get("read"))
    settings = {**generator.get("set", {}), "seed": seed}
    return FitRequest(**{**generator, **data, "set": settings}, out=out)


def augment_request(
    spec: Mapping[str, Any], request: SourceRequest, run: Path | None, out: Path | None
) -> AugmentRequest:
    """Return the request of a training.

    Args:
        spec: of a training, with ``augment`` and ``seed``.
    """
    words = {**spec["augment"], **data_words(request), "seed": spec["seed"]}
    return AugmentRequest(**words, generator=run, out=out)
