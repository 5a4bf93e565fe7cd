import json
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import ContextOf, Stage
from gansynth.core.sample_request import SampleRequest
from gansynth.core.schema import OUTSIDE, Case, Condition
from gansynth.core.source import SourceRequest
from gansynth.core.space import Space
from gansynth.data.batches import CaseBatches, CaseCache
from gansynth.sampling.open_run import load_run
from gansynth.sampling.sampler import Sampler
from gansynth.testing import ToySource
from gansynth_cgan3d import model
from gansynth_cgan3d.context import ContextClusters, automatic
from gansynth_cgan3d.options import CGAN3DOptions
from gansynth_cgan3d.styles import Layers
from gansynth_cgan3d.whole import CGAN3D
from tests.offered import offered
from tests.plugins import toys
from tests.plugins.toys import SCHEMA, Toys, cases, fit_toys, maps, step

build = partial(toys.build, "cgan3d")


def draw(generator: CGAN3D, *seeds: int) -> Any:
    conditions = [Condition(labels=maps(generator.size, seed)) for seed in seeds]
    return generator.sample(conditions, seeds)


def losses_of(generator: CGAN3D) -> dict[str, float]:
    now = step(generator, cases(2))
    return {k: v.item() for k, v in generator.phases()[0].loss(now).items()}


# -- styles ----------------------------------------------------------------------------------------


BEFORE = {"beta1": 0.1, "beta2": 0.9, "alternate": True, "l1_mask": "foreground", "body": True}
TODAY = {"betas": "0.1,0.9", "n_critic": "alternate", "l1_lowpass": "foreground", "context": "body"}


@pytest.mark.parametrize(
    ("layers", "before", "today"),
    [({"up": "cubic", "d_norm": "group", "noise": False}, BEFORE, TODAY), ({}, {}, {})],
    ids=["own", "usual"],
)
def test_a_run_with_an_option_for_each_layer_is_the_run_it_was(layers, before, today, tmp_path):
    """It has the options of before in its manifest, draws what it drew, and goes on."""
    run, data = tmp_path / "run", SourceRequest("unseen", "2")
    own = {**toys.CGAN, "style": layers or "own", **today}
    with offered("unseen", sources={"unseen": Toys}):
        fit_toys("cgan3d", data, run, steps=1, **own)
        drawn = drawn_by(run)
        path = run / "manifest.json"
        manifest = json.loads(path.read_text())
        for options in (manifest["options"], manifest["config"]["options"]):
            for name in ("style", *today):
                del options[name]
            options |= Layers.model_validate(layers).model_dump(mode="json") | before
        del manifest["digest"]
        path.write_text(json.dumps(manifest))
        assert np.array_equal(drawn_by(run), drawn)
        assert fit_toys("cgan3d", data, run, steps=2, **own)["steps"] == 2


def drawn_by(run: Path) -> Any:
    data = Toys(SourceRequest("unseen", "2"))
    (sample,) = Sampler(load_run(run, "cpu"), data, SampleRequest(seed=5)).draw(0, 1)
    return sample.image


# -- terms and turns -------------------------------------------------------------------------------


def test_weights_scale_their_terms_or_leave_them_out():
    plain = losses_of(build())
    heavy = losses_of(build(adversarial=3, l1=10, feature_matching=20))
    ratios = {name: heavy[name] / plain[name] for name in plain}
    assert ratios == pytest.approx({"adversarial": 3, "l1": 2, "feature_matching": 4}, rel=1e-5)
    assert set(losses_of(build(l1=0, feature_matching=0))) == {"adversarial"}


def test_players_take_their_turns():
    for critics, turns in ((1, [0, 1, 2, 3, 4, 5]), (3, [2, 5])):
        paint, judge, *_ = build(n_critic=critics).phases()
        assert (paint.player, judge.player) == ("generator", "discriminator")
        assert [i for i in range(6) if paint.due(i)] == turns
        assert all(judge.due(i) for i in range(6))


