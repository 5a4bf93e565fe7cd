"""One job: a command with a content address and dependencies."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import UsageFault
from gansynth.runtime.serialise import Document

KEY = re.compile(r"[0-9a-f]{16,64}")
WORK = "{work}"  # placeholder in a job's words for its output folder


@dataclass(frozen=True)
class JobSpec(Document):
    """A command, addressed by its content."""

    key: str  # content address, 16 to 64 hexadecimal digits. Two jobs with one key are one job.
    title: str  # readable name: `cgan, N=6, draw 1, seed 0`
    group: str  # row of the progress table: `fit`, `train`
    # words of the `gansynth` command; a whole command if the first is an absolute path. `{work}`
    # becomes the output folder, which exists and is published whole.
    argv: tuple[str, ...]
    _: KW_ONLY
    folder: Path  # where the result is published: `STORE/KEY`. Dependents read it there.
    needs: tuple[str, ...] = ()
    # environment variables of the command, over those of the calling process
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    # the command resumes from files in `{work}`, which is kept after an interruption or a failure.
    # Else every attempt begins in an empty folder.
    resumable: bool = False
    estimate_s: float | None = None  # expected seconds, until jobs of the group have been measured

    def command(self, work: Path) -> list[str]:
        """Return the command line that writes to a folder."""
        words = [word.replace(WORK, str(work)) for word in self.argv]
        if os.path.isabs(words[0]):
            return words
        return [sys.executable, "-m", "gansynth_cli", *words]


def in_order(jobs: Iterable[JobSpec], store: Path) -> list[JobSpec]:
    """Sort jobs so that each comes after its needs, else in the given order."""
    by_key: dict[str, JobSpec] = {}
    for job in jobs:
        if job.key in by_key:
            titles = f"{by_key[job.key].title!r} and {job.title!r}"
            raise UsageFault(f"job {job.key}: given twice, as {titles}; expected one job a key")
        by_key[job.key] = job
        _check(job, store)
    for job in by_key.values():
        for need in job.needs:
            if need not in by_key:
                raise UsageFault(
                    f"job {job.title!r}: needs {need}, which is not a job; expected a key of one "
                    f"of the {len(by_key)} jobs"
                )
    try:
        ordered = TopologicalSorter({job.key: job.needs for job in by_key.values()}).static_order()
        return [by_key[key] for key in ordered]
    except CycleError as error:
        round_ = " -> ".join(by_key[key].title for key in _cycle(error.args))
        raise UsageFault(f"jobs need each other: {round_}; expected no cycle") from None


def _check(job: JobSpec, store: Path) -> None:
    if not KEY.fullmatch(job.key):
        raise UsageFault(f"job {job.title!r}: key {job.key!r}: expected 16 to 64 digits 0-9 a-f")
    if not job.argv:
        raise UsageFault(f"job {job.title!r}: no words; expected those of a command")
    if job.folder != store / job.key:
        raise UsageFault(f"job {job.title!r}: folder {job.folder}: expected {store / job.key}")


def _cycle(arguments: Sequence[Any]) -> Sequence[str]:
    """Return the keys of a cycle from the arguments of graphlib's error: (words, keys)."""
    return list(arguments[1])
