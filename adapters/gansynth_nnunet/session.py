"""Bank, producer, counts and record of one nnU-Net training, in the process that trains.

In a data-parallel training rank 0 does this for the others, which only draw.
"""

# ruff: noqa: D102 - methods that override those of HostSession

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, TypeVar

from gansynth.bank.training_bank import BankRequirements
from gansynth.core.mix_config import MixerConfig
from gansynth.core.source import SourceRequest, case_records
from gansynth.hosts.sample_source import SampleSource
from gansynth.hosts.session import HostSession
from gansynth.runtime.child import NAME
from gansynth.runtime.errors import FAULTS, GansynthError
from gansynth_nnunet.adapter import COMPARED, SIDECAR, NnunetAdapter, describe_session
from gansynth_nnunet.config import TrainerConfig
from gansynth_nnunet.guard import check_origin
from gansynth_nnunet.mixed import MixedNnunetDataset, location_keys
from gansynth_nnunet.source import open_nnunet

T = TypeVar("T")
Tick = Callable[[], None]
"""Called now and then by rank 0 while it works. The others wait in short turns, since NCCL aborts
a collective after ten minutes."""


@dataclass(frozen=True)
class RankInfo:
    """Message of rank 0 to the other ranks: folders, and the subject of each training case."""

    log: Path
    bank: Path | None
    subjects: Mapping[str, str]


