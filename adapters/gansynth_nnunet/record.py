"""``gansynth.json`` beside nnU-Net's checkpoints: what each session of a training mixed in.

nnU-Net's checkpoint has no place for it. A training that is continued adds a session.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from gansynth import __version__
from gansynth.drawlog import Counts
from gansynth.integrity import read_json, write_json_atomic
from gansynth.lineage import Lineage
from gansynth_nnunet.config import MixConfig

SIDECAR = "gansynth.json"
COMPARED = (
    *("ratio", "schedule", "frozen", "size", "edits", "usual_augmentation", "augment_synthetic"),
    "cascade",
)
"""What a continued training should have in common with what it continues."""
_MINE = ("run", "bank", "scratch", "device")
"""Of this machine and session; none of the record's business."""


class SessionRecord:
    """The record of one session, and of those it continues.

    Args:
        folder: nnU-Net's output folder.
        epoch: the session's first; 0 starts a new training, whose record starts anew too.
        config: what is mixed in.
        generator: see ``describe_generator``; None for a bank of unknown origin.
        lineage: every case the generator or bank has seen; None if nothing is mixed in.
    """

    def __init__(
        self,
        folder: Path,
        epoch: int,
        config: MixConfig,
        generator: Mapping[str, Any] | None,
        lineage: Lineage | None,
    ) -> None:
        self.path = folder / SIDECAR
        self._epoch = epoch
        self._earlier: list[dict[str, Any]] = []
        if epoch > 0 and self.path.is_file():
            self._earlier = read_json(self.path).get("sessions", [])
        self._session = {
            **_settings(config),
            "settings": dict(config.settings),
            "generator": None if generator is None else dict(generator),
            "lineage": None if lineage is None else _lineage(lineage),
        }

    def changes(self) -> list[str]:
        """What differs from the session that this one continues, in words."""
        if not self._earlier:
            return []
        before, now = self._earlier[-1], self._session
        keys = [key for key in COMPARED if before.get(key, now[key]) != now[key]]
        changed = [f"{key}: {before[key]} before, {now[key]} now" for key in keys]
        if _hash(before) != _hash(now):
            changed.append("another generator")
        return changed

    def write(self, epoch: int, counts: Counts, *, complete: bool) -> None:
        """Write all sessions, atomically.

        Args:
            epoch: the next one to train.
            counts: what this session has drawn.
            complete: whether the training has reached its end.

        Raises:
            EnvironmentFault: the disk refuses.
        """
        this = {"epochs": [self._epoch, epoch], **self._session, "drawn": counts.to_json()}
        sessions = [*self._earlier, this]
        document = {"gansynth": __version__, "complete": complete, "sessions": sessions}
        write_json_atomic(self.path, document)


def describe_generator(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Which generator a run folder holds, with the hash of its manifest (and so of its weights)."""
    from gansynth.run import manifest_sha256

    return {
        "run_id": manifest["run_id"],
        "name": manifest["generator"],
        "folder": str(folder),
        "manifest_sha256": manifest_sha256(folder),
    }


def _settings(config: MixConfig) -> dict[str, Any]:
    """What is mixed in and how, without what belongs to one machine."""
    injection = config.injection.to_json()
    return {k: v for k, v in injection.items() if k not in _MINE} | {"cascade": config.cascade}


def _hash(session: Mapping[str, Any]) -> str | None:
    generator: Mapping[str, Any] = session["generator"] or {}
    return generator.get("manifest_sha256")


def _lineage(lineage: Lineage) -> dict[str, Any]:
    document: dict[str, Any] = {
        "dataset": lineage.dataset,
        "fold": lineage.fold,
        "cases": [asdict(case) for case in lineage.cases],
    }
    if lineage.ancestors:
        document["ancestors"] = [_lineage(ancestor) for ancestor in lineage.ancestors]
    return document
