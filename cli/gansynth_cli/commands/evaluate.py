"""``gansynth evaluate``: realism, faithfulness and memorisation of samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gansynth.core.requests.samples import EvaluateRequest
from gansynth_cli.common import Output, examples
from gansynth_cli.requests import request_command
from gansynth_cli.results import lines_of_evaluation


def show(request: EvaluateRequest, document: dict[str, Any], out: Output) -> None:
    """Print the main figures."""
    out.result(document, lines_of_evaluation(document, Path(request.run)))


command = request_command(
    EvaluateRequest,
    "gansynth.evaluation.api:run_evaluation",
    show,
    epilog=examples(
        "gansynth evaluate runs/g0 -n 100",
        "gansynth evaluate banks/g0 --real nnunet:004 --real-read configuration=2d",
    ),
)
