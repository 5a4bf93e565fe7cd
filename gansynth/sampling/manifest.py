"""A run folder: the result of a fit, and how to open it again.

``config.yaml`` (resolved options), ``manifest.json`` (schema, space, lineage, hashes, versions),
``metrics.csv``, ``samples/`` (preview grids), ``checkpoints/``, ``report.html``, ``card.md``. Paths
inside are relative, so a run can be moved. Only preview grids, and the report, which shows them,
contain patients' images.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import platform
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.core.capabilities import Capabilities, Input
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.run_folder import VERSION, RunDescription
from gansynth.core.source import CaseSource, Sameness, is_recorded
from gansynth.core.space import Space
from gansynth.runtime.errors import EnvironmentFault, IntegrityFault
from gansynth.runtime.files import disk_errors, elsewhere, refuse_unwritable
from gansynth.runtime.version import build

if TYPE_CHECKING:
    from filelock import BaseFileLock

    from gansynth.core.case_pool import CaseCheck, CaseReader
    from gansynth.core.generator import Generator

log = logging.getLogger("gansynth")
COMPOSITE, PARTS = "composite", "parts"
"""Generator name of a run of several parts, and its manifest key and folder for them."""
NOTHING = "nothing"  # output of a part that only initialises another one


@dataclass
class Run(RunDescription):
    """A run with at least a checkpoint, ready to generate samples."""

    folder: Path
    generator: Generator  # with the averaged weights loaded, on its device
    manifest: dict[str, Any]


def new_manifest(
    generator: str, source: CaseSource, space: Space, lineage: Lineage, edits: Sequence[str]
) -> dict[str, Any]:
    """Return the initial manifest of a run; capabilities, options and state are added later."""
    import numpy
    import torch

    return {
        "version": VERSION,
        "run_id": uuid.uuid4().hex[:12],
        "generator": generator,
        "capabilities": Capabilities().to_json(),
        "options": {},
        "schema": source.schema.to_json(),
        "space": space.to_json(),
        "lineage": lineage.to_json(),
        "edits": list(edits),
        "request": source.request.to_json(),
        "config": {},
        "state": {},
        "weights": None,
        "steps": 0,
        "complete": False,
        "versions": {
            "gansynth": build(),
            "torch": torch.__version__,
            "numpy": numpy.__version__,
            "python": platform.python_version(),
        },
        "created": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def content_check(run: Path, lineage: Lineage) -> CaseCheck:
    """Return a check (``TrainingCases``) that a case is the one that a run was fitted on."""
    return partial(_check_content, run, {case.id: case for case in lineage.cases}, set())


def _check_content(
    run: Path,
    recorded: Mapping[str, CaseRecord],
    told: set[Path],
    case_id: str,
    reader: CaseReader,
) -> None:
    source, record = reader.source, recorded.get(case_id)
    same: Sameness = "other"
    if record is not None:
        same = is_recorded(record, source, reader.content(case_id))
    if same == "alike" and run not in told:
        told.add(run)
        log.warning(
            "%s: fitted by an earlier version, whose hash of case %s depends on the machine; its "
            "image looks the same, so it is used. Whether its label map has changed cannot be "
            "told; fit again, and it can",
            run,
            case_id,
        )
    if same == "other":
        raise IntegrityFault(
            "sampling.case-content-changed",
            f"{run}: case {case_id!r} of {source.name} is not the one the run was fitted on; "
            "expected the same content. It has been preprocessed, or replaced: restore it, or "
            "fit again",
        )


def check_lockable(folder: Path) -> None:
    """Refuse a folder that ``locked`` would refuse, and write nothing."""
    refuse_unwritable(folder)
    if (folder / ".lock").exists():
        _acquired(folder).release()


def _acquired(folder: Path, hint: str | None = None) -> BaseFileLock:
    """Return the folder's lock, which this process now has."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise _held(folder, hint) from None
    except OSError as error:
        raise _not_lockable(folder, error, hint) from error
    return lock


def _held(folder: Path, hint: str | None = None) -> EnvironmentFault:
    hint = hint or f"choose another: {elsewhere(folder)}"
    holder = folder / ".holder"
    who = holder.read_text(encoding="utf-8") if holder.exists() else "another process"
    return EnvironmentFault(
        "sampling.run-folder-locked",
        f"{folder}: locked by {who}; expected one process per folder. Wait for it, or {hint}",
    )


def _not_lockable(folder: Path, error: OSError, hint: str | None = None) -> EnvironmentFault:
    hint = hint or "name a folder with -o"
    if error.errno in (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS):
        hint = (
            "its whole file system takes no locks, as NFS does whose lock service does not run: "
            "mount it with -o local_lock=all (where one machine alone writes to it) or start its "
            f"lock service (rpc.statd), or {hint} on another file system"
        )
    return EnvironmentFault(
        "sampling.run-folder-not-lockable",
        f"{folder}: cannot be locked ({error.strerror}); {hint}",
    )


@contextlib.contextmanager
def locked(folder: Path, hint: str | None = None) -> Iterator[None]:
    """Lock a run folder for this process alone; ``hint`` is another way out than another -o."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise EnvironmentFault(
            "sampling.run-folder-not-made",
            f"{folder}: cannot be made ({error.strerror}), expected a writable place; "
            f"{hint or 'name one with -o'}",
        ) from error
    holder, lock = folder / ".holder", _acquired(folder, hint)
    try:
        since = time.strftime("%Y-%m-%d %H:%M:%S")
        with disk_errors(holder):
            holder.write_text(f"pid {os.getpid()} since {since}", encoding="utf-8")
        yield
    finally:
        with contextlib.suppress(OSError):  # the folder may have gone
            holder.unlink(missing_ok=True)
        lock.release()


OF_A_CLASS: frozenset[Input] = frozenset({"labels", "channels", "boxes", "class"})
"""Samples that follow one of these have the class of the case of their condition."""


def seen_classes(run: Run) -> Sequence[str]:
    """Return the classes of the cases it has seen; none if it has seen all cases."""
    classes: Sequence[str] = run.request.view.get("classes", ())
    return classes


def conditioned_on_classes(run: Run) -> bool:
    """Return whether samples have the requested class; from noise alone they may not."""
    return len(seen_classes(run)) == 1 or not run.capabilities.takes.isdisjoint(OF_A_CLASS)
