"""Chains of ``cgan3d``: given channels, drawn labels; and sampling in tiles and precisions."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch
from gansynth.core.schema import OUTSIDE, Case, Condition, Schema
from gansynth.nn import tiled_inference
from gansynth.runtime.devices import native_bf16
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.testing import ToySource
from gansynth.testing.generators import fit_briefly
from gansynth.training.loop import FitOptions, train
from gansynth_cgan3d.model import CGAN3D, CGANOptions

TINY = {"width": 4, "levels": 2, "d_width": 4, "d_levels": 2}
SIZE = (13, 18)
SCHEMA = Schema(
    ("T1", "T2", "FLAIR"),
    {"background": 0, "organ": 1, "lesion": 4},
    (1.0, 1.0),
    "HW",
    True,
    (-2.5, 0.125, 1.0),
)


def build(size: tuple[int, ...] = SIZE, spec: Schema = SCHEMA, **options: Any) -> Any:
    torch.manual_seed(0)
    return CGAN3D(spec, size, CGANOptions.model_validate({**TINY, **options}))


def case(seed: int = 0, size: tuple[int, ...] = SIZE) -> Case:
    rng = np.random.default_rng(seed)
    labels = rng.choice(np.array([OUTSIDE, 0, 1, 4], np.int16), size)
    return Case("a", "a", rng.standard_normal((3, *size)).astype(np.float32), labels)


def asked(generator: Any, seed: int = 0) -> Condition:
    own = case(seed, generator.size)
    labels = own.labels if generator.conditions.labelled else None
    return Condition(labels=labels, given=generator.given(own), latent_seed=seed)


def batch(which: range) -> Batch:
    cases = [case(i) for i in which]
    labels = np.stack([c.labels for c in cases if c.labels is not None]).astype(np.int64)
    return Batch(torch.from_numpy(np.stack([c.image for c in cases])), torch.from_numpy(labels))


# -- given channels --------------------------------------------------------------------------------


def test_condition_channels_come_in_the_documented_order():
    generator = build(given="FLAIR,T1", context=2)
    labels = ("label:-1", "label:0", "label:1", "label:4")
    context = ("context:1", "context:2")
    assert generator.condition_channels == (*labels, *context, "given:FLAIR", "given:T1")
    assert generator.target_channels == ("image:T2",)


def test_given_channels_are_passed_on_and_the_others_drawn():
    generator = build(given=("FLAIR", "T1"))
    condition = asked(generator)
    assert condition.given is not None
    image = generator.sample([condition], [3])[0].image
    assert image.shape == (3, *SIZE)
    assert np.array_equal(image[[2, 0]], condition.given)
    outside = condition.labels == OUTSIDE
    assert (image[1][outside] == 0.125).all()
    assert (image[1][~outside] != 0.125).any()


def test_what_is_given_shows_in_what_is_drawn():
    generator = build(given=("T1",))
    condition = asked(generator)
    assert condition.given is not None
    other = replace(condition, given=condition.given + 1)
    one, two = (generator.sample([c], [3])[0].image for c in (condition, other))
    assert np.abs(one[1:] - two[1:]).max() > 1e-3


@pytest.mark.parametrize("options", [{"given": ("T1",)}, {"given": ("T1",), "target": "labels"}])
def test_a_link_of_a_chain_can_be_trained(options):
    generator = build(**options)
    loop = FitOptions(steps=2, batch_size=2, precision="fp32", ema_half_life=0)
    before = generator.net.stem.weight.detach().clone()
    train(generator, lambda step, stage, which: batch(which), loop)
    moved = (generator.net.stem.weight - before).abs().sum(dim=(0, 2, 3))
    assert moved[-1] > 0  # the input channel of what is given


def test_a_channel_that_is_not_there_is_refused():
    with pytest.raises(UsageFault, match=r"'FLAR' is no channel.*Did you mean 'FLAIR'"):
        build(given=("FLAR",))


def test_something_must_be_left_to_draw():
    with pytest.raises(UsageFault, match="target=labels"):
        build(given=("T1", "T2", "FLAIR"))


@pytest.mark.parametrize("given", [None, np.zeros((2, *SIZE), np.float32)])
def test_a_condition_without_the_given_channels_is_refused(given):
    generator = build(given=("T1",))
    with pytest.raises(DataFault, match="given"):
        generator.sample([replace(asked(generator), given=given)], [1])


def test_a_condition_without_labels_is_refused():
    with pytest.raises(DataFault, match="labels"):
        build().sample([Condition()], [1])


# -- drawn labels ----------------------------------------------------------------------------------


def test_labels_are_drawn_from_what_is_given():
    generator = build(given=("T1", "T2", "FLAIR"), target="labels")
    condition = asked(generator)
    sample = generator.sample([condition], [3])[0]
    assert condition.labels is None
    assert condition.given is not None
    assert sample.labels is not None
    assert sample.labels.dtype == np.int16
    assert sample.labels.shape == SIZE
    assert set(np.unique(sample.labels)) <= {OUTSIDE, 0, 1, 4}
    assert np.array_equal(sample.image, condition.given)
    assert generator.target_channels == ("drawn:-1", "drawn:0", "drawn:1", "drawn:4")


def test_the_discriminator_sees_probabilities():
    drawn = build(given=("T1",), target="labels").finished(torch.randn(2, 4, 5, 6), None)
    assert torch.allclose(drawn.sum(1), torch.ones(2, 5, 6))


def test_a_chains_segmenter_learns_to_segment():
    """Shin et al. 2018: MRI to label by the same GAN."""
    source = ToySource(2)
    channels = source.schema.channels
    more: dict[str, Any] = {"width": 8, "lr_generator": 4e-3, "noise": False, "l1": 20}
    generator = build(source.space.size, source.schema, given=channels, target="labels", **more)
    fit_briefly(generator, list(source.cases()), 40)
    held_out = list(source.cases(source.held_out_ids))
    conditions = [Condition(given=generator.given(c)) for c in held_out]
    drawn = generator.sample(conditions, [0] * len(conditions))
    agree = [np.mean(s.labels == c.labels) for s, c in zip(drawn, held_out, strict=True)]
    assert np.mean(agree) > 0.9


# -- for those who take weights over ---------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"given": ("T1",), "context": 2, "d_stem": False},
        {"given": ("T1",), "target": "labels", "g_spectral_norm": True, "d_down": "strided4"},
        {"perceptual": 1, "d_down": "maxpool", "d_stem": False, "spectral_norm": False},
    ],
    ids=str,
)
def test_named_channels_are_where_they_are_said_to_be(options):
    generator = build(**options)
    tensors = {
        f"{name}/{key.replace('.parametrizations.weight.original', '.weight')}": value
        for name, net in generator.nets.items()
        for key, value in net.state_dict().items()
    }
    axes = generator.channel_axes()
    assert len(axes) == 4 + ("perceptual" in options)
    for key, (axis, names) in axes.items():
        assert tensors[key].shape[axis] == len(names), key


# -- sampling --------------------------------------------------------------------------------------


@pytest.mark.parametrize("options", [{}, {"given": ("T2",), "context": 2, "dropout": 0.3}], ids=str)
def test_a_sample_in_tiles_is_the_sample(options):
    size = (29, 35)
    whole, pieces = (build(size, **options, sample_tile=edge) for edge in (0, 12))
    for generator in (whole, pieces):
        generator.precision = "fp32"
    condition = asked(whole)
    if options:
        context = np.arange(np.prod(size)).reshape(size) % 3
        condition = replace(condition, context=context.astype(np.int16))
    one, other = (g.sample([condition], [7])[0] for g in (whole, pieces))
    assert np.abs(one.image - other.image).max() < 1e-3 * one.image.std()
    assert one.image.shape == (3, *size)


def test_labels_are_drawn_in_tiles_too():
    whole, pieces = (
        build((29, 35), given=("T1",), target="labels", sample_tile=edge) for edge in (0, 12)
    )
    one, other = (g.sample([asked(g)], [7])[0].labels for g in (whole, pieces))
    assert np.mean(one == other) > 0.99


def test_large_volumes_are_tiled_unasked(monkeypatch):
    monkeypatch.setattr(tiled_inference, "LIMIT", 1)
    monkeypatch.setattr(tiled_inference, "EDGE", 8)
    calls = []

    def draw(*arguments: Any) -> torch.Tensor:
        calls.append(arguments[-1])
        return tiled_inference.draw_tiled(*arguments)

    monkeypatch.setattr("gansynth_cgan3d.model.draw_tiled", draw)
    generator = build()
    generator.sample([asked(generator), asked(generator, 1)], [1, 2])
    assert calls == [8, 8]


@pytest.mark.skipif(not native_bf16(torch.device("cpu")), reason="bf16 is not native here")
def test_samples_follow_the_precision_they_are_asked_for():
    generator = build()
    drawn = {}
    for precision in ("fp32", "bf16", "auto"):
        generator.precision = precision
        drawn[precision] = generator.sample([asked(generator)], [1])[0].image
    assert np.abs(drawn["fp32"] - drawn["bf16"]).max() > 1e-5
    assert np.array_equal(drawn["auto"], drawn["bf16"])


def test_drawing_leaves_a_normalised_generator_as_it_was():
    generator = build(g_spectral_norm=True)
    before = {k: v.clone() for k, v in generator.net.state_dict().items()}
    generator.sample([asked(generator)], [1])
    assert all(torch.equal(v, before[k]) for k, v in generator.net.state_dict().items())
