"""A selector tells slices with foreground from those without, and what it has seen stays known."""
# mypy: disallow-untyped-calls=False

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.composite_view import viewed
from gansynth.errors import DataFault, IntegrityFault, UsageFault
from gansynth.lineage import guard
from gansynth.registry import installed
from gansynth.reporting import NullReporter
from gansynth.selector import Selector, SelectorOptions, open_selector, pixels
from gansynth.selector_fit import changed, fit_selector
from gansynth.selector_scores import best_threshold, judge
from gansynth.sources.base import SourceRequest
from gansynth.sources.h5_write import write_h5
from tests.conftest import DATA
from tests.volumes import Balls, balls

TINY = {"steps": "60", "size": "16", "width": "4"}


@pytest.fixture(scope="module", autouse=True)
def volumes():
    with balls():
        yield


def request(where: str, fold: str = "0", **read: str) -> SourceRequest:
    return SourceRequest("slices", f"balls:{where}", fold=fold, read=read)


def fitted_on(where: SourceRequest, out: Path, **changes: str) -> Any:
    settings = {**TINY, **changes}
    return fit_selector(where, out, settings=settings, device="cpu", reporter=NullReporter())


@pytest.fixture(scope="module")
def fitted(tmp_path_factory) -> tuple[Path, Any]:
    out = tmp_path_factory.mktemp("selector") / "sel"
    return out, fitted_on(request("a", channels="T1"), out)


@pytest.fixture
def folder(fitted, tmp_path) -> Path:
    """A copy that a test may change."""
    copy = Path(tmp_path / "sel")
    shutil.copytree(fitted[0], copy)
    return copy


def opened(folder: Path, where: str = "bare-b", fold: str = "0", **read: str) -> Any:
    return installed().open_source(request(where, fold, selector=str(folder), **read))


def truth(case_id: str, where: str = "b") -> int:
    case, name = case_id.split("/")
    labels = Balls(SourceRequest("balls", where)).load(case).labels
    return int((labels[int(name[3:])] > 0).any())


# -- fitting ---------------------------------------------------------------------------------------


def test_a_folder_has_weights_and_a_manifest_and_no_image(fitted):
    out, report = fitted
    assert {path.name for path in out.iterdir()} == {"weights.safetensors", "manifest.json"}
    assert sum(path.stat().st_size for path in out.iterdir()) < 100_000
    assert report["train"]["volumes"] == 7
    assert report["held_out"]["volumes"] == 3
    assert sum(report["held_out"][kind] for kind in ("with", "without")) == 36


def test_what_is_held_out_is_told_apart(fitted):
    report = fitted[1]
    assert report["auc"] > 0.95
    assert report["sensitivity"] > 0.8
    assert report["specificity"] > 0.8
    assert report["threshold_chosen_by"] == "the other held-out volumes"


def test_the_same_fit_makes_the_same_selector_wherever_it_is(fitted, tmp_path):
    np_state: Any = np.random.get_state()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    again = fitted_on(request("a", channels="T1"), tmp_path / "elsewhere")
    assert again["sha256"] == fitted[1]["sha256"]
    now: Any = np.random.get_state()  # noqa: NPY002
    np.testing.assert_array_equal(now[1], np_state[1])
    assert torch.equal(torch.get_rng_state(), torch_state)


def test_other_seeds_are_other_selectors(fitted, tmp_path):
    other = fitted_on(request("a", channels="T1"), tmp_path / "sel", seed="1", steps="1")
    assert other["sha256"] != fitted[1]["sha256"]


def test_a_dry_run_counts_and_writes_nothing(tmp_path):
    report = fit_selector(
        request("a"), tmp_path / "sel", settings={}, dry_run=True, reporter=NullReporter()
    )
    assert report["train"]["with"] + report["train"]["without"] == 7 * 12
    assert list(tmp_path.iterdir()) == []


def test_slices_of_too_little_foreground_are_not_learnt_from(tmp_path):
    report = fit_selector(
        request("a", min_foreground="15"),
        tmp_path / "sel",
        settings={},
        dry_run=True,
        reporter=NullReporter(),
    )
    assert report["train"]["with"] + report["train"]["without"] < 7 * 12


@pytest.mark.parametrize(
    ("where", "fault", "says"),
    [
        (SourceRequest("balls", "a"), UsageFault, "for example slices:balls:a"),
        (request("bare-a"), UsageFault, "has|have no label maps"),
        (request("a", fold="all"), UsageFault, "--fold all: holds no volume out"),
        (request("a", foreground="with"), UsageFault, "--read foreground=with: .* leave it out"),
        (request("a", concat="yes"), UsageFault, "--read concat=yes: .*all channels together"),
        (request("a", slices="6"), DataFault, "all 7 slices of 7 training .* are with foreground"),
    ],
)
def test_what_teaches_nothing_is_refused(tmp_path, where, fault, says):
    with pytest.raises(fault, match=says):
        fitted_on(where, tmp_path / "sel")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_something_in_it_is_left_alone(folder):
    before = (folder / "manifest.json").read_bytes()
    with pytest.raises(UsageFault, match="exists already, expected a new folder"):
        fitted_on(request("a"), folder)
    assert (folder / "manifest.json").read_bytes() == before


