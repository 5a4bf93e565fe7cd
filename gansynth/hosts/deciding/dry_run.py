"""What a dry run tells: what a training would do, and whether samples will harm it."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gansynth.bank.placement import bank_place
from gansynth.bank.reader import BankReader
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.requests.sections import SampleSection
from gansynth.hosts.contract.record import TrainingFolder
from gansynth.hosts.contract.session import Session
from gansynth.hosts.deciding.timing import as_long_alone, pace_of
from gansynth.hosts.deciding.trials import Levels, trials_of
from gansynth.runtime.errors import GansynthError
from gansynth.runtime.measuring import dry_run, measuring
from gansynth.sampling.filters.fitted import planned_filters

if TYPE_CHECKING:
    from gansynth.sampling.sampler import Sampler

LONG = 24
"""Hours of a training above which a plan says what shortens it."""
GAINED = 0.46
"""Dice of real cases alone above which no draw gained (4 of 8 draws of breast ultrasound)."""
CEILING = (
    ": near what the host can reach, expect nothing (breast ultrasound: samples gained in 4 of 4 "
    f"draws below {GAINED}, in 0 of 4 above; gliomas still gained at 0.61)"
)


def plan_training(
    session: Session, folder: TrainingFolder, hours: Mapping[str, Any]
) -> dict[str, Any]:
    """Return a dry run's report of what ``start`` would do, once ``check`` has passed.

    Of a finished training no sample is drawn: nothing is asked of it any more.

    Args:
        hours: what ``time_of`` has measured.
    """
    request = session.request
    sampler, each = (None, 0.0) if folder.finished else _measured_sampler(session)
    plan = planned_data(session)
    plan |= {
        "generator": None if request.run is None else str(request.run),
        "ratio": str(request.mix.ratio),
        "schedule": str(request.mix.schedule),
        "folder": str(folder.path),
        "training": str(folder),
        "synthetic_share": request.mix.share_of(),
    }
    plan.update(request.samples.to_json())
    if request.samples.unlabelled:
        plan["unlabelled"] = ["{kind}:{where}".format(**s) for s in request.samples.unlabelled]
    if sampler is not None and sampler.others.scans:
        scans = [len(each.train_ids) for each in sampler.others.scans]
        plan["unlabelled_scans"] = sum(scans)
    plan.update(_planned_bank(session, each))
    producers = session.producers
    plan |= {"loading_processes": session.host.loaders, "producers": producers}
    plan["processes"] = session.shares(producers)
    plan.update(planned_filters(request.run, request.samples.filters))
    plan.update(session.planned())
    plan.update(hours)
    told = hours.get("training_hours")
    ways = _shorter(session) if isinstance(told, int | float) and told > LONG else []
    plan |= {"shorter": " or ".join(ways)} if ways else {}
    plan |= {
        "settings": dict(request.set),
        "host_options": list(request.options),
        "leakage": str(session.compared)
        if request.mix.synthetic
        else "none: no synthetic sample is drawn",
    }
    if not folder.finished:
        harm = will_it_harm(session, sampler)
        plan["will_it_harm"] = dict(harm, real_alone=real_alone(session))
    return plan


def _shorter(session: Session) -> list[str]:
    """Return what shortens a training: what suits this machine, and is not chosen."""
    request, asked, ways = session.request, session.source.request, []
    for choice in session.host.suited(request):
        if choice.prepare and getattr(asked, choice.name, None) != choice.value:
            # Data prepared otherwise need another generator; one command makes both.
            typed = replace(asked, plans=None).command(AugmentRequest, ratio=request.ratio)
            ways.append(f"{typed} (with {choice.name} {choice.value})")
        elif not choice.prepare and choice.name not in request.set:
            ways.append(f"--{choice.name.replace('_', '-')} {choice.value}")
    return ways


def planned_data(session: Session) -> dict[str, Any]:
    """Return what a dry run says of the target and its data."""
    source = session.source
    return {
        "dry_run": True,
        "target": session.host.name,
        "data": source.name,
        "fold": source.request.fold,
        "training_cases": len(source.train_ids),
        "held_out_cases": len(source.held_out_ids),
    }


def time_of(session: Session, request: AugmentRequest, folder: TrainingFolder) -> Mapping[str, Any]:
    """Return the hours of a training, and what else was measured of it; 0 for a finished one.

    Drawing a sample is timed apart: a training on real cases alone of as many steps is timed. The
    command that trains begins as this one has, and a process that draws starts as a training's.
    """
    if folder.finished:
        return {"training_hours": 0}
    begun = measuring().elapsed
    as_long = as_long_alone(request, session.source, request.set)
    alone = session.again(as_long.replace(without=("dry_run", "generator")))
    why: object = f"{session.host.name} did not begin to train soon enough"
    try:
        found = measuring().part("steps of the training", alone.opened.time_of)
        if found is not None:
            found = dict(found or pace_of(alone))
    except GansynthError as fault:
        found, why = None, fault
    if not found:
        return {"training_hours": f"not known: {why}"}
    start = found.pop("seconds_to_start", 0.0)
    begun += start if request.mix.synthetic and request.bank is None else 0.0
    return found | {"training_hours": round(found["training_hours"] + begun / 3600, 4)}


def _planned_bank(session: Session, each: float) -> dict[str, Any]:
    request, samples = session.request, session.samples_drawn
    if not request.mix.synthetic:
        return {"bank": "none"}
    from gansynth.bank.draw_log import foreseen
    from gansynth.bank.training_bank import LIVE_FILL

    if request.bank is not None:
        held = BankReader(request.bank).count()
        document: dict[str, Any] = {"bank": f"{request.bank} (existing)"}
    else:
        unit = " samples" if request.size.samples is not None else ""
        kind = "frozen" if request.offline else f"kept fresh, {request.pacing}"
        planned = session.bank_plan
        held, needed = (0, None) if planned is None else (planned.held, planned.bytes)
        first = held if request.offline else min(held, LIVE_FILL)
        document = {
            "bank": f"{request.size}{unit}, {kind}",
            "bank_bytes": needed,
            "seconds_per_sample": round(each, 3) if each else None,
            "seconds_before_training": round(each * first, 2) if held and each else None,
        }
        if needed is not None:
            document["bank_place"] = str(bank_place(needed, request.bank_dir)[0])
    if samples is not None:
        draws = round(samples * request.mix.share_of())
        document |= foreseen(request, draws, held)
    return document


def _measured_sampler(session: Session) -> tuple[Sampler | None, float]:
    """Return what ``timed_sampler`` does; None and 0 without samples, of a bank, or of time."""
    if not session.request.mix.synthetic or session.request.bank is not None:
        return None, 0.0
    return measuring().part("samples", lambda: timed_sampler(session)) or (None, 0.0)


def timed_sampler(session: Session) -> tuple[Sampler, float]:
    """Draw two samples as a producer would; return their sampler and the second one's seconds."""
    from gansynth.runtime.devices import producer_device
    from gansynth.sampling.sampler import open_drawer

    request, intake = session.request, session.host.intake
    assert request.run is not None
    device = producer_device(request.device, ())
    sampler, bring = open_drawer(
        session.source, intake, request.run, request.samples, device=device, learn=False
    )
    began = 0.0
    for index in range(2):
        began = time.perf_counter()
        sample = sampler.draw(index, 1)[0]
        intake.finalise(sample if bring is None else bring(sample))
    return sampler, time.perf_counter() - began


