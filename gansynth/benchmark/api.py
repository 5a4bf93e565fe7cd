"""``gansynth.benchmark``: the command in Python."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from gansynth.benchmark.estimate import estimate
from gansynth.benchmark.plan_file import read_plan
from gansynth.benchmark.running import BenchmarkRequest, run_benchmark
from gansynth.runtime.progress import RichReporter
from gansynth.runtime.words import Texts, as_tuple


def benchmark(
    plan: str | os.PathLike[str],
    *,
    data: str | None = None,
    out: str | os.PathLike[str] | None = None,
    arm: Texts = (),
    test_set: bool = False,
    reopen_test_set: str = "",
    executor: str = "local",
    cache: Texts = (),
    pictures: bool = True,
    no_probe: bool = False,
    dry_run: bool = False,
    quiet: bool = False,
) -> dict[str, Any]:
    """Measure whether samples help, by how much, and how certain that is: ``gansynth benchmark``.

    Each argument is the option of that name; ``gansynth benchmark --help`` explains them. The same
    call resumes.

    Args:
        plan: YAML file (docs/benchmark.md).

    Returns:
        The results document, with ``files``: name -> path; of a dry run the estimate.

    Raises:
        GansynthError: the plan cannot be run, or a training failed; the report names it.
    """
    file = Path(plan)
    read = read_plan(file, data)
    request = BenchmarkRequest(
        file=file,
        folder=Path("runs") / "benchmarks" / read.name if out is None else Path(out),
        sealed=test_set,
        again=reopen_test_set,
        arms=as_tuple(arm),
        executor=executor,
        caches=tuple(map(Path, as_tuple(cache))),
        pictures=pictures,
    )
    if dry_run:
        return estimate(read, request, probe=not no_probe, reporter=RichReporter(quiet=quiet))
    document, files, report = run_benchmark(read, request, quiet=quiet)
    report.raise_if_failed()
    return {**document, "files": {name: str(path) for name, path in files.items()}}
