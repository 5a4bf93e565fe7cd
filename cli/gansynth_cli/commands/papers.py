"""``gansynth papers``: reproduce a paper's table, with its numbers beside ours."""

from __future__ import annotations

from typing import Any

from gansynth.core.requests.studies import PapersRequest
from gansynth_cli.common import Hint, Output, examples
from gansynth_cli.requests import request_command


def show(request: PapersRequest, document: dict[str, Any], out: Output) -> None:
    """Print the table, after the commands of a dry run."""
    lines = document.pop("table")
    if request.dry_run:
        out.result(document, [*document["commands"], "", *lines, document["cost"]])
        return
    file = document.pop("file", None)
    keep = Hint("next: the same with -o DIR keeps runs and results")
    out.result(document, [*lines, keep if file is None else f"results: {file}"])


command = request_command(
    PapersRequest,
    "gansynth.benchmark.api:run_papers",
    show,
    epilog=examples(
        "gansynth papers shin2018 --data nifti:brats/ --extra-source tissues=nifti:tissues/ "
        "--dry-run",
        "gansynth papers han2019-cpggan --data yolo:data.yaml -o papers/han2019",
    ),
)
