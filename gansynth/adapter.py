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

from gansynth.lineage import Lineage, guard, guard_host
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
        reasons: why, in a few words -> how many of ``fell_back``; as far as the host knows.
        metrics: the host's validation metrics on real cases only, e.g. ``{"dice": 0.87}``.
    """

    folder: Path
    drawn_real: int
    drawn_synthetic: int
    fell_back: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)

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

    def check(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> None:
        """Check everything about one training that can be known before it starts; write nothing.

        Called after ``validate``, for dry and real runs alike. This one keeps held-out cases and
        foreign spaces out; a host adds what it knows of its settings, options and sample sizes.

        Args:
            injection: what is to be mixed in; nothing of it is looked at if the ratio is R:0.
            settings: ``--set`` values, keys already checked against ``settings``.
            options: for the host's own command line.

        Raises:
            IntegrityFault: leakage, or a generator or bank made for another data set or space.
            UsageFault: no run or bank there, or a value that cannot be.
        """
        if injection.ratio.p == 0:
            return
        lineage, what = _origin(injection)
        guard_host(lineage.host, self.source.host, what=what)
        guard(lineage, self.source.records(self.source.held_out_ids), what=what)

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

        Returns:
            What it came to, also if many samples were missing: whether that was too many is for the
            caller to say, who still has the result.

        Raises:
            GansynthError: what ``check`` refuses; or the host could not be trained, with its own
                last words.
        """


def _origin(injection: Injection) -> tuple[Lineage, str]:
    """What the samples' maker has seen, and what to call it."""
    if injection.bank is not None:
        from gansynth.bank import BankReader

        return BankReader(injection.bank).spec.lineage, "bank"
    from gansynth.run import read_manifest

    return Lineage.from_json(read_manifest(injection.run)["lineage"]), "generator"
