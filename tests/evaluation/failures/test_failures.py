"""``gansynth failures``: every training lesion judged by a host that had not seen its case."""
# mypy: disallow-untyped-calls=False

import json
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.ndimage import gaussian_filter

from gansynth.conditions.failures_lesions import Frame, Judged, Lesion, judge, lesions_in
from gansynth.conditions.failures_risk import Risk
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.data.flat import FlatSource
from gansynth.data.folds import read_splits
from gansynth.evaluation.failures.hosts import (
    InnerSource,
    by_windows,
    inner_folds,
    predicted_files,
    training_space,
)
from gansynth.evaluation.failures.job import FailureOptions, find_failures
from gansynth.runtime.errors import DataFault, IntegrityFault, UsageFault
from gansynth.runtime.progress import NullReporter
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_source
from gansynth.testing import ToySource
from tests.blobs import Blobs, blobs, failures_of
from tests.conftest import save_nifti
from tests.flat_sets import FLAT


@pytest.fixture(scope="module", autouse=True)
def kinds():
    with blobs():
        yield


def framed(shape, spacing=None):
    n = len(shape)
    span = ((0.0, 1.0),) * n
    return Frame(tuple(spacing or (1.0,) * n), (0.0,) * n, (1.0,) * n, tuple(shape), span)


# -- lesions ---------------------------------------------------------------------------------------


def test_a_lesion_has_a_size_a_place_and_a_class():
    labels = np.zeros((10, 20, 20), np.int16)
    labels[1:3, 15:18, 4:8] = 2
    labels[8, 0, 0] = 1
    frame = framed(labels.shape, (2.0, 1.0, 0.5))
    (one,) = lesions_in(labels, (1, 2), frame, least=2)
    assert (one.label, one.size) == (2, 24.0)
    assert one.diameter == pytest.approx((6 * 24 / np.pi) ** (1 / 3))
    assert one.place == pytest.approx((0.2, 0.825, 0.3))
    assert len(lesions_in(labels, (1, 2), frame, least=1)) == 2


def test_places_are_those_in_the_body():
    labels = np.zeros((20, 20), np.int16)
    labels[10:12, 10:12] = 1
    frame = replace(framed(labels.shape), body=((0.5, 1.0), (0.25, 0.75)))
    (one,) = lesions_in(labels, (1,), frame, least=1)
    assert one.place == pytest.approx((0.1, 0.6))


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
    found = judge(truth, seen, (1, 2), framed(truth.shape), least=1)
    by = {tuple(np.round(np.array(j.lesion.place) * 30 - 0.5).astype(int)): j for j in found}
    assert by[4, 4].dice == pytest.approx(2 * 8 / (8 + 16))
    assert (by[4, 4].recall, by[4, 4].found) == (0.5, True)
    assert (by[4, 22].dice, by[4, 22].found) == (0.0, False)
    for key in ((22, 4), (22, 10)):  # two columns lie between them, one falls to each
        assert by[key].dice == pytest.approx(2 * 16 / (16 + 20))
    assert (by[22, 22].lesion.label, by[22, 22].dice) == (2, 0.0)


def test_what_touches_no_lesion_is_no_lesions_failure():
    truth, seen = np.zeros((2, 20, 20), np.int16)
    truth[2:6, 2:6] = seen[2:6, 2:6] = seen[12:18, 12:18] = 1
    (one,) = judge(truth, seen, (1,), framed(truth.shape), least=1)
    assert one.dice == 1.0


# -- risk ------------------------------------------------------------------------------------------


def judged(number, failed, label=None, size=None):
    rng = np.random.default_rng(number)
    diameter = rng.uniform(2, 20) if size is None else size
    place = tuple(rng.uniform(0, 1, 3))
    lesion = Lesion(label or 1 + number % 2, diameter**3, diameter, place)
    return Judged(lesion, 1.0 - failed(lesion), 1.0)


def ratios(risk, name):
    return {b.name: b.ratio for f in risk.factors if f.name == name for b in f.bins}


def fit(lesions):
    return Risk.fit(lesions, {1: "one", 2: "two"}, "DHW", 10.0)


def test_few_lesions_say_little_and_many_say_much():
    failed = lambda lesion: float(lesion.label == 2)  # noqa: E731
    few = ratios(fit([judged(n, failed) for n in range(4)]), "class")
    many = ratios(fit([judged(n, failed) for n in range(200)]), "class")
    assert 1 < few["two"] < 1.5 < 1.8 < many["two"]
    assert 1 > few["one"] > 0.6 > 0.2 > many["one"]


