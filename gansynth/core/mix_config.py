"""How synthetic samples enter a host's training, and the outcome of that training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Generic, Self

from gansynth.core.bank_options import BankSize, RefreshPolicy
from gansynth.core.batch_counter import BatchCounter
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Key, Schedule, choose_cases
from gansynth.runtime.errors import TrainingFault, UsageFault
from gansynth.runtime.serialise import Document

Mix = tuple[Ratio, Schedule]  # origin of the samples of one training
_TEXTS: Mapping[str, Any] = {"ratio": Ratio, "schedule": Schedule, "size": BankSize}


@dataclass(frozen=True)
class MixConfig(Document, inline=("samples",)):
    """How samples enter a host.

    Attributes:
        run: the generator's run; None if an existing bank is given.
        ratio: real:synthetic.
        schedule: how the ratio changes while the host trains.
        frozen: draw from a finished bank (offline augmentation) instead of a live one that a
            producer renews.
        size: of the bank.
        pacing: renewal rate of a live bank.
        bank: folder of an existing bank to read; None makes one.
        scratch: folder for a new bank; None takes shared memory, or the temporary folder if that
            is too small.
        samples: request of the samples, and the filters they pass; its seed also chooses slots.
        device: where the producer runs: ``auto``, ``cpu``, ``cuda:1``.
        restarts: consecutive restarts of a producer that died.
        strict: stop at once when a synthetic sample is missing, instead of counting it.
        keep_going: train on even if there is no synthetic sample at the start.
        usual_augmentation: keep the host's own augmentation.
        augment_synthetic: apply it to synthetic samples too.
        real_in_generator_space: pass the host's real training cases through the generator's space,
            too, so that its loss of detail does not tell real from synthetic.
        nearest: for data sets on disk, take the nearest feasible ratio if this one is not.
    """

    run: RunFolder | None
    ratio: Ratio
    schedule: Schedule = field(default_factory=Schedule)
    frozen: bool = False
    size: BankSize = field(default_factory=lambda: BankSize(samples=64))
    pacing: RefreshPolicy = field(default_factory=RefreshPolicy)
    bank: Path | None = None
    scratch: Path | None = None
    samples: SampleRequest = field(default_factory=SampleRequest)
    device: str = "auto"
    restarts: int = 5
    strict: bool = False
    keep_going: bool = False
    usual_augmentation: bool = True
    augment_synthetic: bool = True
    real_in_generator_space: bool = False
    nearest: bool = False

    def __post_init__(self) -> None:
        self.schedule.check(self.ratio)
        if self.ratio.p > 0 and self.run is None and self.bank is None:
            raise UsageFault(
                f"--ratio {self.ratio}: --generator is missing, which makes its synthetic samples; "
                "add --generator RUN, or --bank BANK, or take --ratio 1:0"
            )

    @property
    def seed(self) -> int:
        """Seed of conditions, latents, and the choice of slots."""
        return self.samples.seed

    def plan(
        self,
        bank: Path | None,
        log: Path,
        *,
        batches: int,
        subjects: Mapping[Key, str],
        done: int = 0,
        rank: int = 0,
    ) -> MixerConfig[Key]:
        """Return the plan of one rank's ``Mixer``.

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
        return MixerConfig(
            bank=bank,
            ratio=self.ratio,
            schedule=self.schedule,
            batch_counter=None
            if constant
            else BatchCounter(log / f"batches-{rank}", batches, done),
            chosen=chosen,
            seed=self.seed,
            stream=(rank, done),
            log=log,
            strict=self.strict,
        )

    def to_json(self) -> dict[str, Any]:
        """Return JSON; values are texts as on the command line."""
        return {**super().to_json(), **{key: str(getattr(self, key)) for key in _TEXTS}}

    @classmethod
    def from_json(cls, doc: Mapping[str, Any]) -> Self:
        """Read the JSON of ``to_json``.

        Raises:
            UsageFault, KeyError, TypeError: the document is none of these.
        """
        parsed = {key: asdict(kind.parse(doc[key])) for key, kind in _TEXTS.items()}
        return super().from_json({**doc, **parsed})


