"""Scans without labels as backgrounds of lesions, by commands on small pictures."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import gansynth
from gansynth.conditions.standing_out import LesionContrasts
from gansynth.core.sample_request import MARKED
from gansynth.hosts.deciding import dry_run
from gansynth.runtime.yaml_text import read_yaml
from tests.adapters.kits import in_this_process
from tests.conditions.rooms import THREE, patients, pool_of
from tests.data.sets import save as save_volume

SIDE = 48
GAINS = Path(__file__).parents[2] / "benchmarks/gains"


def save(folder: Path, name: str, seed: int, *, lesion: bool, scale: float = 1.0) -> None:
    """A grey disc, and a bright lesion in it, whose mask is saved where there is one."""
    rng = np.random.default_rng(seed)
    row, column = np.indices((SIDE, SIDE))
    body = np.hypot(row - 24, column - 24) < 16 + seed % 4
    spot = np.hypot(row - 20 - seed % 7, column - 24 + seed % 5) < 4
    image = np.where(body, 90 + 6 * rng.standard_normal((SIDE, SIDE)), 0)
    image = (image + 80 * spot * lesion) * scale
    for part, array in (("images", image), ("labels", spot * 1.0)):
        if part == "images" or lesion:
            (folder / part).mkdir(parents=True, exist_ok=True)
            pixels = Image.fromarray(array.clip(0, 255).astype(np.uint8))
            pixels.save(folder / part / f"{name}.png")


@pytest.fixture(autouse=True)
def in_process(monkeypatch) -> None:
    """No training has a process of its own."""
    in_this_process(monkeypatch)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """``ill``, a run ``cp`` on its fold 0, and ``free``: darker pictures without labels."""
    home: Path = tmp_path_factory.mktemp("home")
    for number in range(9):
        save(home / "ill", f"ill{number}", number, lesion=True)
    for number in range(6):
        save(home / "free", f"free{number}", 50 + number, lesion=False, scale=0.4)
    data = f"pictures:{home / 'ill'}"
    gansynth.fit("copypaste", data=data, read={"folds": 3}, out=home / "cp", quiet=True)
    return home


@pytest.fixture
def drawn(home, run_json, tmp_path) -> Callable[..., dict[str, dict[str, Any]]]:
    """Provenance of samples with unlabelled scans, by name."""

    def draw(name: str, *words: object, scans: str = "free", n: int = 12) -> Any:
        out, asked = tmp_path / name, ("--unlabelled", f"pictures:{home / scans}", *words)
        run_json("sample", home / "cp", "-n", n, *asked, "-o", out)
        return json.loads((out / "provenance.json").read_text())["samples"]

    return draw


def train(home: Path) -> set[str]:
    manifest = json.loads((home / "cp" / "manifest.json").read_text())
    return {case["id"] for case in manifest["lineage"]["cases"]}


def test_lesions_of_training_cases_land_in_unlabelled_scans_at_the_share_asked_for(home, drawn):
    told = drawn("all", "--backgrounds", "unlabelled", "--prevalence", 1).values()
    assert {one["case"].rstrip("012345") for one in told} == {"free"}
    assert {one["lesions"]["donor"] for one in told if one["lesions"]["room"]} <= train(home)
    half, own = (drawn(share, "--backgrounds", share) for share in ("0.5", "own"))
    assert 0 < sum(one["dataset"] == "pictures:free" for one in half.values()) < len(half)
    assert {one["case"] for one in own.values()} <= train(home)
    mine = [name for name, one in half.items() if "unlabelled" not in one]
    assert mine
    assert all(half[name]["sha256"] == own[name]["sha256"] for name in mine)


def test_intensities_of_scans_become_those_of_training_cases_and_it_is_said(
    home, succeed, run_cli, tmp_path
):
    scans = ("--unlabelled", f"pictures:{home / 'free'}", "--backgrounds", "unlabelled")
    words = ("-n", 3, "--prevalence", 0, "-o", tmp_path / "out")
    result = succeed("sample", home / "cp", *scans, *words)
    counted = r"6 scan\(s\) of 6 subject\(s\), taken as free of lesions.*; "
    vouched = run_cli("sample", home / "cp", *scans, "--lesion-free", *words[:-1], tmp_path / "v")
    assert "taken as free of lesions, by --lesion-free; " in vouched.stderr
    found = counted + "grey 0.1.*, training cases 0.3.*: brought to theirs"
    assert re.search(found, result.stderr)
    run = gansynth.load(home / "cp")
    samples = run.sample(
        3, unlabelled=f"pictures:{home / 'free'}", backgrounds="unlabelled", prevalence=0
    )
    middle = [float(sample.image[0, 20:28, 20:28].mean()) for sample in samples]
    assert np.allclose(middle, 90 / 255, atol=0.03)
    assert all(sample.image[0, 0, 0] == 0 for sample in samples)


def test_pasted_lesions_are_the_donors_pixels_and_what_is_around_them_is_a_scans(home, tmp_path):
    plan = read_yaml(GAINS / "fair_lgg_paste/plan.yaml", "a plan")[0]
    plain = plan["generators"]["plain"]["set"]
    [arm] = [one for one in plan["arms"] if "generator" in one]
    data = f"pictures:{home / 'ill'}"
    gansynth.fit("copypaste", data=data, set=plain, out=tmp_path / "plain", quiet=True)
    run = gansynth.load(tmp_path / "plain")
    words = {"unlabelled": f"pictures:{home / 'free'}", "backgrounds": arm["backgrounds"]}
    pasted = 0
    for sample in run.sample(12, prevalence=1, edit=arm["edit"], lesions=arm["lesions"], **words):
        lesion = np.asarray(sample.labels) > 0
        scan = np.asarray(Image.open(home / f"free/images/{sample.provenance['case']}.png"))
        around = np.corrcoef(sample.image[0][~lesion], scan[~lesion])[0, 1]
        assert around > 0.999  # brought to the training cases' intensities
        if lesion.any():
            donor = home / f"ill/{{}}/{sample.provenance['lesions']['donor']}.png"
            image, mask = (
                np.asarray(Image.open(str(donor).format(k))) for k in ("images", "labels")
            )
            shown = np.rint(255 * sample.image[0][lesion])
            assert np.allclose(shown, 255 * sample.image[0][lesion], atol=1e-3)
            assert np.isin(shown, image[mask > 0]).all()
            pasted += 1
    assert pasted > 5


@pytest.mark.parametrize("beside", [False, True])
def test_scans_with_a_lesion_in_a_label_map_are_left_out(home, drawn, tmp_path, beside):
    some, masks = tmp_path / "some", "predicted" if beside else "labels"
    for number in range(3):
        save(some, f"some{number}", 70 + number, lesion=number == 0)
    for number in (1, 2):
        Image.new("L", (SIDE, SIDE)).save(some / "labels" / f"some{number}.png")
    (some / "labels").rename(some / masks)
    words = ["--backgrounds", "unlabelled"]
    if beside:  # as gansynth predict writes them
        words += ["--unlabelled-read", "images=images", "--unlabelled-read", "masks=predicted"]
    told = drawn("samples", *words, scans=some).values()
    assert {one["case"] for one in told} == {"some1", "some2"}


def volumes(folder: Path) -> tuple[str, str]:
    """Label maps that end in ``_ROI`` beside their images; scans as nnU-Net names them."""
    rng = np.random.default_rng(3)
    for number in range(6):
        for free in (False, True):
            body, drawn = np.zeros((2, 20, 20, 10), np.int16)
            body[3:17, 3:17, 1:9] = rng.normal(100, 10, (14, 14, 8))
            drawn[8 : 11 + number % 3, 8:11, 3:6] = 1
            name = f"free/N{number}_0000" if free else f"ill/p{number}"
            save_volume(folder / f"{name}.nii.gz", body if free else body + 60 * drawn)
            if not free:
                save_volume(folder / f"{name}_ROI.nii.gz", drawn.astype(np.uint8))
    return f"nifti:{folder / 'ill'}", f"nifti:{folder / 'free'}"


def pictures(folder: Path) -> tuple[str, str]:
    """Folders of images and masks with names that the scans' folder has not."""
    for number in range(6):
        save(folder / "ill", f"ill{number}", number, lesion=True)
        save(folder / "free", f"free{number}", 50 + number, lesion=False)
    (folder / "ill/images").rename(folder / "ill/img")
    (folder / "ill/labels").rename(folder / "ill/GroundTruth")
    return f"pictures:{folder / 'ill'}", f"pictures:{folder / 'free'}"


