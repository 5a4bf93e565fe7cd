"""``--conditions``, ``--filter`` and their like: what they hand on, draw and refuse."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.adapter import Injection
from gansynth.core.ratio import Ratio
from gansynth.core.sample_request import SampleRequest
from gansynth.sampling.drawer import SampleDrawer
from gansynth.sampling.open_run import load_run
from gansynth.sampling.opening import open_source
from gansynth.sampling.request_parsing import read_request

SHAPE = (16, 18, 20)
READ = ("--read", "channels=T1,FLAIR", "--read", "folds=3", "--read", "size=16")
TRANSPLANT = ("--edit", "transplant")


def save(path: Path, array: np.ndarray, mm: float = 1.0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, np.diag([mm, mm, mm, 1.0])), path)


def brain(rng: np.random.Generator, lesion: bool) -> tuple[np.ndarray, np.ndarray]:
    """Two channels and labels; nothing outside of a ball."""
    grid = np.indices(SHAPE) - np.reshape(SHAPE, (3, 1, 1, 1)) / 2
    body = (grid**2).sum(axis=0) < 49
    centre = rng.uniform(-2, 2, (3, 1, 1, 1))
    far = ((grid - centre) ** 2).sum(axis=0)
    labels = (body & lesion & (far < 9)).astype(np.int16) + (body & lesion & (far < 3))
    image = (100 + 10 * rng.normal(size=(2, *SHAPE)) + 50 * labels) * body
    return image.astype(np.float32), labels.astype(np.int16)


def write(folder: Path, names: str, seed: int, *, lesions: bool = True, mm: float = 1.0) -> Path:
    """A folder of cases; without lesions it has no label maps either."""
    rng = np.random.default_rng(seed)
    for name in names:
        image, labels = brain(rng, lesions)
        for number, channel in enumerate(image):
            save(folder / "images" / f"{name}_{number:04d}.nii.gz", channel, mm)
        if lesions:
            save(folder / "labels" / f"{name}.nii.gz", labels, mm)
    return folder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("conditions") / "ill", "abcdef", 0)


@pytest.fixture(scope="module")
def free(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("conditions") / "free", "abc", 1, lesions=False)


@pytest.fixture
def run(toys: object, run_json: Callable[..., Any], data: Path, tmp_path: Path) -> Path:
    run_json("fit", "means", "--data", f"nifti:{data}", *READ, "-o", tmp_path / "run")
    return tmp_path / "run"


def provenances(folder: Path) -> list[dict[str, Any]]:
    samples = json.loads((folder / "provenance.json").read_text())["samples"]
    return [samples[name] for name in sorted(samples)]


def test_tumours_of_training_cases_land_in_cases_of_another_source(run, run_json, free, tmp_path):
    document = run_json(
        "sample", run, "--conditions", f"nifti:{free}", *TRANSPLANT, "-n", 4, "--sheet",
        "-o", tmp_path / "out",
    )  # fmt: skip
    manifest = json.loads((run / "manifest.json").read_text())
    train = {case["id"] for case in manifest["lineage"]["cases"]}
    assert len(train) == 4
    told = provenances(tmp_path / "out")
    assert {one["dataset"] for one in told} == {"nifti:free"}
    assert {one["case"] for one in told} <= set("abc")
    assert {one["edits"][0]["params"]["donor"] for one in told} <= train
    drawn = [np.asarray(nib.load(f).dataobj) for f in (tmp_path / "out/labels").iterdir()]  # type: ignore[attr-defined]
    assert len(drawn) == 4
    assert all(labels.any() for labels in drawn)
    assert Path(document["sheet"]).is_file()


def test_what_was_drawn_replays_and_is_shown_beside_its_own_case(run, data, free):
    asking = read_request(conditions=f"nifti:{free}")
    opened = load_run(run, "cpu")
    drawer = SampleDrawer(
        opened, open_source(opened.request), replace(asking, edits=("transplant",), seed=3)
    )
    sample = drawer.draw_raw(0, 1)[0]
    again = drawer.sampler.replay(json.loads(json.dumps(dict(sample.provenance))))
    drawn = drawer.sampler.draw(0).labels
    assert drawn is not None
    assert np.array_equal(again, drawn)
    assert again.any()
    beside = drawer.beside(sample)
    assert beside.id == sample.provenance["case"]
    assert beside.labels is not None
    assert not beside.labels.any()
    assert drawer.base is not None
    whole = drawer.base.load(beside.id).labels
    assert whole is not None
    assert np.array_equal(whole, np.zeros(SHAPE[::-1], np.int16))


def test_samples_may_come_of_all_that_both_sources_have(run, data, free):
    asking = read_request(conditions=f"nifti:{free}")
    opened = load_run(run, "cpu")
    drawer = SampleDrawer(opened, open_source(opened.request), asking)
    own, other = drawer.lineage.everyone()
    assert own == type(own)(own.dataset, own.fold, opened.lineage.cases, own.host, own.ancestors)
    assert (other.dataset, [case.id for case in other.cases]) == ("nifti:free", ["a", "b", "c"])


def test_a_training_case_that_was_replaced_is_noticed_where_its_tumour_is_lent(
    run, run_cli, data, free, tmp_path
):
    copy = shutil.copytree(data, tmp_path / "ill")
    manifest = json.loads((run / "manifest.json").read_text())
    manifest["request"]["where"] = str(copy)
    (run / "manifest.json").write_text(json.dumps(manifest))
    for case in manifest["lineage"]["cases"]:
        save(
            copy / "images" / f"{case['id']}_0000.nii.gz",
            brain(np.random.default_rng(9), True)[0][0],
        )
    result = run_cli("sample", run, "--conditions", f"nifti:{free}", *TRANSPLANT, "-n", 1)
    assert result.exit_code == 6
    assert "is not the one the run was fitted on" in result.stderr


# -- leakage ---------------------------------------------------------------------------------------


def augment(run: Path, data: Path, *more: object) -> tuple[object, ...]:
    own = ("--data", f"nifti:{data}", *READ, "--generator", run, "--ratio", "1:1")
    return ("augment", "--target", "toyhost", *own, *more)


def held_out(run: Path) -> str:
    manifest = json.loads((run / "manifest.json").read_text())
    return min(set("abcdef") - {case["id"] for case in manifest["lineage"]["cases"]})


def test_another_source_that_shares_nothing_is_let_in(run, run_json, data, free, toys):
    document = run_json(*augment(run, data, "--conditions", f"nifti:{free}", "--dry-run"))
    assert document["leakage"].startswith("none")
    assert document["conditions"] == {"kind": "nifti", "where": str(free)}
    run_json(*augment(run, data, "--conditions", f"nifti:{free}"))
    ((injection, _, _),) = toys.started
    assert injection.samples == SampleRequest(conditions={"kind": "nifti", "where": str(free)})
    assert Injection.from_json(json.loads(json.dumps(injection.to_json()))) == injection


@pytest.mark.parametrize("labelled", [True, False], ids=["labelled", "bare"])
def test_a_held_out_scan_is_found_in_another_source(run, refuse, data, free, tmp_path, labelled):
    leaking = shutil.copytree(free, tmp_path / "leaking")
    scan = held_out(run)
    for number in range(2):
        name = f"other_{number:04d}.nii.gz"
        shutil.copy(data / "images" / f"{scan}_{number:04d}.nii.gz", leaking / "images" / name)
    if labelled:
        for name in "abc":
            save(leaking / "labels" / f"{name}.nii.gz", np.zeros(SHAPE, np.int16))
        shutil.copy(data / "labels" / f"{scan}.nii.gz", leaking / "labels" / "other.nii.gz")
    refuse(
        *augment(run, data, "--conditions", f"nifti:{leaking}", "--dry-run"),
        code=6,
        says=["leakage", scan, "other", "--conditions"],
        keep=[run],
    )


def test_cases_of_ones_own_data_set_are_those_of_ones_own_fold(run, run_json, data):
    document = run_json(*augment(run, data, "--conditions", f"nifti:{data}", "--dry-run"))
    assert document["leakage"].startswith("none")


def test_other_cases_of_ones_own_data_set_are_held_out_ones(run, refuse, data):
    asked = ("--conditions", f"nifti:{data}", "--conditions-read", "fold=all")
    refuse(*augment(run, data, *asked, "--dry-run"), code=6, says=["leakage", held_out(run)])


# -- slips -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--conditions", "somewhere"], ["expected KIND:WHERE"]),
        (["--conditions", "nifty:x"], ["Did you mean 'nifti'?"]),
        (["--conditions-read", "fold=0"], ["--conditions-read fold=0", "without --conditions"]),
        (["--filter", "own", "--filter", "none"], ["--filter none with --filter own"]),
        (["--filter", "none", "--filter", "range"], ["--filter none with --filter range"]),
        (["--filter", "sieve"], ["filter 'sieve' is unknown"]),
        (["--lesions", "pears=ordered"], ["Did you mean 'pairs'?"]),
        (["--lesions", "pairs=ordered"], ["means draws no lesions into real images"]),
        (["--edit", "transplantt"], ["Did you mean 'transplant'?"]),
        (["--edit", "shift:max_m=3"], ["--edit shift:max_m=3", "Did you mean 'max_mm'?"]),
    ],
)
def test_a_slip_is_one_line(run, refuse, more, says):
    refuse("sample", run, "-n", 1, *more, code=2, says=says, keep=[run])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--conditions", "nifti:nowhere"], ["--conditions nifti:nowhere", "no such"]),
        (["--weights", "nowhere.json"], ["nowhere.json", "no such file"]),
    ],
)
def test_what_is_not_there_is_one_line(run, refuse, more, says):
    refuse("sample", run, "-n", 1, *more, code=3, says=says, keep=[run])


@pytest.mark.parametrize(
    ("read", "says"),
    [
        ("channels=T1,T2", ["its channels are T1, T2, those of the run T1, FLAIR"]),
        ("spacing=1.5", ["1.5 x 1.5 x 1.5 mm", "1 x 1 x 1 mm", "--conditions-read spacing=1,1,1"]),
        ("modality=none", ["intensity is", "mr"]),
        ("folds=1", ["--conditions-read folds=1"]),
        ("spacin=1", ["--conditions-read spacin=1", "Did you mean 'spacing'?"]),
    ],
)
def test_a_source_that_does_not_fit_is_one_line(run, refuse, free, read, says):
    asked = ("--conditions", f"nifti:{free}", "--conditions-read", read)
    refuse("sample", run, "-n", 1, *asked, code=2, says=says, keep=[run])


def test_labels_of_another_name_are_refused_until_they_are_named(run, run_cli, refuse, tmp_path):
    other = write(tmp_path / "other", "xyz", 5)
    asked = ("sample", run, "-n", 1, "--conditions", f"nifti:{other}")
    named = (*asked, "--conditions-read", "labels=tumour:1,core:2")
    refuse(*named, code=2, says=["its label 'tumour' is unknown", "labels=label 1:1,label 2:2"])
    assert run_cli(*asked).exit_code == 0


def test_voxels_of_another_size_are_refused_until_they_are_resampled(
    run, run_cli, refuse, tmp_path
):
    coarse = write(tmp_path / "coarse", "xyz", 5, lesions=False, mm=1.2)
    asked = ("sample", run, "-n", 1, "--conditions", f"nifti:{coarse}")
    refuse(*asked, code=2, says=["1.2 x 1.2 x 1.2 mm", "--conditions-read spacing=1,1,1"])
    assert run_cli(*asked, "--conditions-read", "spacing=1,1,1").exit_code == 0


@pytest.mark.parametrize(
    "asked", [{"conditions": "nifti:."}, {"lesions": "pairs=ordered"}, {"filters": ["range"]}]
)
def test_nothing_is_asked_of_samples_that_a_bank_has(toys, asked, tmp_path):
    from gansynth.hosts.checks import refuse_with_bank
    from gansynth.runtime.errors import UsageFault

    asking = read_request(**asked)
    injection = Injection(None, Ratio(1, 1), samples=asking, bank=tmp_path)
    with pytest.raises(UsageFault, match="which fixes their conditions; leave --"):
        refuse_with_bank(injection)
