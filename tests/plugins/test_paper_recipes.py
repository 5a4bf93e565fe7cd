"""The papers' 3D recipes: networks, discriminators' inputs, optimisers and order as they say."""

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils.parametrize import is_parametrized

from gansynth.core.generator import Step
from gansynth.core.registry import installed
from gansynth.core.schema import Schema
from gansynth.core.source import SourceRequest
from gansynth.fitting.composite_spec import ChainSpec, PerChannel
from gansynth.fitting.recipe import find_recipe
from gansynth.fitting.setup import resolve
from gansynth.nn.networks import PatchDiscriminator, UNetGenerator
from gansynth.runtime.errors import UsageFault
from gansynth_cgan3d.model import CGAN3D
from tests.plugins import paper_data
from tests.plugins.paper_data import LABELS, SEQUENCES, SIZE, TISSUES, build, options_of, sets_of

MRI = Schema(SEQUENCES, LABELS, (2.0, 2.0, 2.0))
CONVOLUTIONS = (nn.Conv3d, nn.ConvTranspose3d)


@pytest.fixture(autouse=True, scope="module")
def _brains():
    paper_data.register()
    yield
    installed().remove("brains")


def convolutions(net: nn.Module) -> list[nn.Module]:
    return [m for m in net.modules() if isinstance(m, CONVOLUTIONS)]


def of(net: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in net.modules())


def parts_of(settings: Any, spec: ChainSpec) -> dict[str, dict[str, str]]:
    return {part.name: dict(part.settings(settings)) for part in spec.parts}


def net_of(gan: CGAN3D) -> tuple[UNetGenerator, PatchDiscriminator]:
    generator, discriminator = gan.nets["generator"], gan.nets["discriminator"]
    assert isinstance(generator, UNetGenerator)
    assert isinstance(discriminator, PatchDiscriminator)
    return generator, discriminator


