"""Each filter: real cases and faultless samples pass, what is wrong is kept out for its reason."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansynth.core.case_pool import CasePool, TrainingCases
from gansynth.core.filter import FilterRequest
from gansynth.core.run_folder import RunFolder
from gansynth.core.schema import Condition, FloatArray, LabelArray, Sample
from gansynth.core.source import CaseHeader
from gansynth.data.batches import CaseCache
from gansynth.runtime.errors import UsageFault
from gansynth.sampling.filters.fitted import ensure_learnt
from gansynth.sampling.quality_gate import reject_reason_of
from gansynth.testing import ToySource
from gansynth.testing.toy import MEANS
from tests.sampling.filters.drawing import TINY, as_asked, drawer, real, reject_reasons

SHARE = "contrast:few=8"


@pytest.fixture(scope="module")
def learnt(fitted):
    """Filters that have learnt in the module's run, by text."""

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


def of_real(filters, seed: int = 5) -> list[Sample]:
    """Cases that nothing was learnt from, judged as if they were samples."""
    source = ToySource(2, seed=seed)
    return [judge(filters, *_pair(source, case)) for case in source.train_ids]


def _pair(source: ToySource, case: str) -> tuple[FloatArray, LabelArray]:
    found = source.load(case)
    assert found.labels is not None
    return found.image, found.labels


def share(samples) -> float:
    return float(np.mean([reject_reason == "" for reject_reason in reject_reasons(samples)]))


@pytest.mark.parametrize("text", [TINY, SHARE, "range", "novel"])
def test_real_cases_of_others_pass_as_promised(learnt, text):
    found = of_real(learnt(text)) + of_real(learnt(text), seed=6)
    assert share(found) >= 0.85, reject_reasons(found)


def test_a_stricter_quantile_keeps_more_real_cases_out(learnt):
    lax = of_real(learnt(SHARE))
    strict = of_real(learnt(f"{SHARE},quantile=0.5,factor=1"))
    assert share(strict) < share(lax)


def test_faithful_keeps_shuffled_labels_out(learnt):
    filters, source = learnt(TINY), ToySource(2, seed=5)
    own, others = of_real(filters), []
    for one, other in zip(source.train_ids, source.train_ids[1:], strict=False):
        others.append(judge(filters, source.load(one).image, source.load(other).labels))
    assert share(others) <= 0.2
    assert {
        reject_reason_of(reject_reason) for reject_reason in reject_reasons(others) if reject_reason
    } == {"filter 'faithful': too low a Dice of its labels with what a segmenter finds"}
    dice = [sample.provenance["admitted"]["faithful"] for sample in own]
    assert min(dice) > 0.3
    assert max(dice) <= 1


def test_faithful_tells_what_its_threshold_rests_on(learnt, fitted):
    (one,) = learnt(TINY).filters
    (state,) = [
        path for path in (fitted / "filters").glob("faithful-*/filter.json") if path.is_file()
    ]
    text = state.read_text()
    assert '"own_crops": false' in text
    assert '"cases": 3' in text
    assert (state.parent / "segmenter.safetensors").is_file()
    assert one._least > 0.2


def test_faithful_with_one_subject_says_so(run, monkeypatch):
    header = CaseHeader("somebody", (16, 16), (1.0, 1.0))
    monkeypatch.setattr(ToySource, "header", lambda self, case: header)
    text = "faithful:steps=1,width=4,levels=2,crops=2"
    ensure_learnt(RunFolder(run), ToySource(2), [text])
    (state,) = (run / "filters").glob("faithful-*/filter.json")
    assert '"own_crops": true' in state.read_text()


def test_a_small_class_is_not_looked_for(learnt):
    labels = np.zeros((32, 32), np.int16)
    labels[3:5, 3:5] = 1
    found = judge(learnt(TINY), real(labels, np.random.default_rng(0)), labels)
    assert reject_reasons([found]) == [""]
    assert found.provenance["admitted"] == {}


def test_contrast_keeps_lesions_out_that_have_been_blurred_away(learnt):
    filters, source = learnt(SHARE), ToySource(2, seed=5)
    faded = []
    for case in source.train_ids:
        image, labels = _pair(source, case)
        flat = real(np.where(labels > 0, np.int16(0), labels), np.random.default_rng(1))
        faded.append(judge(filters, flat, labels))
        assert judge(filters, gaussian_filter(image, (0, 0.3, 0.3)), labels)
    assert share(faded) == 0
    reasons = {reject_reason_of(reject_reason) for reject_reason in reject_reasons(faded)}
    assert reasons <= {
        f"filter 'contrast': too little lesion contrast of label {n!r}" for n in ("one", "two")
    }


