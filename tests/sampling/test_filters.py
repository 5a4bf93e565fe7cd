import itertools
import json
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansynth.core.case_pool import CasePool, TrainingCases
from gansynth.core.filter import Filter, FilterOptions, FilterRequest, FilterResult
from gansynth.core.lineage import Lineage
from gansynth.core.run_folder import RunFolder, read_manifest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import Boxes, Condition, FloatArray, LabelArray, Sample, Schema
from gansynth.core.source import CaseHeader
from gansynth.data.batches import CaseCache
from gansynth.runtime.files import digest_of, read_json
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.filters.fitted import (
    build_filters,
    ensure_learnt,
    folder_of,
    learn_ahead,
    planned_filters,
    split_by_subject,
    to_learn,
)
from gansynth.sampling.open_run import load_run
from gansynth.sampling.quality_gate import reject_reason_of, validate_sample
from gansynth.sampling.sample import sample as write_samples
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from gansynth.testing.toy import MEANS, TEXTURE, smooth_noise
from tests.expected import raises_fault
from tests.offered import offered
from tests.producers import fill_here

TINY = "faithful:steps=60,width=4,levels=2,crops=12,batch_size=4"
SHARE = "contrast:few=8"
CASES = ToySource(2).train_ids


@pytest.fixture(scope="module")
def fitted(toy_fit, tmp_path_factory) -> Path:
    """A run that no test writes to, but for what filters learn."""
    folder: Path = tmp_path_factory.mktemp("filters") / "run"
    toy_fit(folder, steps=0, edits=())
    return folder


@pytest.fixture
def run(fitted, tmp_path) -> Path:
    """A copy of the run, in which nothing has been learnt."""
    return Path(shutil.copytree(fitted, tmp_path / "run", ignore=shutil.ignore_patterns("filters")))


Drawing = Callable[[Condition, np.random.Generator], FloatArray]


def real(labels: LabelArray, rng: np.random.Generator, means: Any = MEANS) -> FloatArray:
    """An image as toy cases have it, of a label map."""
    image = means[:, np.maximum(labels, 0)] + TEXTURE * smooth_noise((2, *labels.shape), rng)
    image[:, labels < 0] = 0
    return np.asarray(image, np.float32)


def as_asked(condition: Condition, rng: np.random.Generator) -> FloatArray:
    """What a faultless generator draws."""
    assert condition.labels is not None
    return real(condition.labels, rng)


def drawer(
    folder: Path, filters: Sequence[str], drawing: Drawing = as_asked, **told: Any
) -> Sampler:
    """Draws samples of the run with another generator in it, and has them judged."""
    found = load_run(folder, "cpu")

    def sample(conditions: Sequence[Condition], seeds: Sequence[int]) -> list[Sample]:
        return [
            Sample(drawing(c, np.random.default_rng(seed)), c.labels)
            for c, seed in zip(conditions, seeds, strict=True)
        ]

    found.generator.sample = sample  # type: ignore[method-assign]
    return Sampler(found, ToySource(2), SampleRequest(edits=(), filters=tuple(filters)), **told)


def reject_reasons(samples: Sequence[Sample]) -> list[str]:
    """What was found wrong with samples."""
    return [str(sample.provenance.get("reject_reason", "")) for sample in samples]


# -- what each keeps out ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def learnt(fitted):
    def load(text: str):
        return ensure_learnt(RunFolder(fitted), ToySource(2), [text])

    return load


def judge(filters, image, labels, **condition) -> Sample:
    """A sample with what was found."""
    source = ToySource(2)
    asked = FilterRequest(
        Condition(labels=labels, **condition),
        None,
        CasePool(TrainingCases(CaseCache(source)), source.space),
    )
    sample = Sample(image.astype(np.float32), labels)
    return replace(sample, provenance=filters.judge(sample, asked))


def pair(case: str, seed: int = 5) -> tuple[FloatArray, LabelArray]:
    """Image and labels of a case that nothing was learnt from."""
    found = ToySource(2, seed=seed).load(case)
    assert found.labels is not None
    return found.image, found.labels


def of_real(filters, *seeds: int) -> list[Sample]:
    return [judge(filters, *pair(case, seed)) for seed in seeds for case in CASES]


def square(low: int, high: int) -> LabelArray:
    labels = np.zeros((32, 32), np.int16)
    labels[low:high, low:high] = 1
    return labels


def share(samples) -> float:
    return float(np.mean([reject_reason == "" for reject_reason in reject_reasons(samples)]))


