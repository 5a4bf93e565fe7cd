"""Metrics of sample quality. They are registered in the same way as those of a plugin."""

from collections.abc import Mapping

from gansynth.core.hookspecs import Register, hookimpl, lazily

METRICS: Mapping[str, tuple[str, str]] = {
    "counts": ("counts", "counts_metric"),
    "spectrum": ("spectrum", "spectrum_metric"),
    "histogram": ("intensity", "histogram_metric"),
    "diversity": ("diversity", "diversity_metric"),
    "kid": ("distribution", "kid_metric"),
    "frechet": ("distribution", "frechet_metric"),
    "manifold": ("distribution", "manifold_metric"),
    "c2st-cnn": ("c2st", "network_c2st"),
    "lesions": ("lesions", "lesions_metric"),
    "appearance": ("appearance", "appearance_metric"),
}
"""Metric -> module of this package, and its name there."""


@hookimpl
def register_metrics(register: Register) -> None:
    """Register ``METRICS``."""
    for name, (module, attribute) in METRICS.items():
        register(name, lazily(f"gansynth.metrics.{module}:{attribute}"))
