import json
from pathlib import Path
from typing import Any

import pytest

from gansynth.bank.reader import BankSpec, BankWriter
from gansynth.core.requests.hosts import AugmentRequest
from gansynth.core.run_folder import read_manifest, write_manifest
from gansynth.core.source import SourceRequest, lineage_of
from gansynth.sampling.run_source import open_source

DATA = ("--data", "toy:3")
TOYHOST = ("augment", "--target", "toyhost", *DATA, "--ratio")


def augment(run: Path, *more: object, ratio: str = "1:1") -> tuple[object, ...]:
    return (*TOYHOST, ratio, "--generator", run, *more)


def test_a_generator_without_training_has_a_preview_and_no_steps(
    toys, succeed, whole_fits, tmp_path
):
    run = tmp_path / "run"
    stdout = succeed("fit", "means", *DATA, "-o", run).stdout
    assert stdout.splitlines()[-1] == f"report: {run / 'report.html'}"
    assert json.loads((run / "report.json").read_text())["spectrum_ratio"] == []
    page = (run / "report.html").read_text()
    assert [path.name for path in run.glob("samples/*")] == ["preview.png"]
    assert (page.count("<img"), "Curves" in page) == (1, False)
    said = page + (run / "config.yaml").read_text() + stdout
    assert not [word for word in ("step", "epoch", "batch", "precision") if word in said]


def test_paths_are_printed_as_seen_from_the_current_folder(
    run, run_cli, run_json, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    words = ("sample", run, "-n", 1, "--sheet", "-o", tmp_path / "out")
    assert Path(run_json(*words)["sheet"]).is_absolute()
    shown = run_cli(*words[:-1], tmp_path / "again")
    assert "sheet: again/sheet.png" in shown.stdout
    assert "next: gansynth evaluate run\n" in shown.stderr
    refused = run_cli("sample", tmp_path / "none")
    assert refused.stderr.startswith("error: none: ")


def test_fit_does_what_it_is_told(toys, run_json, run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    asked = ("fit", "means", *DATA, "-o", "run", "--dry-run")
    assert run_json(*asked)["dry_run"] is True
    brief, whole = run_cli(*asked).stdout, run_cli(*asked, "--verbose").stdout
    assert [line.split()[0] for line in brief.splitlines()[:2]] == ["time", "memory"]
    assert ("options.grain" in brief, "options.grain" in whole) == (False, True)
    assert list(tmp_path.iterdir()) == []
    more = ("--set", "grain=0.3", "--edit", "rotate", "--edit", "shift", "--root", "hosts")
    document = run_json("fit", "means", *DATA, "-o", "run", *more)
    assert (document["train_cases"], document["held_out_cases"]) == (12, 4)
    told = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert told["options"] == {"grain": 0.3}
    assert told["edits"] == ["rotate", "shift"]
    assert told["request"]["root"] == str(tmp_path / "hosts")


def test_a_host_gets_everything_that_augment_was_told(run, succeed, toys, tmp_path):
    words: dict[str, Any] = {
        **{"target": "toyhost", "data": "toy:3", "generator": run, "ratio": "1:1", "edit": "flip"},
        **{"seed": 5, "schedule": "anneal:50%-100%", "bank_size": "2GB", "refresh": "10min"},
        **{"bank_dir": tmp_path, "device": "cpu", "restarts": 2, "sample_timeout": 9},
        **{"allow_empty_bank": True, "host_augmentation": False, "augment_synthetic": False},
        **{"set": {"num_epochs": 3}, "options": ("--npz", "-x"), "filter": "none", "strict": True},
    }
    request = AugmentRequest(**words)
    succeed(*request.command_line)
    assert toys.started == [request]


@pytest.fixture
def bank(toys, tmp_path) -> Path:
    """An empty bank, frozen, of all training cases of fold 0."""
    source = open_source(SourceRequest("toy", "3"))
    spec = BankSpec(source.schema, lineage_of(source), "x", "0" * 64, frozen=True, capacity=1)
    BankWriter.create(tmp_path / "bank", spec).close()
    return Path(tmp_path / "bank")


def test_a_dry_run_prints_the_plan_and_starts_nothing(run, bank, run_json, toys):
    document = run_json(*augment(run, "--dry-run", ratio="3:1"))
    assert (document["synthetic_share"], document["schedule"]) == (0.25, "constant")
    assert document["bank"] == "64 samples, kept fresh, at most 2 % overhead"
    assert document["bank_bytes"] == 1000
    assert Path(document["bank_place"]).is_dir()
    assert (document["training_cases"], document["held_out_cases"]) == (12, 4)
    planned = run_json(*TOYHOST, "1:1", "--bank", bank, "--dry-run")
    assert (planned["generator"], planned["bank"]) == (None, f"{bank} (existing)")
    assert toys.started == []
    run_json(*TOYHOST, "1:1", "--bank", bank)
    assert toys.started[0].run is None


@pytest.mark.fault(39)
@pytest.mark.parametrize(("missing", "code"), [(1, 0), (2, 5)])
def test_augment_reports_all_and_more_than_one_percent_missing_is_exit_5_after_that(
    run, run_cli, toys, monkeypatch, missing, code
):
    monkeypatch.setattr(toys, "fell_back", missing)
    monkeypatch.setattr(toys, "warnings", ("ratio: 1:1 before, 3:1 now",))
    result = run_cli(*augment(run), "--json")
    assert result.exit_code == code
    assert "ratio: 1:1 before, 3:1 now" in result.stderr
    said = "2 of 100 synthetic samples were missing (2.0%, the bank is empty)"
    assert (said in result.stderr) == (code == 5)
    assert json.loads(result.stdout) == {
        **{"folder": "results", "ratio": "1:1", "schedule": "constant", "supply": {}},
        **{"drawn_real": 100 + missing, "drawn_synthetic": 100 - missing, "fell_back": missing},
        **{"realised_synthetic_share": (100 - missing) / 200, "asked_synthetic_share": None},
        "warnings": ["ratio: 1:1 before, 3:1 now"],
        "share_of_usual_length": None,
        "metrics_on_real_cases": {"dice": 0.5, "dice_per_label": {"1": 0.4, "2": 0.6}},
    }


@pytest.mark.parametrize(
    ("forge", "says"),
    [
        (lambda cases: cases.clear(), "12 case(s) trained on, but not recorded: toy_"),
        (lambda cases: cases.append({**cases[0], "id": "x"}), "1 case(s) recorded, but not "),
        (lambda cases: cases[0].update(sha256="0" * 64), "1 case(s) of other content: toy_"),
        (lambda cases: cases[0].update(subject="x"), "1 case(s) of another subject: toy_"),
        (
            lambda cases: cases[0].update(image="0" * 64),
            "1 case(s) of another image, or reco",
        ),
    ],
)
def test_a_forged_record_with_a_new_digest_is_told_from_the_data(
    run, run_cli, succeed, forge, says
):
    verify = ("check", "--generator", run, "--verify-lineage")
    whole = succeed(*verify)
    assert "its training cases in toy:3 are as it records them" in whole.stdout
    manifest = dict(read_manifest(run))
    forge(manifest["lineage"]["cases"])
    write_manifest(run, manifest)
    forged = run_cli(*verify)
    assert f"error  lineage: {says}" in forged.stdout
    assert forged.exit_code == 6
