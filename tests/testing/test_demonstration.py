"""``gansynth demo``: what it tells and shows, and that it is stopped and typed again."""

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gansynth.report.figures import read_metrics
from tests.house import ROOT
from tests.newcomer.conftest import Task
from tests.processes import family, until

SMALLER = """
from dataclasses import replace
from gansynth.testing import demonstration as demo
from gansynth_cli.__main__ import main
fit = demo.SHORT.fit | {"steps": "60", "width": "4", "d_width": "4"}
host = demo.SHORT.host | {"num_iterations_per_epoch": "12"}
demo.SHORT = replace(demo.SHORT, spacing_mm=6.0, phantoms=4, fit=fit, host=host)
demo.SHOWN_VOXELS = 4
main()
"""
WITH = "results/with/*/*/fold_0"


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_demo_goes_on_wherever_it_was_stopped_and_is_kept_when_finished(tmp_path):
    out = tmp_path / "demo"
    words = [sys.executable, "-c", SMALLER, "demo", "-o", str(out)]

    def typed(stop_at: str = "") -> str:
        """Type the command, press Ctrl-C when a file is there, and return what was said."""
        with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as command:
            if stop_at:
                until(lambda: any(out.glob(stop_at)))
                command.send_signal(signal.SIGINT)
            said = command.communicate(timeout=600)[1]
        assert command.returncode == (130 if stop_at else 0), said
        assert family(out) == []
        return said

    typed(stop_at="nnunet/nnUNet_preprocessed/*/nnUNetPlans.json")
    typed(stop_at="run/manifest.json")
    fitted = content(out / "nnunet")
    typed(stop_at=f"{WITH}/checkpoint_latest.pth")
    assert content(out / "nnunet") == fitted
    said = typed()
    assert "goes on with the demo in it" in said
    assert "the training resumes at epoch" in said
    summary = json.loads((out / "summary.json").read_text("utf-8"))
    assert summary["gan_steps"] == 60
    assert summary["drawn_real"] + summary["drawn_synthetic"] == 3 * 12 * 4
    finished = content(out)
    assert "its demo is finished" in typed()
    assert content(out) == finished


def content(folder: Path) -> dict[Path, int]:
    """When each case or result was written."""
    files = [path for path in folder.rglob("*") if path.suffix in (".b2nd", ".gz", ".png", ".md")]
    return {path: path.stat().st_mtime_ns for path in files}


def check_demo(demo: Path, said: str) -> None:
    """Numbers, words, pictures and curves of a finished demo, and what its command has said."""
    document = json.loads((demo / "summary.json").read_text("utf-8"))
    assert document["realised_synthetic_share"] == pytest.approx(0.5, abs=0.02)
    assert "proves nothing" in said
    assert re.search(r"\ndifference: [+-]0.\d+; one training each, so no interval", said)
    pictures = re.findall(r"]\((.*)\)", (demo / "summary.md").read_text("utf-8"))
    assert pictures == ["samples.png", "overlays.png", "run/samples/curves.png"]
    assert all((demo / name).stat().st_size for name in pictures)
    assert len(read_metrics(demo / "run" / "metrics.csv")["step"]) >= 3  # points of its curves


@pytest.mark.ci
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_what_make_demo_makes_is_told_and_shown():
    """Where it is made already, as by CI, it is told again."""
    check_demo(ROOT / "runs" / "demo", Task("", 0, ROOT)("gansynth demo -o runs/demo"))
