"""gansynth evaluate on toy plugins and a bank: what it writes, prints and refuses."""

import json
from pathlib import Path

import pytest

from tests.conftest import assert_one_line

DATA = ("--data", "toy:2")
QUICK = ("--effort", "quick", "-n", 16, "--device", "cpu")
CHEAP = ("--metric", "spectrum", "--metric", "diversity", "--only", "realism")


@pytest.fixture
def run(toys, run_json, tmp_path: Path) -> Path:
    run_json("fit", "means", *DATA, "-o", tmp_path / "run", "--set", "grain=0.1")
    return tmp_path / "run"


@pytest.fixture
def constant(toys, run_json, tmp_path: Path) -> Path:
    run_json("fit", "constant", *DATA, "-o", tmp_path / "constant")
    return tmp_path / "constant"


def test_everything_is_evaluated_and_written_into_the_run(run, run_json):
    found = run_json("evaluate", run, *QUICK)
    folder = run / "evaluation"
    assert sorted(p.name for p in folder.iterdir()) == [
        "evaluation.json",
        "report.html",
        "report.md",
    ]
    written = json.loads((folder / "evaluation.json").read_text("utf-8"))
    assert written == {key: value for key, value in found.items() if key != "files"}
    assert {figure["metric"] for figure in found["figures"]} >= {"spectrum", "kid", "c2st-cnn"}
    assert found["faithfulness"]["steps"] == 100
    assert found["memorisation"]["nearer"]["people"] == 4
    assert [one["key"] for one in found["maps"]] == ["images", "features", "segmenter"]
    assert found["data"] == {
        **{"name": "toy:2", "fold": "0", "reference": "training cases"},
        **{"subjects": 12, "cases": 12, "held_out_subjects": 4, "held_out_cases": 4},
    }


def test_what_is_found_is_printed_in_lines(run, run_cli):
    result = run_cli("evaluate", run, *QUICK, *CHEAP)
    assert result.exit_code == 0, result.stderr
    for part in ("Realism", "Labels", "Memorisation"):
        assert f"{part}: " in result.stdout
    assert "of 3 figures" in result.stdout
    assert "report.html" in result.stdout


def test_one_part_alone(run, run_json, tmp_path):
    found = run_json("evaluate", run, *QUICK, "--only", "memorisation", "-o", tmp_path / "own")
    assert "figures" not in found
    assert "maps" not in found
    assert found["memorisation"]["distances"]
    assert (tmp_path / "own" / "report.html").exists()
    assert not (run / "evaluation").exists()


def test_the_same_seed_finds_the_same(run, run_json):
    first, second = (run_json("evaluate", run, *QUICK, *CHEAP)["figures"] for _ in range(2))
    assert first == second
    assert run_json("evaluate", run, *QUICK, *CHEAP, "--seed", 5)["figures"] != first


def test_samples_are_asked_for_as_elsewhere(run, run_json):
    plain = run_json("evaluate", run, *QUICK, *CHEAP)
    edited = run_json("evaluate", run, *QUICK, *CHEAP, "--edit", "rotate")
    assert plain["figures"] != edited["figures"]


def test_thumbnails_are_left_out_if_asked(run, run_json):
    only = ("--only", "maps")
    run_json("evaluate", run, *QUICK, *only)
    with_pictures = (run / "evaluation" / "report.html").read_text("utf-8")
    run_json("evaluate", run, *QUICK, *only, "--no-pictures")
    without = (run / "evaluation" / "report.html").read_text("utf-8")
    assert "data:image/png" in with_pictures
    assert "data:image/png" not in without


def test_an_export_is_searched(run, run_json, tmp_path):
    folder = tmp_path / "export"
    folder.mkdir()
    (folder / "toy_03.txt").write_text("nothing", encoding="utf-8")
    found = run_json("evaluate", run, *QUICK, *CHEAP, "--exported", folder)
    assert found["identity"]["findings"]
    assert [alarm["key"] for alarm in found["alarms"] if alarm["key"] == "identity"]


def test_a_clean_export_is_said_to_be(run, run_json, tmp_path):
    run_json("sample", run, "-n", 2, "--for-sharing", "-o", tmp_path / "export")
    found = run_json("evaluate", run, *QUICK, *CHEAP, "--exported", tmp_path / "export")
    assert found["identity"]["findings"] == []
    assert "Nothing that names a patient" in found["words"]["not_shown"][-1]


@pytest.fixture
def bank(run: Path, tmp_path: Path) -> Path:
    """Samples of the run, frozen."""
    from gansynth.bank.reader import BankSpec, BankWriter
    from gansynth.sampling.drawer import SampleDrawer
    from gansynth.sampling.open_run import load_run
    from gansynth.sampling.opening import open_source

    opened = load_run(run, "cpu")
    source = open_source(opened.request)
    drawer = SampleDrawer(opened, source)
    spec = BankSpec(
        source.schema, drawer.lineage, opened.run_id, opened.manifest_sha256, True, 16,
        dtype="float32",
    )  # fmt: skip
    with BankWriter.create(tmp_path / "bank", spec) as writer:
        writer.publish([(sample, {}) for sample in drawer.draw(0, 16)])
        writer.finish()
    return tmp_path / "bank"


