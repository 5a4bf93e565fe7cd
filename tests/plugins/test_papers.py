"""The papers' recipes: networks, what discriminators see, optimisers and order as they say.

One row for each network. Layers are those that run, in order: ``4/2:64`` is a convolution four wide
that strides by two and has 64 features, ``T`` a transposed one, ``max2`` a max-pooling. Where the
paper is silent they are its reference's (pix2pix, DCGAN, the 3D U-Net). With a plus: not the
paper's, and the recipe says so under ``open``. No paper counts parameters: they are what such
layers come to.
"""

from contextlib import nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import is_parametrized

from gansynth.core.generator import TrainingStep
from gansynth.core.registry import installed
from gansynth.core.schema import Schema
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_spec import ChainSpec, PerChannel
from gansynth.fitting.recipe import find_recipe
from gansynth.fitting.setup import resolve
from gansynth.nn.networks import PatchDiscriminator, UNetGenerator
from gansynth_cpggan.networks import ProgressiveDiscriminator, ProgressiveGenerator
from tests.expected import raises_fault
from tests.plugins import paper_data
from tests.plugins.paper_data import (
    LABELS,
    SEQUENCES,
    TISSUES,
    brains,  # noqa: F401  # a fixture
    options_of,
    sets_of,
    settings_of,
)

T1 = Schema(("t1",), TISSUES, (2.0,) * 3)
MRI = Schema(SEQUENCES, LABELS, (2.0,) * 3)
MERGED = replace(MRI, labels={**LABELS, "tissues:CSF": 5, "tissues:GM": 6, "tissues:WM": 7})
ONE = Schema(("t1",), LABELS, (1.0,) * 3)
LIVER = replace(ONE, labels={"background": 0, "tumour": 1})
SLICE = Schema(("t1",), {"background": 0}, (1.0, 1.0), "HW")
BRAINS = replace(SLICE, box_classes=("metastasis",))
SHIN, DONCENCO, MM = (54, 128, 128), (64, 240, 240), (150, 200, 160)

