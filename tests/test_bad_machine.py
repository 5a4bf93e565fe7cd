"""Full disks, signals and two processes at once: what was finished stays, and work goes on."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gansynth.training.checkpoint import latest

GANSYNTH = (sys.executable, "-c", "from gansynth_cli.main import main; main()")
SMALL = ("--device", "cpu", "--set=width=4", "--set=d_width=4", "--set=levels=2")


def fit(toy: Any, run: Path, *more: object) -> tuple[str, ...]:
    return ("fit", "cgan3d", *toy.options, "-o", str(run), *SMALL, *map(str, more))


@pytest.fixture
def run(fitted, tmp_path):
    """A copy of the fitted run, two steps long, that a test may change."""
    shutil.copytree(fitted, tmp_path / "run")
    return tmp_path / "run"


@contextlib.contextmanager
def files_of_at_most(size: int) -> Iterator[None]:
    """As if the disk were full after so many bytes of a file."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def temporaries(folder: Path) -> list[Path]:
    return [*folder.rglob("*.tmp*")]


def last_step(run: Path) -> int:
    found = latest(run / "checkpoints")
    assert found is not None
    assert found.passed_over == []
    return int(found.state["step"])


# -- a full disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1000, 20_000], ids=["manifest", "checkpoint"])
def test_a_full_disk_ends_a_fit_which_goes_on_later(toy_nnunet, run, run_cli, one_line, size):
    command = fit(toy_nnunet, run, "--set=steps=4", "--set=checkpoint_every=1")
    with files_of_at_most(size):
        result = run_cli(*command)
    says = (str(run), "cannot be written", "bytes needed", "bytes free", "Make room")
    one_line(result.exit_code, result.stderr, 4, says)
    assert temporaries(run) == []
    assert last_step(run) == 2
    assert run_cli("sample", run, "-n", 1).exit_code == 0
    again = run_cli(*command, "--json")
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["resumed_at"] == 2
    assert last_step(run) == 4


@pytest.mark.parametrize("size", [300, 3000, 20_000, 33_000])
def test_a_full_disk_ends_a_preparation_which_is_made_good_later(
    toy_copy, cheap_nnunet, run_cli, one_line, size
):
    from gansynth_nnunet.source import open_nnunet

    shutil.rmtree(toy_copy.preprocessed)
    command = ("prepare", "nnunet:501", "--root", toy_copy.root)
    with files_of_at_most(size):
        result = run_cli(*command)
    one_line(result.exit_code, result.stderr, 4, (toy_copy.dataset, "Make room"))
    again = run_cli(*command)
    assert again.exit_code == 0, again.stderr
    source = open_nnunet(toy_copy.request(plans=None))
    assert len(list(source.cases())) == len(source.train_ids)


def test_a_full_disk_ends_an_import_which_goes_on_later(toy_copy, run_cli, one_line, tmp_path):
    task = tmp_path / "Task01_Toy"
    shutil.copytree(toy_copy.raw, task)
    cases = [path.name for path in (task / "labelsTr").iterdir()]
    document = json.loads((task / "dataset.json").read_text())
    entries = [(f"imagesTr/{n[:-7]}_0000.nii.gz", f"labelsTr/{n}") for n in cases]
    document |= {
        "modality": {"0": "T1"},
        "labels": {"0": "background", "1": "organ", "2": "lesion"},
        "training": [{"image": image, "label": label} for image, label in entries],
    }
    del document["channel_names"]
    (task / "dataset.json").write_text(json.dumps(document))
    command = ("import", f"msd:{task}", "nnunet:502", "--root", toy_copy.root, "--folds", 2)
    with files_of_at_most(5000):
        result = run_cli(*command)
    one_line(result.exit_code, result.stderr, 4, ("imagesTr", "bytes needed", "Make room"))
    target = toy_copy.root / "nnUNet_raw" / "Dataset502_Toy"
    assert temporaries(target) == []
    assert not (target / "dataset.json").exists()
    assert run_cli(*command).exit_code == 0
    assert run_cli("check", "nnunet:502", "--root", toy_copy.root).exit_code == 0


# -- two at once ---------------------------------------------------------------------------------

