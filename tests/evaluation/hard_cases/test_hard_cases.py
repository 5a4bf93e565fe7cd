import json
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from gansynth.conditions import case_weights as weights
from gansynth.conditions.lesion_risk import CropFrame, Lesion, RiskModel, lesions_in
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest, case_record, case_records, host_labels
from gansynth.core.space import Space
from gansynth.data.case_writer import write_prediction
from gansynth.data.folds import read_splits
from gansynth.hosts.sample_source import check_asked, find_sample_source
from gansynth.runtime.errors import DataFault, IntegrityFault
from gansynth.sampling.open_run import load_run
from gansynth.sampling.run_source import open_source
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from gansynth_evaluate.hard_cases import hosts, scoring
from gansynth_evaluate.hard_cases.job import find_failures
from gansynth_evaluate.requests import FailureOptions
from tests.blobs import Blobs, blobs
from tests.conftest import save_nifti
from tests.expected import raises_fault
from tests.flat_sets import FLAT
from tests.recorder import Recorder

TINY = FailureOptions(inner=2, steps=2, width=4, levels=2, patch=16, least=1)


@pytest.fixture(scope="module", autouse=True)
def kinds():
    with blobs():
        yield


def found_in(source, out, options=TINY, **more):
    report = find_failures(
        source, out, options, **{"device": "cpu", "reporter": Recorder(), **more}
    )
    return report, json.loads(out.read_text())


def framed(shape, spacing=None):
    n = len(shape)
    return CropFrame(spacing or (1.0,) * n, (0.0,) * n, (1.0,) * n, shape, ((0.0, 1.0),) * n)


def test_a_lesion_has_a_size_a_place_in_the_body_and_a_class():
    labels = np.zeros((10, 20, 20), np.int16)
    labels[1:3, 15:18, 4:8] = 2
    labels[8, 0, 0] = 1
    frame = framed(labels.shape, (2.0, 1.0, 0.5))
    (one,) = lesions_in(labels, (1, 2), frame, least=2)
    assert (one.label, one.size) == (2, 24.0)
    assert one.diameter == pytest.approx((6 * 24 / np.pi) ** (1 / 3))
    assert one.place == pytest.approx((0.2, 0.825, 0.3))
    assert len(lesions_in(labels, (1, 2), frame, least=1)) == 2
    body = replace(frame, body=((0.1, 0.6), (0.5, 1.0), (0.2, 0.4)))
    (one,) = lesions_in(labels, (1, 2), body, least=2)
    assert one.place == pytest.approx((0.2, 0.65, 0.5))


def test_lesions_are_judged_one_by_one():
    truth, seen = np.zeros((2, 30, 30), np.int16)
    truth[2:6, 2:6] = 1  # found, half of it
    seen[2:4, 2:6] = 1
    truth[2:6, 20:24] = 1  # not at all
    truth[20:24, 2:6] = 1  # together with its neighbour, in one piece
    truth[20:24, 8:12] = 1
    seen[20:24, 2:12] = 1
    truth[20:24, 20:24] = 2  # as another class
    seen[20:24, 20:24] = 1
    seen[10:14, 14:18] = 1  # touches no lesion: no lesion's failure, a false alarm
    seen[29, 29] = 1
    alarms = scoring.false_alarms(truth, seen, (1, 2), (2.0, 2.0), least=2)
    pieces = [(a.box[0].start, a.box[1].start, a.voxels) for a in alarms]
    assert pieces == [(10, 14, 16), (20, 20, 16)]  # another class is there
    found = scoring.score_lesions(truth, seen, (1, 2), framed(truth.shape), least=1)
    by = {tuple(np.round(np.array(j.lesion.place) * 30 - 0.5).astype(int)): j for j in found}
    assert len(by) == 5
    assert by[4, 4].dice == pytest.approx(2 * 8 / (8 + 16))
    assert (by[4, 4].recall, by[4, 4].found) == (0.5, True)
    assert (by[4, 22].dice, by[4, 22].found) == (0.0, False)
    for key in ((22, 4), (22, 10)):  # two columns lie between them, one falls to each
        assert by[key].dice == pytest.approx(2 * 16 / (16 + 20))
    assert (by[22, 22].lesion.label, by[22, 22].dice) == (2, 0.0)


