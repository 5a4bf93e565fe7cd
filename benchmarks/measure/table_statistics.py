"""What ``bench_statistics.py`` found, as rows of tables."""

from __future__ import annotations

from typing import Any

Row = tuple[str, ...]


def design(doc: dict[str, Any]) -> str:
    """Draws x seeds x subjects."""
    return " x ".join(str(doc["design"][key]) for key in ("draws", "seeds", "subjects"))


def percent(value: float) -> str:
    """A share as percent."""
    return f"{100 * value:.1f}"


def compared(doc: dict[str, Any]) -> list[Row]:
    """How often ``compare`` errs."""
    head, rows = ("design", "variances", "p < 0.05", "coverage", *HEAD), []
    for one in doc["compare"]:
        shares = (percent(one[key]) for key in ("false_positives", "coverage"))
        rows.append((design(one), one["scenario"], *shares, *_more_of(one)))
    return [head, *rows]


def families(doc: dict[str, Any]) -> list[Row]:
    """How often a true null is rejected in a family."""
    head = ("design", "variances", "true effects", "compare, Holm", "Wilcoxon, Holm")
    rows = [
        (
            design(one),
            one["scenario"],
            f"{one['true_effects']} of {one['arms']}",
            percent(one["compare"]),
            percent(one["wilcoxon"]),
        )
        for one in doc["holm"]
    ]
    return [head, *rows]


def estimated(doc: dict[str, Any]) -> list[Row]:
    """Estimated variance components over true ones."""
    names = list(doc["variance"][0]["ratio"])
    rows = [
        (
            design(one),
            str(one["runs"]),
            *(f"{one['ratio'][name]:.2f} ± {2 * one['error'][name]:.2f}" for name in names),
        )
        for one in doc["variance"]
    ]
    return [("design", "runs", *names), *rows]


def worths(doc: dict[str, Any]) -> list[Row]:
    """How often the interval of extra real cases holds the truth."""
    head = ("curve", "sizes", "n", "true", "design", "coverage", "median", "both limits")
    rows = [
        (
            one["curve"],
            ", ".join(map(str, one["sizes"])),
            str(one["n"]),
            str(one["true"]),
            design(one),
            percent(one["coverage"]),
            "-" if one["median"] is None else f"{one['median']:.1f}",
            percent(one["both_limits"]),
        )
        for one in doc["worth"]
    ]
    return [head, *rows]


def parts(doc: dict[str, Any]) -> list[list[Row]]:
    """All tables, each with its head."""
    return [compared(doc), families(doc), estimated(doc), worths(doc)]


def statistics(doc: dict[str, Any]) -> list[str]:
    """Rows of the table of results: the range over scenarios, of each design."""
    rows = []
    for name in dict.fromkeys(map(design, doc["compare"])):
        own = [one for one in doc["compare"] if design(one) == name]
        for key, what, bar in (
            ("false_positives", "false positives at 5 %", "5"),
            ("coverage", "coverage of the 95 % interval", "95"),
            ("power", "power at the minimum detectable effect", "80"),
            ("wilcoxon", "Wilcoxon's false positives", ""),
        ):
            found = [one[key] for one in own]
            rows.append(
                f"| statistics, {name}, {len(own)} scenarios, %: {what}, least to most "
                f"| {percent(min(found))} to {percent(max(found))} | {bar} |"
            )
    wrong = [one["compare"] for one in doc["holm"]]
    held = [one["coverage"] for one in doc["worth"]]
    return [
        *rows,
        f"| statistics, families of {doc['holm'][0]['arms']} arms after Holm, %: any false "
        f"positive, least to most | {percent(min(wrong))} to {percent(max(wrong))} | 5 |",
        f"| statistics, worth in real cases, %: coverage, least to most "
        f"| {percent(min(held))} to {percent(max(held))} | 95 |",
    ]


# -- benchmarks/measure/results/statistics.md -----------------------------------------------------

SHOWN = ("3 x 2 x 20", "5 x 2 x 20")
"""Designs of which the page has more than false positives."""


def page(doc: dict[str, Any]) -> dict[str, str]:
    """Tables of the page, by name."""
    return {
        "false positives": markdown(_false_positives(doc)),
        **{name: markdown(_more(doc, name)) for name in SHOWN},
        "holm": markdown(families(doc)),
        "variance": markdown(estimated(doc)),
        "worth": markdown(worths(doc)),
    }


def _false_positives(doc: dict[str, Any]) -> list[Row]:
    """Scenarios by designs."""
    found = {(one["scenario"], design(one)): one for one in doc["compare"]}
    designs = list(dict.fromkeys(name for _, name in found))
    scenarios = list(dict.fromkeys(name for name, _ in found))
    rows = [
        (
            scenario,
            *(
                percent(found[scenario, name]["false_positives"])
                if (scenario, name) in found
                else ""
                for name in designs
            ),
        )
        for scenario in scenarios
    ]
    return [("standard deviations", *designs), *rows]


def _more(doc: dict[str, Any], name: str) -> list[Row]:
    rows = [(one["scenario"], *_more_of(one)) for one in doc["compare"] if design(one) == name]
    return [("standard deviations", *HEAD), *rows]


HEAD = (
    "equivalent at −m, +m",
    "power at MDE",
    "printed MDE",
    "t over subjects",
    "Wilcoxon",
    "percentile bootstrap covers",
)


def _more_of(one: dict[str, Any]) -> Row:
    return (
        f"{percent(one['equivalent_below'])}, {percent(one['equivalent_above'])}",
        percent(one["power"]),
        f"{one['printed_rms']:.2f}, {one['printed_median']:.2f}",
        percent(one["t_over_subjects"]),
        percent(one["wilcoxon"]),
        percent(one["percentile"]),
    )


def markdown(rows: list[Row]) -> str:
    """A table of a page."""
    head, *rest = rows
    lines = [head, tuple("---" for _ in head), *rest]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
