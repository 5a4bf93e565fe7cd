"""fit, sample and augment: what they hand on, print and refuse, on toy plugins."""

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.adapter import Injection
from gansynth.core.bank_options import BankSize, Pacing
from gansynth.core.ratio import Ratio
from gansynth.core.run_folder import RunFolder
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schedule import Schedule

DATA = ("--data", "toy:3")


@pytest.fixture
def run(toys, run_json, tmp_path: Path) -> Path:
    run_json("fit", "means", *DATA, "-o", tmp_path / "run")
    return tmp_path / "run"


def augment(run: Path, *more: object, ratio: str = "1:1") -> tuple[object, ...]:
    return ("augment", "--target", "toyhost", *DATA, "--generator", run, "--ratio", ratio, *more)


# -- fit -----------------------------------------------------------------------------------------


def test_fit_leaves_a_run_and_prints_one_document(toys, run_json, tmp_path):
    document = run_json("fit", "means", *DATA, "-o", tmp_path / "run", "--set", "grain=0.3")
    assert (document["train_cases"], document["held_out_cases"]) == (12, 4)
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["options"] == {"grain": 0.3}


def test_fit_prints_a_summary_on_stdout_and_the_rest_on_stderr(toys, run_cli, tmp_path):
    result = run_cli("fit", "means", *DATA, "-o", tmp_path / "run")
    assert result.exit_code == 0
    run = tmp_path / "run"
    assert result.stdout.splitlines() == [
        f"{run}: fitted in 0:00; 12 training cases, 4 held out",
        "finest detail: 0.99 to 1.00 of the real power (1 is as in real images)",
        f"pictures: {run / 'samples'}",
        f"next: gansynth sample {run} --sheet",
    ]
    assert "12 training case(s), 4 held out" in result.stderr


def test_quiet_says_nothing_but_the_result(toys, run_cli, tmp_path):
    result = run_cli("fit", "means", *DATA, "-o", tmp_path / "run", "--quiet")
    assert result.stderr == ""
    assert "12 training cases" in result.stdout


def test_edits_are_the_generators_own_unless_named(toys, run_json, tmp_path):
    run_json("fit", "means", *DATA, "-o", tmp_path / "own")
    run_json("fit", "means", *DATA, "-o", tmp_path / "two", "--edit", "rotate", "--edit", "shift")
    edits = [
        json.loads((tmp_path / name / "manifest.json").read_text())["edits"]
        for name in ("own", "two")
    ]
    assert edits == [["flip"], ["rotate", "shift"]]


def test_a_root_is_remembered_as_an_absolute_path(toys, run_json, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run_json("fit", "means", *DATA, "-o", "run", "--root", "hosts")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["request"]["root"] == str(tmp_path / "hosts")


def test_a_dry_run_leaves_nothing(toys, run_json, tmp_path):
    document = run_json("fit", "means", *DATA, "-o", tmp_path / "run", "--dry-run")
    assert document["dry_run"] is True
    assert list(tmp_path.iterdir()) == []


def test_a_second_fit_resumes_unless_told_not_to(run, run_cli):
    again = ("fit", "means", *DATA, "-o", run)
    assert run_cli(*again).exit_code == 0
    refused = run_cli(*again, "--no-resume")
    assert (refused.exit_code, "holds a run already" in refused.stderr) == (2, True)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("meens", *DATA), "Did you mean 'means'?"),
        (("means", "--data", "tox:3"), "Did you mean 'toy'?"),
        (("means", "--data", "somewhere"), "expected KIND:WHERE"),
        (("means", *DATA, "--set", "grane=1"), "Did you mean 'grain'?"),
        (("means", *DATA, "--set", "grain"), "expected KEY=VALUE"),
        (("means", *DATA, "--set", "grain=1", "--set", "grain=2"), "'grain' is given twice"),
        (("means", *DATA, "--set", "grain=rough"), "grain=rough"),
        (("means", *DATA, "--edit", "flop"), "Did you mean 'flip'?"),
        (("means", *DATA, "--device", "toaster"), "toaster"),
    ],
)
def test_a_slip_is_one_line_and_leaves_nothing(toys, run_cli, tmp_path, arguments, message):
    result = run_cli("fit", *arguments, "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == ""
    assert list(tmp_path.iterdir()) == []


# -- sample --------------------------------------------------------------------------------------


def images(folder: Path) -> list[np.ndarray]:
    files = sorted(folder.glob("images/sample-*_0000.nii.gz"))
    return [np.asarray(nib.load(file).dataobj) for file in files]  # type: ignore[attr-defined]


def test_sample_writes_what_was_asked_for(run, run_json, tmp_path):
    document = run_json("sample", run, "-n", 3, "-o", tmp_path / "out", "--sheet")
    assert document["samples"] == 3
    assert len(images(tmp_path / "out")) == 3
    assert Path(document["sheet"]).read_bytes().startswith(b"\x89PNG")


def test_the_seed_decides_what_is_drawn(run, run_json, tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run_json("sample", run, "-n", 2, "-o", tmp_path / name, "--seed", seed)
    a, b, c = (images(tmp_path / name) for name in "abc")
    assert np.array_equal(a, b)
    assert not np.array_equal(a, c)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (("--interpolate", 4), "means: has no latent space to interpolate in"),
        (("--format", "png"), "volumes (16 x 16 x 16), expected slices"),
        (("--rows", 2), "without --interpolate"),
        (("--bits", 16), "--bits 16: has no effect without --format=png"),
        (("--keep-flawed",), "--keep-flawed: has no effect without --format=png"),
    ],
)
def test_sheets_and_pictures_that_cannot_be_are_refused(run, refuse, tmp_path, asked, message):
    out = tmp_path / "out"
    refuse("sample", run, "-o", out, *asked, code=2, says=[message], keep=[run])
    assert not out.exists()


