"""Run by DeepMedic's own Python: its network, losses, optimisers and schedules in numbers.

``PYTHONPATH=CHECKOUT PYTHON real_network.py > reference/network.json`` (commit e10ba7c) writes what
``test_network.py`` compares the torch engine with; modelConfig.cfg files that are named have their
parameters counted, on stderr. Weights and inputs are not stored: both sides
draw them from the same seed, in the same order (``given``), and of every parameter after training
one number is kept, its product with random numbers.
"""

# mypy: ignore-errors
# It is run where gansynth and its tools are not.

import json
import math
import os
import sys
import tempfile
from typing import Any

import numpy as np

# There is no case of the schedule "auto": building it fails on every TensorFlow 2 (an int32 is
# assigned to an int64).
EPOCHS = 9
BATCH, CHANNELS, CLASSES, SEGMENT, OUTPUT = 2, 2, 3, 13, 7
MODEL = {
    "modelName": "tiny",
    "folderForOutput": "./output",
    "numberOfOutputClasses": CLASSES,
    "numberOfInputChannels": CHANNELS,
    "numberFMsPerLayerNormal": [2, 3, 4],
    "kernelDimPerLayerNormal": [[3, 3, 3]] * 3,
    "layersWithResidualConnNormal": [3],
    "useSubsampledPathway": True,
    "numberFMsPerLayerSubsampled": [[2, 2, 3], [3, 2, 2]],
    "subsampleFactor": [[3, 3, 3], [1, 2, 3]],
    "numberFMsPerLayerFC": [5, 6],
    "kernelDimPerLayerFC": [[3, 3, 3], [1, 1, 1], [1, 1, 1]],
    "padTypePerLayerFC": ["mirror", None, None],
    "layersWithResidualConnFC": [2],
    "segmentsDimTrain": [SEGMENT] * 3,
    "dropoutRatesFc": [0.0, 0.0, 0.0],
    "rollAverageForBNOverThatManyBatches": 2,
}
LOW = [[9, 9, 9], [13, 10, 9]]
SCHEDULE = "typeOfLearningRateSchedule"
TRAIN = {
    "learningRate": 0.01,
    "L1_reg": 1e-3,
    "L2_reg": 1e-2,
    "numberOfEpochs": EPOCHS,
    "numEpochsToWaitBeforeLoweringLr": 3,
    SCHEDULE: "poly",
}
CLASSIC = {
    "classicMom0OrNesterov1": 0,
    "momNonNorm0orNormalized1": 0,
    "losses_and_weights": {"xentr": None, "iou": 1.0, "dsc": 0.5},
    SCHEDULE: "expon",
    "paramsForExpSchedForLrAndMom": [0.001, 0.6],
}
ADAM = {
    "sgd0orAdam1orRms2": 1,
    "epsilonAdam": 1e-4,  # gradients that are nothing but rounding must not count
    "reweight_classes_in_cost": {"type": "freq", "prms": None, "schedule": [0, 7]},
    SCHEDULE: "predef",
    "predefinedSchedule": [2, 5, 6],
}
SGD = {
    "sgd0orAdam1orRms2": 0,
    "reweight_classes_in_cost": {"type": "per_c", "prms": [0.5, 2.0, 3.0], "schedule": [0, 4]},
    SCHEDULE: "stable",
}
ROLLING, ACTIVATION = "rollAverageForBNOverThatManyBatches", "activationFunction"
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "rmsprop": ({}, {}),
    "rmsprop, classic": ({ROLLING: 0, ACTIVATION: "relu"}, CLASSIC),
    "adam": ({ACTIVATION: "elu"}, ADAM),
    "sgd": ({ACTIVATION: "linear"}, SGD),
    "dropout": ({"dropoutRatesFc": [0.25, 0.5, 0.5]}, {}),
}
STEPS = {"dropout": 0}
"""Steps of training, 3 if not named: what is dropped is random, so that case is applied only."""


def given(shapes):
    """Inputs (x, low, labels) and first values of parameters of these shapes."""
    rng = np.random.default_rng(7)
    x = rng.normal(0, 1, (BATCH, CHANNELS, *[SEGMENT] * 3))
    low = [rng.normal(0, 1, (BATCH, CHANNELS, *size)) for size in LOW]
    labels, values = rng.integers(0, CLASSES, (BATCH, *[OUTPUT] * 3)), []
    for shape in shapes:
        if len(shape) == 1:
            values.append(rng.uniform(0.1, 0.9, shape))
        else:
            values.append(rng.normal(0, math.sqrt(2 / math.prod(shape[1:])), shape))
    as_floats = [np.asarray(array, np.float32) for array in (x, *low, *values)]
    return as_floats[0], as_floats[1 : 1 + len(low)], labels, as_floats[1 + len(low) :]


