"""``gansynth benchmark``: run what is missing, then say what it came to."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gansynth.benchmark.analysis import analysed
from gansynth.benchmark.division import DEVELOPMENT, SEALED
from gansynth.benchmark.jobs.executor import parse_executor
from gansynth.benchmark.jobs.graph import Phase, Report, run_jobs
from gansynth.benchmark.jobs.table import JobTable
from gansynth.benchmark.looks import Looks
from gansynth.benchmark.plan import ArmPlan, Plan
from gansynth.benchmark.specs import Place
from gansynth.benchmark.study import Study
from gansynth.runtime.files import disk_errors, read_json, write_bytes_atomic
from gansynth.runtime.version import __version__


@dataclass(frozen=True)
class Asked:
    """What somebody asked of a benchmark.

    Attributes:
        again: why a sealed split is looked at once more; empty for no reason.
        arms: these and the control alone; all if empty.
        executor: ``local``, ``local:4``, ``ray``.
        caches: results documents whose trainings need not be computed.
        pictures: show the worst cases in the report; it then holds images of people.
    """

    file: Path
    folder: Path
    sealed: bool = False
    again: str = ""
    arms: Sequence[str] = ()
    executor: str = "local"
    caches: Sequence[Path] = ()
    pictures: bool = True

    @property
    def look(self) -> str:
        """``sealed`` or ``development``."""
        return SEALED if self.sealed else DEVELOPMENT


def open_study(plan: Plan, asked: Asked) -> Study:
    """The look that is asked for.

    Raises:
        GansynthError: data, plan or results that cannot be used.
    """
    cached: dict[str, Mapping[str, Any]] = {}
    for file in asked.caches:
        cached |= known_results(read_json(file))
    return Study(plan, asked.look, asked.folder, arms=asked.arms, cached=cached)


def run_benchmark(
    plan: Plan, asked: Asked, *, quiet: bool = False
) -> tuple[dict[str, Any], dict[str, Path], Report]:
    """Compute what is missing, and write results and report.

    Returns:
        The results document, the files written by name, and how the jobs ended.

    Raises:
        GansynthError: what cannot be run at all; failed jobs are in the report instead.
        Interrupted: after all jobs have been stopped; what is done stays done.
    """
    executor = parse_executor(asked.executor)
    study, looks = open_study(plan, asked), Looks(asked.file)
    number = looks.look(study.look, plan.hash, study.people, study.arms, asked.again)
    report = _run(study, asked, executor, quiet)
    document = document_of(study, report, looks.told(), number, machine())
    files = write_results(document, asked.folder, study if asked.pictures else None)
    return document, files, report


def machine() -> dict[str, Any]:
    """What numbers depend on, without the machine's name."""
    import platform
    from importlib.metadata import version

    from gansynth.benchmark.jobs.machine import describe

    told = {key: value for key, value in describe().items() if key != "name"}
    return {**told, "python": platform.python_version(), "torch": version("torch")}


def _run(study: Study, asked: Asked, executor: Any, quiet: bool) -> Report:
    """Run all jobs; arms that had to be chosen first may bring more."""
    specs = study.specs()
    with JobTable(quiet=quiet) as table:
        while True:
            jobs = study.jobs(specs.values())
            report = run_jobs(jobs, study.store, executor, on_change=table)
            known, specs = specs, study.specs()
            if specs.keys() <= known.keys():
                return report
            executor = parse_executor(asked.executor)


def write_results(
    document: Mapping[str, Any], folder: Path, study: Study | None
) -> dict[str, Path]:
    """Write ``results.json`` and the reports; the files by name."""
    from gansynth.benchmark.report import write_report

    path = folder / RESULTS
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
    # A training a line: large, but a change is seen where it is.
    runs = ",\n".join(json.dumps(run) for run in document["runs"])
    rest = json.dumps({key: value for key, value in document.items() if key != "runs"}, indent=1)
    text = f'{rest[:-2]},\n "runs": [\n{runs}\n]\n}}\n'
    write_bytes_atomic(path, text.encode())
    overlays = []
    if study is not None:
        from gansynth.benchmark.pictures import overlays_of

        overlays = overlays_of(document, study)
    return {"results": path, **write_report(document, folder, overlays)}


# -- the results document --------------------------------------------------------------------------

FORMAT = 1
RESULTS = "results.json"
POOLED = "pooled"
DECIMALS = 6


def document_of(
    study: Study, report: Report, log: Sequence[Mapping[str, Any]], number: int, machine: Any
) -> dict[str, Any]:
    """Everything that is known of a look."""
    plan = study.plan
    runs = [run_of(study, report, place) for place in study.places()]
    subjects = {case: study.source.subject(case) for case in study.judged}
    document = {
        "format": FORMAT,
        "name": plan.name,
        "title": plan.title,
        "plan_hash": plan.hash,
        "gansynth": __version__,
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
            "test_cases": len(study.judged),
            "unit": study.source.unit,
            "labels": dict(study.source.schema.labels),
        },
        "primary": plan.judged_by,
        "control": plan.compared_with,
        "margin": plan.equal_within,
        "sizes": list(plan.sizes),
        "draws": plan.draws,
        "seeds": plan.seeds,
        "arms": {name: _arm(plan.arm(name)) for name in study.arms},
        "subjects": subjects,
        "runs": runs,
        "failures": _failures(report),
        "tunings": _tunings(study),
        "open": list(plan.open),
    }
    return {**document, **analysed(document)}


