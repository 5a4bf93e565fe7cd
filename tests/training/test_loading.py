import threading
from functools import partial
from typing import Any

import pytest
import torch

from gansynth.core.generator import Batch
from gansynth.training.loading import BatchLoader


def note(read: list[int]) -> list[Batch]:
    read.append(1)
    return []


def test_nothing_is_read_after_a_failure():
    begun, read = threading.Event(), list[int]()

    def fail() -> Any:
        begun.wait(10)
        raise OSError("disk")

    with BatchLoader(torch.device("cpu")) as loader:
        waiting = [loader.read(fail), loader.read(partial(note, read))]
        begun.set()
        for loaded in waiting:
            with pytest.raises(OSError, match="disk"):
                loader.wait(loaded)
    assert read == []


def test_what_has_not_begun_is_not_read_at_the_end():
    begun, go, read = threading.Event(), threading.Event(), list[int]()

    def slow() -> list[Batch]:
        begun.set()
        go.wait(10)
        return [Batch(torch.zeros(1, 1, 2, 2))]

    with BatchLoader(torch.device("cpu")) as loader:
        loader.read(slow)
        loader.read(partial(note, read))
        begun.wait(10)
        threading.Timer(0.05, go.set).start()
    assert read == []
