import copy
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gansynth.nn.networks import PatchDiscriminator, UNetGenerator, UNetStyle
from gansynth.nn.networks.blocks import activation, normalisation, strides_for
from gansynth.nn.networks.spectral import settled, spectral_norm, spectral_parts
from gansynth.nn.tiled_inference import cut, draw_tiled

STYLES: list[dict[str, Any]] = [
    {},
    *({"norm": n} for n in ("batch", "group", "none")),
    *({"down": d} for d in ("strided4", "maxpool")),
    *({"up": u} for u in ("nearest", "cubic", "transposed")),
    {"blocks": "residual"},
    {"blocks": "residual", "double": True, "norm": "none"},
    {"double": True},
    *({"activation": a} for a in ("relu", "elu", "silu", "gelu")),
    {"skip": "concat"},
    {"spectral": True, "up": "transposed", "down": "strided4"},
    {"noise": False, "dropout": 0.5},
    {"stem": False},
    {"stem": False, "down": "strided4", "up": "transposed", "blocks": "residual"},
    {"stem": False, "down": "maxpool", "spectral": True, "checkpointing": True},
]
JUDGES: list[dict[str, Any]] = [
    *({"norm": n} for n in ("instance", "batch", "group")),
    *({"down": d} for d in ("strided4", "maxpool")),
    {"act": "elu"},
    {"stem": False},
    {"stem": False, "down": "strided4", "spectral": False, "norm": "instance"},
    {"checkpointing": True},
]
SIZES = pytest.mark.parametrize("size", [(9, 8, 11), (13, 18)], ids=["3D", "2D"])


def unet(size: tuple[int, ...], levels: int = 2, **style: Any) -> Any:
    torch.manual_seed(0)
    strides = strides_for(size, (1.0,) * len(size), levels)
    return UNetGenerator(len(size), 3, 2, 4, strides, style=UNetStyle(**style))


def judge(size: tuple[int, ...] = (12, 12), **options: Any) -> Any:
    torch.manual_seed(0)
    return PatchDiscriminator(len(size), 3, 4, strides_for(size, (1.0,) * len(size), 2), **options)


def latents(net: UNetGenerator, size: tuple[int, ...], batch: int = 1) -> Any:
    rng = torch.Generator().manual_seed(1)
    return [torch.randn(batch, *shape, generator=rng) for shape in net.latent_shapes(size)]


def images(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(3))


def idle(net: nn.Module) -> list[str]:
    """Parameters that no gradient reached; a shift before a normalisation has no effect."""
    return [
        name
        for name, p in net.named_parameters()
        if (p.grad is None or not p.grad.abs().sum()) and not name.endswith("bias")
    ]


@SIZES
@pytest.mark.parametrize("style", STYLES, ids=str)
def test_a_generator_of_every_style_keeps_the_size_and_learns(style, size):
    net = unet(size, **style)
    image = net(images(2, 3, *size), latents(net, size, 2))
    assert image.shape == (2, 2, *size)
    image.square().sum().backward()
    assert idle(net) == []