def test_a_class_that_is_small_is_not_blamed_twice():
    def failed(lesion):
        return float(lesion.diameter < 8)

    lesions = [judged(n, failed, 2, 3 + n % 5) for n in range(60)]
    lesions += [judged(n, failed, 1, 3 + n % 5) for n in range(60, 80)]
    lesions += [judged(n, failed, 1, 10 + n % 5) for n in range(80, 160)]
    risk = fit(lesions)
    small, large = (Lesion(label, 27, 3.0, None) for label in (1, 2))
    # Small ones of either class are all missed; class 2 has no other, class 1 has.
    assert risk.of(small) == pytest.approx(risk.of(large), rel=0.25)
    assert risk.of(small) > 3 * risk.of(Lesion(1, 1000, 12.0, None))


def test_a_host_without_failures_weighs_all_alike():
    risk = fit([judged(n, lambda lesion: 0.0) for n in range(40)])
    assert {b.ratio for f in risk.factors for b in f.bins} == {1.0}


def test_a_risk_survives_json():
    risk = fit([judged(n, lambda lesion: float(lesion.diameter < 8)) for n in range(40)])
    assert Risk.from_json(json.loads(json.dumps(risk.to_json()))) == risk


# -- inner folds -----------------------------------------------------------------------------------


def test_inner_folds_have_training_cases_only_and_keep_people_together():
    source = Blobs()
    folds = inner_folds(source, 3, 0)
    assert sorted(c for f in folds for c in f["val"]) == list(source.train_ids)
    for fold in folds:
        sides = [{source.subject(c) for c in fold[side]} for side in ("train", "val")]
        assert not sides[0] & sides[1]
    assert folds == inner_folds(source, 3, 0) != inner_folds(source, 3, 1)


def test_nothing_held_out_is_read_through_an_inner_fold():
    source = Blobs()
    inner = InnerSource(source, inner_folds(source, 2, 0)[0])
    with pytest.raises(IntegrityFault, match="'case_33' is no training case"):
        inner.load("case_33")
    with pytest.raises(IntegrityFault, match="'case_33' is no training case"):
        InnerSource(source, {"train": ["case_00"], "val": ["case_33"]})


# -- hosts -----------------------------------------------------------------------------------------


class Smooth:
    """Looks at a few voxels around: windows change nothing away from their borders."""

    values = (0, 2)

    def shares(self, image):
        assert max(image.shape[1:]) <= 16
        bright = gaussian_filter(image[0], 1, truncate=2)
        return np.stack([1 - bright, bright]).astype(np.float32)

    def predict(self, image):
        raise AssertionError("too large to be looked at in one piece")


def test_windows_cover_a_volume_of_any_size():
    rng = np.random.default_rng(0)
    image = (gaussian_filter(rng.normal(size=(1, 19, 33, 16)), 3) > 0).astype(np.float32)
    found = by_windows(Smooth(), image, (16, 16, 16))  # type: ignore[arg-type]
    whole = np.where(gaussian_filter(image[0], 1, truncate=2) > 0.5, 2, 0)
    assert found.dtype == np.int16
    assert (found == whole).mean() > 0.99


@pytest.mark.parametrize("data", ["toy", "blobs", "slices"])
def test_a_small_segmenter_judges_every_training_lesion(tmp_path, data):
    source = {
        "toy": ToySource(2),
        "blobs": Blobs(space=Space("crop", (8, 16, 16), pad_label=0)),
        "slices": Blobs(space=Space("slice", (16, 24), pad_label=0)),
    }[data]
    barred = source.load

    def load(case_id):
        assert case_id in source.train_ids
        return barred(case_id)

    source.load = load  # type: ignore[method-assign]
    options = FailureOptions(inner=2, steps=3, width=2, levels=2, patch=16, least=1)
    report = find_failures(
        source, tmp_path / "f.json", options, device="cpu", reporter=NullReporter()
    )
    document = json.loads((tmp_path / "f.json").read_text())
    assert {row["case"] for row in document["lesions"]} == set(source.train_ids)
    assert report["lesions"] == len(document["lesions"])
    assert [c["id"] for c in document["lineage"]["cases"]] == list(source.train_ids)
    for case, told in document["cases"].items():
        assert case in document["inner"][told["inner"]]["val"]
    assert not set(source.held_out_ids) & set(json.dumps(document).split('"'))


