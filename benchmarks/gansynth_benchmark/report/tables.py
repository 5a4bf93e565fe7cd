"""The rows of a report's tables, and sentences of counts."""

from __future__ import annotations

import csv
import io
from statistics import mean
from typing import Any

from gansynth.metrics.segmentation.measures import (
    BY_SIZE,
    DICE_AT_ALARMS,
    NO_CASE,
    SIZES,
    of_size,
)
from gansynth.metrics.statistics import NOWHERE
from gansynth.report.numbers import (
    NOTHING,
    NumberFormat,
    interval,
    joined,
    known,
    number,
    probability,
    time_unit,
    with_interval,
)
from gansynth.runtime.tables import cell
from gansynth_benchmark.report.figures import PARTS, Rows, shares
from gansynth_benchmark.report.overlays import WorstCase, worst_cases
from gansynth_benchmark.report.study import (
    ComparisonOutcome,
    Entry,
    ReportData,
    ends_of,
    finding_of,
)
from gansynth_benchmark.report.verdict import why_not

Table = list[dict[str, object]]


def finished(study: ReportData) -> str:
    """Return how many trainings are finished."""
    total = len(study.runs)
    done = [run["status"] for run in study.runs].count("done")
    if done == total:
        return f"{total} trainings, all finished"
    return f"{done or 'none'} of {total} trainings finished"


def warnings(study: ReportData) -> list[str]:
    """Return warnings that precede all numbers."""
    sealed = [entry for entry in study.document["look"]["log"] if entry["split"] == "sealed"]
    found = []
    if study.development:
        found.append(
            "This is a look at the development split. Settings may have been chosen on these "
            "subjects: nothing here is a test result."
        )
    elif len(sealed) > 1:
        found.append(
            f"The sealed split was looked at more than once: this is look {sealed[-1]['look']}. "
            "With every look the numbers mean less; the log is below."
        )
    missing = len(missing_runs(study))
    if missing:
        word = "training has" if missing == 1 else "trainings have"
        found.append(f"{missing} {word} no result; comparisons go without. See failures, below.")
    return [*found, *study.document["warnings"]]


# -- comparisons -----------------------------------------------------------------------------------


def compared_measures(study: ReportData) -> list[str]:
    """Return the measures with a known difference to the control, the primary one first."""
    compared = []
    for name in study.measures:
        entries = study.entries("comparisons", study.others, name)
        if any(entry.get("difference") is not None for *_, entry in entries):
            compared.append(name)
    return compared


def differences(study: ReportData, measure: str) -> Table:
    """Return the differences of each arm to the control, and their findings."""
    rows = Table()
    for arm, n, entry in study.entries("comparisons", study.others, measure):
        row: dict[str, object] = {"arm": arm.title, "N": n}
        first = study.measures.get(DICE_AT_ALARMS)
        if first is not None and measure == study.primary != DICE_AT_ALARMS:
            row[_heading(first)] = _difference(study, DICE_AT_ALARMS, arm.key, n)
        row.update(_compared(study, entry, study.measures[measure]))
        rows.append(row)
    return rows


def against_baselines(study: ReportData) -> Table:
    """Return what arms with a GAN add to the arms without one."""
    rows = Table()
    for entry in study.document.get("baselines", ()):
        row: dict[str, object] = {"arm": study.title(entry["arm"]), "N": entry["n"]}
        row["against"] = study.title(entry["baseline"])
        row.update(_compared(study, entry, study.show, corrected=False))
        rows.append(row)
    return rows


def _compared(
    study: ReportData, entry: Entry, show: NumberFormat, *, corrected: bool = True
) -> dict[str, object]:
    finding = finding_of(entry, show)
    words = f"{finding.sign} {finding.words}"
    if corrected and finding is ComparisonOutcome.UNCLEAR and why_not(study, entry):
        words += " after Holm"
    shown = finding in (ComparisonOutcome.GAIN, ComparisonOutcome.LOSS)
    if corrected and shown and entry.get("equivalent"):
        words += ", within the margin"
    return {
        "difference": show.difference(entry.get("difference")),
        "95 % CI": interval(*map(show.difference, ends_of(entry))),
        "p (Holm)": probability(entry.get("p_holm")),
        "claim false": false_claim(entry),
        "MDE": study.detectable(entry),
        "finding": words,
    }


def false_claim(entry: Entry) -> str:
    """Return the probability that a claim is false, and in brackets by the test cases alone."""
    of = [probability(entry.get(key)) for key in ("false_claim", "false_claim_of_cases")]
    return NOTHING if NOTHING in of else f"{of[0]} ({of[1]})"


