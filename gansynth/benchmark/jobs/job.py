"""One job: a command with a content address, and what it needs to be done before it."""

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
WORK = "{work}"
"""Stands in a job's words for the folder it is to write to."""


@dataclass(frozen=True)
class Job(Document):
    """A command, addressed by what it computes.

    Attributes:
        key: content address, 16 to 64 hexadecimal digits. Two jobs with one key are one job.
        title: for people: ``cgan, N=6, draw 1, seed 0``.
        group: row of the table it counts in: ``fit``, ``train``.
        argv: words of the ``gansynth`` command; a whole command if the first is an absolute path.
            ``{work}`` in them becomes the folder it writes to. That folder exists, and everything
            in it is published.
        folder: where the result is published: ``STORE/KEY``. Jobs that need this one read there.
        env: variables of the command, over those of the process that runs the jobs.
        resumable: the command goes on from what it finds in ``{work}``, which is then kept when it
            is interrupted or fails. Else every attempt begins in an empty folder.
        estimate_s: expected seconds, until such jobs have been measured.
    """

    key: str
    title: str
    group: str
    argv: tuple[str, ...]
    _: KW_ONLY
    folder: Path
    needs: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict, hash=False)
    resumable: bool = False
    estimate_s: float | None = None

    def command(self, work: Path) -> list[str]:
        """The words of a process that writes to a folder."""
        words = [word.replace(WORK, str(work)) for word in self.argv]
        if os.path.isabs(words[0]):
            return words
        return [sys.executable, "-m", "gansynth_cli", *words]


def in_order(jobs: Iterable[Job], store: Path) -> list[Job]:
    """Jobs so that each comes after what it needs, else in the order given.

    Raises:
        UsageFault: two jobs with one key, a need that is no job, jobs that need each other, a key
            that is none, a job without words, or one that is published outside of ``store``.
    """
    known: dict[str, Job] = {}
    for job in jobs:
        if job.key in known:
            titles = f"{known[job.key].title!r} and {job.title!r}"
            raise UsageFault(f"job {job.key}: given twice, as {titles}; expected one job a key")
        known[job.key] = job
        _check(job, store)
    for job in known.values():
        for need in job.needs:
            if need not in known:
                raise UsageFault(
                    f"job {job.title!r}: needs {need}, which is no job; expected a key of one of "
                    f"the {len(known)} jobs"
                )
    try:
        ordered = TopologicalSorter({job.key: job.needs for job in known.values()}).static_order()
        return [known[key] for key in ordered]
    except CycleError as error:
        round_ = " -> ".join(known[key].title for key in _cycle(error.args))
        raise UsageFault(f"jobs need each other: {round_}; expected no circle") from None


def _check(job: Job, store: Path) -> None:
    if not KEY.fullmatch(job.key):
        raise UsageFault(f"job {job.title!r}: key {job.key!r}: expected 16 to 64 digits 0-9 a-f")
    if not job.argv:
        raise UsageFault(f"job {job.title!r}: no words; expected those of a command")
    if job.folder != store / job.key:
        raise UsageFault(f"job {job.title!r}: folder {job.folder}: expected {store / job.key}")


def _cycle(told: Sequence[Any]) -> Sequence[str]:
    """The keys of a circle, from what graphlib says: (words, keys)."""
    return list(told[1])