def test_a_small_segmenter_finds_what_is_bright(tmp_path):
    source = Blobs()
    options = FailureOptions(inner=2, steps=40, width=4, levels=2, lr=1e-2)
    report = find_failures(
        source, tmp_path / "f.json", options, device="cpu", reporter=NullReporter()
    )
    assert report["missed"] <= 3
    assert report["risk"]["mean_failure"] < 0.6


@pytest.mark.parametrize("learnt", [True, False])
def test_a_class_that_is_never_found_comes_with_a_warning(tmp_path, learnt):
    said: list[str] = []
    reporter = NullReporter()
    reporter.warn = said.append  # type: ignore[method-assign,assignment]
    source, folder = Blobs(), named(tmp_path / "p", *Blobs().train_ids)
    source.misses = lambda case: case.labels.max() == 2 and not (learnt and case.id == "case_01")  # type: ignore[union-attr]
    find_failures(
        source, tmp_path / "f.json", FailureOptions(), predictions=[folder], reporter=reporter
    )
    assert ["'two': none of 16" in line for line in said] == ([] if learnt else [True])


def test_crops_are_no_larger_than_asked():
    assert training_space(Blobs(), 16).size == (12, 16, 16)
    native = training_space(Blobs(space=Space()), 20)
    assert (native.grid, native.size) == ("crop", (12, 20, 20))


# -- predictions -----------------------------------------------------------------------------------


