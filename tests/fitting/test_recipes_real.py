"""The recipes of Han et al. 2018 on real volumes: BRATS slices."""

import csv
import json
from pathlib import Path

import pytest

from gansynth.core.run_folder import own_request, read_manifest
from gansynth.sampling.run_source import open_source
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
    recipe, command, succeed, tmp_path
):
    succeed(*command(recipe, tmp_path, "--set", "steps=3"))
    sets = json.loads((tmp_path / "recipe.json").read_text())["sets"]
    assert sorted(sets) == sorted(SETS)
    assert {entry["state"] for entry in sets.values()} == {"complete"}
    for name in SETS:
        manifest = read_manifest(tmp_path / name)
        source = open_source(own_request(tmp_path / name, manifest))
        held_out = {source.header(case).subject for case in source.held_out_ids}
        seen = manifest["lineage"]["cases"]
        channels = ["FLAIR", "T1c"] if name.startswith("Concat") else [name[:-4]]
        assert manifest["schema"]["channels"] == ["+".join(channels)]
        assert manifest["space"]["size"] == [128, 128] if name.endswith("128") else [64, 64]
        assert len(held_out) == 1
        assert held_out.isdisjoint(case["subject"] for case in seen)
        numbers = {case["id"].split("/")[1] for case in seen}
        assert numbers == {f"sag{239 - index:03d}" for index in range(80, 150)}
        assert len(seen) == 3 * 70 * len(channels)
