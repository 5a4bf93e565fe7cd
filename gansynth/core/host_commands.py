"""Requests and reports of a host, and its commands (``register_commands``)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gansynth.core.bank_options import BankSize
from gansynth.core.mix_config import MixConfig
from gansynth.core.requests.hosts import Content
from gansynth.runtime.progress import NullReporter, Reporter


@dataclass(frozen=True)
class CommandReport:
    """A command's report, to read and as JSON; ``then``: arguments of the next command."""

    document: Mapping[str, Any]
    lines: Sequence[str] = ()
    then: Sequence[str] = ()


@dataclass(frozen=True)
class TrainingRequest:
    """One training of a host: ``gansynth augment``.

    ``settings``: ``--set`` values, keys already checked against ``Framework.Options``. ``options``:
    for the host's own command line.
    """

    mix_config: MixConfig
    settings: Mapping[str, str]
    options: Sequence[str]
    reporter: Reporter = field(default_factory=NullReporter, compare=False)


@dataclass(frozen=True)
class TrainingFolder:
    """The folder of a training's results, and how far the training in it has come.

    ``done``, ``total``: ``unit``s of the newest checkpoint and of the whole training; None if
    unknown. ``begun``: by an earlier command. ``finished``: trained and evaluated.
    """

    path: Path
    done: int
    total: int | None
    unit: str = "epoch"
    begun: bool = False
    finished: bool = False

    def __str__(self) -> str:
        at = f"{self.unit} {self.done}" + ("" if self.total is None else f" of {self.total}")
        if self.finished:
            return f"is finished in {self.path}: nothing is trained again"
        if self.done:
            return f"goes on at {at} in {self.path}"
        if self.begun:
            return f"starts anew in {self.path}: it was interrupted before its first checkpoint"
        return f"starts in {self.path}"


@dataclass(frozen=True)
class ExportRequest:
    """``gansynth augment --export NAME``.

    ``name``: of the new data set, as the host names its own; or its folder.
    ``size``: number of samples, where the ratio (0:1) does not give it. ``dry_run``: check
    everything, write nothing.
    """

    mix_config: MixConfig
    name: str
    reporter: Reporter
    content: Content = "mixed"
    size: BankSize | None = None
    dry_run: bool = False
