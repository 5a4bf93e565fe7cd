import json
import math
import re
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest

from gansynth.core.generator import Generator
from gansynth.metrics.statistics import holm
from gansynth_benchmark.analysis import analysed, matrices_of
from gansynth_benchmark.worth import worth
from tests.benchmark.documents import Made, made_up
from tests.offered import offered

CASES = {"a1": "ann", "a2": "ann", "b1": "bob", "c1": "cat", "d1": "dan"}
DICE = "dice/WT"


def run(arm: str, scores: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    seconds = {"train": 100.0, "fit": 0.0, "tune": 0.0}
    place = {"arm": arm, "n": 6, "draw": 0, "seed": 0}
    return {**place, "status": "done", "scores": scores, "seconds": seconds, **more}


def document(runs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A document of these runs; an arm is a dictionary of ``arms``, by its name."""
    usual = {"title": "of some name", "what": "", "generator": None, "ratio": "1:0"}
    own = more.pop("arms", {})
    arms: dict[str, Any] = {
        name: {**usual, **own.get(name, {}), "name": name}
        for name in dict.fromkeys(run["arm"] for run in runs)
    }
    plugins = ("copypaste", "parametric", "cgan3d", "stranger")
    plan = {"arms": list(arms.values()), "generators": {name: {"plugin": name} for name in plugins}}
    return {
        **{"runs": runs, "subjects": CASES, "primary": DICE, "control": "default", "arms": arms},
        **{"margin": 0.005, "draws": 3, "seeds": 2, "sizes": [6], **more},
        "plan": plan | more.get("plan", {}),
    }


def even(arm: str, level: float, keys: tuple[str, ...] = (DICE,), **place: Any) -> dict[str, Any]:
    """A run of one level on all cases, but for what each person and run is like."""
    own = 0.013 * place.get("draw", 0) + 0.007 * place.get("seed", 0)
    cases = {case: round(level + own + 0.02 * i, 6) for i, case in enumerate(CASES)}
    return run(arm, {key: dict(cases) for key in keys}, **place)


def experiment(levels: Mapping[str, float], *keys: str, n: int = 6) -> list[dict[str, Any]]:
    """Three draws and two seeds of some arms, each with what is by chance in a run."""
    found = []
    for (arm, level), draw, seed in product(levels.items(), range(3), range(2)):
        text = f"{arm}{[('draw', draw), ('n', n), ('seed', seed)]}"
        chance = 0.002 * float(np.random.default_rng(list(text.encode())).standard_normal())
        found.append(even(arm, level + chance, keys or (DICE,), n=n, draw=draw, seed=seed))
    return found


def row_of(rows: list[dict[str, Any]], arm: str, **more: Any) -> dict[str, Any]:
    (row,) = (r for r in rows if r["arm"] == arm and all(r[k] == v for k, v in more.items()))
    return row


@pytest.mark.parametrize(
    ("scores", "by", "values"),
    [
        ({"a1": 0.2, "a2": 0.6, "b1": 0.9, "c1": 0.1, "d1": 0.3}, "case", [0.4, 0.9, 0.1, 0.3]),
        ({"a1": 0.2, "a2": None, "b1": None, "c1": 0.0}, "case", [0.2, math.nan, 0.0, math.nan]),
        ({"ann": 0.2, "dan": 0.5}, "subject", [0.2, math.nan, math.nan, 0.5]),
    ],
)
def test_a_persons_cases_are_averaged_and_one_without_any_is_unknown(scores, by, values):
    found = matrices_of(document([run("default", {DICE: scores}, by=by)]))["default", 6, DICE]
    assert found.subjects == ("ann", "bob", "cat", "dan")
    assert found.values.tolist() == [pytest.approx(values, nan_ok=True)]


def test_only_finished_runs_count_each_with_its_draw_and_seed():
    runs = [even("default", 0.5, draw=d, seed=s) for d, s in ((1, 0), (0, 1), (2, 0))]
    runs[1]["scores"] |= {"nsd/WT": {"a1": 0.3}}
    runs[2]["status"] = "failed"
    runs.append(even("default", 0.5, n=12))
    found = matrices_of(document(runs))
    assert set(found) == {("default", 6, DICE), ("default", 6, "nsd/WT"), ("default", 12, DICE)}
    assert found["default", 6, DICE].keys == ((1, 0), (0, 1))
    lacking, has = found["default", 6, "nsd/WT"].values
    assert np.isnan(lacking).all()
    assert has[0] == 0.3


def test_runs_are_paired_by_draw_and_seed_in_whatever_order_they_come():
    """Runs differ far more than arms do: unpaired, the difference would be another."""
    runs, gans = (
        [even(arm, level + 0.1 * d + 0.02 * s, draw=d, seed=s) for d in range(3) for s in (0, 1)]
        for arm, level in (("default", 0.3), ("gan", 0.31))
    )
    row = row_of(analysed(document([*runs[1:], *reversed(gans)]))["comparisons"], "gan")
    assert row["difference"] == pytest.approx(0.01)
    assert row["runs"] == 5


def test_p_values_are_of_every_other_arm_corrected_over_arms_and_sizes_of_each_measure():
    levels = {"default": 0.5, "a": 0.5, "b": 0.501, "c": 0.51}
    runs = [*experiment(levels, DICE, "nsd/WT"), *experiment(levels, n=12)]
    rows = analysed(document(runs))["comparisons"]
    for key, sizes in ((DICE, (6, 12)), ("nsd/WT", (6,))):
        family = [row for row in rows if row["measure"] == key]
        assert {(row["arm"], row["n"]) for row in family} == set(product("abc", sizes))
        assert len(family) == 3 * len(sizes)
        for name in ("p", "wilcoxon_p"):
            expected = holm([row[name] for row in family])
            assert [row[f"{name}_holm"] for row in family] == expected
            assert expected != [row[name] for row in family]


def test_margins_are_the_plans_the_usual_one_or_none():
    keys = {DICE: 0.02, "nsd/WT": 0.005, "hd95/WT": None, "lesion_sensitivity/WT": None}
    runs = experiment({"default": 0.5, "a": 0.5}, *keys)
    rows = analysed(document(runs, margin=0.02))["comparisons"]
    assert {row["measure"]: row["margin"] for row in rows} == keys
    for row in rows:
        if row["margin"] is None:
            assert (row["equivalent"], row["equivalence_p"]) == (False, None)
    assert row_of(rows, "a", measure=DICE)["equivalent"] is True


def test_intervals_stay_within_what_is_possible():
    made = made_up(Made(draws=2, seeds=1, subjects=4, noise=0.2))
    for mean in analysed(made)["means"]:
        most = math.inf if mean["measure"].startswith("hd95") else 1.0
        assert mean["low"] is None or 0 <= mean["low"] <= mean["high"] <= most
    for one in made["runs"]:
        if one["arm"] != "default":
            level = 1.0 if one["draw"] == 0 else 0.1
            one["scores"] = {"dice/foreground": dict.fromkeys(made["subjects"], level)}
    found = analysed(made)
    assert {tuple(row["interval"].values()) for row in found["comparisons"]} == {(None, None)}
    assert "the design is too small for an interval" in found["verdict"]["sentence"]


def learning(arm: str, *sizes: int, times: int = 1, more: float = 0.0) -> list[dict[str, Any]]:
    """Runs that get better by 0.03 with every doubling of people."""
    levels = {n: 0.5 + 0.03 * math.log2(times * n / 6) + more for n in sizes}
    return [one for n, level in levels.items() for one in experiment({arm: level}, n=n)]


def curve_of(*runs: list[dict[str, Any]], **arms: Any) -> dict[str, Any]:
    usual = {"double": {"real": 2}, "gan": {"generator": "cgan3d", "ratio": "1:1"}}
    own = {name: usual.get(name, {}) | arms.get(name, {}) for name in {*usual, *arms}}
    return document([one for some in runs for one in some], arms=own)


GAN = learning("gan", 6, more=0.015)


def test_twice_the_people_are_points_of_the_learning_curve_each_training_once():
    """One size is no curve; with twice the people beside it, it is one."""
    runs = [*learning("default", 6), *GAN]
    assert analysed(curve_of(runs))["worth"] == []
    half = [one for one in learning("default", 12) if one["seed"] == 0]
    double = learning("double", 6, times=2)
    for of_control in ([], half):
        (row,) = analysed(curve_of(runs, of_control, double))["worth"]
        assert (row["arm"], row["n"], row["measure"]) == ("gan", 6, DICE)
        assert (row["smallest"], row["largest"], row["repetitions"]) == (6, 12, 3)
        assert row["cases"] == pytest.approx(6 * (math.sqrt(2) - 1), abs=0.8)


def test_the_curve_has_a_point_for_every_number_of_people():
    made = curve_of(
        *(learning("default", 6, 12), learning("double", 6, 12, times=2)),
        learning("gan", 6, 12, more=0.045),
    )
    found = analysed(made)["worth"]
    row = row_of(found, "gan", n=12)
    assert (row["smallest"], row["largest"], row["beyond"]) == (6, 24, "above")
    matrices = matrices_of(made)
    curve = {n: matrices["default", n, DICE] for n in (6, 12)}
    curve[24] = matrices["double", 12, DICE]
    expected = worth(curve, matrices["gan", 6, DICE], 6).to_json()
    row = row_of(found, "gan", n=6)
    assert {key: row[key] for key in expected} == expected


def test_an_arm_that_differs_in_more_than_people_is_no_point_of_the_curve():
    runs = [*learning("default", 6), *learning("double", 6, times=2), *GAN]
    assert analysed(curve_of(runs, double={"set": {"width": "4"}}))["worth"] == []
    runs = [*learning("default", 6, 12), *learning("gan", 6, times=2)]
    (row,) = analysed(curve_of(runs, gan={"real": 2}))["worth"]  # of as many people, nothing more
    assert row["cases"] is None or abs(row["cases"]) < 1.5


def test_costs_are_means_and_what_is_added_to_the_controls():
    taken = {"train": 120.0, "fit": 300.0, "tune": 50.0}
    runs = [
        even("default", 0.5) | {"seconds": {"train": 100.0, "fit": 30.0, "tune": 0.0}},
        even("default", 0.5, seed=1) | {"seconds": {"train": 140.0, "fit": 30.0, "tune": None}},
        even("gan", 0.5) | {"seconds": taken},
        even("gan", 0.5, n=12) | {"seconds": taken},
    ]
    costs = analysed(document(runs))["costs"]
    control, gan = row_of(costs, "default"), row_of(costs, "gan", n=6)
    assert (control["train_s"], control["added_s"]) == (120.0, 0.0)
    assert (gan["train_s"], gan["fit_s"], gan["tune_s"], gan["added_s"]) == (120, 300, 50, 320)
    assert row_of(costs, "gan", n=12)["added_s"] is None


HALF = [run("default", {DICE: {"a1": 0.5, "b1": 0.6}})]
FEW = [even("default", 0.5), even("gan", 0.5, fell_back=3), even("gan", 0.5, seed=1)]
ALONE = {"subjects": {"a1": "a1", "b1": "b1"}}


@pytest.mark.parametrize(
    ("runs", "more", "words"),
    [
        (HALF, {}, []),
        (HALF, ALONE, ["every case counts as one subject"]),
        (HALF, {"draws": 2, "seeds": 3}, ["too few .* sets: 2 draw.s., expected at least 3$"]),
        (HALF, {"seeds": 1}, ["too few .* sets: 3 training.s. of an arm, expected at least 6$"]),
        (HALF, {"draws": 6, "seeds": 1}, []),
        (FEW, {}, ["in 1 trainings some synthetic samples were missing"]),
        (experiment({"default": 0.1, "gan": 0.1}), {}, ["hardly begun"]),
        (experiment({"default": 0.8, "gan": 0.1}), {}, []),
    ],
)
def test_a_weak_result_has_a_warning(runs, more, words):
    found = analysed(document(runs, **more))["warnings"]
    assert all(re.search(word, line) for word, line in zip(words, found, strict=True))


def test_a_mean_is_of_those_who_have_a_value_in_every_run_and_has_an_interval():
    runs = experiment({"default": 0.8, "a": 0.6})
    runs[0]["scores"][DICE]["d1"] = None
    row = row_of(analysed(document(runs))["means"], "default", n=6, measure=DICE)
    scores = [list(one["scores"][DICE].values()) for one in runs if one["arm"] == "default"]
    assert row["mean"] == pytest.approx(np.mean([[(a + b) / 2, c, d] for a, b, c, d, _ in scores]))
    assert row["low"] < row["mean"] < row["high"]
    assert row["runs"] == 6


def test_a_measure_without_values_is_null_and_each_is_explained():
    keys = ("dice/mean", "dice/2", "hd95/1")
    runs = [run(arm, {key: {"a1": None} for key in keys}) for arm in ("default", "gan")]
    labels = {"background": 0, "Anterior": 1, "Posterior": 2}
    found = analysed(document(runs, primary="dice/mean", data={"labels": labels, "unit": "px"}))
    assert row_of(found["means"], "gan", measure="dice/2")["mean"] is None
    assert row_of(found["comparisons"], "gan", measure="dice/2")["difference"] is None
    json.dumps(found, allow_nan=False)
    assert "In pixels: their size was not given" in found["measures"]["hd95/1"]["says"]
    told = {
        k: (m["title"], m["region"], m["unit"], m["better"]) for k, m in found["measures"].items()
    }
    assert told == {
        "dice/mean": ("Dice", "mean of labels", "", "higher"),
        "dice/2": ("Dice", "Posterior", "", "higher"),
        "hd95/1": ("HD95", "Anterior", "px", "lower"),
    }


def test_a_papers_numbers_stand_beside_ours_of_the_largest_training_sets():
    runs = experiment({"default": 0.8, "gan": 0.7}) + experiment({"default": 0.85}, n=12)
    assert analysed(document(runs))["paper"] is None
    paper = {"title": "table 1", "columns": {"WT": DICE}, "rows": {"default": [0.9], "gan": [0.8]}}
    found = analysed(document(runs, sizes=[6, 12], plan={"paper": paper}))
    ours = row_of(found["means"], "default", n=12)["mean"]
    told = {row["name"]: (row["paper"], row["ours"]) for row in found["paper"]["rows"]}
    assert told == {"default": ([0.9], [ours]), "gan": ([0.8], [None])}
    assert "N = 12" in found["paper"]["title"]


LEVELS = {"default": 0.5, "heavier": 0.51, "paste": 0.53, "drawn": 0.56, "gan": 0.6}


@pytest.mark.parametrize(
    ("drawn", "choices", "pairs"),
    [
        ("parametric", (), [("gan", "paste"), ("gan", "drawn")]),
        ("stranger", (), [("gan", "paste"), ("gan", "drawn")]),
        ("cgan3d", (), [("drawn", "paste"), ("gan", "paste")]),
        ("parametric", ("default", "paste"), [("gan", "paste"), ("gan", "drawn")]),
        (
            "parametric",
            ("paste", "gan"),
            list(product(("gan", "chosen"), ("paste", "drawn"))),
        ),
    ],
)
def test_a_gan_is_compared_with_each_arm_without_a_network_on_the_primary_measure(
    drawn, choices, pairs
):
    """A choice counts as a GAN if one of its arms is one."""
    generators = {"paste": "copypaste", "drawn": drawn, "gan": "cgan3d"}
    arms: dict[str, Any] = {arm: {"generator": plugin} for arm, plugin in generators.items()}
    levels = LEVELS | ({"chosen": 0.55} if choices else {})
    made = document(experiment(levels, DICE, "nsd/WT"), arms=arms | {"chosen": {"tune": choices}})
    stranger = type("Stranger", (Generator,), {"sample": None})
    with offered("stranger", generators={"stranger": stranger}):
        rows = analysed(made)["baselines"]
    assert [(r["arm"], r["baseline"], r["measure"]) for r in rows] == [(*p, DICE) for p in pairs]
    differences = [levels[arm] - levels[baseline] for arm, baseline in pairs]
    assert [r["difference"] for r in rows] == pytest.approx(differences, abs=0.004)
    assert [r["p_holm"] for r in rows] == holm([r["p"] for r in rows])
