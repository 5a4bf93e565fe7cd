"""Eight tasks of a newcomer, typed as the pages have them: so many commands, so many seconds."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from gansynth.report.figures import read_metrics
from tests.conftest import save_nifti
from tests.newcomer.conftest import DATA, SMALL

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_install_the_wheel_into_an_empty_environment_and_see_it_work(tmp_path, task):
    pytest.importorskip("hatchling")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    wheel = next(tmp_path.glob("*.whl")).name
    shutil.copy(ROOT / "constraints.txt", tmp_path)
    with task("install", commands=2, seconds=240, folder=tmp_path) as type_in:
        type_in("python3 -m venv empty")
        scripts = tmp_path / "empty" / "bin"
        type_in(f"pip install -q {wheel} -c constraints.txt", scripts=scripts)
    with task("see it work", commands=2, seconds=150, folder=tmp_path) as type_in:
        assert "nnU-Net" in type_in("gansynth doctor", scripts=scripts)
        said = type_in("gansynth demo -o runs/demo", scripts=scripts)
    demo = tmp_path / "runs" / "demo"
    document = json.loads((demo / "summary.json").read_text("utf-8"))
    assert document["realised_synthetic_share"] == pytest.approx(0.5, abs=0.02)
    assert "proves nothing" in said
    assert re.search(r"\ndifference: [+-]0.\d+, 95 % interval over phantoms [+-]\d", said)
    pictures = re.findall(r"]\((.*)\)", (demo / "summary.md").read_text("utf-8"))
    assert pictures == ["samples.png", "overlays.png", "run/samples/curves.png"]
    assert all((demo / name).stat().st_size for name in pictures)
    assert len(read_metrics(demo / "run" / "metrics.csv")["step"]) >= 3  # points of its curves


def test_find_the_faults_of_a_hundred_volumes(tmp_path, task):
    images, labels = (tmp_path / "scans" / f"{name}Tr" for name in ("images", "labels"))
    rng = np.random.default_rng(0)
    for number in range(50):
        scan = rng.integers(1, 250, (40, 40, 40)).astype(np.uint8)
        save_nifti(images / f"case_{number:03}_0000.nii.gz", scan)
        save_nifti(labels / f"case_{number:03}.nii.gz", (scan > 240).astype(np.uint8))
    (labels / "case_017.nii.gz").unlink()
    torn = images / "case_023_0000.nii.gz"
    torn.write_bytes(torn.read_bytes()[:900])
    with task("find faults of 100 volumes", commands=1, seconds=2, folder=tmp_path) as type_in:
        said = type_in("gansynth check nifti:scans", code=3)
    assert f"{labels / 'case_017.nii.gz'}: missing" in said
    assert f"{torn}: truncated at byte 900" in said


@pytest.mark.slow
def test_fit_and_see_the_first_preview_grid(folder, task):
    with task("fit, until the first preview grid", commands=1, seconds=60) as type_in:
        fit = f"gansynth fit cgan3d {DATA} -o runs/first --set steps=2000"
        type_in(fit, code=130, until="runs/first/samples/step-*.png")


@pytest.mark.slow
def test_look_at_samples(folder, task):
    with task("look at 16 samples", commands=1, seconds=20) as type_in:
        said = type_in("gansynth sample runs/small -n 16 --sheet")
    sheet = said.partition("sheet: ")[2].partition("\n")[0]
    assert (folder / sheet).stat().st_size


@pytest.mark.slow
def test_go_on_after_ctrl_c(folder, task):
    fit = f"gansynth fit cgan3d {DATA} -o runs/stopped {SMALL} --set steps=20 --set sample_every=2"
    with task("stop a fit, and resume it", commands=2, seconds=60) as type_in:
        type_in(fit, code=130, until="runs/stopped/samples/step-*.png")
        assert "resum" in type_in(fit)


AUGMENT = f"gansynth augment --target nnunet {DATA} --generator runs/small --ratio 1:1"


@pytest.mark.slow
def test_train_nnunet_with_samples(folder, task):
    few = "num_epochs=1", "num_iterations_per_epoch=8", "num_val_iterations_per_epoch=2"
    with task("train nnU-Net, half of it synthetic", commands=1, seconds=60) as type_in:
        said = type_in(AUGMENT + "".join(f" --set {setting}" for setting in few))
    assert "50.0%" in said


@pytest.mark.slow
def test_export_samples_as_a_data_set(folder, task):
    with task("export a data set of nnU-Net", commands=1, seconds=30) as type_in:
        type_in(f"{AUGMENT} --export Dataset510_PhantomPlus")
    written = folder / "nnunet/nnUNet_preprocessed/Dataset510_PhantomPlus"
    assert len([*written.glob("*/synthetic_*.pkl")]) == 4  # as many as training cases


@pytest.mark.slow
def test_report_how_good_samples_are(folder, task):
    with task("evaluate 16 samples, quick", commands=1, seconds=60) as type_in:
        type_in("gansynth evaluate runs/small --preset quick -n 16")
    assert (folder / "runs/small/evaluation/report.html").stat().st_size
