"""Weights of hard cases: what a host misses is drawn more often, and other runs' are refused."""
# mypy: disallow-untyped-calls=False

import json
import shutil
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import binomtest, mannwhitneyu

from gansynth.conditions.case_weights import CaseWeights, write_failures
from gansynth.conditions.edit_chain import build_edits
from gansynth.conditions.sampler import ConditionSampler
from gansynth.core.lineage import CaseRecord
from gansynth.core.schema import Condition
from gansynth.core.source import case_record, lineage_of
from gansynth.core.space import Space
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from tests.blobs import ALARM, SIDE, Blobs, centre_of, failures_of, volume_of
from tests.expected import raises_fault

HOSTS = {
    "small": lambda case: volume_of(case.labels) < 300,
    "low": lambda case: centre_of(case.labels) < SIDE / 4 - 0.5,
    "two": lambda case: case.labels.max() == 2,
    "none": lambda case: False,
}
MANY = 80
TOLD = {
    "dataset": "blobs:a",
    "case": "case_00",
    "shape": [SIDE // 2, SIDE, SIDE],
    "placement": {"corner": [], "slice_index": None},
}
SCHEMA = Blobs().schema


@pytest.fixture(scope="module")
def file_of(tmp_path_factory):
    """A file of failures by the host's name."""
    return cache(lambda name: failures_of(HOSTS[name], tmp_path_factory.mktemp(name)))


@pytest.fixture(scope="module")
def known(file_of):
    return lambda name="small": CaseWeights.read(file_of(name))


def sampler(weights=None, *edits: str, seed: int = 3) -> Any:
    return ConditionSampler(Blobs(), Space(), build_edits(edits), seed=seed, weights=weights)


def draws(weights=None) -> list[Any]:
    return [condition.labels for condition in map(sampler(weights).draw, range(MANY))]


@pytest.fixture(scope="module")
def plain() -> list[Any]:
    return draws()


@pytest.mark.parametrize(
    ("host", "of"),
    [("small", volume_of), ("low", centre_of), ("two", lambda labels: -int(labels.max()))],
)
def test_weights_draw_the_sizes_places_and_classes_that_a_host_misses(known, plain, host, of):
    drawn, before = ([of(labels) for labels in found] for found in (draws(known(host)), plain))
    assert mannwhitneyu(drawn, before, alternative="less").pvalue < 1e-3
    assert host != "small" or np.median(drawn) < 0.85 * np.median(before)
    assert max(drawn) > np.mean(before), "what is found is still drawn"


def test_weights_draw_places_of_false_alarms_without_a_lesion(known, tmp_path):
    path = failures_of(HOSTS["none"], tmp_path, lambda case: case.id[-1] in "0145")
    weights, space = CaseWeights.read(path), Space("slice", (SIDE, SIDE))
    free, fired = [], []
    for each in (known("none"), weights):
        drawing: Any = ConditionSampler(Blobs(), space, seed=3, weights=each)
        drawn = [c.provenance for c in map(drawing.draw, range(120)) if not (c.labels > 0).any()]
        free.append([told["index"] for told in drawn])
        at = [(told["case"], told["placement"]["slice_index"]) for told in drawn]
        fired.append(sum(case in weights.alarms and plane in ALARM for case, plane in at))
    assert free[0] == free[1], "weights change no prevalence"
    expected = fired[0] / len(free[0])
    assert binomtest(fired[1], len(free[1]), expected, alternative="greater").pvalue < 0.01
    assert fired[1] < len(free[1]), "other places are still drawn"


def test_weighted_conditions_depend_on_seed_and_index(known):
    weights = known()
    drawing = sampler(weights, "elastic")
    drawing.draw(7)
    drawn, other = drawing.draw(1), sampler(known(), "elastic").draw(1)
    assert np.array_equal(drawn.labels, other.labels)
    assert drawn.provenance == other.provenance
    assert drawn.latent_seed == other.latent_seed
    noted = json.loads(json.dumps(drawn.provenance))["weights"]
    assert 0 <= noted["candidate"] < noted["of"] == 8 == weights.candidates
    assert noted["sha256"] == weights.sha256
    assert noted["weight"] == pytest.approx(weights.weigh(drawn, SCHEMA), abs=1e-6)


def test_only_the_new_lesion_counts_and_only_in_own_cases_its_place(known, plain):
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
    for dataset, placed in (("blobs:a", True), ("blobs:b", False)):
        one = Condition(labels=plain[0], provenance={**TOLD, "dataset": dataset})
        assert (known("low").lesions(one, SCHEMA)[0].place is not None) == placed


def rewritten(change: Any) -> Any:
    """A change of what the file says, after which it looks whole."""

    def rewrite(path: Path) -> None:
        document = json.loads(path.read_text())
        change(document)
        for key in ("format", "version", "sha256"):
            del document[key]
        write_failures(path, document)

    return rewrite


def replaced(old: str, new: str) -> Any:
    def replace_once(path: Path) -> None:
        before = path.read_text()
        path.write_text(before.replace(old, new, 1))
        assert path.read_text() != before

    return replace_once


ODD = "conditions.case-weights-malformed"
DAMAGED: dict[str, tuple[Any, Any, str]] = {
    "gone": (lambda path: path.unlink(), DataFault, "conditions.failures-file-missing"),
    "half": (lambda path: path.write_text('{"version'), IntegrityFault,
             "files.own-document-unreadable"),
    "changed": (replaced('"ratio": 1', '"ratio": 2'), IntegrityFault,
                "conditions.failures-content-changed"),
    "version": (replaced('"version": 2', '"version": 9'), UsageFault,
                "conditions.failures-format-differs"),
    "other": (lambda path: path.write_text("{}"), UsageFault,
              "conditions.failures-format-differs"),
    "risk": (rewritten(lambda d: d.pop("risk")), IntegrityFault, ODD),
    "bin": (rewritten(lambda d: d["risk"]["factors"][0]["bins"].pop()), IntegrityFault, ODD),
    "ratio": (rewritten(lambda d: d["risk"]["factors"][0]["bins"][0].update(ratio=-1.0)),
              IntegrityFault, ODD),
    "candidates": (rewritten(lambda d: d["options"].update(candidates="many")),
                   IntegrityFault, ODD),
    "body": (rewritten(lambda d: d["cases"].update(a={"body": 3})), IntegrityFault, ODD),
}  # fmt: skip


@pytest.mark.parametrize("how", DAMAGED)
def test_damaged_weights_are_refused(file_of, tmp_path, how):
    damage, fault, expected = DAMAGED[how]
    path = shutil.copy(file_of("small"), tmp_path / "bad.json")
    damage(path)
    with raises_fault(expected, fault, names=path) as caught:
        CaseWeights.read(path)
    assert "\n" not in str(caught.value)
    assert "gansynth hard-cases" in str(caught.value)


OTHERS = tuple(replace(c, sha256="0" * 64, image="", prints=()) for c in lineage_of(Blobs()).cases)
"""Cases of the same ids, of other content."""


@pytest.mark.parametrize(
    ("change", "labels", "expected"),
    [
        ({"cases": OTHERS}, {}, "conditions.case-weights-of-other-fold"),
        ({"fold": "1"}, {}, "conditions.case-weights-of-other-fold"),
        (
            {"cases": (*lineage_of(Blobs()).cases[:3], OTHERS[3])},
            {},
            "conditions.case-weights-cases-differ",
        ),
        ({}, {"background": 0, "one": 1}, "conditions.case-weights-labels-differ"),
    ],
    ids=["another data set of this name", "fold", "content", "labels"],
)
def test_weights_of_other_cases_are_refused(known, change, labels, expected):
    seen = lineage_of(Blobs())
    known().check(seen, SCHEMA.labels)
    with raises_fault(expected):
        known().check(replace(seen, **change), labels or SCHEMA.labels)


@pytest.mark.parametrize(
    ("case", "names"),
    [
        (CaseRecord("case_05", "x", ""), "case_05 (the case itself"),
        (CaseRecord("x", "person_2", ""), "same subject as case_05"),
        (replace(case_record(Blobs(), "case_07"), id="x", subject="y"), "same content as case_07"),
    ],
    ids=["case", "subject", "content"],
)  # fmt: skip
def test_weights_that_have_seen_what_is_held_out_now_are_refused(known, case, names):
    known().guard([CaseRecord("case_39", "person_19", "")], Blobs())
    with raises_fault("lineage.held-out-case-seen", names=names):
        known().guard([case], Blobs())
