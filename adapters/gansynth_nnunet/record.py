"""``gansynth.json`` beside nnU-Net's checkpoints: what each session of a training mixed in.

nnU-Net's checkpoint has no place for it. A training that is continued adds a session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth import __version__
from gansynth.drawlog import Counts
from gansynth.errors import IntegrityFault, UsageFault
from gansynth.integrity import read_json, write_json_atomic
from gansynth.lineage import Lineage
from gansynth_nnunet.config import MixConfig

if TYPE_CHECKING:
    from gansynth.bank import BankReader

SIDECAR = "gansynth.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
"""What nnU-Net continues a training from, the first there is."""
COMPARED = (
    *("ratio", "schedule", "bank", "frozen", "size", "edits"),
    *("usual_augmentation", "augment_synthetic", "cascade"),
)
"""What a continued training should have in common with what it continues."""
_MINE = ("run", "bank", "scratch", "device")
"""Of this machine and session; none of the record's business."""


class SessionRecord:
    """The record of one session, and of those it continues.

    Args:
        folder: nnU-Net's output folder.
        epoch: the session's first; 0 starts a new training, whose record starts anew too.
        session: see ``describe_session``.
        epochs: of the whole training.

    Attributes:
        changes: what differs from the session that this one continues, in words.

    Raises:
        UsageFault, IntegrityFault: see ``compare``.
    """

    def __init__(
        self, folder: Path, epoch: int, session: Mapping[str, Any], epochs: int | None = None
    ) -> None:
        self.path = folder / SIDECAR
        self._epoch = epoch
        self._earlier = read_sessions(folder) if epoch > 0 else []
        self.changes = compare(self._earlier[-1], session, epochs) if self._earlier else []
        self._session = {**session, "of_epochs": epochs, "changes": self.changes}

    def write(
        self,
        epoch: int,
        counts: Counts,
        *,
        complete: bool,
        asked: float | None = None,
        supply: Mapping[str, Any] | None = None,
        chosen: Sequence[str] = (),
    ) -> None:
        """Write all sessions, atomically.

        Args:
            epoch: the next one to train.
            counts: what this session has drawn.
            complete: whether the training has reached its end.
            asked: share of synthetic samples that ratio and schedule asked for meanwhile.
            supply: what the producer did.
            chosen: real cases that fine-tuning may draw.

        Raises:
            EnvironmentFault: the disk refuses.
        """
        this = {
            "epochs": [self._epoch, epoch],
            **self._session,
            "chosen": list(chosen),
            "drawn": counts.to_json(),
            "asked": None if asked is None else round(asked, 6),
            "supply": dict(supply or {}),
        }
        sessions = [*self._earlier, this]
        document = {"gansynth": __version__, "complete": complete, "sessions": sessions}
        write_json_atomic(self.path, document)


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """What the sessions of a training have left; none if there is no record.

    Raises:
        IntegrityFault: a damaged record.
    """
    path = folder / SIDECAR
    sessions = read_json(path).get("sessions", []) if path.is_file() else []
    return [session for session in sessions if isinstance(session, dict)]


def describe_session(
    config: MixConfig, generator: Mapping[str, Any] | None, lineage: Lineage | None
) -> dict[str, Any]:
    """What is mixed in and how, without what belongs to one machine.

    Args:
        config: what is mixed in.
        generator: see ``describe_generator``; None if nothing is.
        lineage: every case the generator or bank has seen; None if nothing is mixed in.
    """
    injection = config.injection.to_json()
    document = {k: v for k, v in injection.items() if k not in _MINE}
    described = None if generator is None else dict(generator)
    return {
        **document,
        "bank": _bank(config, described or {}),
        "cascade": config.cascade,
        "settings": dict(config.settings),
        "generator": described,
        "lineage": None if lineage is None else _lineage(lineage),
    }


def _bank(config: MixConfig, generator: Mapping[str, Any]) -> str:
    if config.bank is None:
        return "filled by a producer" if config.generator is not None else "none"
    return f"existing, SHA-256 {generator.get('bank_sha256')}"


def compare(before: Mapping[str, Any], now: Mapping[str, Any], epochs: int | None) -> list[str]:
    """What differs between a session and the one it continues, in words.

    Args:
        before: the last session of the record.
        now: see ``describe_session``.
        epochs: of the whole training, now.

    Raises:
        UsageFault: another kind of schedule: half of one and half of another is neither.
        IntegrityFault: a generator or bank of another data set or fold.
    """
    kinds = [
        str(session.get("schedule", "constant")).partition(":")[0] for session in (before, now)
    ]
    if kinds[0] != kinds[1]:
        raise UsageFault(
            f"--schedule {now['schedule']}: the training to be continued has the schedule "
            f"{before['schedule']}, expected one of the same kind; start anew without --c"
        )
    origins = [session.get("lineage") for session in (before, now)]
    if all(origins):
        seen = [f"{origin['dataset']} fold {origin['fold']}" for origin in origins if origin]
        if seen[0] != seen[1]:
            raise IntegrityFault(
                f"lineage: the training to be continued has drawn samples of {seen[0]}, now they "
                f"are of {seen[1]}; expected the same. Name that generator, or start anew without "
                "--c"
            )
    # The seed says which cases fine-tuning draws.
    compared = (*COMPARED, "seed") if kinds[0] == "finetune" else COMPARED
    keys = [key for key in compared if before.get(key, now[key]) != now[key]]
    changed = [f"{key}: {before[key]} before, {now[key]} now" for key in keys]
    if _hash(before) != _hash(now):
        changed.append("another generator")
    lasted = before.get("of_epochs")
    if kinds[0] != "constant" and None not in (lasted, epochs) and lasted != epochs:
        changed.append(f"epochs: {lasted} before, {epochs} now, which shifts the schedule")
    return changed


def describe_generator(folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Which generator a run folder holds, with the hash of its manifest (and so of its weights)."""
    from gansynth.run import manifest_sha256

    return {
        "run_id": manifest["run_id"],
        "name": manifest["generator"],
        "folder": str(folder),
        "manifest_sha256": manifest_sha256(folder),
        **({"conversion": manifest["conversion"]} if "conversion" in manifest else {}),
    }


def describe_bank(reader: BankReader) -> dict[str, Any]:
    """Which generator has filled a bank, and the hash of a finished one's content."""
    return {
        "run_id": reader.spec.run_id,
        "manifest_sha256": reader.spec.generator,
        "bank_sha256": reader.sha256,
    }


def _hash(session: Mapping[str, Any]) -> str | None:
    generator: Mapping[str, Any] = session.get("generator") or {}
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
