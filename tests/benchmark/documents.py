"""Made-up results documents: everything, next to nothing, and what goes wrong in between.

Scores are made up so that they fit together; what follows of them is what ``analysed`` says.
"""

import base64
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cache, wraps
from itertools import product
from typing import Any

import numpy as np

from gansynth_benchmark.analysis import analysed
from gansynth_benchmark.report.overlays import Overlay, worst_cases

DICE = {"title": "Dice", "region": "foreground", "unit": "", "better": "higher"}
HD95 = {"title": "HD95", "region": "1", "unit": "mm", "better": "lower"}
ARMS: dict[str, tuple[str, str | None, float]] = {
    "default": ("usual augmentation", None, 0.0),
    "elastic": ("elastic control", "elastic", 0.014),
    "unedited": ("whole-image cGAN, unedited labels", "cgan", 0.013),
    "interpolated": ("whole-image cGAN, interpolated labels", "cgan", 0.0),
    "synthetic-only": ("synthetic cases alone", "cgan", -0.06),
    "tuned": ("tuned", None, 0.004),
    "double": ("twice the real cases", None, 0.025),
}
"""Key -> title, generator, what it truly adds."""


@dataclass
class Made:
    arms: dict[str, tuple[str, str | None, float]] = field(default_factory=lambda: dict(ARMS))
    measures: dict[str, dict[str, str]] = field(
        default_factory=lambda: {
            "dice/foreground": DICE,
            "dice/2": {**DICE, "region": "2"},
            "hd95/1": HD95,
        }
    )
    sizes: tuple[int, ...] = (6, 12)
    draws: int = 3
    seeds: int = 2
    subjects: int = 16
    noise: float = 0.006
    lost: tuple[tuple[str, int, int, int], ...] = ()
    split: str = "sealed"
    case: str = "hippocampus_{:03d}"

    @property
    def cases(self) -> dict[str, str]:
        """Case -> subject; every third subject has two cases."""
        found: dict[str, str] = {}
        for index in range(self.subjects):
            subject = self.case.format(index + 1)
            names = [f"{subject}_left", f"{subject}_right"] if index % 3 == 0 else [subject]
            found |= dict.fromkeys(names, subject)
        return found


def once(make: Callable[[], dict[str, Any]]) -> Callable[[], dict[str, Any]]:
    text = cache(lambda: json.dumps(make()))
    return wraps(make)(lambda: json.loads(text()))


def made_up(made: Made) -> dict[str, Any]:
    document = {**_heading(made), "runs": list(_runs(made)), "warnings": [], "paper": None}
    document["failures"] = [
        {"title": f"train {r['arm']}, N={r['n']}, draw {r['draw']}, seed {r['seed']}",
         "error": r["error"], "log": f"jobs/{r['key']}/log.txt"}
        for r in document["runs"] if r["status"] == "failed"
    ]  # fmt: skip
    found = analysed(document)
    return document | {
        key: found[key] for key in ("comparisons", "baselines", "means", "worth", "costs")
    }


def _heading(made: Made) -> dict[str, Any]:
    look = {"look": 1, "split": made.split, "plan_hash": "7c1e09d2a4b8", "reason": None,
            "when": "2026-11-21T10:00:00Z", "arms": list(made.arms)}  # fmt: skip
    arms: dict[str, dict[str, Any]] = {
        key: {"title": title, "what": f"made up: {title}", "generator": generator,
              "ratio": "1:1" if generator else "1:0", "real": 2 if key == "double" else 1,
              "tune": ["default", "unedited"] if key == "tuned" else []}
        for key, (title, generator, _) in made.arms.items()
    }  # fmt: skip
    designed = {"sizes": list(made.sizes), "draws": made.draws, "seeds": made.seeds,
                "margin": 0.005}  # fmt: skip
    return {
        **{"format": 1, "name": "madeup", "title": "Made-up numbers, to show the report"},
        **{"plan_hash": "7c1e09d2a4b8", "gansynth": "0.1.0"},
        "plan": {
            **{"name": "madeup", "data": "nnunet:004", **designed},
            "generators": {"cgan": {"generator": "cgan3d"}, "elastic": {"generator": "elastic"}},
            "arms": [{"name": key, **arm} for key, arm in arms.items()],
        },
        "machine": {"cpu": "a processor", "cores": 2, "memory_gib": 8.0, "gpu": None},
        "host": {"target": "nnunet", "title": "nnU-Net 3d_fullres, small plans", "steps": 500},
        "look": {"split": made.split, "number": 1, "log": [look]},
        "data": {
            **{"name": "nnunet:Dataset004_Hippocampus", "pool": 72, "development": 10},
            **{"sealed": 30, "test_cases": len(made.cases)},
            "test_subjects": 10 if made.split == "development" else made.subjects,
        },
        **{"primary": next(iter(made.measures)), "control": next(iter(made.arms))},
        **{"measures": made.measures, "arms": arms, "subjects": made.cases, **designed},
    }


