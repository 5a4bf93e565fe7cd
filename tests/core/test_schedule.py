import numpy as np
import pytest

from gansynth.core.ratio import Ratio
from gansynth.core.schedule import Schedule, ScheduledMix, choose_cases
from gansynth.runtime.errors import UsageFault
from tests.expected import raises_fault

ALL_REAL, HALF, ONLY = Ratio(1, 0), Ratio(1, 1), Ratio(0, 1)


@pytest.mark.parametrize(
    ("text", "meant", "said"),
    [
        ("constant", Schedule(), "constant"),
        ("finetune:2.5%@66.5%", Schedule("finetune", begin=0.665, share=0.025), None),
        ("finetune:100%@80%", Schedule("finetune", begin=0.8, share=1), None),
        ("anneal:50%-75%", Schedule("anneal", begin=0.5, end=0.75), None),
        ("anneal:40%", Schedule("anneal", begin=0.4), "anneal:40%-100%"),
        ("anneal", Schedule("anneal"), "anneal:0%-100%"),
    ],
)
def test_a_schedule_is_read_and_said_as_written(text, meant, said):
    assert Schedule.parse(text) == meant
    assert str(meant) == (said or text)


@pytest.mark.parametrize(
    "text",
    [
        *("", "linear", "constant ", "finetune", "finetune:10%", "finetune:10@80"),
        *("finetune:0%@80%", "finetune:101%@80%", "finetune:10%@0%", "finetune:10%@100%"),
        *("anneal:80%-50%", "anneal:50%-50%", "anneal:50%-101%", "anneal:-5%-10%"),
    ],
)
def test_a_malformed_schedule_is_refused_with_its_text(text):
    with pytest.raises(UsageFault) as caught:
        Schedule.parse(text)
    assert repr(text) in str(caught.value)
    assert "finetune:10%@80%" in str(caught.value)


@pytest.mark.parametrize(
    ("text", "ratio", "expected"),
    [
        ("finetune:10%@80%", HALF, "schedule.ratio-with-real-cases"),
        ("anneal", ALL_REAL, "schedule.nothing-to-anneal"),
    ],
)
def test_a_ratio_that_a_schedule_has_no_use_for_is_refused(text, ratio, expected):
    with raises_fault(expected, names=f"--ratio {ratio} with --schedule {text}"):
        Schedule.parse(text).check(ratio)


@pytest.mark.parametrize(
    ("text", "ratio", "progress", "expected"),
    [
        ("constant", HALF, 1.0, ScheduledMix(0.5, "all")),
        ("constant", ONLY, 0.5, ScheduledMix(1.0, "none")),
        ("finetune:10%@80%", ONLY, 0.7999, ScheduledMix(1.0, "none")),
        ("finetune:10%@80%", ONLY, 0.8, ScheduledMix(0.0, "chosen")),
        ("anneal:50%-100%", HALF, 0.5, ScheduledMix(0.5, "all")),
        ("anneal:50%-100%", HALF, 0.75, ScheduledMix(0.25, "all")),
        ("anneal:50%-75%", HALF, 0.9, ScheduledMix(0.0, "all")),
        # Before it changes, a ratio of 0:1 is a phase of synthetic samples only, as everywhere.
        ("anneal:50%-100%", ONLY, 0.25, ScheduledMix(1.0, "none")),
        ("anneal:50%-100%", ONLY, 0.75, ScheduledMix(0.5, "all")),
    ],
)
def test_a_schedule_gives_share_and_real_cases_of_a_moment(text, ratio, progress, expected):
    assert Schedule.parse(text).at(progress, ratio) == expected


@pytest.mark.parametrize(("begin", "end"), [(0.0, 0.4), (0.3, 0.7), (0.45, 0.95), (0.6, 0.6)])
@pytest.mark.parametrize(
    ("text", "ratio"),
    [("constant", Ratio(2, 1)), ("finetune:10%@50%", ONLY), ("anneal:35%-65%", Ratio(1, 3))],
)
def test_the_share_asked_for_is_the_mean_of_all_moments(text, ratio, begin, end):
    schedule = Schedule.parse(text)
    moments = begin + (end - begin) * (np.arange(5000) + 0.5) / 5000
    mean = np.mean([schedule.at(float(moment), ratio).p for moment in moments])
    assert schedule.share_of(ratio, begin, end) == pytest.approx(mean, abs=2e-4)


def test_fine_tuning_goes_through_the_whole_rate_schedule_again():
    schedule = Schedule.parse("finetune:10%@80%")
    asked = [schedule.restarted(step, 20) for step in range(20)]
    assert asked[0] == asked[16] == 0
    assert asked[:16] == pytest.approx(np.arange(16) * 20 / 16)
    assert asked[16:] == pytest.approx(np.arange(4) * 20 / 4)
    assert schedule.tuning_note(100, "epoch", ours=False).startswith(
        "WARNING: fine-tuning begins after 80 of 100 epochs, at the value of the host's"
    )
    other = Schedule.parse("anneal:50%-100%")
    assert [other.restarted(step, 7) for step in range(8)] == list(range(8))
    assert other.tuning_note(7, "epoch", ours=False) == ""


TWO_EACH = {f"p{i}_{side}": f"p{i}" for i in range(10) for side in ("left", "right")}


@pytest.mark.parametrize(("share", "cases"), [(0.1, 2), (0.05, 2), (0.11, 4), (1, 20)])
def test_the_fewest_whole_subjects_that_reach_the_share_are_chosen(share, cases):
    chosen = choose_cases(TWO_EACH, share, seed=0)
    assert len(chosen) == cases
    assert list(chosen) == sorted(chosen)
    people = {TWO_EACH[case] for case in chosen}
    assert {case for case, person in TWO_EACH.items() if person in people} == set(chosen)


def test_neither_none_nor_one_too_many_is_chosen_by_rounding():
    # 0.07 * 100 is 7.000000000000001
    assert len(choose_cases({i: str(i) for i in range(100)}, 0.07, seed=0)) == 7
    assert len(choose_cases({0: "a", 1: "b"}, 1e-6, seed=0)) == 1
    assert choose_cases({}, 0.5, seed=0) == ()


def test_the_choice_depends_on_the_seed_and_not_on_the_order():
    backwards = dict(reversed(TWO_EACH.items()))
    assert choose_cases(TWO_EACH, 0.3, seed=1) == choose_cases(backwards, 0.3, seed=1)
    assert len({choose_cases(TWO_EACH, 0.3, seed=seed) for seed in range(8)}) > 4
