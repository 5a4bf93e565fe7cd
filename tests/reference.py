"""Numbers that must stay as they are, in ``reference.json`` beside the tests that make them.

Samples are replayed from records that older versions wrote. ``GANSYNTH_REFERENCE=add`` writes what
is not there yet, and holds the rest against it. After a change that is meant to change samples
(say so in the changelog), ``GANSYNTH_REFERENCE=write pytest FOLDER -k NAME`` writes them anew.
"""

import json
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch

MODE = os.environ.get("GANSYNTH_REFERENCE")


def summary(value: Any) -> Any:
    """As JSON; of an array its shape, and numbers that tell what is where in it."""
    if isinstance(value, torch.Tensor):
        value = value.detach().numpy()
    if isinstance(value, np.ndarray) and value.size > 8:
        flat = value.astype(np.float64).ravel()
        where = np.random.default_rng(flat.size).permutation(flat.size) / flat.size
        return [
            *value.shape,
            *(round(float(n), 6) for n in (flat.mean(), flat.std(), flat @ where)),
        ]
    if isinstance(value, np.ndarray | np.generic):
        return summary(value.tolist())
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, slice):
        return [value.start, value.stop]
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): summary(one) for key, one in value.items() if one is not None}
    if isinstance(value, list | tuple):
        return [summary(one) for one in value]
    return value


def assert_close(found: Any, known: Any) -> None:
    """The same but for what another processor rounds otherwise."""
    assert type(found) is type(known) or {type(found), type(known)} == {int, float}
    if isinstance(found, dict):
        assert found.keys() == known.keys()
        for key in found:
            assert_close(found[key], known[key])
    elif isinstance(found, list):
        assert len(found) == len(known)
        for one, other in zip(found, known, strict=True):
            assert_close(one, other)
    else:
        exact = known is None or isinstance(known, str)
        assert found == (known if exact else pytest.approx(known, 1e-3, 1e-4))


@pytest.fixture(scope="module")
def unchanged(request: pytest.FixtureRequest) -> Iterator[Callable[[str, Any], None]]:
    """``unchanged(name, value)``: the value is what it was."""
    path = request.path.with_name("reference.json")
    known: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    made: dict[str, Any] = {}

    def check(name: str, value: Any) -> None:
        found = json.loads(json.dumps(summary(value)))
        if MODE == "write" or (MODE == "add" and name not in known):
            made[name] = found
            return
        assert name in known, f"{path} has no {name!r}: GANSYNTH_REFERENCE=add pytest writes it"
        assert_close(found, known[name])

    yield check
    if made:
        known |= made
        lines = [f"{json.dumps(name)}: {json.dumps(known[name])}" for name in sorted(known)]
        path.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
