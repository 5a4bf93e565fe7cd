"""Phantoms as DeepMedic's list files and configurations."""

import ast
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from gansynth.runtime.errors import UsageFault
from gansynth.testing.phantoms import PhantomOptions, make_phantom, write_deepmedic
from gansynth_cli.main import cli

pytest.importorskip("nilearn", reason="nilearn, which ships the MNI152 maps, is not installed")

COARSE = PhantomOptions(spacing_mm=8.0, channels=("FLAIR", "T1c"))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return write_deepmedic(tmp_path_factory.mktemp("deepmedic") / "phantoms", 4, 0, COARSE)


def values(path: Path) -> dict[str, Any]:
    tree = ast.parse(path.read_text())
    return {n.targets[0].id: ast.literal_eval(n.value) for n in tree.body}  # type: ignore[attr-defined]


def array(path: Path) -> Any:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj)


def listed(config: Path, name: str) -> list[Path]:
    return [config.parent / line for line in (config.parent / name).read_text().split()]


def test_the_lists_name_every_subject_once_in_the_same_order(config):
    told = values(config)
    for part, count in (("Training", 3), ("Validation", 1)):
        lists = [*told[f"channels{part}"], told[f"gtLabels{part}"], told[f"roiMasks{part}"]]
        files = [listed(config, name) for name in lists]
        assert {len(one) for one in files} == {count}
        assert all(path.is_file() for one in files for path in one)
        assert len({tuple(path.parent.name for path in one) for one in files}) == 1
    assert len(listed(config, told["namesForPredictionsPerCaseVal"])) == 1


def test_images_are_normal_within_the_brain_and_labels_are_the_phantoms(config):
    folder = config.parent / "sub-001"
    brain = array(folder / "brain.nii.gz")
    assert brain.dtype == np.int16  # DeepMedic's uniform sampling chokes on bytes
    for channel in ("FLAIR", "T1c"):
        image = array(folder / f"{channel}.nii.gz")
        assert image.dtype == np.float32
        inside = image[brain > 0]
        assert abs(inside.mean()) < 1e-4
        assert inside.std() == pytest.approx(1, abs=1e-4)
        assert len(np.unique(image[brain == 0])) == 1
    labels = array(folder / "labels.nii.gz")
    assert np.array_equal(labels.T, make_phantom(1, 0, COARSE).labels)
    assert int(labels.max()) < values(config.parent / "modelConfig.cfg")["numberOfOutputClasses"]


def test_the_same_arguments_give_the_same_bytes(config, tmp_path):
    again = write_deepmedic(tmp_path / "again", 4, 0, COARSE).parent
    for path in sorted(p for p in config.parent.rglob("*") if p.is_file()):
        assert (again / path.relative_to(config.parent)).read_bytes() == path.read_bytes()


def test_refuses_one_subject_and_a_folder_in_use(config, tmp_path):
    with pytest.raises(UsageFault, match="n 1; expected at least 2 subjects"):
        write_deepmedic(tmp_path / "one", 1, 0, COARSE)
    with pytest.raises(UsageFault, match="exists already, expected a new folder"):
        write_deepmedic(config.parent, 4, 0, COARSE)


def test_the_command_says_what_to_run_on_them(tmp_path):
    words = ["demo", "-o", str(tmp_path / "p"), "--phantoms", "deepmedic", "--fast", "--json"]
    result = CliRunner().invoke(cli, words)
    assert result.exit_code == 0, result.output
    assert "gansynth check deepmedic:" in result.stdout
    assert (tmp_path / "p" / "gliomas" / "trainConfig.cfg").is_file()
