"""The contract an adapter plugin fulfils: it mixes synthetic samples into one host's training.

An adapter goes both ways. Its ``source`` reads the host's own training cases; ``start`` trains the
host with a share of its samples drawn from a bank. Nothing of the host is changed on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from gansynth.ratio import Ratio
from gansynth.schema import Sample, Schema
from gansynth.sources.base import CaseSource

HostArrays = Mapping[str, npt.NDArray[np.generic]]


@dataclass(frozen=True)
class Injection:
    """How samples enter a host.

    Attributes:
        run: folder of the generator's run.
        ratio: real:synthetic.
        frozen: draw from a finished bank of ``bank_samples`` (offline augmentation) instead of one
            that a producer keeps fresh.
        bank_samples: how many samples the bank holds.
        bank: folder of an existing bank to read; None makes one.
        edits: condition edits by name, in order; empty takes the run's own.
        seed: seeds conditions and latents.
        device: where the producer runs: ``auto``, ``cpu``, ``cuda:1``.
        strict: stop at once when a synthetic sample is missing, instead of counting it.
    """

    run: Path
    ratio: Ratio
    frozen: bool = False
    bank_samples: int = 64
    bank: Path | None = None
    edits: Sequence[str] = ()
    seed: int = 0
    device: str = "auto"
    strict: bool = False


@dataclass(frozen=True)
class Outcome:
    """What a host's training with synthetic samples came to.

    Attributes:
        folder: where the host wrote its results.
        drawn_real: samples the host drew from real cases.
        drawn_synthetic: samples it drew from the bank.
        fell_back: real samples drawn because the bank had nothing to give (part of ``drawn_real``).
        metrics: the host's validation metrics on real cases only, e.g. ``{"dice": 0.87}``.
    """

    folder: Path
    drawn_real: int
    drawn_synthetic: int
    fell_back: int
    metrics: Mapping[str, Any] = field(default_factory=dict)

    @property
    def realised(self) -> float:
        """Realised share of synthetic samples."""
        return self.drawn_synthetic / max(1, self.drawn_real + self.drawn_synthetic)


class Adapter(ABC):
    """One host framework, opened on one data set and fold."""

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, str]] = {}
    """Keys that ``--set`` accepts for this host, each with one sentence."""

    def __init__(self, source: CaseSource) -> None:
        self.source = source

    @property
    def schema(self) -> Schema:
        """What the host's arrays mean."""
        return self.source.schema

    @property
    @abstractmethod
    def sample_size(self) -> tuple[int, ...]:
        """Smallest spatial size in voxels (host axes) a sample may have."""

    @abstractmethod
    def finalise(self, sample: Sample) -> HostArrays:
        """What the host wants beside image and labels, made once, before admission to a bank.

        Args:
            sample: in the host's space.

        Returns:
            Named arrays, stored with the sample as the bank's extras.
        """

    @abstractmethod
    def validate(self) -> None:
        """Check host and data before anything long starts.

        Raises:
            GansynthError: the first thing that is wrong.
        """

    @abstractmethod
    def inject(self, dataset: Any, bank: Path, ratio: Ratio, *, batch_size: int, seed: int) -> Any:
        """Wrap the host's *training* data set so that it serves samples of a bank at a ratio."""

    @abstractmethod
    def start(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> Outcome:
        """Train the unmodified host with synthetic samples mixed in, and wait for its end.

        Args:
            injection: what to mix in.
            settings: ``--set`` values, already checked against ``settings``.
            options: passed through to the host's own command line.

        Raises:
            GansynthError: if the host could not be trained, with its own last words.
        """
