"""Finding hard cases of a target framework: the command ``gansynth hard-cases``."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gansynth.conditions.case_weights import write_failures
from gansynth.conditions.lesion_risk import CropFrame, Span
from gansynth.core.body_mask import shown_body
from gansynth.core.lineage import CaseRecord, Lineage
from gansynth.core.requests.base import function_of, paths_of
from gansynth.core.schema import OUTSIDE, Case, LabelArray, replace_ignored
from gansynth.core.source import CaseSource, FoldSplit, ancestors_of, case_record, host_labels
from gansynth.data.api import source_of
from gansynth.runtime.errors import DataFault, UsageFault, refuse_unknown
from gansynth.runtime.files import refuse_unwritable, write_json_atomic
from gansynth.runtime.options import parse, refuse_idle
from gansynth.runtime.progress import Reporter
from gansynth.sampling.run_source import open_source
from gansynth_evaluate.hard_cases.hosts import (
    Host,
    InnerSource,
    inner_folds,
    predicted_files,
    small_host,
    training_space,
)
from gansynth_evaluate.hard_cases.scoring import (
    ScoredLesion,
    body_span,
    false_alarms,
    fit_risk,
    score_lesions,
)
from gansynth_evaluate.requests import FailureOptions, HardCasesRequest


def run_hard_cases(request: HardCasesRequest) -> dict[str, Any]:
    """Find hard cases by inner folds of the training cases: ``gansynth hard-cases``.

    Returns:
        What ``--json`` prints, see ``find_failures``.

    Raises:
        GansynthError: nothing to write, a setting that is none, or what ``find_failures`` raises.
    """
    settings = request.set
    if request.out is None and request.write_splits is None:
        raise UsageFault(
            "hard-cases.nothing-to-write",
            "gansynth hard-cases: nothing to write, expected -o FILE, or --write-splits FILE",
        )
    keys = dict.fromkeys(FailureOptions.model_fields.keys() - {"inner", "steps"}, "")
    refuse_unknown(settings, keys, of="gansynth hard-cases")
    words = dict(settings, inner=str(request.inner))
    if request.steps is not None:
        words["steps"] = str(request.steps)
    options = parse(FailureOptions, words)
    predictions = paths_of(request.predictions)
    values = dict(options) | {"predictions": predictions}
    refuse_idle(settings, values, options.needs, lambda key: f"--set {key}={settings[key]}")
    return find_failures(
        open_source(source_of(request)),
        None if request.out is None else Path(request.out),
        options,
        predictions=predictions,
        write_splits=None if request.write_splits is None else Path(request.write_splits),
        device=request.device,
        dry_run=request.dry_run,
        reporter=request.reporter,
    )


hard_cases = function_of(HardCasesRequest, run_hard_cases)


def find_failures(
    source: CaseSource,
    out: Path | None,
    options: FailureOptions,
    *,
    predictions: Sequence[Path] = (),
    write_splits: Path | None = None,
    device: str = "auto",
    dry_run: bool = False,
    reporter: Reporter,
) -> dict[str, Any]:
    """Evaluate a fold's training cases, each by a segmenter not trained on it.

    Every lesion is evaluated, and false alarms are listed.

    Args:
        source: the fold; its held-out cases are never opened.
        out: the file to write; None to write only splits.
        options: see ``FailureOptions``.
        predictions: folders with predicted label maps of the training cases; empty for a small
            segmenter that is trained here.
        write_splits: file for the inner folds, in nnU-Net's format.
        device: of the small segmenter: ``auto``, ``cpu``, ``cuda:0``.

    Returns:
        A JSON-able report: cases, inner folds, lesions, false alarms, and the table of weights.

    Raises:
        UsageFault: cases without labels, or an existing file.
        DataFault: fewer subjects than inner folds, a missing or incompatible prediction, or no
            lesion at all.
        IntegrityFault: a prediction of a held-out case.
    """
    began = time.perf_counter()
    for path in filter(None, (out, write_splits)):
        _refuse_old(path)
    if not source.schema.foreground:
        raise UsageFault(
            "hard-cases.no-label-maps",
            f"{source.name}: its cases have no label maps, expected some: hard cases are "
            "found by them; use labelled cases",
        )
    folds = inner_folds(source, options.inner, options.seed)
    files = predicted_files(source, predictions) if predictions else {}
    report: dict[str, Any] = {
        "data": source.name,
        "fold": source.request.fold,
        "cases": len(source.train_ids),
        "inner": [{"train": len(f["train"]), "val": len(f["val"])} for f in folds],
        "host": "predictions" if predictions else "small segmenter",
    }
    if out is not None and not predictions:
        from gansynth.runtime.devices import pick_device

        pick_device(device)
    if dry_run:
        cost = "not measured" if predictions else f"not measured: {len(folds)} small segmenters"
        plan = {"dry_run": True} | report
        plan |= {"options": options.model_dump(), "time_and_memory": cost}
        return plan
    if write_splits is not None:
        write_json_atomic(write_splits, folds)
        report["splits"] = str(write_splits)
    if out is None:
        return report
    if files:
        read = _from_files(source, files, reporter)
    else:
        read = _from_segmenters(source, folds, options, device, reporter)
    scored_lesions, document = _document(source, folds, options, report["host"], read)
    _warn_of_unlearnt(document["risk"], report["host"], reporter)
    digest = write_failures(out, document)
    missed = [lesion.found for lesion in scored_lesions].count(False)
    alarms = document["false_alarms"]
    report |= {
        "file": str(out),
        "sha256": digest,
        "lesions": len(scored_lesions),
        "missed": missed,
        "false_alarms": alarms["pieces"],
        "cases_with_false_alarms": alarms["share_of_cases"],
        "risk": document["risk"],
        "seconds": round(time.perf_counter() - began, 1),
    }
    return report


def _warn_of_unlearnt(risk: Mapping[str, Any], host: str, reporter: Reporter) -> None:
    """Warn of classes that were never found: these are not learnt, not hard."""
    ways = "train longer: --steps, or evaluate your own model: --predictions"
    if host == "predictions":
        ways = "check the model's training"
    for factor in risk["factors"]:
        for row in factor["bins"] if factor["name"] == "class" else ():
            if row["lesions"] and row["missed"] == row["lesions"]:
                reporter.warn(
                    f"class {row['name']!r}: none of {row['lesions']} lesion(s) found: the "
                    "segmenter has not learnt it, so its weight is meaningless, expected some "
                    f"to be found; {ways}"
                )


def _refuse_old(path: Path) -> None:
    if path.exists():
        raise UsageFault(
            "hard-cases.file-exists-already",
            f"{path}: exists already, expected a new file; choose another, or remove it",
        )
    refuse_unwritable(path)


# -- predictions ---------------------------------------------------------------------------------

Read = tuple[Case, LabelArray, int]  # a case, its prediction, and the inner fold that held it out


def _from_segmenters(
    source: CaseSource,
    folds: Sequence[FoldSplit],
    options: FailureOptions,
    device: str,
    reporter: Reporter,
) -> Iterator[Read]:
    from gansynth.metrics.faithfulness import EvaluationSegmenterOptions
    from gansynth.runtime.devices import pick_device

    keys = ("steps", "batch_size", "width", "levels", "lr", "seed")
    how = EvaluationSegmenterOptions(**{key: getattr(options, key) for key in keys})
    where = pick_device(device)
    for number, split in enumerate(folds):
        inner = InnerSource(source, split)
        reporter.say(f"inner fold {number}: {len(split['train'])} cases to learn from")
        space = training_space(inner, options.patch)
        host: Host = small_host(inner, space, how, device=where, reporter=reporter)
        with reporter.task(len(inner.held_out_ids), f"inner fold {number}: judging") as bar:
            for case_id in inner.held_out_ids:
                case = inner.load(case_id)
                yield case, host(case), number
                bar.advance()


def _from_files(
    source: CaseSource, files: Mapping[str, Path], reporter: Reporter
) -> Iterator[Read]:
    with reporter.task(len(files), "judging") as bar:
        for case_id in sorted(files):
            case = source.load(case_id)
            yield case, host_labels(source, case_id, files[case_id]), -1
            bar.advance()


# -- the document ----------------------------------------------------------------------------------


def _document(
    source: CaseSource,
    folds: Sequence[FoldSplit],
    options: FailureOptions,
    host: str,
    read: Iterable[Read],
) -> tuple[list[ScoredLesion], dict[str, Any]]:
    schema = source.schema
    cases: dict[str, Any] = {}
    records: list[CaseRecord] = []
    scored_lesions: list[ScoredLesion] = []
    rows: list[dict[str, Any]] = []
    alarms: list[dict[str, Any]] = []
    voxels = 0
    for case, predicted, number in read:
        record = case_record(source, case.id, {case.id: case}.__getitem__)
        span, lesions, pieces = _score_case(source, case, predicted, options.least)
        cases[case.id] = {"body": [list(axis) for axis in span], "inner": number}
        records.append(record)
        scored_lesions += lesions
        rows += [_row(case.id, lesion) for lesion in lesions]
        alarms += pieces
        voxels += predicted.size
    if not scored_lesions:
        raise DataFault(
            "hard-cases.no-lesions",
            f"{source.name} fold {source.request.fold}: no lesion of {options.least} voxels or "
            f"more in {len(cases)} training case(s), expected some; lower --set least=",
        )
    names = {value: name for name, value in schema.labels.items() if value in schema.foreground}
    risk = fit_risk(scored_lesions, names, schema.axes, options.bound, source.unit)
    lineage = Lineage(
        source.name,
        source.request.fold,
        tuple(sorted(records, key=lambda lesion: lesion.id)),
        dict(source.space.host),
        ancestors_of(source),
    )
    document = {
        "data": source.request.to_json(),
        "host": host,
        "options": options.model_dump(),
        "labels": dict(schema.labels),
        "unit": source.unit,
        "lineage": lineage.to_json(),
        "inner": [dict(split) for split in folds] if host != "predictions" else [],
        "cases": cases,
        "risk": risk.to_json(),
        "lesions": rows,
        "false_alarms": {
            "share_of_cases": round(len({row["case"] for row in alarms}) / len(cases), 4),
            "share_of_voxels": sum(row["voxels"] for row in alarms) / voxels,
            "pieces": alarms,
        },
    }
    return scored_lesions, document


def _score_case(
    source: CaseSource, case: Case, predicted: LabelArray, least: int
) -> tuple[Span, list[ScoredLesion], list[dict[str, Any]]]:
    """Span of a case's body, its lesions and false alarms."""
    if case.labels is None:
        raise DataFault(
            "hard-cases.case-without-labels",
            f"{source.name}: case {case.id!r} has no labels, expected them of every training case",
        )
    shape = case.labels.shape
    if predicted.shape != shape:
        raise DataFault(
            "hard-cases.prediction-shape-differs",
            f"{source.name}: the prediction of case {case.id!r} has shape {predicted.shape}, the "
            f"case {shape}; expected equal",
        )
    unit_scale = (1.0,) * len(shape)
    body = case.labels != OUTSIDE
    span = body_span(shown_body(case.image, case.labels))
    frame = CropFrame(source.schema.spacing, (0.0,) * len(shape), unit_scale, shape, span)
    unknown = case.labels == source.schema.ignore if source.schema.ignore is not None else ~body
    labels = replace_ignored(case.labels, source.schema)
    marked = np.where(unknown | ~body, np.int16(0), predicted)
    values = source.schema.foreground
    alarms = [
        {
            "case": case.id,
            "label": int(part.labels.max()),
            "voxels": part.voxels,
            "size": round(part.volume, 4),
            "place": [round(x, 4) for x in frame.place(part.centroid) or ()],
            "box": [[axis.start, axis.stop] for axis in part.box],
        }
        for part in false_alarms(labels, marked, values, frame.spacing, least=least)
    ]
    return span, score_lesions(labels, marked, values, frame, least=least), alarms


def _row(case_id: str, scored: ScoredLesion) -> dict[str, Any]:
    lesion = scored.lesion
    return {
        "case": case_id,
        "label": lesion.label,
        "size": round(lesion.size, 4),
        "diameter": round(lesion.diameter, 4),
        "place": None if lesion.place is None else [round(x, 4) for x in lesion.place],
        "dice": round(scored.dice, 4),
        "recall": round(scored.recall, 4),
        "found": scored.found,
    }
