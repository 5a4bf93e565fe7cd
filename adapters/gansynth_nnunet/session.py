"""One nnU-Net training's bank, producer, counts and record."""

from __future__ import annotations

import atexit
import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gansynth.drawlog import Counts, Tally
from gansynth.errors import EnvironmentFault, TrainingFault
from gansynth.lineage import CaseRecord, Lineage
from gansynth.sources.base import CaseSource, SourceRequest
from gansynth_nnunet.class_locations import Key
from gansynth_nnunet.config import MixConfig
from gansynth_nnunet.guards import check_bank, check_run, host_size
from gansynth_nnunet.mixed import MixedDataset
from gansynth_nnunet.record import SessionRecord, describe_generator

if TYPE_CHECKING:
    from gansynth.producer import Producer

LIVE_FILL = 16
SEGMENT = 16
PATIENCE = 1800.0
"""Seconds the bank may take to fill."""


@dataclass(frozen=True)
class Training:
    """What an nnU-Net trainer knows about its training when it opens its data sets."""

    dataset: str
    configuration: str
    plans: str
    fold: str
    train_ids: tuple[str, ...]
    held_out_ids: tuple[str, ...]
    patch: tuple[int, ...]
    channels: int
    batch_size: int
    keys: tuple[Key, ...]
    dtype: Literal["float16", "float32"]
    epoch: int
    epochs: int
    batches: int
    output: Path
    rank: int
    ranks: int
    say: Callable[[str], None]