def test_contrast_with_the_wrong_sign_is_kept_out(learnt):
    means = MEANS.copy()
    means[:, 1:] = 2 * means[:, :1] - means[:, 1:]
    source = ToySource(2, seed=5)
    _, labels = _pair(source, "toy_00")
    found = judge(learnt(SHARE), real(labels, np.random.default_rng(0), means), labels)
    assert "than its rim" in reject_reasons([found])[0]


def test_contrast_of_too_few_lesions_is_not_judged(learnt):
    source = ToySource(2, seed=5)
    image, labels = _pair(source, "toy_00")
    found = judge(learnt("contrast"), 0 * image, labels)
    assert found.provenance == {"admitted": {}}


def test_contrast_looks_at_a_new_lesion_alone(learnt):
    labels = np.zeros((32, 32), np.int16)
    labels[4:10, 4:10] = 1
    lesion = np.zeros_like(labels)
    lesion[20:26, 20:26] = 1
    both = np.maximum(labels, lesion)
    image = real(lesion, np.random.default_rng(0))  # the old one cannot be seen
    assert reject_reasons([judge(learnt(SHARE), image, both)]) != [""]
    assert reject_reasons([judge(learnt(SHARE), image, both, lesion=lesion)]) == [""]


def test_neighbours_of_a_class_are_not_each_others_rim(learnt):
    labels = np.zeros((32, 32), np.int16)
    labels[8:24, 8:24] = 1
    labels[10:22:3] = 0  # slabs of two rows, a row apart
    grain = np.random.default_rng(0).normal(0, 1e-4, labels.shape)  # none, and all else were air
    sharp = MEANS[:, labels] + grain
    found = judge(learnt(SHARE), sharp, labels)
    assert found.provenance["admitted"]["contrast"] == 1


def test_contrast_of_a_class_that_is_not_there_is_refused(run):
    with pytest.raises(UsageFault, match=r"classes: 'onee' is no foreground.*mean 'one'"):
        ensure_learnt(RunFolder(run), ToySource(2), ["contrast:classes=onee"])


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda i, m: i + 3 * (m == 1), "of label 'one'"),
        (lambda i, m: i - 3 * (m == 2), "of label 'two'"),
        (lambda i, m: i * 0.2, "of label"),
        (lambda i, m: np.where(m >= 0, i + 5, i), "intensity of label"),
    ],
)
def test_range_keeps_intensities_out_that_no_case_has(learnt, change, reason):
    image, labels = _pair(ToySource(2, seed=5), "toy_03")
    assert reject_reasons([judge(learnt("range"), image, labels)]) == [""]
    (reject_reason,) = reject_reasons([judge(learnt("range"), change(image, labels), labels)])
    assert reject_reason.startswith("filter 'range': ")
    assert reason in reject_reason
    assert " beyond training cases: " in reject_reason


def test_novel_keeps_copies_out_wherever_they_lie(fitted):
    def copied(condition, rng):
        toys = map(ToySource(2).load, ToySource(2).train_ids)
        case = next(toy for toy in toys if (condition.labels == toy.labels).all())
        return case.image + 0.02 * rng.standard_normal(case.image.shape).astype(np.float32)

    def another(condition, rng):
        case = ToySource(2).load("toy_04")
        return np.roll(case.image, 1, axis=1)

    own = drawer(fitted, ["novel"], copied).draw(0, 3)
    reasons = {reject_reason_of(reject_reason) for reject_reason in reject_reasons(own)}
    assert reasons == {"filter 'novel': a copy of its own case"}
    found = drawer(fitted, ["novel:search=12"], another).draw_raw(0, 3)
    said = [reject_reason for reject_reason, s in zip(reject_reasons(found), found, strict=True)
            if s.provenance["case"] != "toy_04"]  # fmt: skip
    assert said
    assert all(
        "a copy of a training case" in reject_reason and "toy_04" in reject_reason
        for reject_reason in said
    )
    assert share(drawer(fitted, ["novel"]).draw(0, 6)) == 1


def lesion_case() -> tuple[FloatArray, FloatArray, LabelArray]:
    """A background, a donor, and where the new lesion is."""
    rng = np.random.default_rng(3)
    lesion = np.zeros((32, 32), np.int16)
    lesion[10:18, 10:18] = 1
    return real(0 * lesion, rng), real(lesion, rng), lesion


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
    background, donor, lesion = lesion_case()
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


def test_boxes_filled_in_a_real_image_are_not_judged(learnt):
    background, _, lesion = lesion_case()
    found = judge(learnt("novel"), background, lesion, background=background)
    assert found.provenance == {"admitted": {}}


def test_every_filter_that_was_asked_says_what_it_found(fitted):
    (sample,) = drawer(fitted, [TINY, SHARE, "range", "novel"], as_asked).draw(3, 1)
    assert set(sample.provenance["admitted"]) == {"faithful", "contrast", "range", "novel"}
