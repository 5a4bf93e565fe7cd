"""What statistics say of a results document: pairs, families, margins, the curve, costs."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
import pytest

from gansynth.benchmark.analysis import analysed, matrices_of
from gansynth.benchmark.report.verdict import verdict
from gansynth.metrics.stats.compare import holm
from gansynth.metrics.stats.worth import worth
from tests.benchmark.making import Made, made_up

CASES = {"a1": "ann", "a2": "ann", "b1": "bob", "c1": "cat", "d1": "dan"}
DICE = "dice/WT"
Levels = Mapping[str, float]


def run(arm: str, scores: Mapping[str, Any], **more: Any) -> dict[str, Any]:
    """One finished run; scores by measure and case."""
    seconds = {"train": 100.0, "fit": 0.0, "tune": 0.0}
    place = {"arm": arm, "n": 6, "draw": 0, "seed": 0}
    return {**place, "status": "done", "scores": scores, "seconds": seconds, **more}


def document(runs: list[dict[str, Any]], **more: Any) -> dict[str, Any]:
    """A results document of these runs, before statistics."""
    names = dict.fromkeys(run["arm"] for run in runs)
    return {
        **{"runs": runs, "subjects": CASES, "primary": DICE, "control": "default"},
        **{"margin": 0.005, "draws": 3, "seeds": 2, "sizes": [6], "plan": {}},
        "arms": {name: {"name": name, "title": name, "generator": None} for name in names},
        **more,
    }


def even(arm: str, level: float, key: str = DICE, **place: Any) -> dict[str, Any]:
    """A run of one level on all cases, but for what each person and run is like."""
    own = 0.013 * place.get("draw", 0) + 0.007 * place.get("seed", 0)
    cases = {case: round(level + own + 0.02 * i, 6) for i, case in enumerate(CASES)}
    return run(arm, {key: cases}, **place)


def experiment(levels: Levels, key: str = DICE, n: int = 6) -> list[dict[str, Any]]:
    """Three draws and two seeds of some arms."""
    places = [{"n": n, "draw": d, "seed": s} for d in range(3) for s in range(2)]
    return [
        even(arm, level + jitter(arm, place), key, **place)
        for arm, level in levels.items()
        for place in places
    ]


def jitter(arm: str, place: Mapping[str, int]) -> float:
    """What is by chance in a run."""
    text = f"{arm}{sorted(place.items())}"
    return 0.002 * float(np.random.default_rng(list(text.encode())).standard_normal())


def row_of(rows: list[dict[str, Any]], arm: str, **more: Any) -> dict[str, Any]:
    (row,) = (r for r in rows if r["arm"] == arm and all(r[k] == v for k, v in more.items()))
    return row


# -- values by person ------------------------------------------------------------------------------


def test_a_persons_cases_are_averaged():
    one = run("default", {DICE: {"a1": 0.2, "a2": 0.6, "b1": 0.9, "c1": 0.1, "d1": 0.3}})
    found = matrices_of(document([one]))["default", 6, DICE]
    assert found.subjects == ("ann", "bob", "cat", "dan")
    assert found.values.tolist() == [pytest.approx([0.4, 0.9, 0.1, 0.3])]


def test_a_case_without_a_value_is_left_out_and_a_person_without_any_is_unknown():
    one = run("default", {DICE: {"a1": 0.2, "a2": None, "b1": None, "c1": 0.0}})
    (values,) = matrices_of(document([one]))["default", 6, DICE].values
    assert values[[0, 2]].tolist() == [0.2, 0.0]
    assert np.isnan(values[[1, 3]]).all()


def test_detectors_scores_are_those_of_people_already():
    one = run("default", {"froc": {"ann": 0.2, "dan": 0.5}}, by="subject")
    (values,) = matrices_of(document([one]))["default", 6, "froc"].values
    assert values[[0, 3]].tolist() == [0.2, 0.5]
    assert np.isnan(values[[1, 2]]).all()


def test_only_finished_runs_count_each_with_its_draw_and_seed():
    runs = [even("default", 0.5, draw=d, seed=s) for d, s in ((1, 0), (0, 1), (2, 0))]
    runs[2]["status"] = "failed"
    runs.append(even("default", 0.5, n=12))
    found = matrices_of(document(runs))
    assert set(found) == {("default", 6, DICE), ("default", 12, DICE)}
    assert found["default", 6, DICE].keys == ((1, 0), (0, 1))


def test_a_measure_that_one_run_lacks_is_unknown_there():
    runs = [even("default", 0.5), run("default", {"nsd/WT": {"a1": 0.3}}, seed=1)]
    found = matrices_of(document(runs))
    assert np.isnan(found["default", 6, DICE].values[1]).all()
    assert found["default", 6, "nsd/WT"].values[1, 0] == 0.3


# -- comparisons -----------------------------------------------------------------------------------


def test_runs_are_paired_by_draw_and_seed_in_whatever_order_they_come():
    """Runs differ far more than arms do: unpaired, the difference would be another."""
    gain = 0.01
    runs = [
        even("default", 0.3 + 0.1 * d + 0.02 * s, draw=d, seed=s)
        for d, s in product(range(3), (0, 1))
    ]
    gans = [
        even("gan", 0.3 + gain + 0.1 * d + 0.02 * s, draw=d, seed=s)
        for d, s in product(range(3), (0, 1))
    ]
    found = analysed(document([*runs, *reversed(gans)]))["comparisons"]
    assert row_of(found, "gan")["difference"] == pytest.approx(gain)
    assert row_of(found, "gan")["runs"] == 6
    missing = analysed(document([*runs[1:], *gans]))["comparisons"]
    assert row_of(missing, "gan")["difference"] == pytest.approx(gain)
    assert row_of(missing, "gan")["runs"] == 5


def test_every_other_arm_is_held_against_the_control_at_every_size_and_measure():
    runs = [
        *experiment({"default": 0.5, "a": 0.5, "b": 0.6}),
        *experiment({"default": 0.5, "a": 0.5}, n=12),
        *experiment({"b": 0.5}, "nsd/WT"),
    ]
    rows = analysed(document(merged(runs)))["comparisons"]
    found = {(row["arm"], row["n"], row["measure"]) for row in rows}
    assert found == {("a", 6, DICE), ("b", 6, DICE), ("a", 12, DICE)}


def merged(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Runs of the same place, their scores put together."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for one in runs:
        place = (one["arm"], one["n"], one["draw"], one["seed"])
        found.setdefault(place, one)["scores"] |= one["scores"]
    return list(found.values())


def test_p_values_are_corrected_over_arms_and_sizes_of_each_measure():
    arms = {"default": 0.5, "a": 0.5, "b": 0.501, "c": 0.51}
    runs = [
        *experiment(arms),
        *experiment(arms, n=12),
        *experiment(arms, "nsd/WT"),
    ]
    rows = analysed(document(merged(runs)))["comparisons"]
    for key, count in ((DICE, 6), ("nsd/WT", 3)):
        family = [row for row in rows if row["measure"] == key]
        assert len(family) == count
        for name in ("p", "wilcoxon_p"):
            expected = holm([row[name] for row in family])
            assert [row[f"{name}_holm"] for row in family] == expected
            assert expected != [row[name] for row in family]


def test_margins_are_the_plans_the_usual_one_or_none():
    keys = {DICE: 0.02, "nsd/WT": 0.005, "hd95/WT": None, "lesion_sensitivity/WT": None}
    runs = [one for key in keys for one in experiment({"default": 0.5, "a": 0.5}, key)]
    rows = analysed(document(merged(runs), margin=0.02))["comparisons"]
    assert {row["measure"]: row["margin"] for row in rows} == keys
    for row in rows:
        if row["margin"] is None:
            assert (row["equivalent"], row["equivalence_p"]) == (False, None)
    assert row_of(rows, "a", measure=DICE)["equivalent"] is True


def test_a_margin_in_mm_does_not_make_shares_equal():
    runs = [
        *experiment({"default": 5.0, "a": 9.0}, "hd95/WT"),
        *experiment({"default": 0.2, "a": 0.9}, "lesion_sensitivity/WT"),
    ]
    found = analysed(document(merged(runs), primary="hd95/WT", margin=1.0))["comparisons"]
    assert row_of(found, "a", measure="lesion_sensitivity/WT")["equivalent"] is False
    assert row_of(found, "a", measure="hd95/WT")["margin"] == 1.0


# -- worth -----------------------------------------------------------------------------------------


def learning(arm: str, n: int, people: int, more: float = 0.0) -> list[dict[str, Any]]:
    """Runs that get better by 0.03 with every doubling of people."""
    return experiment({arm: 0.5 + 0.03 * math.log2(people / 6) + more}, n=n)


def arms(**real: int) -> dict[str, Any]:
    """Arms that differ in the number of people alone."""
    found: dict[str, dict[str, Any]] = {
        name: {"name": name, "title": f"of {name}", "what": name, "generator": None, "ratio": "1:0"}
        for name in ("default", *real)
    }
    for name, times in real.items():
        found[name] |= {"real": times} if times > 1 else {}
    return found


GAN = {"gan": {"name": "gan", "title": "a GAN", "generator": "g", "ratio": "1:1"}}


def test_twice_the_people_are_points_of_the_learning_curve():
    """One size is no curve; with twice the people beside it, it is one."""
    runs = [*learning("default", 6, 6), *learning("gan", 6, 6, 0.015)]
    alone = document(runs, arms={**arms(), **GAN})
    assert analysed(alone)["worth"] == []
    runs += learning("double", 6, 12)
    found = analysed(document(runs, arms={**arms(double=2), **GAN}))["worth"]
    assert [row["arm"] for row in found] == ["gan"]
    row = row_of(found, "gan", n=6, measure=DICE)
    assert (row["smallest"], row["largest"]) == (6, 12)
    assert row["cases"] == pytest.approx(6 * (math.sqrt(2) - 1), abs=0.8)


def test_the_curve_has_a_point_for_every_number_of_people():
    runs = [
        *(one for n in (6, 12) for one in learning("default", n, n)),
        *(one for n in (6, 12) for one in learning("double", n, 2 * n)),
        *(one for n in (6, 12) for one in learning("gan", n, n, 0.045)),
    ]
    made = document(runs, arms={**arms(double=2), **GAN})
    row = row_of(analysed(made)["worth"], "gan", n=12)
    assert (row["smallest"], row["largest"]) == (6, 24)
    assert row["beyond"] == "above"
    matrices = matrices_of(made)
    curve = {n: matrices["default", n, DICE] for n in (6, 12)}
    curve[24] = matrices["double", 12, DICE]
    expected = worth(curve, matrices["gan", 6, DICE], 6).to_json()
    found = row_of(analysed(made)["worth"], "gan", n=6)
    assert {key: found[key] for key in expected} == expected


def test_runs_that_the_control_lacks_come_from_the_double():
    runs = [*learning("default", 6, 6), *learning("gan", 6, 6, 0.015)]
    half = [one for one in learning("default", 12, 12) if one["seed"] == 0]
    other = learning("double", 6, 12)
    made = document([*runs, *half, *other], arms={**arms(double=2), **GAN})
    assert row_of(analysed(made)["worth"], "gan", n=6)["repetitions"] == 3
    assert row_of(analysed(made)["worth"], "gan", n=6)["cases"] > 0


@pytest.mark.parametrize(
    "other", [{"augmentation": "none"}, {"generator": "g"}, {"set": {"width": "4"}}], ids=str
)
def test_an_arm_that_differs_in_more_is_no_point_of_the_curve(other):
    known = {**arms(double=2), **GAN}
    known["double"] = {**known["double"], **other}
    runs = [*learning("default", 6, 6), *learning("double", 6, 12), *learning("gan", 6, 6, 0.015)]
    assert analysed(document(runs, arms=known))["worth"] == []


def test_an_arm_of_twice_the_people_is_worth_what_it_is_beyond_them():
    runs = [
        *(one for n in (6, 12) for one in learning("default", n, n)),
        *learning("gan", 6, 12),
    ]
    known = {**arms(), "gan": {**GAN["gan"], "real": 2}}
    row = row_of(analysed(document(runs, arms=known))["worth"], "gan", n=6)
    assert row["cases"] is None or abs(row["cases"]) < 1.5


# -- costs, means, warnings ------------------------------------------------------------------------


def test_costs_are_means_and_what_is_added_to_the_controls():
    taken = {"train": 120.0, "fit": 300.0, "tune": 50.0}
    runs = [
        even("default", 0.5),
        even("default", 0.5, seed=1) | {"seconds": {"train": 140.0, "fit": 0.0, "tune": 0.0}},
        even("gan", 0.5) | {"seconds": taken},
        even("gan", 0.5, n=12) | {"seconds": taken},
    ]
    costs = analysed(document(runs))["costs"]
    control, gan = row_of(costs, "default"), row_of(costs, "gan", n=6)
    assert (control["train_s"], control["added_s"]) == (120.0, 0.0)
    assert (gan["train_s"], gan["fit_s"], gan["tune_s"], gan["added_s"]) == (120, 300, 50, 350)
    assert row_of(costs, "gan", n=12)["added_s"] is None


def test_a_control_that_draws_samples_costs_nothing_beside_itself():
    runs = [even("default", 0.5) | {"seconds": {"train": 100.0, "fit": 30.0, "tune": 0.0}}]
    assert row_of(analysed(document(runs))["costs"], "default")["added_s"] == 0.0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ({}, []),
        ({"subjects": {"a1": "a1", "b1": "b1"}}, ["every case counts as a person"]),
        ({"draws": 2}, ["2 draw(s) and 2 seed(s): too few"]),
        ({"seeds": 1}, ["3 draw(s) and 1 seed(s): too few"]),
    ],
    ids=str,
)
def test_what_weakens_a_result_is_said(more, words):
    scores = {DICE: {"a1": 0.5, "b1": 0.6}}
    found = analysed(document([run("default", scores)], **more))["warnings"]
    assert len(found) == len(words)
    assert all(said in line for said, line in zip(words, found, strict=True))


def test_missing_samples_are_said():
    runs = [even("default", 0.5), even("gan", 0.5, fell_back=3), even("gan", 0.5, seed=1)]
    assert analysed(document(runs))["warnings"] == [
        "in 1 trainings some synthetic samples were missing"
    ]


def test_means_come_with_intervals():
    rows = analysed(document(experiment({"default": 0.5, "a": 0.6})))["means"]
    row = row_of(rows, "a", n=6, measure=DICE)
    assert row["low"] < row["mean"] < row["high"]
    assert row["mean"] == pytest.approx(0.6 + 0.013 + 0.0035 + 0.045, abs=0.005)
    assert row["runs"] == 6


def test_measures_are_explained():
    found = analysed(document(merged([*experiment({"default": 5.0}, "hd95/WT")])))["measures"]
    assert found["hd95/WT"]["title"] == "HD95"
    assert (found["hd95/WT"]["unit"], found["hd95/WT"]["better"]) == ("mm", "lower")
    assert found["hd95/WT"]["region"] == "WT"


def test_what_nobody_has_a_value_of_is_no_number():
    made = document([run(arm, {DICE: {"a1": None}}) for arm in ("default", "gan")])
    found = analysed(made)
    assert row_of(found["means"], "gan")["mean"] is None
    assert row_of(found["comparisons"], "gan")["difference"] is None
    json.dumps(found, allow_nan=False)


def test_a_papers_numbers_stand_beside_ours_of_the_largest_training_sets():
    runs = experiment({"default": 0.8, "gan": 0.7}) + experiment({"default": 0.85}, n=12)
    paper = {"title": "table 1", "columns": {"WT": DICE}, "rows": {"default": [0.9], "gan": [0.8]}}
    found = analysed(document(runs, sizes=[6, 12], plan={"paper": paper}))
    means = {(row["arm"], row["n"]): row["mean"] for row in found["means"]}
    told = {row["name"]: (row["paper"], row["ours"]) for row in found["paper"]["rows"]}
    assert told == {"default": ([0.9], [means["default", 12]]), "gan": ([0.8], [None])}
    assert "N = 12" in found["paper"]["title"]


def test_without_a_paper_there_is_no_table():
    assert analysed(document(experiment({"default": 0.8})))["paper"] is None


@pytest.mark.parametrize(("level", "warned"), [(0.1, True), (0.8, False)])
def test_a_host_that_has_learnt_next_to_nothing_is_named(level, warned):
    found = analysed(document(experiment({"default": level, "gan": level})))
    assert any("hardly begun" in text for text in found["warnings"]) is warned


def test_a_mean_is_of_those_who_have_a_value_in_every_run():
    runs = experiment({"default": 0.8})
    runs[0]["scores"][DICE]["d1"] = None
    rows = analysed(document(runs))["means"]
    kept = [[v for case, v in run["scores"][DICE].items() if case != "d1"] for run in runs]
    people = [[(a + b) / 2, *rest] for a, b, *rest in kept]
    assert rows[0]["mean"] == pytest.approx(np.mean(people))
    assert rows[0]["low"] < rows[0]["mean"] < rows[0]["high"]


def test_intervals_of_means_stay_within_what_is_possible():
    made = made_up(Made(draws=2, seeds=1, subjects=4, noise=0.2))
    for mean in analysed(made)["means"]:
        most = math.inf if mean["measure"].startswith("hd95") else 1.0
        assert mean["low"] is None or 0 <= mean["low"] <= mean["high"] <= most


def test_a_difference_beyond_what_is_possible_has_no_interval():
    made = made_up(Made(draws=2, seeds=1, subjects=4, lost=()))
    for run in made["runs"]:
        if run["arm"] != "default":
            high = run["draw"] == 0
            run["scores"]["dice/foreground"] = dict.fromkeys(made["subjects"], 1.0 if high else 0.1)
    rows = [c for c in analysed(made)["comparisons"] if c["measure"] == "dice/foreground"]
    assert {tuple(row["interval"].values()) for row in rows} == {(None, None)}
    words = verdict({**made, "comparisons": rows})
    assert "the design is too small for an interval" in words["sentence"]


def test_classes_have_their_names():
    made = made_up(Made())
    made["data"]["labels"] = {"background": 0, "Anterior": 1, "Posterior": 2}
    regions = {key: measure["region"] for key, measure in analysed(made)["measures"].items()}
    assert regions == {
        "dice/foreground": "foreground", "dice/2": "Posterior", "hd95/1": "Anterior",
    }  # fmt: skip