def risk_of(places, failed):
    """Of lesions of these classes and sizes, by whether each failed."""
    scored = []
    for number, (label, size) in enumerate(places):
        place = tuple(np.random.default_rng(number).uniform(0, 1, 3))
        lesion = Lesion(label, size**3, size, place)
        scored.append(scoring.ScoredLesion(lesion, 1.0 - failed(lesion), 1.0))
    return scoring.fit_risk(scored, {1: "one", 2: "two"}, "DHW", 10.0)


def test_few_lesions_say_little_and_many_say_much_and_none_that_failed_nothing():
    def ratios(count, failed=lambda lesion: lesion.label == 2):
        factors = risk_of([(1 + n % 2, 5 + n % 7) for n in range(count)], failed).factors
        return [bin.ratio for factor in factors if factor.name == "class" for bin in factor.bins]

    (one, two), (ones, twos) = ratios(4), ratios(200)
    assert 1 < two < 1.5 < 1.8 < twos
    assert 1 > one > 0.6 > 0.2 > ones
    assert ratios(40, lambda lesion: False) == [1, 1]


def test_a_class_that_is_small_is_not_blamed_twice_and_a_risk_survives_json():
    kinds = [(2, 3)] * 60 + [(1, 3)] * 20 + [(1, 10)] * 80
    places = [(label, size + n % 5) for n, (label, size) in enumerate(kinds)]
    risk = risk_of(places, lambda lesion: lesion.diameter < 8)
    # Small ones of either class are all missed; class 2 has no other, class 1 has.
    one, two = (risk.of(Lesion(label, 27, 3.0, None)) for label in (1, 2))
    assert one == pytest.approx(two, rel=0.25)
    assert one > 3 * risk.of(Lesion(1, 1000, 12.0, None))
    assert RiskModel.from_json(json.loads(json.dumps(risk.to_json()))) == risk


def test_inner_folds_have_training_cases_only_and_keep_people_together():
    source = Blobs()
    folds = hosts.inner_folds(source, 3, 0)
    assert sorted(c for f in folds for c in f["val"]) == list(source.train_ids)
    for fold in folds:
        train, val = ({source.header(c).subject for c in fold[side]} for side in ("train", "val"))
        assert not train & val
    assert folds == hosts.inner_folds(source, 3, 0) != hosts.inner_folds(source, 3, 1)
    with raises_fault("hard-cases.inner-case-not-training-case"):
        hosts.InnerSource(source, folds[0]).load("case_33")
    with raises_fault("hard-cases.inner-case-not-training-case"):
        hosts.InnerSource(source, {"train": ["case_00"], "val": ["case_33"]})


class Smooth:
    """Looks at a few voxels around: windows change nothing away from their borders."""

    values = (0, 2)

    def shares(self, image):
        assert max(image.shape[1:]) <= 16
        bright = gaussian_filter(image[0], 1, truncate=2)
        return np.stack([1 - bright, bright]).astype(np.float32)


def test_windows_cover_a_volume_of_any_size():
    rng = np.random.default_rng(0)
    image = (gaussian_filter(rng.normal(size=(1, 19, 33, 16)), 3) > 0).astype(np.float32)
    found = hosts.by_windows(Smooth(), image, (16, 16, 16))  # type: ignore[arg-type]
    whole = np.where(gaussian_filter(image[0], 1, truncate=2) > 0.5, 2, 0)
    assert found.dtype == np.int16
    assert (found == whole).mean() > 0.99


