"""Fit filters before sampling, in the process that the user watches, with progress.

A producer would fit missing filters itself, but without visible progress.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource
from gansynth.runtime.progress import Reporter
from gansynth.sampling.filters.fitted import build_filters, ensure_learnt, folder_of, to_learn
from gansynth.sampling.run_source import source_of_run


def learn_ahead(
    run: RunFolder | None,
    filters: Sequence[str],
    host: CaseSource,
    *,
    target: str = "",
    device: str = "auto",
    reporter: Reporter | None = None,
) -> None:
    """Fit the filters that a run's folder lacks, and check those that it has.

    Args:
        run: the run; None where samples come from a bank, which are already checked.
    """
    if run is None or not filters:
        return
    from gansynth.core.registry import installed
    from gansynth.runtime.devices import pick_device

    any_size = bool(target) and installed().adapter(target).any_size
    missing = to_learn(run.folder, filters)
    if missing and reporter is not None:
        names = ", ".join(item.name for item in missing)
        reporter.say(f"{run}: fitting filters to its training cases, once: {names}")
    source = source_of_run(run, host, any_size=any_size)
    ensure_learnt(run, source, filters, str(pick_device(device)), reporter)


def planned_filters(run: RunFolder | None, filters: Sequence[str]) -> dict[str, Any]:
    """Return a dry run's report: each filter, and whether it must be fitted first."""
    if run is None or not filters:
        return {}
    ready = {True: "learnt", False: "would learn first, from the run's training cases"}
    built = build_filters(filters)
    return {"filters": {item.name: ready[folder_of(run.folder, item).exists()] for item in built}}
