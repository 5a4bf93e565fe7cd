"""Every way to build the networks, each by itself: sizes, gradients, what the option does."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from gansynth.nn.networks import PatchDiscriminator, UNetGenerator, UNetStyle
from gansynth.nn.networks.blocks import Conv4, activation, normalisation, strides_for
from gansynth.nn.networks.perceptor import Perceptor

STYLES: list[dict[str, Any]] = [
    *({"norm": n} for n in ("batch", "group", "none")),
    *({"down": d} for d in ("strided4", "maxpool")),
    *({"up": u} for u in ("nearest", "cubic", "transposed")),
    {"blocks": "residual"},
    {"blocks": "residual", "double": True, "norm": "none"},
    {"double": True},
    *({"activation": a} for a in ("relu", "elu", "silu", "gelu")),
    {"skip": "concat"},
    {"spectral": True, "up": "transposed", "down": "strided4"},
    {"noise": False},
    {"dropout": 0.5},
    {"noise": False, "dropout": 0.5},
    {"checkpointing": True},
    {"stem": False},
    {"stem": False, "down": "strided4", "up": "transposed", "blocks": "residual"},
    {"stem": False, "down": "maxpool", "spectral": True, "checkpointing": True},
]
JUDGES: list[dict[str, Any]] = [
    *({"norm": n} for n in ("instance", "batch", "group")),
    *({"down": d} for d in ("strided4", "maxpool")),
    {"act": "elu"},
    {"spectral": False},
    {"stem": False},
    {"stem": False, "down": "strided4", "spectral": False, "norm": "instance"},
    {"checkpointing": True},
]
SIZES = [(9, 8, 11), (13, 18)]


def named(options: dict[str, Any]) -> str:
    return "-".join(f"{k}={v}" for k, v in options.items())


def unet(size: tuple[int, ...], levels: int = 2, **style: Any) -> Any:
    torch.manual_seed(0)
    strides = strides_for(size, (1.0,) * len(size), levels)
    return UNetGenerator(len(size), 3, 2, 4, strides, style=UNetStyle(**style))


def latents(net: UNetGenerator, size: tuple[int, ...], batch: int = 1, seed: int = 1):
    rng = torch.Generator().manual_seed(seed)
    return [torch.randn(batch, *shape, generator=rng) for shape in net.latent_shapes(size)]


def idle(net: nn.Module) -> list[str]:
    """Parameters that no gradient reached; a shift before a normalisation has no effect."""
    return [
        name
        for name, p in net.named_parameters()
        if (p.grad is None or not p.grad.abs().sum()) and not name.endswith("bias")
    ]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("style", STYLES, ids=named)
def test_a_generator_of_every_style_keeps_the_size_and_learns(style, size):
    net = unet(size, **style)
    image = net(torch.randn(2, 3, *size), latents(net, size, 2))
    assert image.shape == (2, 2, *size)
    image.square().sum().backward()
    assert idle(net) == []


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("judge", JUDGES, ids=named)
def test_a_discriminator_of_every_style_learns(judge, size):
    torch.manual_seed(0)
    strides = strides_for(size, (1.0,) * len(size), 2)
    net = PatchDiscriminator(len(size), 3, 4, strides, **judge)
    logits, features = net(torch.randn(2, 3, *size))
    lost = judge.get("down") == "strided4"  # pix2pix's last layer is four wide, padded by one
    assert features[-1].shape[2:] == tuple(-(-n // 2) - lost for n in size)
    sum(head.square().sum() for head in logits).backward()
    assert idle(net) == []


def test_the_default_is_the_network_that_earlier_runs_hold():
    """Names and shapes of version 0.1: its checkpoints must load."""
    net = unet((16, 16), levels=3)
    shapes = {name: tuple(value.shape) for name, value in net.state_dict().items()}
    expected: dict[str, tuple[int, ...]] = {"stem.weight": (4, 3, 3, 3)}
    for i, width in enumerate((8, 16)):
        expected[f"down.{i}.0.weight"] = (width, width // 2, 3, 3)
        expected[f"down.{i}.1.weight"] = (width,)
        expected[f"narrow.{i}.weight"] = (width // 2, width, 1, 1)
        expected[f"up.{i}.weight"] = (width // 2, width // 2, 3, 3)
        expected[f"norm.{i}.weight"] = (width // 2,)
    expected |= {"middle.0.weight": (16, 16, 3, 3), "middle.1.weight": (16,)}
    expected |= {"head.weight": (4, 4, 3, 3), "image.weight": (2, 4, 1, 1)}
    for name, shape in list(expected.items()):
        expected[name.replace("weight", "bias")] = shape[:1]
    expected |= {f"noise.{i}.scale": (1, w, 1, 1) for i, w in enumerate((4, 8, 16))}
    assert shapes == {**expected, "grain.scale": (1, 4, 1, 1)}


def test_the_default_discriminator_is_the_one_that_earlier_runs_hold():
    net = PatchDiscriminator(2, 5, 4, [(2, 2), (2, 2)], spectral=False)
    layers = ("stem", "down.0", "down.1", "layout", "texture")
    assert set(net.state_dict()) == {f"{n}.{k}" for n in layers for k in ("weight", "bias")}


@pytest.mark.parametrize(
    ("size", "drawn", "judged"),
    [
        ((9, 12), (0.70199, 0.51675), (-1.08642, 1.02159)),
        ((9, 8, 10), (1.0885, 1.46207), (14.51777, 1.43724)),
    ],
    ids=str,
)
def test_and_it_draws_and_judges_as_it_did_then(size, drawn, judged):
    """Mean and deviation of an image, and mean logits, computed by version 0.1."""
    ndim = len(size)
    net = UNetGenerator(ndim, 2, 1, 4, [(2,) * ndim] * 2)
    judge = PatchDiscriminator(ndim, 2, 4, [(2,) * ndim], spectral=False)
    with torch.no_grad():
        for one in (net, judge):
            for i, p in enumerate(one.parameters()):
                p.copy_(torch.sin(torch.arange(p.numel()) * 0.7 + i).view_as(p) * 0.5)
        condition = torch.sin(torch.arange(2 * math.prod(size)) * 0.3).view(1, 2, *size)
        cosines = [
            torch.cos(torch.arange(math.prod(shape)) * 1.1).view(1, *shape)
            for shape in net.latent_shapes(size)
        ]
        image, (logits, _) = net(condition, cosines), judge(condition)
    assert (image.mean().item(), image.std().item()) == pytest.approx(drawn, rel=1e-4)
    assert [head.mean().item() for head in logits] == pytest.approx(judged, rel=1e-4)


def test_without_noise_labels_determine_the_image():
    net = unet((16, 16), noise=False)
    assert net.latent_shapes((16, 16)) == net.noise_shapes((16, 16)) == []
    assert not any("scale" in name for name in net.state_dict())


def test_dropout_draws_what_it_drops_from_the_latents():
    net, condition = (
        unet((16, 16), levels=3, noise=False, dropout=0.5).eval(),
        torch.ones(1, 3, 16, 16),
    )
    assert net.latent_shapes((16, 16)) == [(8, 8, 8)]  # pix2pix: not at full resolution
    drawn = [net(condition, latents(net, (16, 16), seed=seed)) for seed in (1, 2, 2)]
    assert (drawn[0] - drawn[1]).abs().max() > 1e-4
    assert torch.equal(drawn[1], drawn[2])


def test_dropout_keeps_the_mean_and_drops_its_share():
    net = unet((16, 16), dropout=0.25)
    normal = torch.randn(1, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    kept = net._drop(torch.ones_like(normal), normal)
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert kept.mean().item() == pytest.approx(1, abs=0.02)


def test_a_residual_block_that_adds_nothing_passes_its_input():
    block = unet((16, 16), blocks="residual", norm="none").refine_middle[0]
    with torch.no_grad():
        block.body[1].weight.zero_()
        block.body[1].bias.zero_()
    x = torch.rand(1, 8, 4, 4)
    assert torch.equal(block(x), x)


@pytest.mark.parametrize(("size", "wanted"), [((8, 9, 7), (4, 5, 7)), ((10, 4, 3), (5, 2, 3))])
def test_a_convolution_four_wide_strides_like_the_others(size, wanted):
    assert Conv4(3, 1, 2, (2, 2, 1))(torch.zeros(1, 1, *size)).shape == (1, 2, *wanted)


def test_on_even_sizes_it_is_pix2pixs():
    layer: Any = Conv4(2, 1, 2, (2, 2))
    x = torch.randn(1, 1, 8, 6)
    plain = nn.functional.conv2d(x, layer.conv.weight, layer.conv.bias, 2, 1)
    assert torch.equal(layer(x), plain)


def test_spectral_normalisation_reaches_every_convolution_of_a_generator():
    net = unet((16, 16), spectral=True, blocks="residual", up="transposed", down="maxpool")
    layers = [m for m in net.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    assert len(layers) > 10
    assert all(hasattr(layer, "parametrizations") for layer in layers)


def test_activations_are_what_they_are_called():
    values = {
        name: activation(name)(torch.tensor([-1.0])).item() for name in ("relu", "elu", "silu")
    }
    assert values == pytest.approx({"relu": 0, "elu": -0.632, "silu": -0.269}, abs=1e-3)
    assert activation("leaky_relu")(torch.tensor([-1.0])).item() == pytest.approx(-0.2)


def test_groups_divide_the_channels():
    norms: list[Any] = [normalisation("group", 3, channels) for channels in (4, 12, 64)]
    assert [norm.num_groups for norm in norms] == [4, 4, 8]


def test_the_weight_that_meets_the_pair_is_found():
    for style in (*JUDGES, {}):
        net = PatchDiscriminator(2, 5, 4, [(2, 2)], **style)
        name = net.input_weight().removesuffix(".weight")
        layer: Any = net.get_submodule(name)
        assert layer.weight.shape[1] == 5


# -- the perceptual segmenter ----------------------------------------------------------------------


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_a_perceptor_segments_at_full_resolution(size):
    torch.manual_seed(0)
    net = Perceptor(len(size), 2, 3, 4, strides_for(size, (1.0,) * len(size), 2))
    logits = net(torch.randn(2, 2, *size))
    assert logits.shape == (2, 3, *size)
    logits.square().sum().backward()
    assert idle(net) == []


def test_a_perceptors_features_do_not_depend_on_the_batch():
    torch.manual_seed(0)
    net, images = Perceptor(2, 1, 3, 4, [(2, 2)]).train(), torch.randn(3, 1, 8, 8)
    for alone, together in zip(net.features(images[:1]), net.features(images), strict=True):
        assert torch.allclose(alone, together[:1], atol=1e-5)
