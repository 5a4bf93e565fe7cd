"""Orders for the torch engine on the phantoms, without a session around it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gansynth.mixing import MixPlan
from gansynth.ratio import Ratio
from gansynth_deepmedic.configs import read_model_config, read_train_config
from gansynth_deepmedic.engine.infer import host_case
from gansynth_deepmedic.engine.settings import read_settings
from gansynth_deepmedic.order import Order
from tests.deepmedic_sets import Toy


def order_of(
    toy: Toy, output: Path, settings: Mapping[str, str] | None = None, **changes: Any
) -> Order:
    """A training on real cases only, on one CPU thread, in full precision unless told otherwise."""
    config, model = read_train_config(toy.train), read_model_config(toy.model)
    chosen = {"device": "cpu", "precision": "fp32", **(settings or {})}
    cases = tuple(
        host_case(listed, f"pat_{number:02d}") for number, listed in enumerate(config.train)
    )
    output.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = {
        "engine": "torch",
        "output": output,
        "train_config": toy.train,
        "model_config": toy.model,
        "plan": MixPlan(None, Ratio(1, 0)),
        "cases": cases,
        "count": config.cases,
        "subepochs": config.subepochs,
        "options": read_settings(chosen, config, model).to_json(),
    }
    return Order(**{**plain, **changes})