HOLD = """
import sys, time
from pathlib import Path
from gansynth.sampling.run import locked
with locked(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def held(folder: Path) -> Iterator[int]:
    """Another process works in a folder; yields its pid."""
    holding = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(holding, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        yield other.pid
        other.kill()


def test_a_second_process_in_a_run_folder_is_told_who_is_there(toy_nnunet, run, refuse, run_cli):
    command = fit(toy_nnunet, run, "--set=steps=3")
    with held(run) as pid:
        says = (str(run), f"locked by pid {pid} since", "another -o")
        refuse(*command, code=4, says=says, keep=[run])
    result = run_cli(*command)
    assert result.exit_code == 0, result.stderr


def test_a_second_training_of_the_same_fold_is_told_who_is_there(toy_copy, run, refuse):
    model = "nnUNetTrainerGANSynth__gansynthSmallPlans__3d_fullres"
    folder = toy_copy.root / "nnUNet_results" / toy_copy.dataset / model / "fold_0"
    with held(folder) as pid:
        says = (str(folder), f"locked by pid {pid} since", "--fold")
        refuse(*augment(toy_copy, run), code=4, says=says, keep=[toy_copy.root, run])


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (("--set=beta1=0.4",), "options.beta1 is 0.4, was 0.5"),
        (("--set=seed=1",), "fit.seed is 1, was 0"),
        (("--fold=1",), "data.fold is '1', was '0'"),
        (("--edit=flip",), "edits is ['flip']"),
        (("--no-resume",), "holds a run already"),
    ],
)
def test_another_fit_in_the_same_folder_is_refused(toy_nnunet, run, refuse, more, says):
    command = fit(toy_nnunet, run, "--set=steps=3", *more)
    refuse(*command, code=2, says=(str(run), says, "another -o"), keep=[run])


# -- signals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("number", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow), (signal.SIGTERM, 143)],
)
def test_an_interrupted_fit_ends_soon_and_goes_on_later(toy_nnunet, run, run_cli, number, code):
    command = fit(toy_nnunet, run, "--set=steps=100000", "--set=checkpoint_every=1")
    with subprocess.Popen([*GANSYNTH, *command], stderr=subprocess.PIPE, text=True) as child:
        while not any(step > 2 for step in steps(run)):
            assert child.poll() is None
            time.sleep(0.05)
        child.send_signal(number)
        _, said = child.communicate(timeout=10)
    assert child.returncode == code
    assert "Traceback" not in said
    assert temporaries(run) == []
    reached = last_step(run)
    assert reached > 2
    command = fit(toy_nnunet, run, f"--set=steps={reached + 1}", "--json")
    again = run_cli(*command)
    assert again.exit_code == 0, again.stderr
    assert json.loads(again.stdout)["resumed_at"] == reached


def steps(run: Path) -> list[int]:
    return [int(path.name[5:]) for path in (run / "checkpoints").glob("step-*")]


# -- the whole way -------------------------------------------------------------------------------

LIAR = '''
from gansynth.core.generator import Generator
from gansynth.core.hookspecs import hookimpl
from gansynth.core.schema import Sample


class Liar(Generator):
    """Noise, with a label that nobody knows."""

    name = "liar"

    def networks(self):
        return {}

    def phases(self):
        return []

    def sample(self, conditions, seeds):
        import numpy as np

        samples = []
        for condition, seed in zip(conditions, seeds, strict=True):
            shape = (len(self.schema.channels), *condition.labels.shape)
            image = np.random.default_rng(seed).normal(size=shape).astype(np.float32)
            labels = condition.labels.copy()
            labels[labels == 0] = 9
            samples.append(Sample(image, labels, provenance=condition.provenance))
        return samples


@hookimpl
def register_generators(register):
    register("liar", lambda: Liar)
'''


def real(command: tuple[object, ...], size: int | None = None, way: str = "") -> Any:
    """Run the command in a process of its own, on a disk that is full after so many bytes."""

    def limit() -> None:
        if size is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return subprocess.run(
        [*GANSYNTH, *map(str, command)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": way},
        preexec_fn=limit,
        timeout=200,
    )


def augment(toy: Any, run: Path, *more: object) -> tuple[object, ...]:
    kept = ("augment", "--target", "nnunet", *toy.options, "--generator", run, "--ratio", "1:1")
    short = ("num_epochs=1", "num_iterations_per_epoch=2", "num_val_iterations_per_epoch=1")
    return (*kept, "--device", "cpu", *(f"--set={s}" for s in short), *more)


def nobody_is_left(toy: Any) -> bool:
    """No producer works for this data set, and its bank is gone."""
    import psutil

    lines = [" ".join(p.info["cmdline"] or ()) for p in psutil.process_iter(["cmdline"])]
    return not any(str(toy.root) in line for line in lines)


@pytest.mark.slow
def test_a_generator_of_unknown_labels_only_ends_the_training_before_it_begins(
    toy_copy, tmp_path, one_line
):
    (tmp_path / "liar.py").write_text(LIAR)
    info = tmp_path / "liar-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: liar\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[gansynth]\nliar = liar\n")
    way = str(tmp_path)
    run = tmp_path / "run"
    fitted = real(("fit", "liar", *toy_copy.options, "-o", run), way=way)
    assert fitted.returncode == 0, fitted.stderr
    ended = real(augment(toy_copy, run), way=way)
    says = ("samples were rejected", "label value(s) [9]", "gansynth sample RUN --sheet")
    one_line(ended.returncode, ended.stderr, 5, says)
    assert nobody_is_left(toy_copy)


@pytest.mark.slow
def test_a_full_disk_under_the_bank_ends_the_training_before_it_begins(toy_copy, run, one_line):
    ended = real(augment(toy_copy, run), size=60_000)
    one_line(ended.returncode, ended.stderr, 4, ("segment", "cannot be written", "bytes needed"))
    assert nobody_is_left(toy_copy)