def will_it_harm(session: Session, sampler: Sampler | None) -> dict[str, Any]:
    """Return ``lines`` on samples beside training cases, their figures, and the ``answer``.

    Nothing is refused. Where nothing is compared, ``lines`` say why, and there is no answer;
    ``all_rejected`` where that is because no sample would be let in.

    ``sampler``: of the samples; None for those of a bank, and without samples.
    """
    from gansynth.bank.filling import check_bank
    from gansynth.sampling.evaluation_data import check_run

    request, rejected = session.request, False
    if not request.mix.synthetic:
        return {"lines": []}

    def compared() -> dict[str, Any]:
        if request.bank is not None:
            return check_bank(Path(request.bank), session.source, session.reporter)
        return {} if sampler is None else check_run(sampler, session.reporter)

    samples = {"bank": request.bank} if request.bank else {"generator": request.generator}
    typed = session.source.request.check(**samples)
    why: object = f"that takes too long here; {typed} does it"
    try:
        found = measuring().part("will it harm", compared)
    except GansynthError as fault:
        found, why, rejected = None, fault, fault.id == "sampling.all-samples-rejected"
    lines = [f"samples and training cases are not compared: {why}"]
    return found or {"lines": lines, "all_rejected": rejected}


def harm_lines(document: Mapping[str, Any]) -> list[str]:
    """Return what a plan or a check says of harm, the answer last; nothing without samples."""
    harm = document.get("will_it_harm") or {}
    alone = harm.get("real_alone") or {}
    last = (alone.get("words"), harm.get("sets"), harm.get("answer"))
    return [*harm.get("lines", ()), *filter(None, last)]