class Few(Blobs):
    """Eight of the cases."""

    @property
    def train_ids(self):
        return super().train_ids[:8]


WELL = FailureOptions(inner=2, steps=40, width=4, levels=2, lr=1e-2)


@pytest.mark.parametrize("grid", ["crop", "slice"])
def test_a_small_segmenter_judges_every_training_lesion_and_finds_what_is_bright(tmp_path, grid):
    source = Blobs() if grid == "crop" else Few(space=Space("slice", (16, 24), pad_label=0))
    report, document = found_in(source, tmp_path / "f.json", WELL if grid == "crop" else TINY)
    assert {row["case"] for row in document["lesions"]} == set(source.train_ids)
    assert report["lesions"] == len(document["lesions"])
    assert [c["id"] for c in document["lineage"]["cases"]] == list(source.train_ids)
    for case, told in document["cases"].items():
        assert case in document["inner"][told["inner"]]["val"]
    assert not set(source.held_out_ids) & set(json.dumps(document).split('"'))
    if grid == "crop":
        assert report["missed"] <= 3
        assert report["risk"]["mean_failure"] < 0.6


def test_crops_are_no_larger_than_asked():
    assert hosts.training_space(Blobs(), 16).size == (12, 16, 16)
    native = hosts.training_space(Blobs(space=Space()), 20)
    assert (native.grid, native.size) == ("crop", (12, 20, 20))


def named(folder, *cases):
    folder.mkdir()
    for name in (*(f"{case}.nii.gz" for case in cases), "summary.json"):
        (folder / name).touch()
    return folder


@pytest.mark.parametrize("learnt", [True, False])
def test_a_class_that_is_never_found_comes_with_a_warning(tmp_path, learnt):
    reporter, source = Recorder(), cast(Any, Blobs())
    folder = named(tmp_path / "p", *source.train_ids)
    source.misses = lambda case: case.labels.max() == 2 and not (learnt and case.id == "case_01")
    found_in(source, tmp_path / "f.json", predictions=[folder], reporter=reporter)
    assert ["'two': none of 16" in line for line in reporter.warned] == ([] if learnt else [True])


IDS = Blobs().train_ids


@pytest.mark.parametrize(
    ("folders", "fault", "expected"),
    [
        ((IDS, ["case_35"]), IntegrityFault, "hard-cases.predictions-of-held-out-cases"),
        ((IDS, ["case_3"]), DataFault, "hard-cases.prediction-of-unknown-case"),
        ((IDS, ["case_00"]), DataFault, "hard-cases.case-predicted-twice"),
        ((IDS[2:],), DataFault, "hard-cases.cases-without-prediction"),
    ],
    ids=["held out", "unknown", "twice", "missing"],
)
def test_predictions_are_of_every_training_case_once(tmp_path, folders, fault, expected):
    made = [named(tmp_path / f"{n}", *cases) for n, cases in enumerate(folders)]
    with raises_fault(expected, fault):
        hosts.predicted_files(Blobs(), made)


AFFINE = np.diag([-2.0, 2.0, 2.0, 1.0])


@pytest.fixture
def volumes(tmp_path):
    """``nifti:`` of six cases stored back to front, in voxels of 2 mm."""
    rng = np.random.default_rng(0)
    for number in range(6):
        labels = np.zeros((12, 10, 8), np.uint8)
        labels[2 + number : 5 + number, 3:7, 2:6] = 1
        image = (labels * 3 + rng.normal(0, 0.2, labels.shape)).astype(np.float32)
        save_nifti(tmp_path / f"data/images/c{number}.nii.gz", image, AFFINE)
        save_nifti(tmp_path / f"data/labels/c{number}.nii.gz", labels, AFFINE)
    return tmp_path


def opened(volumes, **read):
    return open_source(SourceRequest("nifti", str(volumes / "data"), read={"folds": "2", **read}))