PIX2PIX = """
4/2:64 4/2:128 4/2:256 3,4,4/1,2,2:512 3,4,4/1,2,2:512 +3/1:512
T3,4,4/1,2,2:512 +3/1:512 T3,4,4/1,2,2:256 +3/1:256 T4/2:128 +3/1:128 T4/2:64 +3/1:64 T4/2:"""
PIX2PIX_70 = "4/2:64 4/2:128 4/2:256 4/1:512 4/1:1"
ENCODER = "3/1:64 3/1:64 max2 3/1:128 3/1:128 max2 3/1:256 3/1:256 max2 3/1:512 3/1:512"
U_NET = f"{ENCODER} +3/1:512 3/1:256 3/1:256 3/1:128 3/1:128 3/1:64 3/1:64 1/1:4"
MM_U_NET = """
3/1:16 3/1:16 max2 3/1:32 3/1:32 max2 3/1:64 3/1:64 max2 3/1:128 3/1:128 +3/1:128
3/1:64 3/1:64 3/1:64 3/1:32 3/1:32 3/1:32 3/1:16 3/1:16 3/1:16 1/1:1
"""
MM_D = "3/2:16 3/2:32 3/1:1"
DC_128 = "linear:8192 T4/2:512 T4/2:256 T4/2:128 T4/2:64 T4/2:1"
DC_64 = "linear:8192 T4/2:256 T4/2:128 T4/2:64 T4/2:1"
DC_D_64 = "4/2:64 4/2:128 4/2:256 4/2:512 linear:1"
DC_D_128 = "4/2:64 4/2:128 4/2:256 4/2:512 4/2:512 linear:1"
# Karras et al. 2018, table 2, to 256 x 256: one channel, and a map of boxes at every size.
PGGAN = """
linear:8192 3/1:512 3/1:512 3/1:512 3/1:512 3/1:512 3/1:512 3/1:512
3/1:256 3/1:256 3/1:128 3/1:128 3/1:64 3/1:64 1/1:1
"""
PGGAN_D = """
1/1:64 3/1:64 3/1:128 3/1:128 3/1:256 3/1:256 3/1:512 3/1:512 3/1:512 3/1:512 3/1:512
3/1:512 3/1:512 3/1:512 linear:512 linear:1
"""
LAYERS = {
    **{"mm": MM_U_NET, "mm-d": MM_D, "pix-d": PIX2PIX_70},
    **{"unet": U_NET, "unet-d": f"{ENCODER} 3/1:1", "pg": PGGAN, "pg-d": PGGAN_D},
    **{f"pix{n}": f"{PIX2PIX}{n}" for n in (1, 4)},
    **{"dc64": DC_64, "dc64-d": DC_D_64, "dc128": DC_128, "dc128-d": DC_D_128},
}
SCHEMAS = {
    **{"t1": T1, "mri": MRI, "merged": MERGED, "one": ONE, "liver": LIVER},
    **{"slice": SLICE, "brains": BRAINS},
}
# Recipe/set/part; what it is built for; generator, its parameters; discriminator, its own; and the
# edge in voxels of the patch that the discriminator judges at a time.
TABLE = """
shin2018/chain/tissues     t1     54,128,128  pix4  68900292 pix-d    11066049 70
shin2018/chain/t1          t1     54,128,128  pix1  68900289 pix-d    11066049 70
shin2018/chain/mri         merged 54,128,128  pix4  68924868 pix-d    11090625 70
shin2018/chain/segmenter   mri    54,128,128  pix4  68912580 pix-d    11078337 70
doncenco2022/SN            mri    64,240,240  unet  30431556 unet-d   14080193 84
doncenco2022/plain         mri    64,240,240  unet  30431556 unet-d   14080193 84
mmgan2020/pool             one    150,200,160 mm    2050705  mm-d     17329    15
mmgan2020-liver/run        liver  150,200,160 mm    2049841  mm-d     16465    15
han2018-dcgan/T1-128       slice  128,128     dc128 7769985  dc128-d  6958913  128
han2018-dcgan/Concat-64    slice  64,64       dc64  3574657  dc64-d   2763585  64
han2018-wgan/T1-128        slice  128,128     dc128 7769985  dc128-d  6958913  128
han2018-wgan/Concat-64     slice  64,64       dc64  3574657  dc64-d   2763585  64
han2019-cpggan/joint       brains 256,256     pg    23069447 pg-d     23072321 256
"""


def numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def parsed(line: str) -> tuple[Any, ...]:
    name, schema, size, layers, count, judged, judges, seen = line.split()
    networks = LAYERS[layers], int(count), LAYERS[judged], int(judges)
    return (name, SCHEMAS[schema], numbers(size), *networks, int(seen))


NETWORKS = [parsed(line) for line in TABLE.strip().splitlines()]
ALIKE = ("chain/t1", "chain/segmenter", "plain", "liver", "wgan")  # another row has their layers
EACH = pytest.mark.parametrize(
    "row",
    [
        pytest.param(row, marks=pytest.mark.slow if any(a in row[0] for a in ALIKE) else ())
        for row in NETWORKS
    ],
    ids=lambda row: row[0],
)


def made(row: Any, **over: int) -> Any:
    recipe, _, name = row[0].partition("/")
    kind, settings = settings_of(recipe, *name.split("/"))
    settings |= {key: str(value) for key, value in over.items() if key in settings}
    return paper_data.made(kind, settings, row[1], row[2])


# -- layers, parameters, patches -------------------------------------------------------------------


def entering(net: nn.Module, size: tuple[int, ...]) -> tuple[int, ...]:
    if isinstance(net, UNetGenerator | PatchDiscriminator):
        first = next(m for m in net.modules() if isinstance(m, nn.Conv3d | nn.Conv2d))
        return (1, first.in_channels, *size)
    if isinstance(net, ProgressiveDiscriminator):
        return (1, 2, *size)
    linear: Any = getattr(net, "first", None)
    return (1, 1, *size) if linear is None else (1, linear.in_features)