def reach(study: ReportData) -> str:
    """Return what the intervals of the primary measure speak for; empty where there are none."""
    entries = study.entries("comparisons", study.others, study.primary)
    texts = [entry.get("generalises") for *_, entry in entries]
    return "; ".join(dict.fromkeys([text for text in texts if text not in (None, "", NOWHERE)]))


def alarms(study: ReportData) -> Table:
    """Return differences of lesions and false alarms; none if the plan measures neither."""
    shows, rows = study.beside(), Table()
    shows = {key: show for key, show in shows.items() if key not in (study.primary, DICE_AT_ALARMS)}
    for arm, n in study.places(study.others):
        row: dict[str, object] = {"arm": arm.title, "N": n}
        for key, show in shows.items():
            row[_heading(show)] = _difference(study, key, arm.key, n)
        rows.append(row)
    return rows if shows else []


def by_size(study: ReportData) -> Table:
    """Return differences by the size of lesions; none if nothing was measured by size."""
    rows = Table()
    for arm, n in study.places(study.others):
        for size in SIZES:
            entries = {
                name: study.entry("comparisons", arm.key, n, of_size(name, size))
                for name in BY_SIZE
            }
            if not any(entry.get("subjects") for entry in entries.values()):
                continue
            row: dict[str, object] = {"arm": arm.title, "N": n, "voxels of a lesion": size}
            for name, entry in entries.items():
                title = name.removeprefix("lesion_")
                if not entry:  # this one is not defined at this size
                    row[f"{title} of the control"] = row[f"change in {title}"] = NOTHING
                    continue
                show = NumberFormat.of(study.document["measures"][entry["measure"]], name)
                row[f"{title} of the control"] = show.value(entry["mean_control"])
                row[f"change in {title}"] = _changed(show, entry)
            row["subjects"] = max([entry.get("subjects", 0) for entry in entries.values()])
            rows.append(row)
    return rows


def _difference(study: ReportData, key: str, arm: str, n: int) -> str:
    entry = study.entry("comparisons", arm, n, key)
    if key.startswith("false_alarms") and entry.get("difference") is None:
        return NO_CASE
    return _changed(study.measures[key], entry)


def _changed(show: NumberFormat, entry: Entry) -> str:
    return with_interval(*map(show.difference, (entry.get("difference"), *ends_of(entry))))


def _heading(show: NumberFormat) -> str:
    return f"{show.title}, {show.unit}, {'↑' if show.up else '↓'}"


def every_number(study: ReportData, measure: str) -> Table:
    """Return every number of every comparison on a measure."""
    show, rows = study.measures[measure], Table()
    for arm, n, entry in study.entries("comparisons", study.arms, measure):
        if not entry:
            continue
        low, high = map(show.difference, ends_of(entry))
        row: dict[str, object] = {"arm": arm.title, "N": n}
        row |= {
            "mean": show.value(entry["mean_arm"]),
            "control": show.value(entry["mean_control"]),
            "difference": show.difference(entry["difference"]),
            "95 % CI": f"{low} to {high}",
        }
        p_values = {"p": "p", "p, Holm": "p_holm", "Wilcoxon p": "wilcoxon_p",
                    "Wilcoxon p, Holm": "wilcoxon_p_holm"}  # fmt: skip
        row |= {name: probability(entry[key]) for name, key in p_values.items()}
        row |= {
            "MDE": study.detectable(entry),
            "margin": show.size(entry["margin"]),
            "p, equivalence": probability(entry["equivalence_p"]),
            "claim false (of cases)": false_claim(entry),
            "standard error": show.size(entry["standard_error"]),
            "degrees of freedom": number(entry["df"], 1),
        }
        row |= {
            key: number(entry[key]) for key in ("runs", "draws", "seeds", "subjects", "dropped")
        }
        row["holds for other"] = entry["generalises"]
        rows.append(row)
    return rows


def worth(study: ReportData) -> Table:
    """Return the equivalent number of extra real cases of each arm."""
    entries = [entry for entry in study.entries("worth", study.others) if entry[-1]]
    if all(entry["cases"] is None for *_, entry in entries):
        return [
            {"arm": arm.title, "N": n,
             "why it could not be worked out": entry.get("reason") or NOTHING}
            for arm, n, entry in entries
        ]  # fmt: skip
    rows = Table()
    for arm, n, entry in entries:
        cases, low, high = [number(entry[key], 1, sign=True) for key in ("cases", "low", "high")]
        ends = interval(low, high) if entry["cases"] is None else f"{low} to {high}"
        row = {"arm": arm.title, "N": n}
        row |= {"cases": cases, "95 % CI": ends, "note": entry.get("reason")}
        rows.append(row)
    return rows


