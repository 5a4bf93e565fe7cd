"""The one way to a data set on disk that a host trains on without gansynth.

An order is checked, a bank is filled, the host's writer writes into a hidden folder beside the data
set's place, and one rename gives that its name. A killed export leaves the hidden folder; the same
order goes on there, sample by sample.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from gansynth.bank.reader import BankReader
from gansynth.bank.spec import read_heartbeat
from gansynth.hosts.origin import find_origin
from gansynth.runtime.errors import DataFault, EnvironmentFault, GansynthError, UsageFault
from gansynth.runtime.files import (
    disk_errors,
    publish_dir,
    read_json,
    sha256_file,
    write_json_atomic,
)
from gansynth.runtime.progress import Reporter
from gansynth.sampling.identifiers import names_in
from gansynth.sampling.sharing import forget_times, record_of, refuse_real_images

if TYPE_CHECKING:
    from gansynth.bank.producer_main import ProducerConfig
    from gansynth.core.adapter import Content, Injection
    from gansynth.core.bank_options import BankSize
    from gansynth.core.source import CaseSource

SEGMENT = 16
"""Samples of a segment at most."""


class Export(ABC):
    """One data set to be written; a host says what it is called, how large it is, and writes it.

    Making one checks the order, ``run`` carries it out.

    Attributes:
        manifest: of the generator's run; None if samples come from a bank.
        generator: SHA-256 of the manifest of the generator that drew the samples.
        sample_bytes: what one sample takes at most.
        repeats: how often each real training case is listed; 0 for none.
        samples: synthetic cases.

    Raises:
        UsageFault: a name that cannot be or is taken, nothing synthetic is asked for, the number of
            samples is not known or said twice, the bank holds too few, or real images would be
            shared.
        EnvironmentFault: the disk has no room.
    """

    target: ClassVar[str]
    option: ClassVar[str] = "-o"
    unit: ClassVar[str] = "case"
    trains: ClassVar[str]
    """Who trains, for messages: ``a detector trains``."""
    for_schedules: ClassVar[str]
    fewer: ClassVar[str] = "or ask for fewer with --ratio"
    """What to do about a small disk."""

    source: CaseSource

    def __init__(
        self,
        source: CaseSource,
        injection: Injection,
        name: str,
        content: Content,
        size: BankSize | None,
    ) -> None:
        self.source, self.injection, self.content, self.size = source, injection, content, size
        self.folder = self.place(name)
        self.check_order()
        origin = find_origin(injection)
        self.manifest = None if origin.run is None else origin.run.manifest
        self.generator = origin.described["manifest_sha256"]
        if content == "synthetic" and origin.run is not None:
            otherwise = "export --content mixed for yourself"
            refuse_real_images(origin.run, "--content synthetic", otherwise)
        self.sample_bytes = self.measure()
        self._count()
        self._check_room()

    # -- what a host says ------------------------------------------------------------------------

    @abstractmethod
    def place(self, name: str) -> Path:
        """The new data set's folder.

        Raises:
            UsageFault: it cannot be there.
        """

    @abstractmethod
    def measure(self) -> int:
        """Bytes of one sample."""

    @abstractmethod
    def count(self, alone: int | None) -> tuple[int, int]:
        """How often each real case is listed, and how many synthetic cases there are.

        Args:
            alone: synthetic cases without real ones; None where the ratio says how many.
        """

    @abstractmethod
    def room(self) -> int:
        """Bytes that are needed while the data set is made."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """A JSON document for the user."""

    @abstractmethod
    def write(
        self, folder: Path, reader: BankReader, rejected: Mapping[str, Any], reporter: Reporter
    ) -> Mapping[str, Any]:
        """Write the data set and its records; returns what is said beside ``describe``.

        Args:
            folder: empty; gets its name afterwards.
            reader: the bank with the samples; it may hold more.
            rejected: why -> how many samples the bank did not let in.
            reporter: shows progress.
        """

    def unsaid(self) -> int:
        """How many synthetic cases there are where nothing says so.

        Raises:
            UsageFault: with the way out.
        """
        raise UsageFault(
            f"{self.option} with --ratio {self.injection.ratio}: does not say how many "
            f"{self.unit}s; give --bank-size N, or 3x for three for each training {self.unit}"
        )

    def known(self) -> str:
        """What the ratio says already, of the number of samples."""
        cases = len(self.source.train_ids)
        return f"the ratio says how many synthetic {self.unit}s there are beside {cases} real ones"

    def shortage(self, held: int) -> str:
        """What is said of a bank that holds too few samples."""
        listed = self.repeats * len(self.source.train_ids)
        return (
            f"-o with --bank {self.injection.bank}: holds {held} samples, expected {self.samples} "
            f"beside {listed} real {self.unit}s listed; change --ratio, or take --generator"
        )

    @property
    def drawn(self) -> int:
        """Samples to draw; some more where one may turn out not to fit."""
        return self.samples

    # -- the order -------------------------------------------------------------------------------

    def check_order(self) -> None:
        """Refuse what makes no data set; a host adds what it cannot train on."""
        injection, option = self.injection, self.option
        if injection.schedule.kind != "constant":
            raise UsageFault(
                f"{option} with --schedule {injection.schedule}: a data set on disk cannot change "
                f"while {self.trains}; expected a constant ratio. {self.for_schedules}"
            )
        if injection.ratio.p == 0:
            raise UsageFault(
                f"{option} with --ratio {injection.ratio}: asks for no synthetic {self.unit}; "
                "expected more than 0, for example 1:2"
            )
        if injection.bank is not None and not BankReader(injection.bank).spec.frozen:
            raise UsageFault(
                f"{option} with --bank {injection.bank}: that bank is kept fresh, its samples come "
                "and go; expected a frozen one, or --generator"
            )

    def _count(self) -> None:
        injection, size, cases = self.injection, self.size, len(self.source.train_ids)
        held = None if injection.bank is None else BankReader(injection.bank).count()
        alone = None
        if self.alone:
            samples = held if size is None else size.capacity(cases, self.sample_bytes)
            alone = self.unsaid() if samples is None else samples
        elif size is not None:
            raise UsageFault(
                f"{self.option} with --bank-size {size} and --ratio {injection.ratio}: "
                f"{self.known()}; leave --bank-size out, or take --ratio 0:1"
            )
        self.repeats, self.samples = self.count(alone)
        if held is not None and held < self.samples:
            raise UsageFault(self.shortage(held))
        if self.content == "synthetic":
            self.repeats = 0

    @property
    def alone(self) -> bool:
        """Whether there are synthetic cases only, as many as the user says."""
        return self.injection.ratio.real == 0

    def _check_room(self) -> None:
        """Samples lie in a bank, uncompressed, until the data set is complete."""
        folder = next(f for f in self.folder.parents if f.is_dir())
        needed, free = self.room(), shutil.disk_usage(folder).free
        if free < needed:
            raise EnvironmentFault(
                f"{folder}: {self.samples} samples take {needed} bytes while the data set is made, "
                f"{free} are free; make room, {self.fewer}"
            )

    # -- carrying it out -------------------------------------------------------------------------

    def run(self, *, dry_run: bool, reporter: Reporter) -> dict[str, Any]:
        """Draw samples, have the data set written, and give it its name; see ``Adapter.export``.

        Raises:
            EnvironmentFault: the disk has no room, or another process exports there.
            TrainingFault: the generator mostly draws what cannot be admitted.
        """
        if dry_run:
            return {"dry_run": True, **self.describe()}
        with self._building(reporter) as folder:
            reader = self._fill(reporter)
            rejected = dict(read_heartbeat(reader.folder).get("rejected", {}))
            with disk_errors(self.folder):
                folder.mkdir()
                details = self.write(folder, reader, rejected, reporter)
                if self.content == "synthetic":
                    forget_times(folder)
            if self.injection.bank is None:
                shutil.rmtree(reader.folder, ignore_errors=True)
            publish_dir(folder, self.folder)
        return {**self.describe(), **details, "rejected": rejected}

    @property
    def build(self) -> Path:
        """Where it is built."""
        return self.folder.with_name(f".{self.folder.name}.gansynth-export")

    @contextlib.contextmanager
    def _building(self, reporter: Reporter) -> Iterator[Path]:
        """Hold the hidden folder; samples in it stay only if a fault may be put right."""
        from gansynth.sampling.run import locked

        build, dataset = self.build, self.build / "dataset"
        with disk_errors(build):
            build.parent.mkdir(parents=True, exist_ok=True)
        with locked(build, "export under another name"):
            keep = False
            try:
                shutil.rmtree(dataset, ignore_errors=True)
                yield dataset
            except GansynthError:
                keep = any((build / "bank").glob("segment-*.h5"))
                if keep:
                    reporter.say(f"{build}: keeps the samples so far; the same command goes on")
                raise
            finally:
                shutil.rmtree(dataset if keep else build, ignore_errors=True)

    def _fill(self, reporter: Reporter) -> BankReader:
        """The bank that was named, or one that a producer fills now, as for any training."""
        injection = self.injection
        if injection.bank is not None:
            return BankReader(injection.bank)
        from gansynth.bank.api import fill
        from gansynth.sampling.filters.ahead import learn_ahead

        learn_ahead(
            injection.run,
            injection.samples.filters,
            self.source,
            target=self.target,
            device=injection.device,
            reporter=reporter,
        )
        config = self.order()
        take_up(config, self.generator)
        reported = 0
        with reporter.task(config.capacity, "sample") as bar:

            def progress(count: int) -> None:
                nonlocal reported
                bar.advance(count - reported)
                reported = count

            log, restarts = self.build / "producer.log", injection.restarts
            return fill(config, log, restarts=restarts, progress=progress, say=reporter.say)

    def order(self) -> ProducerConfig:
        """What the producer is told."""
        from gansynth.bank.producer_main import ProducerConfig

        injection, samples, run = self.injection, self.drawn, self.injection.run
        assert run is not None, "for there is no bank"
        return ProducerConfig(
            run=str(run),
            request=self.source.request.to_json(),
            target=self.target,
            bank=str(self.build / "bank"),
            frozen=True,
            capacity=samples,
            segment_samples=min(SEGMENT, samples),
            samples=injection.samples,
            rejected=str(run.folder / "exports" / f"{self.folder.name}_rejected"),
            device=injection.device,
            parent=os.getpid(),
            dtype="float32",
        )

    # -- the records -----------------------------------------------------------------------------

    @property
    def record(self) -> Path:
        """Which cases each sample came from, apart from a data set that may be shared."""
        run = self.injection.run
        return record_of(None if run is None else run.folder, self.folder)

    def made_by(self, reader: BankReader) -> dict[str, Any]:
        """What drew the samples, and how it was asked; no case's name where they may be shared."""
        edits = list(reader.spec.samples.edits or ())
        if self.content == "synthetic":
            edits = names_in(reader.spec.lineage, self.source.schema).blanked(edits)
        return {
            "generator": None if self.manifest is None else self.manifest["generator"],
            "manifest_sha256": self.generator,
            "edits": edits,
            "seed": reader.spec.samples.seed,
        }

    def origins(self, reader: BankReader, ids: Mapping[str, str]) -> dict[str, Any]:
        """Of each synthetic case, by its id in the bank, where it came from; never to be shared."""
        return {
            "held_out": list(self.source.held_out_ids),
            "lineage": reader.spec.lineage.to_json(),
            "samples": {name: dict(reader.read(i).provenance) for name, i in ids.items()},
        }

    def keep(self, document: Mapping[str, Any]) -> None:
        """Write the record that stays when the data set leaves the house."""
        with disk_errors(self.record):
            self.record.parent.mkdir(parents=True, exist_ok=True)
        write_json_atomic(self.record, document)


def new_folder(name: str) -> Path:
    """The folder that ``-o`` names, absolute.

    Raises:
        UsageFault: it holds something, or is a file.
    """
    folder = Path(os.path.abspath(os.path.expanduser(name)))
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageFault(
            f"-o {folder}: exists already, expected a new folder; choose another, or remove it"
        )
    return folder


def hashes_of(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there; of a link, of what it leads to."""
    files = (Path(here, name) for here, _, names in os.walk(folder) for name in names)
    return {str(path.relative_to(folder)): sha256_file(path) for path in sorted(files)}


def take_up(config: ProducerConfig, generator: str) -> None:
    """Throw away what a killed export left, unless order and generator's SHA-256 are the same."""
    order = {k: v for k, v in config.to_json().items() if k not in ("parent", "device")}
    order = json.loads(json.dumps({**order, "generator": generator}))
    file = Path(config.bank).parent / "order.json"
    with contextlib.suppress(DataFault):
        if read_json(file) == order:
            return
    shutil.rmtree(config.bank, ignore_errors=True)
    write_json_atomic(file, order)
