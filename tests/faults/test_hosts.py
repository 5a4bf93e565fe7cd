"""Rows 40 and 41: a training beside a generator that hangs, or is replaced."""

import json
import shutil
import time
from dataclasses import replace

import numpy as np
import pytest

from gansynth.bank.producer import ProducerConfig, open_bank, run_producer
from gansynth.bank.reader import BankReader
from gansynth.core.ratio import Ratio
from gansynth.hosts.mixer import Mixer, MixerConfig
from gansynth.hosts.record import TrainingFolder, training_in
from tests.adapters.kits import kit_of, read_all
from tests.expected import raises_fault


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
    spoilt = bytearray((newest / "tensors.safetensors").read_bytes())
    spoilt[-1] ^= 1
    (newest / "tensors.safetensors").write_bytes(spoilt)
    result = run_cli(*words)
    assert (result.exit_code, segmenter.sessions()[-1]["complete"]) == (0, True)
    assert f"{newest.name}: " in result.stderr


@pytest.mark.fault(40)
def test_beside_a_generator_that_hangs_no_batch_waits(toy_bank, tmp_path):
    plan = {"log": tmp_path / "draws", "sample_timeout": 1000.0}
    mixer = Mixer(MixerConfig(toy_bank(samples=0, frozen=False), Ratio(1, 1), **plan))
    begun = time.monotonic()
    for _ in range(20):
        assert all(slot.sample is None for slot in mixer.batch(range(4)))
    assert time.monotonic() - begun < 60


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


@pytest.mark.fault(41)
def test_a_producer_that_is_started_again_refuses_the_generator_put_there(config, monkeypatch):
    monkeypatch.setattr("os.nice", lambda by: 0)
    left = iter(range(3))
    run_producer(config, lambda: next(left, None) is None)
    spec = BankReader(config.bank).spec
    with raises_fault("bank.made-with-other-options"):
        open_bank(BankReader(config.bank).folder, replace(spec, generator="f" * 64))
    assert BankReader(config.bank).count() > 0
