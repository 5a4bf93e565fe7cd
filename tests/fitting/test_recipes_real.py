"""The recipes of Han et al. 2018 on real volumes: BRATS slices, and a set that is killed."""
# mypy: disallow-untyped-calls=False

import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gansynth.core.run_folder import own_request, read_manifest
from gansynth.sampling.opening import open_source
from tests.conftest import DATA

pytestmark = [pytest.mark.slow, pytest.mark.data]

LABELS = "labels=necrosis:1,oedema:2,non-enhancing:3,enhancing:4"
SETS = ["FLAIR-128", "T1c-128", "Concat-128", "Concat-64"]


@pytest.fixture(scope="module")
def command(tmp_path_factory):
    """The command line for a recipe and an output folder, at scale tiny, some steps long."""
    home = tmp_path_factory.mktemp("brats")
    subjects = sorted(p for p in (DATA / "brats2015_deepmedic").resolve().iterdir() if p.is_dir())
    with open(home / "brats.csv", "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["case", "FLAIR", "T1c", "label"])
        for folder in subjects:
            images = [folder / f"{n}_subtrMeanDivStd.nii.gz" for n in ("Flair", "T1c")]
            rows.writerow([folder.name, *images, folder / "OTMultiClass.nii.gz"])

    def line(recipe: str, out: Path, *more: str) -> list[str]:
        read = ["allow_absolute=yes", LABELS, "folds=4"]
        return [
            *("fit", "dcgan", "--recipe", recipe, "--data", f"nifti:{home / 'brats.csv'}"),
            *("-o", str(out), "--scale", "tiny", "--device", "cpu", *more),
            *(word for pair in read for word in ("--read", pair)),
        ]

    return line


@pytest.mark.parametrize("recipe", ["han2018-dcgan", "han2018-wgan"])
def test_the_sets_that_the_data_allow_are_fitted_without_held_out_subjects(
    recipe, command, run_cli, tmp_path
):
    result = run_cli(*command(recipe, tmp_path, "--set", "steps=3"))
    assert result.exit_code == 0, result.stderr
    sets = json.loads((tmp_path / "recipe.json").read_text())["sets"]
    assert sorted(sets) == sorted(SETS)
    assert {entry["state"] for entry in sets.values()} == {"complete"}
    for name in SETS:
        manifest = read_manifest(tmp_path / name)
        source = open_source(own_request(tmp_path / name, manifest))
        held_out = {source.subject(case) for case in source.held_out_ids}
        seen = manifest["lineage"]["cases"]
        channels = ["FLAIR", "T1c"] if name.startswith("Concat") else [name[:-4]]
        assert manifest["schema"]["channels"] == ["+".join(channels)]
        assert manifest["space"]["size"] == [128, 128] if name.endswith("128") else [64, 64]
        assert len(held_out) == 1
        assert held_out.isdisjoint(case["subject"] for case in seen)
        numbers = {case["id"].split("/")[1] for case in seen}
        assert numbers == {f"sag{239 - index:03d}" for index in range(80, 150)}
        assert len(seen) == 3 * 70 * len(channels)


def test_a_set_killed_half_way_goes_on_to_the_bit_and_the_finished_one_is_kept(
    command, run_cli, tmp_path
):
    steps = ["--set", "steps=40", "--set", "checkpoint_every=2", "--set", "n_critic=1"]
    sets = ["--only", "T1c-128", "--only", "Concat-64"]
    line = command("han2018-wgan", tmp_path / "killed", *steps, *sets)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    child = subprocess.Popen(
        [sys.executable, "-m", "gansynth_cli", *line], env=environment, stderr=subprocess.DEVNULL
    )
    second = tmp_path / "killed" / "Concat-64" / "checkpoints"
    while not any(int(p.name[5:]) >= 10 for p in second.glob("step-*")):
        assert child.poll() is None
        time.sleep(0.02)
    child.send_signal(signal.SIGKILL)
    child.wait()
    manifest = read_manifest(tmp_path / "killed" / "Concat-64")
    assert not manifest["complete"]
    first = (tmp_path / "killed" / "T1c-128" / "manifest.json").stat()
    again = run_cli(*line, "--json")
    assert again.exit_code == 0, again.stderr
    found = json.loads(again.stdout)["sets"]
    assert found["T1c-128"]["kept"]
    assert (tmp_path / "killed" / "T1c-128" / "manifest.json").stat() == first
    assert 10 <= found["Concat-64"]["resumed_at"] < 40
    whole = command("han2018-wgan", tmp_path / "whole", *steps, "--only", "Concat-64")
    assert run_cli(*whole).exit_code == 0
    weights = [
        read_manifest(tmp_path / name / "Concat-64")["weights"] for name in ("killed", "whole")
    ]
    assert weights[0]["sha256"] == weights[1]["sha256"]
