"""Check that a generator can make the requested samples, and plan a dry run."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from gansynth.bank.placement import bank_place, plan_bank
from gansynth.bank.reader import BankReader, verify_bank
from gansynth.core.adapter import Adapter
from gansynth.core.bank_options import BankCapacity
from gansynth.core.host_commands import TrainingFolder, TrainingRequest
from gansynth.core.lineage import CaseRecord, claim, guard, guard_host, neighbours
from gansynth.core.mix_config import MixConfig
from gansynth.core.registry import such_as
from gansynth.core.run_folder import RunFolder
from gansynth.core.source import CaseSource, case_content, lineage_of
from gansynth.core.space import Space
from gansynth.core.units import IMAGES, compare_with_cases
from gansynth.hosts.harm import real_alone, will_it_harm
from gansynth.hosts.sample_source import SampleSource, check_schema, find_sample_source
from gansynth.runtime.errors import IntegrityFault, UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.filters.pretrain import learn_ahead, planned_filters
from gansynth.sampling.open_run import check_weights
from gansynth.sampling.request_parsing import Maker, check_request, check_texts
from gansynth.sampling.run_source import open_drawer, open_matching_real

if TYPE_CHECKING:
    from gansynth.sampling.sampler import Sampler


METADATA_BYTES = 4096  # of a sample in a bank, with its boxes


@dataclass(frozen=True)
class HostLimits:
    """What a training needs of its samples; ``check_origin`` refuses anything else.

    Attributes:
        needs: what it learns from, besides images.
        same: attributes of the schema that a bank's samples must share with the training cases.
        hint: how to fit a suitable generator, for messages; the same generator again, if empty.
        check_run: refuses a run whose samples do not fit the training.
        check_bank: refuses a bank whose samples do not fit the training.
    """

    name: str
    source: CaseSource
    held_out: Sequence[CaseRecord]
    needs: Literal["labels", "boxes"] = "labels"
    same: tuple[str, ...] = ()
    hint: str = ""
    check_run: Callable[[RunFolder], None] = lambda run: None
    check_bank: Callable[[BankReader], object] = lambda reader: verify_bank(reader.folder)


def check_origin(
    mix_config: MixConfig, takes: HostLimits, sample_source: SampleSource | None = None
) -> SampleSource:
    """Check the origin of samples, and return it with everything that it has seen."""
    if mix_config.bank is not None:
        refuse_with_bank(mix_config)
    sample_source = sample_source or find_sample_source(mix_config)
    source, origin_kind = takes.source, "generator" if sample_source.bank is None else "bank"
    if sample_source.run is not None:
        check_learnable(sample_source.run, takes.name, takes.needs)
    guard_host(sample_source.lineage.host, source.space.host, kind=origin_kind)
    run, request = sample_source.run, source.request
    hint = takes.hint or (
        "Fit a generator on the training cases of this fold: gansynth fit "
        f"{'GENERATOR' if run is None else run.manifest['generator']} --data "
        f"{request.kind}:{request.where} --fold {request.fold}"
    )
    # First as another data set, then as the same one.
    for name in dict.fromkeys((source.name, sample_source.lineage.dataset)):
        guard(sample_source.lineage, takes.held_out, kind=origin_kind, dataset=name, hint=hint)
    if sample_source.bank is not None:
        spec, folder = sample_source.bank.spec, sample_source.bank.folder
        check_schema(folder, spec.schema, source.schema, takes.same, "Make the bank again")
        takes.check_bank(sample_source.bank)
        return sample_source

    assert sample_source.run is not None  # for it is no bank
    takes.check_run(sample_source.run)
    check_weights(sample_source.run)
    return check_asked(mix_config, sample_source, takes)


def check_learnable(
    run: RunFolder, target: str, needs: Literal["labels", "boxes"] = "labels"
) -> None:
    """Refuse a generator that draws no images, or no labels or boxes that the training needs."""
    folder, manifest, can = run.folder, run.manifest, run.capabilities
    if can.draws == "labels":
        raise UsageFault(
            f"{folder}: {manifest['generator']} was fitted to draw label maps of images, "
            f"expected images to train {target}. Name the chain it is a part of, or fit one "
            "that draws images"
        )
    if needs == "boxes":
        if "boxes" in can.takes:
            return
        if not (run.schema.foreground and run.schema.box_classes):
            raise UsageFault(
                f"{folder}: {manifest['generator']} takes no boxes, and {target} learns from "
                "them; fit a generator that does, such as "
                f"{such_as(lambda able: 'boxes' in able.takes)}, or give label maps to the fit "
                "(--read masks=yes), around whose parts boxes are drawn"
            )
    if not can.labelled:
        raise UsageFault(
            f"{folder}: {manifest['generator']} draws images without label maps, and {target} "
            f"learns from labels; {can.remedy('no labels')}"
        )


def refuse_with_bank(mix_config: MixConfig) -> None:
    """Refuse conditions and filters for samples that come from a bank."""
    request = mix_config.samples
    options = {
        "--boxes": request.boxes,
        "--condition-source": request.conditions and "{kind}:{where}".format(**request.conditions),
        "--prevalence": request.prevalence,
        "--lesions": request.lesions,
        "--sampling-weights": request.weights,
        "--filter": request.filters[0] if request.filters else None,
    }
    for option, value in options.items():
        if value is not None:
            raise UsageFault(
                f"{option} {value}: samples come from the bank {mix_config.bank}, which fixes "
                f"their conditions; leave {option} out"
            )


def check_asked(
    mix_config: MixConfig, sample_source: SampleSource, takes: HostLimits
) -> SampleSource:
    """Check all requests for a run's samples, and return the origin with all source cases."""
    from gansynth.conditions.condition_source import open_base
    from gansynth.conditions.sampling_weights import SamplingWeights

    request, run, host = mix_config.samples, sample_source.run, takes.source
    assert run is not None  # for it is no bank
    check_request(request, Maker.of(run))
    check_texts(request)
    if request.weights is not None:
        weights = SamplingWeights.read(Path(request.weights))
        weights.check(run.lineage, run.schema.labels)
        weights.guard(takes.held_out, host.name)
    if request.conditions is None:
        return sample_source
    lineage = lineage_of(open_base(request.conditions, open_matching_real(run, host)))
    hint = "Leave these cases out of it, or name another source"
    guard(lineage, takes.held_out, kind="--condition-source", dataset=host.name, hint=hint)
    return replace(sample_source, lineage=sample_source.lineage.joined(lineage))


