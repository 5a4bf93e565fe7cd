"""Instance normalisation and leaky ReLU that keep their output alone: as autograd's, with less."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gansynth.nn.networks.lean_norm import norm_leaky_relu

FORMATS = (torch.contiguous_format, torch.channels_last_3d)


def norm_of(channels: int, shift: float = 1.0) -> Any:
    norm = nn.InstanceNorm3d(channels, affine=True)
    rng = torch.Generator().manual_seed(1)
    with torch.no_grad():
        signs = torch.where(torch.rand(channels, generator=rng) < 0.5, -1.0, 1.0)
        norm.weight.copy_(signs * (0.5 + torch.rand(channels, generator=rng)))
        norm.bias.copy_(shift * torch.randn(channels, generator=rng))
    return norm


def plain(x: Tensor, norm: nn.Module, slope: float) -> Tensor:
    return F.leaky_relu(norm(x), slope)


def run(function: Any, norm: Any, x: Tensor) -> list[Tensor]:
    given = x.clone(memory_format=torch.preserve_format).requires_grad_()
    norm.zero_grad()
    made = function(given, norm, 0.2)
    weights = torch.randn(made.shape, generator=torch.Generator().manual_seed(2)).to(made.dtype)
    made.backward(weights)
    assert given.grad is not None
    return [made.detach(), given.grad, norm.weight.grad.clone(), norm.bias.grad.clone()]


def volume(dtype: torch.dtype, form: torch.memory_format) -> Tensor:
    x = torch.randn(3, 16, 5, 6, 7, generator=torch.Generator().manual_seed(0)) * 2 + 1
    return x.to(dtype).contiguous(memory_format=form)


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize(
    ("dtype", "near"), [(torch.float64, 1e-12), (torch.float32, 1e-5), (torch.bfloat16, 0.02)]
)
def test_it_makes_and_passes_back_what_autograd_does(dtype, near, form):
    x = volume(dtype, form)
    norm = norm_of(16).double() if dtype == torch.float64 else norm_of(16)
    for found, wanted in zip(run(norm_leaky_relu, norm, x), run(plain, norm, x), strict=True):
        largest = wanted.abs().max()
        assert (found - wanted).abs().max() <= near * largest


@pytest.mark.parametrize("form", FORMATS)
def test_the_memory_format_stays(form):
    x = volume(torch.float32, form).requires_grad_()
    assert norm_leaky_relu(x, norm_of(16), 0.2).is_contiguous(memory_format=form)


def test_few_channels_last_are_done_plainly():
    x = torch.randn(1, 4, 5, 6, 7).contiguous(memory_format=torch.channels_last_3d)
    made = norm_leaky_relu(x.requires_grad_(), norm_of(4), 0.2)
    assert "NormLeakyReLU" not in type(made.grad_fn).__name__


def kept(function: Any, norm: Any, x: Tensor) -> int:
    """Bytes of large tensors held for the backward pass, those of the output counted once."""
    seen: dict[int, int] = {}

    def pack(tensor: Tensor) -> Tensor:
        if tensor.numel() >= x.numel():
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        made = function(x.clone().requires_grad_(), norm, 0.2)
    seen[made.untyped_storage().data_ptr()] = made.untyped_storage().nbytes()
    return sum(seen.values())


def test_it_keeps_its_output_alone():
    x = volume(torch.float32, torch.contiguous_format)
    inplace = lambda x, norm, slope: F.leaky_relu(norm(x), slope, inplace=True)  # noqa: E731
    assert kept(norm_leaky_relu, norm_of(16), x) == x.nbytes
    assert kept(inplace, norm_of(16), x) == 2 * x.nbytes


@pytest.mark.parametrize("norm", [norm_of(16, shift=100.0), nn.BatchNorm3d(16)])
def test_what_cannot_be_undone_is_done_plainly(norm):
    x = volume(torch.float32, torch.contiguous_format)
    made = norm_leaky_relu(x.clone().requires_grad_(), norm, 0.2)
    assert "NormLeakyReLU" not in type(made.grad_fn).__name__
    torch.testing.assert_close(made, plain(x, norm, 0.2))


def test_without_gradients_nothing_changes():
    x, norm = volume(torch.float32, torch.contiguous_format), norm_of(16)
    with torch.no_grad():
        torch.testing.assert_close(norm_leaky_relu(x.clone(), norm, 0.2), plain(x, norm, 0.2))
