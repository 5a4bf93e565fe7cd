from functools import partial
from typing import Any

import pytest

from gansynth_benchmark.report.verdict import verdict
from tests.benchmark import documents

MARGIN = 0.005
ARMS: dict[str, dict[str, Any]] = {
    "default": {"title": "usual augmentation", "generator": None},
    "gan": {"title": "a GAN", "generator": "cgan"},
    "other": {"title": "another GAN", "generator": "cgan"},
    "elastic": {"title": "elastic control", "generator": "elastic"},
    "double": {"title": "twice the real cases", "generator": None, "real": 2},
}


def comparison(arm: str, difference: float | None, half: float, n: int = 6, **more: Any) -> Any:
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


gan, other, elastic, double = (partial(comparison, arm) for arm in list(ARMS)[1:])
GAIN = gan(0.012, 0.007)
PRECISION, ALARMS = "lesion_precision/foreground", "false_alarms/foreground"
BESIDE = {PRECISION: documents.DICE, ALARMS: {**documents.DICE, "better": "lower"}}


def document(*comparisons: Any, **more: Any) -> dict[str, Any]:
    used = {"default", *(c["arm"] for c in comparisons)}
    return {
        "host": {"target": "nnunet", "title": "nnU-Net", "steps": 500},
        "look": {"split": "sealed", "number": 1, "log": []},
        "primary": "dice/foreground",
        "control": "default",
        "measures": {"dice/foreground": documents.DICE}
        | {key: BESIDE[key] for c in comparisons if (key := c["measure"]) in BESIDE},
        "sizes": sorted({c["n"] for c in comparisons}),
        "arms": {key: arm for key, arm in ARMS.items() if key in used},
        "plan": {
            "arms": [{"name": key, **arm} for key, arm in ARMS.items()],
            "generators": {"cgan": {"generator": "cgan3d"}, "elastic": {"generator": "elastic"}},
        },
        "comparisons": list(comparisons),
    } | more