def gaps(study: ReportData) -> Table:
    """Return the share of the gap to the target site that each arm closes."""
    rows = Table()
    for arm, n, entry in study.entries("gaps", study.others):
        if entry:
            share, low, high = [
                number(entry[key], 2, sign=True) for key in ("share", "low", "high")
            ]
            row: dict[str, object] = {"arm": arm.title, "N": n, "share": share}
            row["95 % CI"] = NOTHING if entry["share"] is None else f"{low} to {high}"
            row |= {"the gap": study.show.difference(entry["gap"]), "note": entry["reason"]}
            rows.append(row)
    return rows


# -- subjects, measures, costs ---------------------------------------------------------------------


def subjects(study: ReportData) -> Table:
    """Return each test subject's mean over all finished runs of each arm at a size."""
    rows = Table()
    for n in study.sizes:
        runs = {arm.key: study.done(arm.key, n) for arm in study.arms}
        for subject, means in study.subject_means(runs).items():
            row: dict[str, object] = {"subject": subject, "N": n}
            for arm in study.arms:
                row[arm.title] = study.show.value(means.get(arm.key))
            rows.append(row)
    return rows


def per_case(study: ReportData, n: int) -> bytes:
    """Return what dkfz's Claims Reloaded reads (claims-reloaded.dkfz.de): a CSV of a size.

    Each test subject's mean of the primary measure over all finished runs, a column an arm; empty
    if the measure is no share, or no subject has a score in every run.
    """
    runs = {arm.key: study.done(arm.key, n) for arm in study.arms}
    rows = study.subject_means(runs) if study.show.unit == "points" else {}
    arms = [arm for arm, done in runs.items() if done]
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["case_id", *[f"alg_{arm}" for arm in arms]])
    for subject, of in rows.items():
        table.writerow([cell(subject), *[round(of[arm], 6) for arm in arms]])
    return text.getvalue().encode() if rows else b""


def spread_rows(study: ReportData) -> Rows:
    """Return the comparisons of the primary measure whose variance is split."""
    entries = study.entries("comparisons", study.others, study.primary)
    return [entry for entry in entries if shares(entry[-1])]


def spread(study: ReportData) -> Table:
    """Return the shares of the variance of each comparison, in per cent."""
    rows = Table()
    for arm, n, entry in spread_rows(study):
        parts = shares(entry)
        variance = entry["variance"]
        row: dict[str, object] = {"arm": arm.title, "N": n}
        for part, (name, _) in PARTS.items():
            row[name] = NOTHING if variance.get(part) is None else number(100 * parts[part])
        rows.append(row)
    return rows


def means(study: ReportData) -> Table:
    """Return the means of every measure."""
    rows = Table()
    for arm, n in study.places(study.arms):
        entries = {name: study.entry("means", arm.key, n, name) for name in study.measures}
        done = [entry for entry in entries.values() if entry]
        if not done:
            continue
        row: dict[str, object] = {"arm": arm.title, "N": n}
        for name, show in study.measures.items():
            mean_, low, high = [
                show.value(entries[name].get(key)) for key in ("mean", "low", "high")
            ]
            row[_heading(show)] = with_interval(mean_, low, high)
        row["runs"] = done[0]["runs"]
        rows.append(row)
    return rows


def measures_explained(study: ReportData) -> dict[str, str]:
    """Return the titles of measures that say what they are -> what they say."""
    measures = [study.document["measures"].get(name, {}) for name in study.measures]
    return {m["says"]: m["title"] for m in measures if m.get("says")}


def ratios(study: ReportData) -> Table:
    """Return requested and realised shares of synthetic samples, over finished runs."""
    rows = Table()
    for arm, n in study.places(study.arms):
        runs = study.done(arm.key, n)
        asked = known([run.get("asked") for run in runs])
        drawn = known([run.get("realised") for run in runs])
        if not any([*asked, *drawn]):
            continue
        figures = {"asked": mean(asked) if asked else None, "drawn": mean(drawn) if drawn else None,
                   "least": min(drawn, default=None), "most": max(drawn, default=None)}  # fmt: skip
        row: dict[str, object] = {"arm": arm.title, "N": n}
        for name, value in figures.items():
            row[f"{name}, %"] = number(value, 1, scale=100)
        missing = known([run.get("fell_back") for run in runs])
        row["samples missing"] = number(sum(missing))
        rows.append(row)
    return rows


