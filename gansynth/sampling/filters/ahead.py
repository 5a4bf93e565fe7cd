"""Filters learn before samples are drawn: in the process that the user looks at, with progress.

A producer would learn what is still missing by itself, but unseen.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource
from gansynth.runtime.progress import Reporter
from gansynth.sampling.filters.fitted import build_filters, ensure_learnt, folder_of, to_learn
from gansynth.sampling.opening import own_source


def learn_ahead(
    run: RunFolder | None,
    filters: Sequence[str],
    host: CaseSource,
    *,
    target: str = "",
    device: str = "auto",
    reporter: Reporter | None = None,
) -> None:
    """Learn what a run's folder has nothing of yet, and check all that it has.

    Args:
        run: the run; None where samples come from a bank, which were judged already.

    Raises:
        GansynthError: see ``ensure_learnt``.
    """
    if run is None or not filters:
        return
    from gansynth.core.registry import installed
    from gansynth.runtime.devices import pick_device

    any_size = bool(target) and installed().adapter(target).any_size
    missing = to_learn(run.folder, filters)
    if missing and reporter is not None:
        names = ", ".join(item.name for item in missing)
        reporter.say(f"{run}: learning filters from its training cases, once: {names}")
    source = own_source(run, host, any_size=any_size)
    ensure_learnt(run, source, filters, str(pick_device(device)), reporter)


def planned_filters(run: RunFolder | None, filters: Sequence[str]) -> dict[str, Any]:
    """What a dry run says: each filter, and whether it would have to learn first."""
    if run is None or not filters:
        return {}
    ready = {True: "learnt", False: "would learn first, from the run's training cases"}
    built = build_filters(filters)
    return {"filters": {item.name: ready[folder_of(run.folder, item).exists()] for item in built}}