def inputs(gan: CGAN3D) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Channels that the discriminator sees: what is drawn, and what of the condition."""
    (drawn_and_told,) = (
        names for key, (_, names) in gan.channel_axes().items() if key.startswith("discriminator/")
    )
    drawn = gan.target_channels
    return drawn, tuple(drawn_and_told[len(drawn) :])


def due(gan: CGAN3D, steps: int) -> list[list[str]]:
    """Players of each step, in order."""
    return [[phase.player for phase in gan.phases() if phase.due(i)] for i in range(steps)]


def rates(gan: CGAN3D) -> dict[str, tuple[float, tuple[float, float]]]:
    found = {}
    for player, names in gan.players().items():
        optimiser = gan.optimizer(player, [p for n in names for p in gan.nets[n].parameters()])
        assert isinstance(optimiser, torch.optim.Adam)
        found[player] = optimiser.defaults["lr"], optimiser.defaults["betas"]
    return found


# -- shin2018 --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shin() -> dict[str, Any]:
    (one,) = sets_of("shin2018").values()
    assert isinstance(one.composite, ChainSpec)
    return {"one": one, "spec": one.composite, "parts": parts_of(one.settings, one.composite)}


def test_shin_has_three_gans_and_a_beginning_on_the_tissue_set(shin):
    parts = {part.name: part for part in shin["spec"].parts}
    assert list(parts) == ["tissues", "t1", "mri", "segmenter"]
    for name in ("tissues", "t1"):
        assert parts[name].data == "brains:healthy"
        # The tissue set is brought to the same grid, and calls its T1 otherwise.
        assert parts[name].read == {"frame": "108,256,256", "whole": "54,128,128"}
        assert parts[name].names == {"T1": "t1"}
    assert parts["mri"].labels_by == "tissues"
    assert parts["mri"].init_from == "t1"
    assert parts["segmenter"].data is None
    assert shin["one"].request.read == {"frame": "108,256,256", "whole": "54,128,128"}


def test_shin_translates_t1_to_tissues_labels_to_sequences_and_sequences_to_tumour(shin):
    merged = {**LABELS, **{f"tissues:{n}": v + 4 for n, v in TISSUES.items() if v}}
    made = {
        "tissues": build(shin["parts"]["tissues"], Schema(("t1",), TISSUES, (2.0,) * 3)),
        "mri": build(shin["parts"]["mri"], replace(MRI, labels=merged)),
        "segmenter": build(shin["parts"]["segmenter"], MRI),
    }
    labels = {name: tuple(f"label:{v}" for v in sorted(merged.values())) for name in ("mri",)}
    drawn = {
        "tissues": tuple(f"drawn:{v}" for v in (0, 1, 2, 3)),
        "mri": tuple(f"image:{c}" for c in SEQUENCES),
        "segmenter": tuple(f"drawn:{v}" for v in (0, 1, 2, 4)),
    }
    told = {
        "tissues": ("given:t1",),
        "mri": labels["mri"],
        "segmenter": tuple(f"given:{c}" for c in SEQUENCES),
    }
    for name, gan in made.items():
        # Both players are told, pix2pix's discriminator sees what the image was made of, too.
        assert inputs(gan) == (drawn[name], told[name])
        assert gan.condition_channels == told[name]


def test_shin_is_pix2pix_in_3d(shin):
    gan = build(shin["parts"]["mri"], MRI, (54, 128, 128))
    net, judge = net_of(gan)
    assert net.style.skip == "concat"
    assert {m.negative_slope for m in net.modules() if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert net.style.dropout == 0.5
    assert not net.style.noise
    assert len(net.latent_shapes((54, 128, 128))) == 3  # dropout in the three coarsest levels
    assert net.output == "tanh"
    assert not any(is_parametrized(m) for m in [*convolutions(net), *convolutions(judge)])
    assert len(net_of(gan)[1](torch.empty(1, 8, 54, 128, 128, device="meta"))[0]) == 1


def test_shin_learns_as_pix2pix_does(shin):
    loop, own = options_of(shin["parts"]["mri"])
    assert (own.loss, own.adversarial, own.l1, own.l1_lowpass) == ("nonsaturating", 1, 100, 1)
    assert (own.feature_matching, own.perceptual) == (0, 0)
    assert (loop.batch_size, loop.epochs) == (1, 200)
    gan = build(shin["parts"]["mri"], MRI)
    assert rates(gan) == dict.fromkeys(("generator", "discriminator"), (2e-4, (0.5, 0.999)))
    assert due(gan, 2) == [["generator", "discriminator"]] * 2


def test_shin_moves_grows_and_shrinks_the_tumour(shin):
    names = [edit.partition(":")[0] for edit in shin["one"].edits]
    assert names == ["shift", "enlarge", "shrink", "clip"]


# -- doncenco2022 ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def doncenco() -> dict[str, Any]:
    return sets_of("doncenco2022")


def test_doncenco_fits_two_sets_and_three_more_if_asked(doncenco):
    usual = sets_of("doncenco2022", only=())
    assert list(usual) == ["SN", "plain"]
    assert list(doncenco) == ["SN", "plain", "local", "perceptual", "local-perceptual"]
    read = {"frame": "95,240,240", "whole": "64,240,240", "resampling": "nearest"}
    assert all(dict(one.request.read) == read for one in doncenco.values())


def test_doncenco_draws_with_a_3d_u_net_of_four_levels(doncenco):
    gan = build(doncenco["SN"].settings, MRI, (64, 240, 240))
    net, _ = net_of(gan)
    assert (net.style.up, net.style.skip) == ("nearest", "concat")
    # At a level of the decoder the features from below and the encoder's, side by side.
    assert [up.in_channels for up in net.up] == [64 + 128, 128 + 256, 256 + 512]
    assert [up.out_channels for up in net.up] == [64, 128, 256]
    assert of(net, nn.InstanceNorm3d) == len(convolutions(net)) - 2  # but the first and the image's
    assert of(net, nn.ReLU) > 0
    assert of(net, nn.LeakyReLU) == 0
    assert net.output == "tanh"
    assert net.latent_shapes((64, 240, 240)) == []


def test_doncenco_judges_with_the_encoder_of_the_same_on_four_sequences_and_the_label(doncenco):
    gan = build(doncenco["SN"].settings, MRI)
    _, judge = net_of(gan)
    told = ("label:0", "label:1", "label:2", "label:4", "body")
    assert inputs(gan) == (tuple(f"image:{c}" for c in SEQUENCES), told)
    assert of(judge, nn.InstanceNorm3d) == 7
    assert judge.texture is None


@pytest.mark.parametrize(("name", "normalised"), [("SN", True), ("plain", False)])
def test_doncenco_normalises_every_convolution_or_none(doncenco, name, normalised):
    gan = build(doncenco[name].settings, MRI)
    for net in gan.nets.values():
        assert [is_parametrized(m) for m in convolutions(net)] == [normalised] * len(
            convolutions(net)
        )


def test_doncenco_lets_the_players_take_turns_the_discriminator_first(doncenco):
    gan = build(doncenco["SN"].settings, MRI)
    assert due(gan, 4) == [["discriminator"], ["generator"]] * 2
    assert rates(gan) == dict.fromkeys(("generator", "discriminator"), (1e-4, (0.9, 0.999)))
    loop, own = options_of(doncenco["SN"].settings)
    assert (own.loss, own.adversarial, own.l1, own.feature_matching) == ("lsgan", 1, 0, 0)
    assert (loop.batch_size, loop.steps, loop.decay) == (1, 2 * 94720, "none")


def test_doncencos_loss_is_its_equations_4_and_5(doncenco):
    from gansynth.nn.losses import ADVERSARIAL

    loss = ADVERSARIAL[options_of(doncenco["SN"].settings)[1].loss]
    real, fake = [torch.tensor([0.3, 0.7])], [torch.tensor([0.2, 0.1])]
    equation_4 = 0.5 * ((real[0] - 1) ** 2).mean() + 0.5 * (fake[0] ** 2).mean()
    assert loss.discriminator(real, fake).item() == pytest.approx(equation_4.item())
    assert loss.generator(fake).item() == pytest.approx(((fake[0] - 1) ** 2).mean().item())


@pytest.fixture(scope="module")
def pairs(doncenco):
    """A job of the recipe's at the smallest size, and its first batch."""
    settings = {**doncenco["SN"].settings, "width": "4", "d_width": "4", "levels": "2"}
    settings |= {"d_levels": "2", "steps": "2"}
    job = resolve("cgan3d", SourceRequest("brains", "tumours"), settings, None, "cpu")
    batch = job.batches(0, job.generator.stages()[0], range(3))
    return SimpleNamespace(job=job, batch=batch)


