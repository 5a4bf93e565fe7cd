import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from gansynth.core.run_folder import read_manifest
from gansynth.fitting.recipe import find_recipe

PAGE = (Path(__file__).parents[3] / "docs" / "papers.md").read_text(encoding="utf-8")
RUNS = ("shin2018", "doncenco2022/SN", "mmgan2020/pool")


def sequence() -> str:
    match = re.search(r"<!-- sequence -->\n```sh\n(.*?)```\n<!-- /sequence -->", PAGE, re.DOTALL)
    assert match is not None
    return match[1]


@pytest.mark.parametrize("name", ["shin2018", "doncenco2022", "mmgan2020", "mmgan2020-liver"])
def test_the_page_has_every_recipe_and_its_sets(name):
    assert f"`{name}`" in PAGE
    for run in find_recipe(name).spec.runs:
        if run.name not in ("run", "chain"):
            assert f"`{run.name}`" in PAGE


@pytest.mark.slow
@pytest.mark.timeout(2400)
def test_each_recipe_is_fitted_sampled_banked_and_trained_on_by_both_hosts(tmp_path):
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-euc", sequence()],
        cwd=tmp_path,
        env={**os.environ, "PATH": path, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    for run in RUNS:
        assert (tmp_path / "sheets" / run / "sheet.png").stat().st_size > 10_000
        for host in ("nnunet", "deepmedic"):
            assert read_manifest(tmp_path / "runs" / host / run)["complete"]
            told = json.loads((tmp_path / f"{host}-{Path(run).name}.json").read_text())
            assert told["realised_synthetic_share"] == pytest.approx(0.5), (host, run)
            assert told["fell_back"] == 0
            assert told["drawn_synthetic"] > 0
    shared = tmp_path / "ph" / "nnunet" / "nnUNet_raw" / "Dataset711_Shared"
    assert json.loads((shared / "dataset.json").read_text())["numTraining"] == 3
    assert len(list((shared / "imagesTr").iterdir())) == 3 * 4
    for file in (shared / "labelsTr").iterdir():
        image: Any = nib.Nifti1Image.from_filename(file)
        assert set(np.unique(np.asarray(image.dataobj))) <= {0, 1, 2, 3}, "no tissues"
