"""``gansynth augment KIND:WHERE``: what is left out is decided, and said, as an expert would.

Target, plans, generator and length follow from the data and the machine, the ratio from what
samples did to sets like the data. The generator is fitted, or gone on with, in a folder that the
same command finds again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import chain, count
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.conditions.condition_source import check_opens
from gansynth.core.choices import Choice
from gansynth.core.lineage import same_host
from gansynth.core.ratio import Ratio
from gansynth.core.registry import installed
from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest, ImportRequest, PrepareRequest
from gansynth.core.requests.sections import ReadSection
from gansynth.core.run_folder import MANIFEST, RunFolder, read_manifest
from gansynth.core.source import CaseSource, SourceRequest, lineage_of
from gansynth.data.connected_components import parts
from gansynth.data.held_out import held_out_of, unnamed_people
from gansynth.data.organs import evenly_chosen
from gansynth.fitting.command import run_fit
from gansynth.hosts.contract.host import Framework, framework, target_of_kind
from gansynth.hosts.deciding.advice import Advice, advice_for, describe_source
from gansynth.hosts.deciding.first_training import check_markable, unvouched
from gansynth.hosts.deciding.study_plan import subjects_of
from gansynth.hosts.deciding.suggestion import Contents, contents_of
from gansynth.runtime.errors import GansynthError, UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.other_sources import refuse_shown
from gansynth.sampling.run_source import open_source

READING = tuple(name for name in ReadSection.words() if name != "synthetic_source")


@dataclass(frozen=True)
class Decision:
    """The whole request, its cases, and the fit of its generator; None where no sample is drawn.

    ``prepare``: the command that a dry run needs first; empty if the data are prepared.
    """

    request: AugmentRequest
    source: CaseSource
    found: Contents
    advice: Advice
    fit: FitRequest | None
    prepare: str = ""


def decide(request: AugmentRequest, reporter: Reporter) -> Decision:
    """Decide what is left out, and say why; prepare the data if their target needs it.

    A dry run prepares nothing, and looks at the raw data instead.
    """
    decided = _Decided(request, reporter)
    assert request.asked is not None, "data are named: see AugmentRequest.undecided"
    scans = check_opens(request.samples, request.asked.usual)  # before anything else is opened
    decided.choose(_target(request.asked))
    cls = framework(str(decided.value("target")))
    cls.check_settings(request.set)
    preparation: dict[str, str] = {}
    for choice in cls.suited(request):
        if decided.choose(choice):
            preparation |= choice.prepare
    source, prepare = _prepared(decided, cls, preparation, scans)
    found = contents_of(source)
    reporter.say(describe(source, found, len(subjects_of(source))))
    if source.note:
        reporter.say(source.note)
    text = unnamed_people(source)
    if text:
        reporter.warn(text)
    rule, advice = found.rule, advice_for(describe_source(source, found))
    ratio, why = advice.ratio, str(advice)
    if request.compare:
        reporter.say(why)
        ratio, why = "1:1", "a comparison needs samples"
    elif request.unlabelled:
        ratio, why = "1:1", "unlabelled scans are mixed in with samples"
    other = "--ratio 1:1" if ratio == "1:0" else "--ratio 1:0"
    if decided.choose(Choice("ratio", ratio, why, other)) and ratio == "1:0":
        compared = request.replace(compare=True, without=("dry_run",)).command_line
        reporter.say(f"whether samples help these data: {shlex.join(['gansynth', *compared])}")
    drawn = Ratio.parse(str(decided.value("ratio"))).p > 0
    fit = None
    if drawn and request.generator is None and request.bank is None:
        fit = _fit_of(decided, source, found)
        # The folder is named by plans and configuration, which raw data do not have yet.
        about = rule.generator if prepare else f"{rule.generator} in {fit.out}"
        reporter.say(
            str(Choice("generator", about, f"the data are {rule.data}", "--generator RUN"))
        )
        decided.fields["generator"] = fit.out
    whole = decided.request.replace(set=decided.settings, **decided.fields)
    return Decision(whole, source, found, advice, fit, prepare)


class _Decided:
    """Collects what is chosen for a request; whatever the user has typed stays."""

    def __init__(self, request: AugmentRequest, reporter: Reporter) -> None:
        self.request, self.reporter = request, reporter
        self.fields: dict[str, Any] = {}
        self.settings = dict(request.set)

    def choose(self, choice: Choice) -> bool:
        """Take a choice, and say it, unless the user has chosen; return whether it is taken."""
        if choice.name in (*self.request.given, *self.request.set):
            return False
        if choice.name in READING and self._as_fitted:
            return False
        self.reporter.say(str(choice))
        if choice.name in AugmentRequest.model_fields:
            self.fields[choice.name] = choice.value
        else:
            self.settings[choice.name] = choice.value
        return True

    def value(self, name: str) -> Any:
        """Return what was chosen for a field, else what was typed."""
        return self.fields.get(name) or getattr(self.request, name)

    @property
    def asked(self) -> SourceRequest:
        """The data, read as typed, as the generator's fit has read them, and as chosen."""
        chosen = {name: self.fields[name] for name in READING if name in self.fields}
        return replace(cases_of(self.request), **chosen)

    @property
    def _as_fitted(self) -> bool:
        """Whether the data are read as the fit of a generator that is named has read its own."""
        run, asked = self.request.run, self.request.asked
        return run is not None and asked is not None and run.request.kind == asked.kind