def test_edits_of_a_sample_are_recorded(run, run_json, tmp_path):
    run_json("sample", run, "-n", 1, "-o", tmp_path / "out", "--edit", "shift")
    provenance = json.loads((tmp_path / "out" / "provenance.json").read_text())["samples"]
    assert [step["edit"] for step in provenance["sample-0000"]["edits"]] == ["shift"]


def test_a_sample_is_drawn_again_from_its_provenance(run, run_json, tmp_path):
    run_json("sample", run, "-n", 3, "-o", tmp_path / "out", "--seed", 3, "--edit", "shift")
    record = f"{tmp_path}/out/provenance.json:sample-0002"
    again = run_json("sample", run, "--replay", record, "-o", tmp_path / "again")
    assert (again["sample"], again["seed"], again["same_to_the_bit"]) == (2, 3, True)
    file = "images/sample-0002_0000.nii.gz"
    assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "out" / file).read_bytes()


@pytest.mark.parametrize(
    ("asked", "code", "says"),
    [
        (("--replay", "nowhere.csv:3"), 3, "nowhere.csv:3: no file nowhere.csv, expected FILE"),
        (("--replay", "3"), 2, "--replay 3: expected FILE:LINE of a draw log (draws-*.csv)"),
        (("--replay", "a.csv:3", "--seed", 1), 2, "--replay with --seed: the record says"),
        (("--replay", "a.csv:3", "-n", 2), 2, "--replay with --number: the record says"),
    ],
)
def test_a_replay_that_cannot_be_is_refused(run, refuse, asked, code, says):
    refuse("sample", run, *asked, code=code, says=[says], keep=[run])


def test_sampling_what_is_no_run_names_the_way_out(toys, run_cli, tmp_path):
    result = run_cli("sample", tmp_path)
    assert result.exit_code == 3
    assert "gansynth fit" in result.stderr


def test_a_trained_network_goes_all_the_way(toys, run_json, tmp_path):
    small = [f"--set={key}" for key in ("steps=2", "width=4", "d_width=4", "levels=3")]
    fitted = run_json("fit", "cgan3d", *DATA, "-o", tmp_path / "run", *small, "--device", "cpu")
    assert fitted["steps"] == 2
    assert run_json("sample", tmp_path / "run", "-n", 1)["samples"] == 1


# -- augment -------------------------------------------------------------------------------------


def test_augment_hands_on_everything_it_was_told(run, run_cli, toys, tmp_path):
    result = run_cli(
        *augment(run, "--bank-size", "2GB", "--strict", "--edit", "flip", "--seed", 5),
        *("--schedule", "anneal:50%-100%", "--refresh", "10min", "--scratch", tmp_path),
        *("--restarts", 2, "--keep-going", "--no-usual-augmentation", "--augment-synthetic", "no"),
        *("--device", "cpu", "--set", "num_epochs=3", "--", "--npz", "-x"),
    )
    assert result.exit_code == 0, result.stderr
    injection, settings, options = toys.started[0]
    assert injection == Injection(
        samples=SampleRequest(edits=("flip",), seed=5),
        run=RunFolder(run),
        ratio=Ratio(1, 1),
        schedule=Schedule("anneal", begin=0.5, end=1.0),
        size=BankSize(bytes=2 * 10**9),
        pacing=Pacing(refresh=600),
        scratch=tmp_path,
        device="cpu",
        restarts=2,
        strict=True,
        keep_going=True,
        usual_augmentation=False,
        augment_synthetic=False,
    )
    assert settings == {"num_epochs": "3"}
    assert options == ("--npz", "-x")


def test_with_a_bank_no_generator_is_needed(run, run_json, toys, tmp_path):
    from gansynth.bank.reader import BankSpec, BankWriter
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.opening import open_source

    source = open_source(SourceRequest("toy", "3"))
    spec = BankSpec(source.schema, source.lineage(), "x", "0" * 64, frozen=True, capacity=1)
    BankWriter.create(tmp_path / "bank", spec).close()
    without = ("augment", "--target", "toyhost", *DATA, "--ratio", "1:1", "--bank")
    planned = run_json(*without, tmp_path / "bank", "--dry-run")
    assert (planned["generator"], planned["bank"]) == (None, f"{tmp_path / 'bank'} (existing)")
    run_json(*without, tmp_path / "bank")
    assert toys.started[0][0].run is None


