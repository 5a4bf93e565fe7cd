"""``cuda:1`` of two devices: nothing is taken for ``cuda:0``."""

import json

import numpy as np
import pytest
import torch

from gansynth.metrics.features import features_of
from gansynth.runtime.devices import producer_device
from gansynth.training.loop import train
from tests.adapters.kits import command, in_this_process, kit_of
from tests.evaluation.gatherings import LITTLE, gathered, strangers
from tests.gpu.test_hosts_gpu import trained_on
from tests.gpu.test_sampling_gpu import SETTINGS
from tests.training.zoo.members import ZOO, loop, member, toy_batches


@pytest.mark.parametrize("name", ZOO)
def test_every_gan_of_the_zoo_trains_and_goes_on(second, tmp_path, name):
    for steps in (1, 2):
        chosen, made = loop(name, steps=steps), member(name)
        report = train(made, toy_batches(name), chosen, device=second, folder=tmp_path)
    assert report.resumed_at == 1
    assert made.device == second


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_is_of_that_device(second, precision):
    chosen, made = loop("cgan3d", steps=2, precision=precision), member("cgan3d")
    train(made, toy_batches("cgan3d"), chosen, device=second)
    assert made.device == second


def test_it_draws_what_the_first_device_draws(second, toy_source, tmp_path):
    from tests.gpu.conftest import drawer_on, fitted

    run = fitted(tmp_path / "run", SETTINGS, ("flip",))
    pairs = [drawer_on(run, name).draw(0, 2) for name in ("cuda:0", "cuda:1")]
    for one, two in zip(*pairs, strict=True):
        np.testing.assert_allclose(one.image, two.image, atol=1e-3)


def test_the_producer_takes_the_device_that_the_training_leaves_free(second):
    assert producer_device("auto", (0,)) == str(second)


@pytest.mark.parametrize("host", ["segmenter"])
def test_a_framework_trains_on_it(second, request, tmp_path, monkeypatch, host):
    kit = kit_of(host, tmp_path, request.getfixturevalue)
    in_this_process(monkeypatch)
    bank = kit.filled(device=str(second))
    result = command(*trained_on(second, kit.training(bank, "--json")))
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["drawn_synthetic"] > 0


def test_evaluations_networks_train_on_it(second):
    from gansynth.runtime.progress import NullReporter

    found = gathered(strangers()).comparison(8, 0, LITTLE, str(second), NullReporter())
    assert np.isfinite(features_of(found).of(found.samples, "random").whole).all()


def test_seeding_one_device_leaves_the_other_alone(second):
    from gansynth.runtime.devices import set_seed

    set_seed(1, torch.device("cuda:0"))
    expected = torch.randn(3, device="cuda:0").cpu()
    set_seed(1, torch.device("cuda:0"))
    set_seed(2, second)
    assert torch.equal(torch.randn(3, device="cuda:0").cpu(), expected)
