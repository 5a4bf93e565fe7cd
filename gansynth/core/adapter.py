"""The contract of an adapter plugin: it mixes synthetic samples into one framework's training.

The host is the framework you train, e.g. nnU-Net. An adapter's ``source`` reads the host's training
cases. Its ``start`` trains the host with a share of its samples taken from a sample bank. The
host's installation is not changed.

``gansynth import``, ``prepare``, ``splits`` and ``doctor`` are commands of their own:
``register_commands``.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from gansynth.core.bank_options import BankCapacity
from gansynth.core.host_commands import ExportRequest, TrainingFolder, TrainingRequest
from gansynth.core.lineage import CaseRecord, guard_host
from gansynth.core.mix_config import Mix, MixConfig, TrainingResult
from gansynth.core.prediction import Prediction
from gansynth.core.schema import Sample, Schema
from gansynth.core.source import CaseSource, case_records
from gansynth.core.space import Space
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import SetOptions

HostArrays = Mapping[str, npt.NDArray[np.generic]]


def shortened(settings: Mapping[str, str], share: float, option: str) -> dict[str, str]:
    """Return settings with a share of an option's number, at least 1; the same without it."""
    if option not in settings or share == 1:
        return dict(settings)
    return {**settings, option: str(max(1, round(float(settings[option]) * share)))}


class HostOptions(SetOptions):
    """Base of a host's options, which a user gives as ``--KEY VALUE`` or ``--set KEY=VALUE``."""

    place: ClassVar[str] = ""
    """Key of the folder of a training's results, which ``-o`` sets; none if there is no such."""