def check_drawing(adapter: Adapter, mix_config: MixConfig) -> None:
    """Check that a run, or a bank, has samples of the training's own cases.

    It is the last check, and opens the generator as a producer will. Every training case is read
    and compared by content, whatever the data set's name. Cases that passed once are not read
    again.
    """
    from gansynth.runtime.devices import pick_device

    if mix_config.ratio.p == 0 or mix_config == adapter.samples_checked:
        return
    pick_device(mix_config.device)
    adapter.bank_plan(mix_config)
    if mix_config.bank is not None:
        _check_bank(mix_config.bank, adapter)
    else:
        assert mix_config.run is not None  # see MixConfig
        sampler, _ = open_drawer(
            adapter, mix_config.run, mix_config.samples, device="cpu", learn=False
        )
        sampler.check_cases()
    adapter.samples_checked = mix_config


def warn_of_neighbours(mix_config: MixConfig, adapter: Adapter, reporter: Reporter) -> None:
    """Warn of held-out pictures that look like training ones, where no subjects are named."""
    lineage = find_sample_source(mix_config).lineage
    if all(case.subject == case.id for case in adapter.held_out):
        sides = (lineage.cases, adapter.held_out)
        warning = neighbours(*({case.id: case.prints for case in side} for side in sides))
        if warning:
            reporter.warn(f"{adapter.source.name}: {warning}")


def learn_filters(
    mix_config: MixConfig, source: CaseSource, target: str, reporter: Reporter
) -> None:
    """Fit the filters that the run lacks now, with progress, and not in the producer."""
    filters, device = mix_config.samples.filters, mix_config.device
    learn_ahead(mix_config.run, filters, source, target=target, device=device, reporter=reporter)


def plan_own_bank(
    adapter: Adapter, mix_config: MixConfig, sample_bytes: Callable[[Mapping[str, Any]], int]
) -> BankCapacity | None:
    """Plan the bank that is filled from a run; None if there is none.

    Args:
        sample_bytes: returns the most bytes of a sample, given the run's manifest.
    """
    if mix_config.run is None or mix_config.bank is not None or mix_config.ratio.p == 0:
        return None
    size = sample_bytes(mix_config.run.manifest)
    return plan_bank(mix_config, len(adapter.source.train_ids), size)


def sample_bytes(manifest: Mapping[str, Any], source: CaseSource, needs: str) -> int:
    """Return the most bytes of a run's sample: image (float16), and labels (int16) or boxes."""
    space = Space.from_json(manifest["space"])
    if space.cuts or space.frame:
        voxels = prod(space.host_shape(()))
    else:
        voxels = max(prod(source.header(case).shape) for case in source.train_ids)
    values = len(manifest["schema"]["channels"]) + (needs == "labels")
    return 2 * voxels * values + METADATA_BYTES


def timed_sampler(adapter: Adapter, mix_config: MixConfig) -> tuple[Sampler, float]:
    """Draw two samples as a producer would; return their sampler and the second one's seconds.

    Raises:
        GansynthError: a producer would fail, or one of the samples would be rejected.
    """
    from gansynth.runtime.devices import producer_device

    assert mix_config.run is not None
    device = producer_device(mix_config.device, ())
    sampler, bring = open_drawer(
        adapter, mix_config.run, mix_config.samples, device=device, learn=False
    )
    began = 0.0
    for index in range(2):
        began = time.perf_counter()
        sample = sampler.draw(index, 1)[0]
        adapter.finalise(sample if bring is None else bring(sample))
    return sampler, time.perf_counter() - began


def _check_bank(folder: Path, adapter: Adapter) -> None:
    """Refuse a bank of another data set, by its content, or in other units."""
    reader, source = BankReader(folder), adapter.source
    lineage = reader.spec.lineage
    hashes = {case.sha256 for case in lineage.cases}
    others = source.train_ids if lineage.dataset != source.name else ()
    unseen = [case_id for case_id in others if case_content(source, case_id) not in hashes]
    if unseen:
        raise IntegrityFault(
            f"{folder}: its samples are made of {lineage.dataset}, which lacks {len(unseen)} of "
            f"{len(source.train_ids)} training case(s) of {source.name}, first {unseen[0]}; "
            "expected the same data set. Fill a bank by a generator that was fitted on it"
        )
    drawn = [reader.draw(np.random.default_rng(seed)) for seed in range(IMAGES)]
    compare_with_cases(folder, source, [s.image for s in drawn if s is not None])


# -- dry runs --------------------------------------------------------------------------------------


def plan_training(
    adapter: Adapter, request: TrainingRequest, folder: TrainingFolder | None
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
        **({} if folder is None else {"folder": str(folder.path), "training": str(folder)}),
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
    adapter: Adapter, mix_config: MixConfig, samples: int | None, each: float
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
