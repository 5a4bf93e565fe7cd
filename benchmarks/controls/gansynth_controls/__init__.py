"""``controls``: a target for benchmarks, ``pip install -e benchmarks/controls``.

It is the segmenter with what others do without a generator: a mean teacher, pseudo-labels or a
masked autoencoder on unlabelled scans, perhaps of another site, and CutMix of real cases. Without
these settings it is the segmenter to the bit.
"""

from __future__ import annotations

from gansynth import Register, hookimpl, lazily


@hookimpl
def register_hosts(register: Register) -> None:
    """Register ``controls``."""
    register("controls", lazily("gansynth_controls.host:ControlsHost"))


@hookimpl
def register_trials(register: Register) -> None:
    """Register those of the segmenter."""
    register("controls", lazily("gansynth_segmenter.trials:SegmenterTrials"))
