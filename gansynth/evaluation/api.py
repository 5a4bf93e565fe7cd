"""``gansynth.evaluate``: the command in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from gansynth.core.run_folder import RunFolder
from gansynth.core.schema import Schema
from gansynth.evaluation.evaluate import (
    PARTS,
    EvaluationOptions,
    EvaluationResult,
    Timer,
    assess,
    chosen_metrics,
)
from gansynth.evaluation.open_samples import open_evaluated
from gansynth.fitting.run_report import write_run_report
from gansynth.metrics.comparison import EFFORTS
from gansynth.runtime.errors import DataFault, UsageFault, did_you_mean
from gansynth.runtime.files import disk_errors, write_json_atomic
from gansynth.runtime.progress import RichReporter
from gansynth.runtime.words import Given, Texts, as_texts, as_tuple, changed
from gansynth.sampling.request_parsing import SampleWords, read_real, read_request

DOCUMENT = "evaluation.json"
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
    real_request = read_real(real, as_texts(real_read))
    request = read_request(seed=seed, **samples)
    options = EvaluationOptions(
        as_tuple(only) or PARTS,
        as_tuple(metric),
        EFFORTS[preset],
        pictures,
        None if exported is None else Path(exported),
    )
    metrics = chosen_metrics(options.metrics)  # fail before the slow sampling
    if options.exported is not None and not options.exported.is_dir():
        raise DataFault(f"--exported {options.exported}: no such folder; name one that is there")
    folder, clock, reporter = Path(run), Timer(), RichReporter(quiet=quiet)
    with clock("samples"):
        gathered = open_evaluated(
            folder, real_request, n, request, device=device, data=data, root=root, reporter=reporter
        )
        comparison = gathered.comparison(n, request.seed, options.effort, device, reporter)
    assessed = assess(gathered, comparison, metrics, options, clock)
    usual = _usual_folder(folder, gathered.kind)
    target = usual if out is None else Path(out)
    files = _write(assessed, comparison.schema, target)
    if gathered.kind == "run" and target == usual:
        write_run_report(RunFolder(folder), reporter)  # the measures go into its card
    return {**assessed.document, "files": files}


def _usual_folder(folder: Path, kind: str) -> Path:
    if kind == "run":
        return folder / "evaluation"
    return folder.with_name(f"{folder.resolve().name}-evaluation")


def _write(result: EvaluationResult, schema: Schema, out: Path) -> dict[str, str]:
    from gansynth.evaluation.memorisation import write_copies
    from gansynth.evaluation.report import write_report

    document = result.document
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    write_json_atomic(out / DOCUMENT, document)
    files = {DOCUMENT: out / DOCUMENT, **write_report(document, out, result.pictures, result.strip)}
    with disk_errors(out):
        files |= write_copies(out, document.get("memorisation"), result.pairs, schema)
    return {name: str(path) for name, path in files.items()}
