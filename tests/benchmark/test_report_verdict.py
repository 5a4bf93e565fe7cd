"""The verdict claims what its intervals show, and no more."""

from copy import deepcopy
from typing import Any

import pytest

from gansynth.benchmark.report.verdict import verdict
from tests.benchmark import documents

MARGIN = 0.005


def comparison(arm: str, n: int, difference: float | None, half: float, **more: Any) -> Any:
    """One of the primary measure, its interval as wide to both sides; p fits it unless given."""
    shown = difference is not None and abs(difference) > half
    found = {
        "arm": arm,
        "n": n,
        "measure": "dice/foreground",
        "difference": difference,
        "interval": {"low": None, "high": None},
        "p_holm": 0.001 if shown else 0.4,
        "mde": round(1.4 * half, 4),
        "margin": MARGIN,
        "equivalence_p": 0.004,
        "equivalent": difference is not None and abs(difference) + half < MARGIN,
    }
    if difference is not None:
        found["interval"] = {"low": difference - half, "high": difference + half}
    return found | more


def document(*comparisons: Any, sizes: tuple[int, ...] = (6,), **more: Any) -> dict[str, Any]:
    """Results with the given comparisons alone."""
    arms = {
        "default": {"title": "usual augmentation", "generator": None},
        "gan": {"title": "a GAN", "generator": "cgan"},
        "other": {"title": "another GAN", "generator": "cgan"},
        "elastic": {"title": "elastic control", "generator": "elastic"},
        "double": {"title": "twice the real cases", "generator": None},
    }
    used = {"default", *(c["arm"] for c in comparisons)}
    return {
        "host": {"target": "nnunet", "title": "nnU-Net", "steps": 500},
        "look": {"split": "sealed", "number": 1, "log": []},
        "primary": "dice/foreground",
        "control": "default",
        "measures": {"dice/foreground": documents.DICE},
        "sizes": list(sizes),
        "arms": {key: arm for key, arm in arms.items() if key in used},
        "plan": {
            "arms": [{"name": "double", "real": 2}],
            "generators": {"cgan": {"plugin": "cgan3d"}, "elastic": {"plugin": "elastic"}},
        },
        "comparisons": list(comparisons),
    } | more


def said(*comparisons: Any, **more: Any) -> str:
    """The sentence."""
    sentence = verdict(document(*comparisons, **more))["sentence"]
    assert isinstance(sentence, str)
    return sentence


def test_a_gain_is_said_with_its_interval_host_size_and_control():
    assert said(comparison("gan", 6, 0.012, 0.007)) == (
        "On nnU-Net, trained on 6 subjects, against “usual augmentation”: Dice is better by "
        "1.20 points (95 % CI 0.50 to 1.90) with “a GAN”."
    )


def test_a_loss_is_said_as_plainly_as_a_gain():
    sentence = said(comparison("gan", 6, -0.012, 0.007))
    assert "Dice is worse by 1.20 points (95 % CI 0.50 to 1.90) with “a GAN”" in sentence
    assert "better" not in sentence


def test_no_effect_within_the_margin_is_a_finding():
    found = verdict(document(comparison("gan", 6, 0.001, 0.002)))
    assert (
        "Dice changes by +0.10 points (95 % CI −0.10 to +0.30) with “a GAN”, no effect beyond "
        "± 0.50 points."
    ) in found["sentence"]
    assert found["per_arm"]["gan"] == (
        "At N = 6 there is no effect beyond ± 0.50 points: +0.10 points "
        "(95 % CI −0.10 to +0.30), p = 0.004 for lying within."
    )


def test_what_is_not_shown_stands_with_its_interval_before_what_would_have_been_seen():
    found = verdict(document(comparison("gan", 6, 0.004, 0.01)))
    assert found["sentence"].endswith(
        ": Dice changes by +0.40 points (95 % CI −0.60 to +1.40) with “a GAN”, so neither gain nor "
        "loss is shown; a gain of 1.40 points would have been seen with 80 % power."
    )
    assert found["per_arm"]["gan"] == (
        "At N = 6: +0.40 points (95 % CI −0.60 to +1.40), p = 0.400 after Holm, so neither gain "
        "nor loss is shown; a gain of 1.40 points would have been seen with 80 % power."
    )


@pytest.mark.parametrize("p", [0.05, 0.2, None])
@pytest.mark.parametrize("side", [1, -1])
def test_an_interval_without_zero_shows_nothing_if_holm_does_not_agree(p, side):
    sentence = said(comparison("gan", 6, side * 0.012, 0.007, p_holm=p))
    assert "with “a GAN”, so neither gain nor loss is shown" in sentence
    assert "better" not in sentence
    assert "worse" not in sentence


