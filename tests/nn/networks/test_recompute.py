"""Gradient checkpointing: the same gradients, to the bit, of a network that keeps less."""
# mypy: disallow-untyped-calls=False

import copy
from typing import Any

import pytest
import torch

from gansynth.nn.networks import PatchDiscriminator, UNetGenerator, UNetStyle
from gansynth.nn.networks.blocks import strides_for
from gansynth.nn.networks.spectral import settled, spectral_parts


def pair(size: tuple[int, ...], **style: Any) -> list[Any]:
    """The same generator without and with checkpointing."""
    nets = []
    for on in (False, True):
        torch.manual_seed(0)
        strides = strides_for(size, (1.0,) * len(size), 3)
        built = UNetStyle(checkpointing=on, **style)
        nets.append(UNetGenerator(len(size), 2, 1, 4, strides, style=built).train())
    return nets


def judges(**options: Any) -> list[Any]:
    nets = []
    for on in (False, True):
        torch.manual_seed(0)
        nets.append(PatchDiscriminator(2, 2, 4, [(2, 2)], checkpointing=on, **options).train())
    return nets


def inputs(net: UNetGenerator, size: tuple[int, ...]) -> tuple[torch.Tensor, list[torch.Tensor]]:
    rng = torch.Generator().manual_seed(1)
    shapes = net.latent_shapes(size)
    return torch.randn(2, 2, *size, generator=rng), [
        torch.randn(2, *shape, generator=rng) for shape in shapes
    ]


def gradients(net: torch.nn.Module) -> list[torch.Tensor | None]:
    return [p.grad for p in net.parameters()]


def same(one: list[Any], other: list[Any]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


STYLES: list[dict[str, Any]] = [
    {},
    {"spectral": True, "blocks": "residual", "dropout": 0.5},
    {"norm": "batch", "up": "cubic", "down": "maxpool", "activation": "elu"},
    {"norm": "none", "up": "transposed", "skip": "concat", "spectral": True, "double": True},
]


@pytest.mark.parametrize("style", STYLES, ids=str)
@pytest.mark.parametrize("size", [(9, 8, 8), (18, 16)], ids=str)
def test_a_generators_gradients_and_state_are_the_same(size, style):
    kept, again = pair(size, **style)
    for net in (kept, again):
        for _ in range(2):  # state that a second pass moved would show in the second step
            condition, latents = inputs(net, size)
            net(condition, latents).square().mean().backward()
    assert same(gradients(kept), gradients(again))
    assert same(list(kept.buffers()), list(again.buffers()))


@pytest.mark.parametrize("norm", ["none", "instance", "batch"])
def test_a_discriminators_gradients_are_the_same_with_passes_in_between(norm):
    """Feature matching looks at real pairs before the loss on synthetic ones goes backward."""
    kept, again = judges(norm=norm)
    x = torch.randn(2, 2, 12, 12, generator=torch.Generator().manual_seed(0))
    for net in (kept, again):
        logits, features = net(x)
        with torch.no_grad():
            net(-x)
        loss = sum(t.square().mean() for t in (*logits, *features))
        loss.backward()
    assert same(gradients(kept), gradients(again))
    assert same(list(kept.buffers()), list(again.buffers()))


def test_second_derivatives_are_the_same():
    """R1 and the gradient penalty differentiate twice."""
    kept, again = judges(norm="instance")
    x = torch.randn(2, 2, 12, 12, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for net in (kept, again):
        value = sum(head.mean() for head in net(x)[0])
        (slope,) = torch.autograd.grad(value, x, create_graph=True)
        slope.square().sum().backward()
    found = [g for g in gradients(again) if g is not None]
    expected = [g for g in gradients(kept) if g is not None]
    assert len(found) == len(expected)
    assert all(torch.allclose(a, b, rtol=1e-5) for a, b in zip(found, expected, strict=True))


def test_nothing_is_computed_twice_where_no_gradient_is_asked_for():
    _, net = pair((8, 8))
    condition, latents = inputs(net, (8, 8))
    calls: list[int] = []
    net.middle.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        net(condition, latents)
    assert len(calls) == 1


# -- singular vectors ------------------------------------------------------------------------------


def normed(seed: int) -> Any:
    torch.manual_seed(seed)
    return torch.nn.utils.parametrizations.spectral_norm(torch.nn.Conv2d(6, 8, 3)).eval()


def test_averaged_weights_get_vectors_of_their_own():
    """Vectors averaged like weights are not those of the averaged weights."""
    net, other = normed(0), normed(1)
    with torch.no_grad():
        for mine, theirs in zip(
            net.state_dict().values(), other.state_dict().values(), strict=True
        ):
            mine.lerp_(theirs, 0.5)
    assert torch.linalg.matrix_norm(net.weight.flatten(1), 2).item() > 1.2
    with settled(net):
        assert torch.linalg.matrix_norm(net.weight.flatten(1), 2).item() == pytest.approx(
            1, rel=0.05
        )


def test_and_leave_the_network_as_it_was():
    net = normed(0)
    before = copy.deepcopy(net.state_dict())
    with settled(net):
        assert not any(part.training for part in spectral_parts(net))
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert not net.training
