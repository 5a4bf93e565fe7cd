"""Metrics of sample quality. They are registered in the same way as those of a plugin."""

from collections.abc import Mapping

from gansynth.core.hookspecs import Register, hookimpl, lazily

METRICS: Mapping[str, tuple[str, str]] = {
    "counts": ("lesions", "CountMetric"),
    "spectrum": ("distances", "Spectrum"),
    "histogram": ("distances", "HistogramMetric"),
    "diversity": ("diversity", "Diversity"),
    "kid": ("distances", "KID"),
    "frechet": ("distances", "Frechet"),
    "manifold": ("distances", "Manifold"),
    "c2st-cnn": ("c2st", "C2ST"),
    "lesions": ("lesions", "BoxContrastMetric"),
    "appearance": ("lesions", "Appearance"),
    "places": ("places", "LesionPlaces"),
}
"""Metric -> module of this package, and its class there."""


@hookimpl
def register_metrics(register: Register) -> None:
    """Register ``METRICS``."""
    for name, (module, attribute) in METRICS.items():
        register(name, lazily(f"gansynth.metrics.{module}:{attribute}"))