def test_why_an_interval_without_zero_shows_nothing_is_said():
    found = verdict(
        document(
            comparison("gan", 6, 0.012, 0.007, p=0.014, p_holm=0.056),
            comparison("other", 6, 0.001, 0.007, p=0.7, p_holm=1.0),
        )
    )
    why = "leaves zero out, but p = 0.014 is 0.056 after Holm's correction for 2 comparisons"
    assert f"; the interval of “a GAN” {why};" in found["sentence"]
    assert f"; the interval {why};" in found["per_arm"]["gan"]
    assert "leaves zero out" not in found["per_arm"]["other"]


def test_an_interval_without_zero_that_no_test_follows_is_of_too_few():
    sentence = said(comparison("gan", 6, 0.012, 0.007, p=None, p_holm=None))
    assert "leaves zero out, but draws and subjects are too few for a test to follow it" in sentence


def test_a_gain_that_there_is_no_room_for_is_not_said_to_have_been_seen():
    sentence = said(comparison("gan", 6, 0.004, 0.2, mean_control=0.9))
    assert "the design is too small to see even the largest gain that there is room for" in sentence
    assert "would have been seen" not in sentence


def test_gains_that_there_is_room_for_are_told_from_others():
    sentence = said(
        comparison("gan", 6, 0.004, 0.2, mean_control=0.9),
        comparison("other", 6, 0.004, 0.02, mean_control=0.9),
    )
    assert (
        "a gain of 2.80 points would have been seen with 80 % power, elsewhere none that there is "
        "room for"
    ) in sentence


def test_a_small_p_shows_nothing_if_the_interval_holds_zero():
    sentence = said(comparison("gan", 6, 0.006, 0.007, p_holm=0.01))
    assert "neither gain nor loss is shown" in sentence


def test_a_gain_within_the_margin_is_said_to_be_that():
    found = verdict(document(comparison("gan", 6, 0.002, 0.001)))
    assert "with “a GAN”, within the margin that makes no difference." in found["sentence"]
    assert "a gain is shown: +0.20 points" in found["per_arm"]["gan"]
    assert "yet within the margin of ± 0.50 points" in found["per_arm"]["gan"]


def test_sizes_are_named_where_they_differ():
    sentence = said(
        comparison("gan", 6, 0.012, 0.007), comparison("gan", 12, 0.001, 0.01), sizes=(6, 12)
    )
    assert "trained on 6 and 12 subjects" in sentence
    assert "with “a GAN” at N = 6;" in sentence
    assert "+0.10 points (95 % CI −0.90 to +1.10) with “a GAN” at N = 12, so" in sentence


def test_effects_at_all_sizes_are_one_range():
    sentence = said(
        comparison("gan", 6, 0.012, 0.007), comparison("gan", 12, 0.02, 0.007), sizes=(6, 12)
    )
    assert "1.20 to 2.00 points (95 % CIs within 0.50 to 2.70) with “a GAN”." in sentence


def test_a_rival_without_a_gan_that_does_as_well_is_named():
    found = verdict(
        document(comparison("gan", 6, 0.012, 0.005), comparison("elastic", 6, 0.013, 0.005))
    )
    assert "so no GAN is needed: “elastic control” does as well" in found["sentence"]
    assert "“elastic control” does as well without a GAN (+1.30)" in found["per_arm"]["gan"]
    assert "without a GAN" not in found["per_arm"]["elastic"]


def test_a_rival_that_is_not_told_apart_is_named_but_not_called_as_good():
    sentence = said(comparison("gan", 6, 0.012, 0.005), comparison("elastic", 6, 0.006, 0.008))
    assert "not told apart from “elastic control”, which needs no GAN" in sentence
    assert "no GAN is needed" not in sentence


def test_a_rival_that_is_clearly_behind_is_not_held_against_the_gan():
    sentence = said(comparison("gan", 6, 0.02, 0.005), comparison("elastic", 6, 0.001, 0.002))
    assert "needs no GAN" not in sentence
    assert "no GAN is needed" not in sentence


def test_a_rival_at_another_size_is_not_held_against_the_gan():
    sentence = said(
        comparison("gan", 6, 0.012, 0.005), comparison("elastic", 12, 0.013, 0.005), sizes=(6, 12)
    )
    assert "no GAN is needed" not in sentence