class Adapter(ABC):
    """One host framework, opened on one data set and fold."""

    name: ClassVar[str]
    title: ClassVar[str] = ""
    """Its name in reports, if it is written otherwise than ``name``."""
    length_option: ClassVar[str] = "steps"
    """The option whose number is proportional to the optimiser steps; ``lasting`` sets it."""
    Options: ClassVar[type[HostOptions]] = HostOptions
    """Settings of ``gansynth augment``, each a flag of the command and a key of ``--set``. A field
    that is called as an option of the command itself (``device``) is a key of ``--set`` only.
    ``read_settings`` reads them."""
    needs: ClassVar[Literal["labels", "boxes"]] = "labels"
    """The training target that the host reads from a sample, beside its image."""
    any_size: ClassVar[bool] = False
    """Whether samples may be generated in a size other than that of the source's cases. Then the
    host's record holds no size, and ``bring`` receives such samples."""
    rewrites_real: ClassVar[bool] = False
    """Whether the adapter can also pass real cases through the generator's space."""
    variables: ClassVar[tuple[str, ...]] = ()
    """Prefixes of the environment variables that the host reads: jobs elsewhere get them, too."""

    def __init__(self, source: CaseSource) -> None:
        self.source = source
        self.samples_checked: MixConfig | None = None

    @property
    def schema(self) -> Schema:
        """Meaning of the host's arrays."""
        return self.source.schema

    @functools.cached_property
    def held_out(self) -> tuple[CaseRecord, ...]:
        """Lineage records of the held-out cases, which are read once for it."""
        return case_records(self.source, self.source.held_out_ids)

    @property
    def sample_size(self) -> tuple[int, ...]:
        """Smallest spatial size in voxels (host axes) a sample may have."""
        return (1,) * self.schema.ndim

    @abstractmethod
    def finalise(self, sample: Sample) -> HostArrays:
        """Compute the host's extra arrays of a sample, once, before admission to a sample bank.

        Args:
            sample: in the host's space.

        Returns:
            Named arrays, stored with the sample as the bank's extras.
        """

    @abstractmethod
    def validate(self) -> None:
        """Check host and data before any long computation.

        Raises:
            GansynthError: the first fault found.
        """

    def bring(self, source: CaseSource, space: Space) -> Callable[[Sample], Sample]:
        """Return the map that brings samples of another source's space into the host's space.

        Called once, in the producer. The map is applied to each sample before admission. It may
        raise ``DataFault``, which rejects the sample, for example one that is too small. The base
        class supports no other space. A host that does accepts such generators in ``check``.

        Args:
            source: the generator's training cases.
            space: the generator's.

        Raises:
            IntegrityFault: the host takes samples of its own space only.
        """
        guard_host(source.space.host, self.source.space.host)
        return lambda sample: sample

    @abstractmethod
    def check(self, request: TrainingRequest) -> None:
        """Check everything about a training that is known before it starts, without writing.

        Called after ``validate``, for dry and real runs alike. A host calls ``check_origin`` of
        ``gansynth.hosts.sample_source`` here: it refuses held-out cases and foreign spaces. The
        host adds checks of its settings, options and sample sizes.

        Raises:
            IntegrityFault: leakage, or a generator or bank made for another data set or space.
            UsageFault: a missing run or bank, or an invalid value.
        """

    def check_ways(self, mix_config: MixConfig) -> None:
        """Refuse options of mixing that this host does not support, for training and exports.

        Raises:
            UsageFault: names the option and the hosts that support it.
        """
        if mix_config.real_in_generator_space and not self.rewrites_real:
            raise UsageFault(
                f"--real-in-generator-space: {self.name} takes real cases as they are, expected a "
                "host that can bring them through the generator's space; leave it out"
            )

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Return settings under which trainings take equal numbers of optimiser steps.

        Optional, for benchmarks; the base class refuses.

        Args:
            steps: optimiser steps, as nearly as the host's own units allow.
            mixes: ratio and schedule of each training to compare.
            settings: set for all trainings.
            cases: real training cases of each training, perhaps fewer than the source's.

        Returns:
            For each of ``mixes``, what to set in addition to ``settings``.

        Raises:
            UsageFault: a number of steps that the host does not support.
        """
        raise UsageFault(
            f"{self.name}: does not say how it trains for a number of steps, expected a host that "
            "does"
        )

    @classmethod
    def shortened(cls, settings: Mapping[str, str], share: float) -> dict[str, str]:
        """Return settings for a share of their optimiser steps, for tuning and estimates.

        Args:
            settings: set for the whole training, with those of ``lasting``.
        """
        return shortened(settings, share, cls.length_option)

    @classmethod
    def impartial(cls, options: Sequence[str], settings: Mapping[str, str]) -> tuple[str, ...]:
        """Return host options under which held-out cases select nothing, for benchmarks.

        Args:
            options: those requested.
            settings: set for all trainings.

        Raises:
            UsageFault: the host would still use held-out cases, for example to select weights.
        """
        return tuple(options)

    @classmethod
    def heavier(cls, settings: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return settings and host options for stronger augmentation than usual, for benchmarks.

        Optional; the base class refuses.

        Args:
            settings: set for all trainings.

        Raises:
            UsageFault: the host has no stronger augmentation.
        """
        raise UsageFault(
            f"{cls.name}: knows no heavier augmentation of its own, expected a host that does; "
            "leave the arm out, or say what to set in it"
        )

    def training_folder(self, request: TrainingRequest) -> TrainingFolder | None:
        """Return the folder of a training that passed ``check``; None if the host has none.

        ``start`` goes on with an unfinished training in it, and trains nothing if the training
        there is finished.

        Raises:
            UsageFault: it holds another training, or other files.
        """
        return None

    def planned(self, request: TrainingRequest) -> Mapping[str, Any]:
        """Return the host's plan of a training that passed ``check``, for dry runs; empty here."""
        return {}

    def bank_plan(self, mix_config: MixConfig) -> BankCapacity | None:
        """Return the size of the bank that a training makes; None if none is made or unknown."""
        return None

    def samples_drawn(self, request: TrainingRequest) -> int | None:
        """Return how many samples, real and synthetic, a training draws; None if unknown.

        Partners in a mosaic do not count.
        """
        return None

    @abstractmethod
    def start(self, request: TrainingRequest) -> TrainingResult:
        """Train the unmodified host with synthetic samples mixed in, and wait until it ends.

        Returns:
            The outcome, even if many samples were missing; the caller decides if it is acceptable.

        Raises:
            GansynthError: what ``check`` refuses, or a failed training, with the last lines of the
                host's output.
        """

    def check_judged(self, settings: Mapping[str, str]) -> None:
        """Check before a training that its result can be evaluated, for benchmarks.

        Args:
            settings: set for all trainings.

        Raises:
            UsageFault: ``judged`` would find no predictions.
        """
        if type(self).judged is Adapter.judged:
            self.judged(Path())

    @classmethod
    def saving_levels(cls) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Return settings and host options with which ``judged`` also has ``levels``.

        Optional, for benchmarks at equal false alarms; the base class refuses.

        Raises:
            UsageFault: the host keeps no probabilities of held-out cases.
        """
        raise UsageFault(
            f"operating_point: {cls.name} keeps no probabilities of held-out cases, expected a "
            "host that does; leave it out"
        )

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        """Return the prediction of each held-out case: its predicted and its true label map.

        Optional; the base class refuses. ``gansynth.metrics.segmentation.evaluate`` reads them.

        Args:
            folder: of a finished training: ``TrainingResult.folder``.

        Raises:
            UsageFault: the host writes no label maps, only its own metrics.
            DataFault: the training is not finished.
        """
        raise UsageFault(
            f"{self.name} leaves no label maps of held-out cases, expected a host that does; its "
            "own metrics are in its outcome"
        )

    @classmethod
    def scores(cls, folder: Path) -> dict[str, Any]:
        """Return scores of a finished training, for tables of papers; the base class refuses.

        Returns:
            ``steps`` (of the optimiser), and ``per_case`` (case -> region -> Dice) or ``figures``
            of a detector (name -> value, as in ``gansynth.metrics.detection.measures.summary``).
        """
        raise UsageFault(f"{cls.name}: keeps no scores that a table could show")

    def export(self, request: ExportRequest) -> Mapping[str, Any]:
        """Write a data set that the stock host trains on without gansynth; train nothing.

        Optional; the base class refuses.

        Returns:
            A JSON document: folder, counts, bytes, place of the record, and the next command.

        Raises:
            GansynthError: what ``check`` refuses; a name that is taken; the disk is full.
        """
        raise UsageFault(
            f"--export {request.name}: {self.name} has no data sets to write, expected a target "
            "that has. Leave it out to train with samples mixed in"
        )
