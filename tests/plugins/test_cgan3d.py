"""``cgan3d``: the generators' contract, labels, outside, windows, context, any size and spacing."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch, Step
from gansynth.core.generator import Stage as WholeStage
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, Condition, Schema
from gansynth.data.batches import CaseBatches
from gansynth.data.cache import CaseCache
from gansynth.testing import ToySource, check_generator
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d import model
from gansynth_cgan3d.conditions import ContextClusters
from gansynth_cgan3d.model import CGAN3D, CGANOptions

TINY = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 2}


def schema(ndim: int = 3, **changes) -> Schema:
    plain = {
        "channels": ("T1", "FLAIR"),
        "labels": {"background": 0, "organ": 1, "lesion": 4},
        "spacing": (1.0,) * ndim,
        "axes": "DHW"[-ndim:],
        "has_outside": True,
        "outside_fill": (-2.5, 0.125),
    }
    return Schema(**{**plain, **changes})


def build(size: tuple[int, ...], spec: Schema | None = None, **options) -> Any:
    torch.manual_seed(0)
    own = CGANOptions.model_validate({**TINY, **options})
    return CGAN3D(spec or schema(len(size)), size, own)


def labels(size: tuple[int, ...], seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.choice(np.array([OUTSIDE, 0, 1, 4], np.int16), size)


def draw(generator: CGAN3D, *seeds: int) -> Any:
    conditions = [Condition(labels=labels(generator.size, seed)) for seed in seeds]
    return generator.sample(conditions, seeds)


def batch_of(generator: CGAN3D, n: int = 2) -> Batch:
    rng = torch.Generator().manual_seed(1)
    image = torch.randn(n, 2, *generator.size, generator=rng)
    drawn = np.stack([labels(generator.size, i) for i in range(n)]).astype(np.int64)
    return Batch(image, torch.from_numpy(drawn))


def losses_of(generator: CGAN3D) -> dict[str, dict[str, float]]:
    rng = torch.Generator().manual_seed(0)
    step = Step(batch_of(generator), WholeStage(), 0, 0, rng)
    return {
        phase.player: {k: v.item() for k, v in phase.loss(step).items()}
        for phase in generator.phases()
    }


# -- the contract ----------------------------------------------------------------------------------


def test_it_is_installed():
    assert installed().generator("cgan3d") is CGAN3D


def test_it_keeps_the_contract_of_generators():
    options = {"width": 8, "levels": 2, "d_width": 8, "d_levels": 2, "lr_generator": 1e-3}
    check_generator(CGAN3D, options=options, steps=40).raise_if_failed()


def test_it_keeps_it_in_a_window_with_context_too():
    options = {**TINY, "width": 8, "output": "tanh", "context": 3, "lr_generator": 1e-3}
    check_generator(CGAN3D, options=options, ndim=(2,), steps=30).raise_if_failed()


# -- what it draws ---------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(16, 16, 16), (13, 17, 10), (30, 21)])
def test_any_size_will_do(size):
    sample = draw(build(size, levels=4, d_levels=3), 3)[0]
    assert (sample.image.shape, sample.image.dtype) == ((2, *size), np.float32)
    assert np.isfinite(sample.image).all()


@pytest.mark.parametrize("size", [(13, 17, 10), (30, 21)])
def test_any_size_can_be_trained(size):
    generator = build(size, levels=4, d_levels=3)
    loop = FitOptions(steps=1, batch_size=2, precision="fp32")
    report = train(generator, lambda step, stage, which: batch_of(generator, len(which)), loop)
    assert set(report.losses) == {
        "generator/adversarial",
        "generator/l1",
        "generator/feature_matching",
        "discriminator/adversarial",
        "rate",
    }


def test_labels_come_back_as_asked():
    for sample, seed in zip(draw(build((9, 8, 7)), 5, 6), (5, 6), strict=True):
        assert sample.labels.dtype == np.int16
        assert np.array_equal(sample.labels, labels((9, 8, 7), seed))


@pytest.mark.parametrize("size", [(9, 8, 7), (20, 18)])
def test_outside_holds_the_schemas_constant_exactly(size):
    sample = draw(build(size), 5)[0]
    outside = sample.image[:, sample.labels == OUTSIDE]
    assert outside.size
    assert (outside == np.array([[-2.5], [0.125]], np.float32)).all()
    assert (sample.image[:, sample.labels != OUTSIDE] != -2.5).any()


def test_an_outside_that_varies_is_drawn():
    sample = draw(build((9, 8, 7), schema(outside_fill=None)), 5)[0]
    assert sample.image[:, sample.labels == OUTSIDE].std() > 1e-3


def test_losses_see_the_filled_image():
    """What is outside the body is given, so no player may learn from it."""
    generator = build((9, 8), l1=1, l1_lowpass=1)
    batch = batch_of(generator)
    assert batch.labels is not None
    step = Step(batch, WholeStage(), 0, 0, torch.Generator().manual_seed(0))
    generator.phases()[0].loss(step)
    outside = step.scratch["fake"].movedim(1, -1)[batch.labels == OUTSIDE]
    assert (outside == torch.tensor([-2.5, 0.125])).all()


def test_a_sample_tells_its_generator_and_seed():
    told = draw(build((9, 8)), 5)[0].provenance
    assert (told["generator"], told["latent_seed"]) == ("cgan3d", 5)


def test_large_seeds_are_welcome():
    generator = build((9, 8))
    condition = Condition(labels=labels((9, 8)))
    assert generator.sample([condition], [2**63 - 1])[0].image.shape == (2, 9, 8)


def test_anisotropic_voxels_are_halved_in_plane_first():
    thick = schema(spacing=(5.0, 1.0, 1.0))
    generator = build((16, 32, 32), thick, levels=4, d_levels=2)
    shapes = generator.net.noise_shapes((16, 32, 32))
    assert shapes[:4] == [(16, 32, 32), (16, 16, 16), (16, 8, 8), (8, 4, 4)]
    assert draw(generator, 1)[0].image.shape == (2, 16, 32, 32)


# -- losses ----------------------------------------------------------------------------------------


def test_weights_scale_their_terms():
    plain = losses_of(build((12, 12)))["generator"]
    heavy = losses_of(build((12, 12), adversarial=3, l1=10, feature_matching=20))["generator"]
    ratios = {name: heavy[name] / plain[name] for name in plain}
    assert ratios == pytest.approx({"adversarial": 3, "l1": 2, "feature_matching": 4}, rel=1e-5)


def test_a_term_of_weight_zero_is_left_out():
    generator = build((12, 12), l1=0, feature_matching=0)
    assert set(losses_of(generator)["generator"]) == {"adversarial"}


def test_the_low_pass_reaches_the_l1():
    coarse, fine = (losses_of(build((12, 12), l1_lowpass=n))["generator"]["l1"] for n in (4, 1))
    assert coarse < 0.5 * fine  # noise against noise: most of it is grain


class Opinion(torch.nn.Module):
    """A discriminator that takes bright images for real ones."""

    def forward(self, pair):
        return [pair[:, :1]], []


def test_real_is_one_and_synthetic_zero_to_the_discriminator():
    generator = build((12, 12))
    generator.nets["discriminator"] = Opinion()
    batch = batch_of(generator)
    batch.image = torch.ones_like(batch.image)
    step = Step(batch, WholeStage(), 0, 0, torch.Generator())
    condition = torch.zeros(2, 4, 12, 12)
    step.scratch.update(fake=torch.zeros_like(batch.image), condition=condition)
    assert generator.phases()[1].loss(step)["adversarial"].item() == 0


@pytest.mark.parametrize("on", [True, False])
def test_the_discriminators_options_reach_it(on):
    critic = build((12, 12), texture_head=on, spectral_norm=on).nets["discriminator"]
    logits, _ = critic(torch.zeros(1, 6, 12, 12))
    assert len(logits) == 1 + on
    assert any("parametrizations" in name for name in critic.state_dict()) == on


def test_each_player_has_its_rate():
    generator = build((12, 12), lr_generator=1e-3, lr_discriminator=4e-3)
    rates = [
        generator.optimizer(name, net.parameters()).param_groups[0]["lr"]
        for name, net in generator.nets.items()
    ]
    assert rates == [1e-3, 4e-3]


# -- windows ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def windowed():
    """A space with a window, and samples in it of a generator with tanh."""
    source = ToySource(2)
    space = source.space.with_window(source.cases())
    generator = build(space.size, space.generator_schema(source.schema), output="tanh")
    with torch.no_grad():
        generator.net.image.weight.mul_(30)  # far into both ends
    cases = [source.load(i) for i in source.train_ids[:2]]
    return space, generator.sample([Condition(labels=c.labels) for c in cases], [1, 2])


def test_tanh_draws_within_one(windowed):
    extremes = [np.abs(sample.image).max() for sample in windowed[1]]
    assert all(0.99 < extreme <= 1 for extreme in extremes)


def test_the_host_gets_the_window_back(windowed):
    space, samples = windowed
    for sample in samples:
        image = space.to_host(sample).image
        for channel, (low, high) in enumerate(space.window):
            assert image[channel].min() >= low - 1e-5
            assert image[channel].max() <= high + 1e-5
            assert np.ptp(image[channel]) > 0.9 * (high - low)


def test_the_host_gets_its_own_outside_back(windowed):
    space, samples = windowed
    for sample in samples:
        outside = space.to_host(sample).image[:, sample.labels == OUTSIDE]
        assert outside == pytest.approx(0, abs=1e-6)


# -- context ---------------------------------------------------------------------------------------


def cases(ndim: int = 2) -> Any:
    return list(ToySource(ndim).cases())


@pytest.fixture(scope="module")
def clusters() -> Any:
    fitted = ContextClusters(3)
    fitted.fit(cases())
    return fitted


def test_context_is_zero_on_foreground_and_outside(clusters):
    for case in cases():
        drawn = clusters.map(case)
        assert drawn.dtype == np.int16
        assert ((drawn == 0) == (case.labels != 0)).all()


def test_every_cluster_is_used_and_no_other(clusters):
    found = np.unique(np.concatenate([clusters.map(case).ravel() for case in cases()]))
    assert found.tolist() == [0, 1, 2, 3]


def test_clusters_are_ordered_by_brightness(clusters):
    means = clusters.centres.mean(axis=1)
    assert (np.diff(means) > 0).all()


def test_clusters_survive_json(clusters):
    twin = ContextClusters(3)
    twin.load_json(json.loads(json.dumps(clusters.to_json())))
    case = cases()[0]
    assert np.array_equal(twin.map(case), clusters.map(case))


def test_clusters_are_the_same_for_the_same_cases(clusters):
    again: Any = ContextClusters(3)
    again.fit(cases())
    assert np.array_equal(again.centres, clusters.centres)


def test_context_without_labels_covers_everything(clusters):
    assert (clusters.map(replace(cases()[0], labels=None)) > 0).all()


def test_the_generators_state_holds_the_clusters():
    generator, twin = build((32, 32), context=2), build((32, 32), context=2)
    generator.observe(cases())
    twin.load_state(json.loads(json.dumps(generator.state())))
    case = cases()[0]
    assert np.array_equal(twin.context(case), generator.context(case))


def test_context_shows_in_the_image():
    generator = build((32, 32), ToySource(2).schema, context=2)
    drawn = cases()[0].labels
    maps = [np.where(drawn == 0, value, 0).astype(np.int16) for value in (1, 2)]
    conditions = [Condition(labels=drawn, context=m) for m in maps]
    one, two = generator.sample(conditions, [7, 7])
    assert np.abs(one.image - two.image).max() > 1e-3


def test_context_is_trained_on(tmp_path: Path):
    source = ToySource(2)
    generator = build(source.space.size, source.schema, context=2)
    generator.observe(source.cases())
    batches = CaseBatches(CaseCache(source), source.space, context=generator.context)
    before = generator.net.stem.weight.detach().clone()
    loop = FitOptions(steps=2, batch_size=2, precision="fp32", ema_half_life=0)
    train(generator, batches, loop)
    changed = (generator.net.stem.weight - before).abs().sum(dim=(0, 2, 3))
    assert (changed[-2:] > 0).all()  # the input channels of both clusters


def test_no_context_means_none():
    generator = build((32, 32))
    generator.observe(cases())
    assert generator.context(cases()[0]) is None
    assert generator.state() == {"centres": None}


@pytest.mark.parametrize(("most", "at_once"), [(2**23, 4), (2 * 8**3 + 1, 2), (1, 1)])
def test_a_device_draws_batches_of_one_size_whatever_is_asked(monkeypatch, most, at_once):
    """As on CUDA, where a batch of another size is rounded otherwise."""
    monkeypatch.setitem(model.AT_ONCE, "cpu", 4)
    monkeypatch.setattr(model, "VOXELS_AT_ONCE", most)
    generator, sizes = build((8, 8, 8)), []
    generator.net.register_forward_pre_hook(lambda net, given: sizes.append(len(given[0])))
    together = draw(generator, *range(7))
    alone = [draw(generator, seed)[0] for seed in range(7)]
    assert set(sizes) == {at_once}
    for one, other in zip(together, alone, strict=True):
        assert np.array_equal(one.image, other.image)
