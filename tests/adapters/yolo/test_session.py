import json
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from gansynth.core.bank_options import BankSize
from gansynth.core.mix_config import MixConfig
from gansynth.core.ratio import Ratio
from gansynth.core.source import lineage_of
from gansynth.hosts.record import FILE, training_result_of
from gansynth.runtime.child import SHOWN, SHOWS
from gansynth.runtime.files import read_json
from gansynth_yolo.config import YoloChoices, YoloConfig
from gansynth_yolo.session import YoloSession
from gansynth_yolo.source import YoloSource
from tests.adapters.yolo.banks import fill_bank
from tests.yolo_sets import opened as opened_source

EPOCHS = 3
REAL = 16
"""Training images of ``shared_yolo``."""


@pytest.fixture
def source(shared_yolo) -> YoloSource:
    return opened_source(shared_yolo)


@pytest.fixture
def config(source, tmp_path) -> YoloConfig:
    """Real images only; tests change what they need."""
    (tmp_path / "out").mkdir()
    choices = YoloChoices(epochs=EPOCHS, imgsz=64, batch=8, device="cpu")
    mix_config = MixConfig(None, Ratio(1, 0), device="cpu", size=BankSize(samples=8))
    return YoloConfig(mix_config, choices, source.request.to_json(), tmp_path / "out")


@pytest.fixture
def banked(config, source, tmp_path) -> YoloConfig:
    """One synthetic image for each real one, of a bank of six."""
    box = np.array([[4, 4, 20, 20]], np.float32)
    drawn = [(np.full((1, 32, 32), n / 8, np.float32), box) for n in range(6)]
    bank = fill_bank(tmp_path / "bank", drawn, schema=source.schema, seen=lineage_of(source))
    return mixing(config, bank=bank, ratio=Ratio(1, 1))


def mixing(config: YoloConfig, **changes: Any) -> YoloConfig:
    return replace(config, mix_config=replace(config.mix_config, **changes))


@pytest.fixture
def opened(source, monkeypatch) -> Iterator[Callable[..., YoloSession]]:
    """Opens sessions; what a test leaves open is closed. ``session.said`` is what they said."""
    sessions: list[YoloSession] = []

    def make(config: YoloConfig) -> YoloSession:
        said: list[str] = []
        monkeypatch.setattr(YoloSession, "note", lambda self, text: said.append(text))
        session = YoloSession(config, source, config.job(source))
        session.said = said  # type: ignore[attr-defined]
        sessions.append(session)
        return session

    yield make
    for session in sessions:
        session.close()


def go_through(session: YoloSession, epochs: int = EPOCHS, first: int = 0) -> None:
    """What a detector does, but for learning: every place once an epoch, with three partners."""
    for epoch in range(first, epochs):
        for index in range(len(session.slots)):
            begin = time.monotonic()
            session.slots.primary(index)
            for step in (1, 7, 13):
                session.slots.partner((index + step) % len(session.slots))
            session.step(begin, time.monotonic())
        session.epoch(epoch + 1, {"train/loss": 1.0, "metrics/mAP50(B)": 0.5, "speed": 3.0})
    if epochs == EPOCHS:
        session.close(complete=True)


def test_every_epoch_is_counted_and_told_of_and_the_primary_ratio_is_exact(opened, banked):
    session = opened(banked)
    go_through(session)
    document = read_json(banked.output / FILE)
    (last,) = document["sessions"]
    assert document["complete"]
    assert last["epochs"] == [0, EPOCHS]
    drawn = [(e["epoch"], e["real"], e["synthetic"], e["fell_back"]) for e in last["per_epoch"]]
    assert drawn == [(n + 1, REAL, REAL, 0) for n in range(EPOCHS)]
    settled = [(one["places_real"], one["places_synthetic"]) for one in last["per_epoch"]]
    assert settled == [(REAL, REAL)] * EPOCHS
    partners = last["per_epoch"][0]
    assert partners["partners_real"] + partners["partners_synthetic"] == 3 * 2 * REAL
    assert 0 < partners["partners_synthetic"] < 3 * 2 * REAL
    assert last["partners"]["real"] + last["partners"]["synthetic"] == EPOCHS * 3 * 2 * REAL
    assert last["drawn"]["realised"] == last["asked"] == 0.5
    assert last["bank"].startswith("existing, SHA-256 ")
    assert last["generator"]["bank_sha256"] in last["bank"]
    assert len(last["lineage"]["cases"]) == REAL
    result = training_result_of([last], banked.output, {"map_50": 0.25})
    assert (result.drawn_real, result.drawn_synthetic) == (EPOCHS * REAL, EPOCHS * REAL)
    assert (result.asked, result.fell_back, result.metrics) == (0.5, 0, {"map_50": 0.25})
    said = "\n".join(session.said)
    for words in (
        "epoch 1 of 3 had places for 16 real and 16 synthetic images",
        "drawn meanwhile: 16 real, 16 synthetic, with",
        "partners in mosaics",
        "16 of 32 samples drawn were synthetic (50.0%, asked 50.0%)",
        "train/loss 1, mAP50 0.5",
    ):
        assert words in said
    assert "speed" not in said


def test_the_parent_process_is_told_of_epochs_losses_and_the_share_drawn(
    opened, banked, monkeypatch, capfd
):
    monkeypatch.setenv(SHOWS, "1")
    go_through(opened(banked))
    sent = [line.partition(SHOWN)[2] for line in capfd.readouterr().err.splitlines()]
    first, *_, last = [message for text in sent if "done" in (message := json.loads(text))]
    assert 0 < first["done"] < 1
    assert first["total"] == last["total"] == last["done"] == EPOCHS
    assert (last["synthetic"], last["loss"], last["mAP50"]) == ("50%", 1.0, 0.5)


def test_a_training_that_is_continued_adds_a_session(opened, config):
    first = opened(config)
    go_through(first, 1)
    first.close()
    second = opened(config)
    go_through(second, first=1)
    document = read_json(config.output / FILE)
    assert [one["epochs"] for one in document["sessions"]] == [[0, 1], [1, EPOCHS]]
    assert training_result_of(document["sessions"], config.output, {}).drawn_real == EPOCHS * REAL
