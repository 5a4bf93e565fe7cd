"""Samples beside real cases: a run generates new ones, a sample bank stores them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from gansynth.bank.reader import BankReader
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, Sample, Schema
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.core.space import Space
from gansynth.data.cache import CaseCache
from gansynth.data.grid import same_spacing
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling import run_source
from gansynth.sampling.evaluation_data import (
    FEWEST,
    EvaluationData,
    KnownSubjects,
    folder_kind,
    own_names,
)
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_moved, open_source

if TYPE_CHECKING:
    from gansynth.sampling.sampler import Sampler

AT_ONCE = 16  # batch size of sampling
Real = Mapping[str, Any]  # a `SourceRequest` as JSON
MOST_TRIED = 4  # most samples generated for each one evaluated, since some are rejected


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

    Raises:
        UsageFault: neither a run nor a bank, or a bank without ``real``.
        DataFault: real cases of other channels, axes, spacing or labels.
    """
    if folder_kind(folder) == "bank":
        return _open_bank(folder, real, number, reporter)
    return _open_run(folder, real, number, request, device, (data, root), reporter)


def _open_run(
    folder: Path,
    real: Real | None,
    number: int,
    request: SampleRequest,
    device: str,
    where: tuple[str | None, str | None],
    reporter: Reporter,
) -> EvaluationData:
    from gansynth.sampling.sampler import Sampler

    run = load_run(folder, device)
    own_source = open_moved(run, *where)
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


def draw_accepted(
    sampler: Sampler, number: int, reporter: Reporter, seconds: float = math.inf
) -> tuple[list[Sample], int]:
    """Generate samples in the generator's space, skip rejected ones, and count them.

    ``seconds``: so long after the first ``FEWEST`` no further ones are begun, unless fewer are
    there and few were rejected. The first take longer, as what they need is learnt with them.
    """
    samples: list[Sample] = []
    rejected = first = 0
    at_once = AT_ONCE if seconds == math.inf else FEWEST
    ends = math.inf
    with reporter.task(number, "samples") as bar:
        while len(samples) < number and first < MOST_TRIED * number:
            enough = len(samples) >= FEWEST or first >= MOST_TRIED * FEWEST
            if enough and time.monotonic() > ends:
                break
            ends = time.monotonic() + seconds if first == FEWEST else ends
            count = min(at_once, number - len(samples))
            for sample in sampler.draw_raw(first, count):
                if not sampler.request.keep_flawed and sample.provenance.get("reject_reason"):
                    rejected += 1
                    continue
                samples.append(sample)
                bar.advance(1)
            first += count
    if not samples:
        raise DataFault(
            f"{sampler.run.folder}: all of {first} samples are rejected, expected some to "
            "evaluate; "
            "look at them (gansynth sample --sheet), or evaluate them anyway: --filter none"
        )
    return samples, rejected


def _open_bank(folder: Path, real: Real | None, number: int, reporter: Reporter) -> EvaluationData:
    reader = BankReader(folder)
    spec = reader.spec
    if real is None:
        raise UsageFault(
            f"{folder}: is a bank, without real cases; expected --real "
            f"KIND:WHERE, the data set its run was fitted on ({spec.lineage.dataset} fold "
            f"{spec.lineage.fold})"
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


def read_stored(
    reader: BankReader, source: CaseSource, number: int, reporter: Reporter
) -> tuple[list[Sample], Space]:
    """Read samples, evenly over a bank, and return them with the space of crops like them."""
    ids = reader.ids()
    chosen = np.unique(np.linspace(0, len(ids) - 1, min(number, len(ids))).astype(int))
    samples = []
    with reporter.task(len(chosen), "samples") as bar:
        for index in chosen.tolist():
            held = reader.read(ids[index])
            image = held.image.astype(np.float32)
            samples.append(Sample(image, held.labels, held.boxes, held.provenance))
            bar.advance(1)
    if not samples:
        raise DataFault(f"{reader.folder}: holds no sample, expected some; wait for its producer")
    pad = OUTSIDE if source.schema.has_outside else source.space.pad_label
    return samples, Space("crop", tuple(samples[0].image.shape[1:]), pad_label=pad)


def open_real(request: Real, own_source: CaseSource) -> CaseSource:
    """Open other real cases in the format of the run's own source.

    Raises:
        UsageFault: they do not open.
        DataFault: they differ from the run's own.
    """
    from gansynth.conditions.condition_source import inherited_request

    try:
        return run_source.open_real(request, own_source)
    except UsageFault as fault:
        open_source(
            inherited_request(request, own_source.request)
        )  # raises its own error if it does not open
        raise DataFault(str(fault)) from fault


def check_alike(source: CaseSource, schema: Schema, owner: str) -> None:
    """Refuse real cases that samples cannot be compared with.

    Args:
        schema: of a bank's samples.
        owner: of the samples, for messages.
    """
    actual = source.schema
    pairs = (
        ("channels", ", ".join(actual.channels), ", ".join(schema.channels)),
        ("axes", actual.axes, schema.axes),
    )
    for key, value, expected in pairs:
        if value != expected:
            raise DataFault(
                f"--real {source.name}: its {key} are {value}, samples of {owner} have {expected}; "
                "expected the same. Read it in the same way: --real-read KEY=VALUE"
            )
    if not same_spacing(actual.spacing, schema.spacing):
        raise DataFault(
            f"--real {source.name}: its spacing is {_mm(actual.spacing)}, samples of {owner} have "
            f"{_mm(schema.spacing)}; expected the same. Resample it: --real-read spacing=..."
        )
    common = schema.labels.keys() & actual.labels.keys()
    differing = [name for name in sorted(common) if schema.labels[name] != actual.labels[name]]
    if differing:
        name = differing[0]
        raise DataFault(
            f"--real {source.name}: label {name!r} is {actual.labels[name]}, samples of {owner} "
            f"have {schema.labels[name]}; expected the same. Read it with --real-read labels=..."
        )


def _mm(spacing: Sequence[float]) -> str:
    return " x ".join(f"{mm:g}" for mm in spacing) + " mm"
