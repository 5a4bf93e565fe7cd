"""Making results up so that they fit together: scores first, all the rest out of them."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Any

import numpy as np

NORMAL = NormalDist()
DICE = {"title": "Dice", "region": "foreground", "unit": "", "better": "higher"}
HD95 = {"title": "HD95", "region": "1", "unit": "mm", "better": "lower"}
NSD = {"title": "NSD", "region": "2", "unit": "", "better": "higher"}
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
PLUGINS = {"cgan": "cgan3d", "elastic": "elastic", "paste": "copypaste"}


@dataclass
class Made:
    """What a made-up document is made of."""

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
    margin: float = 0.005
    noise: float = 0.006
    lost: tuple[tuple[str, int, int, int], ...] = (("interpolated", 12, 1, 0),)
    split: str = "sealed"
    case: str = "hippocampus_{:03d}"
    random: int = 0

    @property
    def primary(self) -> str:
        return next(iter(self.measures))

    @property
    def cases(self) -> dict[str, str]:
        """Case -> subject; every third subject has two cases."""
        found: dict[str, str] = {}
        for index in range(self.subjects):
            subject = self.case.format(index + 1)
            names = [f"{subject}_left", f"{subject}_right"] if index % 3 == 0 else [subject]
            found |= dict.fromkeys(names, subject)
        return found


def made_up(made: Made) -> dict[str, Any]:
    """A whole document."""
    runs = _runs(made)
    done = [run for run in runs if run["status"] == "done"]
    means = [_mean(made, done, *place) for place in _places(made, list(made.arms))]
    means = [entry for entry in means if entry]
    others = list(made.arms)[1:]
    pairs = [_comparison(made, done, *place) for place in _places(made, others)]
    comparisons = _holm([entry for entry in pairs if entry])
    return {
        **_heading(made),
        "runs": runs,
        "comparisons": comparisons,
        "means": means,
        "worth": _worth(made, means, others),
        "costs": _costs(made, done),
        "failures": [
            {
                "title": f"train {r['arm']}, N={r['n']}, draw {r['draw']}, seed {r['seed']}",
                "error": r["error"],
                "log": f"jobs/{r['key']}/log.txt",
            }
            for r in runs
            if r["status"] == "failed"
        ],
        "warnings": [],
        "paper": None,
    }


def _heading(made: Made) -> dict[str, Any]:
    development = made.split == "development"
    look = {"look": 1, "split": made.split, "plan_hash": "7c1e09d2a4b8", "reason": None,
            "when": "2026-11-21T10:00:00Z", "arms": list(made.arms)}  # fmt: skip
    return {
        "format": 1,
        "name": "madeup",
        "title": "Made-up numbers, to show the report",
        "plan_hash": "7c1e09d2a4b8",
        "gansynth": "0.1.0",
        "plan": _plan(made),
        "machine": {"cpu": "a processor", "cores": 2, "memory_gib": 8.0, "gpu": None},
        "host": {"target": "nnunet", "title": "nnU-Net 3d_fullres, small plans", "steps": 500},
        "look": {"split": made.split, "number": 1, "log": [look]},
        "data": {
            "name": "nnunet:Dataset004_Hippocampus",
            "pool": 72,
            "development": 10,
            "sealed": 30,
            "test_subjects": 10 if development else made.subjects,
            "test_cases": len(made.cases),
        },
        "primary": made.primary,
        "control": next(iter(made.arms)),
        "margin": made.margin,
        "measures": made.measures,
        "sizes": list(made.sizes),
        "draws": made.draws,
        "seeds": made.seeds,
        "arms": {
            key: {"title": title, "what": f"made up: {title}", "generator": generator,
                  "ratio": "1:1" if generator else "1:0"}
            for key, (title, generator, _) in made.arms.items()
        },
        "subjects": made.cases,
    }  # fmt: skip


def _plan(made: Made) -> dict[str, Any]:
    generators = {g: {"plugin": PLUGINS[g]} for _, g, _ in made.arms.values() if g}
    plan_arms = [
        {"name": key, "generator": generator, "ratio": "1:1" if generator else "1:0",
         "real": 2 if key == "double" else 1,
         "tune": ["default", "unedited"] if key == "tuned" else []}
        for key, (_, generator, _) in made.arms.items()
    ]  # fmt: skip
    return {
        "name": "madeup",
        "data": "nnunet:004",
        "generators": generators,
        "arms": plan_arms,
        "sizes": list(made.sizes),
        "draws": made.draws,
        "seeds": made.seeds,
        "margin": made.margin,
    }


def _places(made: Made, arms: list[str]) -> list[tuple[str, int, str]]:
    return [(arm, n, measure) for measure in made.measures for arm in arms for n in made.sizes]


def _runs(made: Made) -> list[dict[str, Any]]:
    rng = np.random.default_rng(made.random)
    cases, subjects = made.cases, sorted(set(made.cases.values()))
    ease = dict(zip(subjects, rng.normal(0, 0.035, len(subjects)), strict=True))
    benefit = {arm: dict(zip(subjects, rng.normal(0, made.noise, len(subjects)), strict=True))
               for arm in made.arms}  # fmt: skip
    luck = {(n, d): rng.normal(0, 0.012) for n in made.sizes for d in range(made.draws)}
    runs: list[dict[str, Any]] = []
    for arm, (_, generator, effect) in made.arms.items():
        for n in made.sizes:
            for draw in range(made.draws):
                shift = rng.normal(0, made.noise / 2)
                for seed in range(made.seeds):
                    level = 0.80 + 0.02 * math.log2(n / made.sizes[0]) + luck[n, draw] + shift
                    level += effect + rng.normal(0, made.noise / 2)
                    dice = {c: level + ease[s] + benefit[arm][s] + rng.normal(0, 0.006)
                            for c, s in cases.items()}  # fmt: skip
                    place = (arm, n, draw, seed)
                    runs.append(_run(made, place, generator, dice, len(runs)))
    return runs


def _run(
    made: Made, place: tuple[str, int, int, int], generator: str | None,
    dice: dict[str, float], index: int,
) -> dict[str, Any]:  # fmt: skip
    arm, n, draw, seed = place
    failed = place in made.lost
    asked = 0.5 if generator else 0.0
    run: dict[str, Any] = {
        "arm": arm, "n": n, "draw": draw, "seed": seed, "key": f"{index:020x}",
        "status": "failed" if failed else "done",
        "error": "the generator's losses became NaN at step 212" if failed else None,
        "asked": asked,
        "realised": round(asked * (0.96 + 0.01 * draw), 4),
        "fell_back": 7 * draw if generator else 0,
        "seconds": {"train": 80.5 + draw, "fit": 100.25 if generator else 0.0,
                    "tune": 300.0 if arm == "tuned" else 0.0},
        "device": "cpu",
        "chosen": ("none" if draw else "unedited") if arm == "tuned" else None,
        "scores": {},
    }  # fmt: skip
    if not failed:
        run["scores"] = {
            name: {c: round(_as(measure, v), 4) for c, v in dice.items()}
            for name, measure in made.measures.items()
        }
    return run


def _as(measure: dict[str, str], dice: float) -> float:
    """A Dice as another measure would see it."""
    worse = max(0.0, 1 - dice)
    return 14 * worse if measure["better"] == "lower" else min(1.0, dice)


def _by_subject(made: Made, run: dict[str, Any], measure: str) -> np.ndarray:
    found: dict[str, list[float]] = {}
    for case, value in run["scores"][measure].items():
        found.setdefault(made.cases[case], []).append(value)
    return np.array([np.mean(found[s]) for s in sorted(found)])


def _mean(made: Made, done: list[dict[str, Any]], arm: str, n: int, measure: str) -> dict[str, Any]:
    rows = [_by_subject(made, r, measure) for r in done if r["arm"] == arm and r["n"] == n]
    if not rows:
        return {}
    table = np.array(rows)
    error = math.hypot(table.mean(1).std() / math.sqrt(len(rows)), table.mean(0).std() / 4)
    mean = float(table.mean())
    return {"arm": arm, "n": n, "measure": measure, "mean": mean, "low": mean - 1.96 * error,
            "high": mean + 1.96 * error, "runs": len(rows)}  # fmt: skip


def _comparison(
    made: Made, done: list[dict[str, Any]], arm: str, n: int, measure: str
) -> dict[str, Any]:
    control = next(iter(made.arms))
    rows = {(r["draw"], r["seed"]): _by_subject(made, r, measure)
            for r in done if r["arm"] == control and r["n"] == n}  # fmt: skip
    mine = {(r["draw"], r["seed"]): _by_subject(made, r, measure)
            for r in done if r["arm"] == arm and r["n"] == n}  # fmt: skip
    shared = sorted(rows.keys() & mine.keys())
    if not shared:
        return {}
    table = np.array([mine[k] - rows[k] for k in shared])
    runs, subjects = table.shape
    difference = float(table.mean())
    parts = {
        "draw": float(table.mean(1).var()) * 0.7,
        "seed": float(table.mean(1).var()) * 0.3,
        "case": float(table.mean(0).var()),
        "draw_case": float(table.var()) * 0.1,
        "rest": float(table.var()) * 0.3,
    }
    error = max(1e-6, math.sqrt(
        (parts["draw"] + parts["seed"]) / runs + parts["case"] / subjects
        + parts["rest"] / runs / subjects))  # fmt: skip
    margin = made.margin if made.measures[measure]["unit"] == "" else None
    p = 2 * (1 - NORMAL.cdf(abs(difference) / error))
    low, high = difference - 1.96 * error, difference + 1.96 * error
    apart = None if margin is None else 1 - NORMAL.cdf((margin - abs(difference)) / error)
    return {
        "arm": arm, "n": n, "measure": measure, "difference": difference,
        "interval": {"low": low, "high": high}, "p": p, "p_holm": p,
        "wilcoxon_p": min(1.0, p * 1.2), "wilcoxon_p_holm": min(1.0, p * 1.2),
        "mde": 2.8 * error, "margin": margin, "equivalent": apart is not None and apart < 0.05,
        "equivalence_p": apart, "df": runs - 1, "standard_error": error, "variance": parts,
        "runs": runs, "draws": made.draws, "seeds": made.seeds, "subjects": subjects,
        "dropped": made.draws * made.seeds - runs,
        "mean_arm": float(np.mean([mine[k].mean() for k in shared])),
        "mean_control": float(np.mean([rows[k].mean() for k in shared])),
        "generalises": "draws, seeds, subjects",
    }  # fmt: skip


def _holm(comparisons: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """p after Holm's correction within each measure."""
    for measure in {c["measure"] for c in comparisons}:
        family = sorted((c for c in comparisons if c["measure"] == measure), key=lambda c: c["p"])
        least = 0.0
        for rank, entry in enumerate(family):
            least = max(least, min(1.0, entry["p"] * (len(family) - rank)))
            entry["p_holm"] = least
    return comparisons


