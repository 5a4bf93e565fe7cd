"""``gansynth.evaluate``: the command in Python."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from gansynth.core.requests.base import function_of
from gansynth.core.run_folder import RunFolder
from gansynth.core.schema import Schema
from gansynth.fitting.run_report import write_run_report
from gansynth.metrics.comparison import EFFORTS
from gansynth.runtime.errors import DataFault
from gansynth.runtime.files import disk_errors, write_json_atomic
from gansynth.runtime.progress import RichReporter
from gansynth.sampling.request_parsing import read_real, read_request
from gansynth_evaluate.evaluate import (
    PARTS,
    EvaluationOptions,
    EvaluationResult,
    Timer,
    assess,
    chosen_metrics,
)
from gansynth_evaluate.open_samples import open_evaluated
from gansynth_evaluate.requests import EvaluateRequest

DOCUMENT = "evaluation.json"


def run_evaluation(request: EvaluateRequest) -> dict[str, Any]:
    """Evaluate the samples of a run or a sample bank: ``gansynth evaluate``.

    Each argument is the option of that name; ``gansynth evaluate --help`` explains them.

    Returns:
        What ``--json`` prints; ``files`` has the paths of the report.

    Raises:
        GansynthError: typed by cause, see ``gansynth.runtime.errors``.
    """
    real = read_real(request.real, request.real_read)
    asked = read_request(request, request.seed)
    exported = None if request.exported is None else Path(request.exported)
    options = EvaluationOptions(
        tuple(request.only) or PARTS,
        tuple(request.metric),
        EFFORTS[request.preset],
        request.pictures,
        exported,
    )
    metrics = chosen_metrics(options.metrics)  # fail before the slow sampling
    if exported is not None and not exported.is_dir():
        raise DataFault(f"--exported {exported}: no such folder; name one that is there")
    folder, clock, reporter = Path(request.run), Timer(), RichReporter(quiet=request.quiet)
    n, device = request.n, request.device
    with clock("samples"):
        gathered = open_evaluated(
            *(folder, real, n, asked),
            device=device,
            data=request.data,
            root=request.root,
            reporter=reporter,
        )
        comparison = gathered.comparison(n, asked.seed, options.effort, device, reporter)
    assessed = assess(gathered, comparison, metrics, options, clock)
    usual = _usual_folder(folder, gathered.kind)
    target = usual if request.out is None else Path(request.out)
    files = _write(assessed, comparison.schema, target)
    if gathered.kind == "run" and target == usual:
        write_run_report(RunFolder(folder), reporter)  # the measures go into its card
    return {**assessed.document, "files": files}


evaluate = function_of(EvaluateRequest, run_evaluation, "evaluate")


def _usual_folder(folder: Path, kind: str) -> Path:
    if kind == "run":
        return folder / "evaluation"
    return folder.with_name(f"{folder.resolve().name}-evaluation")


def _write(result: EvaluationResult, schema: Schema, out: Path) -> dict[str, str]:
    from gansynth_evaluate.memorisation import write_copies
    from gansynth_evaluate.report import write_report

    document = result.document
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out / DOCUMENT, document)
    files = {DOCUMENT: out / DOCUMENT, **write_report(document, out, result.pictures, result.strip)}
    with disk_errors(out):
        files |= write_copies(out, document.get("memorisation"), result.pairs, schema)
    return {name: str(path) for name, path in files.items()}