def test_a_perfect_image_costs_nothing_whatever_the_changes(monkeypatch):
    """Real and synthetic pairs must go through the same changes to be compared."""
    generator = build(augment=("flip", "brightness", "cutout"), augment_p=1.0, perceptual=1)
    monkeypatch.setattr(generator, "_fakes", lambda now: now.batch.image)
    generator.nets["discriminator"].eval()
    terms = losses_of(generator)
    assert (terms["feature_matching"], terms["perceptual"], terms["l1"]) == (0, 0, 0)


def test_masked_l1_looks_at_the_foreground_only(monkeypatch):
    generator = build(l1_lowpass="foreground")
    now = step(generator, cases(2))
    off = (now.batch.labels[:, None] <= 0).float()  # type: ignore[index]
    monkeypatch.setattr(generator, "_fakes", lambda now: now.batch.image + off)
    assert generator.phases()[0].loss(now)["l1"].item() == 0


def test_the_perceptual_segmenter_learns_the_labels():
    generator = build(perceptual=0.1)
    (phase,) = (p for p in generator.phases() if p.player == "perceptor")
    optimizer = generator.optimizer("perceptor", generator.nets["perceptor"].parameters())
    now, values = step(generator, cases()), []
    for _ in range(40):
        values.append(phase.loss(now)["cross_entropy"])
        optimizer.zero_grad()
        values[-1].backward()
        optimizer.step()
    assert values[-1] < 0.7 * values[0]


def test_context_are_clusters_of_the_surroundings_by_brightness():
    known = list(map(ToySource(2).load, ToySource(2).train_ids))
    clusters, again = ContextClusters(3), ContextClusters(3)
    clusters.fit(known)
    drawn = [clusters.map(case) for case in known]
    for found, one in zip(drawn, known, strict=True):
        assert found.dtype == np.int16
        assert ((found == 0) == (one.labels != 0)).all()
    assert np.unique(np.stack(drawn)).tolist() == [0, 1, 2, 3]
    assert clusters.centres is not None
    assert (np.diff(clusters.centres.mean(axis=1)) > 0).all()
    again.fit(known)
    assert np.array_equal(again.centres, clusters.centres)  # type: ignore[arg-type]
    assert (clusters.map(replace(known[0], labels=None)) > 0).all()


@pytest.mark.parametrize("size", [(12, 12, 12), (9, 24, 30), (11, 13)], ids=str)
def test_contexts_of_crops_are_cut_from_whole_cases_and_remain_what_they_were(size, monkeypatch):
    source = ToySource(len(size), side=24)
    space = Space("crop", size)
    generator = CGAN3D(source.schema, size, CGAN3DOptions(context=3, width=4, d_width=4, levels=1))
    generator.load_state(generator.observe(map(source.load, source.train_ids)))
    made, make = list[str](), generator.whole_context

    def noted(case: Case) -> Any:
        made.append(case.id)
        return make(case)

    monkeypatch.setattr(generator, "whole_context", noted)
    batches = CaseBatches(CaseCache(source), space, context=ContextOf(generator))
    for number in range(40):
        batch: Any = batches(number, Stage(), range(6))
        for image, labels, context in zip(batch.image, batch.labels, batch.context, strict=True):
            crop = Case("crop", "crop", image.numpy(), labels.numpy().astype(np.int16))
            made_anew: Any = generator.context(crop)
            assert np.array_equal(made_anew, context.numpy())
    assert sorted(made) == list(source.train_ids), "each is made once"


@pytest.mark.parametrize(
    ("own", "tumour_alone", "number"),
    [
        ({}, True, 4),
        ({}, False, 0),
        ({"context": 2}, True, 2),
        ({"context": 0}, True, 0),
        ({"context": "body"}, True, "body"),
        ({"given": ("T1",)}, True, 0),
    ],
)
def test_context_is_automatic_where_labels_explain_little(own, tumour_alone, number):
    known = [replace(c, image=c.image + 9 * (c.labels == 1)) for c in cases()]
    if tumour_alone:
        known = [replace(c, labels=np.asarray(c.labels) * (c.labels != 1)) for c in known]
    chosen, reason = automatic(CGAN3DOptions(**own), iter(known))
    assert chosen.context == number
    assert ("--set context=0" in reason) == (number == 4)