@pytest.mark.parametrize("made", [volumes, pictures])
def test_scans_need_no_files_where_label_maps_of_training_cases_are(made, run_json, tmp_path):
    data, scans = made(tmp_path)
    gansynth.fit("copypaste", data=data, out=tmp_path / "cp", quiet=True)
    words = ("-n", 2, "--unlabelled", scans, "--backgrounds", "unlabelled", "-o", tmp_path / "out")
    run_json("sample", tmp_path / "cp", *words)
    told = json.loads((tmp_path / "out/provenance.json").read_text())["samples"].values()
    assert [one["dataset"].rpartition(":")[2] for one in told] == ["free", "free"]


def test_a_dry_run_looks_at_scans_before_there_is_a_generator(refuse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for number in range(9):
        save(tmp_path / "ill", f"ill{number}", number, lesion=True)
        drawn = np.zeros((SIDE, SIDE), np.uint8)
        row, column = np.random.default_rng(number).integers(5, 35, 2)
        drawn[row : row + 4 + number % 5, column : column + 3 + number % 6] = 1
        Image.fromarray(drawn).save(tmp_path / f"ill/labels/ill{number}.png")
    words = ("augment", "pictures:ill", "--unlabelled", "pictures:ill", "--ratio", "1:1")
    refuse(*words, "--dry-run", code=3, says=["--unlabelled pictures:ill", "has a lesion"])


def test_held_out_people_are_refused_among_scans_and_the_way_out_works(
    home, refuse, run_json, tmp_path
):
    held_out = min({f"ill{n}" for n in range(9)} - train(home))
    leak = tmp_path / "leak"
    save(leak, "other", int(held_out[-1]), lesion=True)
    (leak / "labels" / "other.png").unlink()
    (leak / "labels").rmdir()
    for number in range(2):
        save(leak, f"free{number}", 80 + number, lesion=False)
    data = ("--data", f"pictures:{home / 'ill'}", "--read", "folds=3", "--target=segmenter")
    words = ("--generator", home / "cp", "--ratio", "1:1", "--dry-run")
    asked = ("augment", *data, *words, "--lesion-free", "--unlabelled", f"pictures:{leak}")
    says = ["leakage", held_out, "other", "--unlabelled-read splits="]
    refuse(*asked, code=6, says=says, keep=[home / "cp"])
    splits = tmp_path / "splits.json"
    splits.write_text(json.dumps([{"train": ["free0", "free1"], "val": ["other"]}]))
    out = ("--unlabelled-read", f"splits={splits}", "--unlabelled-read", "fold=0")
    assert run_json(*asked, *out)["leakage"].startswith("none")


def test_a_sample_in_a_scan_is_drawn_again_to_the_bit(home, drawn, run_json, tmp_path):
    told = drawn("once", "--backgrounds", "unlabelled", n=2)
    name = min(told)
    record = f"{tmp_path / 'once' / 'provenance.json'}:{name}"
    again = run_json("sample", home / "cp", "--replay", record, "-o", tmp_path / "again")
    assert again["same_to_the_bit"]
    assert again["case"] == told[name]["case"]


def test_a_lesion_fainter_than_training_lesions_is_refused():
    pool = pool_of(patients())
    case = pool.uncut("p3")
    assert case.labels is not None
    contrasts = LesionContrasts.learn(pool, (1, 2))
    assert contrasts is not None
    lesion, body = np.maximum(case.labels, 0), case.labels >= 0
    assert contrasts.faint(case.image, lesion, body, THREE) == ""
    faint = case.image - 38 * (lesion == 1) - 78 * (lesion == 2)
    assert "too faint" in contrasts.faint(faint, lesion, body, THREE)


@pytest.fixture(scope="module")
def marked(tmp_path_factory) -> Path:
    """``ill``, whose label maps may have places to ignore, a run on it, and ``scans`` with maps.

    Those of ``scans`` hold a lesion, or a place to ignore, or nothing.
    """
    home: Path = tmp_path_factory.mktemp("marked")
    for number in range(9):
        save(home / "ill", f"ill{number}", number, lesion=True)
        save(home / "scans", f"scan{number}", 60 + number, lesion=True)
        mask = home / "scans/labels" / f"scan{number}.png"
        Image.fromarray(np.array(Image.open(mask)) * (number % 3)).save(mask)
    read = {"folds": 3, "labels": LABELS}
    data = f"pictures:{home / 'ill'}"
    gansynth.fit("copypaste", data=data, read=read, out=home / "cp", quiet=True)
    return home


LABELS = "spot:1,ignore:2"


def test_a_share_of_samples_are_scans_with_their_labels_and_what_is_unsure_is_ignored(
    marked, run_json, tmp_path
):
    run, scans = gansynth.load(marked / "cp"), f"pictures:{marked / 'scans'}"

    def draw(share: float) -> list[gansynth.Sample]:
        read = {"labels": LABELS}
        return run.sample(16, unlabelled=scans, unlabelled_read=read, self_train=share)

    every, half, none = draw(1), draw(0.5), draw(0)
    pairs = [pair for pair in zip(half, none, strict=True) if MARKED not in pair[0].provenance]
    assert 0 < len(pairs) < len(half)
    assert all(np.array_equal(one.image, other.image) for one, other in pairs)
    assert not any(MARKED in one.provenance for one in none)
    for one in every:
        name = f"{one.provenance['case']}.png"
        held = np.array(Image.open(marked / "scans/labels" / name))
        assert one.labels is not None
        assert np.array_equal(one.labels, held)
        shown = np.array(Image.open(marked / "scans/images" / name)) / 255
        assert np.corrcoef(one.image[0].ravel(), shown.ravel())[0, 1] > 0.98
    assert {int(one.provenance["case"][-1]) % 3 for one in every} == {0, 1, 2}


def test_a_scan_among_samples_is_drawn_again_to_the_bit(marked, run_json, tmp_path):
    scans = ("--unlabelled", f"pictures:{marked / 'scans'}", "--self-train", 1)
    words = (*scans, "--unlabelled-read", f"labels={LABELS}", "-n", 1, "-o", tmp_path / "once")
    run_json("sample", marked / "cp", *words)
    record = f"{tmp_path / 'once' / 'provenance.json'}:sample-0000"
    again = run_json("sample", marked / "cp", "--replay", record, "-o", tmp_path / "again")
    assert again["same_to_the_bit"]


def test_scans_where_nothing_is_marked_alone_are_backgrounds(marked, run_json, refuse, tmp_path):
    scans = ("--unlabelled", f"pictures:{marked / 'scans'}", "--backgrounds", "unlabelled")
    words = (*scans, "-n", 8, "-o", tmp_path / "out", "--unlabelled-read")
    says = ["--unlabelled-read labels=ignore:2,spot:1"]
    refuse("sample", marked / "cp", *words, "labels=spot:255,ignore:2", code=3, says=says)
    run_json("sample", marked / "cp", *words, f"labels={LABELS}")
    told = json.loads((tmp_path / "out/provenance.json").read_text())["samples"].values()
    assert {int(one["case"][-1]) % 3 for one in told} == {0}


@pytest.fixture
def nobody_vouches(marked, tmp_path) -> tuple[object, ...]:
    """``augment`` with scans of which nobody knows anything, in ``bare``; results in ``out``."""
    shutil.copytree(marked / "scans/images", tmp_path / "bare")
    read = ("--read", "folds=3", "--read", f"labels={LABELS}")
    data = ("--data", f"pictures:{marked / 'ill'}", *read, "--generator", marked / "cp")
    short = ("--target=segmenter", "--ratio=1:1", "--device=cpu", "--set", "width=8", "--steps", 8)
    scans = ("--unlabelled", f"pictures:{tmp_path / 'bare'}", "--self-train", 1)
    return ("augment", *data, *short, *scans, "-o", tmp_path / "out")


@pytest.mark.slow
@pytest.mark.ci
def test_a_first_training_marks_scans_that_nobody_vouches_for(
    marked, nobody_vouches, succeed, run_json, tmp_path
):
    plan = run_json(*nobody_vouches, "--dry-run")
    assert plan["first_training_hours"] == plan["training_hours"] != 0
    assert {path.name for path in tmp_path.iterdir()} == {"bare"}
    done = run_json(*nobody_vouches)
    assert done["drawn_real"] == done["drawn_synthetic"]
    assert Path(done["first_training"]) == tmp_path / "out_first"
    logs = [log.read_text() for log in (tmp_path / "out").rglob("draws-*.csv")]  # one a process
    lines = "".join(logs).splitlines()
    drawn = [line.split(",")[2] for line in lines if line[:4] == "synt"]
    assert {case[:4] for case in drawn} == {"scan"}
    (marks,) = (tmp_path / "out_first").rglob("marked.json")
    before = marks.stat().st_mtime_ns
    shutil.rmtree(tmp_path / "out")
    assert run_json(*nobody_vouches, "--dry-run")["first_training_hours"] == 0
    shutil.rmtree(marks.parent / "0")
    marks.unlink()  # as if stopped while scans were marked
    assert run_json(*nobody_vouches)["drawn_synthetic"]
    assert before < marks.stat().st_mtime_ns
    images = ("predict", tmp_path / "out_first", tmp_path / "bare", "--device", "cpu")
    unsure = {}
    for sure in (0.5, 0.6, 0.95):
        out = tmp_path / f"{sure}"
        succeed(*images, "--sure", sure, "-o", out)
        held = [np.array(Image.open(file)) for file in out.glob("*.png")]
        unsure[sure] = sum(int((labels == 2).sum()) for labels in held)
    assert unsure[0.5] == 0 < unsure[0.6] < unsure[0.95]


def test_scans_that_are_to_be_marked_are_not_said_to_be_free_of_lesions(
    nobody_vouches, run_cli, monkeypatch
):
    monkeypatch.setattr(dry_run, "will_it_harm", lambda *_: {"lines": []})  # takes seconds
    told = run_cli(*nobody_vouches, "--dry-run")
    assert told.exit_code == 0, told.stderr
    assert "marks the scans" in told.output
    assert "taken as free" not in told.output


def test_nobody_is_marked_who_is_held_out(marked, nobody_vouches, refuse, tmp_path):
    manifest = json.loads((marked / "cp" / "manifest.json").read_text())
    seen = {case["id"] for case in manifest["lineage"]["cases"]}
    held_out = min({f"ill{n}" for n in range(9)} - seen)
    shutil.copy(marked / "ill/images" / f"{held_out}.png", tmp_path / "bare/other.png")
    refuse(*nobody_vouches, code=6, says=["leakage", held_out, "other"])
    assert {path.name for path in tmp_path.iterdir()} == {"bare"}


def test_scans_without_maps_or_a_vow_or_a_first_training_are_refused(
    home, nobody_vouches, marked, refuse, tmp_path
):
    bare = ("--unlabelled", f"pictures:{tmp_path / 'bare'}")
    says = ["has no label maps", "gansynth predict RESULT IMAGES --sure 0.9"]
    refuse("sample", marked / "cp", *bare, "--self-train", 1, code=2, says=says)
    says = ["nobody says", "--first RESULT", "--lesion-free"]
    refuse(*nobody_vouches[:-2], "--export", tmp_path / "new", code=2, says=says)
    data = ("augment", "--data", f"pictures:{home / 'ill'}", "--read", "folds=3", "--ratio", "1:1")
    says = ["none that is ignored", "--read labels=lesion:1,ignore:2", "--lesion-free"]
    refuse(*data, "--target=segmenter", "--generator", home / "cp", *bare, code=2, says=says)


def test_unsure_places_need_a_label_that_is_ignored(home, refuse, succeed, tmp_path):
    data = ("--data", f"pictures:{home / 'ill'}", "--target", "segmenter", "--ratio", "1:0")
    short = ("--device", "cpu", "--set", "width=4", "--steps", 2)
    succeed("augment", *data, *short, "-o", tmp_path / "first")
    words = ("predict", tmp_path / "first", home / "free", "--sure", 0.9, "-o", tmp_path / "out")
    refuse(*words, code=2, says=["--sure 0.9", "--read labels=lesion:1,ignore:2"])


def test_a_check_never_says_that_scans_nobody_looked_at_do_no_harm(home, marked, run_json):
    bare = ("check", "--generator", home / "cp", "--unlabelled", f"pictures:{home / 'free'}")
    for vow, says in ((), "nobody says"), (("--lesion-free",), "your word alone"):
        harm = run_json(*bare, *vow)["will_it_harm"]
        assert harm["harms"] is not False
        assert any(says in line and "6 are free" in line for line in harm["lines"])
    read = ("--unlabelled-read", f"labels={LABELS}")
    scans = ("--unlabelled", f"pictures:{marked / 'scans'}", *read)
    harm = run_json("check", "--generator", marked / "cp", *scans)["will_it_harm"]
    assert not any("unlabelled scans" in line for line in harm["lines"])
