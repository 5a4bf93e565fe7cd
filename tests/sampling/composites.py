"""Tiny composites."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_fit import fit_composite
from gansynth.runtime.progress import NullReporter

SMALL = {"width": 4, "levels": 1, "d_width": 4, "d_levels": 1, "batch_size": 1, "precision": "fp32"}
NOISE = {"width": 4, "max_width": 8, "latent": 4, "batch_size": 4, "diversity": 0}


def words(settings: Mapping[str, object]) -> dict[str, str]:
    """Settings as a user types them, of a fit without steps unless they say how many."""
    return {key: str(value) for key, value in {"steps": 0, **settings}.items()}


def compose(out: Path, spec: Any, data: str, *, edits: Any = None, **changes: Any) -> Any:
    """Fit a composite on ``kind:where``, by default without any step."""
    kind, _, where = data.partition(":")
    passed = {k: changes.pop(k) for k in ("init_from", "dry_run", "resume") if k in changes}
    own = NOISE if getattr(spec, "generator", "") == "dcgan" else SMALL
    return fit_composite(
        spec,
        SourceRequest(kind, where),
        out,
        settings=words({**own, **changes}),
        edits=edits,
        device="cpu",
        reporter=NullReporter(),
        **passed,
    )
