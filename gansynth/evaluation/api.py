"""``gansynth.evaluate``: the command in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from gansynth.evaluation import evaluate as evaluation
from gansynth.evaluation.open_samples import SampleSelection
from gansynth.metrics.comparison import EFFORTS
from gansynth.runtime.errors import UsageFault, did_you_mean
from gansynth.runtime.progress import RichReporter
from gansynth.runtime.words import Given, Texts, as_texts, as_tuple, changed
from gansynth.sampling.request_parsing import SampleWords, read_real, read_request

NEEDS = {
    "condition_source_read": "condition_source",
    "real_read": "real",
    "metric": "only=realism or !only",
}


def evaluate(
    run: str | os.PathLike[str],
    *,
    real: str | None = None,
    real_read: Mapping[str, Any] | None = None,
    n: int = 64,
    out: str | os.PathLike[str] | None = None,
    only: Texts = (),
    metric: Texts = (),
    preset: str = "standard",
    exported: str | os.PathLike[str] | None = None,
    pictures: bool = True,
    seed: int = 0,
    device: str = "auto",
    data: str | None = None,
    root: str | None = None,
    quiet: bool = False,
    **samples: Unpack[SampleWords],
) -> dict[str, Any]:
    """Evaluate the samples of a run or a sample bank: ``gansynth evaluate``.

    Each argument is the option of that name; ``gansynth evaluate --help`` explains them.

    Args:
        run: a run, its folder, or a sample bank's.
        n: number of samples, and of real crops.
        preset: ``quick``, ``standard`` or ``thorough``.

    Returns:
        What ``--json`` prints; ``files`` has the paths of the report.

    Raises:
        GansynthError: typed by cause, see ``gansynth.runtime.errors``.
    """
    words = {**locals(), **samples}
    Given(words, changed(words, evaluate)).refuse_idle(NEEDS)
    if preset not in EFFORTS:
        raise UsageFault(
            f"--preset {preset}: expected one of: {', '.join(EFFORTS)}."
            f"{did_you_mean(preset, EFFORTS)}"
        )
    return evaluation.evaluate(
        Path(run),
        read_real(real, as_texts(real_read)),
        out=None if out is None else Path(out),
        sample_options=SampleSelection(n, read_request(seed=seed, **samples)),
        options=evaluation.EvaluationOptions(
            as_tuple(only) or evaluation.PARTS,
            as_tuple(metric),
            EFFORTS[preset],
            pictures,
            None if exported is None else Path(exported),
        ),
        device=device,
        data=data,
        root=root,
        reporter=RichReporter(quiet=quiet),
    )
