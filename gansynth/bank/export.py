"""Export of a data set that a target framework trains on without gansynth.

The request is checked and a bank is filled in a hidden folder beside the data set's place; a killed
export leaves it, and the same request continues there, sample by sample. The host's writer then
writes the data set (``gansynth.sampling.writing``).
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from gansynth.bank.reader import BankReader, BankSample
from gansynth.bank.sample_source import find_sample_source
from gansynth.bank.store import list_samples, read_heartbeat
from gansynth.core.bank_options import BankSize
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.source import CaseSource
from gansynth.core.synthetic import KEY
from gansynth.core.writer import Item, Writer
from gansynth.runtime.errors import (
    DataFault,
    EnvironmentFault,
    GansynthError,
    IntegrityFault,
    UsageFault,
)
from gansynth.runtime.files import disk_errors, in_units, read_json, write_json_atomic
from gansynth.runtime.progress import Reporter
from gansynth.sampling.deidentify import SharedSamples, names_in, record_of, refuse_real_images
from gansynth.sampling.filters.fitted import learn_ahead
from gansynth.sampling.manifest import locked
from gansynth.sampling.writing import PROVENANCE, write


class DataSetExport(ABC):
    """One data set to be written; a host defines its name, its size and its files.

    The constructor checks the request, and ``run`` executes it.

    Attributes:
        manifest: of the generator's run; None if samples come from a bank.
        sample_bytes: most bytes of one sample.
        repeats: how often each real training case is listed; 0 for none.
        samples: number of synthetic cases.

    Raises:
        UsageFault: the name is invalid or taken, or nothing synthetic is requested. The number of
            samples is unknown or given twice, or the bank holds too few. Real images would be
            shared.
        EnvironmentFault: the disk has no room.
    """

    unit: ClassVar[str] = "case"
    notes: ClassVar[Mapping[str, str]]
    """Content -> what its user should know."""
    source: Any  # of the host's own kind

    def __init__(self, source: CaseSource, request: AugmentRequest, reporter: Reporter) -> None:
        self.target, self.source = request.target, source
        self.reporter, self.request = reporter, request
        self.content = request.content or "mixed"
        self.size: BankSize | None = request.size if "bank_size" in request.given else None
        self.folder = self.folder_for(str(request.export))
        self.build = self.folder.with_name(f".{self.folder.name}.gansynth-export")
        self.check_order()
        sample_source = find_sample_source(request)
        self.manifest = None if sample_source.run is None else sample_source.run.manifest
        self._generator = sample_source.described["manifest_sha256"]
        if self.content == "synthetic":
            maker = request.bank or request.run
            otherwise = "export --content mixed for yourself"
            refuse_real_images(sample_source.real, maker, "--content synthetic", otherwise)
        self.sample_bytes = self.measure()
        self._count()
        [folder, *_] = [parent for parent in self.folder.parents if parent.is_dir()]
        needed = self.room()
        free = shutil.disk_usage(folder).free
        if free < needed:
            raise EnvironmentFault(
                "hosts.export-lacks-room",
                f"{folder}: {self.samples} samples take {in_units(needed)} while the data set is "
                f"made, {in_units(free)} are free; make room, or ask for fewer with --ratio",
            )

    # -- what a host defines ------------------------------------------------------------------

    @staticmethod
    def new_folder(name: str) -> Path:
        """Return the absolute path of the folder that ``--export`` names."""
        folder = Path(os.path.abspath(os.path.expanduser(name)))
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageFault(
                "hosts.export-folder-exists",
                f"--export {folder}: exists already, expected a new folder; choose another, or "
                "remove it",
            )
        return folder

    @abstractmethod
    def folder_for(self, name: str) -> Path:
        """Return the new data set's folder."""

    @abstractmethod
    def measure(self) -> int:
        """Return the bytes of one sample."""

    @abstractmethod
    def count(self, alone: int | None) -> tuple[int, int]:
        """Return how often each real case is listed, and the number of synthetic cases.

        Args:
            alone: synthetic cases without real ones; None where the ratio gives the number.
        """

    @abstractmethod
    def room(self) -> int:
        """Return the bytes needed while the data set is made."""

    @abstractmethod
    def begin(self, folder: Path) -> Writer:
        """Return the writer of the data set, in an empty folder that is renamed afterwards."""

    def item(self, number: int, sample: BankSample) -> Item:
        """Return a sample as a case."""
        facts = dict(sample.provenance)
        return Item(sample.id, np.asarray(sample.image), sample.labels, facts=facts)

    def items(self, reader: BankReader) -> Iterator[Item]:
        """Yield the synthetic cases, from the bank with the samples; it may hold more."""
        with self.reporter.task(self.samples, "write") as bar:
            for number, sample in enumerate(map(reader.read, reader.ids()[: self.samples])):
                yield self.item(number, sample)
                bar.advance(1)

    def describe(self) -> dict[str, Any]:
        """Return a JSON document for the user; a host adds its own counts."""
        listed = self.repeats * len(self.source.train_ids)
        held_out = self.source.held_out_ids if self.content == "mixed" else ()
        return {
            "target": self.target,
            "data": self.source.name,
            "folder": str(self.folder),
            "content": self.content,
            "ratio": str(self.request.mix.ratio),
            f"synthetic_{self.unit}s": self.samples,
            f"held_out_{self.unit}s": len(held_out),
            f"each_real_{self.unit}_listed": self.repeats,
            "synthetic_share": self.samples / (listed + self.samples),
            "record": str(self.record),
            "note": self.notes[self.content],
        }

    def made(self, reader: BankReader, rejected: Mapping[str, Any]) -> dict[str, Any]:
        """Return JSON of how the data set was made; without case names if it may be shared.

        ``rejected``: reason -> number of samples that the bank rejected.
        """
        described, unit = self.describe(), self.unit
        keys = ["note", f"synthetic_{unit}s"]
        keys += ["ratio", f"each_real_{unit}_listed"] if self.content == "mixed" else []
        edits = list(reader.spec.samples.edits or ())
        if self.content == "synthetic":
            names = names_in(reader.spec.lineage, self.source.schema)
            edits, rejected = names.blanked(edits), names.blanked(rejected)
        document = {
            KEY: self.content == "synthetic",
            "content": self.content,
            "generator": None if self.manifest is None else self.manifest["generator"],
            "manifest_sha256": self._generator,
            "edits": edits,
            "seed": reader.spec.samples.seed,
            "rejected": dict(rejected),
        }
        for key in keys:
            document[key] = described[key]
        return document

    def private(self, reader: BankReader) -> dict[str, Any]:
        """Return what the record of the data set alone tells: origins."""
        return {
            "data": self.source.name,
            "boxes": reader.spec.samples.boxes,
            "judged": not reader.spec.samples.keep_flawed,
            "held_out": list(self.source.held_out_ids),
        }

    def unsaid(self) -> int:
        """Return the number of synthetic cases if no option gives it."""
        raise UsageFault(
            "hosts.export-count-not-said",
            f"--export with --ratio {self.request.mix.ratio}: does not say how many "
            f"{self.unit}s; give --bank-size N, or 3x for three for each training {self.unit}",
        )

    @property
    def alone(self) -> bool:
        """Whether there are synthetic cases only, in the number that the user gives."""
        return self.request.mix.ratio.real == 0

    @property
    def drawn(self) -> int:
        """Samples to draw; more than needed if some may turn out not to fit."""
        return self.samples

    def check_order(self) -> None:
        """Refuse a request that makes no data set; a host adds its own checks."""
        request = self.request
        if request.mix.schedule.kind != "constant":
            raise UsageFault(
                "hosts.export-with-schedule",
                f"--export with --schedule {request.mix.schedule}: a data set on disk cannot "
                f"change while {self.target} trains; expected a constant ratio. Leave --export out "
                "to train with a schedule",
            )
        if not request.mix.synthetic:
            raise UsageFault(
                "hosts.export-without-synthetic",
                f"--export with --ratio {request.mix.ratio}: asks for no synthetic {self.unit}; "
                "expected more than 0, for example 1:2",
            )
        if request.bank is not None and not BankReader(request.bank).spec.frozen:
            raise UsageFault(
                "hosts.export-of-refreshed-bank",
                f"--export with --bank {request.bank}: that bank is refreshed, its samples come "
                "and go; expected a frozen one, or --generator",
            )

    # -- the same for all ------------------------------------------------------------------------

    def _count(self) -> None:
        request, size, cases = self.request, self.size, len(self.source.train_ids)
        held = None if request.bank is None else BankReader(request.bank).count()
        alone = None
        if self.alone:
            samples = held if size is None else size.capacity(cases, self.sample_bytes)
            alone = self.unsaid() if samples is None else samples
        elif size is not None:
            raise UsageFault(
                "hosts.export-bank-size-with-ratio",
                f"--export with --bank-size {size} and --ratio {request.mix.ratio}: the ratio says "
                f"how many synthetic {self.unit}s there are beside {cases} real ones; leave "
                "--bank-size out, or take --ratio 0:1",
            )
        self.repeats, self.samples = self.count(alone)
        if held is not None and held < self.samples:
            raise UsageFault(
                "hosts.export-bank-count-differs",
                f"--export with --bank {request.bank}: holds {held} samples, expected "
                f"{self.samples} beside {self.repeats * cases} real {self.unit}s listed; change "
                "--ratio, or take --generator",
            )
        if self.content == "synthetic":
            self.repeats = 0

    def run(self) -> dict[str, Any]:
        """Draw samples, write the data set, and rename its folder; see ``Session.export``.

        Raises:
            EnvironmentFault: the disk has no room, or another process exports there.
            TrainingFault: most samples of the generator are rejected.
        """
        if self.request.dry_run:
            return {"dry_run": True} | self.describe()
        with self._building():
            bank = self.request.bank
            reader = self._fill() if bank is None else BankReader(bank)
            rejected = dict(read_heartbeat(reader.folder).get("rejected", {}))
            lineage, run, shared = reader.spec.lineage, self.request.run, None
            if self.content == "synthetic":
                shared = SharedSamples(
                    self.folder,
                    self.source,
                    None if run is None else run.space,
                    lineage,
                    {} if run is None else {"generator": run.manifest["generator"]},
                    self.record,
                    self.reporter,
                )
            details = write(
                self.begin,
                self.items(reader),
                self.source.schema,
                self.folder,
                made=self.made(reader, rejected),
                shared=shared,
                lineage=lineage,
                private=self.private(reader),
                files=True,
            )
        document = self.describe()
        document.update(details)
        document["rejected"] = rejected
        return document

    @contextlib.contextmanager
    def _building(self) -> Iterator[None]:
        """Lock the hidden folder of the samples; they stay only if a retry may help."""
        build = self.build
        with disk_errors(build):
            build.parent.mkdir(parents=True, exist_ok=True)
        with locked(build, "export under another name"):
            keep = False
            try:
                yield
            except IntegrityFault:
                raise
            except GansynthError:
                keep = bool(list_samples(build / "bank"))
                if keep:
                    kept = "keeps the samples so far; the same command resumes"
                    self.reporter.say(f"{build}: {kept}")
                raise
            finally:
                if not keep:
                    shutil.rmtree(build, ignore_errors=True)

    def _fill(self) -> BankReader:
        """Draw the samples into a bank, or go on with it if request and generator are the same."""
        from gansynth.bank.filling import fill
        from gansynth.bank.producer import ProducerConfig
        from gansynth.bank.producer_count import count_producers
        from gansynth.runtime.devices import producer_device

        request, run, reporter = self.request, self.request.run, self.reporter
        assert run is not None, "for there is no bank"
        learn_ahead(
            run,
            request.samples.filters,
            self.source,
            target=self.target,
            device=request.device,
            reporter=reporter,
        )
        config = ProducerConfig(
            run=str(run),
            request=self.source.request.to_json(),
            target=self.target,
            bank=str(self.build / "bank"),
            frozen=True,
            capacity=self.drawn,
            samples=request.samples,
            rejected=str(run.folder / "exports" / f"{self.folder.name}_rejected"),
            device=request.device,
            parent=os.getpid(),
            dtype="float32",
            producers=count_producers(
                request.asked_producers, producer_device(request.device, ()), 0, self.drawn
            ),
        )
        of_machine = ("parent", "device", "producers")
        order = {k: v for k, v in config.to_json().items() if k not in of_machine}
        order["generator"] = self._generator
        order = json.loads(json.dumps(order))
        file, before = self.build / "order.json", None
        with contextlib.suppress(DataFault):
            before = read_json(file)
        if before != order:
            shutil.rmtree(config.bank, ignore_errors=True)
            write_json_atomic(file, order)
        reported = 0
        with reporter.task(config.capacity, "sample") as bar:

            def progress(count: int) -> None:
                nonlocal reported
                bar.advance(count - reported)
                reported = count

            log, restarts = self.build / "producer.log", request.restarts
            return fill(config, log, restarts=restarts, progress=progress, say=reporter.say)

    @property
    def record(self) -> Path:
        """The file with the source cases of each sample; outside of a data set to be shared."""
        run = self.request.run
        if self.content == "mixed":
            return self.folder / PROVENANCE
        return record_of(None if run is None else run.folder, self.folder)
