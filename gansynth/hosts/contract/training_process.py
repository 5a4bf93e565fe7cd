"""Train in a process of its own: ``python -m gansynth.hosts.contract.training_process FILE``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gansynth.core.source import SourceRequest
from gansynth.hosts.contract.host import framework
from gansynth.hosts.contract.launch import TrainingHandover
from gansynth.hosts.contract.session import Session
from gansynth.runtime.child import entry
from gansynth.runtime.files import read_json
from gansynth.runtime.progress import Reporter
from gansynth.sampling.run_source import open_source


def session_of(training: TrainingHandover, reporter: Reporter | None = None) -> Session:
    """Return the session of a training that was checked in another process."""
    request, folder = training.request, training.folder
    source = open_source(SourceRequest(**training.source))
    host = framework(request.target)(source, request, None if folder is None else folder.path)
    known = training.held_out or None
    return Session(host, reporter, held_out=known, handed_over=folder)


def main(arguments: Sequence[str]) -> int:
    """Train and return the exit code; a line on stderr explains a failure."""

    def work() -> None:
        session_of(TrainingHandover.from_json(read_json(Path(arguments[0])))).train(None)

    return entry(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
