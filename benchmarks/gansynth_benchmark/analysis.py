"""Statistics of a results document: comparisons, means, equivalent real cases, costs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from statistics import mean
from typing import Any

import numpy as np

from gansynth.metrics.segmentation.measures import AT_ALARMS, BY_SIZE, OF_SIZES, measure_of
from gansynth.metrics.statistics import RunValues, compare, holm, interval_of_mean
from gansynth_benchmark.site_share import share_of_gap
from gansynth_benchmark.worth import worth

LEARNT = 0.3  # Dice (or another share) below which a host counts as untrained
DRAWS, TRAININGS = 3, 6  # of an arm at one size, below which a warning stands before all numbers
NO_MARGIN = 1e-12  # placeholder for measures without a margin; nothing is called equivalent then
Matrices = Mapping[tuple[str, int, str], RunValues]
"""Arm, size, measure -> values over runs and subjects."""
TITLES = {
    "dice": "Dice",
    "hd95": "HD95",
    "nsd": "NSD",
    "froc": "FROC",
    "map50": "mAP50",
    "false_alarms": "alarms per lesion-free case",
    "false_positive_volume": "FP volume",
}


def analysed(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return all statistics of a document's runs, by key of the results document."""
    from gansynth_benchmark.report.verdict import verdict

    matrices = matrices_of(document)
    results: dict[str, Any] = {
        "measures": _measures(document, matrices),
        "comparisons": _comparisons(document, matrices),
        "baselines": _baselines(document, matrices),
        "means": _means(matrices),
        "worth": _worth(document, matrices),
        "gaps": _gaps(document, matrices),
        "costs": _costs(document),
        "warnings": _warnings(document, matrices),
    }
    results["paper"] = _paper(document, results["means"])
    results["verdict"] = verdict(dict(document) | results)
    return results


def matrices_of(document: Mapping[str, Any]) -> dict[tuple[str, int, str], RunValues]:
    """Return values of finished runs by arm, size and measure; a subject's cases are averaged."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for run in document["runs"]:
        if run["status"] == "done":
            groups.setdefault((run["arm"], run["n"]), []).append(run)
    subjects = tuple(sorted(set(document["subjects"].values())))
    matrices = {}
    for (arm, n), runs in groups.items():
        keys = sorted({key for run in runs for key in run["scores"]})
        for key in keys:
            rows = []
            for run in runs:
                value_of = of_subjects(run, key, document["subjects"])
                rows.append([value_of.get(subject, math.nan) for subject in subjects])
            values = np.array(rows)  # (runs, subjects)
            draws, seeds = [run["draw"] for run in runs], [run["seed"] for run in runs]
            matrices[arm, n, key] = RunValues(values, tuple(draws), tuple(seeds), subjects)
    return matrices


def of_subjects(
    run: Mapping[str, Any], key: str, subject_of: Mapping[str, str]
) -> dict[str, float]:
    """Return subject -> value of a measure, without subjects that have none."""
    values: dict[str, list[float]] = {}
    for name, value in run["scores"].get(key, {}).items():
        subject = name if run.get("by") == "subject" else subject_of[name]
        if value is not None:
            values.setdefault(subject, []).append(value)
    return {subject: mean(each) for subject, each in values.items()}


def _comparisons(document: Mapping[str, Any], matrices: Matrices) -> list[dict[str, Any]]:
    """Compare every arm with the control; Holm's correction is over arms and sizes of a measure."""
    control, rows = document["control"], []
    for key in _keys(matrices):
        family = []
        for (arm, n, measure), runs in matrices.items():
            baseline = matrices.get((control, n, key))
            if measure == key and arm != control and baseline is not None:
                row = {"arm": arm}
                row.update(_compared(document, key, n, runs, baseline))
                family.append(row)
        rows += _corrected(family)
    return rows


def _baselines(document: Mapping[str, Any], matrices: Matrices) -> list[dict[str, Any]]:
    """Compare GAN arms with arms without a network on the primary measure, Holm over all."""
    from gansynth_benchmark.report.study import ReportData

    study, key, rows = ReportData(document), document["primary"], []
    gans = [arm.key for arm in study.arms if arm.kind in ("gan", "tuned")]
    for arm, baseline, n in product(gans, study.baselines, study.sizes):
        runs, others = matrices.get((arm, n, key)), matrices.get((baseline.key, n, key))
        if runs is not None and others is not None:
            row = {"arm": arm, "baseline": baseline.key}
            row.update(_compared(document, key, n, runs, others))
            rows.append(row)
    return _corrected(rows)


def _compared(
    document: Mapping[str, Any], key: str, n: int, runs: RunValues, others: RunValues
) -> dict[str, Any]:
    """Compare two arms on a measure, without what the measure does not allow."""
    margin = _margin(document, key)
    row: dict[str, Any] = {"n": n, "measure": key}
    row.update(compare(runs, others, margin=margin or NO_MARGIN).to_json())
    if margin is None:
        row |= {"margin": None, "equivalent": False, "equivalence_p": None}
    if not _possible(row["interval"], key):
        row["interval"] = {"low": None, "high": None}
    return row


