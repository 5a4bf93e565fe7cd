"""``gansynth selector``: what it prints, refuses and hands on."""
# mypy: disallow-untyped-calls=False

import pytest

from tests.volumes import balls


@pytest.fixture(scope="module", autouse=True)
def volumes():
    with balls():
        yield


TINY = ("--set", "steps=3", "--set", "size=16", "--set", "width=2", "--device", "cpu")


def test_a_fit_reports_and_leaves_a_folder(run_json, tmp_path):
    fit = ("selector", "fit", "--data", "slices:balls:a", "-o", tmp_path / "sel", *TINY)
    planned = run_json(*fit, "--dry-run")
    assert not (tmp_path / "sel").exists()
    report = run_json(*fit)
    assert report["train"] == planned["train"]
    assert {"auc", "threshold", "sensitivity", "specificity", "sha256"} <= report.keys()
    assert (tmp_path / "sel" / "manifest.json").is_file()


def test_a_poor_selector_comes_with_a_warning(run_cli, tmp_path):
    data = ("--data", "slices:balls:a", "--read", "channels=other")
    result = run_cli("selector", "fit", *data, "-o", tmp_path / "sel", *TINY)
    assert result.exit_code == 0
    assert "warning: slices:balls:a: AUC 0." in result.stderr


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("--data", "balls:a"), 2, ["expected slices of labelled volumes"]),
        (("--data", "slices:balls:a", "--set", "step=3"), 2, ["Did you mean 'steps'?"]),
        (("--data", "slices:balls:a", "--set", "size=4"), 2, ["--set size=4"]),
        (("--data", "slices:balls:a", "--read", "slices=0"), 3, ["are without foreground"]),
    ],
)
def test_what_cannot_be_is_one_line(refuse, tmp_path, options, code, says):
    out = ("-o", tmp_path / "sel")
    refuse("selector", "fit", *options, *out, code=code, says=says, keep=[tmp_path])


def test_the_group_alone_shows_what_it_has(run_cli):
    result = run_cli("selector")
    assert result.exit_code == 0
    assert "fit" in result.stdout
