"""``gansynth augment KIND:WHERE``: the data alone, and what follows from them."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

import gansynth
from gansynth.hosts import augment as api
from gansynth.hosts.deciding import dry_run, timing
from gansynth.runtime import measuring
from tests.conftest import content, save_nifti
from tests.data.sets import pairs
from tests.deepmedic_sets import toy_deepmedic
from tests.flat_sets import pictures
from tests.producers import forked_producers
from tests.yolo_sets import coco_set, toy_yolo

SHORT = ("--steps", 2, "--width", 4, "--levels", 2, "--batch-size", 2, "--bank-size", 4)


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> Iterator[None]:
    """In an empty folder, where dry runs neither compare samples nor time a framework."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})
    monkeypatch.setattr(api, "time_of", lambda *_: {"training_hours": 2.5})
    with forked_producers():
        yield


def test_data_alone_are_trained_on_and_typed_again_nothing_is_done_twice(run_cli):
    subjects = pictures(Path("scans")).subjects
    words = ("--subjects", subjects, "--ratio", "1:1", *SHORT)
    first = run_cli("augment", "pictures:scans", *words)
    again = run_cli("augment", "--data", "pictures:scans", *words)
    assert (first.exit_code, again.exit_code) == (0, 0), first.stderr
    for choice in (
        "chose target segmenter because pictures: is no framework's own data set; change it with",
        "chose generator parametric in runs/parametric_scans_f0 because the data are lesions",
    ):
        assert choice in first.stderr
        assert choice in again.stderr
    assert "runs/parametric_scans_f0: fitted on" in first.stderr
    assert "runs/parametric_scans_f0: is fitted" in again.stderr
    assert ": nothing is trained again" in again.stderr
    assert first.stdout == again.stdout


def test_a_plan_has_the_hours_of_each_part_and_what_was_measured_and_writes_nothing(
    run_json, succeed, toy_copy
):
    words = ("augment", f"nnunet:{toy_copy.dataset[7:10]}", "--root", toy_copy.root, "--dry-run")
    result = succeed(*words, "--ratio", "1:1")
    small = "chose plans gansynthSmallPlans because nnU-Net's own plans are meant for a GPU"
    assert small in result.stderr
    assert "chose num epochs 100 because it trains on a CPU (nnU-Net: 1000)" in result.stderr
    before = content(toy_copy.root)
    sets = "measured sets, with their reports: gansynth help results"
    assert (sets in succeed(*words).stdout, sets in result.stdout) == (True, False)  # by advice
    planned = run_json(*words, "--ratio", "1:1")
    assert (planned["training_hours"], planned["epochs"]) == (2.5, 100)
    assert planned["fit_hours"] >= 0
    assert content(toy_copy.root) == before
    assert not Path("runs").exists()


def boxes_of_coco(folder: Path) -> str:
    coco_set(folder, "none", ("train.json", "val.json", "{split}/{name}"))
    return str(folder)  # the kind is found


UNLIKE = "nothing like these data was measured ("
BOXED = "of 1 set like these, samples helped 0, harmed 0, unclear 1 ("


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (lambda to: f"nifti:{pairs(to).where}", UNLIKE),
        pytest.param(lambda to: f"yolo:{toy_yolo(to)}", BOXED, marks=pytest.mark.extra("yolo")),
        pytest.param(boxes_of_coco, UNLIKE, marks=pytest.mark.extra("yolo")),
    ],
)
def test_where_no_gain_is_to_be_expected_no_sample_is_drawn(succeed, data, why):
    named = data(Path("data"))
    alone = succeed("augment", named, "--dry-run", "--json")
    assert f"chose ratio 1:0 because {why}" in alone.stderr
    assert "; change it with --ratio 1:1" in alone.stderr
    plan = json.loads(alone.stdout)
    assert plan["ratio"] == "1:0"
    assert (named if ":" in named else f"coco:{named}").startswith(plan["data"])


@pytest.mark.parametrize(
    ("data", "small"),
    [
        (lambda to: f"pictures:{pictures(to).where}", ("--width", 4, "--levels", 2)),
        pytest.param(
            lambda to: f"yolo:{toy_yolo(to)}",
            (),
            marks=[pytest.mark.slow, pytest.mark.extra("yolo")],
        ),
    ],
)
def test_a_dry_run_times_the_beginning_of_a_training_of_any_length_and_leaves_nothing(
    run_json, data, small, monkeypatch
):
    monkeypatch.setattr(measuring, "BOUND", 250.0)  # beside busy processes, too
    monkeypatch.setattr(api, "time_of", dry_run.time_of)
    monkeypatch.setattr(dry_run, "pace_of", timing.pace_of)
    named, folder = data(Path("data").absolute()), Path("empty")
    folder.mkdir()
    monkeypatch.chdir(folder)
    plan = run_json("augment", named, "--dry-run", "--set", "epochs=1000000", *small)
    assert plan["training_hours"] > 1
    assert list(Path().iterdir()) == []


def test_a_dry_run_says_why_a_training_does_not_begin(run_json, monkeypatch):
    monkeypatch.setattr(api, "time_of", dry_run.time_of)
    monkeypatch.setattr(dry_run, "pace_of", timing.pace_of)
    monkeypatch.setattr(timing, "overlay", lambda given, over: {**given, **over})
    named = f"pictures:{pictures(Path('scans')).where}"
    plan = run_json("augment", named, "--dry-run", "--set", "epochs=100000")
    assert "epochs=100000: cannot be combined" in plan["training_hours"]


