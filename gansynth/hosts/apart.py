"""``python -m gansynth.hosts.apart FILE``: the training of a host in a process of its own."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import cast

from gansynth.core.host_commands import TrainingRequest
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.hosts.host import Framework
from gansynth.hosts.launch import ApartTraining
from gansynth.runtime.child import entry
from gansynth.runtime.files import read_json
from gansynth.sampling.run_source import open_source


def main(arguments: Sequence[str]) -> int:
    """Train and return the exit code; a line on stderr explains a failure."""

    def work() -> None:
        training = ApartTraining.from_json(read_json(Path(arguments[0])))
        source = open_source(SourceRequest(**training.request))
        host = cast(Framework, installed().adapter(training.target)(source))
        if training.held_out:
            host.held_out = training.held_out
        host.train_here(
            TrainingRequest(training.mix_config, training.settings, training.options), None
        )

    return entry(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