def kinds(samples) -> set[str]:
    return {reject_reason_of(reason) for reason in reject_reasons(samples) if reason}


@pytest.mark.parametrize("text", [TINY, SHARE, "range", "novel"])
def test_real_cases_of_others_pass_as_promised(learnt, text):
    found = of_real(learnt(text), 5, 6)
    assert share(found) >= 0.85, reject_reasons(found)


def test_faithful_keeps_shuffled_labels_out(learnt, fitted):
    filters = learnt(TINY)
    own = of_real(filters, 5)
    others = [judge(filters, pair(one)[0], pair(two)[1]) for one, two in itertools.pairwise(CASES)]
    assert share(others) <= 0.2
    assert kinds(others) == {
        "filter 'faithful': too low a Dice of its labels with what a segmenter finds"
    }
    dice = [sample.provenance["admitted"]["faithful"] for sample in own]
    assert min(dice) > 0.3
    assert max(dice) <= 1
    (state,) = (fitted / "filters").glob("faithful-*/filter.json")
    assert '"own_crops": false' in state.read_text()
    assert '"cases": 3' in state.read_text()
    small = judge(filters, real(square(3, 5), np.random.default_rng(0)), square(3, 5))
    assert small.provenance == {"admitted": {}}, "a small class is not looked for"


def test_faithful_with_one_subject_says_so(run, monkeypatch):
    header = CaseHeader("somebody", (16, 16), (1.0, 1.0))
    monkeypatch.setattr(ToySource, "header", lambda self, case: header)
    text = "faithful:steps=1,width=4,levels=2,crops=2"
    ensure_learnt(RunFolder(run), ToySource(2), [text])
    (state,) = (run / "filters").glob("faithful-*/filter.json")
    assert '"own_crops": true' in state.read_text()


def test_contrast_keeps_lesions_out_that_have_been_blurred_away(learnt):
    filters, faded = learnt(SHARE), []
    for case in CASES:
        image, labels = pair(case)
        flat = real(np.where(labels > 0, np.int16(0), labels), np.random.default_rng(1))
        faded.append(judge(filters, flat, labels))
        assert judge(filters, gaussian_filter(image, (0, 0.3, 0.3)), labels)
    assert share(faded) == 0
    told = "filter 'contrast': too little lesion contrast of label"
    assert kinds(faded) <= {f"{told} 'one'", f"{told} 'two'"}
    means, labels = MEANS.copy(), pair("toy_00")[1]
    means[:, 1:] = 2 * means[:, :1] - means[:, 1:]  # the wrong sign
    found = judge(filters, real(labels, np.random.default_rng(0), means), labels)
    assert "than its rim" in reject_reasons([found])[0]
    strict = learnt(f"{SHARE},quantile=0.5,factor=1")
    assert share(of_real(strict, 5)) < share(of_real(filters, 5))


def test_contrast_of_too_few_lesions_is_not_judged(learnt):
    image, labels = pair("toy_00")
    assert judge(learnt("contrast"), 0 * image, labels).provenance == {"admitted": {}}


def test_contrast_looks_at_a_new_lesion_alone(learnt):
    lesion = square(20, 26)
    both = np.maximum(square(4, 10), lesion)
    image = real(lesion, np.random.default_rng(0))  # the old one cannot be seen
    assert reject_reasons([judge(learnt(SHARE), image, both)]) != [""]
    assert reject_reasons([judge(learnt(SHARE), image, both, lesion=lesion)]) == [""]


def test_contrast_of_a_class_that_is_not_there_is_refused(run):
    with raises_fault("sampling.filter-class-unknown"):
        ensure_learnt(RunFolder(run), ToySource(2), ["contrast:classes=onee"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda i, m: i + 3 * (m == 1), "of label 'one'"),
        (lambda i, m: i - 3 * (m == 2), "of label 'two'"),
        (lambda i, m: i * 0.2, "of label"),
        (lambda i, m: np.where(m >= 0, i + 5, i), "intensity of label"),
    ],
    ids=["bright", "dark", "faint", "shifted"],
)
def test_range_keeps_intensities_out_that_no_case_has(learnt, change, reason):
    image, labels = pair("toy_03")
    assert reject_reasons([judge(learnt("range"), image, labels)]) == [""]
    (reject_reason,) = reject_reasons([judge(learnt("range"), change(image, labels), labels)])
    assert reject_reason.startswith("filter 'range': ")
    assert reason in reject_reason
    assert " beyond training cases: " in reject_reason


