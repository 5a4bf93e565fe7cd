"""The segmenters of two papers as target frameworks, trained on real and synthetic cases.

Shin et al. 2018 evaluate synthetic MR images by a pix2pix that predicts label maps from images. Sun
et al. 2020 (MM-GAN) use 3D U-Nets. ``load_segmenter`` and ``judge`` use a trained one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gansynth import Register, hookimpl, lazily

if TYPE_CHECKING:
    from gansynth_segmenter.inference import judge, load_segmenter

__all__ = ["judge", "load_segmenter"]


@hookimpl
def register_hosts(register: Register) -> None:
    """Register ``segmenter``."""
    register("segmenter", lazily("gansynth_segmenter.host:SegmenterHost"))


@hookimpl
def register_trials(register: Register) -> None:
    """Register those of ``segmenter``."""
    register("segmenter", lazily("gansynth_segmenter.trials:SegmenterTrials"))


def __getattr__(name: str) -> Any:
    if name in __all__:
        return lazily(f"gansynth_segmenter.inference:{name}")()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
