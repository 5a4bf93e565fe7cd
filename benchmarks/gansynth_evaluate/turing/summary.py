"""Results as text and tables: what they show, and what they do not."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gansynth.runtime.tables import cell

HEADING = (
    "",
    "Accuracy (%)",
    "95 % interval",
    "p",
    "Real as Real",
    "Real as Synt",
    "Synt as Real",
    "Synt as Synt",
)
CLEAR = 0.05  # largest p of an accuracy that differs from a half
ONE_SIDED = 0.8  # share of equal answers from which a rater counts as biased
COLUMNS = (
    "rater",
    "years",
    "position",
    "image",
    "truth",
    "answer",
    "correct",
    "sequence",
)
Document = Mapping[str, Any]


def rows(results: Document) -> list[tuple[str, ...]]:
    """The paper's table with intervals: a row for each rater and sequence, then pooled."""
    lines: list[tuple[str, ...]] = [HEADING]
    for rater in results["raters"]:
        lines += _rows(rater["name"], rater)
    pooled = results["pooled"]
    if pooled is not None:
        lines += _rows(f"{pooled['raters']} raters", pooled)
    return lines


def _rows(name: str, part: Document) -> Iterator[tuple[str, ...]]:
    yield _row(name, part["table"])
    for entry in part["sequences"]:
        yield _row(f"  {entry['sequence']} (real)", entry["table"], of_both=False)


def _row(name: str, table: Document, *, of_both: bool = True) -> tuple[str, ...]:
    share = table["accuracy"]
    of_real = (str(table["real_as_real"]), str(table["real_as_synthetic"]))
    if not of_both:
        return (name, _percent(share["value"]), "", "", *of_real, "", "")
    of_synthetic = (str(table["synthetic_as_real"]), str(table["synthetic_as_synthetic"]))
    return (name, *_shares(share), *of_real, *of_synthetic)


def _shares(share: Document) -> tuple[str, str, str]:
    if share["value"] is None:
        return "-", "-", "-"
    return _percent(share["value"]), _interval(share), _p(share["p"])


def warnings(results: Document) -> list[str]:
    """Caveats that a reader of the table must know first."""
    about, texts = results["study"]["about"], []
    if about["rejected"]:
        texts.append(
            f"{about['rejected']} samples were rejected and left out (gansynth sample lists why). "
            "Raters saw the others"
        )
    if about["seen_by_run"]:
        texts.append(
            f"{about['seen_by_run']} of the {about['cases']} real cases are training cases of the "
            "run: a generator that copies them would do well (gansynth sample --nearest)"
        )
    if about["shared_with_samples"]:
        texts.append(
            f"{about['shared_with_samples']} real cases also have samples based on them: a "
            "rater may recognise one from the other"
        )
    for rater in results["raters"]:
        table = rater["table"]
        if _leaning(table):
            texts.append(
                f"{rater['name']} said 'real' of {table['said_real']} of {table['answers']} "
                "images: then an accuracy near 50 % says nothing about the images"
            )
    if results["pooled"] is not None:
        texts.append(
            "answers of several raters to one image are not independent: the interval of the "
            "pooled accuracy is Korn and Graubard's, clustered by image, and holds for these raters"
        )
    return texts


def conclusions(results: Document) -> list[str]:
    """Conclusions, in sentences."""
    texts = [
        _concluded(rater["name"], "tells", rater["table"]["accuracy"])
        for rater in results["raters"]
    ]
    pooled = results["pooled"]
    if pooled is not None:
        who = f"The {pooled['raters']} raters"
        texts.append(_concluded(who, "tell", pooled["table"]["accuracy"]))
    if results["agreement"] is not None:
        texts.append(_agreed(results["agreement"]))
    if len(results["raters"]) > 1:
        texts.append("p is not corrected for the number of raters.")
    return texts


def _concluded(who: str, verb: str, share: Document) -> str:
    value, interval = f"{_percent(share['value'])} %", f"95 % interval {_interval(share)} %"
    if share["p"] >= CLEAR:
        return (
            f"{who}: {value} correct ({interval}), not found to differ from chance. An accuracy of "
            f"up to {_percent(share['high'])} % fits these answers: this is no proof that the "
            "images look real."
        )
    if share["value"] > 0.5:
        return (
            f"{who} {verb} real from synthetic better than chance: {value} correct ({interval}, p "
            f"{_p(share['p'])})."
        )
    return (
        f"{who}: {value} correct ({interval}, p {_p(share['p'])}), worse than chance: the kinds "
        "are distinguished, but confused with each other."
    )


def _agreed(agreement: Document) -> str:
    kappa = agreement["fleiss_kappa"]
    value = "not defined (all said the same)" if kappa is None else f"{kappa:.2f}"
    return (
        f"Agreement of {agreement['raters']} raters: Fleiss' kappa {value} (0 is chance, 1 is the "
        "same answer to every image)."
    )


def _leaning(table: Document) -> bool:
    share = table["said_real"] / table["answers"]
    return bool(max(share, 1 - share) >= ONE_SIDED)


def markdown(results: Document) -> str:
    """Table and conclusions, as Markdown."""
    heading, *body = rows(results)
    lines = [_line(heading), _line(["---"] * len(heading)), *map(_line, body), ""]
    lines += [f"- {text}" for text in (*results["words"], *results["warnings"])]
    return "\n".join(lines).replace("<", "&lt;") + "\n"


def _line(cells: Sequence[str]) -> str:
    shown = [cell.replace("|", "\\|").replace("  ", "&ensp;") for cell in cells]
    return f"| {' | '.join(shown)} |"


def csv_of(records: Sequence[Mapping[str, Any]]) -> str:
    """Every single answer, one line each."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in records:
        writer.writerow({k: "" if row[k] is None else _cell(row[k]) for k in COLUMNS})
    return stream.getvalue()


def _cell(value: Any) -> Any:
    return int(value) if isinstance(value, bool) else cell(value)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f}".removesuffix(".0")


def _interval(share: Document) -> str:
    return f"{_percent(share['low'])} to {_percent(share['high'])}"


def _p(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"
