"""The origin of samples: a generator's run or a bank, with its description."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.bank.reader import BankReader, BankSample, verify_bank
from gansynth.core.lineage import Lineage
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.sampling.deidentify import real_parts

if TYPE_CHECKING:
    from gansynth.core.mix_config import MixConfig
    from gansynth.core.run_folder import RunFolder
    from gansynth.core.schema import Schema


@dataclass(frozen=True)
class SampleSource:
    """A generator's run or a bank, read once; ``hosts.checks.check_origin`` checks it.

    Either ``run`` or ``bank`` is None. ``described`` has the hash of the run's manifest, which
    includes that of its weights, and of a complete bank's content.
    """

    lineage: Lineage
    described: dict[str, Any]
    run: RunFolder | None = None
    bank: BankReader | None = None

    @property
    def run_id(self) -> str | None:
        """Id of the generator's run; None for a bank."""
        return None if self.run is None else self.run.run_id

    @property
    def real(self) -> tuple[str, ...] | None:
        """What the generator takes of real images; None for a bank that does not know it."""
        if self.run is not None:
            return real_parts(self.run)
        return None if self.bank is None else self.bank.spec.real


def find_sample_source(mix_config: MixConfig) -> SampleSource:
    """Read the origin of samples: a bank's description, or a run's manifest."""
    if mix_config.bank is not None:
        reader = BankReader(mix_config.bank)
        described = {
            "run_id": reader.spec.run_id,
            "manifest_sha256": reader.spec.generator,
            "bank_sha256": reader.sha256,
        }
        return SampleSource(reader.spec.lineage, described, bank=reader)
    run = mix_config.run
    assert run is not None  # see MixConfig
    described = {
        "run_id": run.run_id,
        "name": run.manifest["generator"],
        "folder": str(run.folder),
        "manifest_sha256": run.manifest_sha256,
    }
    return SampleSource(run.lineage, described, run)


def check_schema(
    folder: Path, actual: Schema, expected: Schema, same: Sequence[str], hint: str
) -> None:
    """Refuse samples whose channels, labels or boxes have another meaning."""
    for key in same:
        value, target = (getattr(schema, key) for schema in (actual, expected))
        if value != target:
            value, target = (list(v) if isinstance(v, tuple) else v for v in (value, target))
            raise DataFault(
                f"{folder}: samples have the {key.replace('_', ' ')} {value}, the training cases "
                f"{target}; expected the same in the same order. {hint}"
            )


def check_samples(reader: BankReader, look: Callable[[BankSample], None]) -> None:
    """Check every sample of a given bank, as a producer checks its own."""
    verify_bank(reader.folder)
    for sample_id in reader.ids():
        try:
            sample = reader.read(sample_id)
        except KeyError:  # it was retired in between
            continue
        try:
            look(sample)
        except (DataFault, UsageFault) as fault:
            where = f"{reader.folder}: {sample_id}"
            raise type(fault)(f"{where}: {fault}. Make the bank again") from fault
