"""What must come out right: copies are found, shuffled labels and noise unfaithful, blur seen."""

import pytest

from tests.evaluation.gatherings import assessed, blurred, copies, noise, shuffled, strangers


def alarms(document) -> set[str]:
    return {alarm["key"] for alarm in document["alarms"]}


@pytest.fixture(scope="module")
def of_strangers():
    return assessed(
        strangers(), "realism", "faithfulness", "memorisation", metrics=("spectrum", "c2st-knn")
    )


@pytest.fixture(scope="module")
def of_copies():
    return assessed(copies(), "memorisation")


@pytest.fixture(scope="module")
def of_noise():
    return assessed(noise(), "realism", "faithfulness", "memorisation", metrics=("spectrum",))


@pytest.fixture(scope="module")
def of_shuffled():
    return assessed(shuffled(), "faithfulness")


def test_strangers_raise_no_alarm(of_strangers):
    assert of_strangers["alarms"] == []


def test_strangers_are_faithful_to_their_labels(of_strangers):
    found = of_strangers["faithfulness"]
    assert found["finding"] == "faithful"
    assert found["mean"]["shuffled"] < 0.6 * found["mean"]["synthetic"]


def test_no_memory_of_strangers_is_shown(of_strangers):
    found = of_strangers["memorisation"]
    assert found["finding"] == "not shown"
    assert found["copies"]["count"] == 0
    assert found["nearer"]["p"] > 0.05
    assert found["ratio"]["low"] < 1 < found["ratio"]["high"]
    assert [attack["p"] > 0.05 for attack in found["membership"]] == [True]


def test_what_is_not_shown_is_said(of_strangers):
    said = " ".join(of_strangers["words"]["not_shown"])
    assert "Memory is not shown by distances" in said
    assert "That an attacker can tell who was fitted on is not shown" in said
    assert "Nothing in this report makes samples anonymous" in said


def test_a_copied_training_set_raises_the_alarm(of_copies):
    found = of_copies["memorisation"]
    assert found["finding"] == "copies"
    assert found["copies"]["count"] == 12
    assert alarms(of_copies) == {"memorisation"}


def test_near_copies_are_listed_with_the_case_they_are_of(of_copies):
    pairs = of_copies["memorisation"]["copies"]["pairs"]
    assert [pair["case"] for pair in pairs] == [f"toy_{n:02d}" for n in range(12)]
    assert max(pair["ratio"] for pair in pairs) < 0.1


def test_whom_copies_are_of_can_be_told(of_copies):
    (attack,) = of_copies["memorisation"]["membership"]
    assert (attack["auc"], attack["members"], attack["others"]) == (1.0, 12, 4)
    assert attack["p"] < 0.01
    assert of_copies["memorisation"]["ratio"]["high"] < 0.1
    assert any("An attacker can tell" in text for text in of_copies["words"]["shown"])


def test_shuffled_labels_are_unfaithful(of_shuffled):
    assert of_shuffled["faithfulness"]["finding"] == "no more than shuffled labels"
    assert alarms(of_shuffled) == {"faithfulness"}


def test_noise_is_unfaithful_and_noisy_but_no_copy(of_noise):
    found = of_noise["faithfulness"]["mean"]
    assert found["synthetic"] < 0.5 * found["real"]
    assert "spectrum" in alarms(of_noise)
    assert "noisy" in next(a["text"] for a in of_noise["alarms"] if a["key"] == "spectrum")
    assert of_noise["memorisation"]["copies"]["count"] == 0


def test_blur_raises_the_alarm_of_the_spectrum_alone():
    found = assessed(blurred(), "realism", "memorisation", metrics=("spectrum",))
    assert alarms(found) == {"spectrum"}
    assert "blurred" in found["alarms"][0]["text"]


def test_one_image_for_all_raises_the_alarm_of_diversity():
    one = strangers()[:1] * 16
    found = assessed(one, "realism", metrics=("diversity",))
    assert alarms(found) == {"diversity"}
