"""Samples beside real cases: a run generates new ones, a sample bank stores them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.bank.filling import read_stored
from gansynth.bank.reader import BankReader
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.batches import CaseCache
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling import run_source
from gansynth.sampling.evaluation_data import (
    EvaluationData,
    KnownSubjects,
    check_alike,
    draw_accepted,
    folder_kind,
    own_names,
)
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_moved, open_source

Real = Mapping[str, Any]  # a `SourceRequest` as JSON


def open_evaluated(
    folder: Path,
    real: Real | None,
    number: int,
    request: SampleRequest,
    *,
    device: str,
    data: str | None = None,
    root: str | None = None,
    reporter: Reporter,
) -> EvaluationData:
    """Open a run or a sample bank, and real cases.

    Args:
        real: real cases, a ``SourceRequest`` as JSON; missing keys are those of a run's own. None
            takes its training cases, with the fold's held-out ones.
        number: how many samples.
        request: their conditions; rejected samples are skipped, as in banks.
        device: ``auto``, ``cpu``, ``cuda:0``.
        data: KIND:WHERE of the run's data set, if it was moved or renamed.
        root: overrides the host folders of the run's source.
    """
    if folder_kind(folder) == "bank":
        return _open_bank(folder, real, number, reporter)
    from gansynth.sampling.sampler import Sampler

    run = load_run(folder, device)
    own_source = open_moved(run, data, root)
    real_source = None if real is None else open_real(real, own_source)  # before sampling
    sampler = Sampler(run, own_source, request, reporter)
    source = sampler.source if real_source is None else real_source
    samples, rejected = draw_accepted(sampler, number, reporter)
    cache, lineage = CaseCache(source), sampler.lineage
    return EvaluationData(
        "run",
        folder.resolve().name,
        run.generator.name,
        samples,
        own_names(samples, lineage),
        source,
        run.space,
        run.generator.schema,
        KnownSubjects.of(source, lineage, cache).like(samples, source),
        lineage,
        cache,
        run,
        rejected,
        beside=[
            sampler.matching_real_case(s) if "lesions" in s.provenance else None for s in samples
        ],
    )


def _open_bank(folder: Path, real: Real | None, number: int, reporter: Reporter) -> EvaluationData:
    reader = BankReader(folder)
    spec = reader.spec
    if real is None:
        raise UsageFault(
            "evaluate.bank-without-real-cases",
            f"{folder}: is a bank, without real cases; expected --real "
            f"KIND:WHERE, the data set its run was fitted on ({spec.lineage.dataset} fold "
            f"{spec.lineage.fold})",
        )
    source = open_source(SourceRequest(**real))
    check_alike(source, spec.schema, f"{folder}")
    samples, space = read_stored(reader, source, number, reporter)
    cache = CaseCache(source)
    return EvaluationData(
        "bank",
        folder.resolve().name,
        str(samples[0].provenance.get("generator", "")),
        samples,
        own_names(samples, spec.lineage),
        source,
        space,
        spec.schema,
        KnownSubjects.of(source, spec.lineage, cache).like(samples, source),
        spec.lineage,
        cache,
    )


def open_real(request: Real, own_source: CaseSource) -> CaseSource:
    """Open other real cases in the format of the run's own source."""
    from gansynth.conditions.condition_source import inherited_request

    try:
        return run_source.open_real(request, own_source)
    except UsageFault as fault:
        open_source(
            inherited_request(request, own_source.request)
        )  # raises its own error if it does not open
        raise DataFault("evaluate.real-cases-differ", str(fault)) from fault
