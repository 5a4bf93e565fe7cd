"""Trainings of the torch engine on the phantoms, without a session around them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from gansynth.core.mix_config import MixerConfig
from gansynth.core.ratio import Ratio
from gansynth_deepmedic.engine.configs import read_model_config, read_train_config
from gansynth_deepmedic.engine.infer import host_case
from gansynth_deepmedic.engine.settings import read_settings
from gansynth_deepmedic.engine.train import TorchTraining, TrainingTask
from gansynth_deepmedic.training_order import ORDER, PROGRESS, TrainingOrder
from tests.deepmedic_sets import Toy, toy_deepmedic


def order_of(
    toy: Toy, output: Path, settings: Mapping[str, str] | None = None, **changes: Any
) -> TrainingOrder:
    """A training on real cases only, on one CPU thread, in full precision unless told otherwise."""
    config, model = read_train_config(toy.train), read_model_config(toy.model)
    chosen = {"device": "cpu", "precision": "fp32", **(settings or {})}
    cases = (host_case(listed, f"pat_{number:02d}") for number, listed in enumerate(config.train))
    output.mkdir(parents=True, exist_ok=True)
    plain: dict[str, Any] = {
        "engine": "torch",
        "output": output,
        "train_config": toy.train,
        "model_config": toy.model,
        "plan": MixerConfig(None, Ratio(1, 0)),
        "cases": tuple(cases),
        "count": config.cases,
        "subepochs": config.subepochs,
        "options": read_settings(chosen, config, model).to_json(),
    }
    return TrainingOrder(**{**plain, **changes})


SMALL: dict[str, Any] = {
    "numberTrainingSegmentsLoadedOnGpuPerSubep": 12,
    "numOfCasesLoadedPerSubepoch": 4,
    "batchsize_train": 4,
    "numberValidationSegmentsLoadedOnGpuPerSubep": 6,
    "numberOfSubepochs": 2,
    "numberOfEpochs": 3,
    "numberOfEpochsBetweenFullInferenceOnValImages": 3,
    "num_processes_sampling": 0,
}
CLOSE = {"segmentsDimTrain": [11, 11, 11], "segmentsDimVal": [11, 11, 11]}


def small_toy(folder: Path, val: int = 1, **values: Any) -> Toy:
    """Phantoms that are trained on in no time, with other values of the configuration."""
    model = {**CLOSE, "numberFMsPerLayerNormal": [3, 3, 4]}
    values = {**SMALL, **values}
    return toy_deepmedic(folder, train=3, val=val, shape=(22, 20, 18), values=values, model=model)


def train(order: TrainingOrder, said: list[str] | None = None) -> dict[str, Any]:
    return dict(
        TorchTraining(TrainingTask.of(order), (said if said is not None else []).append).run()
    )


def lines(output: Path) -> list[dict[str, Any]]:
    """Everything that a training told."""
    return [json.loads(line) for line in (output / PROGRESS).read_text().splitlines()]


def told(output: Path, kind: str) -> list[Any]:
    """Everything of a kind that a training told."""
    return [line[kind] for line in lines(output) if kind in line]


def weights(output: Path, done: int) -> dict[str, torch.Tensor]:
    """All of the checkpoint of so many epochs."""
    for path in (output / "checkpoints").glob("*/tensors.safetensors"):
        found: dict[str, torch.Tensor] = load_file(path)
        if found["memory/rates/done"] == done:
            return found
    raise AssertionError(f"{output}: no checkpoint of {done} epochs")


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [key for key in one if not torch.equal(one[key], two[key])] == []


def written(order: TrainingOrder) -> Path:
    path = order.output / ORDER
    path.write_text(json.dumps(order.to_json()))
    return path
