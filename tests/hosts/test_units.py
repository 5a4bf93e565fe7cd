from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import gansynth
from gansynth.core.lineage import Lineage
from gansynth.core.schema import Sample, Schema
from gansynth.runtime.errors import DataFault
from tests.banks import write_bank

SHAPE = (6, 24, 20)
RNG = np.random.default_rng(0)
GREY, NOISE = RNG.random((8, 1, *SHAPE)), RNG.normal(size=(8, 1, *SHAPE))
BODY = np.where(np.arange(20) < 5, GREY, 0)  # three quarters are background of 0
PAIRS: dict[str, tuple[Any, Any, bool]] = {
    "0 to 1 among 0 to 255": (255 * GREY, GREY, True),
    "0 to 255 among 0 to 1": (GREY, 255 * GREY, True),
    "far apart": (1000 + NOISE, NOISE, True),
    "medians of 0 in the same units": (BODY, 3 * BODY, False),
    "z-scored": (NOISE - 0.1, 1.5 * NOISE + 0.1, False),
    "constant": (np.full_like(GREY, 3), NOISE, False),
    "one-hot, of which one is rare": (GREY < 0.002, GREY < 0.5, False),
}


@pytest.fixture
def bank(tmp_path, samples):
    schema, labels = Schema(("T1",), {"background": 0}, (1.0,) * 3), np.zeros(SHAPE, np.int16)
    pairs: list[Any] = [(Sample(np.asarray(s, np.float32), labels), {}) for s in samples]
    return write_bank(tmp_path / "bank", schema, Lineage("toy", "0", ()), pairs)


def told(draw: Callable[[], Any], bank: Any) -> bool:
    """Whether drawing is refused from some time on, in a line that names the bank."""
    faults = []
    for _ in range(12):
        try:
            draw()
        except DataFault as fault:
            faults.append(str(fault))
    assert all(f.startswith(f"{bank}: channel 0: its samples have the median ") for f in faults)
    assert len(faults) in (0, 9)  # four images of each kind are looked at first
    return bool(faults)


@pytest.mark.parametrize(("real", "samples", "refused"), PAIRS.values(), ids=PAIRS)
def test_data_sets_and_loaders_of_other_units_are_refused(real, samples, refused, bank):
    real = np.asarray(real, np.float32)
    forms: list[Callable[[Any], Any]] = [lambda image: {"image": image, "label": 0}]
    if samples is GREY:
        forms += [lambda image: (image, 0), np.asarray]

    def mixed(form: Callable[[Any], Any]) -> Any:
        items = [form(image) for image in real]
        return gansynth.mix(items, bank, "1:1", as_item=lambda sample: form(sample.image))

    for form in forms:
        assert told(partial(mixed(form).__getitems__, [0, 1]), bank) == refused
    batches = ({"data": real[i : i + 2]} for i in [0, 2, 4, 6] * 4)
    loader = gansynth.mix_batches(batches, bank, "1:1")
    assert told(lambda: next(loader), bank) == refused
