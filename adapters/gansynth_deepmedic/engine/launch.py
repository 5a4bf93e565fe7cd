"""``python -m gansynth_deepmedic.engine.launch ORDER.json``: process of the torch engine.

The session starts it, owns the producer and writes the record. ``Progress`` reports to it.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from gansynth.runtime.child import entry, limit_threads
from gansynth.runtime.errors import UsageFault
from gansynth_deepmedic.engine.order import TrainingOrder


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(arguments: Sequence[str]) -> int:
    """Train and return the exit code; a line on stderr explains a failure."""

    def work() -> None:
        if len(arguments) != 1:
            raise UsageFault("usage: python -m gansynth_deepmedic.engine.launch ORDER.json")
        from gansynth_deepmedic.engine.train import TorchTraining, TrainingTask

        training = TorchTraining(TrainingTask.of(TrainingOrder.read(Path(arguments[0]))), _say)
        limit_threads(training.device.type)
        training.run()

    return entry(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