def test_without_generator_and_bank_there_is_nothing_to_mix_in(run_cli, toys):
    result = run_cli("augment", "--target", "toyhost", *DATA, "--ratio", "1:1")
    assert (result.exit_code, toys.started) == (2, [])
    assert "--generator is missing" in result.stderr


def test_warnings_are_said_and_in_the_result(run, run_cli, toys, monkeypatch):
    monkeypatch.setattr(toys, "warnings", ("ratio: 1:1 before, 3:1 now",))
    result = run_cli(*augment(run), "--json")
    assert "ratio: 1:1 before, 3:1 now" in result.stderr
    assert json.loads(result.stdout)["warnings"] == ["ratio: 1:1 before, 3:1 now"]


def test_augment_reports_ratio_fallbacks_metrics_and_folder(run, run_json):
    assert run_json(*augment(run)) == {
        "folder": "results",
        "ratio": "1:1",
        "drawn_real": 100,
        "drawn_synthetic": 100,
        "realised_synthetic_share": 0.5,
        "asked_synthetic_share": None,
        "fell_back": 0,
        "schedule": "constant",
        "supply": {},
        "warnings": [],
        "metrics_on_real_cases": {"dice": 0.5, "dice_per_label": {"1": 0.4, "2": 0.6}},
    }


def test_what_a_training_came_to_is_told_in_a_few_lines(run, run_cli):
    assert run_cli(*augment(run)).stdout.splitlines() == [
        "toyhost: trained; results are in results",
        "drawn: 100 real, 100 synthetic (50.0%)",
        "on real held-out cases: dice 0.5, dice_per_label one 0.4, dice_per_label two 0.6",
        "next: the same with --ratio 1:0, to compare; gansynth benchmark does it with draws,",
        "      seeds and statistics",
    ]


@pytest.mark.parametrize(("missing", "code"), [(1, 0), (2, 5)])
def test_more_than_one_percent_missing_is_exit_5_after_the_result(
    run, run_cli, toys, monkeypatch, missing, code
):
    monkeypatch.setattr(toys, "fell_back", missing)
    result = run_cli(*augment(run), "--json")
    assert result.exit_code == code
    assert json.loads(result.stdout)["fell_back"] == missing
    said = "2 of 100 synthetic samples were missing (2.0%, the bank is empty)"
    assert (said in result.stderr) == (code == 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--set", "num_epoch=3"), "Did you mean 'num_epochs'?"),
        (("--ratio", "half"), "expected REAL:SYNTHETIC"),
        (("--target", "toyhorst"), "Did you mean 'toyhost'?"),
        (("-c", "impossible"), "--configuration impossible: not in the plans"),
        (("--bank-size", "0"), "--bank-size '0'"),
    ],
)
def test_a_slip_starts_nothing(run, run_cli, toys, arguments, message):
    result = run_cli(*augment(run), *arguments)
    assert (result.exit_code, toys.started) == (2, [])
    assert message in result.stderr


def test_a_dry_run_prints_the_plan_and_starts_nothing(run, run_json, toys):
    document = run_json(*augment(run, "--dry-run", ratio="3:1"))
    assert document["synthetic_share"] == 0.25
    assert document["schedule"] == "constant"
    assert document["bank"] == "64 samples, kept fresh, at most 2 % overhead"
    assert document["bank_bytes"] == 1000
    assert Path(document["bank_place"]).is_dir()
    assert (document["training_cases"], document["held_out_cases"]) == (12, 4)
    assert toys.started == []


def test_a_dry_run_finds_leakage(run, run_cli, toys):
    result = run_cli(*augment(run, "--dry-run"), "--fold", "1")
    assert (result.exit_code, toys.started) == (6, [])
    assert "has seen 12 held-out case(s): toy_00 (the case itself)" in result.stderr


def test_a_bank_that_leaks_is_found_as_well(run, run_cli, toys, tmp_path):
    from gansynth.bank.reader import BankSpec, BankWriter
    from gansynth.core.source import SourceRequest
    from gansynth.sampling.opening import open_source

    source = open_source(SourceRequest("toy", "3"))
    spec = BankSpec(source.schema, source.lineage(), "x", "0" * 64, frozen=True, capacity=1)
    BankWriter.create(tmp_path / "bank", spec).close()
    for dry in ((), ("--dry-run",)):
        result = run_cli(*augment(run, "--bank", tmp_path / "bank", *dry), "--fold", "1")
        assert (result.exit_code, toys.started) == (6, [])
        assert "the bank of toy:3 fold 0 has seen 12 held-out case(s)" in result.stderr
