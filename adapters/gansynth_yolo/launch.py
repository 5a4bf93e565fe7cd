"""``python -m gansynth_yolo.launch CONFIG.json``: the training process of a detector.

The detector trains as in its own library, on a mirror of the user's data set. ``Slots`` fill its
training set. Its best weights are then evaluated on the real validation and test images.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from gansynth.core.source import SourceRequest
from gansynth.runtime.child import entry, limit_threads
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth_yolo.config import MIRROR, YoloConfig
from gansynth_yolo.detectors import Detector, DetectorJob, detector

if TYPE_CHECKING:
    from gansynth_yolo.session import YoloSession


def train(config: YoloConfig) -> None:
    """Train, then evaluate on real images.

    Raises:
        GansynthError: a fault of the data, generator, detector or machine.
    """
    from gansynth_yolo.evaluation import judge
    from gansynth_yolo.mirror import mirror
    from gansynth_yolo.session import YoloSession
    from gansynth_yolo.source import open_yolo

    source = open_yolo(SourceRequest(**config.request))
    chosen = detector(config.choices.detector)
    job = config.job(source)
    limit_threads(job.device)
    mirror(source, config.output / MIRROR, channels=job.channels)
    chosen.check(job)
    with closing(YoloSession(config, source, job)) as session:
        weights = _train(chosen, job, session)
        session.close(complete=True)
    judge(config.output, source, chosen, job, weights)


def _train(chosen: Detector, job: DetectorJob, session: YoloSession) -> Path:
    try:
        return chosen.train(job, session.slots, session)
    except Exception as error:
        # The main process may only learn that a worker has gone, not why.
        if stopped := session.stopped():
            raise TrainingFault(stopped) from error
        raise


def main(arguments: Sequence[str]) -> int:
    """Train and return the exit code; a line on stderr explains a failure."""

    def work() -> None:
        if len(arguments) != 1:
            raise UsageFault("usage: python -m gansynth_yolo.launch CONFIG.json")
        train(YoloConfig.read(Path(arguments[0])))

    return entry(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
