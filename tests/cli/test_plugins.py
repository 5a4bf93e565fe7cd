"""plugins: what is there, what is broken, and whether it keeps its contract."""

import tomllib
from types import SimpleNamespace

import numpy as np
import pytest

from gansynth import __version__
from gansynth.core.hookspecs import API_VERSION, hookimpl
from gansynth.core.registry import installed
from gansynth.testing.scaffold.project import KINDS


@pytest.fixture
def broken():
    """A plugin that fails as it registers."""

    @hookimpl
    def hook(register):
        raise RuntimeError("no\nlicence")

    installed().add(SimpleNamespace(register_edits=hook), "unlucky")
    try:
        yield
    finally:
        installed().remove("unlucky")


RECIPES = ["doncenco2022", "lesion", "mmgan2020", "mmgan2020-liver", "shin2018"]


def test_the_list_names_every_kind_and_where_it_comes_from(toys, run_json):
    found = run_json("plugins", "list")["found"]
    assert found["generators"]["means"] == "toys"
    assert found["adapters"]["toyhost"] == "toys"
    assert found["sources"]["toy"] == "toys"
    assert found["edits"]["elastic"] == "conditions"


def test_a_broken_plugin_is_listed_with_its_reason_in_one_line(broken, run_cli):
    lines = run_cli("plugins", "list").stdout.splitlines()
    assert next(line for line in lines if "unlucky" in line).split() == [
        *("broken", "unlucky", "-", "RuntimeError:", "no", "licence")
    ]
    assert any(line.startswith("edits") and "elastic" in line for line in lines)


def test_each_row_has_the_distribution_and_its_version(toys, run_cli, run_json):
    lines = [line.split() for line in run_cli("plugins", "list").stdout.splitlines()]
    assert ["edits", "elastic", "from", "conditions", "gansynth", __version__] in lines
    assert ["generators", "means", "from", "toys", "-"] in lines
    document = run_json("plugins", "list")
    assert document["plugins"]["cgan3d"] == {
        **{
            "distribution": "gansynth",
            "version": __version__,
            "offers": {"generators": ["cgan3d"], "recipes": RECIPES},
        }
    }
    assert document["api"] == API_VERSION


def test_what_does_not_load_is_found_when_everything_is_loaded(run_cli, run_json):
    @hookimpl
    def hook(register):
        register("hollow", lambda: None)

    installed().add(SimpleNamespace(register_metrics=hook), "vague")
    try:
        assert "unusable" not in run_cli("plugins", "list").stdout
        shown = run_cli("plugins", "list", "--load")
        assert shown.exit_code == 0
        (line,) = [row for row in shown.stdout.splitlines() if row.startswith("unusable")]
        assert "hollow" in line
        assert "load() returned None, expected a function" in line
        assert set(run_json("plugins", "list", "--load")["unusable"]["metrics"]) == {"hollow"}
    finally:
        installed().remove("vague")


def test_a_plugin_that_offers_nothing_is_seen(run_cli):
    installed().add(SimpleNamespace(), "idle")
    try:
        lines = [line.split() for line in run_cli("plugins", "list").stdout.splitlines()]
        assert ["nothing", "-", "from", "idle", "-"] in lines
    finally:
        installed().remove("idle")


def test_plugins_alone_is_the_list(toys, run_cli):
    assert run_cli("plugins").stdout == run_cli("plugins", "list").stdout


def test_a_generator_that_keeps_its_contract_passes(toys, run_json):
    report = run_json("plugins", "check", "means")
    assert report["passed"] is True
    assert {check["verdict"] for check in report["checks"]} == {"passed"}


def test_a_generator_that_does_not_is_exit_6_with_a_line_for_each_check(toys, run_cli):
    result = run_cli("plugins", "check", "constant")
    assert result.exit_code == 6
    assert "failed  3d: not constant" in result.stdout
    assert "passed  3d: labels kept" in result.stdout
    assert "error: constant: " in result.stderr


def test_settings_reach_the_generator_under_check(toys, run_cli):
    result = run_cli("plugins", "check", "means", "--set", "grain=0")
    assert "failed  3d: seeds matter" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("meens",), "Did you mean 'means'?"),
        (("toyhost",), "gansynth.testing.check_adapter"),
        (("means", "--set", "grane=1"), "grane"),
    ],
)
def test_what_cannot_be_checked_is_a_slip(toys, run_cli, arguments, message):
    result = run_cli("plugins", "check", *arguments)
    assert result.exit_code == 2
    assert message in result.stderr


# -- plugins new ---------------------------------------------------------------------------------


def test_new_writes_a_project_and_names_its_files(run_json, tmp_path):
    document = run_json("plugins", "new", "spots", "-o", tmp_path / "spots")
    assert (document["kind"], document["package"]) == ("generator", "gansynth_spots")
    written = [p for p in (tmp_path / "spots").rglob("*") if p.is_file()]
    assert sorted(str(p.relative_to(tmp_path / "spots")) for p in written) == sorted(
        document["files"]
    )
    assert tomllib.loads((tmp_path / "spots" / "pyproject.toml").read_text())["project"][
        "entry-points"
    ] == {"gansynth": {"spots": "gansynth_spots"}}