def cases_of(request: AugmentRequest) -> SourceRequest:
    """Return the data of a training; what is not typed is as of its generator's fit.

    If the generator's data set is of another kind, only its fold is used.
    """
    run, given = request.run, request.reading
    if request.asked is not None:
        given |= {"kind": request.asked.kind, "where": request.asked.where}
    fitted: dict[str, Any] = {} if run is None else dict(run.manifest["request"], view={})
    if "kind" not in given and not fitted:
        raise UsageFault(
            "hosts.data-missing",
            "--data: missing, expected KIND:WHERE, for example msd:Task04; or --generator RUN, "
            "whose data are then used",
        )
    if fitted and given.get("kind", fitted["kind"]) != fitted["kind"]:
        fitted = {"fold": fitted["fold"]}
    read = dict(fitted.get("read", {})) | dict(given.get("read", {}))
    return SourceRequest(**(fitted | given | {"read": read}))


def is_fitted(fit: FitRequest) -> bool:
    """Return whether the generator is there."""
    folder = Path(fit.out)
    return (folder / "manifest.json").is_file() and bool(read_manifest(folder).get("complete"))


def fit_generator(fit: FitRequest, reporter: Reporter) -> None:
    """Fit the generator, or go on with it; a finished one is taken as it is."""
    folder = Path(fit.out)
    if is_fitted(fit):
        reporter.say(f"{folder}: is fitted; gansynth sample {folder} --sheet shows its samples")
        return
    report = run_fit(fit, reporter).report
    reporter.say(f"{folder}: fitted on {report['train_cases']} training cases")


def planned_fit(fit: FitRequest, reporter: Reporter) -> dict[str, Any]:
    """Return what a dry run says of a generator that is not fitted yet."""
    cost = run_fit(fit.replace(dry_run=True), reporter).report
    return {
        "generator": f"{fit.generator}, to be fitted in {fit.out}",
        "fit_hours": round(cost["estimated_minutes"] / 60, 3),
    }


def suited_preparation(data: str) -> dict[str, str]:
    """Return the settings of ``gansynth prepare`` that suit this machine."""
    settings = dict[str, str]()
    for choice in _suited(data):
        settings |= choice.prepare
    return settings


def open_suited(asked: SourceRequest) -> CaseSource:
    """Open data as prepared for this machine (plans for a CPU), or else as they are asked for.

    Raises:
        GansynthError: they are not prepared, or what opening them raises.
    """
    if asked.kind in installed().hosts_with("prepare"):
        fields = dict[str, Any]()
        for choice in _suited(f"{asked.kind}:{asked.where}"):
            if choice.name in READING and not getattr(asked, choice.name):
                fields[choice.name] = choice.value
        with suppress(GansynthError):
            return open_source(replace(asked, **fields))
    return open_source(asked)


def _suited(data: str) -> Sequence[Choice]:
    """Return what suits this machine for a training on data of which nothing else is asked."""
    return framework(target_of_kind(data.partition(":")[0])).suited(AugmentRequest(data=data))


def raw_of(asked: SourceRequest) -> SourceRequest:
    """Return the raw cases that a framework prepares."""
    raw = SourceRequest(f"{asked.kind}-raw", asked.where, root=asked.root)
    return replace(raw, subjects=asked.subjects, fold=asked.fold)


def _target(asked: SourceRequest) -> Choice:
    target = target_of_kind(asked.kind)
    if target != "segmenter":
        why = f"it trains on such data ({asked.kind}:)"
        return Choice("target", target, why, "--target NAME")
    why = f"{asked.kind}: is no framework's own data set"
    importing = installed().hosts_with("import")
    way = "--target NAME"
    if importing:
        way = f"{ImportRequest.command_for(asked, f'{importing[0]}:500')}, and augment that"
    return Choice("target", target, why, way)


