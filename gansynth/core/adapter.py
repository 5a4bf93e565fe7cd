"""The contract an adapter plugin fulfils: it mixes synthetic samples into one host's training.

An adapter goes both ways. Its ``source`` reads the host's own training cases; ``start`` trains the
host with a share of its samples drawn from a bank. Nothing of the host is changed on disk.

``gansynth import``, ``prepare``, ``splits`` and ``doctor`` are optional class methods; the command
line finds the host by the name before the colon, ``doctor`` asks them all.
"""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from gansynth.core.bank_options import BankSize
from gansynth.core.host_commands import (
    DoctorRequest,
    ImportRequest,
    PrepareRequest,
    Report,
    SplitsRequest,
)
from gansynth.core.injection import Injection, Mix, MixPlan, Outcome
from gansynth.core.lineage import CaseRecord, guard_host
from gansynth.core.schema import Sample, Schema
from gansynth.core.source import CaseSource
from gansynth.core.space import Space
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.options import SetOptions

if TYPE_CHECKING:
    from gansynth.core.bank_options import BankPlan
    from gansynth.core.prediction import Prediction
    from gansynth.core.source import Split
    from gansynth.runtime.machine import Line
    from gansynth.runtime.progress import Reporter

__all__ = [
    "Adapter",
    "Content",
    "DoctorRequest",
    "HostArrays",
    "HostOptions",
    "ImportRequest",
    "Injection",
    "Mix",
    "Outcome",
    "PrepareRequest",
    "Report",
    "SplitsRequest",
]

HostArrays = Mapping[str, npt.NDArray[np.generic]]
Content = Literal["mixed", "synthetic"]
"""What is exported: real and synthetic cases to train on, or synthetic ones alone to share."""


class HostOptions(SetOptions):
    """Base of a host's options, which a user gives as ``--set KEY=VALUE``."""


