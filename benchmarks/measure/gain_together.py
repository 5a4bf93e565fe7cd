"""Compares the arms of several plans on the same people, draws and host, as if of one plan.

For controls that another target trains (``benchmarks/controls``): its trainings without settings
are the segmenter's to the bit. What the plans say of data, host, subsets and people must be equal;
runs that they share must have equal scores. Holm's correction is over all arms of all plans.

    python benchmarks/measure/gain_together.py FIRST.json MORE.json... [--against ARM] -o OUT.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from common import print_table

from gansynth_benchmark.analysis import analysed

SAME = ("primary", "sizes", "seeds", "subjects", "margin")
SHOWN = ("dice@alarms", "dice", "lesion_sensitivity", "lesion_precision", "false_alarms")
Document = dict[str, Any]


def joined(first: Document, other: Document) -> Document:
    """Return the first document with the arms and runs of another one."""
    for key in SAME:
        if first[key] != other[key]:
            raise SystemExit(f"{other['name']}: its {key} is not that of {first['name']}")
    for key in ("steps", "set"):
        if first["plan"]["host"][key] != other["plan"]["host"][key]:
            raise SystemExit(f"{other['name']}: host.{key} is not that of {first['name']}")
    if first["plan"]["split"] != other["plan"]["split"]:
        raise SystemExit(f"{other['name']}: its split is not that of {first['name']}")
    scores = {_place(run): run["scores"] for run in first["runs"] if run["status"] == "done"}
    runs = list(first["runs"])
    for run in other["runs"]:
        if _place(run) not in scores:
            runs.append(run)
        elif run["status"] == "done" and run["scores"] != scores[_place(run)]:
            raise SystemExit(f"{other['name']}: {_place(run)} has other scores than the first")
    arms = list(first["plan"]["arms"])
    arms += [arm for arm in other["plan"]["arms"] if arm["name"] not in first["arms"]]
    told = {"arms": {**other["arms"], **first["arms"]}, "plan": {**first["plan"], "arms": arms}}
    return {**first, **told, "runs": runs}


def _place(run: Document) -> tuple[Any, ...]:
    return run["arm"], run["n"], run["draw"], run["seed"]


def whole_draws(document: Document) -> Document:
    """Return a document with the draws alone in which every arm has ended."""
    done: dict[str, set[int]] = {}
    for run in document["runs"]:
        if run["status"] == "done":
            done.setdefault(run["arm"], set()).add(run["draw"])
    whole = set.intersection(*done.values())
    kept = [run for run in document["runs"] if run["draw"] in whole and run["arm"] in done]
    arms = {name: arm for name, arm in document["arms"].items() if name in done}
    return {**document, "runs": kept, "arms": arms, "draws": len(whole)}


def main() -> None:
    """Print and write the comparisons."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, nargs="+", help="written by gansynth benchmark")
    parser.add_argument("--against", help="arm that the others are compared with")
    parser.add_argument("-o", "--out", type=Path, required=True)
    args = parser.parse_args()
    documents = [json.loads(path.read_text()) for path in args.results]
    document = documents[0]
    for other in documents[1:]:
        document = joined(document, other)
    document = whole_draws(document)
    if args.against:
        document["control"] = args.against
    found = analysed(document)
    rows: dict[str, dict[str, str]] = {name: dict.fromkeys(SHOWN, "") for name in document["arms"]}
    del rows[document["control"]]
    for row in found["comparisons"]:
        measure = row["measure"].removesuffix("/foreground")
        if measure in SHOWN:
            low, high = row["interval"]["low"], row["interval"]["high"]
            text = f"{100 * row['difference']:+.1f} ({100 * low:+.1f} to {100 * high:+.1f})"
            if measure.startswith("dice"):
                text += f", p {row['p_holm']:.3f}"
            rows[row["arm"]][measure] = text
    title = f"against {document['control']}, {document['draws']} draws"
    print_table([(title, *SHOWN)] + [(arm, *row.values()) for arm, row in rows.items()])
    kept = {key: document[key] for key in ("name", "control", "draws", *SAME, "arms")}
    told = {
        "command": "gain_together.py " + " ".join(path.name for path in args.results),
        "plans": [one["plan_hash"] for one in documents],
        "machine": document["machine"],
        **kept,
        "comparisons": found["comparisons"],
        "means": found["means"],
    }
    args.out.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