def test_a_gain_of_rivals_alone_is_not_credited_to_a_gan():
    sentence = said(comparison("gan", 6, 0.002, 0.01), comparison("elastic", 6, 0.013, 0.005))
    assert "Dice is better without a GAN, by 1.30 points" in sentence
    assert "with “a GAN”, so neither gain nor loss is shown" in sentence


def test_more_real_cases_are_a_yardstick_not_a_rival():
    sentence = said(comparison("gan", 6, 0.012, 0.005), comparison("double", 6, 0.03, 0.005))
    assert "to compare: by 3.00 points (95 % CI 2.50 to 3.50) with “twice the real" in sentence
    assert "no GAN is needed" not in sentence


def test_a_yardstick_without_a_gain_is_said_to_have_none():
    sentence = said(comparison("gan", 6, 0.002, 0.02), comparison("double", 6, 0.01, 0.02))
    assert "no gain is shown even for “twice the real cases”" in sentence
    assert sentence.endswith("“twice the real cases”.")


def test_a_difference_without_an_interval_claims_nothing():
    found = verdict(
        document(comparison("gan", 6, 0.012, 0.007, interval=None, p_holm=None, mde=None))
    )
    assert "with “a GAN”, so neither gain nor loss is shown." in found["sentence"]
    assert found["per_arm"]["gan"] == (
        "At N = 6: +1.20 points, the design is too small for an interval."
    )


@pytest.mark.parametrize(
    ("reach", "limits"),
    [
        ("draws, seeds, subjects", ""),
        ("seeds, subjects", "; intervals say nothing of other draws"),
        ("subjects", "; intervals say nothing of other draws and seeds"),
        ("nothing", "; intervals say nothing of other draws, seeds and subjects"),
    ],
)
def test_what_a_gain_does_not_hold_for_is_said(reach, limits):
    sentence = said(comparison("gan", 6, 0.012, 0.007, generalises=reach))
    assert sentence.endswith(f"with “a GAN”{limits}.")


def test_a_measure_of_which_less_is_better_is_turned_around():
    made = document(
        comparison("gan", 6, -0.4, 0.1, margin=0.1), comparison("other", 6, 0.5, 0.1, margin=0.1)
    )
    made["measures"] = {"dice/foreground": documents.HD95}
    found = verdict(made)
    assert "HD95 (1) is better by 0.40 mm (95 % CI 0.30 to 0.50) with “a GAN”" in found["sentence"]
    assert "is worse by 0.50 mm (95 % CI 0.40 to 0.60) with “another GAN”" in found["sentence"]
    assert "a gain is shown: −0.40 mm (95 % CI −0.50 to −0.30)" in found["per_arm"]["gan"]


def test_a_development_look_says_so_first():
    look = {"split": "development", "number": 3}
    assert said(comparison("gan", 6, 0.012, 0.007), look=look).startswith(
        "Development look, no test result: on nnU-Net"
    )


def test_an_arm_that_was_not_finished_is_named():
    made = document(comparison("gan", 6, 0.012, 0.007), comparison("other", 6, None, 0.1))
    made["runs"] = [
        {"arm": "other", "n": 6, "draw": draw, "seed": 0, "status": status}
        for draw, status in enumerate(("failed", "failed", "done"))
    ]
    found = verdict(made)
    assert "nothing was finished of “another GAN”" in found["sentence"]
    assert found["per_arm"]["other"] == "At N = 6 nothing was finished (2 of 3 runs failed)."


def test_nothing_finished_and_nothing_compared_are_said():
    assert "nothing can be said" in verdict(documents.all_failed())["sentence"]
    assert "nothing is compared" in verdict(documents.one_arm())["sentence"]
    assert verdict(documents.minimal())["per_arm"] == {}


def test_more_arms_than_a_sentence_holds_are_others():
    arms = [f"gan{i}" for i in range(6)]
    made = document(*(comparison(arm, 6, 0.002, 0.01) for arm in arms))
    made["arms"] |= {arm: {"title": arm, "generator": "cgan"} for arm in arms}
    found = verdict(made)
    assert "(95 % CI −0.80 to +1.20) with “gan2” and others, so" in found["sentence"]
    assert set(found["per_arm"]) == set(arms)


@pytest.mark.parametrize("name", documents.EVERY)
def test_the_document_is_left_as_it_was_and_the_words_are_the_same_again(name):
    made = documents.EVERY[name]()
    before = deepcopy(made)
    assert verdict(made) == verdict(made)
    assert made == before