def test_the_same_predictions_make_the_same_file(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        failures_of(lambda case: case.id.endswith("2"), tmp_path / name)
    one, other = (tmp_path / name / "failures.json" for name in ("a", "b"))
    assert one.read_bytes() == other.read_bytes()
    assert json.loads(one.read_text())["host"] == "predictions"


def named(folder, *cases):
    folder.mkdir()
    for case in cases:
        (folder / f"{case}.nii.gz").touch()
    (folder / "summary.json").touch()
    return folder


def test_predictions_may_lie_in_several_folders(tmp_path):
    ids = Blobs().train_ids
    folders = [named(tmp_path / "0", *ids[:9]), named(tmp_path / "1", *ids[9:])]
    assert sorted(predicted_files(Blobs(), folders)) == list(ids)


@pytest.mark.parametrize(
    ("extra", "fault", "says"),
    [
        (["case_35"], IntegrityFault, "predictions of 1 held-out case.* case_35;"),
        (["case_3"], DataFault, "'case_3' is no case of blobs:a fold 0"),
        (["case_00"], DataFault, "'case_00' has another prediction"),
    ],
    ids=["held out", "unknown", "twice"],
)
def test_a_prediction_that_does_not_belong_is_named(tmp_path, extra, fault, says):
    folders = [named(tmp_path / "0", *Blobs().train_ids), named(tmp_path / "1", *extra)]
    with pytest.raises(fault, match=says):
        predicted_files(Blobs(), folders)


def test_a_prediction_that_is_missing_is_named(tmp_path):
    folder = named(tmp_path / "0", *Blobs().train_ids[2:])
    with pytest.raises(DataFault, match=r"2 of 32 .* no prediction, case_00, case_01;"):
        predicted_files(Blobs(), [folder])


def test_a_source_without_such_files_says_so(tmp_path):
    with pytest.raises(UsageFault, match="nnunet-raw:, nifti:, msd:"):
        ToySource(2).predicted("toy_00", tmp_path / "toy_00.nii.gz")


@pytest.fixture
def volumes(tmp_path):
    """``nifti:`` of six cases stored back to front, in voxels of 2 mm; predictions of the first."""
    rng, affine = np.random.default_rng(0), np.diag([-2.0, 2.0, 2.0, 1.0])
    for number in range(6):
        labels = np.zeros((12, 10, 8), np.uint8)
        labels[2 + number : 5 + number, 3:7, 2:6] = 1
        image = (labels * 3 + rng.normal(0, 0.2, labels.shape)).astype(np.float32)
        save_nifti(tmp_path / f"data/images/c{number}.nii.gz", image, affine)
        save_nifti(tmp_path / f"data/labels/c{number}.nii.gz", labels, affine)
    return tmp_path


@pytest.mark.parametrize("read", [{}, {"spacing": "1"}], ids=["native", "resampled"])
def test_a_prediction_is_brought_to_the_cases_own_voxels(volumes, read):
    source = open_source(SourceRequest("nifti", str(volumes / "data"), read={**read, "folds": "2"}))
    case = source.train_ids[0]
    found = source.predicted(case, volumes / "data" / "labels" / f"{case}.nii.gz")
    labels = source.load(case).labels
    assert labels is not None
    assert np.array_equal(found, labels)


@pytest.mark.parametrize(
    ("shape", "affine", "value", "says"),
    [
        ((12, 10, 9), [-2.0, 2.0, 2.0, 1.0], 1, "shape is"),
        ((12, 10, 8), [2.0, 2.0, 2.0, 1.0], 1, "affine differs"),
        ((12, 10, 8), [-2.0, 2.0, 2.0, 1.0], 7, "label value"),
    ],
    ids=["shape", "turned", "label"],
)
def test_a_prediction_of_another_grid_or_label_is_refused(volumes, shape, affine, value, says):
    source = open_source(SourceRequest("nifti", str(volumes / "data"), read={"folds": "2"}))
    save_nifti(volumes / "p/c.nii.gz", np.full(shape, value, np.uint8), np.diag(affine))
    with pytest.raises(DataFault, match=says):
        source.predicted(source.train_ids[0], volumes / "p" / "c.nii.gz")


# -- the command -----------------------------------------------------------------------------------


def test_inner_folds_predictions_and_weights_by_the_command_line(run_cli, volumes):
    data = ("--data", f"nifti:{volumes / 'data'}", "--read", "folds=3", "--inner", "2")
    result = run_cli("failures", *data, "--write-splits", volumes / "inner.json", "--json")
    assert result.exit_code == 0, result.stderr
    source = open_source(SourceRequest("nifti", str(volumes / "data"), read={"folds": "3"}))
    folds = read_splits(volumes / "inner.json")
    assert {c for f in folds.values() for c in f["train"] + f["val"]} == set(source.train_ids)
    told = []
    for number, fold in folds.items():
        for case in fold["val"]:
            name = f"{case}.nii.gz"
            (volumes / f"p{number}").mkdir(exist_ok=True)
            (volumes / f"p{number}" / name).symlink_to(volumes / "data" / "labels" / name)
        told += ["--predictions", volumes / f"p{number}"]
    result = run_cli("failures", *data, *told, "-o", volumes / "f.json")
    assert result.exit_code == 0, result.stderr
    assert "lesions  4" in result.stdout
    assert "class" in result.stdout
    held_out = source.held_out_ids[0]
    (volumes / "p0" / f"{held_out}.nii.gz").touch()
    result = run_cli("failures", *data, *told, "-o", volumes / "g.json")
    assert result.exit_code == 6
    assert held_out in result.stderr


def test_a_dry_run_trains_and_writes_nothing(run_cli, tmp_path):
    result = run_cli("failures", "--data", "blobs:a", "-o", tmp_path / "f.json", "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--data", "blobs:a"), 2, ["nothing to write", "-o FILE"]),
        (("--data", "blobs:a", "-o", "NEW", "--set", "bond=3"), 2, ["Did you mean 'bound'?"]),
        (("--data", "blobs:a", "-o", "NEW", "--inner", "99"), 3, ["16 subject(s) for 99"]),
        (("--data", "blobs:a", "-o", "OLD"), 2, ["exists already"]),
        (("--data", "blobs:a", "-o", "NEW", "--predictions", "no"), 3, ["no such folder"]),
    ],
    ids=["nothing", "slip", "people", "old", "folder"],
)
def test_what_cannot_be_is_one_line(refuse, tmp_path, options, code, says):
    (tmp_path / "old.json").touch()
    put = {"NEW": tmp_path / "new.json", "OLD": tmp_path / "old.json"}
    refuse("failures", *(put.get(o, o) for o in options), code=code, says=says, keep=[tmp_path])


# -- samples ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def toy_run(toy_fit, tmp_path_factory):
    """A run on 2D toy cases, and failures found on the same."""
    folder = tmp_path_factory.mktemp("weighed")
    toy_fit(folder / "run", steps=1)
    options = FailureOptions(inner=2, steps=2, width=2, levels=2)
    find_failures(ToySource(2), folder / "f.json", options, device="cpu", reporter=NullReporter())
    return folder


def drawer(folder, weights="f.json", source=None):
    asking = SampleRequest(weights=str(folder / weights))
    return SampleDrawer(load_run(folder / "run", "cpu"), source or ToySource(2), asking)


def test_samples_are_drawn_by_weights(toy_run):
    weighed = drawer(toy_run)
    first, second = (weighed.draw(2, 2) for _ in range(2))
    assert [s.provenance["weights"]["of"] for s in first] == [8, 8]
    for one, other in zip(first, second, strict=True):
        assert np.array_equal(one.image, other.image)
    assert weighed.lineage == weighed.run.lineage