@pytest.mark.parametrize("read", [{}, {"spacing": "1"}], ids=["native", "resampled"])
def test_a_prediction_is_brought_to_the_cases_own_voxels(volumes, read):
    source = opened(volumes, **read)
    case = source.train_ids[0]
    found = host_labels(source, case, volumes / "data" / "labels" / f"{case}.nii.gz")
    np.testing.assert_array_equal(found, source.load(case).labels)


@pytest.mark.parametrize(
    ("shape", "affine", "value", "expected"),
    [
        ((12, 10, 9), AFFINE, 1, "nifti.prediction-grid-differs"),
        ((12, 10, 8), np.diag([2.0, 2.0, 2.0, 1.0]), 1, "nifti.prediction-grid-differs"),
        ((12, 10, 8), AFFINE, 7, "nifti.prediction-label-unknown"),
    ],
    ids=["shape", "turned", "label"],
)
def test_a_prediction_of_another_grid_or_label_is_refused(volumes, shape, affine, value, expected):
    save_nifti(volumes / "p/c.nii.gz", np.full(shape, value, np.uint8), affine)
    source = opened(volumes)
    with raises_fault(expected):
        host_labels(source, source.train_ids[0], volumes / "p" / "c.nii.gz")
    with raises_fault("source.host-labels-without-voxels"):
        host_labels(ToySource(2), "toy_00", volumes / "p" / "c.nii.gz")


