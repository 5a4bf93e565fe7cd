"""What a message or the line ``next:`` tells to type is typed, and then the command works."""

import re
import shlex
import shutil

import pytest

from gansynth.runtime.files import read_json, write_json_atomic
from tests.conftest import Toy

TYPED = re.compile(r"gansynth (?:prepare|fit) [^;\[]+?(?=[;.] |, which| \[|$)", re.MULTILINE)
FIT = ("fit", "parametric", "--data", "nnunet:501", "-c", "2d", "-q")


def no_arrays(toy: Toy) -> None:
    shutil.rmtree(toy.preprocessed / "nnUNetPlans_2d")


def arrays_of_old_version(toy: Toy) -> None:
    for file in (toy.preprocessed / "nnUNetPlans_2d").glob("*.b2nd"):
        file.rename(file.with_suffix(".npz"))


def no_plans(toy: Toy) -> None:
    (toy.preprocessed / f"{toy.plans}.json").unlink()


def damaged_plans(toy: Toy) -> None:
    (toy.preprocessed / f"{toy.plans}.json").write_text("{")


@pytest.mark.parametrize(
    ("spoil", "expected"),
    [
        (no_arrays, "nnunet.no-preprocessed-cases"),
        (arrays_of_old_version, "nnunet.preprocessed-by-old-version"),
        (no_plans, "nnunet.plans-name-unknown"),
        (damaged_plans, "files.not-valid-json"),
    ],
)
def test_the_way_out_of_data_that_are_not_ready_keeps_the_plans(
    toy_copy, cheap_nnunet, run_cli, tmp_path, spoil, expected
):
    spoil(toy_copy)
    asked = (*FIT, "--plans", toy_copy.plans, "--root", toy_copy.root, "-o", tmp_path / "run")
    refused = run_cli(*asked)
    assert refused.exit_code, refused.stderr
    assert refused.stderr.rstrip().endswith(f"[{expected}]")
    (way_out,) = TYPED.findall(refused.stderr)
    typed = run_cli(*shlex.split(way_out)[1:], "--processes", 1)
    assert typed.exit_code == 0, (way_out, typed.stderr)
    assert run_cli(*asked).exit_code == 0


def test_the_way_out_of_a_leak_fits_on_the_same_plans_and_fold(toy_copy, run_cli, tmp_path):
    how = ("--plans", toy_copy.plans, "--root", toy_copy.root)
    run = tmp_path / "run"
    assert run_cli(*FIT, *how, "--fold", 1, "-o", run).exit_code == 0
    mixing = ("augment", "--target", "nnunet", "--ratio", "1:1", "--fold", 0, "--dry-run")
    refused = run_cli(*mixing, "--generator", run)
    assert refused.exit_code == 6, refused.stderr
    (way_out,) = TYPED.findall(refused.stderr)
    assert run_cli(*shlex.split(way_out)[1:], "-q").exit_code == 0
    asked = read_json(tmp_path / "run_again/manifest.json")["request"]
    assert (asked["plans"], asked["fold"]) == (toy_copy.plans, "0")


def test_residual_encoders_are_planned_here_and_the_next_command_is_on_their_plans(
    toy_copy, cheap_nnunet, run_cli, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    plans = "nnUNetResEncUNetMPlans"
    asked = ("nnunet:501", "-c", "2d", "--plans", plans, "--root", toy_copy.root)
    prepared = run_cli("prepare", *asked, "--processes", 1)
    assert prepared.exit_code == 0, prepared.stderr
    first = prepared.stderr.splitlines()[-1]
    assert f"--data nnunet:501 -c 2d --plans {plans} --root" in first
    assert run_cli(*shlex.split(first)[2:], "--dry-run").exit_code == 0
    for name in ("nnUNetPlans", toy_copy.plans):  # as nnU-Net's own planner leaves it
        (toy_copy.preprocessed / f"{name}.json").unlink()
    checked = run_cli("check", *asked[0:1], *asked[-2:])
    second = checked.stderr.splitlines()[-1]
    assert "next: gansynth fit" in second
    assert f"--plans {plans}" in second


def test_plans_of_another_name_than_their_file_are_refused_alike(toy_copy, run_cli, tmp_path):
    """nnU-Net would write the results of both into one folder."""
    path = toy_copy.preprocessed / "nnUNetPlans_pretrained.json"
    shutil.copy(toy_copy.preprocessed / "nnUNetPlans.json", path)
    asked = (*FIT, "--plans", path.stem, "--root", toy_copy.root, "-o", tmp_path / "run")
    assert "plans_name is 'nnUNetPlans', expected 'nnUNetPlans_pretrained'" in (
        run_cli(*asked).stderr
    )
    assert "nnUNetPlans_pretrained" in run_cli("check", "nnunet:501", *asked[-4:-2]).stdout
    write_json_atomic(path, {**read_json(path), "plans_name": path.stem})
    assert run_cli(*asked).exit_code == 0


def test_the_one_command_reads_data_as_the_fit_of_a_named_generator_has(
    toy_copy, run_cli, tmp_path
):
    where = ("--root", toy_copy.root)
    assert run_cli(*FIT, "--plans", "nnUNetPlans", *where, "-o", tmp_path / "run").exit_code == 0
    asked = ("augment", "nnunet:501", "--generator", tmp_path / "run", "--ratio", "1:1")
    planned = run_cli(*asked, *where, "--dry-run")
    assert planned.exit_code == 0, planned.stderr
    assert "chose plans" not in planned.stderr
    assert "plans nnUNetPlans" in planned.stderr