def _runs(made: Made) -> Iterator[dict[str, Any]]:
    rng = np.random.default_rng(0)
    cases, subjects = made.cases, sorted(set(made.cases.values()))
    ease = dict(zip(subjects, rng.normal(0, 0.035, len(subjects)), strict=True))
    benefit = {arm: dict(zip(subjects, rng.normal(0, made.noise, len(subjects)), strict=True))
               for arm in made.arms}  # fmt: skip
    luck = {(n, d): rng.normal(0, 0.012) for n in made.sizes for d in range(made.draws)}
    shift = {(arm, *of): rng.normal(0, made.noise / 2) for arm in made.arms for of in luck}
    places = product(made.arms, made.sizes, range(made.draws), range(made.seeds))
    for index, (arm, n, draw, seed) in enumerate(places):
        level = 0.80 + 0.02 * math.log2(n / made.sizes[0]) + luck[n, draw] + shift[arm, n, draw]
        level += made.arms[arm][2] + rng.normal(0, made.noise / 2)
        dice = {case: level + ease[subject] + benefit[arm][subject] + rng.normal(0, 0.006)
                for case, subject in cases.items()}  # fmt: skip
        run = _run(made, arm, n, draw, seed)
        if run["status"] == "done":
            run["scores"] = {
                name: {case: round(_as(measure, value), 4) for case, value in dice.items()}
                for name, measure in made.measures.items()
            }
        yield run | {"key": f"{index:020x}"}


def _run(made: Made, arm: str, n: int, draw: int, seed: int) -> dict[str, Any]:
    failed, generator = (arm, n, draw, seed) in made.lost, made.arms[arm][1]
    asked = 0.5 if generator else 0.0
    return {
        **{"arm": arm, "n": n, "draw": draw, "seed": seed, "device": "cpu", "scores": {}},
        "status": "failed" if failed else "done",
        "error": "the generator's losses became NaN at step 212" if failed else None,
        "asked": asked,
        "realised": round(asked * (0.96 + 0.01 * draw), 4),
        "fell_back": 7 * draw if generator else 0,
        "seconds": {"train": 80.5 + draw, "fit": 100.25 if generator else 0.0,
                    "tune": 300.0 if arm == "tuned" else 0.0},
        "chosen": ("none" if draw else "unedited") if arm == "tuned" else None,
    }  # fmt: skip


def _as(measure: dict[str, str], dice: float) -> float:
    if measure["better"] == "lower":
        return max(0.0, 1 - dice) * (14 if measure["unit"] else 1)
    return min(1.0, dice)


@once
def full() -> dict[str, Any]:
    """Everything there is, a failed run and a paper's table among it."""
    arms = {key: arm for key, arm in ARMS.items() if key not in ("elastic", "synthetic-only")}
    document = made_up(Made(arms, noise=0.0035, lost=(("interpolated", 12, 1, 0),)))
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


@once
def minimal() -> dict[str, Any]:
    """All trainings failed."""
    arms = {k: ARMS[k] for k in ("default", "unedited")}
    lost = tuple((arm, 6, draw, 0) for arm in arms for draw in range(2))
    return made_up(Made(arms, sizes=(6,), draws=2, seeds=1, lost=lost))


@once
def alone() -> dict[str, Any]:
    """A look at the development split with nothing to compare."""
    return made_up(Made({"default": ARMS["default"]}, split="development"))


@once
def lower_is_better() -> dict[str, Any]:
    """A distance is what the verdict is about; all arms are finished; it is the second look."""
    false = {"title": "false positives", "region": "", "unit": "per slice", "better": "lower"}
    arms = {k: ARMS[k] for k in ("default", "unedited", "elastic")}
    measures = {"hd95/1": HD95, "fp_per_image": false}
    document = made_up(Made(arms, measures=measures, sizes=(6,)))
    (first,) = document["look"]["log"]
    again = {**first, "look": 2, "reason": "a bug in the loader"}
    document["look"] |= {"number": 2, "log": [first, again]}
    return document


HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}|`]("


@once
def hostile() -> dict[str, Any]:
    """Names that are markup, pointers with every character that has a meaning somewhere.

    Harm beside Dice, and a title that takes more than a line.
    """
    made = Made(
        arms={
            "default": ARMS["default"],
            f"a/~{HOSTILE}": (f"{HOSTILE} and a title of more than a line", "cgan", 0.01),
        },
        case=HOSTILE.replace("{{7*7}}", "") + "/~,%{:d}",
        measures={
            "dice/foreground": {**DICE, "title": HOSTILE},
            "lesion_precision/foreground": {**DICE, "title": "precision"},
            "false_alarms/foreground": {**DICE, "title": "alarms", "better": "lower"},
        },
        lost=(("default", 6, 0, 0),),
    )
    document = made_up(made)
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
