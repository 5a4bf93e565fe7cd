# mypy: disallow-untyped-calls=False
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gansynth_deepmedic.engine import network
from gansynth_deepmedic.engine.configs import ModelConfig, read_model_config, read_train_config
from gansynth_deepmedic.engine.geometry import SegmentGeometry
from gansynth_deepmedic.engine.network import (
    Dropout,
    DualPath,
    RollingNorm,
    default_model,
)
from gansynth_deepmedic.engine.optimiser import Optimiser, Rates, loss_of
from gansynth_deepmedic.engine.settings import Losses, RateSchedule, read_settings
from tests.adapters.deepmedic import real_network as real
from tests.adapters.deepmedic.orders import run
from tests.deepmedic_sets import MODEL_VALUES, toy_deepmedic, write_config

HERE = Path(__file__).parent
REFERENCE = json.loads((HERE / "reference" / "network.json").read_text())["cases"]


def model_of(folder: Path, **values: Any) -> ModelConfig:
    return read_model_config(write_config(folder / "model.cfg", {**MODEL_VALUES, **values}))


def random_low(geometry: SegmentGeometry, count: int = 1) -> list[Tensor]:
    return [torch.randn(count, 2, *size) for size in geometry.low]


@pytest.fixture(params=sorted(REFERENCE))
def case(request, tmp_path):
    """One case of the reference: its network with the same weights, settings and inputs."""
    found = REFERENCE[request.param]
    model, train = real.CASES[request.param]
    toy = toy_deepmedic(tmp_path, train=1, val=1, shape=(12, 12, 12), values=real.TRAIN | train)
    read = read_model_config(write_config(tmp_path / "model.cfg", {**real.MODEL, **model}))
    net = DualPath(read)
    assert [list(p.shape) for p in net.parameters()] == found["shapes"]
    x, low, labels, values = real.given(found["shapes"])
    with torch.no_grad():
        for parameter, value in zip(net.parameters(), values, strict=True):
            parameter.copy_(torch.from_numpy(value))
    settings = read_settings({}, read_train_config(toy.train), read)
    inputs = torch.from_numpy(x), [torch.from_numpy(part) for part in low]
    return found, net, settings, inputs, torch.from_numpy(labels)


def applied(net: DualPath, inputs: Any) -> list[float]:
    net.eval()
    with torch.no_grad():
        probabilities = net(*inputs).softmax(dim=1).double().numpy()
    return list(real.summary(probabilities))


def test_it_computes_and_learns_as_deepmedic_does(case):
    found, net, settings, inputs, labels = case
    assert applied(net, inputs) == pytest.approx(found["before"], rel=1e-4, abs=1e-5)
    how = settings.optimisation
    optimiser = Optimiser(net.parameters(), net.convolved(), how)
    rates = Rates(settings.rates, how.rate, how.momentum)
    for group in optimiser.param_groups:
        group["lr"], group["momentum"] = rates.rate(0), rates.momentum(0)
    net.train()
    for cost in found["costs"]:
        optimiser.zero_grad()
        loss, _ = loss_of(net(*inputs), labels, settings.losses, 0)
        loss.backward()
        weights = [p.detach() for p in net.convolved()]
        decay = sum(how.l1 * float(w.abs().sum()) + how.l2 * float((w**2).sum()) for w in weights)
        optimiser.step()
        assert float(loss.detach()) + decay == pytest.approx(cost, rel=1e-4)
    after = real.products([p.detach().double().numpy() for p in net.parameters()])
    assert after == pytest.approx(found["products"], rel=1e-4, abs=1e-4)
    assert applied(net, inputs) == pytest.approx(found["after"], rel=1e-4, abs=1e-4)
    ours = []
    for done in range(len(found["rates"])):
        ours.append(rates.rate(done))
        rates.end_epoch(done, None)
    assert ours == pytest.approx(found["rates"], rel=1e-5)


@pytest.mark.deepmedic
def test_the_reference_is_what_this_deepmedic_says():
    python = os.environ.get("GANSYNTH_DEEPMEDIC_PYTHON", sys.executable)
    checkout = {"PYTHONPATH": os.environ["GANSYNTH_DEEPMEDIC"]}
    ended = run([python, str(HERE / "real_network.py")], checkout)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)["cases"]
    assert found.keys() == REFERENCE.keys()
    for name, numbers in REFERENCE.items():
        for key in ("before", "costs", "after", "products", "rates"):
            assert found[name][key] == pytest.approx(numbers[key], rel=1e-3, abs=1e-4), (name, key)


def test_auto_lowers_the_rate_where_accuracy_stays():
    """By hand from trainer.py; DeepMedic itself cannot build this schedule with TensorFlow 2."""
    rates = Rates(RateSchedule("auto", 9, wait=2, divide=2, least_gain=0.01), 0.01, 0.6)
    seen = []
    for done, accuracy in enumerate([0.5, 0.6, 0.605, 0.602, 0.6, 0.7, 0.69, 0.69, 0.69]):
        seen.append(rates.rate(done))
        rates.end_epoch(done, accuracy)
        again = Rates(rates.schedule, 0.01, 0.6)
        again.load(rates.state())
        rates = again
    assert seen == [0.01] * 4 + [0.005] * 4 + [0.0025]


def test_the_exponential_schedule_ends_at_what_it_names():
    rates = Rates(RateSchedule("expon", 9, wait=3, last_rate=0.001, last_momentum=0.9), 0.01, 0.6)
    assert [rates.momentum(n) for n in (0, 3, 6, 9)] == pytest.approx([0.6, 0.6, 0.75, 0.9])
    assert rates.rate(9) == pytest.approx(0.001, rel=1e-4)


