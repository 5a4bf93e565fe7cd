"""Trainings that were killed, whose checkpoint is damaged, or whose generator is replaced."""

import json
import shutil

import numpy as np
import pytest

from gansynth.bank.producer import ProducerConfig, run_producer
from gansynth.bank.reader import BankReader
from gansynth.hosts.contract.record import TrainingFolder, training_in
from tests.adapters.kits import kit_of, read_all
from tests.test_bad_input import flip_a_bit


@pytest.fixture
def segmenter(request, tmp_path):
    return kit_of("segmenter", tmp_path / "kit", request.getfixturevalue)


@pytest.mark.fault(29)
def test_half_a_prediction_of_a_killed_training_is_removed_by_the_next(tmp_path):
    left, kept = tmp_path / "predictions" / ".a.nii.gz.tmp-7", tmp_path / "predictions" / "a.nii.gz"
    left.parent.mkdir()
    left.touch()
    kept.touch()
    with training_in(lambda: TrainingFolder(tmp_path, 0, 1)):
        assert (left.exists(), kept.exists()) == (False, True)


@pytest.mark.fault(25)
def test_a_damaged_checkpoint_of_the_segmenter_is_passed_over_and_that_is_said(
    segmenter, run_cli, monkeypatch
):
    words = segmenter.training(segmenter.bank(), epochs=4)
    with monkeypatch.context() as cutting:
        segmenter.cut(cutting)
        assert [run_cli(*words).exit_code for _ in range(2)] == [143, 143]
    newest = max((segmenter.output / "checkpoints").glob("step-*"))
    flip_a_bit(newest / "tensors.safetensors")
    result = run_cli(*words)
    assert (result.exit_code, segmenter.sessions()[-1]["complete"]) == (0, True)
    assert f"{newest.name}: " in result.stderr


@pytest.fixture
def config(segmenter, tmp_path) -> ProducerConfig:
    """Of a bank of four samples that is drawn one by one from a copy of the run."""
    run = shutil.copytree(segmenter.run, tmp_path / "run")
    return ProducerConfig(
        run=str(run),
        request=segmenter.request.to_json(),
        target=segmenter.host,
        bank=str(tmp_path / "bank"),
        frozen=True,
        capacity=4,
        batch=1,
        device="cpu",
    )


def replaced(run: str) -> None:
    """Put another run there."""
    path = f"{run}/manifest.json"
    with open(path, encoding="utf-8") as stream:
        document = json.load(stream)
    shutil.rmtree(f"{run}/checkpoints")
    with open(path, "w", encoding="utf-8") as stream:
        json.dump({**document, "run_id": "another"}, stream)


@pytest.mark.fault(41)
def test_a_generator_that_is_replaced_while_it_draws_goes_on_with_its_weights(
    config, segmenter, monkeypatch
):
    monkeypatch.setattr("os.nice", lambda by: 0)
    asked: list[int] = []

    def stop() -> bool:
        asked.append(BankReader(config.bank).count())
        if asked.count(1) == 1 and asked[-1] == 1:
            replaced(config.run)
        return False

    run_producer(config, stop)
    expected = read_all(segmenter.filled())
    drawn = [sample.image for _, sample in sorted(read_all(config.bank).items())]
    assert len(drawn) == 4
    for one, two in zip(drawn, (s.image for _, s in sorted(expected.items())), strict=True):
        assert np.array_equal(one, two)