def called(net: nn.Module, seen: Tensor, size: tuple[int, ...]) -> Any:
    """What a network makes of what enters it; a progressive one at its full size."""
    if isinstance(net, UNetGenerator):
        return net(seen, [torch.empty(1, *shape) for shape in net.latent_shapes(size)])
    if isinstance(net, ProgressiveGenerator):
        return net(seen, torch.empty(1, 1, *size), len(net.growth.edges) - 1, 1.0)
    if isinstance(net, ProgressiveDiscriminator):
        return net(seen, len(net.growth.edges) - 1, 1.0, 1)
    return net(seen)


CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d, nn.ConvTranspose3d)


def brief(edges: Any) -> str:
    edges = tuple(edges)
    return str(edges[0]) if len(set(edges)) == 1 else ",".join(map(str, edges))


def run_layers(net: nn.Module, size: tuple[int, ...]) -> str:
    found: list[str] = []

    def note(module: Any, inputs: object, output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            found.append(f"linear:{module.out_features}")
        elif isinstance(module, nn.MaxPool3d):
            found.append(f"max{brief(module.kernel_size)}")
        elif isinstance(module, CONVOLUTIONS):
            kind = "T" if module.transposed else ""
            edges = f"{brief(module.kernel_size)}/{brief(module.stride)}"
            found.append(f"{kind}{edges}:{module.out_channels}")

    for module in net.modules():
        module.register_forward_hook(note)
    called(net, torch.empty(entering(net, size)), size)
    return " ".join(found)


def test_every_recipe_that_ships_has_its_networks_here():
    assert {row[0].partition("/")[0] for row in NETWORKS} == set(installed().names("recipes"))


def patch(layers: str, axis: int = 0) -> int:
    """Voxels along an axis that a verdict of such layers sees."""
    seen, apart = 1, 1
    for layer in layers.split():
        if layer.startswith("max"):
            edge, stride = 2, 2
        else:
            parts = layer.partition(":")[0].split("/")
            edge, stride = (numbers(part)[min(axis, part.count(","))] for part in parts)
        seen, apart = seen + (edge - 1) * apart, apart * stride
    return seen


@EACH
def test_a_recipe_has_its_papers_layers_patches_and_parameters(row, monkeypatch):
    # Of shapes alone, without numbers; autocast knows no such device.
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: nullcontext())
    with torch.device("meta"):
        nets = made(row).nets
        judges = [name for name in nets if name not in ("generator", "perceptor")]
        expected = {name: row[5:7] for name in judges} | {"generator": row[3:5]}
        for name, (layers, parameters) in expected.items():
            assert run_layers(nets[name], row[2]) == " ".join(layers.replace("+", "").split())
            assert sum(p.numel() for p in nets[name].parameters()) == parameters
    if "linear" not in row[5]:  # else it sees the whole image
        assert patch(row[5]) == row[7]


def patchgan(strides: Any, channels: int) -> PatchDiscriminator:
    own: Any = {"spectral": False, "texture_head": False, "down": "strided4", "stem": False}
    return PatchDiscriminator(len(strides[0]), channels, 64, strides, norm="batch", **own)


def test_in_2d_it_is_the_published_70_pixel_patchgan():
    """Of two RGB images side by side; Isola et al. 2017's own code has 2,769,601 parameters."""
    with torch.device("meta"):
        net = patchgan([(2, 2)] * 3, 6)
        (verdict,), _ = net(torch.empty(1, 6, 256, 256))
        assert patch(run_layers(net, (256, 256))) == 70
    assert sum(p.numel() for p in net.parameters()) == 2_769_601
    assert verdict.shape == (1, 1, 30, 30)


def test_along_thick_slices_a_patch_has_as_many_voxels_as_their_strides_make():
    """Strides as spacings of 1:1, 2:1, 4:1 and 8:1 have them; the other axes are halved thrice."""
    edges = []
    for first in range(4):
        with torch.device("meta"):
            net = patchgan([((1 if i < first else 2), 2, 2) for i in range(3)], 1)
            layers = run_layers(net, (94, 94, 94))
        edges.append([patch(layers, axis) for axis in range(3)])
    assert edges == [[70, 70, 70], [36, 70, 70], [20, 70, 70], [11, 70, 70]]