# -- choosing --------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["bare-b", "bare-c"])
def test_slices_of_other_scanners_units_are_chosen(fitted, where):
    source = opened(fitted[0], where, foreground="with")
    right = [truth(case_id, where[5:]) for case_id in source.train_ids]
    assert np.mean(right) > 0.85
    both = opened(fitted[0], where, classes="foreground")
    found = [both.label_class(i) for i in both.train_ids]
    assert (
        np.mean(
            [number == truth(i, where[5:]) for number, i in zip(found, both.train_ids, strict=True)]
        )
        > 0.85
    )


def test_with_and_without_are_all_slices_and_none_twice(fitted):
    with_it = opened(fitted[0], foreground="with").train_ids
    without = opened(fitted[0], foreground="without").train_ids
    both = opened(fitted[0], classes="foreground")
    assert sorted((*with_it, *without)) == list(both.train_ids)
    assert [i for i in both.train_ids if both.label_class(i) == 1] == list(with_it)


def test_window_and_size_of_the_slices_change_nothing_about_the_choice(fitted):
    plain = opened(fitted[0], foreground="with").train_ids
    other = opened(fitted[0], foreground="with", window="1%:99%", resize="8x8", channels="other")
    assert other.train_ids == plain


def test_scores_are_computed_once_for_each_volume(fitted, monkeypatch):
    source, calls = opened(fitted[0], classes="foreground"), []
    plain = Selector.scores

    def counted(*given):
        calls.append(given)
        return plain(*given)

    monkeypatch.setattr(Selector, "scores", counted)
    assert len({source.label_class(i) for i in source.train_ids}) == 2
    assert len(calls) == 7


def test_what_a_selector_looks_at_is_each_slice_between_its_own_percentiles():
    image = np.random.default_rng(0).normal(5, 2, (2, 3, 20, 24)).astype(np.float32)
    image[1, 2] = 7
    made = pixels(image, 0, 16)
    assert made.shape == (3, 2, 16, 16)
    np.testing.assert_array_equal(pixels(1000 * image - 3, 0, 16), made)
    np.testing.assert_array_equal(pixels(image[:, 1:2], 0, 16)[0], made[1])
    assert (made[2, 1] == 0).all()
    assert made[0, 0].max() == 255


def test_what_is_changed_stays_between_0_and_1_and_comes_from_the_seed():
    slices = pixels(np.random.default_rng(0).normal(0, 1, (1, 4, 16, 16)).astype(np.float32), 0, 16)
    first, again, other = (changed(slices, np.random.default_rng(s)) for s in (3, 3, 4))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert (first.min(), first.max()) >= (0, 0)
    assert first.max() <= 1


# -- what it has seen ------------------------------------------------------------------------------


def test_whoever_learns_from_its_choice_has_seen_what_it_has_seen(fitted, tmp_path):
    source = opened(fitted[0], foreground="with")
    lineage = source.lineage()
    assert {c.id for c in lineage.ancestors[0].cases} == {f"a{i}" for i in range(10)}
    write_h5(source, tmp_path / "s.h5")
    cached = installed().open_source(SourceRequest("h5", str(tmp_path / "s.h5")))
    assert cached.lineage() == lineage
    assert viewed(source, {"channels": ["T1"]}).ancestors == lineage.ancestors
    labelled = Balls(SourceRequest("balls", "a"))
    with pytest.raises(IntegrityFault, match="the generator's ancestor of balls:a fold 0 has seen"):
        guard(lineage, labelled.records(labelled.held_out_ids), dataset="balls:a")


def test_one_that_has_seen_a_held_out_image_is_refused(fitted):
    with pytest.raises(IntegrityFault, match=r"the selector of .* 3 held-out .*identical image"):
        _ = opened(fitted[0], "bare-a", foreground="with").train_ids


def test_one_that_has_seen_only_what_is_trained_on_is_taken(fitted):
    assert opened(fitted[0], "bare-a", fold="all", foreground="with").train_ids


