"""``gansynth benchmark``: run the missing jobs, then write results and report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gansynth.core.requests.base import paths_of
from gansynth.metrics.segmentation.evaluation import THRESHOLDS
from gansynth.metrics.segmentation.measures import AT_ALARMS
from gansynth.runtime.files import disk_errors, read_json, write_bytes_atomic
from gansynth.runtime.version import build, check_format
from gansynth_benchmark.access_log import AccessLog
from gansynth_benchmark.analysis import analysed
from gansynth_benchmark.jobs.executor import parse_executor
from gansynth_benchmark.jobs.graph import GraphReport, JobPhase, run_jobs
from gansynth_benchmark.jobs.machine import describe
from gansynth_benchmark.jobs.table import JobTable
from gansynth_benchmark.plan import ArmPlan, BenchmarkPlan
from gansynth_benchmark.requests import BenchmarkRequest
from gansynth_benchmark.study import BenchmarkStudy, TrainingPoint
from gansynth_benchmark.subject_split import DEVELOPMENT, SEALED


def look_of(request: BenchmarkRequest) -> str:
    """Return ``sealed`` or ``development``."""
    return SEALED if request.test_set else DEVELOPMENT


def open_study(plan: BenchmarkPlan, request: BenchmarkRequest) -> BenchmarkStudy:
    """Open a plan on its data and the requested split."""
    cached: dict[str, Mapping[str, Any]] = {}
    for file in paths_of(request.cache):
        cached |= known_results(read_results(file))
    folder = request.folder(plan.name)
    return BenchmarkStudy(plan, look_of(request), folder, arms=request.arm, cached=cached)


def run_benchmark(
    plan: BenchmarkPlan, request: BenchmarkRequest
) -> tuple[dict[str, Any], dict[str, Path], GraphReport]:
    """Run the missing jobs, and write results and report.

    Returns:
        The results document, the files written by name, and how the jobs ended.

    Raises:
        GansynthError: the benchmark cannot be run. Failed jobs are in the report instead.
        Interrupted: all jobs have been stopped; finished ones are kept.
    """
    executor = parse_executor(request.executor)
    study, looks = open_study(plan, request), AccessLog(request.file)
    number = looks.look(study.look, plan.hash, study.people, study.arms, request.reopen_test_set)
    report = _run(study, request, executor)
    document = document_of(study, report, looks.report_entries(), number, machine())
    files = write_results(document, request.folder(plan.name), study if request.pictures else None)
    return document, files, report


def machine() -> dict[str, Any]:
    """Return hardware and versions that results depend on, without the machine's name."""
    import platform
    from importlib.metadata import version

    facts = {key: value for key, value in describe().items() if key != "name"}
    facts |= {"python": platform.python_version(), "torch": version("torch")}
    return facts


def _run(study: BenchmarkStudy, request: BenchmarkRequest, executor: Any) -> GraphReport:
    """Run all jobs; arms that are chosen on the way may add more."""
    specs = study.specs()
    with JobTable(quiet=request.quiet) as table:
        while True:
            jobs = study.jobs(specs.values())
            report = run_jobs(jobs, study.store, executor, on_change=table)
            before, specs = specs, study.specs()
            if specs.keys() <= before.keys():
                return report
            executor = parse_executor(request.executor)


def write_results(
    document: Mapping[str, Any], folder: Path, study: BenchmarkStudy | None
) -> dict[str, Path]:
    """Write ``results.json`` and the reports, and return the files by name."""
    from gansynth_benchmark.report import write_report

    path = folder / RESULTS
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # One training per line keeps diffs local.
    runs = ",\n".join([json.dumps(run) for run in document["runs"]])
    head = json.dumps({key: value for key, value in document.items() if key != "runs"}, indent=1)
    text = f'{head[:-2]},\n "runs": [\n{runs}\n]\n}}\n'
    write_bytes_atomic(path, text.encode())
    overlays = []
    if study is not None:
        from gansynth_benchmark.report.overlays import overlays_of

        overlays = overlays_of(document, study)
    files = {"results": path}
    files.update(write_report(document, folder, overlays))
    files.update(_per_case(document, folder))
    return files