def test_new_goes_here_unless_told_where(run_cli, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run_cli("plugins", "new", "two_words", "--kind", "metric")
    assert (result.exit_code, result.stderr) == (0, "next: pip install -e gansynth-two-words\n")
    assert [p.name for p in tmp_path.iterdir()] == ["gansynth-two-words"]


def test_a_dry_run_of_new_writes_nothing(run_json, tmp_path):
    document = run_json("plugins", "new", "spots", "-o", tmp_path / "spots", "--dry-run")
    assert document["dry_run"] is True
    assert "gansynth_spots/generator.py" in document["files"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_is_left_unfilled(run_cli, tmp_path, kind):
    assert run_cli("plugins", "new", "spots", "--kind", kind, "-o", tmp_path / "s").exit_code == 0
    texts = [p.read_text() for p in (tmp_path / "s").rglob("*") if p.is_file()]
    assert [text for text in texts if "{{" in text or "}}" in text] == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("Spots",), "'Spots': expected a package name"),
        (("1spot",), "expected a package name"),
        (("spots-and-dots",), "single underscores"),
        (("spots__dots",), "single underscores"),
        (("../spots",), "expected a package name"),
        (("s" * 41,), "at most 40 characters"),
        (("class",), "is a Python keyword"),
        (("match",), "is a Python keyword"),
        (("gansynth_spots",), "without the prefix gansynth_"),
        (("cgan3d",), "generator 'cgan3d' is already registered by plugin 'cgan3d'"),
        (("elastic", "--kind", "edit"), "edit 'elastic' is already registered by plugin"),
        (("nnunet",), "a plugin or package gansynth_nnunet is installed already"),
        (("cli",), "a plugin or package gansynth_cli is installed already"),
        (("spots", "--kind", "network"), "'network' is not one of"),
    ],
)
def test_a_name_that_cannot_be_is_one_line_and_leaves_nothing(refuse, tmp_path, arguments, says):
    out = ("-o", tmp_path / "project")
    refuse("plugins", "new", *arguments, *out, code=2, says=[says], keep=[tmp_path])


def test_a_folder_with_something_in_it_is_left_alone(refuse, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    says = ["exists already", "choose another -o"]
    refuse("plugins", "new", "spots", "-o", tmp_path, code=2, says=says, keep=[tmp_path])


def test_a_place_that_cannot_be_written_is_the_machines_fault(refuse, tmp_path):
    (tmp_path / "file").touch()
    out = tmp_path / "file" / "project"
    refuse("plugins", "new", "spots", "-o", out, code=4, says=["cannot be written"])


# -- sample --metric -----------------------------------------------------------------------------


@pytest.fixture
def run(toys, run_json, tmp_path):
    run_json("fit", "means", "--data", "toy:3", "-o", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def metrics():
    """Metrics ``sizes``, which says what it is given, ``odd`` (NaN) and ``bad`` (raises)."""

    def sizes(samples, real, schema):
        same = [np.array_equal(s.labels, c.labels) for s, c in zip(samples, real, strict=True)]
        return {"samples": len(samples), "same_labels": sum(same), "axes": schema.ndim}

    def bad(samples, real, schema):
        raise ZeroDivisionError("by\nzero")

    @hookimpl
    def hook(register):
        register("sizes", lambda: sizes)
        register("odd", lambda: lambda samples, real, schema: {"value": float("nan")})
        register("bad", lambda: bad)

    installed().add(SimpleNamespace(register_metrics=hook), "measures")
    try:
        yield
    finally:
        installed().remove("measures")


def test_metrics_get_samples_beside_the_cases_their_labels_came_from(run, metrics, run_json):
    document = run_json(
        *("sample", run, "-n", 3, "--metric", "sizes", "--metric", "spectrum", "--edit", "identity")
    )
    assert document["metrics"]["sizes"] == {"samples": 3.0, "same_labels": 3.0, "axes": 3.0}
    spectrum = document["metrics"]["spectrum"]
    assert list(spectrum)[:2] == ["first band 1", "first band 2"]
    assert len(spectrum) == 16
    assert all(0.02 < value < 50 for value in spectrum.values())


def test_a_number_that_json_cannot_hold_is_null(run, metrics, run_json):
    assert run_json("sample", run, "-n", 1, "--metric", "odd")["metrics"] == {
        "odd": {"value": None}
    }


def test_a_metric_that_fails_is_one_line(run, metrics, refuse):
    says = ["metric 'bad' fails on 2 sample(s): ZeroDivisionError: by zero"]
    refuse("sample", run, "-n", 2, "--metric", "bad", code=2, says=says)


def test_an_unknown_metric_is_a_slip_before_anything_is_drawn(run, refuse):
    says = ["metric 'spectrun' is unknown", "Did you mean 'spectrum'?"]
    refuse("sample", run, "--metric", "spectrun", code=2, says=says, keep=[run])