class NnunetSession(HostSession[str]):
    """Checks a generator or bank, makes the bank if there is none, and counts samples.

    Args:
        trainer: nnU-Net's trainer.
        real: its data set of training cases.
        validation: its data set of held-out cases.
    """

    file = SIDECAR
    compared = COMPARED

    def __init__(self, config: TrainerConfig, trainer: Any, real: Any, validation: Any) -> None:
        self.config, self.trainer = config, trainer
        self.train_ids = tuple(map(str, real.identifiers))
        self.held_out_ids = () if trainer.fold == "all" else tuple(map(str, validation.identifiers))
        self.batches, self._epochs = int(trainer.num_iterations_per_epoch), int(trainer.num_epochs)
        self._ranks = 1
        if trainer.is_ddp:
            import torch.distributed

            self._ranks = torch.distributed.get_world_size()
        self._adapter: NnunetAdapter | None = None
        self._sample_source: SampleSource | None = None
        output = Path(trainer.output_folder)
        super().__init__(config.mix_config, output, int(trainer.current_epoch), self._epochs)
        try:
            self._shared = lead(int(trainer.local_rank), self._ranks, self._lead)
            self.log = self._shared.log
            self.steer()
        except BaseException:
            self.close()
            raise

    def _lead(self, tick: Tick) -> RankInfo:
        """Check, start the producer, and wait for samples; on rank 0."""
        mixing = self.mix_config.ratio.p > 0
        if mixing:
            self._adapter = self._open_adapter()
            self._sample_source = self._check(self._adapter)
        self.open()
        if mixing and not self.held_out_ids:
            self.say(
                "fold 'all' trains on every case: nothing is held out, so leakage cannot be "
                "checked, and the validation Dice is one on training cases"
            )
        # A finished training draws, too: its loaders fetch batches ahead.
        self.training_bank.start()
        self.training_bank.wait(tick)
        subjects = {case: case for case in self.train_ids}
        if self._adapter is not None:
            source = self._adapter.source
            subjects = {case: source.header(case).subject for case in subjects}
        return RankInfo(self.log, self.bank, subjects)

    def _open_adapter(self) -> NnunetAdapter:
        mix_config, trainer, subjects = self.mix_config, self.trainer, self.config.subjects
        if subjects is None and mix_config.bank is None and mix_config.run is not None:
            subjects = mix_config.run.manifest["request"]["subjects"]
        request = SourceRequest(
            kind="nnunet",
            where=trainer.plans_manager.dataset_name,
            fold=str(trainer.fold),
            configuration=trainer.configuration_name,
            plans=trainer.plans_manager.plans_name,
            subjects=subjects,
        )
        return NnunetAdapter(open_nnunet(request))

    def _check(self, adapter: NnunetAdapter) -> SampleSource:
        """Check leakage: held-out cases are read now, unless the adapter's process just did."""
        records = {record.id: record for record in self.config.held_out}
        ids = {*self.held_out_ids, *records}
        if self.trainer.fold != "all":
            ids |= set(adapter.source.held_out_ids)
        missing = sorted(ids - set(records))
        held_out = (*records.values(), *case_records(adapter.source, missing))
        found = check_origin(self.mix_config, adapter.host, held_out, content=not records)
        if how := found.described.get("conversion"):
            self.note(
                f"gansynth: samples are converted by {how['by']}, in about {how['seconds']} s each"
            )
        return found

    def wrap(self, real: Any) -> MixedNnunetDataset:
        """Return the training data set with synthetic samples mixed in."""
        from nnunetv2.utilities.label_handling.label_handling import determine_num_input_channels

        trainer = self.trainer
        channels = determine_num_input_channels(
            trainer.plans_manager, trainer.configuration_manager, trainer.dataset_json
        )
        keys = location_keys(trainer.label_manager)
        return MixedNnunetDataset(real, self.plan, int(trainer.batch_size), channels, keys)

    # -- its description -------------------------------------------------------------------------

    def describe(self) -> dict[str, Any]:
        return describe_session(self.config, self._sample_source)

    def demand(self) -> BankRequirements:
        trainer, adapter, found = self.trainer, self._adapter, self._sample_source
        run = None if found is None else found.run
        # Raw intensities may exceed the range of float16; normalised ones do not.
        raw = "NoNormalization" in trainer.configuration_manager.normalization_schemes
        dtype: Literal["float16", "float32"] = "float32" if raw else "float16"
        batch_size = int(trainer.batch_size)
        return BankRequirements(
            mix_config=self.mix_config,
            target="nnunet",
            request={} if adapter is None else adapter.source.request.to_json(),
            run_id=None if found is None else found.run_id,
            cases=len(self.train_ids),
            sample_bytes=adapter.sample_bytes(run.manifest) if adapter and run else 0,
            batch_size=batch_size,
            samples=self._epochs * self.batches * batch_size * self._ranks,
            output=self.output,
            say=self.say,
            dtype=dtype,
            progress=min(1.0, self.first / self._epochs),
            gpus=tuple(range(self._ranks)) if trainer.device.type == "cuda" else (),
        )

    def make_plan(self) -> MixerConfig[str]:
        from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

        plan: MixerConfig[str] = self.mix_config.plan(
            self._shared.bank,
            self.log,
            batches=self._epochs * self.batches,
            subjects=self._shared.subjects,
            done=self.first * self.batches,
            rank=int(self.trainer.local_rank),
        )
        workers = max(1, get_allowed_n_proc_DA())
        return replace(plan, patience=self.config.patience, workers=workers)

    def note(self, text: str) -> None:
        self.trainer.print_to_log_file(text)

    # -- while training --------------------------------------------------------------------------

    def epoch(self, done: int, values: Mapping[str, float]) -> None:
        """Log the draws so far, and the producer's state; on rank 0."""
        self.finish_epoch(done, values)
        self.report()
        self.note(f"{NAME}{self.sentence()}")
        self.pause()
        self.write()

    def now(self) -> float:
        # Of drawing, which is slightly ahead of training.
        return 1.0 if self.plan.batch_counter is None else self.plan.batch_counter.now()

    def close(self, complete: bool = False) -> None:
        # If the training is complete, all ranks call this: others' workers may still be drawing.
        if complete and not self._closed and self._ranks > 1:
            import torch.distributed

            torch.distributed.barrier()
        super().close(complete)


# -- several ranks ---------------------------------------------------------------------------------


def lead(rank: int, ranks: int, work: Callable[[Tick], T]) -> T:
    """Let rank 0 work while the others wait; its result, which must be picklable, on every rank.

    Raises:
        GansynthError: raised by the work, on every rank. Any other failure is raised as it is on
            rank 0, and as a bare GansynthError on the others.
    """
    if ranks == 1:
        return work(lambda: None)
    if rank > 0:
        followed: T = _follow()
        return followed

    def tick() -> None:
        _tell(("working",))

    try:
        done = work(tick)
    except Exception as error:  # not on a signal, which reaches every rank by itself
        code = error.exit_code if isinstance(error, GansynthError) else 1
        _tell(("failed", code, str(error) or type(error).__name__))
        raise
    _tell(("done", done))
    return done


def _follow() -> Any:
    while True:
        state, *values = _tell(None)
        if state == "done":
            return values[0]
        if state == "failed":
            code, text = values
            raise FAULTS.get(code, GansynthError)(text)


def _tell(message: tuple[Any, ...] | None) -> tuple[Any, ...]:
    """Broadcast rank 0's message to every rank."""
    import torch.distributed

    shared = [message]
    torch.distributed.broadcast_object_list(shared, src=0)
    assert shared[0] is not None
    return shared[0]