def test_a_bank_is_evaluated_as_its_run_is(bank, run, run_json):
    found = run_json("evaluate", bank, "--real", "toy:2", *QUICK, *CHEAP)
    own = run_json("evaluate", run, *QUICK, *CHEAP)
    assert found["of"] == {**own["of"], "kind": "bank", "generator": ""}
    assert found["data"] == own["data"]
    assert (bank.parent / "bank-evaluation" / "report.html").exists()
    values = [[figure["value"] for figure in one["figures"]] for one in (found, own)]
    assert values[0] == pytest.approx(values[1], rel=1e-3)


def test_memory_of_a_bank_is_known_by_its_lineage(bank, run_json):
    found = run_json("evaluate", bank, "--real", "toy:2", *QUICK, "--only", "memorisation")
    assert [attack["attack"] for attack in found["memorisation"]["membership"]] == ["distance"] * 2


def test_a_bank_wants_real_cases(bank, run_cli):
    result = run_cli("evaluate", bank, *QUICK)
    assert_one_line(result.exit_code, result.stderr, 2, ["--real", "toy:2 fold 0"])


def test_real_cases_of_another_kind_are_refused(run, run_cli):
    result = run_cli("evaluate", run, "--real", "toy:3", *QUICK)
    assert_one_line(result.exit_code, result.stderr, 3, ["--real toy:3"])


def test_real_cases_that_do_not_open_are_refused(run, run_cli):
    result = run_cli("evaluate", run, "--real", "toys:3", *QUICK)
    assert_one_line(result.exit_code, result.stderr, 2, ["--real toys:3", "toy"])


def test_what_is_no_run_is_refused(tmp_path, run_cli):
    result = run_cli("evaluate", tmp_path, *QUICK)
    assert_one_line(result.exit_code, result.stderr, 3, [str(tmp_path), "gansynth fit"])


def test_an_unknown_metric_is_refused_before_anything_is_drawn(run, run_cli):
    result = run_cli("evaluate", run, *QUICK, "--metric", "spektrum")
    assert_one_line(result.exit_code, result.stderr, 2, ["'spektrum'", "Did you mean 'spectrum'?"])


def test_too_few_samples_for_a_metric_that_was_asked_for_are_refused(run, run_cli):
    result = run_cli("evaluate", run, "-n", 8, "--metric", "c2st-knn", "--only", "realism")
    assert_one_line(result.exit_code, result.stderr, 3, ["8 sample(s)", "at least 16", "-n"])


def test_too_few_samples_for_some_metrics_leave_these_out(run, run_json):
    found = run_json("evaluate", run, "-n", 8, "--effort", "quick", "--only", "realism")
    assert {one["metric"] for one in found["left_out"]} >= {"c2st-knn", "c2st-cnn", "manifold"}
    assert {figure["metric"] for figure in found["figures"]} >= {"spectrum", "mmd"}


def test_constant_samples_are_refused(constant, run_cli):
    result = run_cli("evaluate", constant, *QUICK)
    assert_one_line(result.exit_code, result.stderr, 3, ["sample 0: is constant"])


def test_a_strangers_metric_stands_in_the_report(run, run_json):
    from types import SimpleNamespace

    from gansynth.core.hookspecs import hookimpl
    from gansynth.core.registry import installed

    def brightness(samples, real, schema):
        return {"brighter": float(samples[0].image.mean() - real[0].image.mean())}

    @hookimpl
    def metrics(register):
        register("brightness", lambda: brightness)

    installed().add(SimpleNamespace(register_metrics=metrics), "stranger")
    try:
        found = run_json("evaluate", run, *QUICK, "--only", "realism", "--metric", "brightness")
    finally:
        installed().remove("stranger")
    (figure,) = found["figures"]
    assert (figure["metric"], figure["name"]) == ("brightness", "brighter")
    assert figure["real_low"] < figure["real_high"]


def test_a_strangers_metric_that_fails_is_left_out(run, run_json):
    from types import SimpleNamespace

    from gansynth.core.hookspecs import hookimpl
    from gansynth.core.registry import installed

    def broken(samples, real, schema):
        raise RuntimeError("no idea")

    @hookimpl
    def metrics(register):
        register("broken", lambda: broken)

    installed().add(SimpleNamespace(register_metrics=metrics), "stranger")
    try:
        found = run_json("evaluate", run, "-n", 8, "--effort", "quick", "--only", "realism")
    finally:
        installed().remove("stranger")
    why = {one["metric"]: one["why"] for one in found["left_out"]}
    assert "no idea" in why["broken"]
