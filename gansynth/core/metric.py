"""What a metric is: a function of samples and real cases in the generator's space."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.core.schema import Case, Sample, Schema
from gansynth.runtime.errors import GansynthError, UsageFault

if TYPE_CHECKING:
    from gansynth.core.sample_request import Asking

Metric = Callable[[Sequence[Sample], Sequence[Case], Schema], Mapping[str, float]]
"""(samples, real cases, their schema) -> named numbers; JSON-able."""

Measured = dict[str, dict[str, float | None]]
"""Metric -> its named numbers; None where a number is not finite, which JSON cannot hold."""


def measure_run(
    run: Path,
    names: Sequence[str],
    number: int,
    *,
    seed: int = 0,
    edits: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    boxes: str | None = None,
    asking: Asking | None = None,
    device: str = "auto",
    data: str | None = None,
    root: str | None = None,
) -> Measured:
    """Measure samples of a run beside the real cases their labels came from.

    Args:
        run: run folder.
        names: registered metrics.
        number: how many samples, numbers 0 to ``number - 1`` of the seed.
        seed: seeds conditions and latents.
        edits: condition edits; None takes the run's own.
        classes: names of the classes to draw samples of; None for all.
        boxes: which boxes are asked for; None for the usual ones.
        asking: what else is asked of samples; None for the usual.
        device: ``auto``, ``cpu``, ``cuda:0``.
        data: KIND:WHERE of the run's data set, if it was moved or renamed.
        root: overrides where the source's host folders lie.

    Raises:
        UsageFault: no run, an unknown metric, or one that fails.
    """
    from gansynth.data.opening import open_moved
    from gansynth.sampling.drawer import SampleDrawer
    from gansynth.sampling.run import load_run

    metrics = load_metrics(names)
    opened = load_run(run, device)
    source = open_moved(opened, data, root)
    drawer = SampleDrawer(opened, source, edits, seed, classes, boxes, asking=asking)
    samples = drawer.draw_raw(0, number)
    real = [drawer.beside(sample) for sample in samples]
    return measure(metrics, samples, real, opened.generator.schema)


def load_metrics(names: Sequence[str]) -> dict[str, Metric]:
    """Registered metrics by name.

    Raises:
        UsageFault: one is unknown or does not load.
    """
    from gansynth.core.registry import installed

    return {name: installed().metric(name) for name in names}


def measure(
    metrics: Mapping[str, Metric], samples: Sequence[Sample], real: Sequence[Case], schema: Schema
) -> Measured:
    """Apply metrics to samples and real cases of the generator's space.

    Raises:
        UsageFault: a metric raises, or returns anything but named numbers.
    """
    measured: Measured = {}
    for name, metric in metrics.items():
        try:
            found = {str(key): float(value) for key, value in metric(samples, real, schema).items()}
        except GansynthError:
            raise
        except Exception as error:  # a stranger's code
            text = " ".join(str(error).split())
            raise UsageFault(
                f"metric {name!r} fails on {len(samples)} sample(s): {type(error).__name__}: "
                f"{text}; expected named numbers. Leave it out, or mend its plugin"
            ) from error
        measured[name] = {k: v if math.isfinite(v) else None for k, v in found.items()}
    return measured
