"""Full disks: what was finished stays, and work goes on."""

import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from gansynth.sampling.run_source import open_source
from gansynth.training.checkpoint import latest
from tests.data.sets import msd
from tests.disks import files_of_at_most
from tests.processes import family

GANSYNTH = (sys.executable, "-m", "gansynth_cli")
SMALL = ("--device", "cpu", "--set=width=4", "--set=d_width=4", "--set=levels=2")


def fit(toy: Any, run: Path, *more: object) -> tuple[str, ...]:
    return ("fit", "cgan3d", *toy.options, "-o", str(run), *SMALL, *map(str, more))


@pytest.fixture
def run(fitted, tmp_path) -> Path:
    """A copy of the fitted run, two steps long, that a test may change."""
    return Path(shutil.copytree(fitted, tmp_path / "run"))


def last_step(run: Path) -> int:
    found = latest(run / "checkpoints")
    assert found is not None
    assert found.passed_over == []
    return int(found.state["step"])


@pytest.mark.fault(31)
@pytest.mark.parametrize("size", [1000, 20_000], ids=["manifest", "checkpoint"])
def test_a_full_disk_ends_a_fit_which_goes_on_later(
    toy_nnunet, run, run_cli, run_json, one_line, size
):
    command = fit(toy_nnunet, run, "--set=steps=4", "--set=checkpoint_every=1")
    with files_of_at_most(size):
        result = run_cli(*command)
    says = (str(run), "cannot be written", "needed, ", " free there", "Make room")
    one_line(result.exit_code, result.stderr, 4, says)
    assert [*run.rglob("*.tmp*")] == []
    assert last_step(run) == 2
    assert run_cli("sample", run, "-n", 1).exit_code == 0
    assert run_json(*command)["resumed_at"] == 2
    assert last_step(run) == 4


@pytest.mark.fault(31)
@pytest.mark.parametrize(
    "size", [3000, 33_000, *(pytest.param(n, marks=pytest.mark.slow) for n in (300, 20_000))]
)
def test_a_full_disk_ends_a_preparation_which_is_made_good_later(
    toy_copy, cheap_nnunet, run_cli, succeed, one_line, size
):
    shutil.rmtree(toy_copy.preprocessed)
    command = ("prepare", "nnunet:501", "--root", toy_copy.root)
    with files_of_at_most(size):
        result = run_cli(*command)
    one_line(result.exit_code, result.stderr, 4, (toy_copy.dataset, "Make room"))
    succeed(*command)
    source = open_source(toy_copy.request(plans=None))
    assert len(list(map(source.load, source.train_ids))) == len(source.train_ids)


@pytest.mark.fault(31)
def test_a_full_disk_ends_an_import_which_is_typed_again(run_cli, one_line, tmp_path):
    task, root = tmp_path / "task", tmp_path / "root"
    msd(task)
    command = ("import", f"msd:{task}", "nnunet:502", "--root", root, "--folds", 2)
    with files_of_at_most(500):
        result = run_cli(*command)
    one_line(result.exit_code, result.stderr, 4, ("imagesTr", "B needed", "Make room"))
    assert not [*root.rglob("*.*")]
    assert run_cli(*command).exit_code == 0
    assert run_cli("check", "nnunet:502", "--root", root).exit_code == 0


@pytest.mark.fault(31)
@pytest.mark.slow
def test_a_full_disk_under_the_bank_ends_the_training_before_it_begins(toy_copy, run, one_line):
    words = ["augment", "--target", "nnunet", *toy_copy.options, "--generator", str(run)]
    words += ["--ratio", "1:1", "--device", "cpu", "--set=num_epochs=1"]
    words += ["--set=num_iterations_per_epoch=2", "--set=num_val_iterations_per_epoch=1"]
    full = (resource.RLIMIT_FSIZE, (60_000, 60_000))
    ended = subprocess.run(
        [*GANSYNTH, *words],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(*full),
        timeout=200,
    )
    says = ("sample-000000", "cannot be written", "B needed")
    one_line(ended.returncode, ended.stderr, 4, says)
    assert family(toy_copy.root) == []