class MixSession:
    """Checks a generator or bank, makes the bank if there is none, and keeps count.

    Raises:
        IntegrityFault: leakage, or a generator or bank made for something else.
        UsageFault, DataFault: see ``guards``.
        TrainingFault: the bank does not fill.
    """

    def __init__(self, config: MixConfig, training: Training) -> None:
        self.config, self.training = config, training
        self.producer: Producer | None = None
        self._own_bank: Path | None = None
        self._tally: Tally | None = None
        self._log, self._bank = training.output, config.bank
        self._pid = os.getpid()
        self._closed = self._warned = False
        self._manifest: dict[str, Any] | None = None
        self._source = source = self._open_source() if config.injection.ratio.p > 0 else None
        generator, lineage = (None, None) if source is None else self._check(source)
        self._record = SessionRecord(training.output, training.epoch, config, generator, lineage)
        atexit.register(self.close, training.epoch)
        try:
            self._open(source)
        except BaseException:
            self.close(training.epoch)
            raise

    def _open(self, source: CaseSource | None) -> None:
        """Start the producer on rank 0, tell the other ranks where, and wait for samples."""
        stamp = f"{time.strftime('%Y%m%d-%H%M%S')}-{self._pid}"
        log = self.training.output / "gansynth_draws" / stamp
        if self.training.rank == 0 and source is not None and self._bank is None:
            self._bank = self._own_bank = self._start_producer(source)
        self._log, self._bank = self._agree((log, self._bank))
        if source is not None:
            self._wait()
        self._tally = Tally(self._log)
        changes = self._record.changes()
        if changes and self.training.rank == 0:
            self.training.say(f"gansynth: WARNING: since the last session: {'; '.join(changes)}")

    def wrap(self, real: Any) -> MixedDataset:
        """The training data set with synthetic samples mixed in."""
        training, injection = self.training, self.config.injection
        plan = injection.plan(
            self._bank,
            self._log,
            batches=training.epochs * training.batches,
            subjects={case: self._subject(case) for case in training.train_ids},
            done=training.epoch * training.batches,
            rank=training.rank,
        )
        return MixedDataset(real, plan, training.batch_size, training.channels, training.keys)

    def _subject(self, case: str) -> str:
        return case if self._source is None else self._source.subject(case)

    def report(self, epoch: int) -> None:
        """Tell the log what was drawn so far, and whether the producer still lives."""
        self.training.say(f"gansynth: {self.counts().sentence(self.config.injection.ratio.p)}")
        dead = self.producer is not None and not self.producer.alive()
        if dead and not self.config.injection.frozen and not self._warned:
            self._warned = True
            self.training.say(
                "gansynth: WARNING: the producer has ended; training goes on with the samples "
                "there are, which are drawn again and again"
            )
        self._write(epoch, complete=False)

    def close(self, epoch: int, complete: bool = False) -> None:
        """Stop the producer, write the record, remove the bank if it was made here."""
        if self._closed or os.getpid() != self._pid:
            return
        self._closed = True
        atexit.unregister(self.close)
        if self.producer is not None:
            self.producer.stop()
        if self._own_bank is not None:
            shutil.rmtree(self._own_bank, ignore_errors=True)
        if self.training.rank == 0 and self._tally is not None:
            with contextlib.suppress(OSError):  # nobody may be listening any more
                self._write(epoch, complete)
                said = self.counts().sentence(self.config.injection.ratio.p)
                self.training.say(f"gansynth: in all {said}")

    def counts(self) -> Counts:
        """What was drawn so far, by all workers and ranks."""
        return Counts() if self._tally is None else self._tally.update()

    def _write(self, epoch: int, complete: bool) -> None:
        try:
            self._record.write(epoch, self.counts(), complete=complete)
        except EnvironmentFault as error:  # the training itself is not harmed
            self.training.say(f"gansynth: WARNING: {error}")

    # -- checks ----------------------------------------------------------------------------------

    def _open_source(self) -> CaseSource:
        from gansynth.run import read_manifest
        from gansynth_nnunet.source import open_nnunet

        training, subjects = self.training, self.config.subjects
        if subjects is None and self.config.generator is not None:
            subjects = read_manifest(self.config.generator)["request"]["subjects"]
        return open_nnunet(
            SourceRequest(
                kind="nnunet",
                where=training.dataset,
                fold=training.fold,
                configuration=training.configuration,
                plans=training.plans,
                subjects=subjects,
            )
        )

    def _check(self, source: CaseSource) -> tuple[dict[str, Any] | None, Lineage | None]:
        """Guard the generator, and the bank; returns what the record says of them."""
        from gansynth.bank import BankReader

        held_out = self._held_out(source)
        described, lineage = None, None
        if self.config.generator is not None:
            run, patch = self.config.generator, self.training.patch
            self._manifest = check_run(run, source.host, held_out, patch)
            described = describe_generator(run, self._manifest)
            lineage = Lineage.from_json(self._manifest["lineage"])
        if self.config.bank is not None:
            spec = BankReader(self.config.bank).spec
            check_bank(self.config.bank, spec, source.host, held_out)
            described = {"run_id": spec.run_id, "manifest_sha256": spec.generator}
            lineage = spec.lineage
        if not self.training.held_out_ids:
            self.training.say(
                "gansynth: fold 'all' trains on every case: nothing is held out, so nothing is "
                "known about leakage, and the validation Dice is one on training cases"
            )
        return described, lineage

    def _held_out(self, source: CaseSource) -> tuple[CaseRecord, ...]:
        """Records of the cases nnU-Net itself holds out, read now unless the adapter just did."""
        known = {record.id: record for record in self.config.held_out}
        ids = set(self.training.held_out_ids) | set(known)
        if self.training.fold != "all":
            ids |= set(source.held_out_ids)
        missing = sorted(ids - set(known))
        return (*known.values(), *source.records(missing))

    # -- the bank --------------------------------------------------------------------------------

    @property
    def _fill(self) -> int:
        """Samples to wait for before training starts."""
        if self.config.bank is not None:
            return 1
        wanted = max(LIVE_FILL, self.training.batch_size)
        return self._capacity if self.config.injection.frozen else min(wanted, self._capacity)

    @property
    def _capacity(self) -> int:
        """A live bank holds two segments at least, so that one can be retired."""
        held = self.config.injection.size.capacity(len(self.training.train_ids), 1)
        return held if self.config.injection.frozen else max(2, held)

    def _start_producer(self, source: CaseSource) -> Path:
        from gansynth.bank import bank_folder
        from gansynth.producer import Producer, ProducerConfig

        assert self.config.generator is not None
        assert self._manifest is not None
        folder = bank_folder(str(self._manifest["run_id"]), self._bytes(source))
        self.producer = Producer.start(
            ProducerConfig(
                run=str(self.config.generator),
                request=source.request.to_json(),
                target="nnunet",
                bank=str(folder),
                frozen=self.config.injection.frozen,
                capacity=self._capacity,
                segment_samples=min(SEGMENT, max(1, self._capacity // 2)),
                seed=self.config.injection.seed,
                edits=self.config.injection.edits or None,
                device=self.config.injection.device,
                parent=os.getpid(),
                dtype=self.training.dtype,
                temporary=True,
            ),
            self.training.output / "gansynth_producer.log",
        )
        return folder

    def _bytes(self, source: CaseSource) -> int:
        """Bytes a full bank takes, with what is being written and not yet closed by readers."""
        assert self._manifest is not None
        size = host_size(self._manifest["space"]["size"] or self.training.patch)
        voxels = int(np.prod(np.maximum(size, host_size(self.training.patch))))
        extras = 8000 * len(self.training.keys)
        width = np.dtype(self.training.dtype).itemsize
        sample = voxels * (width * len(source.host["channel_names"]) + 2) + extras
        return sample * (self._capacity + 4 * SEGMENT)

    def _wait(self) -> None:
        """Return when the bank holds enough to start."""
        from gansynth.bank import BankReader

        if self.producer is not None:
            self.training.say(f"gansynth: waiting for {self._fill} synthetic samples")
            self.producer.wait(self._fill, PATIENCE, self._progress)
            return
        assert self._bank is not None
        end = time.monotonic() + (PATIENCE if self.config.bank is None else 0)
        while BankReader(self._bank).count() < self._fill:
            if time.monotonic() > end:
                raise TrainingFault(
                    f"{self._bank}: holds no sample, expected at least {self._fill}; fill it first"
                )
            time.sleep(0.5)

    def _progress(self, count: int) -> None:
        self.training.say(f"gansynth: {count} of {self._fill} synthetic samples")

    def _agree(self, mine: tuple[Path, Path | None]) -> tuple[Path, Path | None]:
        """Rank 0's folders, on every rank."""
        shared = [mine]
        if self.training.ranks > 1:
            import torch.distributed

            torch.distributed.broadcast_object_list(shared, src=0)
        return shared[0]


def remove_banks_of(pid: int) -> None:
    """Remove the scratch banks of a process that has ended, and may have had no time for it.

    A bank in shared memory would hold that memory until the machine restarts.
    """
    from gansynth.bank import SHARED_MEMORY

    for base in (SHARED_MEMORY, Path(tempfile.gettempdir())):
        for folder in base.glob(f"gansynth-*-{pid}-*"):
            shutil.rmtree(folder, ignore_errors=True)
