"""``gansynth.augment``: the command in Python."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import nullcontext, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gansynth.bank.sample_source import check_others
from gansynth.core.generator import capabilities_of
from gansynth.core.registry import installed
from gansynth.core.requests.base import function_of
from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest, HostData, PredictRequest, RatioSection
from gansynth.core.requests.sections import SampleSection
from gansynth.core.run_folder import MANIFEST
from gansynth.core.source import SourceRequest
from gansynth.data.kinds import find_kind
from gansynth.data.read_options import refuse_idle_read
from gansynth.fitting.label_report import warn_of_label_maps
from gansynth.hosts.contract.host import Framework, framework
from gansynth.hosts.contract.prediction import PredictJob, find_result, newest_session
from gansynth.hosts.contract.record import TrainingFolder, TrainingResult
from gansynth.hosts.contract.session import Session
from gansynth.hosts.deciding.dry_run import (
    plan_training,
    planned_data,
    say_harm,
    time_of,
    timed_sampler,
    will_it_harm,
)
from gansynth.hosts.deciding.first_training import (
    FirstTraining,
    check_markable,
    check_named,
    named_first,
    unvouched,
)
from gansynth.hosts.deciding.one_command import (
    READING,
    Decision,
    cases_of,
    decide,
    fit_generator,
    is_fitted,
    planned_fit,
)
from gansynth.hosts.deciding.study_plan import (
    FEWEST_SUBJECTS,
    absolute,
    places_of,
    plan_text,
    subjects_of,
)
from gansynth.hosts.deciding.timing import OF_SAMPLES, as_long_alone
from gansynth.hosts.deciding.trials import Trials, trials_of
from gansynth.metrics.segmentation.evaluation import compared, gain_at_equal_alarms
from gansynth.runtime.devices import pick_device, why_cpu
from gansynth.runtime.errors import UsageFault, refuse_unknown
from gansynth.runtime.files import write_bytes_atomic
from gansynth.runtime.machine import hold_cases_in
from gansynth.runtime.measuring import measuring
from gansynth.runtime.options import put_setting
from gansynth.runtime.progress import NullReporter, Reporter
from gansynth.runtime.signals import telling
from gansynth.sampling.filters.fitted import learn_ahead
from gansynth.sampling.request_checks import GeneratorInfo, check_request, read_request
from gansynth.sampling.run_source import open_resolved

ONE_PAIR = (
    "one pair of trainings proves nothing: another seed or other patients may turn it round. "
    "gansynth benchmark measures it"
)
PLAN = "benchmark_plan.yaml"
"""Beside the trainings of a comparison."""
WRITING = (
    *HostData.words(),
    *READING,
    *SampleSection.words(),
    "target",
    "ratio",
    "generator",
    "bank",
    "bank_size",
    "restarts",
    "producers",
    "seed",
    "device",
    "real_in_generator_space",
    "round_ratio",
    "export",
    "content",
    "dry_run",
)
"""Fields that an export uses; every other one is about training."""

OF_ARM = frozenset({*RatioSection.words(), *SampleSection.words(), "offline", "bank_size"}) - {
    "compare",
    "round_ratio",
}
"""Fields that an arm of a plan has, too, as far as they change the samples or their share."""


@dataclass(frozen=True)
class Augmented:
    """What ``gansynth augment`` did."""

    session: Session | None  # None where the data are not prepared for it
    document: Mapping[str, Any]  # what `--json` prints
    result: TrainingResult | None = None  # of a training; None for a dry run or an export
    control: Augmented | None = None  # the same without samples, if they are compared

    def refuse_missing(self) -> None:
        """Refuse a training that lacked samples; see ``TrainingResult``."""
        if self.result is not None:
            self.result.refuse_missing()


def _report(request: AugmentRequest) -> Mapping[str, Any]:
    """Train a target framework with samples mixed in at a ratio: ``gansynth augment``.

    Other arguments are options of the target, which ``gansynth.options(TARGET)`` lists.

    Returns:
        What ``--json`` prints: counts, shares, folder, metrics on real held-out cases.
    """
    done = run_augment(request)
    done.refuse_missing()
    return done.document


augment = function_of(AugmentRequest, _report, "augment")


def run_predict(request: PredictRequest) -> Mapping[str, Any]:
    """Predict new images by a training of ``gansynth augment``: ``gansynth predict``.

    Each argument is the option of that name; ``gansynth predict --help`` explains them.

    Returns:
        What ``--json`` prints: target, folder, and the file of each case.

    Raises:
        GansynthError: there is no training, or images that do not fit it.
    """
    folder = find_result(request, Path(request.result))
    session = newest_session(folder)
    job = PredictJob(
        folder,
        session,
        request.images,
        request.read,
        Path(request.out).absolute(),
        request.device,
        request.reporter,
        request.sure,
    )
    cls = framework(session["target"])
    if request.sure is not None and not cls.predicts_levels():
        raise UsageFault(
            "hosts.sure-without-probabilities",
            f"--sure {request.sure:g}: {cls.name} has no probabilities, expected a training of a "
            "target that has; leave --sure out",
        )
    why = why_cpu(request.device)
    if why is not None:
        request.reporter.say(why)
    files = cls.predict_images(job)
    return {
        "target": session["target"],
        "trained_in": str(folder),
        "folder": str(job.out),
        "files": [str(file) for file in files],
    }


predict = function_of(PredictRequest, run_predict, "predict")


def run_augment(
    request: AugmentRequest,
    reporter: Reporter | None = None,
    *,
    control: bool = False,
    timed: bool = True,
) -> Augmented:
    """Train, export, or plan it; stopped anywhere, a training says how it is resumed.

    Args:
        reporter: in place of the request's.
        control: whether it is the training without samples of a comparison.
        timed: whether a dry run measures anything, which may take a minute; else it only checks.

    Raises:
        GansynthError: typed by cause; missing samples are in the result.
    """
    reporter = reporter or request.reporter
    pick_device(request.device)  # one that is not there is refused before anything is done
    keeps = not request.dry_run and request.export is None
    with telling(reporter.warn) if keeps else nullcontext():
        return _augmented(request, reporter, control=control, timed=timed)


def _augmented(
    request: AugmentRequest, reporter: Reporter, *, control: bool, timed: bool
) -> Augmented:
    hold_cases_in(request.cache_memory)
    named = None if request.data is None else find_kind(request.data, request.root)
    if named != request.data:
        request = request.replace(data=named)
        reporter.say(f"the data are read as {named}")
    fit = None
    if request.undecided:
        decision = decide(request, reporter)
        request, fit = decision.request, decision.fit
        if decision.prepare:
            return Augmented(None, _plan_unprepared(decision))
    cls = framework(request.target)
    if fit is not None and not is_fitted(fit):
        before = _first_training(request, cls)  # refuses what cannot be marked
        planned = _before_fit(request, cls, fit, before)
        if request.dry_run:
            return _plan_all(request, planned, fit, before, reporter)
    if fit is not None and not request.dry_run:
        fit_generator(fit, reporter)
    before = None if control else _first_training(request, cls)
    if before is not None and request.dry_run and not before.is_done:
        return _plan_both(before, reporter, timed=timed)
    if before is not None:
        request = _marked(before, reporter)
    if request.compare:
        return _compare(request, cls, reporter)
    read_request(request, request.seed)  # refuses what no generator supports
    refuse_unknown(request.set, cls.Options.model_fields, of=request.target)
    asked, taken = data_of(request)
    if not request.mix.synthetic and not control:  # of a baseline, say
        for name in OF_SAMPLES:
            if name in request.given:
                reporter.warn(f"{request.typed(name)}: has no effect with {request.typed('ratio')}")
    if taken:
        reporter.say(f"as {request.run} was fitted: {taken}")
    if request.export is not None:
        request.refuse_beside(
            *WRITING,
            message="--export with {}: nothing is trained, expected only options of the samples to "
            "write; leave it out",
        )
    request = request.replace(without=("out",), set=host_settings(cls, request.set, request.out))
    source = open_resolved(asked, by_user="data " not in taken)
    session = Session(cls(source, request), reporter)
    request.mix.refuse_without(request.generator, request.bank)
    if request.export is not None:
        return Augmented(session, _export(session))
    why = why_cpu(request.device)
    if why is not None:
        reporter.say(why)
    done = _train(session, timed=timed)
    if before is None:
        return done
    told = before.planned(0) if request.dry_run else {"first_training": str(before.folder)}
    return replace(done, document=dict(done.document) | told)


def _plan_unprepared(decision: Decision) -> dict[str, Any]:
    request, fit = decision.request, decision.fit
    assert request.asked is not None, "its data are named"
    marked = bool(unvouched(request, request.asked.usual))
    first = "trained before, on real cases alone, and marks the scans: two trainings in all"
    return {
        "dry_run": True,
        "target": request.target,
        "data": request.data,
        "ratio": request.ratio,
        "generator": None if fit is None else f"{fit.generator}, to be fitted",
        "first_training": first if marked else None,
        "hours": f"known once the data are prepared: {decision.prepare}",
        "settings": dict(request.set),
    }


def _first_training(request: AugmentRequest, cls: type[Framework]) -> FirstTraining | None:
    """Return the training that is to mark scans; None if there are none, or somebody vouches."""
    if not request.unlabelled:
        return None
    run = request.run
    fitted = run is not None and (run.folder / MANIFEST).is_file()
    gone = () if fitted else ("generator",)
    asked, _ = data_of(request.replace(without=("first", *gone), ratio="1:0"))
    scans = unvouched(request, asked)
    if not scans:
        return None
    source = open_resolved(asked, by_user=True)
    check_markable(request, cls, source, scans)
    if request.first is not None:
        return FirstTraining(request, source, scans, named_first(request))
    settings, name = host_settings(cls, request.set, request.out), "_first"
    levels = trials_of(cls).saving_levels() if request.compare else None
    more, keeping = levels or ({}, ())
    if request.compare:  # that without samples marks
        name = "/without"
    if cls.Options.output_key in settings:
        settings[cls.Options.output_key] += name
    alone = as_long_alone(request, source, settings | dict(more))
    options = _options_with(request, keeping)
    alone = alone.replace(without=("first", "dry_run", *gone), options=options)
    planned = run_augment(alone.replace(dry_run=True), NullReporter(), control=True, timed=False)
    assert planned.session is not None, "its request is whole"
    folder = planned.session.training_folder()
    return FirstTraining(request, source, scans, folder.path, alone, trained=folder.finished)


def _unmarked(before: FirstTraining, **changes: Any) -> AugmentRequest:
    """Return the training with the scans as they are, which tells all but what is marked."""
    return before.request.replace(without=("first", "self_train"), **changes)


def _plan_both(before: FirstTraining, reporter: Reporter, *, timed: bool) -> Augmented:
    done = run_augment(_unmarked(before), reporter, control=True, timed=timed)
    told = before.planned(done.document.get("training_hours"))
    return replace(done, document=dict(done.document) | told)


def _marked(before: FirstTraining, reporter: Reporter) -> AugmentRequest:
    """Train what is to mark the scans, and mark them; return the training with them."""
    if not before.is_done:
        checked = _unmarked(before, dry_run=True).replace(without=("compare",))
        planned = run_augment(checked, NullReporter(), control=True, timed=False)
        assert planned.session is not None, "its request is whole"
        if before.alone is None:
            check_named(before.folder, planned.session.held_out)
        else:
            reporter.say(f"first training, on real cases alone, to mark scans: {before.folder}")
            run_augment(before.alone, reporter, control=True)
    before.mark(run_predict, reporter)
    return before.marked


def _before_fit(
    request: AugmentRequest, cls: type[Framework], fit: FitRequest, before: FirstTraining | None
) -> Augmented:
    """Refuse, before a generator is fitted, what can be refused without one; return the plan."""
    request = request.replace(without=("out",), set=host_settings(cls, request.set, request.out))
    alone = request.replace(without=(*OF_SAMPLES, "schedule", "compare"), ratio="1:0")
    session = Session(cls(open_resolved(data_of(alone)[0], by_user=True), alone))
    session.host.validate()
    session.check()
    can = capabilities_of(installed().generator(fit.generator))
    maker, samples = GeneratorInfo(fit.generator, can), request.samples
    check_request(samples, maker)
    document = planned_data(session)
    if before is not None:
        samples = replace(samples, self_train=0.0)
    if samples.label_source is not None or samples.unlabelled:
        own, held_out = session.source, session.held_out
        others, _ = check_others(samples, maker, own, own, held_out, request.reporter)
        scans = sum([len(each.train_ids) for each in others.scans])
        document |= {"unlabelled_scans": scans} if scans else {}
    document |= {"ratio": request.ratio, f"{session.host.unit}s": session.total}
    return Augmented(session, document)


def _plan_all(
    request: AugmentRequest,
    planned: Augmented,
    fit: FitRequest,
    before: FirstTraining | None,
    reporter: Reporter,
) -> Augmented:
    """Plan a fit, and the training after it by one on real cases alone, which takes as long."""
    session, document = planned.session, dict(planned.document)
    assert session is not None, "its data are prepared"
    begun = TrainingFolder(session.opened.output, 0, session.total)
    settings = session.request.set
    request = request.replace(without=("out",), set=settings)
    with measuring().within(0.5):  # the other half is the training's
        document.update(planned_fit(fit, reporter))
    document["harm"] = "printed by this plan once the generator is fitted"
    document.update(time_of(session, request, begun))
    document |= {} if before is None else before.planned(document.get("training_hours"))
    return Augmented(session, document | {"settings": dict(settings)})


def _compare(request: AugmentRequest, cls: type[Framework], reporter: Reporter) -> Augmented:
    """Train with samples, then without: the same settings, seed and number of steps."""
    if not request.mix.synthetic:
        raise UsageFault(
            "hosts.compare-without-samples",
            f"--compare with --ratio {request.ratio}: no sample is drawn, expected a ratio such "
            "as 1:1; the training without samples is added",
        )
    output_key, settings = cls.Options.output_key, host_settings(cls, request.set, request.out)
    trials, arms = trials_of(cls), {}
    levels = trials.saving_levels()
    more, keeping = levels or ({}, ())
    taken = _is_finished(request.replace(without=("compare", "out"), set=settings))
    if taken:  # without --compare; whether it kept levels does not matter
        more, keeping = {}, ()
    for name in ("without", "with"):
        own = settings | dict(more)
        if output_key in settings and not (taken and name == "with"):
            own[output_key] = f"{settings[output_key]}/{name}"
        options = _options_with(request, keeping)
        arms[name] = request.replace(without=("compare", "out"), set=own, options=options)
    planned = run_augment(arms["with"].replace(dry_run=True), NullReporter(), timed=False)
    assert planned.session is not None, "its request is whole"
    source = planned.session.source
    arms["without"] = as_long_alone(request, source, arms["without"].set)
    before = arms["without"].replace(dry_run=True)
    run_augment(before, NullReporter(), control=True, timed=False)  # before either trains
    reporter.say(f"in both trainings {planned.session.shares(0)}")
    done = run_augment(arms["with"], reporter)
    control = run_augment(arms["without"], reporter, control=True)
    generator = "GENERATOR" if request.run is None else request.run.manifest["generator"]
    arm = {
        "name": f"{generator}-unlabelled" if request.unlabelled else generator,
        "generator": generator,
        **{key: value for key, value in request.to_json().items() if key in OF_ARM},
    }
    if "unlabelled" in arm:
        arm["unlabelled"] = [absolute(each) for each in arm["unlabelled"]]
    document: dict[str, Any] = {"without": control.document, "with": done.document}
    document["warning"] = ONE_PAIR
    document |= compared(
        done.document.get("metrics_on_real_cases", {}),
        control.document.get("metrics_on_real_cases", {}),
        *((None, "") if levels is None else _at_equal_alarms(trials, source, done, control)),
    )
    if len(subjects_of(source)) < FEWEST_SUBJECTS:
        document["warning"] += f", with {FEWEST_SUBJECTS} subjects or more"
        return replace(done, document=document, control=control)
    if source.held_out_ids and source.files(source.held_out_ids[0]) is None:
        document["warning"] += ", of cases that have files"
        return replace(done, document=document, control=control)
    file = Path(settings.get(output_key) or done.document["folder"]) / PLAN
    document["plan"] = plan_text(source, request.target, [arm], places=places_of(source.request))
    document["plan_file"] = str(file)
    document["warning"] += f", by the plan in {file}"
    if request.run is None:
        document["warning"] += ", once GENERATOR in it is the name of one"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_bytes_atomic(file, f"{document['plan']}\n".encode())
    return replace(done, document=document, control=control)


def _options_with(request: AugmentRequest, words: Sequence[str]) -> tuple[str, ...]:
    """Return the host's options with further ones that were not typed."""
    return (*request.options, *[word for word in words if word not in request.options])


