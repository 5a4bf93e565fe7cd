"""plugins and doctor: what is there, what is broken, and whether it keeps its contract."""

import json
from types import SimpleNamespace

import pytest

from gansynth.hookspecs import hookimpl
from gansynth.registry import installed
from gansynth_cli.commands import doctor


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


def test_the_list_names_every_kind_and_where_it_comes_from(toys, run_json):
    found = run_json("plugins", "list")["found"]
    assert found["generators"]["means"] == "toys"
    assert found["adapters"]["toyhost"] == "toys"
    assert found["sources"]["toy"] == "toys"
    assert found["edits"]["elastic"] == "gansynth"


def test_a_broken_plugin_is_listed_with_its_reason_in_one_line(broken, run_cli):
    lines = run_cli("plugins", "list").stdout.splitlines()
    assert next(line for line in lines if "unlucky" in line).split() == [
        *("broken", "unlucky", "RuntimeError:", "no", "licence")
    ]
    assert any(line.startswith("edits") and "elastic" in line for line in lines)


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


@pytest.fixture
def light(monkeypatch):
    """Doctor without the imports that take seconds."""
    monkeypatch.setattr(doctor, "HOSTS", ())
    monkeypatch.setattr(doctor, "_nnunet", lambda: iter(()))


def test_doctor_is_content_with_this_machine(light, run_json):
    document = run_json("doctor")
    assert document["ok"] is True
    found = {line["what"] for line in document["lines"]}
    assert {"gansynth", "python", "torch", "device", "threads", "/dev/shm", "plugins"} <= found


def test_something_essential_missing_is_exit_4_after_all_lines(light, run_cli, monkeypatch):
    monkeypatch.setattr(doctor, "ESSENTIAL", ("numpy", "no-such-package"))
    result = run_cli("doctor", "--json")
    assert result.exit_code == 4
    document = json.loads(result.stdout)
    assert document["ok"] is False
    assert {"state": "bad", "what": "no-such-package"}.items() <= document["lines"][3].items()
    assert result.stderr == "error: doctor: no-such-package not in order; see the lines above\n"


def test_a_host_that_is_missing_is_a_note_only():
    line = doctor._package("no-such-host", essential=False)
    assert (line.state, line.found) == ("note", "not installed; pip install no-such-host")


def test_a_package_that_does_not_import_says_why(tmp_path, monkeypatch):
    (tmp_path / "torn_package.py").write_text("raise OSError('libtorn.so is missing')")
    meta = tmp_path / "torn_package-1.0.dist-info"
    meta.mkdir()
    (meta / "METADATA").write_text("Metadata-Version: 2.1\nName: torn-package\nVersion: 1.0\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    line = doctor._package("torn-package", essential=True)
    assert (line.state, "OSError: libtorn.so is missing" in line.found) == ("bad", True)


def test_doctor_notes_broken_plugins(light, broken, run_cli):
    result = run_cli("doctor")
    assert result.exit_code == 0
    assert "note  plugin unlucky" in result.stdout


@pytest.mark.parametrize(("threads", "state"), [("1", "ok"), (None, "note")])
def test_doctor_notes_unset_threads_on_several_cores(monkeypatch, threads, state):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    if threads:
        monkeypatch.setenv("OMP_NUM_THREADS", threads)
    monkeypatch.setattr(doctor, "_cores", lambda: 8)
    assert doctor._threads().state == state


def test_doctor_knows_nnunet():
    lines = list(doctor._nnunet())
    assert lines[0].found.startswith("nnU-Net ")
    assert {line.state for line in lines} == {"ok"}
