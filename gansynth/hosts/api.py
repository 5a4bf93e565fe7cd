"""``gansynth.augment``: the command in Python."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gansynth.core.adapter import Adapter
from gansynth.core.bank_options import BankSize, RefreshPolicy
from gansynth.core.host_commands import Content, ExportRequest, TrainingRequest
from gansynth.core.mix_config import MixConfig, TrainingResult
from gansynth.core.ratio import Ratio
from gansynth.core.registry import installed
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.read_options import refuse_idle_read
from gansynth.fitting.label_report import warn_of_label_maps
from gansynth.hosts.dry_run import plan_training, timed_sampler, will_it_harm
from gansynth.hosts.sample_source import check_drawing, warn_of_neighbours
from gansynth.metrics.segmentation.evaluation import compared
from gansynth.runtime.devices import why_cpu
from gansynth.runtime.errors import UsageFault, refuse_unknown
from gansynth.runtime.options import FlagText, flag_of, put_setting
from gansynth.runtime.progress import NullReporter, Reporter, RichReporter
from gansynth.runtime.words import Given, Texts, as_path, as_texts, changed
from gansynth.sampling.filters.pretrain import learn_ahead
from gansynth.sampling.request_parsing import SampleWords, read_request
from gansynth.sampling.run_source import open_resolved, requested, resolve_request

ONE_PAIR = (
    "one pair of trainings proves nothing: another seed or other patients may turn it round. "
    "gansynth benchmark measures it, by this plan"
)
READING = ("configuration", "plans", "fold", "subjects", "read", "root")
MANY = 1_000_000  # steps, to compare the lengths of epochs


SOURCE = ("data", "configuration", "plans", "fold", "subjects", "read", "root")
SAMPLES = ("generator", "ratio", "bank", "bank_size", "restarts", "seed", "edit", "device")
REAL = ("real_in_generator_space", "nearest")
CONDITIONS = ("boxes", "condition_source", "condition_source_read", "prevalence", "lesions")
CHOSEN = ("sampling_weights", "filter")
SAYING = ("target", "export", "content", "dry_run", "as_json", "quiet", "debug")
WRITING = frozenset((*SOURCE, *SAMPLES, *REAL, *CONDITIONS, *CHOSEN, *SAYING))
"""Options that an export uses; every other one is about training."""
NEEDS = {
    **dict.fromkeys(("bank_size", "bank_dir", "offline", "device", "edit"), "!bank"),
    **dict.fromkeys(("reuse", "refresh", "overhead"), "!bank, !offline"),
    "restarts": "!bank",
    "condition_source_read": "condition_source",
    "nearest": "export",
}
"""Conditions under which options have an effect; see ``gansynth.runtime.options.Needs``."""
OF_SAMPLES = (
    *("generator", "bank", "bank_size", "offline", "reuse", "refresh", "overhead", "bank_dir"),
    *("restarts", "strict", "allow_empty_bank", "augment_synthetic", "edit", *CONDITIONS, *CHOSEN),
    "device",
)
"""Options about samples."""


@dataclass(frozen=True)
class Augmented:
    """What ``gansynth augment`` did."""

    adapter: Adapter
    document: Mapping[str, Any]  # what `--json` prints
    result: TrainingResult | None = None  # of a training; None for a dry run or an export
    control: Augmented | None = None  # the same without samples, if they are compared

    def refuse_missing(self) -> None:
        """Refuse a training that lacked samples; see ``TrainingResult``."""
        if self.result is not None:
            self.result.refuse_missing()


def augment(
    *,
    target: str,
    ratio: str,
    generator: str | os.PathLike[str] | None = None,
    data: str | None = None,
    configuration: str | None = None,
    plans: str | None = None,
    fold: int | str | None = None,
    subjects: str | None = None,
    read: Mapping[str, Any] | None = None,
    synthetic_source: str | None = None,
    root: str | None = None,
    schedule: str = "constant",
    bank: str | os.PathLike[str] | None = None,
    offline: bool = False,
    bank_size: int | str = "64",
    reuse: str | None = None,
    refresh: str | None = None,
    overhead: str | None = None,
    bank_dir: str | os.PathLike[str] | None = None,
    restarts: int = 5,
    strict: bool = False,
    allow_empty_bank: bool = False,
    host_augmentation: bool = True,
    augment_synthetic: bool = True,
    real_in_generator_space: bool = False,
    export: str | None = None,
    out: str | os.PathLike[str] | None = None,
    content: Content | None = None,
    nearest: bool = False,
    compare: bool = False,
    edit: Texts = (),
    boxes: str | None = None,
    condition_source: str | None = None,
    condition_source_read: Mapping[str, Any] | None = None,
    prevalence: str | float = "real",
    lesions: str | None = None,
    sampling_weights: str | os.PathLike[str] | None = None,
    filter: Texts = (),
    seed: int = 0,
    device: str = "auto",
    dry_run: bool = False,
    options: Sequence[str] = (),
    quiet: bool = False,
    set: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Mapping[str, Any]:
    """Train a target framework with samples mixed in at a ratio: ``gansynth augment``.

    Each argument is the option of that name; ``gansynth augment --help`` explains them.

    Args:
        target: name of a registered framework.
        ratio: real to synthetic samples, ``1:1``.
        generator: a run, or its folder.
        options: for the framework's own command line, after ``--``.
        set, settings: options of the target, which ``gansynth.options(TARGET)`` lists.

    Returns:
        What ``--json`` prints: counts, shares, folder, metrics on real held-out cases.

    Raises:
        GansynthError: typed by cause. ``TrainingFault``: trained, but samples were missing.
    """
    words = {**locals(), "set": as_texts({**(set or {}), **settings})}
    given = changed(words, augment)
    done = run_augment(words, given, RichReporter(quiet=quiet))
    done.refuse_missing()
    return done.document


def run_augment(words: Mapping[str, Any], given: Collection[str], reporter: Reporter) -> Augmented:
    """Train, export, or plan it.

    Args:
        words: the arguments of ``augment``.
        given: those that the user gave; they must have an effect.

    Raises:
        GansynthError: typed by cause; missing samples are in the result.
    """
    if words["compare"]:
        return _compare(words, given, reporter)
    asked = AugmentWords(words, given)
    asked.refuse_idle(NEEDS)
    samples = {key: words[key] for key in ("seed", *SampleWords.__annotations__) if key in words}
    mix_config = mix_config_from(words, read_request(**samples))
    cls = installed().adapter(words["target"])
    settings = words["set"]
    refuse_unknown(settings, cls.Options.model_fields, of=words["target"])
    reading = {key: words[key] for key in READING}
    reading |= {"read": as_texts(words["read"]), "synthetic": as_path(words["synthetic_source"])}
    reading |= {"root": as_path(words["root"])}
    reading |= {"fold": None if words["fold"] is None else str(words["fold"])}
    request, taken = host_data(words["data"], reading, mix_config.run)
    asked.warn_of_idle(mix_config.ratio, reporter.warn)
    if taken:
        reporter.say(f"as {mix_config.run} was fitted: {taken}")
    asked.check_export()
    settings = host_settings(cls, settings, words["out"])
    adapter = cls(open_resolved(request, by_user="data " not in taken))
    adapter.check_ways(mix_config)
    if words["export"] is not None:
        return Augmented(adapter, _export(adapter, mix_config, asked, reporter))
    if (why := why_cpu(mix_config.device)) is not None:
        reporter.say(why)
    return _train(adapter, mix_config, settings, asked, reporter)


def _compare(words: Mapping[str, Any], given: Collection[str], reporter: Reporter) -> Augmented:
    """Train with samples, then without: the same settings, seed and number of steps."""
    if words["export"] is not None or words["content"] is not None:
        raise UsageFault("--compare with --export: nothing is trained; leave one out")
    if Ratio.parse(words["ratio"]).p == 0:
        raise UsageFault(
            f"--compare with --ratio {words['ratio']}: no sample is drawn, expected a ratio such "
            "as 1:1; the training without samples is added"
        )
    cls, arms = installed().adapter(words["target"]), {}
    place, settings = cls.Options.place, host_settings(cls, words["set"], words["out"])
    given = [name for name in given if name not in ("compare", "out")]
    words = {**words, "out": None}
    for name in ("without", "with"):
        own = {place: f"{settings[place]}/{name}"} if place in settings else {}
        arms[name] = {**words, "compare": False, "set": {**settings, **own}}
    arms["without"] |= {"ratio": "1:0", "schedule": "constant"}
    real = [name for name in given if name not in (*OF_SAMPLES, "schedule")]
    planned = run_augment({**arms["with"], "dry_run": True}, given, NullReporter())
    arms["without"]["set"] |= as_long(planned.adapter, words)
    run_augment({**arms["without"], "dry_run": True}, real, NullReporter())  # before either trains
    for line in planned.document["will_it_harm"]["lines"]:
        reporter.say(line)
    done = run_augment(arms["with"], given, reporter)
    control = run_augment(arms["without"], real, reporter)
    plan = plan_text(done.adapter.source, words)
    document = {"without": control.document, "with": done.document, "warning": ONE_PAIR}
    document |= compared(
        *(arm.document.get("metrics_on_real_cases", {}) for arm in (done, control))
    )
    return replace(done, document={**document, "plan": plan}, control=control)


def as_long(adapter: Adapter, words: Mapping[str, Any]) -> dict[str, str]:
    """Return the length in which real cases alone take as many steps as with samples.

    Epochs of a detector are longer with samples; where all are equally long, nothing is set.
    """
    option, own = adapter.length_option, words["set"]
    usual = adapter.Options.model_fields.get(option)
    length = own.get(option, usual and usual.default)
    if length is None:
        return {}
    mixes = [(Ratio.parse(words["ratio"]), Schedule()), (Ratio(1, 0), Schedule())]
    lengths = adapter.lasting(MANY, mixes, own, len(adapter.source.train_ids))
    mixed, real = (int(found.get(option, 1)) for found in lengths)
    return {} if mixed == real else {option: str(round(int(length) * real / mixed))}


def plan_text(source: CaseSource, words: Mapping[str, Any]) -> str:
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
        f"host: {{target: {words['target']}, steps: 1000}}",
        f"generators: {{mine: {{plugin: {_plugin(words)}}}}}",
        f'arms: [default, double, {{name: mine, generator: mine, ratio: "{words["ratio"]}"}}]',
        f"sizes: [{size}]",
        "draws: 3",
        "seeds: 2",
        f"split: {{development: {test}, sealed: {test}}}",
    ]
    return "\n".join(lines)


def _plugin(words: Mapping[str, Any]) -> str:
    run = words["generator"]
    return "GENERATOR" if run is None else str(RunFolder(Path(run)).manifest["generator"])


def _train(
    adapter: Adapter,
    mix_config: MixConfig,
    settings: Mapping[str, str],
    asked: AugmentWords,
    reporter: Reporter,
) -> Augmented:
    request = TrainingRequest(mix_config, settings, asked.words["options"], reporter)
    adapter.validate()
    adapter.check(request)
    if mix_config.run is not None and mix_config.ratio.p > 0:
        warn_of_label_maps(mix_config.run.folder, reporter)
        warn_of_neighbours(mix_config, adapter, reporter)
    folder = adapter.training_folder(request)
    check_drawing(adapter, mix_config)  # also for a host that does not
    if asked.words["dry_run"]:
        return Augmented(adapter, plan_training(adapter, request, folder))
    if folder is not None:
        reporter.say(f"the training {folder}")
    if mix_config.ratio.p > 0 and not (folder and folder.finished):
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
    adapter: Adapter, mix_config: MixConfig, asked: AugmentWords, reporter: Reporter
) -> Mapping[str, Any]:
    name, dry_run = asked.words["export"], asked.words["dry_run"]
    size = mix_config.size if "bank_size" in asked.given else None
    content: Content = asked.words["content"] or "mixed"
    document = adapter.export(
        ExportRequest(mix_config, name, reporter, content, size, dry_run=dry_run)
    )
    if dry_run and mix_config.run and mix_config.bank is None and mix_config.ratio.p > 0:
        sampler, each = timed_sampler(adapter, mix_config)
        document = {**document, "seconds_per_sample": round(each, 3), "memory": "not measured"}
        document["will_it_harm"] = will_it_harm(adapter, mix_config, sampler, reporter)
    return document


# -- how options combine: exports, baselines, data


class AugmentWords(Given):
    """The words of ``gansynth augment``."""

    def called(self, name: str) -> str:
        """Return what is typed for a word; for settings, the first flag."""
        if name == "out":
            return "-o"
        settings = self.words["set"] if name == "settings" else {}
        flags = (flag_of(key) for key, text in settings.items() if isinstance(text, FlagText))
        return next(flags, super().called(name))

    def warn_of_idle(self, ratio: Ratio, warn: Callable[[str], None]) -> None:
        """Warn of words without effect where no sample is used, e.g. at a baseline's ratio."""
        for message in self.idle(dict.fromkeys(OF_SAMPLES if ratio.p == 0 else (), "!ratio")):
            warn(message.partition(";")[0])

    def check_export(self) -> None:
        """Refuse words that an export would ignore, and ``--content`` without an export."""
        if self.words["export"] is None:
            if (content := self.words["content"]) is not None:
                raise UsageFault(
                    f"--content {content}: expected --export NAME beside it; without one, samples "
                    "are mixed in at --ratio during training"
                )
            return
        for name in self.given:
            if name not in WRITING:
                raise UsageFault(
                    f"--export with {self.called(name)}: nothing is trained, expected only options "
                    "of the samples to write; leave it out"
                )


def mix_config_from(words: Mapping[str, Any], samples: SampleRequest) -> MixConfig:
    """Return how samples are mixed in."""
    generator, bank, place = (words[key] for key in ("generator", "bank", "bank_dir"))
    return MixConfig(
        run=None if generator is None else RunFolder(Path(generator)),
        ratio=Ratio.parse(words["ratio"]),
        schedule=Schedule.parse(words["schedule"]),
        frozen=words["offline"],
        size=BankSize.parse(str(words["bank_size"])),
        pacing=RefreshPolicy.parse(words["reuse"], words["refresh"], words["overhead"]),
        bank=None if bank is None else Path(bank),
        scratch=None if place is None else Path(place),
        samples=samples,
        device=words["device"],
        restarts=words["restarts"],
        strict=words["strict"],
        keep_going=words["allow_empty_bank"],
        usual_augmentation=words["host_augmentation"],
        augment_synthetic=words["augment_synthetic"] in (True, "yes"),
        real_in_generator_space=words["real_in_generator_space"],
        nearest=words["nearest"],
    )


def host_settings(
    host: type[Adapter], settings: Mapping[str, str], out: str | os.PathLike[str] | None
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
