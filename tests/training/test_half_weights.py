"""Weights that are cast at once under autocast: the same numbers, and whole weights afterwards."""

import pytest
import torch

from gansynth.nn.networks import PatchDiscriminator
from gansynth.training.half_precision import cast_at_once

PAIR = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(params=[False, True], ids=["plain", "spectral"])
def net(request):
    torch.manual_seed(0)
    return PatchDiscriminator(2, 3, 4, [(2, 2)], spectral=request.param).eval()


def gradients(net):
    for parameter in net.parameters():
        parameter.grad = None
    with torch.autocast("cpu", torch.bfloat16):
        logits, _ = net(PAIR)
    sum(head.float().sum() for head in logits).backward()
    return {name: parameter.grad for name, parameter in net.named_parameters()}


def test_gradients_are_those_of_autocast(net):
    expected = gradients(net)
    with cast_at_once([net]):
        cast = gradients(net)
    assert all(torch.equal(cast[name], value) for name, value in expected.items())


def test_without_autocast_weights_are_not_cast(net):
    with cast_at_once([net]), torch.no_grad():
        assert net(PAIR)[0][0].dtype == torch.float32


def test_weights_are_whole_again_after_a_pass_that_fails(net):
    with cast_at_once([net]), torch.autocast("cpu", torch.bfloat16), pytest.raises(RuntimeError):
        net(PAIR[:, :1])
    assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
    assert not net._forward_pre_hooks
