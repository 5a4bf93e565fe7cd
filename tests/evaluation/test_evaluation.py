"""What must come out right: copies found, shuffled labels and noise unfaithful, blur seen; kinds
of runs; and the page of docs.
"""

import re
import runpy
from pathlib import Path

import pytest

from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_fit import fit_composite
from gansynth.fitting.composite_spec import PerChannel
from gansynth.metrics import METRICS
from gansynth.runtime.progress import NullReporter
from gansynth_evaluate.evaluate import evaluate
from tests.evaluation.gatherings import (
    assessed,
    blurred,
    copies,
    noise,
    shuffled,
    strangers,
)

TEST = "c2st-cnn"
"""The two-sample test."""


def alarms(document):
    return {alarm["key"]: alarm["text"] for alarm in document["alarms"]}


@pytest.fixture(scope="module")
def of_strangers():
    parts = ("realism", "faithfulness", "memorisation")
    return assessed(strangers(), *parts, metrics=("spectrum", TEST))


@pytest.fixture(scope="module")
def of_copies():
    return assessed(copies(), "memorisation")


def test_strangers_raise_no_alarm_and_are_faithful_to_their_labels(of_strangers):
    assert of_strangers["alarms"] == []
    found = of_strangers["faithfulness"]
    assert found["finding"] == "faithful"
    assert found["mean"]["shuffled"] < 0.6 * found["mean"]["synthetic"]


def test_no_memory_of_strangers_is_shown_which_is_said(of_strangers):
    found = of_strangers["memorisation"]
    assert (found["finding"], found["copies"]["count"]) == ("not shown", 0)
    assert found["ratio"]["low"] < 1 < found["ratio"]["high"]
    said = " ".join(of_strangers["words"]["not_shown"])
    assert "Nothing in this report makes samples anonymous" in said
    assert "It is not shown that samples are like real subjects: the two-sample tests" in said


def test_a_copied_training_set_raises_the_alarm_with_the_cases_it_is_of(of_copies):
    found = of_copies["memorisation"]
    pairs = found["copies"]["pairs"]
    assert (found["finding"], found["copies"]["count"]) == ("copies", 12)
    assert alarms(of_copies).keys() == {"memorisation"}
    assert [pair["case"] for pair in pairs] == [f"toy_{n:02d}" for n in range(12)]
    assert max(pair["ratio"] for pair in pairs) < 0.1
    assert found["ratio"]["high"] < 0.1


@pytest.mark.parametrize("samples", ["of_strangers", "of_copies"])
def test_the_alarm_and_the_list_are_of_one_test_which_is_told_once(samples, request):
    found = request.getfixturevalue(samples)
    (attack,) = found["memorisation"]["membership"]
    assert attack["succeeds"] == (attack["p"] < 0.05) == (samples == "of_copies")
    raised = [alarm["text"] for alarm in found["alarms"]]
    said = [*raised, *found["words"]["shown"], *found["words"]["not_shown"]]
    (told,) = [text for text in said if "AUC" in text]
    assert f"AUC {attack['auc']:.2f} (95 % CI {attack['low']:.2f} to" in told
    assert (told in raised) == ("reveal, better than chance," in told) == attack["succeeds"]
    assert ("It is not shown" in told) != attack["succeeds"]


def test_noise_is_noisy_but_no_copy():
    found = assessed(noise(), "realism", "memorisation", metrics=("spectrum", TEST))
    assert "noisy" in alarms(found)["spectrum"]
    assert "Samples are distinguishable from real subjects: " in " ".join(found["words"]["shown"])
    assert found["memorisation"]["copies"]["count"] == 0


@pytest.mark.slow
def test_noise_is_unfaithful():
    mean = assessed(noise(), "faithfulness")["faithfulness"]["mean"]
    assert mean["synthetic"] < 0.5 * mean["real"]


@pytest.mark.parametrize(
    ("samples", "part", "metrics", "alarm", "says"),
    [
        (shuffled, "faithfulness", (), "faithfulness", "no more than shuffled labels"),
        (blurred, "realism", ("spectrum",), "spectrum", "blurred"),
        (lambda: strangers()[:1] * 16, "realism", ("diversity",), "diversity", ""),
        (noise, "realism", ("appearance",), "appearance", "stand out from their surround"),
    ],
    ids=["shuffled", "blurred", "one image", "salt"],
)
def test_each_flaw_raises_its_own_alarm_alone(samples, part, metrics, alarm, says):
    found = assessed(samples(), part, metrics=metrics)
    assert alarms(found).keys() == {alarm}
    if part == "faithfulness":
        assert found[part]["finding"] == says
    assert says in alarms(found)[alarm] or part == "faithfulness"


SMALL = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 1, "batch_size": 1, "steps": 4}
FLAT = {"width": 4, "max_width": 8, "latent": 4, "batch_size": 4, "steps": 4, "diversity": 0}


def evaluated(run, *parts):
    metrics = ("spectrum", "diversity") if "realism" in parts else ()
    return evaluate(
        run,
        n=12,
        only=parts,
        metric=metrics,
        preset="quick",
        filter="none",
        pictures=False,
        device="cpu",
        quiet=True,
    )


def test_a_model_per_channel_is_evaluated_as_one(toy_source, tmp_path):
    texts = {key: str(value) for key, value in SMALL.items()}
    fit_composite(
        *(PerChannel("cgan3d"), SourceRequest("toy", "2"), tmp_path / "run"),
        settings=texts,
        edits=("flip",),
        device="cpu",
        reporter=NullReporter(),
    )
    found = evaluated(tmp_path / "run", "realism", "memorisation")
    assert found["images"]["channels"] == ["first", "second"]
    assert {figure["metric"] for figure in found["figures"]} == {"spectrum", "diversity"}
    assert found["words"]["not_shown"][0].split("; ")[0] in (tmp_path / "run/card.md").read_text()
    assert [a["attack"] for a in found["memorisation"]["membership"]] == ["distance"]


def test_samples_from_noise_are_nobodys_and_without_labels_have_no_faithfulness(toy_fit, tmp_path):
    toy_fit(tmp_path / "run", generator="dcgan", own=FLAT, edits=None)
    found = evaluated(tmp_path / "run", "realism", "memorisation", "faithfulness")
    memory = found["memorisation"]
    assert memory["own"] is None
    assert [a["attack"] for a in memory["membership"]] == ["distance", "discriminator"]
    assert found["faithfulness"] == {"why": "the samples have neither label maps nor boxes"}
    assert any("is not known" in text for text in found["words"]["not_shown"])


ROOT = Path(__file__).parents[2]


def test_the_pages_tables_are_those_of_the_results_and_have_every_metric():
    filled = runpy.run_path(str(ROOT / "benchmarks" / "scripts" / "table_evaluate.py"))["filled"]
    text = (ROOT / "docs" / "evaluate.md").read_text(encoding="utf-8")
    assert filled(text) == text, "run: python benchmarks/scripts/table_evaluate.py"
    table = text.split("## Metrics")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", table, re.M)
    assert {name for row in rows for name in re.findall("`(.*?)`", row)} == set(METRICS)
