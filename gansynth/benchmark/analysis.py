"""What statistics say of a results document: comparisons, means, worth in real cases, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from statistics import mean
from typing import Any

import numpy as np

from gansynth.metrics.segmentation.table import measure_of
from gansynth.metrics.stats.compare import compare, holm, interval_of_mean
from gansynth.metrics.stats.runs import Runs
from gansynth.metrics.stats.worth import worth

LEARNT = 0.3
"""Dice and the like below which a host has learnt next to nothing."""
NO_MARGIN = 1e-12
"""Stands in for a margin where there is none, and nothing is called equivalent."""


def analysed(document: Mapping[str, Any]) -> dict[str, Any]:
    """What statistics say of a document's runs."""
    from gansynth.benchmark.report.verdict import verdict

    matrices = matrices_of(document)
    found: dict[str, Any] = {
        "measures": _measures(document, matrices),
        "comparisons": _comparisons(document, matrices),
        "means": _means(matrices),
        "worth": _worth(document, matrices),
        "costs": _costs(document),
        "warnings": _warnings(document, matrices),
    }
    found["paper"] = _paper(document, found["means"])
    return {**found, "verdict": verdict({**document, **found})}


Matrices = Mapping[tuple[str, int, str], Runs]
"""Arm, size, measure -> values over runs and people."""


def matrices_of(document: Mapping[str, Any]) -> dict[tuple[str, int, str], Runs]:
    """Values of all finished runs by arm, size and measure; a person's cases are averaged."""
    groups: dict[tuple[str, int], list[Mapping[str, Any]]] = {}
    for run in document["runs"]:
        if run["status"] == "done":
            groups.setdefault((run["arm"], run["n"]), []).append(run)
    people = tuple(sorted(set(document["subjects"].values())))
    found = {}
    for (arm, n), runs in groups.items():
        keys = sorted({key for run in runs for key in run["scores"]})
        for key in keys:
            values = np.array([_of_people(run, key, document["subjects"], people) for run in runs])
            draws = tuple(run["draw"] for run in runs)
            seeds = tuple(run["seed"] for run in runs)
            found[arm, n, key] = Runs(values, draws, seeds, people)
    return found


def _of_people(
    run: Mapping[str, Any], key: str, subjects: Mapping[str, str], people: Sequence[str]
) -> list[float]:
    values: dict[str, list[float]] = {}
    for name, value in run["scores"].get(key, {}).items():
        person = name if run.get("by") == "subject" else subjects[name]
        if value is not None:
            values.setdefault(person, []).append(value)
    return [mean(values[person]) if person in values else float("nan") for person in people]


def _comparisons(document: Mapping[str, Any], matrices: Matrices) -> list[dict[str, Any]]:
    """Every arm against the control; Holm's correction over arms and sizes of each measure."""
    control, rows = document["control"], []
    for key in _keys(matrices):
        family = []
        for (arm, n, measure), runs in matrices.items():
            other = matrices.get((control, n, key))
            if measure != key or arm == control or other is None:
                continue
            margin = _margin(document, key)
            found = compare(runs, other, margin=margin or NO_MARGIN).to_json()
            if margin is None:
                found |= {"margin": None, "equivalent": False, "equivalence_p": None}
            if not _possible(found["interval"], key):
                found["interval"] = {"low": None, "high": None}
            family.append({"arm": arm, "n": n, "measure": key, **found})
        for name in ("p", "wilcoxon_p"):
            for row, corrected in zip(family, holm([r[name] for r in family]), strict=True):
                row[f"{name}_holm"] = corrected
        rows += family
    return rows


def _possible(interval: Mapping[str, float | None], key: str) -> bool:
    """Whether the difference of two values can be as large as an interval says."""
    least, most = measure_of(key).bounds
    return all(end is None or abs(end) <= most - least for end in interval.values())


def _margin(document: Mapping[str, Any], key: str) -> float | None:
    """The plan's margin of its primary measure; of others the usual one, if there is one."""
    return float(document["margin"]) if key == document["primary"] else measure_of(key).margin


def _means(matrices: Matrices) -> list[dict[str, Any]]:
    rows = []
    for (arm, n, key), runs in matrices.items():
        # Of those who have a value in every run, as the interval is.
        interval = interval_of_mean(runs, bounds=measure_of(key).bounds)
        values = runs.complete().values
        rows.append(
            {
                **{"arm": arm, "n": n, "measure": key, "runs": len(runs.draws)},
                "mean": float(values.mean()) if values.size else None,
                **{"low": interval.low, "high": interval.high},
            }
        )
    return rows


def _paper(
    document: Mapping[str, Any], means: Sequence[Mapping[str, Any]]
) -> dict[str, Any] | None:
    """A paper's table, and ours of the largest training sets; None where the plan has none."""
    asked = (document.get("plan") or {}).get("paper")
    if not asked:
        return None
    n = max(document["sizes"])
    ours = {(row["arm"], row["measure"]): row["mean"] for row in means if row["n"] == n}
    keys = asked["columns"].values()
    return {
        "title": f"{asked['title']}; ours at N = {n}",
        "columns": list(asked["columns"]),
        "rows": [
            {"name": arm, "paper": list(numbers), "ours": [ours.get((arm, key)) for key in keys]}
            for arm, numbers in asked["rows"].items()
        ],
    }