# -- what is told, and how they learn --------------------------------------------------------------

BRAIN, BODY = ("label:0", "label:1", "label:2", "label:4", "body"), ("label:0", "label:1", "body")
TURNS, BOTH = [["discriminator"], ["generator"]] * 2, [["generator", "discriminator"]] * 4
PIX_LOSS = {"loss": "nonsaturating", "adversarial": 1, "l1": 100, "dropout": 0.5}
U_STYLE = {"skip": "concat", "noise": False, "output": "tanh"}
LSGAN = {"loss": "lsgan", "l1": 0, "feature_matching": 0, "perceptual": 0}
SHINS = {"skip": "concat", "noise": False, "batch_size": 1, "epochs": 200, "feature_matching": 0}
IMAGES = {"output": "tanh", "l1_lowpass": 1, "perceptual": 0}
MAPS = {"windowed": True, "dice": 0}
MMS = {
    **LSGAN,
    "adversarial": 0.5,
    "batch_size": 1,
    "decay": "linear",
    "decay_from": 0.5,
    **U_STYLE,
}
# Fig. 3: enlarged, halved by a convolution three wide, laid beside the encoder's.
MMS |= {"up": "cubic", "narrow": "after", "activation": "leaky_relu", "dropout": 0}
PIX: Any = (BOTH, (2e-4, 2e-4), (0.5, 0.999), False)
PIX_IMAGES, PIX_MAPS = (({**SHINS, **PIX_LOSS, **own}, *PIX) for own in (IMAGES, MAPS))
TURN = {**LSGAN, "adversarial": 1, "batch_size": 1, "steps": 2 * 94720, "decay": "none", **U_STYLE}
TURN |= {"up": "nearest", "narrow": "none", "activation": "relu", "norm": "instance", "dropout": 0}
DON: Any = (TURN, TURNS, (1e-4, 1e-4), (0.9, 0.999))
TISSUE, TUMOUR = (tuple(f"drawn:{v}" for v in values) for values in ((0, 1, 2, 3), (0, 1, 2, 4)))
GIVEN, ALL = (
    tuple(f"given:{c}" for c in SEQUENCES),
    tuple(f"label:{v}" for v in (0, 1, 2, 4, 5, 6, 7)),
)
# Row of NETWORKS, told channels (of both players), drawn ones, options, turns, rates, betas, and
# whether every convolution is spectrally normalised.
LEARNT: list[tuple[Any, ...]] = [
    (0, ("given:t1",), TISSUE, *PIX_MAPS),
    (2, ALL, SEQUENCES, *PIX_IMAGES),
    (3, GIVEN, TUMOUR, *PIX_MAPS),
    (4, BRAIN, SEQUENCES, *DON, True),
    (5, BRAIN, SEQUENCES, *DON, False),
    (6, BRAIN, ("t1",), {**MMS, "epochs": 200, "pool": 4}, BOTH, (4e-4, 1e-4), (0.0, 0.9), True),
    (7, BODY, ("t1",), {**MMS, "epochs": 100, "pool": 4}, BOTH, (4e-5, 1e-5), (0.0, 0.9), True),
]


