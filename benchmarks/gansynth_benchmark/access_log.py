"""The access log of the test set: every evaluation of a plan on a split, with its reason.

The log is a JSON Lines file beside the plan. Each line holds its own hash and the hash of the
previous line, so removed or changed lines are detected. Only version control shows that lines were
cut off at the end. An access is logged before its first result exists.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.runtime.errors import IntegrityFault
from gansynth.runtime.files import disk_errors, parse_json, reading, write_bytes_atomic
from gansynth_benchmark.subject_split import SEALED

ENDING, OWN = ".looks.jsonl", "hash"


class AccessLog:
    """The access log of one plan."""

    def __init__(self, plan: Path) -> None:
        self.path = plan.with_name(plan.name.removesuffix(".yaml").removesuffix(".yml") + ENDING)
        self.entries = self._read()

    def look(
        self,
        split: str,
        plan_hash: str,
        subjects: Sequence[str],
        arms: Sequence[str],
        again: str,
        *,
        dry_run: bool = False,
    ) -> int:
        """Log that a plan is evaluated on subjects, and return the access number, from 1.

        The same plan on the same subjects is the same access: it may be resumed.

        Args:
            split: ``development`` or ``sealed``.
            again: why another plan accesses a sealed split; empty without a reason.
        """
        hashes = [person_hash(subject) for subject in subjects]
        for entry in self.entries:
            same = entry["plan_hash"] == plan_hash and entry["people"] == hashes
            if same and entry["split"] == split:
                return int(entry["look"])
        earlier = [
            entry
            for entry in self.entries
            if entry["split"] == SEALED and set(entry["people"]) & set(hashes)
        ]
        if split == SEALED and earlier and not again:
            last = earlier[-1]
            raise IntegrityFault(
                "benchmark.sealed-subjects-already-accessed",
                f"{self.path}: the sealed subjects were accessed {len(earlier)} time(s), last on "
                f"{last['when']} by plan {last['plan_hash']}; this plan is {plan_hash}. Expected "
                "one access: use the development split, or give a reason with --reopen-test-set "
                "REASON. "
                "Every report will show it.",
            )
        number = 1 + [entry["split"] for entry in self.entries].count(split)
        if dry_run:
            return number
        new = {
            "look": number,
            "split": split,
            "plan_hash": plan_hash,
            "when": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            "arms": list(arms),
            "reason": again or None,
            "people": hashes,
            "before": _hash(self.entries[-1]) if self.entries else None,
        }
        new[OWN] = _hash(new)
        self.entries.append(new)
        lines = [f"{json.dumps(entry, sort_keys=True)}\n" for entry in self.entries]
        with disk_errors(self.path):
            write_bytes_atomic(self.path, "".join(lines).encode())
        return number

    def report_entries(self) -> list[dict[str, Any]]:
        """Return the log entries for a report, without subjects and hashes."""
        return [
            {k: v for k, v in entry.items() if k not in ("people", "before", OWN)}
            for entry in self.entries
        ]

    def _read(self) -> list[dict[str, Any]]:
        if not self.path.is_file():
            return []
        with reading(self.path):
            lines = self.path.read_text(encoding="utf-8").splitlines()
        entries: list[dict[str, Any]] = []
        for number, line in enumerate(lines, start=1):
            try:
                entry = parse_json(line)
                whole = entry["before"] == (_hash(entries[-1]) if entries else None)
                content = {key: value for key, value in entry.items() if key != OWN}
                # Earlier versions wrote no hash.
                whole = whole and entry.get(OWN, _hash(content)) == _hash(content)
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                raise IntegrityFault(
                    "benchmark.access-log-altered",
                    f"{self.path}: line {number} does not match the lines before it, expected the "
                    "log as gansynth wrote it; restore it from version control",
                )
            entries.append(entry)
        return entries


def person_hash(subject: str) -> str:
    """Return the pseudonym of a subject in the log: 12 hexadecimal digits of its id's SHA-256."""
    return hashlib.sha256(subject.encode()).hexdigest()[:12]


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]
