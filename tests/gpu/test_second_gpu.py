"""``cuda:1`` of two devices: nothing is taken for ``cuda:0``."""

import numpy as np
import torch

from gansynth.metrics.features import features_of
from gansynth.runtime.devices import producer_device
from tests.evaluation.gatherings import LITTLE, gathered, strangers
from tests.gpu.test_sampling_gpu import SETTINGS


def test_it_draws_what_the_first_device_draws(second, toy_source, tmp_path):
    from tests.gpu.conftest import drawer_on, fitted

    run = fitted(tmp_path / "run", SETTINGS, ("flip",))
    pairs = [drawer_on(run, name).draw(0, 2) for name in ("cuda:0", "cuda:1")]
    for one, two in zip(*pairs, strict=True):
        np.testing.assert_allclose(one.image, two.image, atol=1e-3)


def test_the_producer_takes_the_device_that_the_training_leaves_free(second):
    assert producer_device("auto", (0,)) == str(second)


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
