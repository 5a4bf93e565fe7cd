"""Eight tasks of a newcomer, typed as the pages have them: so many commands, so many seconds."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import save_nifti
from tests.newcomer.conftest import DATA, SMALL
from tests.testing.test_demonstration import check_demo

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
        type_in(f"pip install -q {wheel}[demo] -c constraints.txt", scripts=scripts)
    with task("see it work", commands=2, seconds=150, folder=tmp_path) as type_in:
        assert "nnU-Net" in type_in("gansynth doctor", scripts=scripts)
        said = type_in("gansynth demo -o runs/demo", scripts=scripts)
    check_demo(tmp_path / "runs" / "demo", said)


@pytest.mark.slow
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
        said = type_in("gansynth check nifti:scans", 3)
    assert f"{labels / 'case_017.nii.gz'}: missing" in said
    assert f"{torn}: truncated at byte 900" in said


FIT = f"gansynth fit cgan3d {DATA} -o runs"
RESUMED = f"{FIT}/stopped {SMALL} --set steps=20 --set sample_every=2"
AUGMENT = f"gansynth augment --target nnunet {DATA} --generator runs/small --ratio 1:1"
EPOCH = "--set num_epochs=1 --set num_iterations_per_epoch=8 --set num_val_iterations_per_epoch=2"
PLUS = "nnUNet_preprocessed/Dataset510_PhantomPlus"
SHOWN = "runs/{}/samples/step-*.png"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "seconds", "lines", "says", "files", "count"),
    [
        ("fit, until the first preview grid", 60,
         [(f"{FIT}/first --set steps=2000", SHOWN.format("first"))], "", "", 0),
        ("look at 16 samples", 20, [("gansynth sample runs/small -n 16 --sheet", "")],
         "sheet: ", "runs/small/samples/*/sheet.png", 1),
        ("stop a fit, and resume it", 60, [(RESUMED, SHOWN.format("stopped")), (RESUMED, "")],
         "resum", "", 0),
        ("train nnU-Net, half of it synthetic", 60, [(f"{AUGMENT} {EPOCH}", "")], "50.0%", "", 0),
        ("export a data set of nnU-Net", 30, [(f"{AUGMENT} --export Dataset510_PhantomPlus", "")],
         "", f"nnunet/{PLUS}/*/synthetic_*.pkl", 4),  # as many as training cases
        ("evaluate 16 samples, quick", 60,
         [("gansynth evaluate runs/small --preset quick -n 16", "")],
         "", "runs/small/evaluation/report.html", 1),
    ],
)  # fmt: skip
def test_type_these_lines(folder, task, name, seconds, lines, says, files, count):
    with task(name, commands=len(lines), seconds=seconds) as type_in:
        for line, until in lines:  # Ctrl-C once such a file is there
            said = type_in(line, 130 if until else 0, until=until)
    assert says in said
    assert not files or len([*folder.glob(files)]) == count
