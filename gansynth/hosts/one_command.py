"""``gansynth augment KIND:WHERE``: what is left out is decided, and said, as an expert would.

Target, plans, generator, ratio and length follow from the data and the machine, by rules that are
printed. The generator is fitted, or gone on with, in a folder that the same command finds again.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.core.registry import installed
from gansynth.core.requests.fit import FitRequest
from gansynth.core.requests.hosts import AugmentRequest, PrepareRequest
from gansynth.core.requests.sections import ReadWords
from gansynth.core.run_folder import read_manifest
from gansynth.core.source import CaseSource, SourceRequest
from gansynth.data.connected_components import parts
from gansynth.data.organs import CASES
from gansynth.fitting.api import run_fit
from gansynth.hosts.choices import Choice
from gansynth.hosts.host import framework
from gansynth.hosts.suggestion import RULES, Contents, Rule, contents_of, way_to_nnunet
from gansynth.runtime.errors import DataFault, GansynthError, UsageFault
from gansynth.runtime.progress import Reporter
from gansynth.sampling.run_source import open_source

READING = tuple(name for name in ReadWords.words() if name != "synthetic_source")


def decide(request: AugmentRequest, reporter: Reporter) -> tuple[AugmentRequest, FitRequest | None]:
    """Decide what is left out, and say why; prepare the data if their target needs it.

    Returns:
        The whole request, and the fit of its generator; None where no sample is drawn.

    Raises:
        GansynthError: data that cannot be used, or, in a dry run, that are not prepared.
    """
    asked = SourceRequest.parse(str(request.data))
    request = _say(_target(asked), request, reporter)
    machine = framework(request.target).suited(request)
    preparation: dict[str, str] = {}
    for choice in machine:
        if choice.left_out(request):
            preparation |= choice.prepare
        request = _say(choice, request, reporter)
    source = _prepared(request, preparation, reporter)
    found = contents_of(source)
    reporter.say(describe(source, found))
    rule = RULES[found.kind]
    asks = "ratio" in request.given or request.compare
    ratio = rule.ratio if not asks else "1:1"
    why = f"the data are {rule.data} ({rule.evidence})"
    if ratio == "1:0":
        why += ", so no gain is to be expected"
    change = "--ratio 1:1" if ratio == "1:0" else "--ratio 1:0"
    request = _say(Choice("ratio", ratio, why, change), request, reporter)
    if not request.mix.synthetic:
        return request, None
    if request.generator is not None or request.bank is not None:
        return request, None
    fit = _fit_of(request, source, rule, found)
    about = f"{rule.generator} in {fit.out}"
    reporter.say(str(Choice("generator", about, f"the data are {rule.data}", "--generator RUN")))
    return request.but(generator=fit.out), fit


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
    report = run_fit(fit).report
    reporter.say(f"{folder}: fitted on {report['train_cases']} training cases")


def planned_fit(fit: FitRequest) -> dict[str, Any]:
    """Return what a dry run says of a generator that is not fitted yet."""
    cost = run_fit(fit.but(dry_run=True)).report
    return {
        "generator": f"{fit.generator}, to be fitted in {fit.out}",
        "fit_hours": round(cost["estimated_minutes"] / 60, 3),
    }


def rules_table() -> list[tuple[str, ...]]:
    """Return the rules as rows of a table."""
    rows: list[tuple[str, ...]] = [("data", "ratio", "generator", "evidence")]
    rows += [(rule.data, rule.ratio, rule.generator, rule.evidence) for rule in RULES.values()]
    return rows


def _say(choice: Choice, request: AugmentRequest, reporter: Reporter) -> AugmentRequest:
    if choice.left_out(request):
        reporter.say(str(choice))
    return choice.made(request)


def target_of_kind(kind: str) -> str:
    """Return the framework whose data sets these are, else the U-Net of gansynth."""
    return kind if kind in installed().names("hosts") else "segmenter"


def _target(asked: SourceRequest) -> Choice:
    target = target_of_kind(asked.kind)
    if target == asked.kind:
        return Choice("target", target, f"the data are its own ({asked.kind}:)", "--target NAME")
    why = f"{asked.kind}: is no framework's own data set"
    return Choice("target", target, why, f"{way_to_nnunet(asked)}, and augment that")


def _prepared(
    request: AugmentRequest, preparation: Mapping[str, str], reporter: Reporter
) -> CaseSource:
    given = {key: value for key in READING if (value := getattr(request, key))}
    asked = SourceRequest.parse(str(request.data), **given)
    try:
        return open_source(asked)
    except GansynthError as fault:
        if asked.kind not in installed().hosts_with("prepare"):
            raise
        if request.dry_run:
            small = " ".join(f"--set {key}={value}" for key, value in preparation.items())
            raise DataFault(
                f"{request.data}: is not prepared, and a dry run writes nothing ({fault}); run: "
                f"gansynth prepare {request.data} {small}".rstrip()
            ) from fault
    reporter.say(f"{request.data}: is prepared first, as by gansynth prepare")
    words = {key: given[key] for key in ("configuration", "subjects", "root") if key in given}
    prepare = PrepareRequest(data=str(request.data), quiet=request.quiet, **words)
    installed().run("prepare", asked.kind, prepare, preparation)
    return open_source(asked)


def describe(source: CaseSource, found: Contents) -> str:
    """Return in a line how many cases there are, and what is in them.

    Raises:
        UsageFault: neither label maps nor boxes.
    """
    schema, ids = source.schema, source.train_ids
    subjects = len({source.header(case).subject for case in (*ids, *source.held_out_ids)})
    line = (
        f"{source.name}: {len(ids) + len(source.held_out_ids)} cases of {subjects} subject(s), "
        f"{len(ids)} of them to train on"
    )
    if found.kind == "images":
        raise UsageFault(
            f"{source.name}: has neither label maps nor boxes, expected some to train on; see "
            "what there is: gansynth check"
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
    ids, values = source.train_ids, [source.schema.labels[name] for name in lesions]
    chosen = np.linspace(0, len(ids) - 1, min(CASES, len(ids))).astype(int)
    counts = []
    for number in chosen:
        labels = source.load(ids[number]).labels
        if labels is not None:
            counts.append(len(parts(labels, source.schema, values)))
    return counts


def _fit_of(request: AugmentRequest, source: CaseSource, rule: Rule, found: Contents) -> FitRequest:
    asked = source.request
    data_set = source.name.rpartition(":")[2]
    parts_of_name = [rule.generator, data_set, asked.configuration, asked.plans, f"f{asked.fold}"]
    name = "_".join(part for part in parts_of_name if part)
    words = {key: value for key in READING if (value := getattr(request, key))}
    settings = {"lesions": ",".join(found.lesions)} if found.organs and found.lesions else {}
    return FitRequest(
        rule.generator,
        data=str(request.data),
        out=Path("runs", re.sub(r"[^\w.-]+", "-", name)),
        device=request.device,
        set=settings,
        quiet=request.quiet,
        **words,
    )