def _is_finished(request: AugmentRequest) -> bool:
    """Return whether this training is there; what else is wrong with it is said of the arms."""
    with suppress(UsageFault):
        asked = request.replace(dry_run=True)
        return bool(run_augment(asked, NullReporter(), timed=False).document["finished"])
    return False


def _at_equal_alarms(
    trials: Trials, source: Any, done: Augmented, control: Augmented
) -> tuple[float | None, str]:
    """Return the difference in Dice at equal false alarms, or None, perhaps with words why."""
    try:
        arms = [
            trials.predictions(source, Path(each.document["folder"])) for each in (done, control)
        ]
    except UsageFault:  # there are no files to measure it on
        return None, ""
    if any(each.levels is None for arm in arms for each in arm.values()):
        why = "no probabilities were kept, as --compare keeps them from the first step (another -o)"
        return None, f"false alarms could not be made equal: {why}"
    return gain_at_equal_alarms(arms[0], arms[1], source.schema.foreground, source.schema.ignore)


def _train(session: Session, *, timed: bool) -> Augmented:
    request, reporter = session.request, session.reporter
    session.host.validate()
    session.check()
    if request.run is not None and request.mix.synthetic:
        warn_of_label_maps(request.run.folder, reporter)
    if request.mix.synthetic:
        for text in session.compared.warnings:
            reporter.warn(text)
    folder = session.training_folder()
    if request.dry_run:
        if not timed:
            return Augmented(session, {"finished": folder.finished})
        hours = time_of(session, request, folder)
        return Augmented(session, plan_training(session, folder, hours))
    if folder.finished:
        reporter.say(f"the training {folder}")
    if request.mix.synthetic and not folder.begun and not request.quiet:
        say_harm(session)
    if request.mix.synthetic and not folder.finished:
        # now, with progress, and not in the producer
        learn_ahead(
            request.run,
            request.samples.filters,
            session.source,
            target=request.target,
            device=request.device,
            reporter=reporter,
        )
    result = session.start()
    for warning in result.warnings:
        reporter.warn(warning)
    document = result.describe(request.mix)
    document["share_of_usual_length"] = session.share_of_usual_length
    return Augmented(session, document, result)


