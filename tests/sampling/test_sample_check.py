from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import gansynth
from gansynth.core.schema import Sample
from gansynth.core.source import lineage_of
from gansynth.runtime.progress import NullReporter
from gansynth.sampling import evaluation_data
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from tests.evaluation.gatherings import blurred, strangers
from tests.flat_sets import pictures
from tests.producers import fill_here, forked_producers

SHORT = ("--steps", 2, "--width", 4, "--levels", 2, "--batch-size", 2)
LESIONS = ("--lesions", "add", "--prevalence", 1)
PRESENT, EACH = "images with a lesion: ", "lesions per image: "


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """A run of copypaste, and the pictures of its fit; three of four have one lesion."""
    folder = tmp_path_factory.mktemp("pictures")
    data: dict[str, Any] = {
        "data": f"pictures:{folder}",
        "subjects": pictures(folder).subjects,
        "quiet": True,
    }
    return gansynth.fit("copypaste", out=folder / "run", **data), data


def test_lesions_set_beside_real_ones_are_told_with_the_way_out(
    fitted, tmp_path, run_cli, monkeypatch
):
    run, data = fitted
    monkeypatch.setattr(evaluation_data, "SECONDS", 1e9)
    asked = ("check", "--generator", run.folder, "--lesions", "add", "--prevalence", 1)
    told = run_cli(*asked).stdout.splitlines()
    (present,) = [line for line in told if line.startswith(PRESENT)]
    (each,) = [line for line in told if line.startswith(EACH)]
    assert present == f"{PRESENT}samples 100 %; training cases 75 %: differs; see --prevalence"
    assert each == f"{EACH}samples 2.0; training cases 0.8: differs; see --lesions swap"
    answer = "will it harm? yes: samples differ from training cases in images with a lesion and les"
    assert told[-1].startswith(answer)
    request = gansynth.SampleRequest(lesions="add", prevalence=1.0)
    opened = load_run(run.folder, "cpu")
    drawer = Sampler(opened, open_source(opened.request), request)
    fill_here(tmp_path, drawer, 16)
    stored = gansynth.check(bank=tmp_path / "bank", **data).will_it_harm
    assert (stored["samples"], stored["real_images"]) == (16, 64)
    (each,) = [line for line in stored["lines"] if line.startswith(EACH)]
    assert each.endswith("training cases 0.8: differs; see --lesions swap")


def test_a_plan_and_a_training_whose_samples_would_harm_say_so_and_what_names_the_cure(
    fitted, tmp_path, run_cli, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(evaluation_data, "SECONDS", 1e9)
    drawn = ("--generator", fitted[0].folder, "--ratio", "1:1", "--bank-size", 4)
    asked = ("augment", "--target", "segmenter", *drawn, *LESIONS, *SHORT, "-o", "out")
    told = run_cli(*asked, "--dry-run")
    assert "will it harm? yes" in told.stdout
    cure = f"gansynth evaluate {fitted[0].folder}"
    assert told.stderr.splitlines()[-1] == f"next: {cure}"
    harm = told.stdout.strip().rpartition("\n\n")[2].splitlines()
    with forked_producers():
        first, again = run_cli(*asked), run_cli(*asked)
    lines = first.stderr.splitlines()
    begin = lines.index(harm[0])
    assert lines[begin : begin + len(harm)] == harm
    goes_on = ["the training goes on all the same; the cure is named by", cure]
    assert lines[begin + len(harm) :][:2] == goes_on
    assert "will it harm?" not in again.stderr


def test_a_slow_generator_draws_fewer_samples_and_says_how_many(fitted, monkeypatch):
    monkeypatch.setattr(evaluation_data, "SECONDS", 0.0)
    first = gansynth.check(generator=fitted[0], quiet=True, seed=1).will_it_harm["lines"][0]
    assert 4 <= int(first.partition(" samples beside 64 real images")[0]) < 12
    assert first.endswith("not 32: drawing is slow, or rejects many")


def boxed():
    source = ToySource(2, 9, boxes=True)
    pairs = [(case, case.boxes) for case in map(source.load, source.train_ids)]
    return [Sample(case.image, None, boxes) for case, boxes in pairs]


def changed(**changes):
    return [replace(s, **{k: change(s) for k, change in changes.items()}) for s in strangers()]


PARTS = "labelled parts darker than their surroundings in first: samples"


@pytest.mark.parametrize(
    ("samples", "source", "says", "answer"),
    [
        (strangers(), ToySource(2), "labelled parts per image: samples 1.0; training cases 1.1",
         "cannot tell: too little is known of images with a labelled part and labelled parts per"),
        ([*strangers(), *strangers(10)], ToySource(2), "training cases 1.1: as in the training",
         "likely not: 7 figures are as in the training cases, none differs"),
        (changed(image=lambda s: -s.image), ToySource(2), f"{PARTS} 100 %; training cases 0 %: di",
         "yes: samples differ from training cases in labelled parts darker than their surrounding"),
        (changed(image=lambda s: 255 * s.image), ToySource(2), ": other units, which a training",
         "yes: samples differ from training cases in values of first and values of second"),
        (changed(image=lambda s: 0.4 * s.image), ToySource(2), " of their deviation; fit a network",
         "yes: samples differ from training cases in values of first, values of second and fine"),
        (blurred(), ToySource(2), ": blurred; fit a network longer",
         "yes: samples differ from training cases in finest detail"),
        (changed(labels=lambda s: None), ToySource(2), "lesions: not compared: counts: samples or",
         "cannot tell: too little is known of lesions"),
        (boxed(), ToySource(2, boxes=True), f"{PARTS} 0 %; training cases 0 %",
         "cannot tell: too little is known of images with a labelled part and labelled parts per"),
    ],
    ids=["few", "more", "reversed contrast", "units", "flat", "blurred", "no labels", "boxes"],
)  # fmt: skip
def test_what_is_said_of_samples_and_what_follows(samples, source, says, answer):
    where, lineage = Path("run"), lineage_of(source)
    found = evaluation_data.compare_with_training(
        where, samples, source, source.space, lineage, NullReporter()
    )
    assert [line for line in found["lines"] if says in line], found["lines"]
    assert not [line for line in found["lines"] if "see --" in line]
    assert found["answer"].startswith(f"will it harm? {answer}"), found["answer"]
    assert found["harms"] is {"y": True, "c": None, "l": False}[answer[0]]


@pytest.mark.parametrize(("people", "finding"), [(3, "unclear"), (12, "unlike real")])
def test_a_sign_that_few_people_may_share_by_chance_is_none_that_samples_must_have(
    monkeypatch, people, finding
):
    source = ToySource(2)
    monkeypatch.setattr(ToySource, "train_ids", source.train_ids[:people])
    samples = [
        replace(sample, image=-sample.image if number % 3 == 0 else sample.image)
        for number, sample in enumerate(strangers())
    ]
    found = evaluation_data.compare_with_training(
        Path("run"), samples, source, source.space, lineage_of(source), NullReporter()
    )
    (row,) = [row for row in found["figures"] if row["words"].startswith(PARTS)]
    assert row["finding"] == finding, row
