"""One training of a host, from its request to its result: checked, planned, run, recorded.

A ``Session`` is made once of a host and does not change. What it checks is checked once: a command
asks several times.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from fnmatch import fnmatch
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.bank.placement import FILE_BYTES
from gansynth.bank.producer_count import count_producers, shares_of_cores
from gansynth.bank.reader import BankReader, verify_bank
from gansynth.bank.sample_source import (
    SampleSource,
    check_asked,
    check_learnable,
    find_sample_source,
)
from gansynth.core.bank_options import BankCapacity
from gansynth.core.identity import Compared, Door, HeldOut, refuse_seen
from gansynth.core.lineage import CaseRecord, Lineage, guard_host
from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.schema import Sample
from gansynth.core.source import CaseSource, lineage_of, unrecorded
from gansynth.core.units import IMAGES, compare_with_cases
from gansynth.data.held_out import held_out_of
from gansynth.hosts.contract import record
from gansynth.hosts.contract.crop_host import CropHost
from gansynth.hosts.contract.host import Framework, framework
from gansynth.hosts.contract.job import Job, Training
from gansynth.hosts.contract.launch import TrainingHandover, run_training_process
from gansynth.hosts.contract.record import TrainingFolder, TrainingResult
from gansynth.runtime.child import NAME, limit_threads
from gansynth.runtime.errors import (
    DataFault,
    IntegrityFault,
    TrainingFault,
    UsageFault,
)
from gansynth.runtime.files import TEMPORARY, elsewhere, write_json_atomic
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.signals import StopRequest, stop_request
from gansynth.sampling.open_run import check_weights

CONFIG = "gansynth_config.json"
TRAINING_PROCESS = "gansynth.hosts.contract.training_process"


class Session:
    """One training, or one export, of a host.

    Attributes:
        host: with the options of the training.
        handed_over: the folder of the training as it was checked and locked, for whoever trains in
            it; None for a command that has not begun to train.
    """

    def __init__(
        self,
        host: Framework,
        reporter: Reporter | None = None,
        *,
        held_out: Sequence[CaseRecord] | None = None,
        handed_over: TrainingFolder | None = None,
    ) -> None:
        """Take a host whose options are read.

        Args:
            held_out: records of the held-out cases, where they are known; else they are read.
        """
        self.host, self.source, self.request = host, host.source, host.request
        self.reporter = NullReporter() if reporter is None else reporter
        host.reporter = self.reporter
        self.handed_over = handed_over
        self._held_out = held_out
        self._drawable = False

    @classmethod
    def of(
        cls, request: AugmentRequest, source: CaseSource, reporter: Reporter | None = None
    ) -> Session:
        """Return the session of a request on the cases of its target.

        Raises:
            UsageFault: there is no such target, or it takes neither the cases nor the options.
        """
        return cls(framework(request.target)(source, request), reporter)

    def again(self, request: AugmentRequest) -> Session:
        """Return the session of another request to the same host, on the same cases."""
        return Session(
            type(self.host)(self.source, request), self.reporter, held_out=self._held_out
        )

    # -- what is known of it ---------------------------------------------------------------------

    @cached_property
    def held_out(self) -> HeldOut:
        """What the fold holds out; its cases are read once."""
        found = held_out_of(self.source, self._held_out)
        self._held_out = found.records
        return found

    @cached_property
    def opened(self) -> Framework:
        """The host, with all that follows from its options, and with its samples checked.

        Raises:
            GansynthError: see ``check``.
        """
        from gansynth.runtime.devices import pick_device

        self.host.open()
        pick_device(self.host.device)
        self.host.sample_source = self._find_samples()
        return self.host

    @property
    def compared(self) -> Compared:
        """What was compared with what is held out, and found innocent."""
        found = self.opened.sample_source
        return Compared() if found is None else found.compared

    @property
    def total(self) -> int:
        """Units of the whole training."""
        return self.opened.length[0]

    @property
    def batch_size(self) -> int:
        """Samples of an optimiser step."""
        return self.opened.length[1]

    @property
    def samples_drawn(self) -> int | None:
        """Samples that the training draws, without partners; None if unknown."""
        host = self.opened
        return self.total * host.samples_of_a_unit if host.length_known else None

    @property
    def share_of_usual_length(self) -> float | None:
        """How long the whole training is, as a share of the host's default length."""
        usual = self.opened.usual_samples if self.host.length_known else None
        return None if usual is None else self.total * self.host.samples_of_a_unit / usual

    @cached_property
    def bank_plan(self) -> BankCapacity | None:
        """The size of the bank that the training makes; None if none is made."""
        request = self.request
        if request.run is None or request.bank is not None or not request.mix.synthetic:
            return None
        size = self.host.intake.sample_bytes(request.run.manifest)
        held = request.size.capacity(len(self.source.train_ids), size)
        held = max(1 if request.offline else 2, held)  # so that one can be retired
        return BankCapacity(held, (size + FILE_BYTES) * (held + 2))

    @cached_property
    def producers(self) -> int:
        """Processes that draw samples; 0 if no bank is made."""
        from gansynth.runtime.devices import producer_device

        request, planned = self.request, self.bank_plan
        if planned is None:
            return 0
        device = producer_device(request.device, self.host.gpus)
        beside = 0 if request.offline else self.opened.loaders  # offline, they begin afterwards
        return count_producers(request.asked_producers, device, beside, planned.held)

    def shares(self, producers: int) -> str:
        """Say how the host's loading processes and those that draw samples share the cores."""
        return shares_of_cores(self.host.title or self.host.name, self.opened.loaders, producers)

    def planned(self) -> Mapping[str, Any]:
        """Return the plan of a training that passed ``check``, for dry runs."""
        host = self.opened
        usual = dict(host.describe_training())
        usual |= {f"{host.unit}s": self.total, "samples_of_a_step": self.batch_size}
        return host.planned(usual)

    def described(self) -> dict[str, Any]:
        """Describe the data, mix and settings of one session."""
        host, source = self.opened, self.source.request
        varying = {"device", "output", "seed", "checkpoint_every", *host.may_change}
        settings = host.options.model_dump(mode="json", exclude=varying)
        settings[f"{host.unit}s"] = self.total
        versions: dict[str, str | None] = {"python": platform.python_version()}
        versions |= {name: record.version_of(name) for name in host.packages}
        usual = record.describe_session(self.request, host.sample_source)
        usual |= {
            "target": host.name,
            "source": source.to_json(),
            "data": f"{source.kind}:{source.where}",
            "read": dict(source.read),
            "fold": source.fold,
            "counted_in": f"{host.unit}s",
            "training_seed": host.seed,
            "settings": settings,
            "options": {k: v for k, v in host.own.items() if k not in varying},
        }
        usual.update(host.describe_training())
        usual["versions"] = versions
        return dict(host.recorded(usual))

    def seen(self) -> Lineage:
        """Return the cases of the training, which are read, and all that its samples have seen."""
        own, found = lineage_of(self.source), self.opened.sample_source
        return own if found is None else own.joined(found.lineage)

    def training_folder(self) -> TrainingFolder:
        """Return the folder of a training that passed ``check``.

        ``start`` goes on with an unfinished training in it, and trains nothing if the training
        there is finished.

        Raises:
            UsageFault: it holds another training, or other files.
        """
        host, path = self.opened, self.host.output
        described, done = self.described(), host.done(path)
        if path.exists() and not path.is_dir():
            raise UsageFault(
                "hosts.training-folder-is-file",
                f"{path}: is a file, expected a folder; take another one: "
                f"{elsewhere(host.results)}",
            )
        document = record.read_record(path)
        if not document and path.exists():
            held = sorted(entry.name for entry in path.iterdir())
            extra = [n for n in held if not (n in record.LEFT or fnmatch(n, TEMPORARY))]
            if extra:
                raise UsageFault(
                    "hosts.training-folder-not-empty",
                    f"{path}: holds {extra[0]}{' and more' if extra[1:] else ''}, expected a new "
                    f"or empty folder; take another one: {elsewhere(host.results)}",
                )
        complete = bool(document.get("complete"))
        sessions = document.get("sessions") or []
        if done or complete:
            record.check_same(path, (sessions or [{}])[-1], described, host.results)
        finished = complete and (path / host.result).exists() and not host.evaluates_again
        total: int | None = self.total
        if not host.length_known:
            total = sessions[-1]["of_epochs"] if sessions else None
        return TrainingFolder(path, done, total, host.unit, bool(document), finished)

    # -- what is refused -------------------------------------------------------------------------

    def check(self) -> None:
        """Check everything about a training that is known before it starts, without writing.

        Raises:
            IntegrityFault: leakage, or a generator or bank made for another data set or space.
            UsageFault: a missing run or bank, or an invalid value.
        """
        host = self.opened
        self.check_drawing()
        host.check()

    def _find_samples(self) -> SampleSource | None:
        """Check what the training draws of, and the run whose space real cases go through."""
        request, of_space = self.request, None
        if request.real_in_generator_space:
            if request.run is None:
                raise UsageFault(
                    "hosts.generator-space-without-run",
                    "--real-in-generator-space: no run of a generator is named, expected the run "
                    "of that space; name it by --generator",
                )
            plain = AugmentRequest(target=request.target, ratio="1:0", generator=request.generator)
            of_space = self._check_samples(
                request.replace(without=("bank",)) if request.mix.synthetic else plain
            )
        return self._check_samples(request) if request.mix.synthetic else of_space

    def _check_samples(self, request: AugmentRequest) -> SampleSource:
        """Check the generator or bank, and return it with everything that it has seen."""
        found, source, intake = find_sample_source(request), self.source, self.host.intake
        run, bank, lineage = found.run, found.bank, found.lineage
        kind = "generator" if bank is None else "bank"
        if run is not None:
            check_learnable(run, self.host.name, intake.needs)
        name, where = "GENERATOR" if run is None else run.manifest["generator"], source.request
        new = "NEW" if run is None else f"{request.generator}_again"
        fit = where.command(FitRequest, generator=name, fold=where.fold, out=new)
        hint = f"Fit a generator on the training cases of this fold: {fit}"
        if run is None or not intake.converts(run):
            guard_host(lineage.host, source.space.host, kind=kind, cure=hint)
        door = Door(kind, hint, own_naming=self.host.one_subject)
        if run is not None:
            own = run.request
            door = replace(door, naming=lambda rule: run.fit_again(replace(own, subjects=rule)))
        found = replace(found, compared=refuse_seen(lineage, self.held_out, door))
        if run is not None:
            intake.check_run(run, request.samples)
            check_weights(run)
            found = check_asked(request, found, source, self.held_out, self.reporter)
            return self.host.check_samples(found, self.held_out.records)
        assert bank is not None, "it is no run"
        verify_bank(bank.folder)
        self._check_bank(bank)
        return found

    def _check_bank(self, bank: BankReader) -> None:
        """Check every sample of a bank, as a producer checks its own."""
        from gansynth.sampling.quality_gate import validate_sample

        intake, schema = self.host.intake, self.source.schema
        for key in intake.must_match:
            names = [getattr(each, key) for each in (bank.spec.schema, schema)]
            if names[0] != names[1]:
                sampled, real = [list(v) if isinstance(v, tuple) else v for v in names]
                raise DataFault(
                    "hosts.bank-samples-differ-from-cases",
                    f"{bank.folder}: samples have the {key.replace('_', ' ')} {sampled}, the "
                    f"training cases {real}; expected the same in the same order. Make the bank "
                    "again",
                )
        for sample_id in bank.ids():
            try:
                stored = bank.read(sample_id)
            except KeyError:  # it was retired in between
                continue
            sample = Sample(stored.image, stored.labels, stored.boxes, stored.provenance)
            try:
                intake.check_sample(sample)
                validate_sample(sample, schema, intake.sample_size, bank.spec.dtype)
            except (DataFault, UsageFault) as fault:
                where = f"{bank.folder}: {sample_id}"
                raise fault.reworded(f"{where}: {fault}. Make the bank again") from fault

    def check_drawing(self) -> None:
        """Check, last and once, that samples are of the training's own cases.

        A run is opened as a producer will open it. Every training case is read and compared by
        content, whatever the data set's name.
        """
        request, source = self.request, self.source
        if not request.mix.synthetic or self._drawable:
            return
        from gansynth.runtime.devices import pick_device, producer_device

        pick_device(request.device)
        several = (request.asked_producers or 1) > 1
        if several and producer_device(request.device, self.host.gpus) != "cpu":
            raise UsageFault(
                "hosts.producers-need-cpu",
                f"--producers {request.producers}: these draw on the CPU, expected --device cpu "
                "beside it; add that, or leave --producers out",
            )
        _ = self.bank_plan  # refuses a size that holds no sample
        if request.bank is not None:
            folder = Path(request.bank)
            reader = BankReader(folder)
            lineage = reader.spec.lineage
            unseen = list(unrecorded(lineage, source)) if lineage.dataset != source.name else []
            if unseen:
                raise IntegrityFault(
                    "hosts.samples-of-other-data-set",
                    f"{folder}: its samples are made of {lineage.dataset}, which lacks "
                    f"{len(unseen)} of {len(source.train_ids)} training case(s) of {source.name}, "
                    f"first {unseen[0]}; expected the same data set. Fill a bank by a generator "
                    "that was fitted on it",
                )
            from gansynth.data.batches import CaseCache

            drawn = [reader.draw(np.random.default_rng(seed)) for seed in range(IMAGES)]
            compare_with_cases(folder, CaseCache(source), [s.image for s in drawn if s])
        else:
            from gansynth.sampling.sampler import open_drawer

            assert request.run is not None, "see AugmentRequest"
            of = (source, self.host.intake, request.run, request.samples)
            open_drawer(*of, device="cpu", learn=False)[0].check_cases()
        self._drawable = True

    # -- what it does ----------------------------------------------------------------------------

    def start(self) -> TrainingResult:
        """Train, evaluate on the real held-out cases, and write both to the output folder.

        Returns:
            The outcome, even if many samples were missing; the caller decides if it is acceptable.

        Raises:
            GansynthError: what ``check`` refuses, or a failed training, with the last lines of the
                host's output.
            Interrupted: by SIGTERM or SIGINT. A checkpoint is written, and no process or bank is
                left.
        """
        self.host.validate()
        self.check()
        output = self.host.output
        with record.training_in(self.training_folder) as folder:
            if not folder.finished:
                self.handed_over = folder
                if self.host.own_process:
                    self._train_in_own_process(folder)
                else:
                    self.train(self.reporter)
            return self.host.reported(TrainingResult.of(TrainingResult.sessions_in(output), output))

    def _train_in_own_process(self, folder: TrainingFolder) -> None:
        file, host = folder.path / CONFIG, self.host
        held_out = self.held_out.records if self.request.mix.synthetic else ()
        source = self.source.request.to_json()
        training = TrainingHandover(self.request, source, held_out, folder)
        write_json_atomic(file, training.to_json())
        run_training_process(
            TRAINING_PROCESS,
            [str(file)],
            folder.path,
            f"the training of {host.title or host.name}",
            variables=host.environment(file),
            reporter=self.reporter,
        )

    def train(self, reporter: Reporter | None) -> None:
        """Train and evaluate in this process; without a reporter, its parent shows progress.

        However it ends, no process is left and the record is written.

        Raises:
            EnvironmentFault: no room for the bank, or the disk refuses.
            TrainingFault: the bank does not fill, a required sample is missing, or losses are not
                finite.
            Interrupted: asked to stop.
        """
        import torch

        from gansynth.runtime.devices import pick_device

        if self.host.command():
            return
        host, complete, threads = self.opened, False, torch.get_num_threads()
        job = Job(self.training(), reporter)
        self._say_where_it_begins(job)
        asked = nullcontext(StopRequest()) if host.own_process else stop_request()
        with asked as job.stop:
            limited = limit_threads(pick_device(host.device).type)
            job.note(f"{NAME}threads of torch: {limited}")
            try:
                job.begin()
                with job.stop.deferred():
                    self._train(job)
                job.training_bank.close()  # no producer during the evaluation
                job.metrics = host.evaluate(job)
                complete = True
            finally:
                torch.set_num_threads(threads)
                job.close(complete)

    def training(self) -> Training:
        """Return what a job of this session gets."""
        host = self.opened
        return Training(
            request=self.request,
            source=self.source,
            schema=host.space.generator_schema(self.source.schema),
            folder=host.output,
            first=host.done(host.output),
            steps=self.total,
            unit=host.unit,
            batch_size=self.batch_size,
            round_size=host.round_size,
            samples_of_a_unit=host.samples_of_a_unit,
            batches=host.batches,
            seed=host.seed,
            device=host.device,
            gpus=host.gpus,
            dtype=host.intake.dtype,
            bank=self.bank_plan,
            host=host.title or host.name,
            loaders=host.loaders,
            producers=self.producers,
            checkpoint_every=getattr(host.options, "checkpoint_every", 1),
            restarts_rate=host.restarts_rate,
            described=self.described()
            | {"lineage": record.describe_lineage(self.seen())}
            | ({"guard": str(self.compared)} if self.compared.found else {}),
            items=host.items if isinstance(host, CropHost) else None,
        )

    def _say_where_it_begins(self, job: Job) -> None:
        checked, unit = self.handed_over, self.host.unit
        if checked is not None and checked.done != job.first:
            raise IntegrityFault(
                "hosts.begins-at-other-checkpoint",
                f"{job.folder}: {self.host.title or self.host.name} begins at {unit} {job.first}, "
                f"expected {unit} {checked.done}, that of the newest checkpoint in {checked.path}. "
                "Nothing was trained and nothing overwritten; report it, or take another "
                f"folder: {elsewhere(self.host.results)}",
            )
        begun = checked is not None and checked.begun
        state = TrainingFolder(job.folder, job.first, job.steps, unit, begun)
        job.say(f"{job.folder}: the training {state}")

    def _train(self, job: Job) -> None:
        try:
            self.host.train(job)
        except Exception as error:
            # A framework may only learn that a worker has gone, not why.
            why = job.why_stopped()
            if why:
                raise TrainingFault("hosts.drawing-worker-stopped-training", why) from error
            raise

    def export(self) -> Mapping[str, Any]:
        """Write a data set that the stock framework trains on without gansynth.

        Returns:
            A JSON document: folder, counts, bytes, place of the record, and the next command.

        Raises:
            GansynthError: what ``check`` refuses; a name that is taken; the disk is full.
        """
        exporter = self.host.exporter(self.request)
        self.host.validate()
        self.host.sample_source = self._find_samples()
        self.check_drawing()
        return exporter(self.source, self.request, self.reporter).run()
