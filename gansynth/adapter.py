"""The contract an adapter plugin fulfils: it mixes synthetic samples into one host's training.

An adapter goes both ways. Its ``source`` reads the host's own training cases; ``start`` trains the
host with a share of its samples drawn from a bank. Nothing of the host is changed on disk.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt

from gansynth.asking import Asking
from gansynth.asking_checks import (
    check_injection,
    check_learnable,
    origin_of_samples,
    refuse_boxes_with_bank,
)
from gansynth.clock import Clock
from gansynth.errors import UsageFault
from gansynth.lineage import guard, guard_host
from gansynth.mixing import MixPlan
from gansynth.ratio import Ratio
from gansynth.schedule import Key, Schedule, choose_cases
from gansynth.schema import Sample, Schema
from gansynth.sources.base import CaseSource
from gansynth.space import Space
from gansynth.supply import BankSize, Pacing

if TYPE_CHECKING:
    from gansynth.reporting import Reporter

HostArrays = Mapping[str, npt.NDArray[np.generic]]
Content = Literal["mixed", "synthetic"]
"""What is exported: real and synthetic cases to train on, or synthetic ones alone to share."""


@dataclass(frozen=True)
class Injection:
    """How samples enter a host.

    Attributes:
        run: folder of the generator's run; None if an existing bank is given.
        ratio: real:synthetic.
        schedule: how the ratio changes while the host trains.
        frozen: draw from a finished bank (offline augmentation) instead of one that a producer
            keeps fresh.
        size: how large the bank is.
        pacing: how fast a live bank is renewed.
        bank: folder of an existing bank to read; None makes one.
        scratch: folder for the bank that is made; None takes shared memory, or the temporary folder
            where that is too small.
        edits: condition edits by name, in order; empty takes the run's own.
        boxes: which boxes samples are asked to have (``gansynth.conditions.boxes``); None for the
            usual ones.
        judged: leave out samples that the generator itself finds flawed.
        asking: what else is asked of samples, and which filters let them in.
        seed: seeds conditions, latents, and the choice of slots.
        device: where the producer runs: ``auto``, ``cpu``, ``cuda:1``.
        restarts: how often in a row a producer that died is started again.
        strict: stop at once when a synthetic sample is missing, instead of counting it.
        keep_going: train on even if there is no synthetic sample at the start.
        usual_augmentation: keep the host's own augmentation.
        augment_synthetic: apply it to synthetic samples too.
        real_in_generator_space: bring the host's real training cases through the generator's space,
            too, so that what it loses tells real from synthetic no more.
    """

    run: Path | None
    ratio: Ratio
    schedule: Schedule = field(default_factory=Schedule)
    frozen: bool = False
    size: BankSize = field(default_factory=lambda: BankSize(samples=64))
    pacing: Pacing = field(default_factory=Pacing)
    bank: Path | None = None
    scratch: Path | None = None
    edits: tuple[str, ...] = ()
    boxes: str | None = None
    judged: bool = True
    asking: Asking = field(default_factory=Asking)
    seed: int = 0
    device: str = "auto"
    restarts: int = 5
    strict: bool = False
    keep_going: bool = False
    usual_augmentation: bool = True
    augment_synthetic: bool = True
    real_in_generator_space: bool = False

    def __post_init__(self) -> None:
        self.schedule.check(self.ratio)
        if self.ratio.p > 0 and self.run is None and self.bank is None:
            raise UsageFault(
                f"ratio {self.ratio}: synthetic samples of nothing; expected a generator or a bank"
            )
        if self.restarts < 0:
            raise UsageFault(f"restarts: {self.restarts}, expected at least 0")

    def plan(
        self,
        bank: Path | None,
        log: Path,
        *,
        batches: int,
        subjects: Mapping[Key, str],
        done: int = 0,
        rank: int = 0,
    ) -> MixPlan[Key]:
        """What a ``Mixer`` of one rank is to do.

        Args:
            bank: to draw from; None if nothing synthetic is ever drawn.
            log: folder of this session, where draws and batches are counted.
            batches: of the whole training, on this rank.
            subjects: training case -> subject.
            done: batches of earlier sessions.
            rank: of a data-parallel training.
        """
        constant, tuning = self.schedule.kind == "constant", self.schedule.kind == "finetune"
        chosen = choose_cases(subjects, self.schedule.share, self.seed) if tuning else ()
        return MixPlan(
            bank=bank,
            ratio=self.ratio,
            schedule=self.schedule,
            clock=None if constant else Clock(log / f"batches-{rank}", batches, done),
            chosen=chosen,
            seed=self.seed,
            stream=(rank, done),
            log=log,
            strict=self.strict,
        )

    def to_json(self) -> dict[str, Any]:
        """A JSON document that ``from_json`` reads back; paths are absolute in it."""
        document = {f.name: getattr(self, f.name) for f in fields(self)}
        for key in ("run", "bank", "scratch"):
            document[key] = None if document[key] is None else str(document[key].absolute())
        return document | {
            "ratio": str(self.ratio),
            "schedule": str(self.schedule),
            "size": str(self.size),
            "pacing": self.pacing.to_json(),
            "edits": list(self.edits),
            "asking": self.asking.to_json(),
        }

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Injection:
        """Read what ``to_json`` wrote.

        Raises:
            UsageFault, KeyError, TypeError: the document is none.
        """
        paths = {k: None if doc[k] is None else Path(doc[k]) for k in ("run", "bank", "scratch")}
        values = {
            "ratio": Ratio.parse(doc["ratio"]),
            "schedule": Schedule.parse(doc["schedule"]),
            "size": BankSize.parse(doc["size"]),
            "pacing": Pacing(**doc["pacing"]),
            "edits": tuple(doc["edits"]),
            "asking": Asking.from_json(doc.get("asking", {})),
        }
        return cls(**{**doc, **paths, **values})


@dataclass(frozen=True)
class Outcome:
    """What a host's training with synthetic samples came to.

    Attributes:
        folder: where the host wrote its results.
        drawn_real: samples the host drew from real cases.
        drawn_synthetic: samples it drew from the bank.
        fell_back: real samples drawn because the bank had nothing to give (part of ``drawn_real``).
        metrics: the host's validation metrics on real cases only, e.g. ``{"dice": 0.87}``.
        reasons: why, in a few words -> how many of ``fell_back``; as far as the host knows.
        asked: share of synthetic samples that ratio and schedule ask for over the whole training.
        supply: what the producer did: draws per sample, seconds in which the bank was renewed, the
            share by which the host's steps were slowed down, restarts; as far as known.
        warnings: what a user should know of it.
    """

    folder: Path
    drawn_real: int
    drawn_synthetic: int
    fell_back: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    asked: float | None = None
    supply: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def realised(self) -> float:
        """Realised share of synthetic samples."""
        return self.drawn_synthetic / max(1, self.drawn_real + self.drawn_synthetic)


class Adapter(ABC):
    """One host framework, opened on one data set and fold."""

    name: ClassVar[str]
    settings: ClassVar[Mapping[str, str]] = {}
    """Keys that ``--set`` accepts for this host, each with one sentence."""
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
    rewrites_real: ClassVar[bool] = False
    """Whether it can bring real cases through the generator's space, too."""

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
        self.check_ways(injection)
        if injection.ratio.p == 0:
            return
        lineage, what = origin_of_samples(injection)
        if injection.run is None:
            refuse_boxes_with_bank(injection)
        else:
            check_learnable(injection, self.name, self.needs)
        guard_host(lineage.host, self.source.host, what=what)
        held_out = self.source.records(self.source.held_out_ids)
        guard(lineage, held_out, what=what)
        check_injection(injection, self.source, held_out)

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

    def planned(
        self, injection: Injection, settings: Mapping[str, str], options: Sequence[str]
    ) -> Mapping[str, Any]:
        """What a host says of a training that ``check`` has passed, for dry runs; nothing here."""
        return {}

    def bank_bytes(self, injection: Injection) -> int | None:
        """Bytes a bank takes that is made for a training; None if there is none or nobody knows."""
        return None

    @abstractmethod
    def inject(self, dataset: Any, plan: MixPlan[Any], *, batch_size: int) -> Any:
        """Wrap the host's *training* data set so that it serves what a plan puts into its slots.

        Let ``gansynth.mixing.Mixer`` decide: ratio, schedule, counting and what happens when a
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
