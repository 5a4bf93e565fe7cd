"""What a dry run tells: what a training would do, and whether samples will harm it."""

from __future__ import annotations

import time
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.bank.placement import bank_place
from gansynth.bank.reader import BankReader
from gansynth.core.host_commands import TrainingFolder, TrainingRequest
from gansynth.core.lineage import claim
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.hosts.host import Framework
from gansynth.hosts.sample_source import find_sample_source
from gansynth.runtime.errors import GansynthError
from gansynth.runtime.progress import Reporter
from gansynth.sampling.filters.fitted import planned_filters

if TYPE_CHECKING:
    from gansynth.sampling.sampler import Sampler

GAINED = 0.46
"""Dice of real cases alone above which no draw gained (4 of 8 draws of breast ultrasound)."""
CEILING = (
    ": near what the host can reach, expect nothing (breast ultrasound: samples gained in 4 of 4 "
    f"draws below {GAINED}, in 0 of 4 above; gliomas still gained at 0.61)"
)


def plan_training(
    adapter: Framework, request: TrainingRequest, folder: TrainingFolder
) -> dict[str, Any]:
    """Return a dry run's report of what ``start`` would do, once ``check`` has passed."""
    source, mix_config = adapter.source, request.mix_config
    drawn, sampler, each = adapter.samples_drawn(request), None, 0.0
    if mix_config.ratio.p > 0 and mix_config.bank is None:
        sampler, each = timed_sampler(adapter, mix_config)
    return {
        "dry_run": True,
        "target": adapter.name,
        "data": source.name,
        "fold": source.request.fold,
        "training_cases": len(source.train_ids),
        "held_out_cases": len(source.held_out_ids),
        "generator": None if mix_config.run is None else str(mix_config.run),
        "ratio": str(mix_config.ratio),
        "schedule": str(mix_config.schedule),
        "folder": str(folder.path),
        "training": str(folder),
        "synthetic_share": mix_config.schedule.share_of(mix_config.ratio),
        **mix_config.samples.to_json(),
        **_planned_bank(adapter, mix_config, drawn, each),
        **planned_filters(mix_config.run, mix_config.samples.filters),
        **adapter.planned(request),
        "training_time_and_memory": f"not known: {adapter.name} is not run. gansynth benchmark "
        "--dry-run measures a training",
        "settings": dict(request.settings),
        "host_options": list(request.options),
        "leakage": claim(find_sample_source(mix_config).lineage)
        if mix_config.ratio.p > 0
        else "none: no synthetic sample is drawn",
        "will_it_harm": {
            **will_it_harm(adapter, mix_config, sampler, request.reporter),
            "real_alone": real_alone(adapter, request),
        },
    }


def _planned_bank(
    adapter: Framework, mix_config: MixConfig, samples: int | None, each: float
) -> dict[str, Any]:
    if mix_config.ratio.p == 0:
        return {"bank": "none"}
    from gansynth.bank.draw_log import foreseen
    from gansynth.bank.training_bank import LIVE_FILL

    if mix_config.bank is not None:
        held = BankReader(mix_config.bank).count()
        document: dict[str, Any] = {"bank": f"{mix_config.bank} (existing)"}
    else:
        unit = " samples" if mix_config.size.samples is not None else ""
        kind = "frozen" if mix_config.frozen else f"kept fresh, {mix_config.pacing}"
        planned = adapter.bank_plan(mix_config)
        held, needed = (0, None) if planned is None else (planned.held, planned.bytes)
        first = held if mix_config.frozen else min(held, LIVE_FILL)
        document = {
            "bank": f"{mix_config.size}{unit}, {kind}",
            "bank_bytes": needed,
            "seconds_per_sample": round(each, 3),
            "seconds_before_training": round(each * first, 2) if held else None,
        }
        if needed is not None:
            document["bank_place"] = str(bank_place(needed, mix_config.scratch))
    if samples is not None:
        draws = round(samples * mix_config.schedule.share_of(mix_config.ratio))
        document |= foreseen(mix_config, draws, held)
    return document


def timed_sampler(adapter: Framework, mix_config: MixConfig) -> tuple[Sampler, float]:
    """Draw two samples as a producer would; return their sampler and the second one's seconds.

    Raises:
        GansynthError: a producer would fail, or one of the samples would be rejected.
    """
    from gansynth.runtime.devices import producer_device
    from gansynth.sampling.sampler import open_drawer

    assert mix_config.run is not None
    device = producer_device(mix_config.device, ())
    sampler, bring = open_drawer(
        *(adapter.source, adapter, mix_config.run, mix_config.samples), device=device, learn=False
    )
    began = 0.0
    for index in range(2):
        began = time.perf_counter()
        sample = sampler.draw(index, 1)[0]
        adapter.finalise(sample if bring is None else bring(sample))
    return sampler, time.perf_counter() - began


def will_it_harm(
    adapter: Framework, mix_config: MixConfig, sampler: Sampler | None, reporter: Reporter
) -> dict[str, Any]:
    """Return ``lines`` on samples beside training cases, and their figures; nothing is refused.

    ``sampler``: of the samples; None for those of a bank, and without samples.
    """
    from gansynth.bank.api import check_bank
    from gansynth.sampling.evaluation_data import check_run

    if mix_config.ratio.p == 0:
        return {"lines": []}
    try:
        if mix_config.bank is not None:
            return check_bank(mix_config.bank, adapter.source, reporter)
        assert sampler is not None, "samples are of a generator or a bank"
        return check_run(sampler, reporter)
    except GansynthError as fault:
        return {"lines": [f"samples and training cases are not compared: {fault}"]}


def real_alone(adapter: Framework, request: TrainingRequest) -> dict[str, Any]:
    """Return Dice and folder of a finished training on real cases alone, in words; empty if none.

    It is one of ``augment --ratio 1:0`` or of ``--compare``, with the settings of ``request``.
    """
    from gansynth.metrics.segmentation.evaluation import evaluate
    from gansynth.metrics.segmentation.measures import FOREGROUND

    key, own, mixed = adapter.Options.place, dict(request.settings), request.mix_config
    output = own.pop(key, None)
    beside = {} if output is None else {key: str(Path(output).parent / "without")}
    real = replace(mixed, ratio=Ratio(1, 0), schedule=Schedule())
    plain = replace(real, run=None, bank=None, frozen=False, samples=SampleRequest(seed=mixed.seed))
    for place, mix_config in product(({}, beside), (real, plain)):
        asked = replace(request, settings={**own, **place}, mix_config=mix_config)
        with suppress(GansynthError):  # another training, or a host without label maps
            host = type(adapter)(adapter.source)
            folder = host.training_folder(asked)
            if not folder.finished:
                continue
            schema, judged = host.schema, host.judged(folder.path)
            regions = ((FOREGROUND, schema.foreground),)
            found = evaluate(judged, regions, measures=("dice",), ignore=schema.ignore).document()
            if (dice := found["dice"][FOREGROUND]) is None:
                continue
            words = f"real cases alone: Dice {dice:.2f} of held-out cases, in {folder.path}"
            words += CEILING if dice > GAINED else ""
            return {"dice": dice, "folder": str(folder.path), "words": words}
    return {}
