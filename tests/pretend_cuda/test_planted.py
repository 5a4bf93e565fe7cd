"""Mistakes that a pretend device must catch: each is made here, and made right."""

import copy
import io
import multiprocessing
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import gansynth.training.loop as training
from gansynth.core.generator import Batch
from gansynth.training import checkpoint
from tests.pretend_cuda.waiting import counting
from tests.training.zoo.members import loop, member, toy_batches

pytestmark = pytest.mark.pretend_cuda
GPU, SECOND = torch.device("cuda"), torch.device("cuda:1")
CAUGHT = (RuntimeError, TypeError, AssertionError)
MISTAKES: list[Callable[[bool], Any]] = []


def mistake(make: Callable[[bool], Any]) -> Callable[[bool], Any]:
    """Try it both ways: right, and wrong."""
    MISTAKES.append(make)
    return make


def on(right: bool) -> torch.device:
    return GPU if right else torch.device("cpu")


def conv(device: torch.device = GPU) -> nn.Module:
    return nn.Conv2d(1, 1, 3).to(device)


@mistake
def noise_is_drawn_on_the_cpu(right):
    conv()(torch.randn(1, 1, 4, 4, device=on(right)))


@mistake
def losses_are_stacked_with_a_number_of_the_cpu(right):
    torch.stack([torch.zeros((), device=GPU), torch.zeros((), device=on(right))])


@mistake
def a_sum_on_the_cpu_is_added_to(right):
    total = torch.zeros((), device=on(right))
    total += torch.ones((), device=GPU)


@mistake
def a_sample_is_made_an_array_without_a_copy(right):
    x = torch.zeros(3, device=GPU)
    (x.cpu() if right else x).numpy()


@mistake
def numpy_is_given_a_tensor(right):
    x = torch.zeros(3, device=GPU)
    np.asarray(x.cpu() if right else x)


@mistake
def noise_in_place_has_a_generator_of_the_cpu(right):
    torch.zeros(3, device=GPU).uniform_(generator=torch.Generator(on(right)))


@mistake
def noise_of_the_cpu_has_a_generator_of_the_device(right):
    torch.randn(3, generator=torch.Generator(on(not right)))


@mistake
def a_generator_is_of_the_first_device_for_the_second(right):
    torch.randn(3, generator=torch.Generator(SECOND if right else GPU), device=SECOND)


@mistake
def a_tensor_of_the_cpu_is_indexed_on_the_device(right):
    index = torch.tensor([1, 2], device=GPU)
    torch.arange(4)[index.cpu() if right else index]


@mistake
def a_checkpoint_is_loaded_to_where_it_was_written(right):
    file = io.BytesIO()
    torch.save(torch.ones(3, device=SECOND), file)
    file.seek(0)
    torch.ones(3, device=GPU) + torch.load(file, map_location=GPU if right else None)


@mistake
def a_device_is_named_that_is_not_there(right):
    torch.zeros(1, device="cuda:1" if right else "cuda:7")


@mistake
def a_copy_is_read_before_it_has_arrived(right):
    late = torch.ones(3, device=GPU).to("cpu", non_blocking=True)
    if right:
        torch.cuda.synchronize()
    assert late.sum() == 3


@mistake
def a_pinned_tensor_is_filled_again_while_it_is_copied(right):
    pinned = torch.ones(3).pin_memory()
    pinned.to(GPU, non_blocking=True)
    if right:
        torch.cuda.synchronize()
    pinned.fill_(2)
    torch.cuda.synchronize()


@mistake
def what_is_on_the_device_is_pinned(right):
    torch.ones(3, device=on(not right)).pin_memory()


@mistake
def an_expanded_tensor_is_pinned(right):
    expanded = torch.ones(1).expand(3)
    (expanded.contiguous() if right else expanded).pin_memory()


@mistake
def a_forked_process_uses_the_device_of_its_parent(right):
    torch.ones(1, device=GPU)
    process = multiprocessing.get_context("fork").Process(target=_use, args=(on(not right),))
    process.start()
    process.join()
    assert process.exitcode == 0


def _use(device: torch.device) -> None:
    torch.ones(1, device=device)


@mistake
def a_forward_asks_for_a_number(right):
    x = torch.ones(3, device=GPU)
    with counting() as counts:
        x * (x.mean() if right else x.mean().item())
    assert counts.waits.total() == 0


@pytest.mark.parametrize("made", MISTAKES, ids=lambda made: made.__name__)
def test_a_mistake_is_caught_and_what_is_right_passes(made):
    made(True)
    with pytest.raises(CAUGHT):
        made(False)


def the_loop_leaves_its_batch_on_the_cpu(patch):
    patch.setattr(Batch, "to", lambda self, device: self)


def the_loop_draws_with_a_generator_of_the_cpu(patch):
    plain = torch.Generator
    patch.setattr(torch, "Generator", lambda device="cpu": plain("cpu"))


def the_optimisers_are_restored_on_the_cpu(patch):
    plain = checkpoint.restore

    def restore(tensors, nets, averages, optimisers, folder):
        plain(tensors, nets, averages, optimisers, folder)
        for optimiser in optimisers.values():
            for state in optimiser.state.values():
                state.update({k: v.cpu() for k, v in state.items()})

    patch.setattr(checkpoint, "restore", restore)


def a_checkpoint_does_not_leave_the_device(patch):
    patch.setattr(torch.Tensor, "cpu", lambda self: self)
    patch.setattr(torch.Tensor, "to", lambda self, *told, **more: self)


def two_steps(folder: Any) -> None:
    for steps in (1, 2):
        chosen = loop("cgan3d", steps=steps, checkpoint_every=1)
        made = copy.copy(member("cgan3d"))
        training.train(made, toy_batches("cgan3d"), chosen, device=GPU, folder=folder)


PLANTED = [
    the_loop_leaves_its_batch_on_the_cpu,
    the_loop_draws_with_a_generator_of_the_cpu,
    the_optimisers_are_restored_on_the_cpu,
    a_checkpoint_does_not_leave_the_device,
]


@pytest.mark.parametrize("plant", PLANTED, ids=lambda plant: plant.__name__)
def test_a_mistake_in_the_loop_is_caught(plant, monkeypatch, tmp_path):
    plant(monkeypatch)
    with pytest.raises(CAUGHT):
        two_steps(tmp_path)