def test_novel_keeps_copies_out_wherever_they_lie(fitted):
    def copied(condition, rng):
        toys = map(ToySource(2).load, CASES)
        case = next(toy for toy in toys if (condition.labels == toy.labels).all())
        return case.image + 0.02 * rng.standard_normal(case.image.shape).astype(np.float32)

    def another(condition, rng):
        return np.roll(ToySource(2).load("toy_04").image, 1, axis=1)

    assert kinds(drawer(fitted, ["novel"], copied).draw(0, 3)) == {
        "filter 'novel': a copy of its own case"
    }
    found = drawer(fitted, ["novel:search=12"], another).draw_raw(0, 3)
    said = reject_reasons([s for s in found if s.provenance["case"] != "toy_04"])
    assert said
    assert all("a copy of a training case" in one and "toy_04" in one for one in said)


@pytest.mark.parametrize(
    ("drawn", "edits", "reason"),
    [
        ("pasted", [], "a copy of its donor's lesion"),
        ("pasted", ["identity"], "a copy of its donor's lesion"),
        ("pasted", ["elastic"], ""),
        ("new", [], ""),
        ("nothing", ["elastic"], "a lesion like its background"),
        ("none", [], ""),
    ],
)
def test_of_a_lesion_in_a_real_image_only_the_lesion_counts(learnt, drawn, edits, reason):
    rng, lesion = np.random.default_rng(3), square(10, 18)
    background, donor = real(0 * lesion, rng), real(lesion, rng)
    image = background.copy()
    if drawn in ("pasted", "new"):
        shown = donor if drawn == "pasted" else real(lesion, np.random.default_rng(8))
        image[:, lesion > 0] = shown[:, lesion > 0]
    asked_of = lesion if drawn != "none" else 0 * lesion
    found = judge(
        learnt("novel"), image, lesion, lesion=asked_of, background=background, donor=donor,
        provenance={"edits": [{"edit": name, "params": {}} for name in edits]},
    )  # fmt: skip
    (reject_reason,) = reject_reasons([found])
    assert reject_reason_of(reject_reason) == (f"filter 'novel': {reason}" if reason else "")
    boxed = judge(learnt("novel"), background, lesion, background=background)
    assert boxed.provenance == {"admitted": {}}, "boxes filled in a real image are not judged"


# -- on the way into a bank ------------------------------------------------------------------------


def noise(condition: Condition, rng: np.random.Generator) -> FloatArray:
    assert condition.labels is not None
    return rng.standard_normal((2, *condition.labels.shape)).astype(np.float32)


def every_third() -> Any:
    """Conditions come in the order of their index, each once."""
    indices = itertools.count()
    return lambda *given: (as_asked if next(indices) % 3 else noise)(*given)


def test_what_is_flawed_is_counted_and_pictured_and_the_rest_enters(fitted, tmp_path):
    drawn = drawer(fitted, [TINY, "range"], every_third())
    reader = fill_here(tmp_path, drawn, 6, rejected=str(tmp_path / "rejected"))
    found = [reader.read(name) for name in reader.ids()]
    indices = [sample.provenance["index"] for sample in found]
    assert len(found) == 6
    assert [i for i in indices if i % 3 == 0] == []
    assert all(set(s.provenance["admitted"]) == {"faithful", "range"} for s in found)
    counts = read_json(tmp_path / "counts.json")
    assert set(counts) == {
        "filter 'faithful': too low a Dice of its labels with what a segmenter finds"
    }
    lines = (tmp_path / "rejected" / "rejected.jsonl").read_text().splitlines()
    told = [json.loads(line) for line in lines]
    assert len(told) == sum(counts.values()) > 0
    assert all((tmp_path / "rejected" / line["picture"]).is_file() for line in told)
    assert all(line["index"] % 3 == 0 for line in told)
    seen = reader.spec.lineage.everyone()
    assert {case.id for one in seen for case in one.cases} == set(ToySource(2).train_ids)


def test_a_dry_run_says_what_would_be_learnt(run):
    filters = ("range:crops=2", "novel:crops=2")
    said = planned_filters(RunFolder(run), filters)["filters"]
    assert all("would learn first" in text for text in said.values())
    learn_ahead(RunFolder(run), filters[:1], ToySource(2), device="cpu", reporter=NullReporter())
    said = planned_filters(RunFolder(run), filters)["filters"]
    assert said["range"] == "learnt"
    assert "would learn" in said["novel"]
    assert planned_filters(RunFolder(run), ()) == planned_filters(None, filters) == {}
    with raises_fault("registry.name-unknown"):
        planned_filters(RunFolder(run), ["nvel"])


