"""The log of looks: every time a plan was judged on a split, and what for.

A file beside the plan, a JSON document a line. Each line holds its own hash and that of the one
before, so that a line taken out or changed is seen; the last ones, cut off, are seen in version
control only. A look is written down before the first result of it exists.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.benchmark.division import SEALED
from gansynth.runtime.errors import IntegrityFault
from gansynth.runtime.files import disk_errors, reading, write_bytes_atomic

ENDING, OWN = ".looks.jsonl", "hash"


class Looks:
    """The log of one plan's looks.

    Raises:
        IntegrityFault: the log has been changed by somebody else than gansynth.
    """

    def __init__(self, plan: Path) -> None:
        self.path = plan.with_name(plan.name.removesuffix(".yaml").removesuffix(".yml") + ENDING)
        self.entries = self._read()

    def look(
        self,
        split: str,
        plan_hash: str,
        people: Sequence[str],
        arms: Sequence[str],
        again: str,
        *,
        dry_run: bool = False,
    ) -> int:
        """Write down that a plan is judged on some people; the number of the look, from 1.

        The same plan on the same people is the same look: it may be taken up again.

        Args:
            split: ``development`` or ``sealed``.
            again: why a sealed split is looked at by another plan; empty for no reason.

        Raises:
            IntegrityFault: another plan has looked at these sealed people, and there is no reason.
        """
        hashes = [person_hash(person) for person in people]
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
                f"{self.path}: the sealed subjects have been looked at {len(earlier)} time(s), "
                f"last on {last['when']} by plan {last['plan_hash']}, this one is {plan_hash}; "
                "expected one look: try things on the development split, or say why once more, "
                "which every report will show: --look-again REASON"
            )
        number: int = 1 + sum(one["split"] == split for one in self.entries)
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
        self.entries.append({**new, OWN: _hash(new)})
        text = "".join(f"{json.dumps(one, sort_keys=True)}\n" for one in self.entries)
        with disk_errors(self.path):
            write_bytes_atomic(self.path, text.encode())
        return number

    def told(self) -> list[dict[str, Any]]:
        """Looks for a report: without the people."""
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
                entry = json.loads(line)
                whole = entry["before"] == (_hash(entries[-1]) if entries else None)
                rest = {key: value for key, value in entry.items() if key != OWN}
                whole = whole and entry.get(OWN, _hash(rest)) == _hash(rest)  # once there was none
            except (ValueError, KeyError, TypeError):
                whole = False
            if not whole:
                raise IntegrityFault(
                    f"{self.path}: line {number} does not follow from those before it, expected "
                    "the log as gansynth wrote it; bring it back from version control"
                )
            entries.append(entry)
        return entries


def person_hash(person: str) -> str:
    """A person in the log, which may be published: nobody reads the name off it at a glance."""
    return hashlib.sha256(person.encode()).hexdigest()[:12]


def _hash(entry: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(entry, sort_keys=True).encode()).hexdigest()[:16]
