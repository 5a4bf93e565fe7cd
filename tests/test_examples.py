"""Plugins by third parties, ``examples/``: distributions, installed and used as a user does."""

import json
import time

import pytest

from tests.house import ROOT
from tests.testing.scaffold.test_stranger import LINES, Environment, code_lines

pytestmark = [pytest.mark.ci, pytest.mark.slow]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory) -> Environment:
    """Four distributions by others, installed, and a run of the first of them."""
    clean = Environment(tmp_path_factory.mktemp("strangers"))
    clean.pip(ROOT)
    for name, kind in (("flow", "generator"), ("bids", "writer"), ("monai", "host")):
        folder = ROOT / "examples" / f"gansynth_{name}"
        clean.pip(folder)
        assert code_lines((folder / f"gansynth_{name}.py").read_text()) <= LINES[kind]
    clean.pip(ROOT / "examples/gansynth_translate")
    small = ("--set", "steps=40", "--set", "width=8", "--device", "cpu")
    clean.run("gansynth", "fit", "flow", "--data", "example:3d", "-o", "flow", *small)
    return clean


@pytest.mark.parametrize(
    "words", [("flow", "--steps", 800), ("bids",), ("translate",)], ids=lambda words: words[0]
)
def test_a_strangers_plugin_keeps_its_contract(strangers, words):
    strangers.run("gansynth", "plugins", "check", *words)


def test_examples_are_typed_against_what_is_installed(strangers):
    pytest.importorskip("monai", reason="MONAI is not installed: pip install monai")
    files = sorted((ROOT / "examples").glob("gansynth_*/gansynth_*.py"))
    assert len(files) == 4
    strangers.run("python", "-m", "mypy", "--strict", "--cache-dir", "types", *files)


def test_a_strangers_samples_are_written_in_a_strangers_format(strangers):
    words = ("-n", 2, "--format", "bids", "-o", "out", "--deidentify", "--device", "cpu")
    strangers.run("gansynth", "sample", "flow", *words)
    out = strangers.work / "out"
    found = {str(path.relative_to(out)) for path in out.rglob("*.*")}
    anat = [f"sub-sample000{n}/anat/sub-sample000{n}" for n in (0, 1)]
    images = {f"{stem}_{name}.nii.gz" for stem in anat for name in ("first", "second", "dseg")}
    assert found == images | {"participants.tsv", "dataset_description.json", "provenance.json"}
    told = json.loads((out / "provenance.json").read_text())["samples"]
    assert "case" not in told["sample-0000"]


def test_a_strangers_host_goes_on_where_it_was_stopped(strangers):
    pytest.importorskip("monai", reason="MONAI is not installed: pip install monai")
    drawn = ("--generator", "flow", "--offline", "--bank-size", 8, "--ratio", "1:1", "--strict")
    sizes = ("--steps", 60, "--width", 4, "--patch", 16, "--checkpoint-every", 5)
    words = ("gansynth", "augment", "--target", "monai", "--data", "example:3d", *drawn, *sizes)
    strangers.run(*words, "--set", "device=cpu", "-o", "undisturbed")
    stopped = strangers.start(*words, "--set", "device=cpu", "-o", "stopped")
    folder = strangers.work / "stopped" / "checkpoints"
    while not list(folder.glob("*")) and stopped.poll() is None:
        time.sleep(0.05)
    stopped.terminate()
    assert stopped.wait(60) == 143
    done = json.loads(
        strangers.run(*words, "--set", "device=cpu", "-o", "stopped", "--json").stdout
    )
    assert (done["drawn_real"], done["drawn_synthetic"]) == (60, 60)
    ends = [
        max((strangers.work / name / "checkpoints").iterdir())
        for name in ("stopped", "undisturbed")
    ]
    first, second = (path.read_bytes() for path in ends)
    assert ends[0].name == ends[1].name
    assert first == second
