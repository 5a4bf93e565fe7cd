"""Which device the producer gets beside a training."""

import pytest
import torch

from gansynth.runtime.devices import producer_device
from gansynth.runtime.errors import EnvironmentFault, UsageFault


@pytest.mark.parametrize(
    ("there", "training", "device"),
    [
        (0, (), "cpu"),
        (1, (0,), "cuda:0"),
        (1, (), "cuda:0"),
        (2, (0,), "cuda:1"),
        (2, (1,), "cuda:0"),
        (4, (0, 1), "cuda:2"),
        (2, (1, 0), "cuda:1"),
    ],
)
def test_auto_is_a_device_the_training_leaves_free_if_there_is_one(
    monkeypatch, there, training, device
):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: there)
    assert producer_device("auto", training) == device


@pytest.mark.parametrize(
    ("asked", "device"), [("cpu", "cpu"), ("cuda", "cuda:0"), ("cuda:1", "cuda:1")]
)
def test_a_device_that_is_asked_for_is_taken(monkeypatch, asked, device):
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert producer_device(asked, (0,)) == device


@pytest.mark.parametrize(
    ("asked", "fault", "words"),
    [
        ("gpu", UsageFault, "expected auto, cpu, cuda"),
        ("cuda:9", EnvironmentFault, "cuda:9: this machine shows 2"),
    ],
)
def test_a_device_that_cannot_be_is_refused(monkeypatch, asked, fault, words):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(fault, match=words):
        producer_device(asked, (0,))