@pytest.mark.parametrize("asked", LEARNT, ids=lambda asked: NETWORKS[asked[0]][0])
def test_a_recipe_is_told_and_learns_as_its_paper_says(asked):
    number, told, drawn, options, turns, rates, betas, spectral = asked
    row = NETWORKS[number]
    recipe, _, name = row[0].partition("/")
    kind, settings = settings_of(recipe, *name.split("/"))
    loop, own = options_of(settings, kind)
    every = own.layers.model_dump() | loop.model_dump() | own.model_dump()
    assert every.items() >= options.items()
    small = {"width": 4, "d_width": 4, "levels": 2, "d_levels": 2}
    gan = paper_data.build(settings, row[1], (16, 32, 32), kind, **small)
    target = tuple(c if ":" in c else f"image:{c}" for c in drawn)
    assert (gan.condition_channels, gan.target_channels) == (told, target)
    for key, (_, names) in gan.channel_axes().items():
        # Both players are told; pix2pix's discriminator sees what the image was made of, too.
        assert not key.startswith("discriminator/") or names == (*target, *told)
    assert [[p.player for p in gan.phases() if p.due(i)] for i in range(4)] == turns
    made = [gan.optimizer(p, gan.nets[p].parameters()) for p in ("generator", "discriminator")]
    assert [type(one) for one in made] == [torch.optim.Adam] * 2
    assert tuple(one.defaults["lr"] for one in made) == rates
    assert {one.defaults["betas"] for one in made} == {betas}
    layers = [m for net in gan.nets.values() for m in net.modules() if isinstance(m, CONVOLUTIONS)]
    assert [is_parametrized(m) for m in layers] == [spectral] * len(layers)


def test_shins_chain_begins_on_the_tissue_set():
    (one,) = sets_of("shin2018").values()
    assert isinstance(one.composite, ChainSpec)
    parts = {part.name: part for part in one.composite.parts}
    assert list(parts) == ["tissues", "t1", "mri", "segmenter"]
    read = {"frame": "108,256,256", "whole": "54,128,128"}
    for name in ("tissues", "t1"):
        # The tissue set is brought to the same grid, and calls its T1 otherwise.
        found = parts[name]
        assert (found.data, found.read, found.names) == ("brains:healthy", read, {"T1": "t1"})
    assert (parts["mri"].labels_by, parts["mri"].init_from) == ("tissues", "t1")
    assert parts["segmenter"].data is None
    assert one.request.read == read
    names = [edit.partition(":")[0] for edit in one.edits or ()]
    assert names == ["shift", "enlarge", "shrink", "clip"]


def test_doncenco_fits_two_sets_and_three_more_if_asked():
    assert list(sets_of("doncenco2022", only=())) == ["SN", "plain"]
    every = sets_of("doncenco2022")
    assert list(every) == ["SN", "plain", "local", "perceptual", "local-perceptual"]
    read = {"frame": "95,240,240", "whole": "64,240,240", "resampling": "nearest"}
    assert all(dict(one.request.read) == read for one in every.values())


def test_mmgan_has_a_model_for_each_sequence_and_one_set_without_pool():
    usual, every = sets_of("mmgan2020", only=()), sets_of("mmgan2020")
    assert list(usual) == ["pool"]
    assert list(every) == ["pool", "no-pool"]
    assert all(one.composite == PerChannel("cgan3d", "each") for one in every.values())
    assert [options_of(one.settings)[1].pool for one in every.values()] == [4, 0]
    assert options_of(usual["pool"].settings)[1].body_of == "t1"
    assert dict(usual["pool"].request.read) == {"frame": "150,200,160"}
    for recipe in ("mmgan2020", "mmgan2020-liver"):
        one, *_ = sets_of(recipe).values()
        names = [edit.partition(":")[0] for edit in one.edits or ()]
        assert names == ["elastic", "flip", "rotate", "scale", "clip"]


@pytest.mark.parametrize("name", ["shin2018", "mmgan2020"])
def test_a_recipe_finds_t1_by_the_names_that_data_have_for_it(name):
    recipe = find_recipe(name)
    for called in ("T1", "t1", "t1n", "T1w"):
        assert recipe.called(("flair", called, "t1ce")) == {"T1": called}
    with raises_fault("fitting.recipe-channel-missing"):
        recipe.called(("flair", "t2"))


# -- doncenco's pairs ------------------------------------------------------------------------------

SMALL = {"width": "4", "d_width": "4", "levels": "2", "d_levels": "2", "steps": "2"}


def job_of(name: str, **changes: str) -> Any:
    settings = {**settings_of("doncenco2022", name)[1], **SMALL, **changes}
    return resolve("cgan3d", SourceRequest("brains", "tumours"), settings, None, "cpu")