CLAIMS: list[tuple[str, list[Any], list[str]]] = [
    ("a gain is said with its interval, host, size and control, and that no yardstick was set",
     [GAIN],
     ["= This plan cannot tell what helps: no arm has more real cases. On nnU-Net, "
      "trained on 6 subjects, against “usual augmentation”: Dice is better by "
      "1.20 points (95 % CI 0.50 to 1.90) with “a GAN”."]),
    ("no effect within the margin is a finding", [gan(0.001, 0.002)],
     ["Dice changes by +0.10 points (95 % CI −0.10 to +0.30) with “a GAN”, no effect beyond "
      "± 0.50 points.",
      "gan = At N = 6 there is no effect beyond ± 0.50 points: +0.10 points (95 % CI −0.10 to "
      "+0.30), p = 0.004 for lying within."]),
    ("what is not shown stands with its interval before what would have been seen",
     [gan(0.004, 0.01)],
     [": Dice changes by +0.40 points (95 % CI −0.60 to +1.40) with “a GAN”, so neither gain "
      "nor loss is shown; a gain of 1.40 points would have been seen with 80 % power.",
      "gan = At N = 6: +0.40 points (95 % CI −0.60 to +1.40), p = 0.400 after Holm, so neither "
      "gain nor loss is shown; a gain of 1.40 points would have been seen with 80 % power."]),
    ("why it shows nothing is said",
     [gan(0.012, 0.007, p=0.014, p_holm=0.056), other(0.001, 0.007, p=0.7, p_holm=1.0)],
     ["; the interval of “a GAN” leaves zero out, but p = 0.014 is 0.056 after Holm's "
      "correction for 2 comparisons;",
      "gan ; the interval leaves zero out, but p = 0.014 is 0.056 after Holm's correction for "
      "2 comparisons;",
      "other ! leaves zero out"]),
    ("no test follows it of too few", [gan(0.012, 0.007, p=None, p_holm=None)],
     ["leaves zero out, but draws and subjects are too few for a test to follow it"]),
    ("a small p shows nothing if the interval holds zero", [gan(0.006, 0.007, p_holm=0.01)],
     ["neither gain nor loss is shown"]),
    ("gains that there is room for are told from others",
     [gan(0.004, 0.2, mean_control=0.9), other(0.004, 0.02, mean_control=0.9)],
     ["a gain of 2.80 points would have been seen with 80 % power, elsewhere none that there "
      "is room for"]),
    ("a gain within the margin is said to be that", [gan(0.002, 0.001)],
     ["with “a GAN”, within the margin that makes no difference.",
      "gan a gain is shown: +0.20 points",
      "gan yet within the margin of ± 0.50 points"]),
    ("effects at all sizes are one range", [GAIN, gan(0.02, 0.007, 12)],
     ["1.20 to 2.00 points (95 % CIs within 0.50 to 2.70) with “a GAN”."]),
    ("a rival without a GAN that does as well is named", [gan(0.012, 0.005), elastic(0.013, 0.005)],
     ["so no GAN is needed: “elastic control” does as well",
      "gan “elastic control” does as well without a GAN (+1.30)",
      "elastic ! without a GAN"]),
    ("a rival that is not told apart is not called as good",
     [gan(0.012, 0.005), elastic(0.006, 0.008)],
     ["not told apart from “elastic control”, which needs no GAN", "! no GAN is needed"]),
    ("a rival that is clearly behind is not held against the GAN",
     [gan(0.02, 0.005), elastic(0.001, 0.002)], ["! needs no GAN", "! no GAN is needed"]),
    ("a rival at another size is not held against the GAN",
     [gan(0.012, 0.005), elastic(0.013, 0.005, 12)], ["! no GAN is needed"]),
    ("a gain of rivals alone is not credited to a GAN", [gan(0.002, 0.01), elastic(0.013, 0.005)],
     ["Dice is better by 1.30 points", " with “elastic control”, without a GAN; Dice changes",
      "with “a GAN”, so neither gain nor loss is shown"]),
    ("more real cases are a yardstick, not a rival", [gan(0.012, 0.005), double(0.03, 0.005)],
     ["to compare: Dice is better by 3.00 points (95 % CI 2.50 to 3.50) with “twice the real",
      "! no GAN is needed", "! cannot tell"]),
    ("a yardstick with a gain at one size says at which others the plan cannot tell",
     [gan(0.002, 0.02), double(0.03, 0.005), gan(0.002, 0.02, 12), double(0.01, 0.02, 12)],
     ["This plan cannot tell what helps: “twice the real cases” at N = 12 is not shown to "
      "help. On "]),
    ("a difference without an interval claims nothing",
     [gan(0.012, 0.007, interval=None, p_holm=None, mde=None)],
     ["with “a GAN”, so neither gain nor loss is shown.",
      "gan = At N = 6: +1.20 points (the design is too small for an interval)."]),
    ("what a gain costs is said with its intervals, and Holm's correction hides no harm",
     [GAIN, gan(-0.12, 0.07, measure=PRECISION, p_holm=0.2), gan(0.11, 0.04, measure=ALARMS)],
     [" with “a GAN”; this costs 12.00 points of lesion precision (95 % CI 5.00 to 19.00), "
      "and 11.00 more alarms per 100 lesion-free cases (95 % CI 7.00 to 15.00).",
      "gan p = 0.001 after Holm; this costs 12.00 points of lesion precision (95 % CI 5.00"]),
    ("a gain without a cost says what the intervals leave open",
     [GAIN, gan(-0.01, 0.03, measure=PRECISION), gan(0.02, 0.03, measure=ALARMS)],
     ["; this costs no false alarms that this plan can show: −1.00 points of lesion precision "
      "(95 % CI −4.00 to +2.00), and +2.00 alarms per 100 lesion-free cases (95 % CI −1.00 to "
      "+5.00)."]),
    ("alarms of an arm without a gain are said",
     [other(0.02, 0.03), other(-0.06, 0.04, measure=PRECISION),
      other(0.02, 0.03, measure=ALARMS)],
     ["neither gain nor loss is shown", "; a cost without a gain: 6.00 points of lesion "
      "precision (95 % CI 2.00 to 10.00)."]),
    ("one cost is shown and the other is not; each arm is named",
     [GAIN, other(0.02, 0.007), gan(-0.12, 0.07, measure=PRECISION),
      other(-0.06, 0.04, measure=PRECISION), gan(0.02, 0.03, measure=ALARMS)],
     ["; this costs 12.00 points of lesion precision (95 % CI 5.00 to 19.00) with “a GAN” and "
      "6.00 (95 % CI 2.00 to 10.00) with “another GAN”; no other cost is shown: +2.00 alarms "
      "per 100 lesion-free cases (95 % CI −1.00 to +5.00) with “a GAN”."]),
    ("without an interval no cost is shown and none is denied",
     [GAIN, gan(0.11, 0, measure=ALARMS, interval=None), gan(None, 0, measure=PRECISION)],
     ["; +11.00 alarms per 100 lesion-free cases (the design is too small for an interval).",
      "! costs"]),
    ("without a lesion-free case that is said", [GAIN, gan(None, 0, measure=ALARMS)],
     ["; no lesion-free case is judged.", "! costs"]),
    *(
        (f"a gain that holds for {reach}", [gan(0.012, 0.007, generalises=reach)],
         [f"with “a GAN”{limits}."])
        for reach, limits in {
            "draws, seeds, subjects": "",
            "subjects": "; intervals say nothing of other draws and seeds",
            "nothing": "; intervals say nothing of other draws, seeds and subjects",
        }.items()
    ),
]  # fmt: skip
"""What is claimed of which comparisons: ``[ARM ]WORDS``; ``!`` without the words, ``=`` exactly."""


