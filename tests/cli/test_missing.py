"""A file, folder or data set that is not there: one line and exit 3, whatever option names it."""

import shlex
from typing import Any

import click
import numpy as np
import pytest

from gansynth_cli.main import COMMANDS, cli
from tests.conftest import save_nifti

NOWHERE = "nowhere/at-all"
KINDS = {
    "nifti": NOWHERE,
    "msd": NOWHERE,
    "h5": f"{NOWHERE}.h5",
    "pictures": NOWHERE,
    "slices": f"nifti:{NOWHERE}",
    "yolo": f"{NOWHERE}.yaml",
    "deepmedic": f"{NOWHERE}.cfg",
    "nnunet": "999",
    "nnunet-raw": "999",
}
TAKE_DATA = {
    "fit dcgan -o out --data",
    "cache -o out.h5",
    "check",
    "failures -o out.json --data",
    "augment --target segmenter --generator RUN --ratio 1:1 --data",
}
OF_EXAMPLE = "--data example:2d"
OTHERS = {
    "show RUN": "run",
    "sample RUN": "run",
    "evaluate RUN": "folder",
    "turing-test RUN": "run",
    "turing-test RUN --results": "",
    "turing-test FITTED --instructions FILE.txt": "instructions",
    "turing-test FITTED --real nifti:FILE": "",
    "sample FITTED --weights FILE.json": "weights",
    "turing-test FITTED --weights FILE.json": "weights",
    "evaluate FITTED --weights FILE.json": "weights",
    "sample FITTED --conditions nifti:FILE -n 1": "",
    "evaluate FITTED --real nifti:FILE": "",
    "evaluate FITTED --exported FILE": "exported",
    f"fit dcgan -o out {OF_EXAMPLE} --init-from RUN": "init_from",
    f"fit dcgan -o out {OF_EXAMPLE} --recipe FILE.yaml": "",
    f"fit FILE.yaml -o out {OF_EXAMPLE}": "",
    "fit dcgan -o out --data SET --subjects FILE.csv": "",
    "fit dcgan -o out --data SET --read splits=FILE.json": "",
    "augment --target segmenter --data SET --ratio 1:1 --generator RUN": "run",
    "augment --target segmenter --data SET --ratio 1:1 --bank FILE": "bank",
    "augment --target segmenter --data SET --ratio 1:1 --generator FITTED --weights FILE.json": (
        "weights"
    ),
    "failures --data SET -o out.json --predictions FILE": "predictions",
    "benchmark FILE.yaml": "plan_file",
    "tune FILE.yaml": "plan_file",
    f"papers FILE.yaml {OF_EXAMPLE}": "",
    "detections FILE": "",
    "import msd:FILE nnunet:009 --root .": "",
    "splits nnunet:999 --root .": "",
    "prepare nnunet:999 --root .": "",
}
"""Command, and the parameter of type path that it is about."""
WRITTEN = {"folder", "out", "path", "report", "output", "write_splits", "scratch"}
"""Parameters that name what is made."""
ELSEWHERE = {"deepmedic", "deepmedic_python", "caches"}
"""Parameters for programs, which are the machine's, and for the cases of a plan, as h5: above."""


@pytest.fixture(scope="module")
def volumes(tmp_path_factory):
    """A folder of ten volumes with label maps."""
    folder, rng = tmp_path_factory.mktemp("volumes"), np.random.default_rng(0)
    for part in ("images", "labels"):
        (folder / part).mkdir()
    for number in range(10):
        image = rng.normal(size=(16, 16, 16)).astype(np.float32)
        save_nifti(folder / "images" / f"case{number}.nii.gz", image)
        save_nifti(folder / "labels" / f"case{number}.nii.gz", (image > 1).astype(np.uint8))
    return folder


@pytest.fixture(scope="module")
def fitted(volumes, tmp_path_factory):
    """A run of a generator that learns by no steps."""
    run = tmp_path_factory.mktemp("fitted") / "run"
    words = ("fit", "copypaste", "--data", f"nifti:{volumes}", "-o", str(run), "-q")
    cli.main(words, standalone_mode=False)
    return run


def missing(run_cli: Any, one_line: Any, tmp_path: Any, monkeypatch: Any, command: str) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("nnUNet_raw", "nnUNet_preprocessed", "nnUNet_results"):
        monkeypatch.setenv(name, str(tmp_path / "nnunet"))
    result = run_cli(*shlex.split(command))
    one_line(result.exit_code, result.stderr, 3, [])
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", sorted(TAKE_DATA))
def test_a_data_set_that_is_not_there_is_exit_3(
    run_cli, one_line, tmp_path, monkeypatch, command, kind
):
    words = command.replace("RUN", NOWHERE)
    missing(run_cli, one_line, tmp_path, monkeypatch, f"{words} {kind}:{KINDS[kind]}")


@pytest.mark.parametrize("command", OTHERS)
def test_a_file_that_is_not_there_is_exit_3(
    run_cli, one_line, tmp_path, monkeypatch, volumes, fitted, command
):
    words = command.replace("FILE", NOWHERE).replace("RUN", NOWHERE).replace("FITTED", str(fitted))
    words = words.replace("SET", f"nifti:{volumes}")
    missing(run_cli, one_line, tmp_path, monkeypatch, words)


def test_every_option_that_takes_a_path_is_tried():
    tried = {(command.split()[0], name) for command, name in OTHERS.items()}
    for name in COMMANDS:
        command: Any = cli.get_command(None, name)  # type: ignore[arg-type]
        if isinstance(command, click.Group):
            continue  # they make what they name
        paths = {p.name for p in command.params if isinstance(p.type, click.Path)}
        left = {path for path in paths if (name, path) not in tried}
        assert left <= WRITTEN | ELSEWHERE | {"run" if name == "fit" else ""}, name
