"""What one rank mixes into one training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from gansynth.core.batch_counter import BatchCounter
from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Key, Mix, Schedule, choose_cases
from gansynth.runtime.serialise import Document

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

    @classmethod
    def of(
        cls,
        mix: Mix,
        bank: Path | None,
        log: Path,
        *,
        seed: int,
        batches: int,
        subjects: Mapping[Key, str],
        strict: bool,
        patience: float,
        done: int = 0,
        rank: int = 0,
    ) -> MixerConfig[Key]:
        """Return the plan of one rank.

        Args:
            bank: to draw from; None if nothing synthetic is ever drawn.
            log: folder of this session, where draws and batches are counted.
            seed: of conditions and latents, and of the cases chosen for fine-tuning.
            batches: of the whole training, on this rank.
            subjects: training case -> subject.
            done: batches of earlier sessions.
            rank: of a data-parallel training.
        """
        ratio, schedule = mix
        constant, tuning = schedule.kind == "constant", schedule.kind == "finetune"
        return MixerConfig(
            bank=bank,
            ratio=ratio,
            schedule=schedule,
            batch_counter=None
            if constant
            else BatchCounter(log / f"batches-{rank}", batches, done),
            chosen=choose_cases(subjects, schedule.share, seed) if tuning else (),
            seed=seed,
            stream=(rank, done),
            log=log,
            strict=strict,
            patience=patience,
        )