def test_doncenco_asks_for_the_tumour_of_a_on_the_brain_of_b(pairs):
    """Figures 4 and 7: A's tumour, B's brain, nothing of B's own tumour, nothing beyond B."""
    batch, job = pairs.batch, pairs.job
    assert batch.asked is not None
    assert batch.context is not None
    assert batch.asked_context is not None
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


def test_the_discriminator_sees_b_with_bs_label_and_the_sample_with_abs(pairs, monkeypatch):
    """Figure 8."""
    gan, seen = pairs.job.generator, []
    judge = gan.judges[0]

    def record(pair):
        seen.append(pair)
        return judge.net.forward(pair)

    monkeypatch.setattr(gan.nets["discriminator"], "forward", record)
    rng = torch.Generator().manual_seed(0)
    step = Step(pairs.batch, gan.stages()[0], 0, 0, rng, total=3)
    monkeypatch.undo()
    objective = gan.objective
    real, fake = objective._real(step), objective._fake(step)
    own, asked = objective._condition(step), objective._asked(step)
    assert torch.equal(real, pairs.batch.image)
    assert torch.equal(fake[1], asked)
    for condition, labels in ((own, pairs.batch.labels), (asked, pairs.batch.asked)):
        for channel, value in enumerate(LABELS.values()):
            wanted = labels == value
            if value == 0:
                context = pairs.batch.context if condition is own else pairs.batch.asked_context
                wanted &= context != 1
            assert torch.equal(condition[:, channel] == 1, wanted)
    assert own[:, 4].sum() > 0  # the brain


