"""TODO."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.metrics.measure import Measured, load_metrics, measure

if TYPE_CHECKING:
    from gansynth.core.sample_request import Asking


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
    from gansynth.sampling.drawer import SampleDrawer
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.opening import open_moved

    metrics = load_metrics(names)
    opened = load_run(run, device)
    source = open_moved(opened, data, root)
    drawer = SampleDrawer(opened, source, edits, seed, classes, boxes, asking=asking)
    samples = drawer.draw_raw(0, number)
    real = [drawer.beside(sample) for sample in samples]
    return measure(metrics, samples, real, opened.generator.schema)