@pytest.mark.slow
def test_a_dry_run_times_two_real_steps_of_nnunet(run_json, toy_nnunet, fitted, monkeypatch):
    monkeypatch.undo()
    words = ("augment", "--target", "nnunet", *toy_nnunet.options, "--generator", fitted)
    document = run_json(*words, "--ratio", "1:1", "--num-epochs", 10, "--dry-run")
    epoch = document["seconds_an_epoch"]
    assert epoch >= 250 * document["seconds_a_step"]
    assert document["training_hours"] > 10 * epoch / 3600  # processes start, too


def test_a_folder_of_data_read_otherwise_is_left_and_another_one_is_chosen(run_cli):
    data = pictures(Path("scans"))
    words = ("augment", f"pictures:{data.where}", "--subjects", data.subjects, "--ratio", "1:1")
    fitted = Path("runs/parametric_scans_f0")
    gansynth.fit("parametric", data=words[1], subjects=data.subjects, out=fitted, quiet=True)
    read = ("--read", "labels=tumour:255,ignore:7")
    assert f"parametric in {fitted} because" in run_cli(*words, "--dry-run").stderr
    told = run_cli(*words, *read, "--dry-run")
    assert (told.exit_code, f"parametric in {fitted}-2 because" in told.stderr) == (0, True)
    named = ("--target", "segmenter", "--generator", fitted, *read)
    refused = run_cli(*words, *named).stderr.splitlines()[-1]
    assert "labels: not given, here background:0,ignore:7,tumour:255" in refused
    assert "-o runs/parametric_scans_f0_again" in refused
    assert "--plans" not in refused


@pytest.mark.parametrize(
    ("words", "id"),
    [
        (("deepmedic:toy/trainConfig.cfg",), "deepmedic.no-checkout-or-output"),
        (("--target", "deepmedic", "--data", "pictures:scans"), "deepmedic.data-of-other-kind"),
        (("--target", "segmenter", "--data", "pictures:scans"), "schedule.generator-missing"),
    ],
)
def test_what_needs_no_generator_is_refused_before_one_is_fitted(run_cli, words, id):
    toy_deepmedic(Path("toy"))
    pictures(Path("scans"))
    refused = run_cli("augment", *words, "--ratio", "1:1")
    assert f"[{id}]" in refused.stderr.splitlines()[-1]
    assert not Path("runs").exists()


@pytest.fixture
def unprepared(toy_copy, monkeypatch) -> tuple[Path, tuple[str, ...]]:
    """The folder of a raw data set of nnU-Net, and how it is augmented with scans of other people.

    The scans are in ``free``.
    """
    monkeypatch.delenv("nnUNet_preprocessed", raising=False)
    root = Path("unprepared")
    shutil.copytree(Path(toy_copy.root) / "nnUNet_raw", root / "nnUNet_raw")
    [data] = (root / "nnUNet_raw").iterdir()
    for file in sorted((data / "imagesTr").glob("p1_left_*")):
        image: Any = nib.load(file)
        noise = np.random.default_rng(3).normal(100, 10, image.shape)
        save_nifti(Path("free") / file.name.replace("p1_left", "free"), noise)
    words = ("augment", f"nnunet:{toy_copy.dataset[7:10]}", "--root", str(root), "--ratio", "1:1")
    return data, (*words, "--unlabelled")


def test_scans_that_cannot_be_marked_are_refused_before_the_data_are_prepared(run_cli, unprepared):
    data, words = unprepared
    for end in ((), ("--dry-run",)):
        assert "[hosts.sure-without-ignore-label]" in run_cli(*words, "nifti:free", *end).stderr
    about = json.loads((data / "dataset.json").read_text())
    about["labels"]["ignore"] = max(about["labels"].values()) + 1
    (data / "dataset.json").write_text(json.dumps(about))
    told = run_cli(*words, "nifti:free", "--dry-run")
    assert (told.exit_code, "two trainings in all" in " ".join(told.stdout.split())) == (0, True)
    assert not Path("unprepared/nnUNet_preprocessed").exists()


@pytest.mark.parametrize("end", [(), ("--dry-run",)])
def test_scans_of_held_out_people_are_refused_before_the_data_are_prepared(
    run_cli, unprepared, end
):
    data, words = unprepared
    told = run_cli(*words, f"nifti:{data / 'imagesTr'}", "--lesion-free", *end)
    assert (told.exit_code, "leakage" in told.stderr) == (6, True), told.stderr
    assert not Path("unprepared/nnUNet_preprocessed").exists()


@pytest.mark.parametrize(
    ("typed", "scans"), [((), 3), (("--unlabelled-read", "images=images"), 5)], ids=["own", "said"]
)
def test_scans_are_read_as_the_data_are_where_nothing_is_said_of_them(run_json, typed, scans):
    data = pictures(Path("data"))
    Path("data/images").rename("data/pngs")
    for folder, count in (("pngs", 3), ("images", 5)):
        for number in range(count):
            noise = np.random.default_rng(number).integers(0, 255, (20, 24), np.uint8)
            Path("free", folder).mkdir(parents=True, exist_ok=True)
            Image.fromarray(noise).save(Path("free", folder, f"free_{number}.png"))
    words = ("augment", "pictures:data", "--subjects", data.subjects, "--read", "images=pngs")
    words += ("--unlabelled", "pictures:free", "--lesion-free", *typed)
    assert run_json(*words, "--dry-run")["unlabelled_scans"] == scans


def test_a_stop_before_the_training_says_how_it_goes_on(run_cli, monkeypatch):
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    pictures(Path("scans"))
    monkeypatch.setattr(api, "decide", stop)
    stopped = run_cli("augment", "pictures:scans", "--quiet")
    said = "warning: stopped; type the same command again to resume\n"
    assert (stopped.exit_code, stopped.stderr) == (130, said)
