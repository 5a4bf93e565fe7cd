"""What must come out right: copies found, shuffled labels and noise unfaithful, blur seen; kinds
of runs; and the page of docs.
"""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gansynth.metrics import METRICS
from gansynth_evaluate.evaluate import evaluate
from gansynth_evaluate.summary import MEANT
from tests.evaluation.gatherings import (
    assessed,
    blurred,
    copies,
    noise,
    shuffled,
    strangers,
)

pytestmark = pytest.mark.usefixtures("unrendered")


def alarms(document):
    return {alarm["key"]: alarm["text"] for alarm in document["alarms"]}


def attack_on(document):
    """The one test of membership, which is told once, as an alarm or not."""
    (attack,) = document["memorisation"]["membership"]
    raised = [alarm["text"] for alarm in document["alarms"]]
    said = [*raised, *document["words"]["shown"], *document["words"]["not_shown"]]
    (told,) = [text for text in said if "AUC" in text]
    assert f"AUC {attack['auc']:.2f} (95 % CI {attack['low']:.2f} to" in told
    assert (told in raised) == ("reveal, better than chance," in told) == attack["succeeds"]
    assert ("It is not shown" in told) != attack["succeeds"]
    assert attack["succeeds"] == (attack["p"] < 0.05)
    return attack["succeeds"]


def test_strangers_raise_no_alarm_and_no_memory_of_them_is_shown_which_is_said():
    parts = ("realism", "faithfulness", "memorisation")
    document = assessed(strangers(), *parts, metrics=("spectrum", "c2st-cnn"))
    assert document["alarms"] == []
    labels = document["faithfulness"]
    assert labels["finding"] == "faithful"
    assert labels["mean"]["shuffled"] < 0.6 * labels["mean"]["synthetic"]
    memory = document["memorisation"]
    assert (memory["finding"], memory["copies"]["count"]) == ("not shown", 0)
    assert memory["ratio"]["low"] < 1 < memory["ratio"]["high"]
    said = " ".join(document["words"]["not_shown"])
    assert "Nothing in this report makes samples anonymous" in said
    assert "It is not shown that samples are like real subjects: the two-sample tests" in said
    assert not attack_on(document)


def test_a_copied_training_set_raises_the_alarm_with_the_cases_it_is_of():
    document = assessed(copies(), "memorisation")
    memory = document["memorisation"]
    pairs = memory["copies"]["pairs"]
    assert (memory["finding"], memory["copies"]["count"]) == ("copies", 12)
    assert alarms(document).keys() == {"memorisation"}
    assert [pair["case"] for pair in pairs] == [f"toy_{n:02d}" for n in range(12)]
    assert max(pair["ratio"] for pair in pairs) < 0.1
    assert memory["ratio"]["high"] < 0.1
    assert attack_on(document)


def test_lesions_in_cases_own_images_are_copies_that_a_training_may_see():
    put = [replace(s, provenance={**s.provenance, "lesions": {}}) for s in copies()]
    found = assessed(put, "memorisation")
    told = found["alarms"][0]["text"]
    assert "into whose images lesions are put" in told
    assert "to share samples, fit a generator of whole images" in told
    assert {alarm["cure"] for alarm in found["alarms"]} == {MEANT}


def test_noise_is_noisy_but_no_copy():
    found = assessed(noise(), "realism", "memorisation", metrics=("spectrum", "c2st-cnn"))
    assert "noisy" in alarms(found)["spectrum"]
    assert "Samples are distinguishable from real subjects: " in " ".join(found["words"]["shown"])
    assert found["memorisation"]["copies"]["count"] == 0


@pytest.mark.parametrize(
    ("samples", "part", "metrics", "alarm", "says"),
    [
        (shuffled, "faithfulness", (), "faithfulness", "do not show what their labels say"),
        (blurred, "realism", ("spectrum",), "spectrum", "blurred"),
        (lambda: strangers()[:1] * 16, "realism", ("diversity",), "diversity", "mode collapse"),
        (noise, "realism", ("appearance",), "appearance", "stand out from their surround"),
    ],
    ids=["shuffled", "blurred", "one image", "salt"],
)
def test_each_flaw_raises_its_own_alarm_alone(samples, part, metrics, alarm, says):
    found = assessed(samples(), part, metrics=metrics)
    assert alarms(found).keys() == {alarm}
    assert says in alarms(found)[alarm]


FLAT = {"width": 4, "max_width": 8, "latent": 4, "batch_size": 4, "steps": 2, "diversity": 0}


def evaluated(run, *parts):
    asked: Any = {"n": 12, "preset": "quick", "filter": "none", "pictures": False, "device": "cpu"}
    return evaluate(run, only=parts, quiet=True, **asked)


def test_samples_from_noise_are_nobodys_and_without_labels_have_no_faithfulness(toy_fit, tmp_path):
    toy_fit(tmp_path / "run", generator="dcgan", own=FLAT, edits=None)
    found = evaluated(tmp_path / "run", "memorisation", "faithfulness")
    memory = found["memorisation"]
    assert memory["own"] is None
    assert [a["attack"] for a in memory["membership"]] == ["distance", "discriminator"]
    assert found["faithfulness"] == {"why": "the samples have neither label maps nor boxes"}
    assert any("is not known" in text for text in found["words"]["not_shown"])


def test_samples_of_cases_have_a_distance_to_these_and_without_networks_no_critic_is_asked(
    toy_fit, tmp_path
):
    toy_fit(tmp_path / "run", generator="copypaste", own={}, edits=None)
    found = evaluated(tmp_path / "run", "memorisation")
    memory = found["memorisation"]
    assert memory["own"]["samples"] == 12
    assert [a["attack"] for a in memory["membership"]] == ["distance"]
    said = " ".join(found["words"]["not_shown"])
    assert f"Samples lie at {memory['own']['ratio']:.2f} of the usual distance to them" in said


ROOT = Path(__file__).parents[2]


def test_the_page_has_every_metric():
    text = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    table = text.split("## Metrics")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.M)
    assert {name for row in rows for name in re.findall("`(.*?)`", row)} == set(METRICS)