def say_harm(session: Session) -> None:
    """Say, before a training, what a dry run says of harm, at its cost; and the cure, if any."""
    request, reporter = session.request, session.reporter
    with dry_run(reporter):
        try:
            harm = will_it_harm(session, _measured_sampler(session)[0])
        except GansynthError as fault:  # a training draws again where a sample is rejected
            harm = {"lines": [f"samples and training cases are not compared: {fault}"]}
    for line in harm_lines({"will_it_harm": dict(harm, real_alone=real_alone(session))}):
        reporter.say(line)
    if harm.get("harms") and request.generator is not None:
        command = shlex.join(["gansynth", "evaluate", str(request.generator)])
        reporter.say("the training goes on all the same; the cure is named by")
        reporter.say(command)


def real_alone(session: Session) -> dict[str, Any]:
    """Return Dice and folder of a finished training on real cases alone, in words; empty if none.

    It is one of ``augment --ratio 1:0`` or of ``--compare``, with the settings of the session.
    """
    from gansynth.metrics.segmentation.evaluation import measure_predictions
    from gansynth.metrics.segmentation.measures import FOREGROUND

    request, schema = session.request, session.source.schema
    key, own = session.host.Options.output_key, dict(request.set)
    output, regions = own.pop(key, None), ((FOREGROUND, schema.foreground),)
    beside = {} if output is None else {key: str(Path(output).parent / "without")}
    real = request.replace(without=("schedule",), ratio="1:0")
    plain = real.replace(without=("generator", "bank", "offline", *SampleSection.words()))
    trials = trials_of(request.target)
    without_levels: Levels = ({}, ())
    with_levels = trials.saving_levels() or without_levels  # as --compare trains
    kept = (without_levels, with_levels)
    for place, (settings, words), alone in product(({}, beside), kept, (real, plain)):
        with suppress(GansynthError):  # another training, or a host without label maps
            options = (*request.options, *words)
            asked = alone.replace(set=own | place | dict(settings), options=options)
            folder = session.again(asked).training_folder()
            if not folder.finished:
                continue
            predictions = trials.predictions(session.source, folder.path)
            found = measure_predictions(
                predictions, regions, measures=("dice",), ignore=schema.ignore
            ).document()
            dice = found["dice"][FOREGROUND]
            if dice is None:
                continue
            told = f"real cases alone: Dice {dice:.2f} of held-out cases, in {folder.path}"
            told += CEILING if dice > GAINED else ""
            return {"dice": dice, "folder": str(folder.path), "words": told}
    return {}