@SIZES
@pytest.mark.parametrize("options", JUDGES, ids=str)
def test_a_discriminator_of_every_style_learns_and_names_what_meets_the_pair(options, size):
    net = judge(size, **options)
    logits, features = net(images(2, 3, *size))
    lost = options.get("down") == "strided4"  # pix2pix's last layer is four wide, padded by one
    assert features[-1].shape[2:] == tuple(-(-n // 2) - lost for n in size)
    assert logits[0].shape[2:] == tuple(-(-n // 2) - 2 * lost for n in size)
    assert [head.shape[:2] for head in logits] == [(2, 1)] * 2
    sum(head.square().sum() for head in logits).backward()
    assert idle(net) == []
    assert net.get_submodule(net.input_weight().removesuffix(".weight")).weight.shape[1] == 3


def test_dropout_keeps_the_mean_and_drops_its_share():
    net, normal = unet((16, 16), dropout=0.25), images(1, 4, 64, 64)
    kept = net._drop(torch.ones_like(normal), normal)
    assert (kept == 0).float().mean().item() == pytest.approx(0.25, abs=0.01)
    assert kept.mean().item() == pytest.approx(1, abs=0.02)


def test_the_texture_head_sees_every_voxel_and_five_at_a_time():
    image = torch.zeros(1, 3, 16, 16, requires_grad=True)
    texture = judge((16, 16))(image)[0][1]
    (seen,) = torch.autograd.grad(texture[0, 0, 4, 4], image, retain_graph=True)
    where = torch.nonzero(seen[0, 0])
    assert (where.amax(0) - where.amin(0) + 1).tolist() == [5, 5]
    assert bool((torch.autograd.grad(texture.sum(), image)[0] != 0).all())


@pytest.mark.parametrize(
    "layer", [nn.Conv2d(3, 5, 3), nn.ConvTranspose3d(3, 5, 4)], ids=["2D", "transposed"]
)
def test_spectral_normalisation_and_its_gradient_are_those_of_torch(layer):
    ours: Any = spectral_norm(copy.deepcopy(layer)).eval()
    theirs: Any = nn.utils.parametrizations.spectral_norm(copy.deepcopy(layer)).eval()
    ours.parametrizations.weight[0].iterate(ours.parametrizations.weight.original, 2000)
    theirs.load_state_dict(ours.state_dict())
    gradients = []
    for net in (ours, theirs):
        net.weight.flatten().cumsum(0).sum().backward()
        gradients.append(net.parametrizations.weight.original.grad)
    torch.testing.assert_close(ours.weight, theirs.weight)
    torch.testing.assert_close(*gradients, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("trains", "grad", "moves"), [(1, 1, 1), (1, 0, 0), (0, 1, 0)])
def test_singular_vectors_move_only_in_passes_that_train_the_weight(trains, grad, moves):
    net = spectral_norm(nn.Conv2d(3, 5, 3)).train().requires_grad_(bool(trains))
    before = copy.deepcopy(net.state_dict())
    with torch.set_grad_enabled(bool(grad)):
        net(images(1, 3, 8, 8))
    same = all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert same != bool(moves)


def test_averaged_weights_get_singular_vectors_of_their_own_for_a_while():
    """Vectors averaged like weights are not those of the averaged weights."""
    nets: list[Any] = []
    for seed in (0, 1):
        torch.manual_seed(seed)
        nets.append(spectral_norm(nn.Conv2d(6, 8, 3)).eval())
    net = nets[0]
    with torch.no_grad():
        states = (one.state_dict().values() for one in nets)
        for mine, theirs in zip(*states, strict=True):
            mine.lerp_(theirs, 0.5)
    before = copy.deepcopy(net.state_dict())
    assert torch.linalg.matrix_norm(net.weight.flatten(1), 2).item() > 1.2
    with settled(net):
        largest = torch.linalg.matrix_norm(net.weight.flatten(1), 2).item()
        assert largest == pytest.approx(1, rel=0.05)
        assert not any(part.training for part in spectral_parts(net))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())


def learnt(net: Any) -> list[Tensor]:
    return [p.grad for p in net.parameters() if p.grad is not None] + list(net.buffers())


def judged(net: Any) -> Any:
    """Feature matching looks at real pairs before the loss on synthetic ones goes backward."""
    logits, features = net(images(2, 3, 12, 12))
    with torch.no_grad():
        net(-images(2, 3, 12, 12))
    return sum(t.square().mean() for t in (*logits, *features))


def painted(net: Any) -> Any:
    size = (9, 8, 8) if net.ndim == 3 else (18, 16)
    return net(images(2, 3, *size), latents(net, size, 2)).square().mean()


@pytest.mark.parametrize(
    ("build", "loss"),
    [
        (partial(unet, (9, 8, 8), 3, spectral=True, blocks="residual", dropout=0.5), painted),
        (partial(unet, (18, 16), 3, norm="batch", up="cubic", down="maxpool"), painted),
        (partial(unet, (18, 16), 3, norm="none", up="transposed", skip="concat"), painted),
        *((partial(judge, norm=norm), judged) for norm in ("none", "batch")),
    ],
    ids=["spectral", "batch norm", "concatenated", "judge", "judge with batch norm"],
)
def test_checkpointing_leaves_gradients_and_state_as_they_are(build, loss):
    nets = [build(checkpointing=on).train() for on in (False, True)]
    for net in nets:
        for _ in range(2):  # state that a second pass moved would show in the second step
            loss(net).backward()
    assert all(torch.equal(a, b) for a, b in zip(*map(learnt, nets), strict=True))


def test_checkpointing_keeps_less_for_the_gradients():
    kept: list[dict[int, int]] = []
    for on in (False, True):
        net, held = unet((16, 16), 3, checkpointing=on, blocks="residual").train(), dict[int, int]()

        def pack(x: Tensor, held: dict[int, int] = held) -> Tensor:
            held[x.untyped_storage().data_ptr()] = x.untyped_storage().nbytes()
            return x

        given = images(1, 3, 16, 16), latents(net, (16, 16))
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            net(*given)
        weights = {p.data_ptr() for p in net.parameters()}
        kept.append({place: size for place, size in held.items() if place not in weights})
    assert sum(kept[1].values()) < 0.5 * sum(kept[0].values())


@torch.no_grad()
def test_no_features_of_a_tile_are_half_as_large_as_those_of_the_whole():
    size, seen = (96, 24, 24), list[int]()
    net = unet(size, 3).eval()
    for module in (m for m in net.modules() if isinstance(m, nn.Conv3d)):
        module.register_forward_hook(lambda module, given, made: seen.append(made.numel()))
    condition, drawn = images(1, 3, *size), latents(net, size)
    net(condition, drawn)
    whole = max(seen)
    seen.clear()
    draw_tiled(net, lambda w: cut(condition, w), size, drawn, 12)
    assert max(seen) < 0.5 * whole


@pytest.mark.parametrize(
    ("size", "spacing", "levels", "strides"),
    [
        ((32, 32), (1, 1), 3, [(2, 2), (2, 2)]),
        # Slices five times as thick as pixels are wide: in plane only, until voxels are even.
        ((16, 64, 64), (5, 1, 1), 4, [(1, 2, 2), (1, 2, 2), (2, 2, 2)]),
        # An axis of fewer than 8 voxels stays.
        ((6, 32, 32), (1, 1, 1), 3, [(1, 2, 2), (1, 2, 2)]),
        # 16 -> 8 -> 4 is as far as it goes.
        ((16, 16), (1, 1), 7, [(2, 2), (2, 2)]),
        ((7, 7), (1, 1), 4, []),
        ((32, 32), (1, 1), 1, []),
        ((16, 16, 6), (4, 4, 1), 2, [(2, 2, 1)]),
    ],
)
def test_strides_even_out_the_voxels_first(size, spacing, levels, strides):
    assert strides_for(size, spacing, levels) == strides


def test_activations_are_what_they_are_called_and_groups_divide_the_channels():
    names: tuple[Any, ...] = ("relu", "elu", "silu", "leaky_relu")
    values = [activation(name)(torch.tensor([-1.0])).item() for name in names]
    assert values == pytest.approx([0, -0.632, -0.269, -0.2], abs=1e-3)
    norms: list[Any] = [normalisation("group", 3, channels) for channels in (4, 12, 64)]
    assert [norm.num_groups for norm in norms] == [4, 4, 8]