def _worth(made: Made, means: list[dict[str, Any]], others: list[str]) -> list[dict[str, Any]]:
    control = next(iter(made.arms))
    level = {(m["arm"], m["n"]): m for m in means if m["measure"] == made.primary}
    found = []
    for arm in others:
        for n in made.sizes:
            entry: dict[str, Any] = {"arm": arm, "n": n, "cases": None, "low": None, "high": None,
                                     "reason": None}  # fmt: skip
            base, own = level.get((control, n)), level.get((arm, n))
            if len(made.sizes) < 2:
                entry["reason"] = "a learning curve needs at least two sizes"
            elif base is None or own is None:
                entry["reason"] = "the arm was not finished"
            elif own["mean"] - base["mean"] > 0.03:
                entry["reason"] = "beyond the learning curve"
            else:
                gain, error = own["mean"] - base["mean"], 0.004
                entry["cases"], entry["low"], entry["high"] = (
                    n * (2 ** ((gain + side * error) / 0.02) - 1) for side in (0, -1, 1)
                )
            found.append(entry)
    return found


def _costs(made: Made, done: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found = []
    for arm in made.arms:
        for n in made.sizes:
            some = [r["seconds"] for r in done if r["arm"] == arm and r["n"] == n]
            if some:
                train, fit, tune = (sum(s[k] for s in some) / len(some) for k in some[0])
                found.append({"arm": arm, "n": n, "train_s": train, "fit_s": fit, "tune_s": tune,
                              "added_s": fit + tune})  # fmt: skip
    return found