@pytest.mark.parametrize(
    ("own", "gain", "on"),
    [
        ({}, 1, False),
        ({}, 0.2, True),
        ({}, 9, True),
        ({"standardise": False}, 9, False),
        ({"output": "tanh"}, 0.2, False),
    ],
)
def test_images_are_standardised_where_their_deviation_is_far_from_1(own, gain, on):
    known = [replace(c, image=gain * c.image / c.image.std()) for c in cases()]
    chosen, reason = automatic(CGAN3DOptions(**own), known)
    assert chosen.standardise is on
    assert ("--set standardise=no" in reason) == on


THREE = replace(SCHEMA, channels=("T1", "T2", "FLAIR"), outside_fill=(-2.5, 0.125, 1.0))


def link(size: tuple[int, ...] = (13, 18), kind: str = "cgan3d", **options: Any) -> Any:
    return toys.build(kind, size, THREE, **options)


def asked(generator: Any, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    image = rng.standard_normal((3, *generator.size)).astype(np.float32)
    labels = maps(generator.size, seed) if "labels" in generator.capabilities.takes else None
    return Condition(labels=labels, given=image[generator.given], latent_seed=seed)


def test_given_channels_are_passed_on_and_show_in_the_others():
    generator = link(given=("FLAIR", "T1"))
    condition = asked(generator)
    other = replace(condition, given=condition.given + 1)
    image, changed = (generator.sample([c], [3])[0].image for c in (condition, other))
    assert image.shape == (3, 13, 18)
    assert np.array_equal(image[[2, 0]], condition.given)
    outside = condition.labels == OUTSIDE
    assert (image[1][outside] == 0.125).all()
    assert (image[1][~outside] != 0.125).any()
    assert np.abs(image[1] - changed[1]).max() > 1e-3


def test_labels_are_drawn_from_what_is_given():
    generator = link(kind="cgan3d-labels")
    assert generator.options.given == ("T1", "T2", "FLAIR")
    condition = asked(generator)
    sample = generator.sample([condition], [3])[0]
    assert (sample.labels.dtype, sample.labels.shape) == (np.int16, (13, 18))
    assert set(np.unique(sample.labels)) <= {OUTSIDE, 0, 1, 4}
    assert np.array_equal(sample.image, condition.given)
    inputs = generator.inputs_of([condition])
    drawn = generator.finished(torch.randn(2, 4, 5, 6), inputs)  # as the discriminator sees it
    assert torch.allclose(drawn.sum(1), torch.ones(2, 5, 6))


def test_a_sample_in_tiles_is_the_sample():
    own: dict[str, Any] = {"given": ("T2",), "context": 2, "dropout": 0.3}
    size = (29, 35)
    whole, pieces = (link(size, **own, sample_tile=edge) for edge in (0, 12))
    context = np.arange(np.prod(size)).reshape(size) % 3
    condition = replace(asked(whole), context=context.astype(np.int16))
    images = []
    for generator in (whole, pieces):
        generator.precision = "fp32"
        images += [sample.image for sample in generator.sample([condition], [7])]
    assert np.abs(images[0] - images[1]).max() < 1e-3 * images[0].std()


@pytest.mark.parametrize(("most", "at_once"), [(2 * 8**3 + 1, 2), (1, 1)])
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


def test_a_batch_that_does_not_fit_into_memory_is_halved(monkeypatch):
    monkeypatch.setitem(model.AT_ONCE, "cpu", 4)
    generator, sizes = build((8, 8, 8)), []
    plenty = draw(generator, 0, 1, 2)

    def scarce(net: Any, given: Any) -> None:
        sizes.append(len(given[0]))
        if sizes[-1] > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")

    generator.net.register_forward_pre_hook(scarce)
    for sample, expected in zip(draw(generator, 0, 1, 2), plenty, strict=True):
        assert np.allclose(sample.image, expected.image, atol=1e-5)
    assert sizes == [4, 2, 1, 1, 2, 1, 1]


def test_tiles_are_taken_where_asked_for_or_needed():
    net = build().net
    assert model.tile_edge(net, (64, 64, 64), 0) == 0
    assert model.tile_edge(net, (1024, 512, 512), 0) == model.TILE
    assert model.tile_edge(net, (64, 64, 64), 32) == 32
    assert model.tile_edge(net, (30, 30, 30), 32) == 0