def _corrected(family: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Add p after Holm's correction over a family of comparisons."""
    for name in ("p", "wilcoxon_p"):
        for row, corrected in zip(family, holm([r[name] for r in family]), strict=True):
            row[f"{name}_holm"] = corrected
    return family


def _possible(interval: Mapping[str, float | None], key: str) -> bool:
    """Whether the measure's range allows a difference as large as the interval."""
    least, most = measure_of(key).bounds
    return all(end is None or abs(end) <= most - least for end in interval.values())


def _margin(document: Mapping[str, Any], key: str) -> float | None:
    """Return the plan's margin for the primary measure, else the measure's default or None."""
    return float(document["margin"]) if key == document["primary"] else measure_of(key).margin


def _means(matrices: Matrices) -> list[dict[str, Any]]:
    rows = []
    for (arm, n, key), runs in matrices.items():
        # Over subjects with a value in every run, like the interval.
        interval = interval_of_mean(runs, bounds=measure_of(key).bounds)
        values = runs.complete().values
        rows.append(
            {
                "arm": arm,
                "n": n,
                "measure": key,
                "runs": len(runs.draws),
                "mean": float(values.mean()) if values.size else None,
                "low": interval.low,
                "high": interval.high,
            }
        )
    return rows


def _paper(
    document: Mapping[str, Any], means: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """Return a paper's table beside our means at the largest size; None if the plan has none."""
    table = (document.get("plan") or {}).get("paper")
    if not table:
        return None
    n = max(document["sizes"])
    ours = {(row["arm"], row["measure"]): row["mean"] for row in means if row["n"] == n}
    keys = table["columns"].values()
    return {
        "title": f"{table['title']}; ours at N = {n}",
        "columns": list(table["columns"]),
        "rows": [
            {"name": arm, "paper": list(numbers), "ours": [ours.get((arm, key)) for key in keys]}
            for arm, numbers in table["rows"].items()
        ],
    }


def _worth(document: Mapping[str, Any], matrices: Matrices) -> list[dict[str, Any]]:
    """Return how many extra real subjects would match each arm, on the primary measure."""
    # Learning curve: the control, and arms that differ from it only in the number of subjects.
    key, of_real_cases = document["primary"], _arms_of_real_cases(document)
    curve: dict[int, RunValues] = {}  # subjects -> runs
    for arm_of_curve in of_real_cases:
        for (arm, n, measure), runs in matrices.items():
            if (arm, measure) == (arm_of_curve, key):
                subjects = n * _factor_of_subjects(document, arm)
                curve[subjects] = _joined(curve[subjects], runs) if subjects in curve else runs
    rows = []
    for (arm, n, measure), runs in matrices.items():
        subjects = n * _factor_of_subjects(document, arm)
        if measure != key or arm in of_real_cases or len(curve) < 2 or subjects not in curve:
            continue
        row = worth(curve, runs, subjects, better=measure_of(key).better).to_json()
        row |= {"arm": arm, "n": n, "measure": key}
        rows.append(row)
    return rows


def _gaps(document: Mapping[str, Any], matrices: Matrices) -> list[dict[str, Any]]:
    """Return what share of the gap to the target site each arm closes, on the primary measure."""
    key, control = document["primary"], document["control"]
    at_target = [arm for arm, node in document["arms"].items() if node.get("at_target")]
    if not at_target:
        return []
    rows = []
    for (arm, n, measure), runs in matrices.items():
        source, best = matrices.get((control, n, key)), matrices.get((at_target[0], n, key))
        if measure != key or arm in (control, *at_target) or source is None or best is None:
            continue
        row = share_of_gap(runs, source, best, better=measure_of(key).better).to_json()
        rows.append({"arm": arm, "n": n, "measure": key, **row})
    return rows


def _factor_of_subjects(document: Mapping[str, Any], arm: str) -> int:
    return int(document["arms"][arm].get("real", 1))


def _arms_of_real_cases(document: Mapping[str, Any]) -> list[str]:
    """Return the control, then the arms that differ from it only in the number of subjects."""

    def training_of(arm: str) -> dict[str, Any]:
        left_out = ("name", "title", "what", "real")
        return {key: value for key, value in document["arms"][arm].items() if key not in left_out}

    control = document["control"]
    arms = [control]
    for arm in document["arms"]:
        if arm != control and training_of(arm) == training_of(control):
            arms.append(arm)
    return arms


def _joined(first: RunValues, second: RunValues) -> RunValues:
    """Join the runs of two arms with the same training; each training subset and seed once."""
    added = second.chosen(
        [key for key in second.keys if key not in set(first.keys)], first.subjects
    )
    return RunValues(
        np.concatenate([first.values, added.values]),
        first.draws + added.draws,
        first.seeds + added.seeds,
        first.subjects,
    )


def _costs(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return mean seconds of a training by arm and size, and the excess over the control."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for run in document["runs"]:
        if run["status"] == "done":
            row = rows.setdefault((run["arm"], run["n"]), {"train": [], "fit": [], "tune": []})
            for kind, taken in run["seconds"].items():
                row[kind].append(taken or 0.0)
    costs = []
    for (arm, n), row in rows.items():
        seconds = {f"{kind}_s": mean(values) for kind, values in row.items()}
        control = rows.get((document["control"], n))
        cost: dict[str, Any] = {"arm": arm, "n": n}
        cost.update(seconds)
        cost["added_s"] = None
        if control is not None:
            without = [mean(values) for values in control.values()]
            cost["added_s"] = sum(seconds.values()) - sum(without)
        costs.append(cost)
    return costs


def _warnings(document: Mapping[str, Any], matrices: Matrices) -> list[str]:
    warnings = []
    missing = [run for run in document["runs"] if run.get("fell_back")]
    if missing:
        warnings.append(f"in {len(missing)} trainings some synthetic samples were missing")
    if set(document["subjects"]) == set(document["subjects"].values()):
        warnings.append("every case counts as one subject: no subjects were given for the cases")
    unequal = _unequal(document)
    if unequal:
        warnings.append(f"in {len(unequal)} trainings {unequal[0]}, for one")
    warnings += _unlearnt(document, matrices)
    draws, trainings = document["draws"], document["draws"] * document["seeds"]
    few = []
    if draws < DRAWS:
        few.append(f"{draws} draw(s), expected at least {DRAWS}")
    if trainings < TRAININGS:  # one seed for each of many draws varies both
        few.append(f"{trainings} training(s) of an arm, expected at least {TRAININGS}")
    if few:
        warnings.append(f"too few to generalise to other training sets: {'; '.join(few)}")
    return warnings


def _unequal(document: Mapping[str, Any]) -> list[str]:
    """Return of each training whose alarms are not those of the control, how far."""
    return [run["unequal_alarms"] for run in document["runs"] if run.get("unequal_alarms")]


def _unlearnt(document: Mapping[str, Any], matrices: Matrices) -> list[str]:
    """Warn of a host that has learnt next to nothing: all arms are alike then."""
    key, control = document["primary"], document["control"]
    if measure_of(key).unit != "share":
        return []
    warnings = []
    for (arm, n, measure), runs in matrices.items():
        values = runs.values[np.isfinite(runs.values)]
        if (arm, measure) == (control, key) and values.size and values.mean() < LEARNT:
            warnings.append(
                f"at N = {n} the control's {key} is {100 * values.mean():.0f} points: the host has "
                "hardly begun to learn, so the results do not apply to a trained host"
            )
    return warnings


def _measures(document: Mapping[str, Any], matrices: Matrices) -> dict[str, dict[str, Any]]:
    measures = {}
    labels = document.get("data", {}).get("labels") or {}
    named = {str(value): label for label, value in labels.items()} | {"mean": "mean of labels"}
    for key in _keys(matrices):
        measure = measure_of(key)
        name, region = AT_ALARMS.get(key, key.partition("/")[0]), key.partition("/")[2]
        unit = "" if measure.unit == "share" else measure.unit
        says = measure.says
        if measure.unit == "mm" or name == "nsd":
            says = " ".join([says, *_of_distances(document)])
            unit = document.get("data", {}).get("unit", unit) if unit else ""
        title = TITLES.get(name, name.replace("_", " "))
        if key in OF_SIZES:
            name, _, size = name.partition("@")
            title = f"{name.replace('_', ' ')}, {size} voxels"
            says += f" Of {BY_SIZE[name]}, {size} voxels."
        if key in AT_ALARMS:
            apart = bool(_unequal(document))
            title += f" at {'the nearest' if apart else 'equal'} false alarms"
            says += (
                " At the threshold where an arm raises as many false alarms as the control"
                f"{', or as nearly as there is one' if apart else ''}."
            )
        measures[key] = {
            "title": title,
            "region": named.get(region, region) or None,
            "unit": unit,
            "better": measure.better,
            "says": says,
        }
    return measures


def _of_distances(document: Mapping[str, Any]) -> Iterator[str]:
    """Yield notes on distances that are not in mm in volumes."""
    if any(run.get("distances") == "slices" for run in document["runs"]):
        yield "Within each slice, then the mean over a subject's slices."
    if document.get("data", {}).get("unit") == "px":
        yield "In pixels: their size was not given (read: spacing)."


def _keys(matrices: Matrices) -> list[str]:
    return list(dict.fromkeys(key for _, _, key in matrices))