def _export(session: Session) -> Mapping[str, Any]:
    request, document = session.request, dict(session.export())
    if request.dry_run and request.run and request.bank is None and request.mix.synthetic:
        sampler, each = timed_sampler(session)
        document |= {"seconds_per_sample": round(each, 3), "memory": "not measured"}
        document["will_it_harm"] = will_it_harm(session, sampler)
    return document


# -- how options combine


def host_settings(
    host: type[Framework], settings: Mapping[str, str], out: str | os.PathLike[str] | None
) -> dict[str, str]:
    """Return a target's settings with ``-o``, the folder of a training's results."""
    merged, output_key = dict(settings), host.Options.output_key
    if out is not None and not output_key:
        raise UsageFault(
            "hosts.no-folder-for-results",
            f"-o {out}: {host.name} has no folder for results; leave it out",
        )
    if out is not None:
        put_setting(merged, output_key, str(out), "-o")
    return merged


def data_of(request: AugmentRequest) -> tuple[SourceRequest, str]:
    """Return the data of a training, and in words what of it is as its generator was fitted."""
    source = cases_of(request)
    refuse_idle_read(source, request.read)
    if request.run is None:
        return source, ""
    given = {*request.reading, *("kind", "where") * (request.data is not None)}
    usual, own = asdict(SourceRequest("", "")), asdict(source)
    taken = {k: v for k, v in own.items() if k not in given and (v != usual[k] or k == "fold")}
    if "kind" in taken:
        taken = {"data": f"{taken.pop('kind')}:{taken.pop('where')}"} | taken
    return source, ", ".join([f"{key} {_said(value)}" for key, value in taken.items()])


def _said(value: Any) -> str:
    if isinstance(value, Mapping):
        return " ".join([f"{key}={entry}" for key, entry in value.items()])
    return str(value)