def test_losses_that_compare_images_look_where_both_labels_are_alike(doncenco, pairs):
    settings = {**doncenco["local-perceptual"].settings, "width": "4", "d_width": "4"}
    settings |= {"levels": "2", "d_levels": "2", "local_size": "8", "steps": "1"}
    job = resolve("cgan3d", SourceRequest("brains", "tumours"), settings, None, "cpu")
    gan: Any = job.generator
    assert set(gan.nets) == {"generator", "discriminator", "local", "perceptor"}
    rng = torch.Generator().manual_seed(0)
    step = Step(job.batches(0, gan.stages()[0], range(2)), gan.stages()[0], 0, 0, rng, total=2)
    alike = gan.objective._alike(step)
    assert alike is not None
    labels, asked = step.batch.labels, step.batch.asked
    assert labels is not None
    assert asked is not None
    assert torch.equal(alike[:, 0], labels == asked)
    terms = gan.phases()[0].loss(step)
    assert set(terms) == {"adversarial", "local_adversarial", "perceptual"}
    assert all(torch.isfinite(term) for term in terms.values())


def test_the_local_window_is_around_the_tumour_that_is_asked_for(doncenco):
    settings = {**doncenco["local"].settings, "width": "4", "d_width": "4"}
    gan = build(settings, MRI, local_size=6, levels=2, d_levels=2)
    labels = torch.zeros(1, *SIZE)
    labels[0, 2:5, 20:24, 25:28] = 2
    channels = [labels == v for v in LABELS.values()]
    condition = torch.stack([*channels, torch.zeros_like(labels)], 1).float()
    image = torch.arange(labels.numel()).reshape(1, 1, *SIZE).float()
    local = gan.judges[1]
    seen, told = local.view((image, condition))
    assert seen.shape == (1, 1, 6, 6, 6)
    assert told[:, 2].sum() == (labels == 2).sum()
    assert torch.equal(seen[0, 0], image[0, 0, 0:6, 19:25, 24:30])


def test_edits_that_have_cases_take_turns_are_refused_while_training(doncenco):
    settings = {**doncenco["SN"].settings, "fit_edits": '["transplant:pairs=ordered"]'}
    with pytest.raises(UsageFault, match="fit_edits: transplant has cases take turns"):
        resolve("cgan3d", SourceRequest("brains", "tumours"), settings, None, "cpu")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"feature_matching": 5}, "do not correspond"),
        ({"insert": "lesion", "output": "linear", "body": False}, "whole images are drawn"),
        ({"given": "T1"}, "leave insert, given and target out"),
    ],
)
def test_what_needs_pairs_of_one_label_is_refused(changes, says):
    asked = {"feature_matching": 0, "fit_edits": "transplant", **changes}
    with pytest.raises(UsageFault, match=says):
        options_of({key: str(value) for key, value in asked.items()})


# -- mmgan2020 -------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=["mmgan2020", "mmgan2020-liver"])
def mmgan(request) -> dict[str, Any]:
    sets = sets_of(request.param)
    first = next(iter(sets.values()))
    return {"name": request.param, "sets": sets, "settings": first.settings}


def test_mmgan_has_a_model_for_each_sequence_and_one_set_without_pool():
    usual, every = sets_of("mmgan2020", only=()), sets_of("mmgan2020")
    assert list(usual) == ["pool"]
    assert list(every) == ["pool", "no-pool"]
    assert all(one.composite == PerChannel("cgan3d", "each") for one in every.values())
    assert [options_of(one.settings)[1].pool for one in every.values()] == [4, 0]
    assert options_of(usual["pool"].settings)[1].body_of == "t1"
    assert dict(usual["pool"].request.read) == {"frame": "150,200,160"}