def test_drawn_samples_are_judged_too(run, tmp_path):
    where = {"out": tmp_path / "out", "device": "cpu", "quiet": True}
    report = write_samples(run, n=2, filter="range:tolerance=0", **where)
    assert report["rejected"] == sum(report["reject_reasons"].values()) == 2
    assert all(reason.startswith("filter 'range': ") for reason in report["reject_reasons"])
    told = read_json(tmp_path / "out" / "provenance.json")["samples"]["sample-0000"]
    assert told["reject_reason"].startswith("filter 'range': ")


# -- how they learn --------------------------------------------------------------------------------


class BrightOptions(FilterOptions):
    most: float = 3.0
    case: str = "toy_00"


class Bright(Filter):
    """A stranger's filter: nothing may be brighter than a training case and a bit."""

    name = "bright"
    Options = BrightOptions
    options: BrightOptions
    learnt: ClassVar[list[Path]] = []

    def learn(self, learning, folder):
        Bright.learnt.append(folder)
        image = learning.cases(self.options.case).image
        (folder / "weights.bin").write_bytes(b"12345")
        return {"brightest": float(image.max())}

    def load(self, state, folder, schema, device):
        self.most = state["brightest"] + self.options.most

    def judge(self, sample, request):
        found = float(sample.image.max())
        return FilterResult(f"too bright ({found:g}), expected less" * (found > self.most))


@pytest.fixture
def bright():
    Bright.learnt.clear()
    with offered("stranger", filters={"bright": Bright}):
        yield


def learn(run: Path, *texts: str, seed: int = 0) -> Any:
    return ensure_learnt(RunFolder(run), ToySource(2, seed=seed), texts or ["bright"])


@pytest.mark.usefixtures("bright")
def test_a_strangers_filter_keeps_samples_out_and_says_why(run):
    good = drawer(run, ["bright"]).draw(0, 3)
    assert reject_reasons(good) == ["", "", ""]
    bad = drawer(run, ["bright:most=0"], lambda c, rng: 100 + as_asked(c, rng)).draw(0, 1)
    assert reject_reason_of(reject_reasons(bad)[0]) == "filter 'bright': too bright"


