"""Results documents for the report: published ones, and what goes wrong in between."""

import base64
import json
from typing import Any

from gansynth_benchmark.analysis import analysed
from gansynth_benchmark.report.overlays import Overlay, worst_cases
from tests.house import ROOT

DICE = {"title": "Dice", "region": "foreground", "unit": "", "better": "higher"}
HD95 = {"title": "HD95", "region": "1", "unit": "mm", "better": "lower"}


def published(name: str) -> dict[str, Any]:
    text = (ROOT / "benchmarks" / "gains" / f"{name}.json").read_text("utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def hippocampus() -> dict[str, Any]:
    """Three measures of a sealed look at five arms, one of them chosen by inner folds."""
    document = published("hippocampus/results")
    few = ("dice/mean", "dice/2", "hd95/1")
    document["measures"] = {name: document["measures"][name] for name in few}
    return document


def lose(document: dict[str, Any], *runs: dict[str, Any]) -> None:
    """Let some runs fail."""
    for run in runs:
        run.update(status="failed", scores={}, error="the losses became NaN at step 212")
        title = f"train {run['arm']}, N={run['n']}, draw {run['draw']}, seed {run['seed']}"
        log = f"jobs/{run['key']}/log.txt"
        document["failures"].append({"title": title, "error": run["error"], "log": log})


def full() -> dict[str, Any]:
    """Everything there is, a failed run and a paper's table among it; it is the second look."""
    document = hippocampus()
    lose(document, document["runs"][1])
    against = {"arm": "unedited", "baseline": "elastic", "measure": "dice/mean"}
    document["baselines"] = [document["comparisons"][0] | against]
    document["paper"] = {
        "title": "Made-up et al., table I",
        "columns": ["WT", "TC", "ET"],
        "rows": [
            {"name": "real alone", "paper": [0.83, 0.74, 0.71], "ours": [0.801, 0.722, None]},
            {"name": "real and synthetic", "paper": [0.85, 0.77, 0.72], "ours": [0.8, 0.725, 0.7]},
        ],
    }
    document["warnings"] = ["two test subjects have a spacing that no training subject has"]
    return document


def minimal() -> dict[str, Any]:
    """All trainings failed."""
    document = published("phantoms/results")
    lose(document, *document["runs"])
    return document | analysed(document)


def alone() -> dict[str, Any]:
    """A look at the development split with nothing to compare."""
    return published("lgg_places/after")


def lower_is_better() -> dict[str, Any]:
    """A distance is what the verdict is about; all arms are finished; it is the first look."""
    document = hippocampus() | {"primary": "hd95/1"}
    document["look"] |= {"number": 1, "log": document["look"]["log"][:1]}
    return document


HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}|`]("


def hostile() -> dict[str, Any]:
    """Names that are markup, pointers with every character that has a meaning somewhere.

    Harm beside Dice, and a title that takes more than a line.
    """
    case = HOSTILE.replace("{{7*7}}", "") + "/~,%"
    text = json.dumps(published("phe_match/sealed")).replace('"P0', json.dumps(case)[:-1])
    document: dict[str, Any] = json.loads(text.replace('"match"', json.dumps(f"a/~{HOSTILE}")))
    lose(document, document["runs"][0])
    document["arms"][f"a/~{HOSTILE}"]["title"] = f"{HOSTILE} and a title of more than a line"
    document["measures"]["dice/foreground"]["title"] = HOSTILE
    for key in ("name", "title", "gansynth"):
        document[key] = HOSTILE
    document["host"]["title"] = HOSTILE
    document["warnings"] = [HOSTILE]
    document["plan"]["note"] = HOSTILE
    document["failures"] = [{"title": HOSTILE, "error": HOSTILE, "log": "javascript:alert(1)"}]
    return document


PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNgAAAAAgABSK+kcQAAAABJRU5ErkJggg=="
)


def overlays(document: dict[str, Any]) -> list[Overlay]:
    return [Overlay(worst, PIXEL) for worst in worst_cases(document)]


EVERY = {made.__name__: made for made in (full, minimal, alone, hostile, lower_is_better)}
