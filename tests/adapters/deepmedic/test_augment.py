"""``gansynth augment --target deepmedic``: real trainings by the command, and how they end."""

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gansynth.hosts.record import FILE
from tests.conftest import content
from tests.deepmedic_sets import Toy
from tests.processes import family, until

REAL, SYNTHETIC = 2, 4
"""Cases of a subepoch of ``shared_deepmedic`` at 1:2; six by its configuration."""


def record_of(output: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((output / FILE).read_text())
    return document


def command(
    data: Toy, run: Path | None, output: Path, *more: object, ratio: str = "1:2", epochs: int = 1
) -> list[str]:
    """``gansynth augment`` as a process of its own."""
    named = () if run is None else ("--generator", run, "--device", "cpu", "--bank-size", 8)
    words = (
        *(sys.executable, "-m", "gansynth_cli", "augment", "--target", "deepmedic"),
        *("--data", f"deepmedic:{data.train}", "--ratio", ratio, *named, "-o", output),
        *(f"--set=epochs={epochs}", "--json", *more),
    )
    return [str(word) for word in words]


def torch_engine(data: Toy) -> tuple[str, ...]:
    """Says that the torch engine trains, with the network of the configuration."""
    return "--engine", "torch", f"--set=model={data.model}", "--set=device=cpu"


def real_program(data: Toy) -> tuple[str, ...]:
    """Says that the checkout trains which the environment names."""
    return "--", "-model", str(data.model), "-dev", "cpu"


def augmented(*asked: Any, **how: Any) -> dict[str, Any]:
    """What ``gansynth augment --json`` said; stderr is shown if it failed."""
    ended = subprocess.run(command(*asked, **how), capture_output=True, text=True, timeout=300)
    assert ended.returncode == 0, ended.stderr
    document: dict[str, Any] = json.loads(ended.stdout)
    return document


def check_results(said: dict[str, Any], output: Path, synthetic: int = SYNTHETIC) -> None:
    """Three subepochs, each exactly at the ratio, all distinct; nobody and no bank is left."""
    document = record_of(output)
    assert document["complete"]
    (session,) = document["sessions"]
    counted = [(one["cases_real"], one["cases_synthetic"]) for one in session["per_subepoch"]]
    real = REAL if synthetic else 4
    assert counted == [(real, synthetic)] * 3
    assert all(one["trained"] for one in session["per_subepoch"])
    segments = {(one["segments_real"], one["segments_synthetic"])
                for one in session["per_subepoch"]}  # fmt: skip
    assert segments == {(10 * real, 10 * synthetic)} if synthetic else {(60, 0)}
    assert (said["drawn_real"], said["drawn_synthetic"]) == (3 * real, 3 * synthetic)
    assert said["fell_back"] == 0
    assert said["metrics_on_real_cases"]["dice"].keys() >= {"1", "2"}
    assert not family(output)
    if synthetic:
        bank = Path(json.loads((output / "gansynth_producer.json").read_text())["bank"])
        assert not bank.exists()


# -- the whole way ---------------------------------------------------------------------------------


def test_the_torch_engine_trains_on_the_fly_by_one_command(shared_deepmedic, crop_run, tmp_path):
    before = content(shared_deepmedic.folder)
    more = torch_engine(shared_deepmedic)
    said = augmented(shared_deepmedic, crop_run, tmp_path / "out", *more)
    check_results(said, tmp_path / "out")
    assert content(shared_deepmedic.folder) == before


@pytest.mark.slow
def test_real_cases_alone_are_trained_on_by_the_same_command(shared_deepmedic, tmp_path):
    more = torch_engine(shared_deepmedic)
    said = augmented(shared_deepmedic, None, tmp_path / "out", *more, ratio="1:0")
    check_results(said, tmp_path / "out", synthetic=0)


@pytest.mark.deepmedic
@pytest.mark.parametrize("processes", [-1, 0, 2])
def test_the_real_program_trains_on_the_fly_by_one_command(
    shared_deepmedic, crop_run, tmp_path, processes
):
    before = content(shared_deepmedic.folder)
    more = (f"--set=processes={processes}", *real_program(shared_deepmedic))
    said = augmented(shared_deepmedic, crop_run, tmp_path / "out", *more)
    check_results(said, tmp_path / "out")
    (session,) = record_of(tmp_path / "out")["sessions"]
    assert session["versions"]["tensorflow"]
    assert list((tmp_path / "out" / "saved_models" / "toy").glob("*.final.*.index"))
    assert content(shared_deepmedic.folder) == before


@pytest.mark.deepmedic
def test_real_cases_in_the_generators_space_train_the_real_program(
    shared_deepmedic, crop_run, tmp_path
):
    more = ("--real-in-generator-space", *real_program(shared_deepmedic))
    said = augmented(shared_deepmedic, crop_run, tmp_path / "out", *more)
    check_results(said, tmp_path / "out")


# -- the end of it ---------------------------------------------------------------------------------


def begin(words: list[str], log: Path, sign: str) -> subprocess.Popen[str]:
    """A training that has come to a certain point."""
    with log.open("w") as stream:
        process = subprocess.Popen(words, stderr=stream, stdout=stream, text=True)
    try:
        until(lambda: sign in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
    except BaseException:
        process.kill()
        process.wait()
        raise
    return process


def long_training(data: Toy, run: Path, tmp_path: Path, engine: str) -> subprocess.Popen[str]:
    more = torch_engine(data) if engine == "torch" else real_program(data)
    words = command(data, run, tmp_path / "out", *more, epochs=500)
    return begin(words, tmp_path / "said", "epoch 1 of 500")


@pytest.fixture(params=["torch", pytest.param("deepmedic", marks=pytest.mark.deepmedic)])
def training(request, shared_deepmedic, crop_run, tmp_path) -> Iterator[subprocess.Popen[str]]:
    """A long training by the command, in its second epoch; its results go to ``tmp_path/out``."""
    process = long_training(shared_deepmedic, crop_run, tmp_path, request.param)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGKILL, -9), (signal.SIGTERM, 143), (signal.SIGINT, 130)],
    ids=["kill", "term", "int"],
)
def test_nobody_and_nothing_is_left_of_a_training_that_is_ended(training, tmp_path, number, code):
    output = tmp_path / "out"
    bank = Path(json.loads((output / "gansynth_producer.json").read_text())["bank"])
    assert bank.exists()
    assert len(family(output)) >= 3
    training.send_signal(number)
    assert training.wait(60) == code
    until(lambda: not family(output), 20)
    until(lambda: not bank.exists(), 20)
    document = record_of(output)
    assert not document["complete"]
    assert document["sessions"][0]["epochs"][1] >= 1


@pytest.mark.slow
@pytest.mark.parametrize(
    "engine", ["torch", pytest.param("deepmedic", marks=pytest.mark.deepmedic)]
)
def test_a_killed_training_is_gone_on_with(shared_deepmedic, crop_run, tmp_path, engine):
    output = tmp_path / "out"
    more = torch_engine(shared_deepmedic)
    if engine == "deepmedic":
        more = real_program(shared_deepmedic)
    words = command(shared_deepmedic, crop_run, output, *more, epochs=4)
    process = begin(words, tmp_path / "said", "epoch 2 of 4")
    process.kill()
    process.wait()
    until(lambda: not family(output), 20)
    augmented(shared_deepmedic, crop_run, output, "--set=resume=yes", *more, epochs=4)
    document = record_of(output)
    assert document["complete"]
    first, second = document["sessions"]
    assert second["epochs"] == [first["epochs"][1], 4]
    numbers = [one["subepoch"] for one in second["per_subepoch"]]
    assert numbers == list(range(3 * first["epochs"][1] + 1, 13))
    for one in second["per_subepoch"]:
        assert (one["cases_real"], one["cases_synthetic"]) == (REAL, SYNTHETIC)