def test_mmgan_draws_with_three_blocks_down_and_three_up(mmgan):
    gan = build(mmgan["settings"], replace(MRI, channels=("t1",)), (150, 200, 160))
    net, _ = net_of(gan)
    assert net.style.up == "cubic"
    # Fig. 3: enlarged, halved by a convolution three wide, laid beside the encoder's.
    narrow: list[Any] = list(net.narrow)
    narrowed = [(m.in_channels, m.out_channels, m.kernel_size) for m in narrow]
    assert narrowed == [(32, 16, (3, 3, 3)), (64, 32, (3, 3, 3)), (128, 64, (3, 3, 3))]
    assert [up.in_channels for up in net.up] == [32, 64, 128]
    assert net.style.narrow == "after"
    assert net.head is None
    assert isinstance(net.image, nn.Conv3d)
    assert (net.image.kernel_size, net.image.in_channels, net.image.out_channels) == (
        *((1, 1, 1), 16, 1),
    )
    assert net.output == "tanh"
    assert of(net, nn.InstanceNorm3d) > 0
    assert of(net, nn.LeakyReLU) > 0
    assert of(net, nn.ReLU) == 0


def test_mmgan_normalises_every_convolution_of_both_spectrally(mmgan):
    gan = build(mmgan["settings"], replace(MRI, channels=("t1",)))
    for net in gan.nets.values():
        assert convolutions(net)
        assert all(is_parametrized(m) for m in convolutions(net))


def test_mmgan_judges_a_quarter_of_the_size_patch_by_patch(mmgan):
    gan = build(mmgan["settings"], replace(MRI, channels=("t1",)), (152, 200, 160))
    _, judge = net_of(gan)
    (verdict,), _ = judge(torch.empty(1, 6, 152, 200, 160, device="meta"))
    assert verdict.shape == (1, 1, 38, 50, 40)
    assert inputs(gan) == (("image:t1",), ("label:0", "label:1", "label:2", "label:4", "body"))


def test_mmgan_learns_at_two_rates_that_fall_after_half(mmgan):
    loop, own = options_of(mmgan["settings"])
    brats = mmgan["name"] == "mmgan2020"
    rate = (4e-4, 1e-4) if brats else (4e-5, 1e-5)
    gan = build(mmgan["settings"], replace(MRI, channels=("t1",)))
    assert rates(gan) == {
        "generator": (rate[0], (0.0, 0.9)),
        "discriminator": (rate[1], (0.0, 0.9)),
    }
    assert (loop.batch_size, loop.epochs) == (1, 200 if brats else 100)
    assert (loop.decay, loop.decay_from) == ("linear", 0.5)
    factors = [loop.model_copy(update={"steps": 100}).rate(i) for i in (0, 49, 75, 99)]
    assert factors[:2] == [1, 1]
    assert factors[2] == pytest.approx(0.5, abs=0.02)
    assert 0 <= factors[3] < 0.03
    assert (own.loss, own.adversarial, own.l1, own.feature_matching) == ("lsgan", 0.5, 0, 0)
    assert due(gan, 2) == [["generator", "discriminator"]] * 2


def test_mmgan_shows_the_discriminator_one_of_four_earlier_samples_with_its_label(mmgan):
    gan = build(mmgan["settings"], replace(MRI, channels=("t1",)))
    assert gan.objective.pool.capacity == 4
    assert gan.memories["pool"] is gan.objective.pool


def test_mmgan_changes_the_tumour_only(mmgan):
    (one, *_) = mmgan["sets"].values()
    names = [edit.partition(":")[0] for edit in one.edits]
    assert names == ["elastic", "flip", "rotate", "scale", "clip"]


# -- all of them -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["shin2018", "doncenco2022", "mmgan2020", "mmgan2020-liver"])
def test_tiny_scales_change_sizes_and_lengths_only(name):
    spec = find_recipe(name).spec
    sizes = {"width", "d_width", "max_width", "levels", "d_levels", "local_size"}
    assert set(spec.scale["tiny"].set) <= sizes | {"steps", "sample_every"}
    assert set(spec.scale["tiny"].read) <= {"frame", "whole"}


@pytest.mark.parametrize("name", ["shin2018", "mmgan2020"])
def test_a_recipe_finds_t1_by_the_names_that_data_have_for_it(name):
    recipe = find_recipe(name)
    for called in ("T1", "t1", "t1n", "T1w"):
        assert recipe.called(("flair", called, "t1ce")) == {"T1": called}
    with pytest.raises(UsageFault, match="needs a channel T1, expected one of T1"):
        recipe.called(("flair", "t2"))
