# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu

from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.lesion_placement import lesion_drawer
from gansynth.conditions.sampler import ConditionSampler
from gansynth.conditions.sampling_weights import SamplingWeights, write_failures
from gansynth.core.lineage import CaseRecord
from gansynth.core.schema import Condition
from gansynth.core.source import case_record, lineage_of
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from tests.blobs import ALARM, SIDE, Blobs, centre_of, failures_of, volume_of

HOSTS = {
    "small": lambda case: volume_of(case.labels) < 300,
    "low": lambda case: centre_of(case.labels) < SIDE / 4 - 0.5,
    "two": lambda case: case.labels.max() == 2,
    "none": lambda case: False,
}
MANY = 120
TOLD = {
    "dataset": "blobs:a",
    "case": "case_00",
    "shape": [SIDE // 2, SIDE, SIDE],
    "placement": {"corner": [], "slice_index": None},
}
SCHEMA = Blobs().schema


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    made = {}

    def make(name):
        if name not in made:
            made[name] = failures_of(HOSTS[name], tmp_path_factory.mktemp(name))
        return made[name]

    return make


@pytest.fixture(scope="module")
def known(file_of):
    return lambda name="small": SamplingWeights.read(file_of(name))


def sampler(weights=None, *edits: str, seed: int = 3) -> Any:
    return ConditionSampler(Blobs(), Space(), build_edits(edits), seed=seed, weights=weights)


@pytest.fixture(scope="module")
def plain() -> list[Any]:
    drawing = sampler()
    return [drawing.draw(index).labels for index in range(MANY)]


@pytest.mark.parametrize(("host", "of"), [("small", volume_of), ("low", centre_of)])
def test_weights_draw_the_sizes_and_places_that_a_host_misses(known, plain, host, of):
    drawing = sampler(known(host))
    drawn = [of(drawing.draw(index).labels) for index in range(MANY)]
    before = [of(labels) for labels in plain]
    assert mannwhitneyu(drawn, before, alternative="less").pvalue < 1e-3
    assert np.median(drawn) < (0.85 if host == "small" else 1) * np.median(before)


def test_weights_draw_the_class_that_a_host_misses(known):
    drawing = sampler(known("two"))
    two = sum(int(drawing.draw(index).labels.max()) == 2 for index in range(MANY))
    assert binomtest(two, MANY, 0.5, alternative="greater").pvalue < 1e-3
    assert two < MANY, "what is found is still drawn"


@pytest.mark.parametrize(
    ("count", "more"),
    [
        pytest.param(MANY, {}, id="label maps"),
        pytest.param(
            *(MANY // 3, {"lesions": lesion_drawer("match"), "prevalence": 0.1}),
            id="into images",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_weights_draw_places_of_false_alarms_without_a_lesion(known, tmp_path, count, more):
    path = failures_of(HOSTS["none"], tmp_path, lambda case: case.id[-1] in "0145")
    weights, space = SamplingWeights.read(path), Space("slice", (SIDE, SIDE))
    free, fired = [], []
    for each in (known("none"), weights):
        drawing: Any = ConditionSampler(Blobs(), space, seed=3, weights=each, **more)
        drawn = [c.provenance for c in map(drawing.draw, range(count)) if not (c.labels > 0).any()]
        free.append([told["index"] for told in drawn])
        at = [(told["case"], told["placement"]["slice_index"]) for told in drawn]
        fired.append(sum(case in weights.alarms and plane in ALARM for case, plane in at))
    assert free[0] == free[1], "weights change no prevalence"
    expected = fired[0] / len(free[0])
    assert binomtest(fired[1], len(free[1]), expected, alternative="greater").pvalue < 0.01
    assert fired[1] < len(free[1]), "other places are still drawn"


def test_weighted_conditions_depend_on_seed_and_index(known):
    edits, weights = ("elastic", "flip"), known()
    alone, together = sampler(weights, *edits), sampler(known(), *edits)
    for index in (7, 1, 4):
        drawn, other = alone.draw(index), together.draw(index)
        assert np.array_equal(drawn.labels, other.labels)
        assert drawn.provenance == other.provenance
        assert drawn.latent_seed == other.latent_seed
        told = json.loads(json.dumps(drawn.provenance))
        assert (told["index"], told["seed"]) == (index, 3)
        noted = told["weights"]
        assert 0 <= noted["candidate"] < noted["of"] == 8 == weights.candidates
        assert noted["sha256"] == weights.sha256
        assert noted["weight"] == pytest.approx(weights.weigh(drawn, SCHEMA), abs=1e-6)


def test_weights_are_bounded(known, plain):
    risk = known().risk
    factors = tuple(
        replace(one, bins=tuple(replace(b, ratio=100.0**n) for n, b in enumerate(one.bins)))
        for one in risk.factors
    )
    weights = replace(known(), risk=replace(risk, factors=factors))
    conditions = [Condition(labels=labels, provenance=TOLD) for labels in plain[:20]]
    found = [weights.weigh(one, SCHEMA) for one in conditions]
    assert max(found) / min(found) <= risk.bound * (1 + 1e-9)


def test_only_the_new_lesion_counts_where_one_is_drawn_into_an_image(known, plain):
    weights, labels = known(), max(plain[:20], key=volume_of)
    lesion = np.zeros_like(labels)
    lesion[5:7, 8:11, 8:11] = 1
    union = np.where(lesion > 0, lesion, labels)
    new = Condition(labels=union, lesion=lesion, provenance=TOLD)
    both = Condition(labels=union, provenance=TOLD)
    assert [one.size for one in weights.lesions(new, SCHEMA)] == [18 * 2]
    assert weights.weigh(new, SCHEMA) > weights.weigh(both, SCHEMA)
    none = Condition(labels=labels, lesion=np.zeros_like(labels), provenance=TOLD)
    assert weights.weigh(none, SCHEMA) == 1.0


def test_cases_of_another_source_have_a_size_but_no_place(known, plain):
    for dataset, placed in (("blobs:a", True), ("blobs:b", False)):
        one = Condition(labels=plain[0], provenance={**TOLD, "dataset": dataset})
        assert (known("low").lesions(one, SCHEMA)[0].place is not None) == placed


@pytest.mark.parametrize(
    ("change", "fault", "says"),
    [
        (lambda text: text[: len(text) // 2], IntegrityFault, "not valid JSON"),
        (lambda text: text.replace('"ratio": 1', '"ratio": 2', 1), IntegrityFault, "SHA-256"),
        (lambda text: text.replace('"version": 2', '"version": 9'), UsageFault, "version 9"),
        (lambda text: "{}", UsageFault, "format is None"),
    ],
    ids=["half", "changed", "version", "other"],
)
def test_damaged_weights_are_refused(file_of, tmp_path, change, fault, says):
    with pytest.raises(DataFault, match="no such file"):
        SamplingWeights.read(tmp_path / "bad.json")
    before = file_of("small").read_text()
    (tmp_path / "bad.json").write_text(change(before))
    assert change(before) != before
    with pytest.raises(fault, match=says) as caught:
        SamplingWeights.read(tmp_path / "bad.json")
    assert "\n" not in str(caught.value)
    assert "gansynth hard-cases" in str(caught.value)


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
def test_weights_with_missing_or_wrong_values_are_refused(file_of, tmp_path, break_it):
    document = json.loads(file_of("small").read_text())
    break_it(document)
    for key in ("format", "version", "sha256"):
        del document[key]
    write_failures(tmp_path / "odd.json", document)
    with pytest.raises(IntegrityFault, match="not as gansynth hard-cases writes it"):
        SamplingWeights.read(tmp_path / "odd.json")


def test_weights_of_the_same_cases_pass_and_read_none(known):
    weights, source = known(), Blobs()
    seen = lineage_of(source)
    source.opened.clear()
    weights.check(seen, SCHEMA.labels)
    held_out = [CaseRecord(i, source.header(i).subject, "") for i in source.held_out_ids]
    weights.guard(held_out, source.name)
    assert not source.opened


@pytest.mark.parametrize(
    ("change", "labels", "says"),
    [
        ({"dataset": "blobs:b"}, {}, "made of blobs:a fold 0, the run has seen blobs:b"),
        ({"fold": "1"}, {}, "blobs:a fold 1; expected the same"),
        ({"cases": (CaseRecord("case_03", "person_1", "0" * 64),)}, {}, "'case_03' first"),
        ({}, {"background": 0, "one": 1}, "label 'two' is 2 there"),
    ],
    ids=["dataset", "fold", "content", "labels"],
)
def test_weights_of_other_cases_are_refused(known, change, labels, says):
    with pytest.raises(IntegrityFault, match=says):
        known().check(replace(lineage_of(Blobs()), **change), labels or SCHEMA.labels)


@pytest.mark.parametrize(
    ("case", "dataset", "says"),
    [
        (CaseRecord("case_05", "x", ""), "blobs:a", r"case_05 \(the case itself"),
        (CaseRecord("x", "person_2", ""), "blobs:a", "same subject as case_05"),
        (replace(case_record(Blobs(), "case_07"), id="x", subject="y"), "other:z",
         "same content as case_07"),
    ],
    ids=["case", "subject", "content"],
)  # fmt: skip
def test_weights_that_have_seen_what_is_held_out_now_are_refused(known, case, dataset, says):
    with pytest.raises(IntegrityFault, match=says):
        known().guard([case], dataset)
