"""``python -m gansynth.hosts.apart FILE``: the training of a host in a process of its own."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gansynth.core.host_commands import TrainingRequest
from gansynth.core.lineage import CaseRecord
from gansynth.core.mix_config import MixConfig
from gansynth.core.registry import installed
from gansynth.core.source import SourceRequest
from gansynth.hosts import launch
from gansynth.runtime.child import entry
from gansynth.runtime.files import read_json, write_json_atomic
from gansynth.runtime.serialise import Document
from gansynth.sampling.run_source import open_source

if TYPE_CHECKING:
    from gansynth.hosts.host import Framework

CONFIG = "gansynth_config.json"


@dataclass(frozen=True)
class ApartTraining(Document):
    """A training that was checked, on its way to its process."""

    target: str
    mix_config: MixConfig
    request: Mapping[str, Any]  # of the source that was checked, a `SourceRequest` as JSON
    settings: Mapping[str, str]
    options: tuple[str, ...]
    held_out: tuple[CaseRecord, ...]  # which need not be read again


def train_apart(host: Framework, request: TrainingRequest, output: Path) -> None:
    """Train and evaluate in a process of its own, until it ends.

    Raises:
        KeyboardInterrupt, SystemExit: interrupted, once the process has ended.
        GansynthError: its own typed fault, or TrainingFault for any other failure.
    """
    mix_config, source = request.mix_config, host.source.request.to_json()
    held_out = host.held_out if mix_config.ratio.p > 0 else ()
    training = ApartTraining(
        host.name, mix_config, source, dict(request.settings), tuple(request.options), held_out
    )
    write_json_atomic(output / CONFIG, training.to_json())
    launch.train_apart(
        *(__name__, [str(output / CONFIG)], output),
        f"the training of {host.title or host.name}",
        variables=os.environ,
        reporter=request.reporter,
    )


def main(arguments: Sequence[str]) -> int:
    """Train and return the exit code; a line on stderr explains a failure."""

    def work() -> None:
        training = ApartTraining.from_json(read_json(Path(arguments[0])))
        source = open_source(SourceRequest(**training.request))
        host = cast("Framework", installed().adapter(training.target)(source))
        if training.held_out:
            host.held_out = training.held_out
        host.train_here(
            TrainingRequest(training.mix_config, training.settings, training.options), None
        )

    return entry(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
