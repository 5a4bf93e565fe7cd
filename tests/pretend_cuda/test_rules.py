"""What a pretend device lets pass, as a GPU does, and what it counts."""

import copy
import io

import pytest
import torch
from torch import nn

from tests.pretend_cuda.waiting import counting

pytestmark = pytest.mark.pretend_cuda
GPU = torch.device("cuda")


def noise(*size: int) -> torch.Tensor:
    return torch.randn(*size, device=GPU)


def test_a_module_keeps_its_parameters_when_it_moves():
    layer = nn.Linear(2, 2)
    weight = layer.weight
    layer.to(GPU)
    assert layer.weight is weight
    assert (weight.device.type, weight.device.index) == ("cuda", 0)


@pytest.mark.parametrize("fused", [False, True])
def test_a_step_there_is_that_of_the_cpu(fused):
    torch.manual_seed(0)
    ours = nn.Sequential(nn.Conv2d(1, 2, 3), nn.LeakyReLU(), nn.Conv2d(2, 1, 1))
    theirs = copy.deepcopy(ours).to(GPU)
    batch = torch.randn(2, 1, 6, 6)
    for model, x in ((ours, batch), (theirs, batch.to(GPU))):
        optimiser = torch.optim.Adam(model.parameters(), fused=fused)
        for _ in range(2):
            optimiser.zero_grad()
            model(x).square().mean().backward()
            optimiser.step()
    for one, two in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(one, two.cpu())


def test_numbers_and_indices_of_the_cpu_may_be_used():
    x = noise(4)
    assert (x * torch.tensor(2.0)).is_cuda
    assert x[torch.tensor([0, 1])].is_cuda


@pytest.mark.parametrize("follow", [lambda x, y: x.type_as(y), lambda x, y: x.type(y.type())])
def test_a_tensor_follows_another_by_its_type(follow):
    there = noise(2).half()
    moved = follow(torch.ones(3), there)
    assert (moved.device, moved.dtype) == (there.device, there.dtype)


def test_its_random_numbers_are_not_the_cpus():
    torch.manual_seed(0)
    here, there = torch.randn(4), torch.randn(4, device=GPU).cpu()
    assert not torch.equal(here, there)
    torch.manual_seed(0)
    torch.randn(9)
    assert torch.equal(there, torch.randn(4, device=GPU).cpu())


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_what_is_saved_is_loaded_where_it_is_wanted(target):
    file = io.BytesIO()
    torch.save({"weight": noise(3)}, file)
    file.seek(0)
    assert torch.load(file, map_location=target)["weight"].device.type == target


@pytest.mark.parametrize(
    ("what", "waits"),
    [
        (lambda x: x.item(), 1),
        (lambda x: x.cpu(), 1),
        (lambda x: x.repeat(3)[x.repeat(3) > 0], 1),
        (lambda x: torch.tensor([1.0], device=GPU), 1),
        (lambda x: torch.ones(3).to(GPU), 1),
        (lambda x: torch.ones(3).to(GPU, non_blocking=True), 0),
        (lambda x: torch.zeros(3, device=GPU), 0),
        (lambda x: torch.where(x > 0, x, 0).to(torch.float16), 0),
    ],
)
def test_waits_are_counted(what, waits):
    x = noise(1)[0]
    with counting() as counts:
        what(x)
    assert counts.waits.total() == waits


def test_views_launch_nothing_and_lists_of_tensors_one_operator():
    x, several = noise(4, 4), [noise(2) for _ in range(5)]
    with counting() as counts:
        x.T[1:].view(3, 4).detach()
        torch._foreach_add_(several, 1.0)
    assert counts.operators == {"aten::_foreach_add_": 1}