@pytest.mark.usefixtures("bright")
def test_a_filter_learns_once_also_of_several_and_other_options_are_another_filter(run):
    assert [one.name for one in to_learn(run, ["bright"])] == ["bright"]
    threads = [Thread(target=learn, args=(run,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(Bright.learnt) == 1
    for text in ("bright:most=3.0", "bright", "bright:most=4"):
        learn(run, text)
    assert len(Bright.learnt) == 2
    assert to_learn(run, ["bright"]) == []
    left = [path.name for path in (run / "filters").iterdir() if path.name != ".lock"]
    assert len(left) == 2, left


@pytest.mark.usefixtures("bright")
def test_the_lineage_is_of_the_cases_that_were_looked_at(run):
    found = learn(run, "bright", "range:crops=2")
    seen = Lineage.from_json(read_manifest(run)["lineage"])
    assert found.lineage.within(seen)
    assert "toy_00" in {case.id for case in found.lineage.cases}
    assert len(found.lineage.cases) < len(seen.cases)
    joined = drawer(run, ["bright"]).lineage
    assert [[c.id for c in one.cases] for one in joined.ancestors] == [["toy_00"]]


@pytest.mark.usefixtures("bright")
def test_a_case_that_is_not_what_it_was_is_refused(run):
    with raises_fault("sampling.case-content-changed"):
        learn(run, seed=1)


def rewritten(change: Callable[[Any], object]) -> Callable[[Path], None]:
    """A change of what a filter has learnt, after which nothing looks damaged."""

    def rewrite(path: Path) -> None:
        document = json.loads(path.read_text())
        change(document)
        path.write_text(json.dumps({**document, "sha256": digest_of(document, "sha256")}))

    return rewrite


def of_another_case(document: Any) -> None:
    seen = Lineage.from_json(document["lineage"])
    other = replace(seen.cases[0], id="toy_13")
    document["lineage"] = replace(seen, cases=(other,)).to_json()


def changed(path: Path) -> None:
    path.write_text(path.read_text().replace('"brightest": ', '"brightest": 1'))


HARM: dict[str, tuple[Callable[[Path], object], str]] = {
    "state": (changed, "sampling.filter-state-damaged"),
    "json": (lambda path: path.write_text('{"format'), "files.own-document-unreadable"),
    "weights": (lambda path: path.with_name("weights.bin").write_bytes(b"54321"),
                "files.checksum-differs"),
    "options": (rewritten(lambda d: d.update(state={})), "sampling.filter-state-not-loadable"),
    "case": (rewritten(of_another_case), "sampling.filter-of-other-cases"),
    "space": (rewritten(lambda d: d["space"].update(size=[8, 8])),
              "sampling.filter-of-other-space"),
}  # fmt: skip


@pytest.mark.parametrize("how", HARM)
@pytest.mark.usefixtures("bright")
def test_what_is_damaged_or_was_learnt_on_other_cases_is_refused(run, how):
    harm, expected = HARM[how]
    learn(run)
    (bright,) = build_filters(["bright"])
    harm(folder_of(run, bright) / "filter.json")
    with raises_fault(expected, names=folder_of(run, bright)):
        learn(run)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (["brigth"], "registry.name-unknown"),
        (["bright:mots=1"], "options.word-unknown-or-repeated"),
        (["bright:most=x"], "options.value-invalid"),
        (["bright", "bright:most=1"], "sampling.filter-given-twice"),
    ],
)
@pytest.mark.usefixtures("bright")
def test_a_slip_is_one_line(text, expected):
    with raises_fault(expected):
        build_filters(text)


def test_cases_are_set_apart_by_subject():
    people = {"a1": "a", "a2": "a", "b1": "b", "c1": "c", "c2": "c"}
    train, apart = split_by_subject(sorted(people), people)
    assert sorted(train + apart) == sorted(people)
    assert {people[i] for i in train}.isdisjoint({people[i] for i in apart})
    assert split_by_subject(["a1", "a2"], people) == (["a1", "a2"], ["a1", "a2"])
    pair = split_by_subject(["a1", "b1"], people)
    assert sorted(map(len, pair)) == [1, 1]


# -- what may enter a bank at all ------------------------------------------------------------------

GATE = Schema(("T1", "FLAIR"), {"background": 0, "tumour": 1}, (1.0, 1.0, 1.0), has_outside=True)
GRID = (4, 4, 4)


def good() -> Sample:
    image = np.random.default_rng(0).normal(size=(2, *GRID)).astype(np.float32)
    return Sample(image, (image[0] > 1).astype(np.int16), None, {"case": "c0"})


def spoilt(**changes) -> Sample:
    return replace(good(), **changes)


def image_with(value: float) -> np.ndarray:
    image = good().image.copy()
    image[1, 2, 3, 0] = value
    return image


def one_box(*coords: float) -> Boxes:
    return Boxes(np.array([coords], np.float32), np.ones(1, np.int16))


OUTSIDE_ONLY_VARIES = np.where(np.arange(4)[:, None, None] > 1, 0.5, good().image)
HALF_OUTSIDE = np.where(np.arange(4)[:, None, None] > 1, 1, np.full(GRID, -1)).astype(np.int16)


@pytest.mark.fault(17, 39)
@pytest.mark.parametrize(
    ("sample", "expected"),
    [
        (spoilt(image=good().image[:1]), "schema.image-channels-differ"),
        (spoilt(image=image_with(math.nan)), "schema.image-not-finite"),
        (spoilt(image=good().image[:, :3], labels=None), "sampling.sample-too-small"),
        (spoilt(image=np.full((2, *GRID), 0.3, np.float32)), "sampling.sample-constant"),
        (spoilt(image=OUTSIDE_ONLY_VARIES, labels=HALF_OUTSIDE), "sampling.sample-constant"),
        (spoilt(labels=np.full(GRID, -1, np.int16)), "sampling.sample-constant"),
        (spoilt(image=image_with(70000)), "sampling.sample-overflows"),
        (spoilt(boxes=one_box(0, 0, 0, 2, 2, 5)), "sampling.sample-boxes-outside-image"),
        (spoilt(boxes=one_box(0, 0, 2, 2)), "sampling.sample-boxes-of-other-axes"),
    ],
)
def test_a_bad_sample_is_not_admitted_and_the_reason_named(sample, expected):
    with raises_fault(expected):
        validate_sample(sample, GATE, GRID)


def test_a_good_sample_is_admitted():
    one_empty = np.concatenate([good().image[:1], np.zeros((1, *GRID), np.float32)])
    kinds = {"labels": None}, {"image": one_empty}, {"labels": HALF_OUTSIDE}
    for changes in ({}, *kinds, {"boxes": one_box(0, 0, 0, 4, 4, 4)}):
        sample = spoilt(**changes)
        validate_sample(sample, GATE, GRID)
        validate_sample(replace(sample, image=sample.image * 70000), GATE, GRID, "float32")
