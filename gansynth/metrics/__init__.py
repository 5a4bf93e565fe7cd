"""Metrics of sample quality. They are registered in the same way as those of a plugin."""

from collections.abc import Mapping

from gansynth.core.hookspecs import Register, hookimpl, lazily

METRICS: Mapping[str, tuple[str, str]] = {
    "counts": ("counts", "CountMetric"),
    "spectrum": ("spectrum", "Spectrum"),
    "histogram": ("intensity", "HistogramMetric"),
    "diversity": ("diversity", "Diversity"),
    "kid": ("distribution", "KID"),
    "frechet": ("distribution", "Frechet"),
    "manifold": ("distribution", "Manifold"),
    "c2st-cnn": ("c2st", "C2ST"),
    "lesions": ("lesions", "BoxContrastMetric"),
    "appearance": ("appearance", "Appearance"),
}
"""Metric -> module of this package, and its class there."""


@hookimpl
def register_metrics(register: Register) -> None:
    """Register ``METRICS``."""
    for name, (module, attribute) in METRICS.items():
        register(name, lazily(f"gansynth.metrics.{module}:{attribute}"))
