"""Weights: conditions fall to what a host misses; the same ones whoever draws, and replayable."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu

from gansynth.conditions.sampler import ConditionSampler
from gansynth.conditions.weights import Weights, write_failures
from gansynth.core.lineage import CaseRecord
from gansynth.core.registry import installed
from gansynth.core.schema import Condition
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from tests.blobs import SIDE, Blobs, centre_of, failures_of, volume_of

HOSTS = {
    "small": lambda case: volume_of(case.labels) < 300,
    "low": lambda case: centre_of(case.labels) < SIDE / 4 - 0.5,
    "two": lambda case: case.labels.max() == 2,
    "none": lambda case: False,
}
MANY = 120


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """The file of failures of a host by name."""
    made = {}

    def make(name):
        if name not in made:
            made[name] = failures_of(HOSTS[name], tmp_path_factory.mktemp(name))
        return made[name]

    return make


def labels_drawn(weights=None, source=None, count=MANY, edits=(), space=None):
    source = source or Blobs()
    edits = [installed().edit(name)() for name in edits]
    sampler = ConditionSampler(source, space or Space(), edits, seed=3, weights=weights)
    return [sampler.draw(index).labels for index in range(count)]


@pytest.fixture(scope="module")
def plain():
    return labels_drawn()


def test_a_host_that_misses_small_lesions_is_drawn_smaller_ones(file_of, plain):
    drawn = labels_drawn(Weights.read(file_of("small")))
    before, after = ([volume_of(one) for one in side] for side in (plain, drawn))
    assert np.median(after) < 0.85 * np.median(before)
    assert mannwhitneyu(after, before, alternative="less").pvalue < 1e-3


def test_a_host_that_misses_a_class_is_drawn_more_of_it(file_of, plain):
    drawn = labels_drawn(Weights.read(file_of("two")))
    two = sum(int(one.max()) == 2 for one in drawn)
    assert binomtest(two, MANY, 0.5, alternative="greater").pvalue < 1e-3
    assert two < MANY, "what is found is still drawn"


def test_a_host_that_misses_nothing_is_drawn_what_there_is(file_of):
    weights = Weights.read(file_of("none"))
    sampler = ConditionSampler(Blobs(), Space(), seed=3, weights=weights)
    assert {sampler.draw(i).provenance["weights"]["weight"] for i in range(9)} == {1.0}


def test_the_same_condition_whoever_draws_it(file_of):
    def draw(index):
        weights = Weights.read(file_of("small"))
        edits = [installed().edit(name)() for name in ("elastic", "flip")]
        return ConditionSampler(Blobs(), Space(), edits, seed=9, weights=weights).draw(index)

    alone = draw(4)
    weights = Weights.read(file_of("small"))
    edits = [installed().edit(name)() for name in ("elastic", "flip")]
    together = ConditionSampler(Blobs(), Space(), edits, seed=9, weights=weights)
    for index in (7, 1, 4):
        other = together.draw(index)
    assert alone.labels is not None
    assert other.labels is not None
    assert np.array_equal(alone.labels, other.labels)
    assert alone.provenance == other.provenance
    assert alone.latent_seed == other.latent_seed
    assert (other.provenance["index"], other.provenance["seed"]) == (4, 9)


def test_what_was_chosen_can_be_replayed(file_of):
    weights = Weights.read(file_of("small"))
    edits = [installed().edit(name)() for name in ("elastic", "flip")]
    sampler = ConditionSampler(Blobs(), Space(), edits, seed=2, weights=weights)
    for index in range(5):
        drawn = sampler.draw(index)
        told = json.loads(json.dumps(drawn.provenance))
        again = ConditionSampler(Blobs(), Space()).replay(told, edits)
        np.testing.assert_array_equal(again, drawn.labels)
        noted = told["weights"]
        assert 0 <= noted["candidate"] < noted["of"] == 8
        assert noted["sha256"] == weights.sha256
        assert noted["weight"] == pytest.approx(weights.weigh(drawn, sampler.schema), abs=1e-6)


def test_candidates_are_chosen_in_proportion_to_their_weights(file_of):
    weights = replace(Weights.read(file_of("two")), candidates=2)
    source, chosen = Blobs(), []
    drawn: list[Any] = [ConditionSampler(source, Space()).draw(i) for i in range(9)]
    pair = [next(one for one in drawn if one.labels.max() == value) for value in (1, 2)]
    expected = [weights.weigh(one, source.schema) for one in pair]

    for index in range(2000):
        given = iter(pair)
        one = weights.choose(lambda _, rng: next(given), source.schema, 0, index)  # noqa: B023
        chosen.append(one.provenance["weights"]["candidate"])
    share = expected[1] / sum(expected)
    assert share > 0.6
    assert np.mean(chosen) == pytest.approx(share, abs=0.03)


def test_weights_are_bounded(file_of):
    risk = Weights.read(file_of("small")).risk
    steep = replace(
        risk,
        factors=tuple(
            replace(
                factor,
                bins=tuple(replace(b, ratio=100.0**n) for n, b in enumerate(factor.bins)),
            )
            for factor in risk.factors
        ),
    )
    weights = replace(Weights.read(file_of("small")), risk=steep)
    found = {weights.weigh(Condition(labels=one, provenance=TOLD), Blobs().schema)
             for one in labels_drawn(count=20)}  # fmt: skip
    assert max(found) / min(found) <= risk.bound * (1 + 1e-9)


TOLD = {
    "dataset": "blobs:a",
    "case": "case_00",
    "shape": [SIDE // 2, SIDE, SIDE],
    "placement": {"corner": [], "slice_index": None},
}


def test_only_the_new_lesion_counts_where_one_is_drawn_into_an_image(file_of):
    weights, schema = Weights.read(file_of("small")), Blobs().schema
    labels = max(labels_drawn(count=20), key=volume_of)
    lesion = np.zeros_like(labels)
    lesion[5:7, 8:11, 8:11] = 1
    union = np.where(lesion > 0, lesion, labels)
    new = Condition(labels=union, lesion=lesion, provenance=TOLD)
    both = Condition(labels=union, provenance=TOLD)
    assert [one.size for one in weights.lesions(new, schema)] == [18 * 2]
    assert weights.weigh(new, schema) > weights.weigh(both, schema)
    none = Condition(labels=labels, lesion=np.zeros_like(labels), provenance=TOLD)
    assert weights.weigh(none, schema) == 1.0


def test_cases_of_another_source_have_a_size_but_no_place(file_of):
    weights, schema = Weights.read(file_of("low")), Blobs().schema
    labels = labels_drawn(count=1)[0]
    own = Condition(labels=labels, provenance=TOLD)
    other = Condition(labels=labels, provenance={**TOLD, "dataset": "blobs:b"})
    assert weights.lesions(own, schema)[0].place is not None
    assert weights.lesions(other, schema)[0].place is None


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataFault, match="no such file"):
        Weights.read(tmp_path / "failures.json")


@pytest.mark.parametrize(
    ("change", "fault", "says"),
    [
        (lambda text: text[: len(text) // 2], IntegrityFault, "not valid JSON"),
        (lambda text: text.replace('"ratio": 1', '"ratio": 2', 1), IntegrityFault, "SHA-256"),
        (lambda text: text.replace('"version": 1', '"version": 9'), UsageFault, "version 9"),
        (lambda text: "{}", UsageFault, "format is None"),
    ],
    ids=["half", "changed", "version", "other"],
)
def test_a_file_that_cannot_be_used(file_of, tmp_path, change, fault, says):
    before = file_of("small").read_text()
    after = change(before)
    assert after != before
    (tmp_path / "bad.json").write_text(after)
    with pytest.raises(fault, match=says) as caught:
        Weights.read(tmp_path / "bad.json")
    assert "\n" not in str(caught.value)
    assert "gansynth failures" in str(caught.value)


@pytest.mark.parametrize(
    "break_it",
    [
        lambda doc: doc.pop("risk"),
        lambda doc: doc["risk"]["factors"][0]["bins"].pop(),
        lambda doc: doc["risk"]["factors"][0]["bins"][0].update(ratio=-1.0),
        lambda doc: doc["options"].update(candidates="many"),
        lambda doc: doc["cases"].update(a={"body": 3}),
    ],
    ids=["risk", "bin", "ratio", "candidates", "body"],
)
def test_a_file_that_someone_else_wrote(file_of, tmp_path, break_it):
    document = json.loads(file_of("small").read_text())
    break_it(document)
    for key in ("format", "version", "sha256"):
        del document[key]
    write_failures(tmp_path / "odd.json", document)
    with pytest.raises(IntegrityFault, match="not as gansynth failures writes it"):
        Weights.read(tmp_path / "odd.json")


def test_weights_of_the_same_cases_pass_and_read_none(file_of):
    weights, source = Weights.read(file_of("small")), Blobs()
    seen = source.lineage()
    source.opened.clear()
    weights.check(seen, source.schema.labels)
    held_out = [CaseRecord(i, source.subject(i), "") for i in source.held_out_ids]
    weights.guard(held_out, source.name)
    assert not source.opened


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"dataset": "blobs:b"}, "made of blobs:a fold 0, the run has seen blobs:b"),
        ({"fold": "1"}, "blobs:a fold 1; expected the same"),
        ({"cases": (CaseRecord("case_03", "person_1", "0" * 64),)}, "'case_03' first"),
    ],
    ids=["dataset", "fold", "content"],
)
def test_weights_of_other_cases_are_refused(file_of, change, says):
    source = Blobs()
    with pytest.raises(IntegrityFault, match=says):
        Weights.read(file_of("small")).check(
            replace(source.lineage(), **change), source.schema.labels
        )


def test_weights_of_other_labels_are_refused(file_of):
    source = Blobs()
    with pytest.raises(IntegrityFault, match="label 'two' is 2 there"):
        Weights.read(file_of("small")).check(source.lineage(), {"background": 0, "one": 1})


@pytest.mark.parametrize(
    ("case", "says"),
    [
        (CaseRecord("case_05", "x", ""), r"case_05 \(the case itself"),
        (CaseRecord("x", "person_2", ""), "same subject as case_05"),
    ],
    ids=["case", "subject"],
)
def test_weights_that_have_seen_what_is_held_out_now_are_refused(file_of, case, says):
    with pytest.raises(IntegrityFault, match=says):
        Weights.read(file_of("small")).guard([case], "blobs:a")


def test_content_that_is_held_out_now_is_noticed_under_any_name(file_of):
    weights, source = Weights.read(file_of("small")), Blobs(SourceRequest("blobs", "a"))
    record = replace(source.record("case_07"), id="x", subject="y")
    with pytest.raises(IntegrityFault, match="same content as case_07"):
        weights.guard([record], "other:z")