@pytest.mark.parametrize(
    ("compared", "words"), [claim[1:] for claim in CLAIMS], ids=[claim[0] for claim in CLAIMS]
)
def test_the_verdict_claims_no_more_than_its_comparisons_show(compared, words):
    found = verdict(document(*compared))
    for said in words:
        arm, _, rest = said.partition(" ")
        text = found["per_arm"][arm] if arm in ARMS else found["sentence"]
        told = rest if arm in ARMS else said
        if told.startswith("! "):
            assert told[2:] not in text
        elif told.startswith("= "):
            assert text == told[2:]
        else:
            assert told in text


def test_a_measure_of_which_less_is_better_is_turned_around():
    measures = {"dice/foreground": documents.HD95}
    made = document(gan(-0.4, 0.1, margin=0.1), other(0.5, 0.1, margin=0.1), measures=measures)
    found = verdict(made)
    assert "HD95 (1) is better by 0.40 mm (95 % CI 0.30 to 0.50) with “a GAN”" in found["sentence"]
    assert "is worse by 0.50 mm (95 % CI 0.40 to 0.60) with “another GAN”" in found["sentence"]
    assert "a gain is shown: −0.40 mm (95 % CI −0.50 to −0.30)" in found["per_arm"]["gan"]


def test_a_development_look_says_so_and_an_arm_that_was_not_finished_is_named():
    runs = [
        {"arm": "other", "n": 6, "draw": draw, "seed": 0, "status": status}
        for draw, status in enumerate(("failed", "failed", "done"))
    ]
    look = {"split": "development", "number": 3}
    found = verdict(document(GAIN, other(None, 0.1), runs=runs, look=look))
    assert "Development look, no test result: on nnU-Net" in found["sentence"]
    assert "nothing was finished of “another GAN”" in found["sentence"]
    assert found["per_arm"]["other"] == "At N = 6 nothing was finished (2 of 3 runs failed)."


def test_where_the_control_differs_from_itself_no_difference_is_sure():
    made = document(GAIN, other(0.05, 0.01))
    [again] = [arm for arm in made["plan"]["arms"] if arm["name"] == "other"]
    again["again"] = True
    sentence = verdict(made)["sentence"]
    assert "chance alone changes Dice by +5.00 points (95 % CI +4.00 to +6.00)" in sentence
    assert "so no difference here is sure" in sentence


def test_nothing_finished_and_nothing_compared_are_said():
    assert "nothing can be said" in verdict(documents.minimal())["sentence"]
    assert "nothing is compared" in verdict(documents.alone())["sentence"]


def test_more_arms_than_a_sentence_holds_are_others():
    arms = [f"gan{i}" for i in range(6)]
    made = document(*(comparison(arm, 0.002, 0.01) for arm in arms))
    made["arms"] |= {arm: {"title": arm, "generator": "cgan"} for arm in arms}
    made["plan"]["arms"] += [{"name": arm, "generator": "cgan"} for arm in arms]
    found = verdict(made)
    assert "(95 % CI −0.80 to +1.20) with “gan2” and others, so" in found["sentence"]
    assert set(found["per_arm"]) == set(arms)