def run_of(study: Study, report: Report, place: Place) -> dict[str, Any]:
    """One training of the design."""
    spec = study.spec(place)
    row: dict[str, Any] = {
        **{"arm": place.arm, "n": place.n, "draw": place.draw, "seed": place.seed},
        **{"key": None if spec is None else spec.key, "status": "skipped", "error": None},
        "chosen": study.chosen(place) if study.plan.arm(place.arm).tune else None,
        "scores": {},
        "seconds": {"train": None, "fit": None, "tune": None},
    }
    found = None if spec is None else study.result(spec.key)
    if found is None:
        key = study.design.tune(place).key if spec is None else spec.key
        return {**row, **_why(report, key)}
    assert spec is not None
    tuned = [study.design.tune(place).key] if study.plan.arm(place.arm).tune else []
    told, document = found["document"].get("told", {}), found["document"]
    row |= {
        "status": "done",
        "scores": _rounded(document["scores"]),
        "by": document.get("by", "case"),
        "distances": document.get("distances"),
        "predictions": document.get("predictions", {}),
        "realised": told.get("realised_synthetic_share"),
        "asked": told.get("asked_synthetic_share"),
        "fell_back": told.get("fell_back"),
        "drawn": [told.get("drawn_real"), told.get("drawn_synthetic")],
        "device": found.get("device"),
    }
    if document.get(POOLED):
        row[POOLED] = document[POOLED]
    row["seconds"] = {
        "train": document["seconds"],
        "fit": found["fit_s"] if "fit_s" in found else _seconds(study, *spec.needs),
        "tune": _seconds(study, *tuned),
    }
    return row


def _arm(arm: ArmPlan) -> dict[str, Any]:
    doc = arm.model_dump(mode="json", exclude_defaults=True)
    doc |= {"title": arm.title or arm.name, "what": arm.what, "ratio": arm.asked_ratio}
    return {**doc, "generator": arm.generator}


def _published(plan: Plan) -> dict[str, Any]:
    """The plan without where things lie on this machine."""
    doc = plan.model_dump(mode="json", exclude={"root"})
    used = {arm.generator for arm in plan.arms if arm.generator is not None}
    doc["generators"] |= {
        name: plan.generator(name).model_dump(mode="json") for name in sorted(used)
    }
    kind, _, where = plan.data.partition(":")
    subjects = plan.subjects.rpartition("/")[2] if plan.subjects else None
    return {**doc, "data": f"{kind}:{where.rpartition('/')[2]}", "subjects": subjects}


def _why(report: Report, key: str) -> dict[str, Any]:
    for standing in report.standings:
        if standing.job.key == key:
            failed = standing.phase is Phase.FAILED
            return {"status": "failed" if failed else "skipped", "error": standing.why or None}
    return {}


def _failures(report: Report) -> list[dict[str, Any]]:
    return [
        {"title": one.job.title, "error": one.why, "log": f"jobs/.work/{one.log.name}"}
        for one in report.of(Phase.FAILED)
    ]


def _tunings(study: Study) -> list[dict[str, Any]]:
    rows = []
    for place in study.choices():
        found = study.result(study.design.tune(place).key)
        if found is not None:
            where = {"arm": place.arm, "n": place.n, "draw": place.draw}
            rows.append({**where, "key": study.design.tune(place).key, **found["document"]})
    return rows


def _rounded(scores: Mapping[str, Mapping[str, float | None]]) -> dict[str, dict[str, Any]]:
    """Scores to six decimals: whatever is shown, and every statistic, is of these."""
    return {
        key: {case: None if v is None else round(v, DECIMALS) for case, v in values.items()}
        for key, values in scores.items()
    }


def _seconds(study: Study, key: str | None = None) -> float | None:
    """What a job took; nothing where there was none to do."""
    found = {"document": {"seconds": 0.0}} if key is None else study.result(key)
    return None if found is None else found["document"]["seconds"]


def known_results(document: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Results that a document holds, by key, in the form of the store's."""
    found: dict[str, dict[str, Any]] = {}
    for row in document.get("tunings", ()):
        if "key" in row:
            rest = {k: v for k, v in row.items() if k not in ("arm", "n", "draw", "key")}
            found[row["key"]] = {"document": rest}
    for run in document.get("runs", ()):
        if run.get("status") == "done" and run.get("key"):
            told = {
                "realised_synthetic_share": run.get("realised"),
                "asked_synthetic_share": run.get("asked"),
                "fell_back": run.get("fell_back"),
                "drawn_real": (run.get("drawn") or [None, None])[0],
                "drawn_synthetic": (run.get("drawn") or [None, None])[1],
            }
            found[run["key"]] = {
                **{"device": run.get("device"), "fit_s": run["seconds"].get("fit")},
                "document": {
                    **{"scores": run["scores"], "by": run.get("by", "case"), "told": told},
                    "distances": run.get("distances"),
                    **{"seconds": run["seconds"]["train"], "predictions": {}},
                    POOLED: run.get(POOLED),
                },
            }
    return found
