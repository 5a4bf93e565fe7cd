"""``python -m gansynth.hosts.apart FILE``: the training of a host in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gansynth.core.host_commands import TrainingRequest
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.hosts.launch import ApartTraining
from gansynth.runtime.child import entry
from gansynth.runtime.files import read_json
from gansynth.sampling.run_source import open_source


def main(arguments: Sequence[str]) -> int:
    """Train and return the exit code; a line on stderr explains a failure."""

    def work() -> None:
        told = ApartTraining.from_json(read_json(Path(arguments[0])))
        source = open_source(SourceRequest(**told.request))
        host: Any = installed().adapter(told.target)(source)
        if told.held_out:
            host.held_out = told.held_out
        host.train_here(TrainingRequest(told.mix_config, told.settings, told.options), None)

    return entry(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