def _worth(document: Mapping[str, Any], matrices: Matrices) -> list[dict[str, Any]]:
    """How many more real people would do as much as an arm, on the primary measure.

    Points of the learning curve are the control's, and those of arms that differ from it in the
    number of people alone.
    """
    key, alike = document["primary"], _alike(document)
    curve: dict[int, Runs] = {}
    for like in alike:
        for (arm, n, measure), runs in matrices.items():
            if (arm, measure) == (like, key):
                people = n * _times(document, arm)
                curve[people] = _joined(curve[people], runs) if people in curve else runs
    rows = []
    for (arm, n, measure), runs in matrices.items():
        people = n * _times(document, arm)
        if measure != key or arm in alike or len(curve) < 2 or people not in curve:
            continue
        found = worth(curve, runs, people, better=measure_of(key).better)
        rows.append({**found.to_json(), "arm": arm, "n": n, "measure": key})
    return rows


def _times(document: Mapping[str, Any], arm: str) -> int:
    """Times as many real people as the size says."""
    return int(document["arms"][arm].get("real", 1))


def _alike(document: Mapping[str, Any]) -> list[str]:
    """The control, then arms that are the same training on other numbers of people."""

    def bare(arm: str) -> dict[str, Any]:
        named = ("name", "title", "what", "real")
        return {k: v for k, v in document["arms"][arm].items() if k not in named}

    control = document["control"]
    others = [arm for arm in document["arms"] if arm != control and bare(arm) == bare(control)]
    return [control, *others]


def _joined(one: Runs, other: Runs) -> Runs:
    """Runs of two arms that are the same training; each draw and seed once."""
    more = other.chosen([key for key in other.keys if key not in set(one.keys)], one.subjects)
    return Runs(
        np.concatenate([one.values, more.values]),
        one.draws + more.draws,
        one.seeds + more.seeds,
        one.subjects,
    )


def _costs(document: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Mean seconds of a training by arm and size, and what is added to the control's."""
    rows: dict[tuple[str, int], dict[str, Any]] = {}
    for run in document["runs"]:
        if run["status"] == "done":
            row = rows.setdefault((run["arm"], run["n"]), {"train": [], "fit": [], "tune": []})
            for kind, taken in run["seconds"].items():
                row[kind].append(taken or 0.0)
    found = []
    for (arm, n), row in rows.items():
        told = {f"{kind}_s": mean(values) for kind, values in row.items()}
        control = rows.get((document["control"], n))
        added = None
        if control is not None:
            added = sum(told.values()) - sum(mean(values) for values in control.values())
        found.append({"arm": arm, "n": n, **told, "added_s": added})
    return found


def _warnings(document: Mapping[str, Any], matrices: Matrices) -> list[str]:
    found = []
    missing = [run for run in document["runs"] if run.get("fell_back")]
    if missing:
        found.append(f"in {len(missing)} trainings some synthetic samples were missing")
    if set(document["subjects"]) == set(document["subjects"].values()):
        found.append("every case counts as a person: nobody said which cases are of one person")
    found += _unlearnt(document, matrices)
    if document["draws"] < 3 or document["seeds"] < 2:
        found.append(
            f"{document['draws']} draw(s) and {document['seeds']} seed(s): too few to say much of "
            "other training sets; expected at least 3 and 2"
        )
    return found


def _unlearnt(document: Mapping[str, Any], matrices: Matrices) -> list[str]:
    """What is said of a host that finds next to nothing: all arms are alike then."""
    key, control = document["primary"], document["control"]
    if measure_of(key).unit != "share":
        return []
    found = []
    for (arm, n, measure), runs in matrices.items():
        values = runs.values[np.isfinite(runs.values)]
        if (arm, measure) == (control, key) and values.size and values.mean() < LEARNT:
            found.append(
                f"at N = {n} the control's {key} is {100 * values.mean():.0f} points: the host has "
                "hardly begun to learn, and nothing follows for one that has"
            )
    return found


def _measures(document: Mapping[str, Any], matrices: Matrices) -> dict[str, dict[str, Any]]:
    found = {}
    labels = document.get("data", {}).get("labels") or {}
    named = {str(value): label for label, value in labels.items()} | {"mean": "mean of labels"}
    for key in _keys(matrices):
        measure = measure_of(key)
        name, _, region = key.partition("/")
        unit = "" if measure.unit == "share" else measure.unit
        says = measure.says
        if measure.unit == "mm" or name == "nsd":
            says = " ".join([says, *_of_distances(document)])
            unit = document.get("data", {}).get("unit", unit) if unit else ""
        found[key] = {
            **{
                "title": TITLES.get(name, name.replace("_", " ")),
                "region": named.get(region, region) or None,
            },
            **{"unit": unit, "better": measure.better, "says": says},
        }
    return found


def _of_distances(document: Mapping[str, Any]) -> Iterator[str]:
    """What has to be known of distances that are not the usual ones, mm in volumes."""
    if any(run.get("distances") == "slices" for run in document["runs"]):
        yield "Within each slice, then the mean over a subject's slices."
    if document.get("data", {}).get("unit") == "px":
        yield "In pixels: nobody has said how large they are (read: spacing)."


TITLES = {"dice": "Dice", "hd95": "HD95", "nsd": "NSD", "froc": "FROC", "map50": "mAP50"}


def _keys(matrices: Matrices) -> list[str]:
    return list(dict.fromkeys(key for _, _, key in matrices))
