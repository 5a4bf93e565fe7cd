from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import gansynth
from gansynth.bank.reader import BankReader, verify_bank
from gansynth.core.sample_request import SampleRequest
from gansynth.core.source import SourceRequest
from gansynth.fitting.fit import fit
from gansynth.runtime.errors import UsageFault
from gansynth.runtime.files import read_json
from gansynth.runtime.progress import NullReporter
from tests.expected import raises_fault
from tests.processes import until
from tests.producers import gone

TINY = {"steps": "1", "batch_size": "1", "width": "4", "levels": "2", "d_width": "4"}


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    folder: Path = tmp_path_factory.mktemp("own") / "run"
    how: dict[str, Any] = {"edits": ("flip",), "device": "cpu", "reporter": NullReporter()}
    fit("cgan3d", SourceRequest("example", "2d"), folder, settings=TINY, **how)
    return folder


def test_a_folder_that_is_no_run_is_refused_at_once(tmp_path):
    with raises_fault("run-folder.no-manifest"):
        gansynth.fill_bank(tmp_path, tmp_path / "bank")
    with raises_fault("run-folder.no-manifest"):
        gansynth.live_bank(tmp_path, scratch=tmp_path).__enter__()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_frozen_bank_is_complete_and_mixed_into_a_data_set(run, tmp_path):
    told: dict[str, Any] = {"samples": 6, "device": "cpu"}
    request = SampleRequest(edits=("elastic",))
    bank = gansynth.fill_bank(run, tmp_path / "banks" / "one", request=request, **told)
    assert verify_bank(bank) == 6
    assert BankReader(bank).spec.samples.edits == ("elastic",)
    mixed = gansynth.mix([None] * 4, bank, "0:1", held_out=["example_15"])
    image = mixed[0]["image"]
    assert tuple(image.shape) == (2, 32, 32)
    assert np.isfinite(image.numpy()).all()
    assert mixed.spec is not None
    assert len(mixed.spec.lineage.cases) == 12
    with pytest.raises(UsageFault, match="other seed"):
        gansynth.fill_bank(run, bank, request=replace(request, seed=1), **told)


@pytest.mark.slow
def test_the_page_s_banks_are_filled_as_it_says(run, example, tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "g0").symlink_to(run)
    monkeypatch.chdir(tmp_path)
    names = example("banks", ("samples=256", "samples=4"), gansynth=gansynth)
    assert verify_bank(tmp_path / "banks" / "g0") == 4
    assert not names["bank"].exists()


@pytest.mark.slow
def test_a_live_bank_is_fresh_while_the_block_lasts_and_leaves_nothing(run, tmp_path):
    banks = tmp_path / "banks"
    with (
        pytest.raises(UsageFault, match=r"duty=2\.0: expected at most 1"),
        gansynth.live_bank(run, device="cpu", duty=2.0, scratch=banks),
    ):
        raise AssertionError
    assert not banks.exists()
    with gansynth.live_bank(run, 4, device="cpu", duty=1.0, scratch=banks) as bank:
        mixed = gansynth.mix([None] * 4, bank, "0:1")
        first = set(BankReader(bank).ids())
        assert tuple(mixed[0]["image"].shape) == (2, 32, 32)
        until(lambda: not first & set(BankReader(bank).ids()))
        producer = psutil.Process(read_json(bank / "heartbeat.json")["pid"])
    until(lambda: gone(producer))
    assert list(banks.iterdir()) == []