def chosen(study: ReportData) -> Table:
    """Return the arms that inner folds chose for each training subset, for tuned arms."""
    rows: dict[tuple[str, int, int], dict[str, object]] = {}
    for arm, n in study.places(study.arms):
        for run in study.runs:
            if (run["arm"], run["n"]) == (arm.key, n) and run.get("chosen"):
                row = {"arm": arm.title, "N": n, "draw": run["draw"], "chosen": run["chosen"]}
                rows.setdefault((arm.key, n, run["draw"]), row)
    return list(rows.values())


def costs(study: ReportData) -> Table:
    """Return the time of one training of each arm."""
    entries = [entry for entry in study.entries("costs", study.arms) if entry[-1]]
    titles = {"train_s": "training the host", "fit_s": "fitting the generator",
              "tune_s": "tuning", "added_s": "added"}  # fmt: skip
    unit, length = time_unit([entry[key] for *_, entry in entries for key in titles])
    return [
        {"arm": arm.title, "N": n}
        | {f"{title}, {unit}": number(entry[k], 1, scale=1 / length) for k, title in titles.items()}
        for arm, n, entry in entries
    ]


def device_hours(study: ReportData) -> str:
    """Return the time of use of each kind of device."""
    devices: dict[str, list[float]] = {}
    for run in study.runs:
        spent = known([run["seconds"].get(part) for part in ("train", "fit", "tune")])
        devices.setdefault(run.get("device") or "unknown device", []).extend(spent)
    sums = []
    for device, seconds in devices.items():
        unit, length = time_unit([sum(seconds)])
        total = number(sum(seconds) if seconds else None, 1, scale=1 / length)
        sums.append(f"{total} {unit} of {device}")
    return joined(sums)


# -- records ---------------------------------------------------------------------------------------


def worst(study: ReportData) -> Table:
    """Return the cases with the greatest losses."""
    return [_worst(study, case) for case in worst_cases(study.document)]


def _worst(study: ReportData, case: WorstCase) -> dict[str, object]:
    score, unit = study.show.value(case.score), study.show.unit
    ends = (score, NOTHING)
    if case.reference is not None:
        ends = (study.show.value(case.reference), score)
    place = {"case": case.case, "arm": study.title(case.run["arm"]), "N": case.run["n"]}
    place |= {key: case.run[key] for key in ("draw", "seed")}
    return place | {f"control, {unit}": ends[0], f"arm, {unit}": ends[1]}


def paper(node: Entry) -> Table:
    """Return a paper's table, each of its numbers beside ours."""
    rows = Table()
    for row in node["rows"]:
        cells: dict[str, object] = {"": row["name"]}
        for name, *pair in zip(node["columns"], row["paper"], row["ours"], strict=True):
            for source, value in zip(("paper", "ours"), pair, strict=True):
                cells[f"{name}, {source}"] = number(value, 3)
        rows.append(cells)
    return rows


def looks(study: ReportData) -> Table:
    """Return the log of accesses to the test data."""
    return [
        {"look": entry["look"], "split": entry["split"], "when": entry["when"],
         "plan": entry["plan_hash"], "arms": ", ".join(entry["arms"]),
         "reason": entry.get("reason") or NOTHING}
        for entry in study.document["look"]["log"]
    ]  # fmt: skip


def failures(study: ReportData) -> Table:
    """Return failed jobs."""
    keys = {"job": "title", "error": "error", "log": "log"}
    return [
        {name: failure.get(key) or NOTHING for name, key in keys.items()}
        for failure in study.document.get("failures", ())
    ]


def missing_runs(study: ReportData) -> Table:
    """Return trainings without a result."""
    rows = Table()
    for run in study.runs:
        if run["status"] != "done":
            row = {"arm": study.title(run["arm"]), "N": run["n"], "draw": run["draw"]}
            row["seed"] = run["seed"]
            for key in ("status", "error"):
                row[key] = run.get(key) or NOTHING
            rows.append(row)
    return rows


def caption_of(study: ReportData, case: WorstCase) -> str:
    """Return what stands below the picture of a case."""
    run, show = case.run, study.show
    place = f"{study.title(run['arm'])}, N = {run['n']}, draw {run['draw']}, seed {run['seed']}"
    control = "" if case.reference is None else f" (control {show.value(case.reference)})"
    return f"{case.case}, {place}: {show.title} {show.value(case.score)} {show.unit}{control}"


def as_yaml(value: Any) -> str:
    """Return a part of the document as YAML."""
    import yaml

    return str(yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=96))
