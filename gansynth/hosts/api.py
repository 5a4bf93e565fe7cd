"""``gansynth.augment``: the command in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gansynth.core.bank_options import BankSize, RefreshPolicy
from gansynth.core.host_commands import ExportRequest, TrainingRequest
from gansynth.core.mix_config import MixConfig, TrainingResult
from gansynth.core.ratio import Ratio
from gansynth.core.requests.base import function_of
from gansynth.core.requests.hosts import AugmentRequest, BankWords, Content, HostData
from gansynth.core.requests.sections import ReadWords, SampleWords
from gansynth.core.run_folder import RunFolder
from gansynth.core.schedule import Schedule
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.read_options import refuse_idle_read
from gansynth.fitting.label_report import warn_of_label_maps
from gansynth.hosts.dry_run import plan_training, timed_sampler, will_it_harm
from gansynth.hosts.host import Framework, framework
from gansynth.hosts.sample_source import warn_of_neighbours
from gansynth.metrics.segmentation.evaluation import compared
from gansynth.runtime.devices import why_cpu
from gansynth.runtime.errors import UsageFault, refuse_unknown
from gansynth.runtime.options import put_setting
from gansynth.runtime.progress import NullReporter, Reporter, RichReporter
from gansynth.sampling.filters.fitted import learn_ahead
from gansynth.sampling.request_parsing import read_request
from gansynth.sampling.run_source import open_resolved, requested, resolve_request

ONE_PAIR = (
    "one pair of trainings proves nothing: another seed or other patients may turn it round. "
    "gansynth benchmark measures it, by this plan"
)
READING = ("configuration", "plans", "fold", "subjects", "read", "root")
MANY = 1_000_000  # steps, to compare the lengths of epochs
OF_SAMPLES = (
    *BankWords.words(),
    *SampleWords.words(),
    *("augment_synthetic", "device"),
)
"""Fields about samples."""
WRITING = (
    *HostData.words(),
    *(name for name in ReadWords.words() if name != "synthetic_source"),
    *SampleWords.words(),
    *("target", "ratio", "generator", "bank", "bank_size", "restarts", "seed", "device"),
    *("real_in_generator_space", "nearest", "export", "content", "dry_run"),
)
"""Fields that an export uses; every other one is about training."""


@dataclass(frozen=True)
class Augmented:
    """What ``gansynth augment`` did."""

    adapter: Framework
    document: Mapping[str, Any]  # what `--json` prints
    result: TrainingResult | None = None  # of a training; None for a dry run or an export
    control: Augmented | None = None  # the same without samples, if they are compared

    def refuse_missing(self) -> None:
        """Refuse a training that lacked samples; see ``TrainingResult``."""
        if self.result is not None:
            self.result.refuse_missing()


def run_augment(request: AugmentRequest) -> Augmented:
    """Train, export, or plan it.

    Raises:
        GansynthError: typed by cause; missing samples are in the result.
    """
    return _augment(request, RichReporter(quiet=request.quiet))


def _report(request: AugmentRequest) -> Mapping[str, Any]:
    """Train a target framework with samples mixed in at a ratio: ``gansynth augment``.

    Each argument is the option of that name; ``gansynth augment --help`` explains them. Others are
    options of the target, which ``gansynth.options(TARGET)`` lists.

    Returns:
        What ``--json`` prints: counts, shares, folder, metrics on real held-out cases.

    Raises:
        GansynthError: typed by cause. ``TrainingFault``: trained, but samples were missing.
    """
    done = run_augment(request)
    done.refuse_missing()
    return done.document


augment = function_of(AugmentRequest, _report, "augment")


def _augment(request: AugmentRequest, reporter: Reporter, *, control: bool = False) -> Augmented:
    if request.compare:
        return _compare(request, reporter)
    mix_config = mix_config_from(request)
    cls = framework(request.target)
    refuse_unknown(request.set, cls.Options.model_fields, of=request.target)
    reading = {key: getattr(request, key) for key in READING}
    reading["synthetic"] = request.synthetic_source
    asked, taken = host_data(request.data, reading, mix_config.run)
    if mix_config.ratio.p == 0 and not control:  # of a baseline, say
        for name in OF_SAMPLES:
            if name in request.given:
                reporter.warn(f"{request.typed(name)}: has no effect with {request.typed('ratio')}")
    if taken:
        reporter.say(f"as {mix_config.run} was fitted: {taken}")
    if request.export is not None:
        request.refuse_beside(
            *WRITING,
            message="--export with {}: nothing is trained, expected only options of the samples to "
            "write; leave it out",
        )
    settings = host_settings(cls, request.set, request.out)
    adapter = cls(open_resolved(asked, by_user="data " not in taken))
    adapter.check_ways(mix_config)
    if request.export is not None:
        return Augmented(adapter, _export(adapter, mix_config, request, reporter))
    if (why := why_cpu(mix_config.device)) is not None:
        reporter.say(why)
    return _train(adapter, mix_config, settings, request, reporter)


def _compare(request: AugmentRequest, reporter: Reporter) -> Augmented:
    """Train with samples, then without: the same settings, seed and number of steps."""
    if Ratio.parse(request.ratio).p == 0:
        raise UsageFault(
            f"--compare with --ratio {request.ratio}: no sample is drawn, expected a ratio such "
            "as 1:1; the training without samples is added"
        )
    cls = framework(request.target)
    place, settings = cls.Options.place, host_settings(cls, request.set, request.out)
    arms = {}
    for name in ("without", "with"):
        own = {place: f"{settings[place]}/{name}"} if place in settings else {}
        arms[name] = request.but("compare", "out", set={**settings, **own})
    planned = _augment(arms["with"].but(dry_run=True), NullReporter())
    longer = {**arms["without"].set, **as_long(planned.adapter, request.set, request.ratio)}
    left_out = {*OF_SAMPLES, "schedule"} - {"generator"}  # whose data it may be
    arms["without"] = arms["without"].but(*left_out, ratio="1:0", set=longer)
    before = arms["without"].but(dry_run=True)
    _augment(before, NullReporter(), control=True)  # before either trains
    for line in planned.document["will_it_harm"]["lines"]:
        reporter.say(line)
    done = _augment(arms["with"], reporter)
    control = _augment(arms["without"], reporter, control=True)
    plan = plan_text(done.adapter.source, request)
    document = {"without": control.document, "with": done.document, "warning": ONE_PAIR}
    document |= compared(
        *(arm.document.get("metrics_on_real_cases", {}) for arm in (done, control))
    )
    return replace(done, document={**document, "plan": plan}, control=control)


def as_long(adapter: Framework, own: Mapping[str, str], ratio: str) -> dict[str, str]:
    """Return the length in which real cases alone take as many steps as with samples.

    Epochs of a detector are longer with samples; where all are equally long, nothing is set.
    """
    option = adapter.length_option
    usual = adapter.Options.model_fields.get(option)
    length = own.get(option, usual and usual.default)
    if length is None:
        return {}
    mixes = [(Ratio.parse(ratio), Schedule()), (Ratio(1, 0), Schedule())]
    lengths = adapter.lasting(MANY, mixes, own, len(adapter.source.train_ids))
    mixed, real = (int(found.get(option, 1)) for found in lengths)
    return {} if mixed == real else {option: str(round(int(length) * real / mixed))}


def plan_text(source: CaseSource, asked: AugmentRequest) -> str:
    """Return a plan of ``gansynth benchmark`` for the comparison of one pair."""
    request = source.request
    subjects = len(
        {source.header(case).subject for case in (*source.train_ids, *source.held_out_ids)}
    )
    test = max(2, subjects // 4)
    size = max(1, (subjects - 2 * test) // 3)
    lines = [
        "name: pairs",
        f"data: {request.kind}:{request.where}",
        *(
            f"{key}: {value}"
            for key in ("configuration", "plans", "subjects", "root")
            if (value := getattr(request, key)) is not None
        ),
        *([f"read: {dict(request.read)}"] if request.read else []),
        f"host: {{target: {asked.target}, steps: 1000}}",
        f"generators: {{mine: {{generator: {_plugin(asked)}}}}}",
        f'arms: [default, double, {{name: mine, generator: mine, ratio: "{asked.ratio}"}}]',
        f"sizes: [{size}]",
        "draws: 3",
        "seeds: 2",
        f"split: {{development: {test}, sealed: {test}}}",
    ]
    return "\n".join(lines)


def _plugin(asked: AugmentRequest) -> str:
    run = asked.generator
    return "GENERATOR" if run is None else str(RunFolder(Path(run)).manifest["generator"])


def _train(
    adapter: Framework,
    mix_config: MixConfig,
    settings: Mapping[str, str],
    asked: AugmentRequest,
    reporter: Reporter,
) -> Augmented:
    request = TrainingRequest(mix_config, settings, tuple(asked.options), reporter)
    adapter.validate()
    adapter.check(request)
    if mix_config.run is not None and mix_config.ratio.p > 0:
        warn_of_label_maps(mix_config.run.folder, reporter)
        warn_of_neighbours(mix_config, adapter.source.name, adapter.held_out, reporter)
    folder = adapter.training_folder(request)
    adapter.check_drawing(mix_config)  # also for a host whose ``check`` does not
    if asked.dry_run:
        return Augmented(adapter, plan_training(adapter, request, folder))
    reporter.say(f"the training {folder}")
    if mix_config.ratio.p > 0 and not folder.finished:
        # now, with progress, and not in the producer
        learn_ahead(
            *(mix_config.run, mix_config.samples.filters, adapter.source),
            target=adapter.name,
            device=mix_config.device,
            reporter=reporter,
        )
    try:
        result = adapter.start(request)
    except (KeyboardInterrupt, SystemExit):
        reporter.say("stopped; to go on, type the same command again")
        raise
    for warning in result.warnings:
        reporter.warn(warning)
    return Augmented(adapter, result.describe(mix_config), result)


def _export(
    adapter: Framework, mix_config: MixConfig, asked: AugmentRequest, reporter: Reporter
) -> Mapping[str, Any]:
    name, dry_run = str(asked.export), asked.dry_run
    size = mix_config.size if "bank_size" in asked.given else None
    content: Content = asked.content or "mixed"
    document = adapter.export(
        ExportRequest(mix_config, name, reporter, content, size, dry_run=dry_run)
    )
    if dry_run and mix_config.run and mix_config.bank is None and mix_config.ratio.p > 0:
        sampler, each = timed_sampler(adapter, mix_config)
        document = {**document, "seconds_per_sample": round(each, 3), "memory": "not measured"}
        document["will_it_harm"] = will_it_harm(adapter, mix_config, sampler, reporter)
    return document


# -- how options combine


def mix_config_from(request: AugmentRequest) -> MixConfig:
    """Return how samples are mixed in."""
    generator, bank, place = request.generator, request.bank, request.bank_dir
    paces = (request.reuse, request.refresh, request.overhead)
    pace = [None if value is None else str(value) for value in paces]
    return MixConfig(
        run=None if generator is None else RunFolder(Path(generator)),
        ratio=Ratio.parse(request.ratio),
        schedule=Schedule.parse(request.schedule),
        frozen=request.offline,
        size=BankSize.parse(str(request.bank_size)),
        pacing=RefreshPolicy.parse(*pace),
        bank=None if bank is None else Path(bank),
        scratch=None if place is None else Path(place),
        samples=read_request(request, request.seed),
        device=request.device,
        restarts=request.restarts,
        strict=request.strict,
        keep_going=request.allow_empty_bank,
        usual_augmentation=request.host_augmentation,
        augment_synthetic=request.augment_synthetic,
        real_in_generator_space=request.real_in_generator_space,
        nearest=request.nearest,
    )


def host_settings(
    host: type[Framework], settings: Mapping[str, str], out: str | os.PathLike[str] | None
) -> dict[str, str]:
    """Return a target's settings with ``-o``, the folder of a training's results."""
    merged, place = dict(settings), host.Options.place
    if out is not None and not place:
        raise UsageFault(f"-o {out}: {host.name} has no folder for results; leave it out")
    if out is not None:
        put_setting(merged, place, str(out), "-o")
    return merged


def host_data(
    data: str | None, reading: Mapping[str, Any], run: RunFolder | None
) -> tuple[SourceRequest, str]:
    """Return the data of a target, and in words what was taken from the generator's fit.

    Raises:
        UsageFault: no data set is named, or a key has no effect.
        DataFault: no run there.
    """
    if data is not None:
        parsed = SourceRequest.parse(data)
        reading = {**reading, "kind": parsed.kind, "where": parsed.where}
    request = requested(reading, run)
    refuse_idle_read(request, reading["read"])
    return request, "" if run is None else resolve_request(request, reading)
