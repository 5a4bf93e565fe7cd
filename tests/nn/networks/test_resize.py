"""Interpolation by one matrix per axis, against torch and by its own rules."""
# mypy: disallow-untyped-calls=False

import pytest
import torch
import torch.nn.functional as F

from gansynth.nn.networks.resize import Transposed, enlarge, interpolate, matrix

PAIRS = [(5, 9), (4, 8), (6, 6), (7, 13), (1, 2)]


@pytest.mark.parametrize("sizes", PAIRS)
@pytest.mark.parametrize(
    ("mode", "theirs"), [("nearest", "nearest"), ("trilinear", "linear"), ("cubic", "bicubic")]
)
def test_a_matrix_does_what_torch_does_along_an_axis(mode, theirs, sizes):
    coarse, fine = sizes
    x = torch.randn(2, 3, coarse, generator=torch.Generator().manual_seed(0))
    if theirs == "bicubic":  # which torch has in 2D only
        expected = F.interpolate(x[..., None], size=(fine, 1), mode=theirs)[..., 0]
    else:
        expected = F.interpolate(x, size=fine, mode=theirs)
    assert torch.allclose(x @ matrix(mode, coarse, fine).T, expected, atol=1e-5)


@pytest.mark.parametrize("size", [(9, 7), (8, 12)])
def test_cubic_in_2d_is_torchs_bicubic(size):
    x = torch.randn(2, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    expected = F.interpolate(x, size=size, mode="bicubic")
    assert torch.allclose(enlarge(x, size, "cubic"), expected, atol=1e-5)


def test_cubic_in_3d_is_bicubic_in_plane_and_cubic_across():
    x = torch.randn(1, 2, 4, 5, 6, generator=torch.Generator().manual_seed(0))
    plane = F.interpolate(x.transpose(1, 2).flatten(0, 1), size=(9, 11), mode="bicubic")
    plane = plane.view(4, 2, 9, 11).permute(1, 2, 3, 0).reshape(1, -1, 4, 1)
    expected = F.interpolate(plane, size=(8, 1), mode="bicubic")
    expected = expected.view(2, 9, 11, 8).permute(0, 3, 1, 2)[None]
    assert torch.allclose(enlarge(x, (8, 9, 11), "cubic"), expected, atol=1e-5)


@pytest.mark.parametrize("mode", ["nearest", "trilinear", "cubic"])
def test_a_constant_stays_one(mode):
    assert torch.allclose(enlarge(torch.ones(1, 1, 3, 4, 5), (5, 8, 10), mode), torch.tensor(1.0))


@pytest.mark.parametrize("mode", ["nearest", "trilinear", "cubic"])
def test_every_axis_goes_its_own_way(mode):
    x = torch.randn(1, 2, 3, 4, 5)
    assert enlarge(x, (3, 8, 9), mode).shape == (1, 2, 3, 8, 9)


def test_cubic_passes_gradients():
    x = torch.randn(1, 1, 3, 3, 3, dtype=torch.float32, requires_grad=True)
    enlarge(x, (6, 6, 6), "cubic").sum().backward()
    assert x.grad is not None
    assert x.grad.sum().item() == pytest.approx(6**3, rel=1e-4)


def test_half_precision_goes_in_and_out_but_not_between():
    x = torch.randn(1, 1, 9, 9, generator=torch.Generator().manual_seed(0)).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = interpolate(x, [matrix("cubic", 9, 17)] * 2)
    exact = interpolate(x.float(), [matrix("cubic", 9, 17)] * 2)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, exact.bfloat16())


@pytest.mark.parametrize("stride", [(2, 2, 2), (1, 2, 2)])
def test_a_transposed_convolution_enlarges_by_its_stride(stride):
    layer = Transposed(3, 2, 4, stride)
    wanted = tuple(n * s for n, s in zip((3, 4, 5), stride, strict=True))
    assert layer(torch.zeros(1, 2, 3, 4, 5)).shape == (1, 4, *wanted)
