"""The results document of a benchmark: every training, and what statistics say of them.

Everything that a report shows stands in it, and it is a cache: a training whose key is in it need
not be computed again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gansynth.benchmark.analysis import analysed
from gansynth.benchmark.jobs.graph import Phase, Report
from gansynth.benchmark.plan import ArmPlan, Plan
from gansynth.benchmark.specs import Place, Spec
from gansynth.benchmark.study import Study
from gansynth.runtime.version import __version__

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
        "fit": found["fit_s"] if "fit_s" in found else _fit_seconds(study, spec),
        "tune": _tuning_seconds(study, place),
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


def _fit_seconds(study: Study, spec: Spec) -> float | None:
    return _seconds(study, spec.needs[0]) if spec.needs else 0.0


def _seconds(study: Study, key: str) -> float | None:
    found = study.result(key)
    return None if found is None else found["document"]["seconds"]


def _tuning_seconds(study: Study, place: Place) -> float | None:
    if not study.plan.arm(place.arm).tune:
        return 0.0
    from dataclasses import replace

    return _seconds(study, study.design.tune(replace(place, seed=0)).key)


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