def _per_case(document: Mapping[str, Any], folder: Path) -> dict[str, Path]:
    """Write the scores of each test subject, a file a size, as ``tables.per_case`` has them."""
    from gansynth_benchmark.report import tables
    from gansynth_benchmark.report.study import ReportData

    files = {}
    study = ReportData(document)
    for n in study.sizes:
        text = tables.per_case(study, n)
        if text:
            files[f"per_case_{n}"] = folder / f"per_case_{n}.csv"
            write_bytes_atomic(files[f"per_case_{n}"], text)
    return files


# -- the results document --------------------------------------------------------------------------

FORMAT = 1
RESULTS = "results.json"
POOLED = "pooled"
DECIMALS = 6


def document_of(
    study: BenchmarkStudy,
    report: GraphReport,
    log: Sequence[Mapping[str, Any]],
    number: int,
    machine: Any,
) -> dict[str, Any]:
    """Return the results document of an evaluation on one split."""
    plan = study.plan
    runs = [run_of(study, report, place) for place in study.places()]
    subjects = {case: study.source.header(case).subject for case in study.test_cases}
    document = {
        "format": FORMAT,
        "name": plan.name,
        "title": plan.title,
        "plan_hash": plan.hash,
        "gansynth": build(),
        "plan": _published(plan),
        "machine": machine,
        "host": {"target": plan.host.target, "title": plan.host.shown, "steps": plan.host.steps},
        "look": {"split": study.look, "number": number, "log": list(log)},
        "data": {
            "name": study.source.name.rpartition("/")[2],
            "pool": len(study.division.pool),
            "development": len(study.division.development),
            "sealed": len(study.division.sealed),
            "test_subjects": len(study.people),
            "test_cases": len(study.test_cases),
            "unit": study.source.unit,
            "labels": dict(study.source.schema.labels),
        },
        "primary": plan.primary_measure,
        "control": plan.compared_with,
        "margin": plan.equal_within,
        "sizes": list(plan.sizes),
        "draws": plan.draws,
        "seeds": plan.seeds,
        "arms": {name: _arm(plan.arm(name)) for name in study.arms},
        "subjects": subjects,
        "runs": runs,
        "failures": [
            {
                "title": failed.job.title,
                "error": failed.why,
                "log": f"jobs/.work/{failed.log.name}",
            }
            for failed in report.of(JobPhase.FAILED)
        ],
        "tunings": _tunings(study),
        "open": list(plan.open),
    }
    document.update(analysed(document))
    return document


def run_of(study: BenchmarkStudy, report: GraphReport, place: TrainingPoint) -> dict[str, Any]:
    """Return one training of the design as a row of ``runs``."""
    spec = study.spec(place)
    row: dict[str, Any] = {
        "arm": place.arm,
        "n": place.n,
        "draw": place.draw,
        "seed": place.seed,
        "key": None if spec is None else spec.key,
        "status": "skipped",
        "error": None,
        "chosen": study.chosen(place) if study.plan.arm(place.arm).tune else None,
        "scores": {},
        "seconds": {"train": None, "fit": None, "tune": None},
    }
    result = None if spec is None else study.result(spec.key)
    if result is None:
        key = study.tune(place).key if spec is None else spec.key
        row.update(_why(report, key))
        return row
    assert spec is not None
    tuned = [study.tune(place).key] if study.plan.arm(place.arm).tune else []
    provenance, document = result["document"].get("told", {}), result["document"]
    control, nearest = study.train(study.control_of(place)).key, study.threshold(place)
    if nearest is None:  # perhaps results of elsewhere
        of_control = document.get("at_alarms", {}).get(control, (None, {}, None))
        threshold, at_alarms, unequal = of_control
    else:
        threshold, at_alarms, unequal = THRESHOLDS[nearest.level], {}, nearest.unequal
        for key, values in document["at_thresholds"].items():
            at_alarms[key] = {name: value[nearest.level] for name, value in values.items()}
    row |= {
        "status": "done",
        "scores": _rounded({**document["scores"], **at_alarms}),
        "threshold": threshold,
        "alarms_of": control,
        "unequal_alarms": unequal,
        "by": document.get("by", "case"),
        "distances": document.get("distances"),
        "predictions": document.get("predictions", {}),
        "realised": provenance.get("realised_synthetic_share"),
        "asked": provenance.get("asked_synthetic_share"),
        "fell_back": provenance.get("fell_back"),
        "drawn": [provenance.get("drawn_real"), provenance.get("drawn_synthetic")],
        "device": result.get("device"),
    }
    if document.get(POOLED):
        row[POOLED] = document[POOLED]
    row["seconds"] = {
        "train": document["seconds"],
        "fit": result["fit_s"] if "fit_s" in result else _seconds(study, *spec.needs),
        "tune": _seconds(study, *tuned),
    }
    return row


