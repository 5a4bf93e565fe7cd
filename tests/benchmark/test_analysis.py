import json
import math
import re
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest

from gansynth.core.generator import Generator
from gansynth.metrics.segmentation.measures import DICE_AT_ALARMS, OF_SIZES
from gansynth.metrics.statistics import RunValues, holm
from gansynth_benchmark.analysis import analysed, matrices_of
from gansynth_benchmark.report.study import ReportData
from gansynth_benchmark.report.tables import by_size
from gansynth_benchmark.site_share import share_of_gap
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


def test_a_difference_beyond_what_is_possible_has_no_interval():
    runs = [even("default", 0.5, draw=draw) for draw in range(3)]
    gans = [
        run("gan", {DICE: dict.fromkeys(CASES, level)}, draw=d)
        for d, level in enumerate((1, 0.1, 1))
    ]
    found = analysed(document(runs + gans))
    assert found["comparisons"][0]["interval"] == {"low": None, "high": None}
    assert "the design is too small for an interval" in found["verdict"]["sentence"]


def test_one_training_an_arm_says_nothing():
    found = analysed(document([even("default", 0.5), even("gan", 0.9)]))
    [row] = found["comparisons"]
    told = (row["p"], row["wilcoxon_p"], row["interval"]["low"], row["mde"])
    assert told == (None, None, None, None)
    assert "(one training each: says nothing)" in found["verdict"]["sentence"]


def test_small_and_large_lesions_have_rows_of_their_own():
    """Sensitivity to small lesions rises, that to others does not; no lesion is large."""
    keys = ("lesion_sensitivity@1-99/foreground", "lesion_sensitivity@100-999/foreground")
    runs = [*experiment({"default": 0.5, "gan": 0.5}, DICE, keys[1])]
    for one, small in zip(runs, experiment({"default": 0.2, "gan": 0.4}, keys[0]), strict=True):
        one["scores"] |= small["scores"]
    whole = document(runs)
    whole |= analysed(whole)
    small, large = by_size(ReportData(whole))
    assert (small["voxels of a lesion"], large["voxels of a lesion"]) == ("1-99", "100-999")
    assert abs(float(str(small["change in sensitivity"]).split()[0]) - 20) < 1
    assert abs(float(str(large["change in sensitivity"]).split()[0].replace("−", "-"))) < 1
    assert small["change in precision"] == "–"
    assert not OF_SIZES & set(ReportData(whole).measures)


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


def test_an_arm_that_differs_in_more_than_people_is_no_point_of_the_curve():
    runs = [*learning("default", 6), *learning("double", 6, times=2), *GAN]
    assert analysed(curve_of(runs, double={"set": {"width": "4"}}))["worth"] == []
    runs = [*learning("default", 6, 12), *learning("gan", 6, times=2)]
    (row,) = analysed(curve_of(runs, gan={"real": 2}))["worth"]  # of as many people, nothing more
    assert row["cases"] is None or abs(row["cases"]) < 1.5


@pytest.mark.parametrize("truth", [0.0, 0.5, 1.0])
def test_the_share_of_the_gap_that_an_arm_closes_is_within_its_interval(truth):
    within = 0
    for seed in range(60):
        rng = np.random.default_rng([seed, int(2 * truth)])
        people, draws = rng.normal(0, 0.1, 12), rng.normal(0, 0.02, (8, 1))
        tables = []
        for level in (0.5, 0.7, 0.5 + 0.2 * truth):
            own = rng.normal(0, 0.03, 12) + rng.normal(0, 0.02, (8, 1))
            tables.append(level + people + draws + own + rng.normal(0, 0.02, (8, 12)))
        names = tuple([f"s{number}" for number in range(12)])
        control, target, arm = [RunValues(t, tuple(range(8)), (0,) * 8, names) for t in tables]
        found = share_of_gap(arm, control, target)
        assert found.low is not None
        assert found.high is not None
        within += found.low <= truth <= found.high
    assert within >= 53  # of 60; 57 are expected, fewer than 53 in 2 of 100 such tests


def test_an_arm_between_two_sites_has_its_share_of_the_gap():
    levels = {"default": 0.6, "matched": 0.65, "target": 0.8}
    arms = {"target": {"at_target": True}}
    [row] = analysed(document(experiment(levels), arms=arms))["gaps"]
    assert row["arm"] == "matched"
    assert row["share"] == pytest.approx(0.25, abs=0.03)
    assert row["low"] < 0.25 < row["high"]


def test_where_labels_of_the_target_do_not_help_there_is_no_share_of_a_gap():
    levels = {"default": 0.6, "matched": 0.65, "target": 0.6}
    arms = {"target": {"at_target": True}}
    [row] = analysed(document(experiment(levels), arms=arms))["gaps"]
    assert row["share"] is None
    assert "there may be no gap to close" in row["reason"]


def test_costs_are_compared_with_those_of_the_control_at_the_same_size():
    runs = [even("default", 0.5), even("gan", 0.5), even("gan", 0.5, n=12)]
    runs[0]["seconds"] = {"train": 100.0, "fit": 30.0, "tune": None}
    costs = analysed(document(runs))["costs"]
    assert row_of(costs, "default")["tune_s"] == 0
    assert [row_of(costs, "gan", n=n)["added_s"] for n in (6, 12)] == [-30, None]


HALF = [run("default", {DICE: {"a1": 0.5, "b1": 0.6}})]
UNEQUAL = "false alarms could not be made equal (160 against 1287)"
FEW = [even("default", 0.5), even("gan", 0.5, fell_back=3), even("gan", 0.5, seed=1)]
APART = [even("default", 0.5), even("gan", 0.5, unequal_alarms=UNEQUAL)]
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
        (APART, {}, [re.escape(f"in 1 trainings {UNEQUAL}, for one")]),
        (experiment({"default": 0.1, "gan": 0.1}), {}, ["hardly begun"]),
        (experiment({"default": 0.8, "gan": 0.1}), {}, []),
    ],
)
def test_a_weak_result_has_a_warning(runs, more, words):
    found = analysed(document(runs, **more))["warnings"]
    assert all(re.search(word, line) for word, line in zip(words, found, strict=True))


@pytest.mark.parametrize(("unequal", "which"), [(None, "equal"), (UNEQUAL, "the nearest")])
def test_a_column_at_alarms_says_whether_these_are_equal(unequal, which):
    values = {DICE_AT_ALARMS: {"a1": 0.5, "b1": 0.6}}
    runs = [run("default", values), run("gan", values, unequal_alarms=unequal)]
    found = analysed(document(runs, primary=DICE_AT_ALARMS))["measures"][DICE_AT_ALARMS]
    assert found["title"] == f"Dice at {which} false alarms"


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
    stranger = type("Stranger", (Generator,), {"sample": lambda *_: []})
    with offered("stranger", generators={"stranger": stranger}):
        rows = analysed(made)["baselines"]
    assert [(r["arm"], r["baseline"], r["measure"]) for r in rows] == [(*p, DICE) for p in pairs]
    differences = [levels[arm] - levels[baseline] for arm, baseline in pairs]
    assert [r["difference"] for r in rows] == pytest.approx(differences, abs=0.004)
    assert [r["p_holm"] for r in rows] == holm([r["p"] for r in rows])
