"""``gansynth predict``: label maps or boxes of new images by a training of gansynth augment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gansynth.core.requests.hosts import PredictRequest
from gansynth_cli.common import Output, examples
from gansynth_cli.requests import request_command
from gansynth_cli.results import counted


def show(request: PredictRequest, done: Mapping[str, Any], out: Output) -> None:
    """Print where the predictions are."""
    count, first = len(done["files"]), done["files"][0]
    out.result(done, [f"{counted(count, 'case')} predicted in {request.out}, first {first}"])


command = request_command(
    PredictRequest,
    "gansynth.hosts.augment:run_predict",
    show,
    epilog=examples(
        "gansynth predict nnunet/nnUNet_results/g0_1-1_constant scans/ -o predicted",
        "gansynth predict runs/segmenter/cases_g0_1-1_constant scans.csv -o predicted",
    ),
)