class Adapter(ABC):
    """One host framework, opened on one data set and fold."""

    name: ClassVar[str]
    Options: ClassVar[type[HostOptions]] = HostOptions
    """What ``--set`` of ``gansynth augment`` may say; ``read_settings`` reads it."""
    ImportOptions: ClassVar[type[HostOptions]] = HostOptions
    """Likewise of ``gansynth import``."""
    PrepareOptions: ClassVar[type[HostOptions]] = HostOptions
    """Likewise of ``gansynth prepare``."""
    needs: ClassVar[Literal["labels", "boxes"]] = "labels"
    """What of a sample the host learns from, beside its image."""
    any_size: ClassVar[bool] = False
    """Whether samples may have been drawn in another size than the source reads its cases in; the
    host's record then says nothing of size, and ``bring`` is asked about such samples."""
    exact_over: ClassVar[Literal["batch", "epoch"]] = "batch"
    """Over what a constant ratio is exact, as far as whole samples allow: a batch of the host's, or
    one round through the places of its training set, which are then settled beforehand."""
    exports: ClassVar[Literal["nothing", "name", "folder"]] = "nothing"
    """What data sets that ``export`` writes are found by: a name among the host's own, or a folder
    that the user names; hosts of the first kind have none."""
    goes_on: ClassVar[tuple[str, ...]] = ()
    """Words of ``gansynth augment`` that take up an interrupted training in the same folder."""
    rewrites_real: ClassVar[bool] = False
    """Whether it can bring real cases through the generator's space, too."""

    def __init__(self, source: CaseSource) -> None:
        self.source = source
        self.samples_checked: Injection | None = None

    @property
    def schema(self) -> Schema:
        """What the host's arrays mean."""
        return self.source.schema

    @functools.cached_property
    def held_out(self) -> tuple[CaseRecord, ...]:
        """Records of the held-out cases; they are read for that, once."""
        return self.source.records(self.source.held_out_ids)

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

    def bring(self, source: CaseSource, space: Space) -> Callable[[Sample], Sample]:
        """What brings samples drawn in another source's space into the host's.

        Called once, in the producer; what it returns is called for each sample before admission. It
        may raise ``DataFault``, which rejects the sample; how small one may be is for it to judge.
        This one knows of no other space. A host that does accepts such generators in ``check``.

        Args:
            source: the generator's own training cases.
            space: the generator's.

        Raises:
            IntegrityFault: the host takes samples of its own space only.
        """
        guard_host(source.host, self.source.host)
        return lambda sample: sample

    @abstractmethod
    def check(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> None:
        """Check everything about one training that can be known before it starts; write nothing.

        Called after ``validate``, for dry and real runs alike. Held-out cases and foreign spaces
        are kept out by ``gansynth.hosts.checks.check_mixing``, which a host calls here; it adds
        what it knows of its settings, options and sample sizes.

        Args:
            injection: what is to be mixed in; nothing of it is looked at if the ratio is R:0.
            settings: ``--set`` values, keys already checked against ``settings``.
            options: for the host's own command line.

        Raises:
            IntegrityFault: leakage, or a generator or bank made for another data set or space.
            UsageFault: no run or bank there, or a value that cannot be.
        """

    def check_ways(self, injection: Injection) -> None:
        """Refuse ways of mixing that this host does not know at all, for training and exports.

        Raises:
            UsageFault: naming the option and the hosts that do.
        """
        if injection.real_in_generator_space and not self.rewrites_real:
            raise UsageFault(
                f"--real-in-generator-space: {self.name} takes real cases as they are, expected a "
                "host that can bring them through the generator's space, such as deepmedic; leave "
                "it out"
            )

    def lasting(
        self, steps: int, mixes: Sequence[Mix], settings: Mapping[str, str], cases: int
    ) -> list[dict[str, str]]:
        """Settings by which trainings take the same number of optimiser steps, for benchmarks.

        Optional: this one refuses.

        Args:
            steps: optimiser steps, as nearly as the host's own units allow.
            mixes: ratio and schedule of every training that is compared with the others.
            settings: what is set for all of them.
            cases: real training cases of each, which need not be the source's own.

        Returns:
            For each of ``mixes`` what to set beside ``settings``.

        Raises:
            UsageFault: steps that the host cannot take.
        """
        raise UsageFault(
            f"{self.name}: does not say how it trains for a number of steps, expected a host that "
            "does, such as nnunet or segmenter"
        )

    @classmethod
    def impartial(cls, options: Sequence[str], settings: Mapping[str, str]) -> tuple[str, ...]:
        """Host options by which the held-out cases choose nothing, for benchmarks.

        Args:
            options: those asked for.
            settings: what is set for all trainings.

        Raises:
            UsageFault: the host would choose its weights, say, by them all the same.
        """
        return tuple(options)

    @classmethod
    def heavier(cls, settings: Mapping[str, str]) -> tuple[Mapping[str, str], tuple[str, ...]]:
        """Settings and host options by which it augments more than usual, for benchmarks.

        Optional: this one refuses.

        Args:
            settings: what is set for all trainings.

        Raises:
            UsageFault: the host has no such thing.
        """
        raise UsageFault(
            f"{cls.name}: knows no heavier augmentation of its own, expected a host that does; "
            "leave the arm out, or say what to set in it"
        )

    def planned(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> Mapping[str, Any]:
        """What a host says of a training that ``check`` has passed, for dry runs; nothing here."""
        return {}

    def bank_plan(self, injection: Injection) -> BankPlan | None:
        """The bank that is made for a training; None if none is, or nobody knows."""
        return None

    def samples_drawn(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> int | None:
        """Samples, real and synthetic, that a training draws; None if nobody knows.

        Partners of a mosaic do not count.
        """
        return None

    @abstractmethod
    def inject(self, dataset: Any, plan: MixPlan[Any], *, batch_size: int) -> Any:
        """Wrap the host's *training* data set so that it serves what a plan puts into its slots.

        Let ``gansynth.hosts.mixer.Mixer`` decide: ratio, schedule, counting and what happens when a
        sample is missing are the same in every host.
        """

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

    def check_judged(self, settings: Mapping[str, str]) -> None:
        """Refuse, before a training, what could not be measured after it; for benchmarks.

        Args:
            settings: what is set for all trainings.

        Raises:
            UsageFault: ``judged`` would find nothing; this one knows only whether there is any.
        """
        if type(self).judged is Adapter.judged:
            self.judged(Path())

    def judged(self, folder: Path) -> Mapping[str, Prediction]:
        """Held-out case -> its predicted and its true label map.

        Optional: this one refuses. ``gansynth.metrics.segmentation.evaluate`` reads them.

        Args:
            folder: of a finished training: ``Outcome.folder``.

        Raises:
            UsageFault: there are no such files, only the host's own metrics.
            DataFault: the training has not come to its end.
        """
        raise UsageFault(
            f"{self.name} leaves no label maps of held-out cases, expected a host that "
            "does, such as nnunet, deepmedic or segmenter; its own metrics are in its outcome"
        )

    def export(
        self,
        injection: Injection,
        name: str,
        *,
        content: Content = "mixed",
        size: BankSize | None = None,
        dry_run: bool = False,
        reporter: Reporter,
    ) -> Mapping[str, Any]:
        """Write a data set that the stock host trains on, without gansynth; train nothing.

        Optional: this one refuses.

        Args:
            injection: where samples come from, and at which ratio to the training cases.
            name: of the new data set, as the host names its own; or its folder (``exports``).
            content: what is in it.
            size: how many samples, where the ratio (0:1) does not say.
            dry_run: check everything, write nothing.
            reporter: shows progress.

        Returns:
            A JSON document: folder, counts, bytes, where the record is, and what to run then.

        Raises:
            GansynthError: what ``check`` refuses; a name that is taken; the disk is full.
        """
        raise UsageFault(
            f"{name}: {self.name} has no data sets to write; expected a host that has, such as "
            "nnunet, deepmedic or yolo"
        )

    # -- commands for data sets, and doctor ------------------------------------------------------

    @classmethod
    def import_dataset(cls, request: ImportRequest) -> Report:
        """Copy a data set into the host's own layout: ``gansynth import``.

        Optional: this one refuses.

        Raises:
            UsageFault: a kind of source that the host does not import, or settings that cannot be.
            GansynthError: data that cannot be read; a place that is taken; the disk is full.
        """
        raise UsageFault(
            f"{request.source} to {cls.name}:{request.where}: {cls.name} imports nothing, expected "
            "a host that does, such as nnunet or yolo"
        )

    @classmethod
    def prepare(cls, request: PrepareRequest) -> Report:
        """Plan and preprocess a data set as the host wants it: ``gansynth prepare``.

        Optional: this one refuses. What is done already is not to be done again.

        Raises:
            UsageFault: no such data set or configuration, or settings that cannot be.
            GansynthError: data that are not fit; the disk is full.
        """
        raise UsageFault(
            f"{cls.name}:{request.request.where}: {cls.name} has nothing to prepare, expected a "
            "host that has, such as nnunet"
        )

    @classmethod
    def make_splits(cls, request: SplitsRequest) -> Sequence[Split]:
        """Write the folds of a data set so that no subject is split: ``gansynth splits``.

        Optional: this one refuses.

        Returns:
            Of each fold the cases ``train`` and ``val``.

        Raises:
            UsageFault: no such data set, or another split is there and not to be overwritten.
            GansynthError: cases without a subject; the disk is full.
        """
        raise UsageFault(
            f"{cls.name}:{request.request.where}: {cls.name} has no folds to write, expected a "
            "host that has, such as nnunet; many sources make their own: --read folds=N"
        )

    @classmethod
    def doctor(cls, request: DoctorRequest) -> Iterator[Line]:
        """What the host needs of this machine: ``gansynth doctor``; what it raises is a line."""
        return iter(())