def test_the_command_draws_samples_by_weights(run_cli, toy_run, tmp_path):
    run, asked = toy_run / "run", ("--weights", toy_run / "f.json")
    made = tmp_path / "samples"
    result = run_cli("sample", run, "-n", "2", "-o", made, "--device", "cpu", "-q", *asked)
    assert result.exit_code == 0, result.stderr
    (tmp_path / "bad.json").write_text((toy_run / "f.json").read_text()[:900])
    asked = ("--weights", tmp_path / "bad.json")
    result = run_cli("sample", run, "-n", "2", "-o", tmp_path / "no", "--device", "cpu", *asked)
    assert result.exit_code == 6
    assert "bad.json" in result.stderr


def test_weights_of_a_case_that_is_held_out_now_are_refused(toy_run):
    source = ToySource(2)
    ids = source.train_ids
    kind = type(
        "Fewer",
        (ToySource,),
        {"train_ids": property(lambda _: ids[1:]), "held_out_ids": property(lambda _: ids[:1])},
    )
    with pytest.raises(IntegrityFault, match=r"toy_00 \(the case itself"):
        drawer(toy_run, source=kind(2))


def test_weights_of_another_fold_are_refused(toy_run):
    from gansynth.conditions.weights import write_failures

    document = json.loads((toy_run / "f.json").read_text())
    for key in ("format", "version", "sha256"):
        del document[key]
    document["lineage"]["fold"] = "3"
    write_failures(toy_run / "other.json", document)
    with pytest.raises(IntegrityFault, match="toy:2 fold 3, the run has seen toy:2 fold 0"):
        drawer(toy_run, "other.json")


def test_a_host_is_checked_before_anything_starts(toy_run):
    from gansynth.core.run_folder import RunFolder
    from gansynth.hosts.checks import Takes, check_asked
    from gansynth.hosts.origin import find_origin

    source = ToySource(2)
    asking = SampleRequest(weights=str(toy_run / "f.json"))
    injection: Any = SimpleNamespace(samples=asking, bank=None, run=RunFolder(toy_run / "run"))
    held_out = source.records(source.held_out_ids)
    origin = find_origin(injection)
    check_asked(injection, origin, Takes("toy", source, held_out))
    seen = replace(source.record("toy_03"), id="other", subject="other")
    with pytest.raises(IntegrityFault, match="same content as toy_03"):
        check_asked(injection, origin, Takes("toy", source, [*held_out, seen]))


# -- 2D cases --------------------------------------------------------------------------------------

TINY = FailureOptions(inner=2, steps=2, width=4, levels=2, patch=16, least=1)


@pytest.mark.parametrize(("kind", "unit"), [("pictures", "px"), ("slices", "mm")])
def test_lesions_of_2d_cases_have_sizes_in_what_is_known(kind, unit, tmp_path):
    source = open_source(FLAT[kind](tmp_path / "set", folds="3"))
    report = find_failures(source, tmp_path / "f.json", TINY, device="cpu", reporter=NullReporter())
    document = json.loads((tmp_path / "f.json").read_text())
    assert set(document["cases"]) == set(source.train_ids)
    assert document["unit"] == unit
    assert report["lesions"] == 12  # three of four slices of four people
    (sizes,) = [one["bins"] for one in report["risk"]["factors"] if one["name"] == "size"]
    assert {one["name"].split()[-1] for one in sizes} <= {unit, "any"}
    area = 48 * np.prod(source.schema.spacing)
    assert document["lesions"][0]["size"] == pytest.approx(area)


@pytest.mark.parametrize("kind", FLAT)
def test_a_hosts_own_pngs_say_what_it_finds_in_2d_cases(kind, tmp_path):
    source = open_source(FLAT[kind](tmp_path / "set", folds="3", resize="10x12"))
    assert isinstance(source, FlatSource)
    missed = source.train_ids[0]
    for case in source.train_ids:
        labels = source.load(case).labels
        assert labels is not None
        labels = labels * np.int16(case != missed)
        file = tmp_path / "mine" / f"{case}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(source.encode_labels(case, labels).astype(np.uint8)).save(file)
    report = find_failures(
        *(source, tmp_path / "f.json", TINY),
        predictions=[tmp_path / "mine"],
        reporter=NullReporter(),
    )
    assert (report["lesions"], report["missed"]) == (12, 1)
    (row,) = [r for r in json.loads((tmp_path / "f.json").read_text())["lesions"] if not r["found"]]
    assert row["case"] == missed
