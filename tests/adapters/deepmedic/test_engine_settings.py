import json
from typing import Any

import pytest

from gansynth.runtime.errors import DataFault, UsageFault
from gansynth_deepmedic.engine.configs import ConfigFile, read_model_config, read_train_config
from gansynth_deepmedic.engine.network import default_model
from gansynth_deepmedic.engine.settings import (
    EngineSettings,
    Losses,
    Optimisation,
    RateSchedule,
    Validation,
    read_settings,
)
from tests.deepmedic_sets import Toy, toy_deepmedic, write_config


@pytest.fixture(scope="module")
def toy(tmp_path_factory) -> Toy:
    return toy_deepmedic(tmp_path_factory.mktemp("toy"), train=1, val=1, shape=(8, 8, 8))


def settings(toy: Toy, given: dict[str, str] | None = None, **values: Any) -> EngineSettings:
    """Read from the phantoms' configuration, with other values of its keys."""
    own, changed = values.pop("model", {}), toy.folder / "changed.cfg"
    model = write_config(toy.folder / "model.cfg", dict(ConfigFile.read(toy.model).values) | own)
    write_config(changed, dict(ConfigFile.read(toy.train).values) | values)
    return read_settings(given or {}, read_train_config(changed), read_model_config(model))


def test_what_a_file_does_not_say_is_as_deepmedic_has_it(toy):
    found = settings(toy)
    assert found.optimisation == Optimisation("rmsprop", 1e-3, 0.6, True, True, 0.9, 1e-4)
    assert (found.optimisation.l1, found.optimisation.l2) == (1e-6, 1e-4)
    assert found.rates == RateSchedule("poly", 1, wait=1 / 3)
    assert found.losses == Losses(1.0, 0.0, 0.0, until=(0.0, 1.0))
    assert found.validation == Validation(samples=True, segments=40, batch=10, volumes=True)
    assert (found.classes, found.channels) == (3, 2)
    assert (found.device, found.precision, found.regions) == ("auto", "auto", ())
    assert settings(toy, layersToFreezeNormal=[], cnnModelFilePath=None) == found
    usual = read_settings({}, read_train_config(toy.train), default_model(5, 2))
    assert (usual.classes, usual.channels) == (5, 2)


PREDEF: dict[str, Any] = {"typeOfLearningRateSchedule": "predef", "predefinedSchedule": [1, 3]}


def test_what_a_file_says_holds(toy):
    found = settings(
        toy,
        **PREDEF,
        sgd0orAdam1orRms2=1,
        epsilonAdam=1e-7,
        momNonNorm0orNormalized1=0,
        losses_and_weights={"xentr": 0.5, "iou": None, "dsc": 2},
        numberOfEpochsBetweenFullInferenceOnValImages=4,
        saveSegmentationVal=False,
    )
    how = found.optimisation
    assert (how.kind, how.eps, how.normalised) == ("adam", 1e-7, False)
    assert found.rates.at == (1.0, 3.0)
    assert (found.losses.xentr, found.losses.iou, found.losses.dsc) == (0.5, 0, 2)
    assert (found.validation.every, found.validation.save) == (4, False)


def test_settings_are_put_over_the_file_and_go_through_json(toy):
    given = {"device": "cpu", "precision": "fp32", "save_predictions": "no"}
    weights = {"type": "per_c", "prms": [1, 2, 3], "schedule": [0, 2]}
    given["regions"] = " WT:1+2, core:2"
    found = settings(toy, given, **PREDEF, reweight_classes_in_cost=weights)
    assert (found.device, found.precision, found.validation.save) == ("cpu", "fp32", False)
    assert found.regions == (("WT", (1, 2)), ("core", (2,)))
    assert EngineSettings.from_json(json.loads(json.dumps(found.to_json()))) == found


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"devise": "cpu"}, "Did you mean 'device'"),
        ({"device": "gpu"}, "device=gpu: expected auto, cpu, cuda"),
        ({"precision": "fp16"}, "precision=fp16: expected 'auto', 'bf16' or 'fp32'"),
        ({"save_predictions": "maybe"}, "save_predictions=maybe: expected yes or no"),
        ({"regions": "WT:1+3"}, "'1+3'; expected numbers from 1 to 2"),
        ({"regions": "WT:1,WT:2"}, "each once"),
        ({"regions": "foreground:1"}, "'foreground'; expected names of your own"),
        ({"regions": "1+2"}, "expected names of your own|has the labels"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused(toy, given, says):
    with pytest.raises(UsageFault, match=says.replace("+", r"\+")):
        settings(toy, given)


WEIGHTS = "reweight_classes_in_cost"


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"learningRate": "fast"}, "learningRate is 'fast', expected a number"),
        ({"sgd0orAdam1orRms2": 3}, "expected 0, 1 or 2"),
        ({"momentumValue": 1.5}, "momentumValue is 1.5, expected less than or equal to 1"),
        ({"classicMom0OrNesterov1": 2}, "expected 0 or 1"),
        ({"numEpochsToWaitBeforeLoweringLr": 1}, "expected less than the 1 epochs"),
        ({**PREDEF, "predefinedSchedule": [3, 1]}, "rising order"),
        ({"typeOfLearningRateSchedule": "expon", "paramsForExpSchedForLrAndMom": [0.1]},
         "expected a value more"),
        ({"losses_and_weights": {"xentr": None}}, "at least one loss"),
        ({"losses_and_weights": {"focal": 1}}, "of xentr, iou and dsc"),
        ({WEIGHTS: {"type": "per_c", "prms": [1], "schedule": [0, 2]}}, "3 numbers as 'prms'"),
        ({WEIGHTS: {"type": "freq", "schedule": [2, 2]}}, "'schedule' as"),
        ({"layersToFreezeNormal": [1]}, "layersToFreezeNormal = .*does not support"),
        ({"batchsize_val_samples": 0}, "expected greater than or equal to 1"),
        ({"saveSegmentationVal": 1}, "expected True or False"),
        ({"model": {"lowerRankLayersNormal": [2]}}, "lowerRankLayersNormal = .*does not support"),
        ({"model": {"padTypePerLayerNormal": ["mirror", "VALID", "VALID"]}},
         "padTypePerLayerNormal"),
        ({"model": {"kernelDimPerLayerNormal": [[2, 2, 2], [3, 3, 3], [3, 3, 3]]}},
         "kernels of odd size"),
    ],
)  # fmt: skip
def test_a_key_that_does_not_fit_is_refused(toy, values, says):
    file = "model" if "model" in values else "changed"
    with pytest.raises(DataFault, match=rf"{toy.folder}/{file}\.cfg.*({says})"):
        settings(toy, **values)
