"""Where a training's synthetic samples come from, and whether they may enter it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.hosts.checks import check_injection, refuse_with_bank
from gansynth.hosts.record import describe_bank, describe_generator
from gansynth_nnunet.config import MixConfig
from gansynth_nnunet.foreign_guard import refuse_conditions
from gansynth_nnunet.guards import check_bank, check_run

if TYPE_CHECKING:
    from gansynth_nnunet.session import Training
    from gansynth_nnunet.source import NnunetSource


@dataclass(frozen=True)
class Origin:
    """A generator or bank that has passed every check.

    Attributes:
        source: the training's own cases.
        lineage: every case the generator or bank has seen.
        generator: what the record says of it.
        manifest: of the generator's run; None for an existing bank.
    """

    source: NnunetSource
    lineage: Lineage
    generator: dict[str, Any]
    manifest: dict[str, Any] | None


def open_origin(config: MixConfig, training: Training) -> Origin:
    """Open what samples are to be drawn from.

    Raises:
        IntegrityFault: leakage, or a generator or bank made for something else.
        UsageFault, DataFault: see ``guards``.
    """
    from gansynth.bank.reader import BankReader

    source = _open_source(config, training)
    held_out = _held_out(config, training, source)
    if config.bank is not None:
        refuse_with_bank(config.injection)
        reader = BankReader(config.bank)
        check_bank(config.bank, reader.spec, source.host, held_out)
        return Origin(source, reader.spec.lineage, describe_bank(reader), None)
    assert config.generator is not None  # see Injection
    manifest = check_run(
        *(config.generator, source.host, held_out, training.patch),
        source=source,
        content=not config.held_out,  # else the adapter has just done that
    )
    if "conversion" in manifest:
        how = manifest["conversion"]
        training.say(
            f"gansynth: samples are converted by {how['by']}, in about {how['seconds']} s each"
        )
    lineage = Lineage.from_json(manifest["lineage"])
    refuse_conditions(config.injection, manifest, source.host)
    conditions = check_injection(config.injection, source, held_out)
    if conditions is not None:
        lineage = lineage.joined(conditions)
    return Origin(source, lineage, describe_generator(config.generator, manifest), manifest)


def _open_source(config: MixConfig, training: Training) -> NnunetSource:
    from gansynth.sampling.run import read_manifest
    from gansynth_nnunet.source import open_nnunet

    subjects = config.subjects
    if subjects is None and config.generator is not None:
        subjects = read_manifest(config.generator)["request"]["subjects"]
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


def _held_out(config: MixConfig, training: Training, source: CaseSource) -> tuple[CaseRecord, ...]:
    """Records of the cases nnU-Net itself holds out, read now unless the adapter just did."""
    known = {record.id: record for record in config.held_out}
    ids = set(training.held_out_ids) | set(known)
    if training.fold != "all":
        ids |= set(source.held_out_ids)
    missing = sorted(ids - set(known))
    return (*known.values(), *source.records(missing))