def _arm(arm: ArmPlan) -> dict[str, Any]:
    doc = arm.model_dump(mode="json", exclude_defaults=True)
    doc |= {"title": arm.title or arm.name, "what": arm.what, "ratio": arm.ratio}
    doc["generator"] = arm.generator
    return doc


def _published(plan: BenchmarkPlan) -> dict[str, Any]:
    """Return the plan without folders of this machine."""
    doc = plan.model_dump(mode="json", exclude={"root"})
    used = {arm.generator for arm in plan.arms if arm.generator is not None}
    doc["generators"] |= {
        name: plan.generator(name).model_dump(mode="json") for name in sorted(used)
    }
    for generator in doc["generators"].values():
        if generator.get("target_scans"):
            generator["target_scans"] = _place(generator["target_scans"])
    for arm in doc["arms"]:
        if arm.get("unlabelled"):
            arm["unlabelled"] = [_place(scans) for scans in arm["unlabelled"]]
    subjects = plan.subjects.rpartition("/")[2] if plan.subjects else None
    return doc | {"data": _place(plan.data), "subjects": subjects}


def _place(source: str) -> str:
    """Return KIND:WHERE with the last part of WHERE alone."""
    kind, _, where = source.partition(":")
    return f"{kind}:{where.rstrip('/').rpartition('/')[2]}"


def _why(report: GraphReport, key: str) -> dict[str, Any]:
    for standing in report.standings:
        if standing.job.key == key:
            failed = standing.phase is JobPhase.FAILED
            return {"status": "failed" if failed else "skipped", "error": standing.why or None}
    return {}


def _tunings(study: BenchmarkStudy) -> list[dict[str, Any]]:
    rows = []
    for place in study.choices():
        result = study.result(study.tune(place).key)
        if result is not None:
            row = {"arm": place.arm, "n": place.n, "draw": place.draw, "key": study.tune(place).key}
            row.update(result["document"])
            rows.append(row)
    return rows


def _rounded(scores: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Round scores to six decimals; all statistics and the report use these."""
    return {
        key: {case: None if v is None else round(v, DECIMALS) for case, v in values.items()}
        for key, values in scores.items()
    }


def _seconds(study: BenchmarkStudy, key: str | None = None) -> float | None:
    result = {"document": {"seconds": 0.0}} if key is None else study.result(key)
    return None if result is None else result["document"]["seconds"]


def read_results(path: Path) -> dict[str, Any]:
    """Read a results document; one without a format is left to its reader."""
    document: dict[str, Any] = read_json(path)
    made, way = document.get("gansynth"), "run the benchmark again"
    check_format(path, document.get("format", FORMAT), FORMAT, made, way)
    return document


def known_results(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Return the results in a document by key, in the store's format."""
    results: dict[str, dict[str, Any]] = {}
    for row in document.get("tunings", ()):
        if "key" in row:
            tuning = {k: v for k, v in row.items() if k not in ("arm", "n", "draw", "key")}
            results[row["key"]] = {"document": tuning}
    for run in document.get("runs", ()):
        if run.get("status") == "done" and run.get("key"):
            provenance = {
                "realised_synthetic_share": run.get("realised"),
                "asked_synthetic_share": run.get("asked"),
                "fell_back": run.get("fell_back"),
                "drawn_real": (run.get("drawn") or [None, None])[0],
                "drawn_synthetic": (run.get("drawn") or [None, None])[1],
            }
            at_alarms = {key: values for key, values in run["scores"].items() if key in AT_ALARMS}
            against = results.get(run["key"], {"document": {}})["document"].get("at_alarms", {})
            of_control = (run.get("threshold"), at_alarms, run.get("unequal_alarms"))
            against[run.get("alarms_of")] = of_control
            results[run["key"]] = {
                "device": run.get("device"),
                "fit_s": run["seconds"].get("fit"),
                "document": {
                    "scores": {k: v for k, v in run["scores"].items() if k not in AT_ALARMS},
                    "at_alarms": against,  # by the key of the control's training
                    "by": run.get("by", "case"),
                    "told": provenance,
                    "distances": run.get("distances"),
                    "seconds": run["seconds"]["train"],
                    "predictions": {},
                    POOLED: run.get(POOLED),
                },
            }
    return results