def _prepared(
    decided: _Decided,
    cls: type[Framework],
    preparation: Mapping[str, str],
    scans: Sequence[CaseSource],
) -> tuple[CaseSource, str]:
    """Return the prepared cases; in a dry run perhaps the raw ones, and the command to type.

    ``scans``: of ``--unlabelled``; those of held-out people are refused before anything is made.
    """
    request, asked = decided.request, decided.asked
    # Plans that are chosen, not typed, are made by the preparation's settings.
    named = [*("plans",) * bool(request.plans), "configuration", "subjects", "root"]
    words: dict[str, Any] = {key: vars(asked)[key] for key in named if vars(asked)[key]}
    drawn = request.replace(ratio=request.ratio or "1:1")
    bare = unvouched(drawn, asked)
    try:
        source = open_source(asked)
    except GansynthError:
        if asked.kind not in installed().hosts_with("prepare"):
            raise
    else:
        if bare:
            check_markable(drawn, cls, source, bare)
        return source, ""
    cases = open_source(raw_of(asked))
    if bare:
        check_markable(drawn, cls, cases, bare)
    if scans and drawn.mix.synthetic:
        held_out = held_out_of(cases)
        for each in scans:
            refuse_shown("--unlabelled", lineage_of(each), held_out)
    prepare = PrepareRequest(data=str(request.data), quiet=request.quiet, set=preparation, **words)
    if request.dry_run:
        typed = shlex.join(["gansynth", *prepare.command_line])
        return cases, typed
    decided.reporter.say(f"{request.data}: is prepared first, as by gansynth prepare")
    installed().run("prepare", asked.kind, prepare, preparation)
    return open_source(asked), ""


def describe(source: CaseSource, found: Contents, subjects: int) -> str:
    """Return in a line how many cases there are, and what is in them."""
    schema, ids = source.schema, source.train_ids
    line = (
        f"{source.name}: {len(ids) + len(source.held_out_ids)} cases of {subjects} subject(s), "
        f"{len(ids)} of them to train on"
    )
    if found.kind == "images":
        raise UsageFault(
            "hosts.neither-label-maps-nor-boxes",
            f"{source.name}: has neither label maps nor boxes, expected some to train on; see "
            f"what there is: {source.request.check()}",
        )
    if found.kind == "boxes":
        line += f"; boxes: {', '.join(schema.box_classes)}"
    if found.organs:
        line += f"; organs: {', '.join(found.organs)}"
    if found.lesions:
        counts = _lesion_counts(source, found.lesions)
        line += (
            f"; lesions: {', '.join(found.lesions)}, {np.median(counts):g} in a case (median of "
            f"{len(counts)}), none in {counts.count(0)}"
        )
    return line


def _lesion_counts(source: CaseSource, lesions: Sequence[str]) -> list[int]:
    values = [source.schema.labels[name] for name in lesions]
    counts = []
    for case in evenly_chosen(source.train_ids):
        labels = source.labels_of(case)
        if labels is not None:
            counts.append(len(parts(labels, source.schema, values)))
    return counts


def _fit_of(decided: _Decided, source: CaseSource, found: Contents) -> FitRequest:
    request, asked, rule = decided.request, source.request, found.rule
    data_set = source.name.rpartition(":")[2]
    parts_of_name = [rule.generator, data_set, asked.configuration, asked.plans, f"f{asked.fold}"]
    name = re.sub(r"[^\w.-]+", "-", "_".join(filter(None, parts_of_name)))
    return FitRequest(
        rule.generator,
        data=str(request.data),
        out=_folder_for(source, Path("runs", name)),
        device=request.device,
        set=found.settings,
        quiet=request.quiet,
        **{name: decided.value(name) for name in ReadSection.words() if decided.value(name)},
    )


def _folder_for(source: CaseSource, folder: Path) -> Path:
    """Return the folder, or the first of ``-2``, ``-3`` … behind it, without a run of other data.

    A run of the same files that are read otherwise (``--read``, ``--subjects``) is of other data.
    """
    names = chain([folder], (Path(f"{folder}-{number}") for number in count(2)))
    return next(name for name in names if _is_of(source, RunFolder(name)))


def _is_of(source: CaseSource, run: RunFolder) -> bool:
    if not (run.folder / MANIFEST).is_file():
        return True
    own, fitted = source.request, replace(run.request, view={}, root=source.request.root)
    return own == fitted and same_host(run.lineage.host, source.space.host)