WIDE = {
    "numberOfOutputClasses": 5,
    "numberFMsPerLayerNormal": [30, 40, 50, 60, 70, 80, 90, 100],
    "kernelDimPerLayerNormal": [[3, 3, 3]] * 8,
    "layersWithResidualConnNormal": [4, 6, 8],
    "subsampleFactor": [[3, 3, 3], [5, 5, 5]],
    "numberFMsPerLayerFC": [300, 300],
    "kernelDimPerLayerFC": [[3, 3, 3], [1, 1, 1], [1, 1, 1]],
    "padTypePerLayerFC": ["mirror", None, None],
    "layersWithResidualConnFC": [2],
    "segmentsDimTrain": [37, 37, 37],
    "segmentsDimVal": [17, 17, 17],
    "segmentsDimInference": [45, 45, 45],
}


def test_parameters_are_those_of_deepmedics_examples(tmp_path):
    """Counted by DeepMedic's own builder: see ``real_network.py``, whose arguments they were."""
    tiny = {"numberOfOutputClasses": 5, "numberFMsPerLayerFC": None}
    counts = {2008901: default_model(5, 2), 5141051: model_of(tmp_path, **WIDE)}
    counts[3291] = model_of(tmp_path, **tiny)
    for count, model in counts.items():
        assert sum(p.numel() for p in DualPath(model).parameters()) == count
    geometry = SegmentGeometry.from_model(default_model(5, 2))
    assert geometry.output == (21, 21, 21)
    assert geometry.low == ((23, 23, 23), (21, 21, 21))


@pytest.mark.parametrize(
    ("change", "length", "size", "found"),
    [
        (lambda x: network.repeated(x, (3, 1, 2), (8, 1, 1)), 4, 8, [0, 0, 0, 1, 1, 1, 2, 2]),
        (lambda x: network.mirrored(x, (2, 0, 0)), 4, 8, [1, 0, 0, 1, 2, 3, 3, 2]),
        (lambda x: network.mirrored(x, (1, 0, 0)), 4, 6, [0, 0, 1, 2, 3, 3]),
        # The centre of an even size lies towards the beginning.
        (lambda x: network.cropped(x, (3, 1, 1)), 6, 3, [1, 2, 3]),
        (lambda x: network.cropped(x, (4, 1, 1)), 6, 4, [1, 2, 3, 4]),
    ],
    ids=["repeated", "mirrored", "mirrored once", "cropped odd", "cropped even"],
)
def test_paths_are_repeated_mirrored_and_cropped_to_meet(change, length, size, found):
    changed = change(torch.arange(float(length)).reshape(1, 1, length, 1, 1))
    assert changed.shape == (1, 1, size, 1, 1)
    assert changed.flatten().tolist() == found


def test_dropout_scales_in_inference_only():
    dropout, x = Dropout(0.25), torch.ones(1, 1, 20, 20, 20)
    assert dropout.train()(x).unique().tolist() == [0, 1]
    assert float(dropout(x).mean()) == pytest.approx(0.75, abs=0.05)
    assert dropout.eval()(x).unique().tolist() == [0.75]
    assert Dropout(0.0).train()(x) is x


def test_the_rolling_average_is_of_the_last_batches():
    norm = RollingNorm(1, 2)
    batches = [torch.randn(2, 1, 3, 3, 3) * n for n in (1, 2, 3)]
    for batch in batches:
        norm(batch)
    norm.eval()
    mean = (batches[1].mean() + batches[2].mean()) / 2
    variance = (batches[1].var(unbiased=False) + batches[2].var(unbiased=False)) / 2
    expected = (batches[0] - mean) / variance.sqrt()
    assert torch.allclose(norm(batches[0]), expected, atol=1e-4)


def test_a_residual_connection_with_fewer_features_than_before_keeps_the_first():
    class Drops(torch.nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.zeros_like(x[:, :1])

    x = torch.randn(1, 3, 2, 2, 2)
    assert torch.equal(network.Path([torch.nn.Identity(), Drops()], [2])(x), x[:, :1])


@pytest.mark.parametrize("padding", ["mirror", "zero", "VALID"])
def test_padding_of_the_fully_connected_layers(tmp_path, padding):
    kernels = [[3, 3, 3], [1, 1, 1]]
    model = model_of(tmp_path, kernelDimPerLayerFC=kernels, padTypePerLayerFC=[padding, None])
    geometry = SegmentGeometry.from_model(model)
    out = DualPath(model)(torch.randn(1, 2, *geometry.segment), random_low(geometry))
    assert out.shape == (1, 3, *geometry.output)
    assert geometry.output == ((5, 5, 5) if padding == "VALID" else (7, 7, 7))


def test_voxels_without_a_class_count_for_nothing():
    logits = torch.randn(1, 3, 2, 2, 2, requires_grad=True)
    labels = torch.full((1, 2, 2, 2), -1)
    labels[0, 0, 0, 0] = 2
    loss, parts = loss_of(logits, labels, Losses(iou=1.0, dsc=1.0), 0)
    expected = -(logits.softmax(1)[0, 2, 0, 0, 0] + 1e-6).log() / 8
    assert float(parts["xentr"].detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    (gradient,) = torch.autograd.grad(parts["xentr"], logits)
    assert gradient[0, :, 1].abs().max() == 0
    assert math.isfinite(float(loss.detach()))


def test_bf16_computes_what_fp32_does(tmp_path):
    model = model_of(tmp_path)
    torch.manual_seed(0)
    net, geometry = DualPath(model).eval(), SegmentGeometry.from_model(model)
    given = torch.randn(2, 2, *geometry.segment), random_low(geometry, 2)
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        rough = net(*given).float()
    with torch.no_grad():
        fine = net(*given)
    assert float((rough - fine).abs().max()) < 0.05 * float(fine.abs().max())