def test_another_selector_is_another_space_and_another_place_is_none(fitted, folder):
    here, there = (opened(at, foreground="with") for at in (fitted[0], folder))
    assert here.host == there.host
    assert here.host["slices"]["selector"] == fitted[1]["sha256"]
    doc = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**doc, "threshold": 0.25}))
    assert opened(folder, foreground="with").host != here.host


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("where", "read", "says"),
    [
        ("bare-b", {}, "chooses nothing by itself, expected --read foreground=with"),
        ("bare-b", {"classes": "label"}, "expected --read classes=foreground"),
        ("bare-b", {"foreground": "with", "min_foreground": "3"}, "counts no voxels"),
        ("bare-b", {"foreground": "with", "plane": "coronal"}, "was fitted on axial slices"),
        ("b", {"foreground": "with"}, "has label maps, .* leave selector out"),
    ],
)
def test_what_does_not_go_with_it_is_refused(fitted, where, read, says):
    with pytest.raises(UsageFault, match=says):
        _ = opened(fitted[0], where, **read).train_ids


def test_volumes_without_its_channel_are_refused(folder):
    doc = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**doc, "channels": ["FLAIR"]}))
    with pytest.raises(UsageFault, match=r"looks at channel 'FLAIR', balls:bare-b has other, T1"):
        _ = opened(folder, foreground="with").train_ids


def test_no_selector_there_is_said(tmp_path):
    with pytest.raises(UsageFault, match=r"no manifest.json here, expected a selector's folder"):
        open_selector(tmp_path)


@pytest.mark.parametrize("name", ["weights.safetensors", "manifest.json"])
def test_a_damaged_one_is_refused(folder, name):
    raw = bytearray((folder / name).read_bytes())
    raw[len(raw) // 2] ^= 255
    (folder / name).write_bytes(raw)
    with pytest.raises((IntegrityFault, DataFault), match=str(folder)):
        open_selector(folder)


def test_the_options_in_the_documentation_are_those_of_the_model():
    text = (Path(__file__).parents[1] / "docs/sources.md").read_text(encoding="utf-8")
    for key, field in SelectorOptions.model_fields.items():
        assert f"| `{key}` | `{field.default}` | {field.description} |" in text


# -- scores ----------------------------------------------------------------------------------------


def test_the_threshold_lies_between_the_scores_it_parts():
    scores, known = np.array([0.1, 0.2, 0.4, 0.3, 0.8, 0.9]), np.array([0, 0, 0, 1, 1, 1])
    assert best_threshold(scores, known) in (0.25, pytest.approx(0.6))
    assert best_threshold(scores[[0, 1, 4, 5]], known[[0, 1, 4, 5]]) == 0.5


def test_each_volume_is_judged_by_the_threshold_of_the_others():
    one = np.array([0.1, 0.2, 0.8, 0.9]), np.array([0, 0, 1, 1])
    two = np.array([0.6, 0.7, 0.95, 0.96]), np.array([0, 0, 1, 1])
    found = judge([one, two])
    assert found["found"] == "3 of 4 slices with foreground"  # the first's at 0.825
    assert found["passed_over"] == "2 of 4 slices without"  # the second's at 0.5
    assert judge([one])["threshold_chosen_by"] == "the same volumes"
    assert judge([one])["sensitivity"] == 1


# -- real volumes ----------------------------------------------------------------------------------


@pytest.mark.data
@pytest.mark.slow
def test_slices_of_unlabelled_people_are_told_apart(tmp_path):
    """60 hippocampi teach, and 20 of other people are chosen from with their labels removed."""
    from sklearn.metrics import roc_auc_score

    home = DATA.resolve() / "msd_task04_hippocampus"
    numbers = sorted(int(path.name[12:15]) for path in (home / "labelsTr").glob("*.nii.gz"))
    sets = {"taught": numbers[:60], "bare": numbers[-20:], "known": numbers[-20:]}
    for name, chosen in sets.items():
        lines = ["case,subject,T1" + ("" if name == "bare" else ",label")]
        for number in chosen:
            stem = f"hippocampus_{number:03d}.nii.gz"
            label = "" if name == "bare" else f",{home}/labelsTr/{stem}"
            lines.append(f"{stem[:15]},s{(number + 1) // 2},{home}/imagesTr/{stem}{label}")
        (tmp_path / f"{name}.csv").write_text("\n".join(lines) + "\n")

    def source(name: str, **read: str) -> SourceRequest:
        read = {"allow_absolute": "yes", "spacing": "native", **read}
        return SourceRequest("slices", f"nifti:{tmp_path / name}.csv", read=read)

    report = fitted_on(source("taught"), tmp_path / "sel", steps="400", size="48", width="12")
    bare: Any = installed().open_source(
        source("bare", selector=str(tmp_path / "sel"), classes="foreground")
    )
    known: Any = installed().open_source(source("known"))
    selector, scores, shows = bare.selector, [], []
    for case in (*bare.inner.train_ids, *bare.inner.held_out_ids):
        scores.append(selector.scores(bare.volume(case).image, bare.inner.schema))
        shows.append(known.choice.shows(case))
    joined, shown = np.concatenate(scores), np.concatenate(shows)
    assert report["auc"] > 0.93
    assert roc_auc_score(shown, joined) > 0.93
    assert ((joined >= selector.threshold) == shown).mean() > 0.85
