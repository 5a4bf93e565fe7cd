"""The line ``next:`` of a command is one command, which works as it is pasted."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest

import gansynth
from gansynth.core.run_folder import RunFolder
from gansynth.metrics.detection.record import FILE, write_detections
from gansynth_cli.results import lines_of_samples, then_cure
from tests.cli.conftest import READ
from tests.conftest import save_nifti
from tests.expected import raises_fault
from tests.flat_sets import pictures
from tests.metrics.detection.simulated import drawn
from tests.yolo_sets import toy_yolo

GROWS = "--set stage_images=4 --set fade_images=2 --set batch_size=2 --set width=4 --device cpu"
EVALUATE = "evaluate -n 8 --only realism --metric histogram --no-pictures"
CHAINS = {
    "fit means --data toy:3 -o run --dry-run": ["fit", "sample", EVALUATE, "augment --dry-run"],
    f"fit cpggan --data yolo:boxes/data.yaml -o run --set steps=2 {GROWS}": ["fit", "sample"],
    f"cache nifti:ill -o ill.h5 --dry-run {' '.join(READ)}": ["cache"],
    "augment --target toyhost --data toy:3 --generator toy --ratio 1:1 --dry-run": [
        "augment",
        "augment",
    ],
    "detections real both --bootstrap 50 --confidence 0.5": ["detections"],
    "plugins": ["options"],
    "plugins new faces --dry-run": ["plugins"],
}
"""First command -> the names of those that follow it, with what makes them take a second here;
those of a transcript are pasted beside it."""


@pytest.fixture
def home(world, toys, tmp_path, monkeypatch):
    """A folder with what the commands are about."""
    for part in ("ill", "free", "toy"):
        shutil.copytree(world / part, tmp_path / part)
    found = drawn(1, 60, per_subject=4)
    write_detections(tmp_path / "real" / FILE, found)
    write_detections(tmp_path / "both" / FILE, found)
    toy_yolo(tmp_path / "boxes", train=4, val=2, test=0, size=16)
    pictures(tmp_path / "flat")
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("first", CHAINS)
def test_the_next_command_works_as_it_is_pasted(home, first, run_cli):
    typed = shlex.split(first)
    for step in CHAINS[first]:
        result = run_cli(*typed)
        assert result.exit_code == 0, (typed, result.stderr)
        [line] = [line for line in result.stderr.splitlines() if line.startswith("next: ")]
        (program, *typed), (name, *beside) = shlex.split(line)[1:], shlex.split(step)
        assert (program, typed[0]) == ("gansynth", name), line
        typed += beside
    result = run_cli(*typed)
    assert result.exit_code == 0, (typed, result.stderr)


MIX = "augment --generator toy --ratio 1:1 --target"
WAYS_OUT = {
    "fit means --data h5:ill.h5 --fold 1 -o run": "h5.fold-differs",
    "fit means --data h5:ill.h5 --subjects '(.)' -o run": "h5.option-differs",
    f"{MIX} yolo --data nifti:ill": "yolo.data-not-for-detectors",
    f"{MIX} yolo --data pictures:flat": "yolo.data-not-for-detectors",
    "import slices:nifti:ill yolo:OUT --read inner.channels=T1,FLAIR": (
        "yolo.import-not-slices-with-boxes"
    ),
    f"{MIX} nnunet --data nifti:ill --subjects '(.)'": "nnunet.data-of-other-kind",
    "augment nifti:free": "hosts.neither-label-maps-nor-boxes",
}
"""A command that is refused -> why."""
TYPED = re.compile(r"gansynth (?:cache|check|fit|import) .+?(?=; |, |\. | \[|$)")


@pytest.mark.parametrize("epochs", ["--num-epochs 2", "--set num_epochs=2"])
def test_the_next_command_is_spelled_as_it_was_typed(home, succeed, epochs):
    typed = f"augment toy:3 --target toyhost --ratio 1:1 --generator toy {epochs}"
    [line] = [x for x in succeed(*typed.split(), "--dry-run").stderr.splitlines() if "next:" in x]
    name, data, *words = shlex.split(line)[2:]
    assert [name, data] == typed.split()[:2]
    assert sorted(words) == sorted(typed.split()[2:])


@pytest.mark.parametrize("first", WAYS_OUT)
def test_the_way_out_of_a_message_works_as_it_is_pasted(home, first, run_cli):
    run_cli("cache", "nifti:ill", "-o", "ill.h5", *READ)
    refused = run_cli(*shlex.split(first))
    assert f"[{WAYS_OUT[first]}]" in refused.stderr, refused.stderr
    (way_out,) = TYPED.findall(refused.stderr.splitlines()[-1])
    typed = run_cli(*shlex.split(way_out)[1:])
    assert typed.exit_code == 0, (way_out, typed.stderr)


def test_the_way_out_of_an_error_of_python_is_a_call_that_works(home):
    given = {"target": "yolo", "generator": "toy", "ratio": "1:1", "quiet": True}
    with raises_fault("yolo.data-not-for-detectors") as refused:
        gansynth.augment(**given, data="pictures:flat")
    (call,) = re.findall(r"gansynth\.\w+\([^)]*\)", str(refused.value))
    assert eval(call, {"gansynth": gansynth})


def pasted(line: str) -> list[str]:
    return shlex.split(line.partition("next: gansynth ")[2])


def test_the_cure_of_cases_of_one_patient_is_pasted(home, run_cli):
    for copy in "xyz":  # more than one fold holds out
        for name in ("images/{}_0000.nii.gz", "images/{}_0001.nii.gz", "labels/{}.nii.gz"):
            shutil.copy(f"ill/{name.format('a')}", f"ill/{name.format(copy)}")
    checked = run_cli("check", "nifti:ill", *READ)
    assert (checked.exit_code, "have the same image" in checked.stdout) == (3, True)
    [line] = [line for line in checked.stderr.splitlines() if line.startswith("next: ")]
    cured = run_cli(*pasted(line))
    assert cured.exit_code == 0, cured.stderr
    assert "subjects.csv" in pasted(cured.stderr.splitlines()[-1])


def test_a_choice_of_label_maps_stays_whole_in_a_terminal_and_the_first_is_pasted(
    home, run_cli, monkeypatch
):
    monkeypatch.setenv("COLUMNS", "80")
    for case in range(4):
        image = np.random.default_rng(case).normal(size=(16, 16, 16)).astype(np.float32)
        gland = np.zeros(image.shape, np.float32)
        gland[4:9, 4:9, 4:9] = 1
        for kind, array in {"T1": image, "gland_ROI": gland, "big_GTV": 1 - gland}.items():
            save_nifti(Path("two", f"p{case}", f"{kind}.nii.gz"), array)
    checked = run_cli("check", "nifti:two", "--read", "folds=2")
    shown = [line.strip() for line in checked.stdout.splitlines()]
    for kind in ("gland_ROI", "big_GTV"):
        typed = f"--read 'image={{case}}/T1.nii.gz' --read 'label={{case}}/{kind}.nii.gz'"
        assert any(line.startswith(typed) for line in shown), shown
    [line] = [line for line in checked.stderr.splitlines() if line.startswith("next: ")]
    assert run_cli(*pasted(line)).exit_code == 0, line


@pytest.mark.parametrize(
    ("cures", "changed"),
    [(["narrower", "longer"], "rim_mm=1.5"), (["wider"], "rim_mm=6"), (["longer"], "")],
)
def test_the_cure_of_samples_is_pasted(home, run_cli, cures, changed):
    assert run_cli("fit", "parametric", "--data", "example:3d", "-o", "run", "-q").exit_code == 0
    run = gansynth.load("run")
    hints = list(then_cure(cures, RunFolder(Path("run")), run.source))
    assert [changed in line for line in hints] == ([True] if changed else [])
    for line in hints:
        assert run_cli(*pasted(line), "--dry-run").exit_code == 0


def test_a_plan_whose_samples_are_all_rejected_has_one_look_at_them(home, run_cli):
    fit = ("fit", "dcgan", "--data", "example:2d", "--set", "steps=1", "--set", "with_mask=yes")
    assert run_cli(*fit, "--set", "width=4", "-o", "run", "-q").exit_code == 0
    words = ("augment", "--target", "segmenter", "--data", "example:2d", "--generator", "run")
    planned = run_cli(*words, "--ratio", "1:1", "--set", "steps=3", "--dry-run")
    assert planned.stderr.splitlines()[-1] == "next: gansynth sample run --sheet"


def test_samples_that_are_all_rejected_are_not_evaluated_but_the_fit_goes_on(home, run_cli):
    fit = ("fit", "dcgan", "--data", "example:2d", "--set", "steps=1", "-o", "run", "-q")
    assert run_cli(*fit).exit_code == 0
    report = {"samples": 4, "rejected": 4, "folder": "out"}
    *_, line = lines_of_samples(report, Path("run"))
    assert "--set steps=2" in line
    assert run_cli(*pasted(line), "--dry-run").exit_code == 0