def stepped(job: Any, count: int) -> TrainingStep:
    stage = job.generator.stages()[0]
    rng = torch.Generator().manual_seed(0)
    return TrainingStep(job.batches(0, stage, range(count)), stage, 0, 0, rng, total=count)


@pytest.fixture(scope="module")
def pairs():
    """A job of the recipe's at the smallest size, and its first batch."""
    job = job_of("SN")
    return SimpleNamespace(job=job, batch=stepped(job, 3).batch)


def test_doncenco_asks_for_the_tumour_of_a_on_the_brain_of_b(pairs):
    """Figures 4 and 7: A's tumour, B's brain, nothing of B's own tumour, nothing beyond B."""
    batch, job = pairs.batch, pairs.job
    donors = {i: job.crops.cut(i, np.random.default_rng(0)).labels for i in job.source.train_ids}
    for number in range(3):
        own, asked = batch.labels[number].numpy(), batch.asked[number].numpy()
        assert not np.array_equal(own, asked)
        # The brain stays where it is: what is no tumour of it is its own class.
        body = (batch.context[number].numpy() == 1) | (own > 0)
        assert np.array_equal((batch.asked_context[number].numpy() == 1) | (asked > 0), body)
        assert not (asked[~body] > 0).any()
        sizes = {i: (labels > 0).sum() for i, labels in donors.items()}
        assert 0 < (asked > 0).sum() <= max(sizes.values())


def test_the_same_step_asks_for_the_same_pairs(pairs):
    stage = pairs.job.generator.stages()[0]
    again = pairs.job.batches(0, stage, range(3))
    assert torch.equal(again.asked, pairs.batch.asked)
    assert torch.equal(pairs.job.batches(0, stage, range(1, 3)).asked, pairs.batch.asked[1:])
    assert not torch.equal(pairs.job.batches(1, stage, range(3)).asked, pairs.batch.asked)


def test_the_discriminator_sees_b_with_bs_label_and_the_sample_with_as(pairs, monkeypatch):
    """Figure 8."""
    step, gan, batch = stepped(pairs.job, 3), pairs.job.generator, pairs.batch
    own, asked = gan._condition(step), gan._asked(step)
    judged: list[Any] = []

    def loss_terms(step: Any, judge: Any, *of: Any) -> dict[str, Tensor]:
        judged.extend(of)
        return {}

    monkeypatch.setattr(gan, "_loss_terms", loss_terms)
    gan._discriminator(step)
    (real, real_condition), (fake, fake_condition) = judged
    assert torch.equal(real, batch.image)
    assert torch.equal(real_condition, own)
    assert torch.equal(fake, step.scratch["fake"])
    assert torch.equal(fake_condition, asked)
    for condition, labels, context in (
        (own, batch.labels, batch.context),
        (asked, batch.asked, batch.asked_context),
    ):
        for channel, value in enumerate(LABELS.values()):
            wanted = (labels == value) & ((value != 0) | (context != 1))
            assert torch.equal(condition[:, channel] == 1, wanted)
    assert own[:, 4].sum() > 0  # the brain


def test_losses_that_compare_images_look_where_both_labels_are_alike():
    job = job_of("local-perceptual", local_size="8")
    gan = job.generator
    step: Any = stepped(job, 2)
    labels, asked = step.batch.labels, step.batch.asked
    assert set(gan.nets) == {"generator", "discriminator", "local", "perceptor"}
    alike = gan.alike(step)
    assert torch.equal(alike[:, 0], torch.eq(labels, asked))
    terms = gan.phases()[0].loss(step)
    assert set(terms) == {"adversarial", "local_adversarial", "perceptual"}
    assert all(torch.isfinite(term) for term in terms.values())


def test_edits_that_have_cases_take_turns_are_refused_while_training():
    with raises_fault("fitting.fit-edits-in-turns"):
        job_of("SN", fit_edits='["transplant:pairs=ordered"]')
