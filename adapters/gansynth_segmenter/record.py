"""A segmenter's training job, and ``gansynth_session.json`` beside its results."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gansynth.core.adapter import MixConfig
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.hosts import record
from gansynth.hosts.sample_source import SampleSource
from gansynth.metrics.segmentation.regions import Regions
from gansynth_segmenter.options import OF_THE_MACHINE, SegmenterOptions

METRICS = "metrics.json"
COMPARED = (*record.COMPARED, "data", "read", "fold", "training_seed", "settings")


@dataclass(frozen=True)
class SegmenterJob:
    """One training that has passed every check."""

    mix_config: MixConfig  # the mix and its options
    options: SegmenterOptions  # of the training
    source: CaseSource  # the real cases
    space: Space  # space of the network
    regions: Regions  # regions for Dice, with all labels
    steps: int  # of the whole training
    output: Path  # folder for results
    sample_source: SampleSource | None  # generator or bank; None without synthetic samples
    sample_bytes: int  # most bytes of a sample in a bank
    patience: float  # seconds that a phase without real cases waits for a sample

    @property
    def seed(self) -> int:
        """The seed of weights, crops and augmentation."""
        seed = self.options.seed
        return self.mix_config.seed if seed is None else seed


def describe(job: SegmenterJob) -> dict[str, Any]:
    """Describe the data, mix and settings of one session."""
    request = job.source.request
    return {
        **record.describe_session(job.mix_config, job.sample_source),
        "data": f"{request.kind}:{request.where}",
        "read": dict(request.read),
        "fold": job.source.request.fold,
        "counted_in": "steps",
        "training_seed": job.seed,
        "settings": trained(job),
        "versions": {name: version(name) for name in ("torch", "numpy")},
    }


def trained(job: SegmenterJob) -> dict[str, Any]:
    """Return the settings that determine the trained network and its evaluation."""
    document = job.options.model_dump(mode="json", exclude=set(OF_THE_MACHINE))
    space = {"space": list(job.space.size), "grid": job.space.grid}
    return {**document, **space, "steps": job.steps}


def newest_step(output: Path) -> int:
    """Return the step of the newest whole checkpoint in a folder, or 0."""
    from gansynth.training import checkpoint

    newest = checkpoint.latest(output / "checkpoints")
    return 0 if newest is None else int(newest.state["step"])
