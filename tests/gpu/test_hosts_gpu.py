"""The frameworks that are trained on samples, and the producer, on the device."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import gansynth
from gansynth.bank.reader import BankReader
from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.progress import NullReporter
from tests.adapters.kits import command, in_this_process, kit_of
from tests.adapters.yolo.detector_child import needs
from tests.gpu.test_processes_gpu import start

TINY = {"steps": "1", "batch_size": "1", "width": "4", "levels": "2", "d_width": "4"}


def trained_on(device: object, words: Sequence[str]) -> list[str]:
    """A kit's command, with another device for the training."""
    return [word.replace("device=cpu", f"device={device}") for word in words]


@pytest.mark.parametrize(
    ("host", "on"), [("nnunet", "device"), ("segmenter", "device"), ("segmenter", "second")]
)
def test_a_framework_trains_on_samples(request, tmp_path, monkeypatch, host, on):
    device = request.getfixturevalue(on)
    kit = kit_of(host, tmp_path, request.getfixturevalue)
    in_this_process(monkeypatch)
    bank = kit.filled(device=str(device))
    where = ("--", "-device", device.type) if host == "nnunet" else ()
    result = command(*trained_on(device, kit.training(bank, "--json", *where)))
    assert result.exit_code == 0, result.output
    said = json.loads(result.stdout)
    assert said["drawn_real"] == said["drawn_synthetic"] > 0


@needs("libreyolo")
def test_a_detector_trains_on_samples(device, request, tmp_path):
    kit = kit_of("yolo", tmp_path, request.getfixturevalue)
    words = kit.words(*kit.where, "--bank", kit.filled(device=str(device)), *kit.lasting(1))
    done = start("-m", "gansynth_cli", *trained_on(device, words), "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["drawn_synthetic"] > 0


def test_a_producer_of_its_own_draws_on_the_device(device, tmp_path):
    how: dict[str, Any] = {"edits": ("flip",), "device": "cpu", "reporter": NullReporter()}
    fit("cgan3d", SourceRequest("example", "2d"), tmp_path / "run", settings=TINY, **how)
    bank = gansynth.fill_bank(tmp_path / "run", tmp_path / "bank", samples=3, device=str(device))
    reader = BankReader(bank)
    assert len(reader.ids()) == 3
    assert all(np.isfinite(reader.read(name).image).all() for name in reader.ids())
