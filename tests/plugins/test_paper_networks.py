"""Every recipe's networks beside its paper's: layers, parameters, what a discriminator sees.

One row for each network. Layers are those that run, in order: ``4/2:64`` is a convolution four wide
that strides by two and has 64 features, ``T`` a transposed one, ``max2`` a max-pooling. Where the
paper is silent they are its reference's (pix2pix, DCGAN, the 3D U-Net). With a plus: not the
paper's, and the recipe says so under ``open``. No paper counts parameters: they are what such
layers come to.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from gansynth.core.generator import Generator
from gansynth.core.registry import installed
from gansynth.core.schema import Schema
from gansynth.fitting.composite_spec import texts
from gansynth.fitting.recipe import find_recipe
from gansynth.nn.networks import PatchDiscriminator, UNetGenerator
from gansynth.nn.networks.blocks import Norm
from gansynth.runtime.options import overlay, split_settings
from gansynth.training.loop import FitOptions
from gansynth_cpggan.networks import Judge, Painter
from gansynth_segmenter.networks import build
from gansynth_segmenter.options import SegmenterOptions
from tests.plugins.paper_data import LABELS, SEQUENCES, TISSUES

T1 = Schema(("t1",), TISSUES, (2.0,) * 3)
MRI = Schema(SEQUENCES, LABELS, (2.0,) * 3)
MERGED = replace(MRI, labels={**LABELS, "tissues:CSF": 5, "tissues:GM": 6, "tissues:WM": 7})
ONE = Schema(("t1",), LABELS, (1.0,) * 3)
LIVER = replace(ONE, labels={"background": 0, "tumour": 1})
SLICE = Schema(("t1",), {"background": 0}, (1.0, 1.0), "HW")
BRAINS = replace(SLICE, box_classes=("metastasis",))

PIX2PIX_U_NET = """
4/2:64 4/2:128 4/2:256 3,4,4/1,2,2:512 3,4,4/1,2,2:512 +3/1:512
T3,4,4/1,2,2:512 +3/1:512 T3,4,4/1,2,2:256 +3/1:256 T4/2:128 +3/1:128 T4/2:64 +3/1:64 T4/2:{drawn}
"""
PIX2PIX_70 = "4/2:64 4/2:128 4/2:256 4/1:512 4/1:1"
U_NET_ENCODER = "3/1:64 3/1:64 max2 3/1:128 3/1:128 max2 3/1:256 3/1:256 max2 3/1:512 3/1:512"
MMGAN_U_NET = """
3/1:16 3/1:16 max2 3/1:32 3/1:32 max2 3/1:64 3/1:64 max2 3/1:128 3/1:128 +3/1:128
3/1:64 3/1:64 3/1:64 3/1:32 3/1:32 3/1:32 3/1:16 3/1:16 3/1:16 1/1:1
"""
MMGAN_D = "3/2:16 3/2:32 3/1:1"
PGGAN = """
linear:8192 3/1:512 3/1:512 3/1:512 3/1:512 3/1:512 3/1:512 3/1:512
3/1:256 3/1:256 3/1:128 3/1:128 3/1:64 3/1:64 1/1:1
"""
PGGAN_D = """
1/1:64 3/1:64 3/1:128 3/1:128 3/1:256 3/1:256 3/1:512 3/1:512 3/1:512 3/1:512 3/1:512
3/1:512 3/1:512 3/1:512 linear:512 linear:1
"""
LESION_D = "3/1:32 3/2:64 3/2:128 3/1:1 1/1:1"


@dataclass(frozen=True)
class Network:
    """A network of a recipe.

    Attributes:
        recipe, run, part: its set's name, and its part's; empty for the only one.
        name: of the network.
        schema, size: what it is built for.
        layers: see above.
        parameters: how many.
        sees: edges of the patch that each of a discriminator's heads judges at a time, voxels.
    """

    recipe: str
    run: str
    part: str
    name: str
    schema: Schema
    size: tuple[int, ...]
    layers: str
    parameters: int
    sees: tuple[tuple[int, ...], ...] = ()

    def __str__(self) -> str:
        return "-".join(filter(None, (self.recipe, self.run, self.part, self.name)))


def shin(part: str, schema: Schema, parameters: tuple[int, int]) -> Iterator[Network]:
    drawn = len(schema.labels if part in ("tissues", "segmenter") else schema.channels)
    common = ("shin2018", "chain", part)
    u_net = PIX2PIX_U_NET.format(drawn=drawn)
    where = schema, (54, 128, 128)
    yield Network(*common, "generator", *where, u_net, parameters[0])
    yield Network(*common, "discriminator", *where, PIX2PIX_70, parameters[1], ((70,) * 3,))


def doncenco(run: str) -> Iterator[Network]:
    common = ("doncenco2022", run, "")
    decoder = "+3/1:512 3/1:256 3/1:256 3/1:128 3/1:128 3/1:64 3/1:64 1/1:4"
    where = MRI, (64, 240, 240)
    u_net = f"{U_NET_ENCODER} {decoder}"
    yield Network(*common, "generator", *where, u_net, 30_431_556)
    judge = f"{U_NET_ENCODER} 3/1:1"
    yield Network(*common, "discriminator", *where, judge, 14_080_193, ((84,) * 3,))


def mmgan(recipe: str, run: str, schema: Schema, sizes: tuple[int, int]) -> Iterator[Network]:
    where = (recipe, run, ""), (schema, (150, 200, 160))
    yield Network(*where[0], "generator", *where[1], MMGAN_U_NET, sizes[0])
    yield Network(*where[0], "discriminator", *where[1], MMGAN_D, sizes[1], ((15,) * 3,))


def han(recipe: str, run: str, parameters: tuple[int, int]) -> Iterator[Network]:
    edge = int(run.rpartition("-")[2])
    widths = [64, 128, 256, 512] + [512] * (edge == 128)
    up = " ".join(f"T4/2:{w}" for w in [*widths[-2::-1], 1])
    down = " ".join(f"4/2:{w}" for w in widths)
    where = (recipe, run, ""), (SLICE, (edge, edge))
    yield Network(
        *where[0], "generator", *where[1], f"linear:{widths[-1] * 16} {up}", parameters[0]
    )
    judge = f"{down} linear:1"
    yield Network(*where[0], "discriminator", *where[1], judge, parameters[1], ((edge, edge),))


def pggan(run: str) -> Iterator[Network]:
    """Karras et al. 2018, table 2, to 256 x 256: one channel, and a map of boxes at every size."""
    where = ("han2019-cpggan", run, ""), (BRAINS, (256, 256))
    yield Network(*where[0], "generator", *where[1], PGGAN, 23_069_447)
    yield Network(*where[0], "discriminator", *where[1], PGGAN_D, 23_072_321, ((256, 256),))


NETWORKS = [
    *shin("tissues", T1, (68_900_292, 11_066_049)),
    *shin("t1", T1, (68_900_289, 11_066_049)),
    *shin("mri", MERGED, (68_924_868, 11_090_625)),
    *shin("segmenter", MRI, (68_912_580, 11_078_337)),
    *doncenco("SN"),
    *doncenco("plain"),
    *mmgan("mmgan2020", "pool", ONE, (2_050_705, 17_329)),
    *mmgan("mmgan2020-liver", "run", LIVER, (2_049_841, 16_465)),
    Network(
        *("lesion", "run", "", "discriminator", MRI, (64, 64, 64), LESION_D),
        *(288_002, ((17,) * 3, (5,) * 3)),
    ),
    Network(
        *("lesion", "run", "", "local", MRI, (64, 64, 64), LESION_D),
        *(288_002, ((17,) * 3, (5,) * 3)),
    ),
    *han("han2018-dcgan", "T1-128", (7_769_985, 6_958_913)),
    *han("han2018-dcgan", "Concat-64", (3_574_657, 2_763_585)),
    *han("han2018-wgan", "T1-128", (7_769_985, 6_958_913)),
    *han("han2018-wgan", "Concat-64", (3_574_657, 2_763_585)),
    *pggan("joint"),
]
JUDGES = [one for one in NETWORKS if one.sees]


def built(one: Network, **over: int) -> Generator:
    """A generator of the recipe at full size, or with some settings changed."""
    recipe = find_recipe(one.recipe)
    spec = recipe.named(SEQUENCES)
    each = {run.name.replace("{channel}", "T1"): run for run in spec.runs}
    settings = overlay(texts(spec.set), texts(each[one.run].set))
    for part in each[one.run].parts or ():
        if part.name == one.part:
            settings = overlay(settings, texts(part.set))
    settings |= {key: str(value) for key, value in over.items() if key in settings}
    cls = installed().generator(spec.generator)
    own = split_settings(settings, FitOptions, cls.Options, generator=spec.generator)[1]
    return cls(one.schema, one.size, own)


def shapes(net: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
    """Of what enters a network of this size, one sample."""
    if isinstance(net, UNetGenerator | PatchDiscriminator):
        first = next(m for m in net.modules() if isinstance(m, nn.Conv3d))
        return (1, first.in_channels, *size)
    if isinstance(net, Judge):
        return (1, 2, *size)
    linear: Any = getattr(net, "first", None)
    return (1, 1, *size) if linear is None else (1, linear.in_features)


def called(net: nn.Module, seen: Tensor, size: tuple[int, ...]) -> Any:
    """What a network makes of what enters it; a progressive one at its full size."""
    if isinstance(net, UNetGenerator):
        return net(seen, [torch.empty(1, *shape) for shape in net.latent_shapes(size)])
    if isinstance(net, Painter):
        return net(seen, torch.empty(1, 1, *size), len(net.growth.edges) - 1, 1.0)
    return net(seen, len(net.growth.edges) - 1, 1.0, 1) if isinstance(net, Judge) else net(seen)


def run_layers(net: nn.Module, size: tuple[int, ...]) -> str:
    """What runs of a network, as ``Network.layers`` has it."""
    found: list[str] = []

    def note(module: Any, inputs: object, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            found.append(f"linear:{module.out_features}")
        elif isinstance(module, nn.MaxPool3d):
            found.append(f"max{_brief(module.kernel_size)}")
        elif isinstance(module, CONVOLUTIONS):
            kind = "T" if module.transposed else ""
            edges = f"{_brief(module.kernel_size)}/{_brief(module.stride)}"
            found.append(f"{kind}{edges}:{module.out_channels}")

    for module in net.modules():
        module.register_forward_hook(note)
    called(net, torch.empty(shapes(net, size)), size)
    return " ".join(found)


CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def _brief(edges: Any) -> str:
    edges = tuple(edges)
    return str(edges[0]) if len(set(edges)) == 1 else ",".join(map(str, edges))


def linear(net: nn.Module) -> nn.Module:
    """The network without what lets gradients reach other voxels, or not reach some.

    A normalisation's mean is of all voxels; a maximum hides those that are less; and no weight is
    zero, or takes away what another adds.
    """
    for module in list(net.modules()):
        if is_parametrized(module):
            remove_parametrizations(module, "weight")
        for name, child in module.named_children():
            if isinstance(child, nn.MaxPool3d):
                setattr(module, name, nn.AvgPool3d(child.kernel_size, child.stride))
            elif "Norm" in type(child).__name__:
                setattr(module, name, nn.Identity())
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(0.1 if parameter.ndim > 1 else 0)
    return net


def patches(net: nn.Module, size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Edges of what reaches the middle verdict of each head, by gradient."""
    pair = torch.ones(shapes(net, size), requires_grad=True)
    found = called(net, pair, size)
    edges = []
    for head in found[0] if isinstance(found, tuple) else [found]:
        middle = head[(0, 0, *(n // 2 for n in head.shape[2:]))]
        (gradient,) = torch.autograd.grad(middle, pair, retain_graph=True)
        where = gradient[0].abs().amax(0).nonzero()
        edges.append(tuple((where.amax(0) - where.amin(0) + 1).tolist()))
    return edges


def along_each_axis(net: nn.Module, ndim: int, edge: int) -> list[tuple[int, ...]]:
    """The same, in images that are long along one axis at a time: it takes less."""
    long = [tuple(edge if i == axis else 16 for i in range(ndim)) for axis in range(ndim)]
    each = [patches(net, size) for size in long]
    heads = range(len(each[0]))
    return [tuple(each[axis][head][axis] for axis in range(ndim)) for head in heads]


def test_every_recipe_that_ships_has_its_networks_here():
    assert {one.recipe for one in NETWORKS} == set(installed().names("recipes"))


@pytest.mark.parametrize("one", NETWORKS, ids=str)
def test_its_layers_and_parameters_are_the_papers(one):
    with FakeTensorMode():
        net = built(one).nets[one.name]
        assert run_layers(net, one.size) == " ".join(one.layers.replace("+", "").split())
    assert sum(p.numel() for p in net.parameters()) == one.parameters


@pytest.mark.parametrize("one", JUDGES, ids=str)
def test_its_discriminator_sees_patches_of_the_papers_size(one):
    """However many features it has: four in its first layer, for time."""
    net = linear(built(one, width=4, d_width=4, max_width=8).nets[one.name])
    if one.sees[0] == one.size:
        assert patches(net, one.size) == list(one.sees)
    else:  # of an image that patches of that size lie well within
        assert along_each_axis(net, len(one.size), max(one.sees[0]) + 24) == list(one.sees)


def test_shins_segmenter_as_a_host_is_judged_by_the_same():
    """``gansynth augment --target segmenter --set network=pix2pix``, the arms of Shin's table 1."""
    options = SegmenterOptions.read({"network": "pix2pix", "width": "4"})
    net = linear(build(options, MRI, (54, 128, 128)).nets["discriminator"])
    assert run_layers(net, (54, 128, 128)) == "4/2:4 4/2:8 4/2:16 4/1:32 4/1:1"
    assert along_each_axis(net, 3, 94) == [(70, 70, 70)]


# -- pix2pix's PatchGAN, where strides differ from axis to axis ------------------------------------


def patchgan(
    strides: list[tuple[int, ...]], channels: int, width: int = 64, norm: Norm = "batch"
) -> PatchDiscriminator:
    return PatchDiscriminator(
        *(len(strides[0]), channels, width, strides),
        spectral=False,
        texture_head=False,
        norm=norm,
        down="strided4",
        stem=False,
    )


def test_in_2d_it_is_the_published_70_pixel_patchgan():
    """Of two RGB images side by side; Isola et al. 2017's own code has 2,769,601 parameters."""
    with torch.device("meta"):
        net = patchgan([(2, 2)] * 3, 6)
        (verdict,), _ = net(torch.empty(1, 6, 256, 256))
    assert sum(p.numel() for p in net.parameters()) == 2_769_601
    assert verdict.shape == (1, 1, 30, 30)


def test_along_thick_slices_a_patch_has_as_many_voxels_as_their_strides_make():
    """Strides as spacings of 1:1, 2:1, 4:1 and 8:1 have them; the other axes are halved thrice."""
    edges = []
    for first in range(4):
        net = patchgan([((1 if i < first else 2), 2, 2) for i in range(3)], 1, width=2)
        edges += along_each_axis(linear(net), 3, 94)
    assert edges == [(70, 70, 70), (36, 70, 70), (20, 70, 70), (11, 70, 70)]


def test_a_window_smaller_than_its_patch_is_judged_all_the_same():
    net = patchgan([(2, 2)] * 3, 1, norm="none")
    assert [tuple(net(torch.ones(1, 1, n, 9))[0][0].shape[2:]) for n in (3, 8, 40)] == [
        *((1, 1), (1, 1), (3, 1)),
    ]
