"""SIGKILL at random instants, again and again: what is left is whole, and work goes on from it."""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from gansynth_cli.main import cli

MOST = 6
"""Kills of one and the same folder, which then is finished."""


@dataclass
class Campaign:
    """A command that is killed at random instants.

    Attributes:
        name: what is killed.
        words: of a folder, the command, which is typed again.
        whole: of a folder, what is wrong with what a killed command left.
        there: exit code of the command where its result is there already.
        result: of a finished folder, what must be that of a command that was never killed.
    """

    name: str
    words: Callable[[Path], list[str]]
    result: Callable[[Path], Any]
    whole: Callable[[Path], list[str]] = lambda folder: []
    there: int = 0


@dataclass
class Outcome:
    """What became of a campaign's kills."""

    name: str
    kills: int = 0
    finished: int = 0
    seconds: float = 0.0
    """That the command takes if nobody kills it."""
    lost: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"seconds": round(self.seconds, 2)}


def forked(words: list[str], log: Path) -> int:
    """Run ``gansynth`` in a child that has everything imported; its process id."""
    child = os.fork()
    if child:
        return child
    code = 70
    try:
        said = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(said, 1)
        os.dup2(said, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", closefd=False) for n in (1, 2))
        sys.argv = ["gansynth", *words]
        from gansynth_cli.main import main

        main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def ended(child: int, seconds: float) -> int | None:
    """The exit code of a child if it ends within some time."""
    end = time.monotonic() + seconds
    while True:
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= end:
            return None
        time.sleep(0.002)


def run(campaign: Campaign, kills: int, folder: Path, note: Callable[[Outcome], None]) -> Outcome:
    """Kill the command so many times, a few times in each of as many folders as it takes.

    ``note`` is told of the outcome so far after each folder.
    """
    folder.mkdir(parents=True)
    rng, found, log = random.Random(0), Outcome(campaign.name), folder / "log.txt"
    warm = CliRunner().invoke(cli, campaign.words(folder / "warm"))  # imports everything
    assert warm.exit_code == 0, warm.output
    began = time.monotonic()
    code = ended(forked(campaign.words(folder / "whole"), log), 600)
    assert code == 0, log.read_text()
    found.seconds = time.monotonic() - began
    expected = campaign.result(folder / "whole")
    assert campaign.result(folder / "warm") == expected
    while found.kills < kills:
        here, hits = folder / str(found.finished), 0
        while True:
            child = forked(campaign.words(here), log)
            killing = hits < MOST and found.kills < kills
            code = ended(child, rng.uniform(0, found.seconds) if killing else 600)
            if code is not None:
                break
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
            hits, found.kills = hits + 1, found.kills + 1
            found.lost += [f"{here.name}, kill {hits}: {what}" for what in campaign.whole(here)]
        code = 0 if code == campaign.there and hits else code
        if code == 0:  # and nothing is done twice
            code = ended(forked(campaign.words(here), log), 600)
            code = 0 if code == campaign.there else code or 70
        last = log.read_text().splitlines()[-1:] if code else []
        if code == 0 and campaign.result(here) != expected:
            last = ["another result than that of a command never killed"]
        left = [path.name for path in here.rglob("*") if ".tmp-" in path.name] if not code else []
        found.lost += [f"{here.name}: {what}" for what in [*last, *left]]
        found.finished += 1
        note(found)
    return found


def write(path: Path, found: Outcome) -> None:
    """Put an outcome into a file of results beside others."""
    document = json.loads(path.read_text()) if path.exists() else {}
    entry = {"date": time.strftime("%Y-%m-%d"), **found.to_json()}
    path.write_text(json.dumps({**document, found.name: entry}, indent=1) + "\n")