@dataclass(frozen=True)
class TrainingResult:
    """The outcome of a host's training with synthetic samples.

    Attributes:
        folder: where the host wrote its results.
        drawn_real: samples the host drew from real cases.
        drawn_synthetic: samples it drew from the bank.
        fell_back: real samples drawn because the bank was empty (part of ``drawn_real``).
        metrics: the host's validation metrics on real cases only, e.g. ``{"dice": 0.87}``.
        reasons: short reason -> how many of ``fell_back``, as far as the host knows.
        asked: share of synthetic samples by ratio and schedule over the whole training.
        supply: figures of the producer: draws per sample, seconds to renew the bank, slowdown of
            the host's steps as a share, restarts; as far as known.
        warnings: for the user.
    """

    folder: Path
    drawn_real: int
    drawn_synthetic: int
    fell_back: int
    metrics: Mapping[str, Any] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    asked: float | None = None
    training_bank: Mapping[str, Any] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def realised(self) -> float:
        """Realised share of synthetic samples."""
        return self.drawn_synthetic / max(1, self.drawn_real + self.drawn_synthetic)

    def describe(self, mix_config: MixConfig) -> dict[str, Any]:
        """Return a JSON document, with the requested ratio and schedule."""
        return {
            "folder": str(self.folder),
            "ratio": str(mix_config.ratio),
            "schedule": str(mix_config.schedule),
            "drawn_real": self.drawn_real,
            "drawn_synthetic": self.drawn_synthetic,
            "realised_synthetic_share": self.realised,
            "asked_synthetic_share": self.asked,
            "fell_back": self.fell_back,
            "supply": dict(self.training_bank),
            "warnings": list(self.warnings),
            "metrics_on_real_cases": dict(self.metrics),
        }

    def refuse_missing(self) -> None:
        """Refuse a training that missed too many synthetic samples.

        Raises:
            TrainingFault: more than 1 % of the requested synthetic samples were missing.
        """
        total = self.drawn_synthetic + self.fell_back
        missing = self.fell_back / max(1, total)
        if missing > TOLERATED:
            why = max(self.reasons, key=lambda reason: self.reasons[reason], default="")
            if ended := self.training_bank.get("ended"):
                why += f": {ended}"
            raise TrainingFault(
                f"{self.folder}: training finished and its results are kept, but "
                f"{self.fell_back} of {total} synthetic samples were missing ({missing:.1%}"
                f"{f', {why}' if why else ''}). Real cases took their place; expected at most "
                f"{TOLERATED:.0%}. Give the generator a faster --device, or fill the bank first "
                "with --offline"
            )


TOLERATED = 0.01  # largest share of missing synthetic samples that still counts as success
STALE_SECONDS = 120.0
"""Seconds without a heartbeat after which a live bank's producer counts as dead."""


@dataclass(frozen=True)
class MixerConfig(Document, Generic[Key], whole=True):
    """What one rank mixes into one training.

    Its document has the exact numbers of ratio and schedule, since their texts are rounded: every
    process must compute the same tables.

    Attributes:
        bank: the bank to draw from; None only if no synthetic sample is ever drawn.
        ratio: real:synthetic.
        schedule: how the ratio changes.
        clock: counts batches; needed by any schedule but a constant one.
        chosen: real cases that fine-tuning may draw.
        seed: seeds the choice of slots and samples.
        stream: further numbers of the seed: rank and first epoch, say.
        workers: processes that draw for one rank at once, if other than torch's data loader, which
            gives their number itself. 1 if unknown.
        log: folder where draws are counted; None counts nothing.
        strict: stop at the first missing sample.
        patience: seconds a synthetic-only phase waits for a sample.
    """

    bank: Path | None
    ratio: Ratio
    schedule: Schedule = field(default_factory=Schedule)
    batch_counter: BatchCounter | None = None
    chosen: tuple[Key, ...] = ()
    seed: int = 0
    stream: tuple[int, ...] = ()
    workers: int = 1
    log: Path | None = None
    strict: bool = False
    patience: float = 300.0

    def __post_init__(self) -> None:
        self.schedule.check(self.ratio)
        if self.batch_counter is None and self.schedule.kind != "constant":
            raise ValueError(f"schedule {self.schedule}: needs a batch_counter")
        if self.schedule.kind == "finetune" and not self.chosen:
            raise ValueError(f"schedule {self.schedule}: needs the cases chosen for fine-tuning")