def test_inner_folds_predictions_and_weights_by_the_command_line(run_cli, volumes):
    data = ("--data", f"nifti:{volumes / 'data'}", "--read", "folds=3", "--inner", "2")
    result = run_cli("hard-cases", *data, "--write-splits", volumes / "inner.json", "--json")
    assert result.exit_code == 0, result.stderr
    source = opened(volumes, folds="3")
    folds = read_splits(volumes / "inner.json")
    assert {c for f in folds.values() for c in f["train"] + f["val"]} == set(source.train_ids)
    told = []
    for number, fold in folds.items():
        told += ["--predictions", volumes / f"p{number}"]
        for case in fold["val"]:
            labels = source.load(case).labels.transpose()[::-1]
            marked = np.array(labels, np.uint8)
            fires = case == source.train_ids[0]
            marked[0, :2, :4] += fires
            save_nifti(volumes / f"p{number}" / f"{case}.nii.gz", marked, AFFINE)
    result = run_cli("hard-cases", *data, *told, "-o", volumes / "f.json")
    assert result.exit_code == 0, result.stderr
    for words in ("lesions                  4", "class", "cases_with_false_alarms  0.25"):
        assert words in result.stdout
    (alarm,) = json.loads((volumes / "f.json").read_text())["false_alarms"]["pieces"]
    assert (alarm["case"], alarm["voxels"], alarm["size"]) == (source.train_ids[0], 8, 64.0)
    assert alarm["case"] in result.stdout
    (volumes / "p0" / f"{source.held_out_ids[0]}.nii.gz").touch()
    result = run_cli("hard-cases", *data, *told, "-o", volumes / "g.json")
    assert (result.exit_code, source.held_out_ids[0] in result.stderr) == (6, True)


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        ((), 2, ["nothing to write", "-o FILE"]),
        (("-o", "new.json", "--set", "bond=3"), 2, ["Did you mean 'bound'?"]),
        (("-o", "new.json", "--inner", "99"), 3, ["16 subject(s) for 99"]),
        (("-o", "old.json"), 2, ["exists already"]),
        (("-o", "new.json", "--predictions", "no"), 3, ["no such folder"]),
        (("-o", "new.json", "--dry-run"), 0, []),
    ],
    ids=["nothing", "slip", "people", "old", "folder", "dry run"],
)
def test_hard_cases_refuses_in_one_line_and_a_dry_run_writes_nothing(
    refuse, run_cli, tmp_path, monkeypatch, options, code, says
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.json").touch()
    asked = ("hard-cases", "--data", "blobs:a", *options)
    if code:
        refuse(*asked, code=code, says=says, keep=[tmp_path])
    else:
        assert run_cli(*asked).exit_code == 0
        assert [path.name for path in tmp_path.iterdir()] == ["old.json"]


@pytest.fixture(scope="module")
def toy_run(toy_fit, tmp_path_factory):
    """A run on 2D toy cases, and failures found on the same."""
    folder = tmp_path_factory.mktemp("weighed")
    toy_fit(folder / "run", steps=1)
    found_in(ToySource(2), folder / "f.json")
    return folder


def test_the_command_draws_samples_by_weights(run_cli, toy_run, tmp_path):
    asked = ("sample", toy_run / "run", "-n", "2", "--device", "cpu", "-q", "--case-weights")
    result = run_cli(*asked, toy_run / "f.json", "-o", tmp_path / "samples")
    assert result.exit_code == 0, result.stderr
    (tmp_path / "bad.json").write_text((toy_run / "f.json").read_text()[:900])
    result = run_cli(*asked, tmp_path / "bad.json", "-o", tmp_path / "no")
    assert (result.exit_code, "bad.json" in result.stderr) == (6, True)


def test_weights_of_a_held_out_case_or_of_another_fold_are_refused(toy_run, monkeypatch):
    run = load_run(toy_run / "run", "cpu")
    document = json.loads((toy_run / "f.json").read_text())
    told = {k: v for k, v in document.items() if k not in ("format", "version", "sha256")}
    told["lineage"]["fold"] = "3"
    weights.write_failures(toy_run / "other.json", told)
    with raises_fault("conditions.case-weights-of-other-fold"):
        Sampler(run, ToySource(2), SampleRequest(weights=str(toy_run / "other.json")))
    monkeypatch.setattr(ToySource, "held_out_ids", ("toy_00",))
    with raises_fault("lineage.held-out-case-seen"):
        Sampler(run, ToySource(2), SampleRequest(weights=str(toy_run / "f.json")))


def test_a_host_is_checked_before_anything_starts(toy_run):
    source = ToySource(2)
    words = {"generator": toy_run / "run", "case_weights": toy_run / "f.json"}
    request = AugmentRequest(target="toy", ratio="1:1", **words)
    held_out = case_records(source, source.held_out_ids)
    origin = find_sample_source(request)
    check_asked(request, origin, source, held_out, Recorder())
    seen = replace(case_record(source, "toy_03"), id="other", subject="other")
    with raises_fault("lineage.held-out-case-seen"):
        check_asked(request, origin, source, [*held_out, seen], Recorder())


@pytest.mark.parametrize(
    ("kind", "unit", "read"), [("pictures", "px", {"resize": "10x12"}), ("slices", "mm", {})]
)
def test_a_hosts_own_pngs_say_what_it_finds_in_2d_cases(kind, unit, read, tmp_path):
    source: Any = open_source(FLAT[kind](tmp_path / "set", folds="3", **read))
    missed = source.train_ids[0]
    for case in source.train_ids:
        labels = source.load(case).labels * np.int16(case != missed)
        write_prediction(source, case, labels, tmp_path / "mine")
    report, document = found_in(source, tmp_path / "f.json", predictions=[tmp_path / "mine"])
    assert set(document["cases"]) == set(source.train_ids)
    assert (report["lesions"], report["missed"]) == (12, 1)  # 3 of 4 slices of 4 people
    assert [row["case"] for row in document["lesions"] if not row["found"]] == [missed]
    assert document["unit"] == unit
    (sizes,) = [one["bins"] for one in report["risk"]["factors"] if one["name"] == "size"]
    assert {one["name"].split()[-1] for one in sizes} <= {unit, "any"}
    area = (48 if not read else 12) * np.prod(source.schema.spacing)
    assert document["lesions"][0]["size"] == pytest.approx(area)
