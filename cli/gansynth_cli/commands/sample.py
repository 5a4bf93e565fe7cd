"""``gansynth sample``: generate labelled samples from a run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gansynth.core.requests.samples import SampleRunRequest
from gansynth_cli.common import Output, examples, summary
from gansynth_cli.requests import request_command
from gansynth_cli.results import lines_of_samples


def show(request: SampleRunRequest, report: dict[str, Any], out: Output) -> None:
    """Print what was written."""
    again, shown = request.replay is not None, dict(report)
    already = shown.pop("sampled_already")
    lines = ["sampled already: the same samples are there"] if already else []
    if again:
        lines += summary(shown)
    else:
        lines += lines_of_samples(shown, Path(request.run), shared=request.deidentify)
    out.result(report, lines)


command = request_command(
    SampleRunRequest,
    "gansynth.sampling.sample:run_sample",
    show,
    epilog=examples(
        "gansynth sample runs/g0 -n 16 --sheet --metric spectrum",
        "gansynth sample runs/g0 --replay results/gansynth_draws/draws-host-4711.csv:17 -o again/",
    ),
)
