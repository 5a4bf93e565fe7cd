"""``gansynth.json`` beside nnU-Net's checkpoints: what each session of a training mixed in."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.core.lineage import Lineage
from gansynth.hosts import record
from gansynth_nnunet.config import MixConfig

SIDECAR = "gansynth.json"
CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_latest.pth", "checkpoint_best.pth")
"""What nnU-Net continues a training from, the first there is."""
COMPARED = (*record.COMPARED, "cascade")
"""What a continued training should have in common with what it continues."""
ANEW = "start anew without --c"


class SessionRecord(record.SessionRecord):
    """The record of one session of nnU-Net's, and of those it continues.

    Args:
        folder: nnU-Net's output folder.
        epoch: the session's first; 0 starts a new training, whose record starts anew too.
        session: see ``describe_session``.
        epochs: of the whole training.

    Raises:
        UsageFault, IntegrityFault: see ``compare``.
    """

    def __init__(
        self, folder: Path, epoch: int, session: Mapping[str, Any], epochs: int | None = None
    ) -> None:
        super().__init__(folder / SIDECAR, epoch, session, epochs, compared=COMPARED, anew=ANEW)


def read_sessions(folder: Path) -> list[dict[str, Any]]:
    """What the sessions of a training have left in nnU-Net's output folder; maybe none.

    Raises:
        IntegrityFault: a damaged record.
    """
    return record.read_sessions(folder / SIDECAR)


def describe_session(
    config: MixConfig, generator: Mapping[str, Any] | None, lineage: Lineage | None
) -> dict[str, Any]:
    """What is mixed in and how; see ``gansynth.hosts.record``."""
    return {
        **record.describe_session(config.injection, generator, lineage),
        "cascade": config.cascade,
        "settings": dict(config.settings),
    }


def compare(before: Mapping[str, Any], now: Mapping[str, Any], epochs: int | None) -> list[str]:
    """What differs between a session and the one it continues, in words.

    Raises:
        UsageFault, IntegrityFault: see ``gansynth.hosts.record.compare``.
    """
    return record.compare(before, now, epochs, COMPARED, ANEW)