def products(values):
    """One number of each parameter."""
    rng = np.random.default_rng(8)
    return [float((value * rng.normal(0, 1, value.shape)).sum()) for value in values]


def summary(probabilities):
    """Probabilities (B, classes, X, Y, Z) in a few numbers."""
    return products(list(np.asarray(probabilities, np.float64).reshape(-1, CLASSES, OUTPUT**3)))


def main():
    """Print the document."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"], os.environ["CUDA_VISIBLE_DEVICES"] = "3", ""
    out, sys.stdout = sys.stdout, sys.stderr
    document = {name: _case(name, *changes) for name, changes in CASES.items()}
    json.dump({"cases": document}, out, indent=1)
    for name in sys.argv[1:]:
        print(name, _count(name), "parameters")


class _Log:
    def print3(self, *_):
        pass


def _net(path):
    from deepmedic.frontEnd.configParsing.modelConfig import ModelConfig
    from deepmedic.frontEnd.configParsing.modelParams import ModelParameters
    from deepmedic.neuralnet.cnn3d import Cnn3d

    net = Cnn3d()
    net.make_cnn_model(*ModelParameters(_Log(), ModelConfig(path)).get_args_for_arch())
    return net


def _trained(net):
    from deepmedic.neuralnet.pathwayTypes import PathwayTypes as Kind

    return net.get_trainable_params(_Log(), {Kind.NORM: [], Kind.SUBS: [], Kind.FC: []})


def _count(path):
    import tensorflow as tf

    with tf.Graph().as_default():
        return sum(math.prod(v.shape.as_list()) for v in _trained(_net(path)))


def _written(folder, name, values):
    path = os.path.join(folder, name)
    with open(path, "w") as file:
        file.writelines(f"{key} = {value!r}\n" for key, value in values.items())
    return path


def _case(name, model, train):
    import tensorflow as tf
    from deepmedic.frontEnd.configParsing.trainConfig import TrainConfig
    from deepmedic.frontEnd.configParsing.trainSessionParams import TrainSessionParameters
    from deepmedic.neuralnet.trainer import Trainer

    with tempfile.TemporaryDirectory() as folder, tf.Graph().as_default():
        empty = _written(folder, "list.cfg", {})
        lists = {"folderForOutput": "./output", "batchsize_train": BATCH}
        for part in ("Training", "Validation"):
            lists |= {f"channels{part}": [empty] * CHANNELS, f"gtLabels{part}": empty}
        net = _net(_written(folder, "model.cfg", {**MODEL, **model}))
        cfg = TrainConfig(_written(folder, "train.cfg", {**lists, **TRAIN, **train}))
        params = TrainSessionParameters(_Log(), folder, folder, folder, folder, CLASSES, "m", cfg)
        feed, _ = net.create_inp_plchldrs([SEGMENT] * 3, "train")
        trained = net.apply(feed, "train", "train", verbose=False, log=_Log())
        applied = net.apply(feed, "infer", "test", verbose=False, log=_Log())
        own = tf.compat.v1.global_variables()
        trainer = Trainer(*params.get_args_for_trainer(), net)
        trainer.compute_costs(_Log(), trained)
        trainer.create_optimizer(*params.get_args_for_optimizer())
        updates = (trainer.get_total_cost(), trainer.get_param_updates_wrt_total_cost())
        net.setup_ops_n_feeds_to_train(_Log(), feed, trained, *updates)
        return _run(net, own, trainer, applied, STEPS.get(name, 3))


def _run(net, own, trainer, applied, steps):
    import tensorflow as tf

    variables = _trained(net)
    shapes = [v.shape.as_list() for v in variables]
    x, low, labels, values = given(shapes)
    feeds, ops = net.get_main_feeds("train"), net.get_main_ops("train")
    fed = {feeds["x"]: x, feeds["y_gt"]: labels}
    fed.update({feeds[f"x_sub_{number}"]: part for number, part in enumerate(low)})
    with tf.compat.v1.Session() as session:
        # The optimiser's variables are made from the network's.
        later = [v for v in tf.compat.v1.global_variables() if all(v is not o for o in own)]
        for part in (own, later):
            session.run(tf.compat.v1.variables_initializer(part))
        for variable, value in zip(variables, values, strict=True):
            variable.load(value, session)
        found = {"shapes": shapes, "before": summary(session.run(applied, fed)), "costs": []}
        for _ in range(steps):
            cost, _ = session.run([ops["cost"], ops["updates_grouped_op"]], fed)
            net.update_arrays_of_bn_moving_avg(session)
            found["costs"].append(float(cost))
        found["after"] = summary(session.run(applied, fed))
        found["products"] = products(session.run(variables))
        found["rates"] = []
        for _ in range(EPOCHS):
            found["rates"].append(float(session.run(trainer._curr_lr)))
            trainer.run_updates_end_of_ep(_Log(), session, None)
    return found


if __name__ == "__main__":
    main()
