"""``dcgan``: the generators' contract, sizes, units, kinds, drawn label maps, walks."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gansynth.core.generator import Batch
from gansynth.core.registry import installed
from gansynth.core.schema import OUTSIDE, Case, Condition, Schema
from gansynth.data.connected_components import boxes_of
from gansynth.fitting.warm_start import named_axes, take_over
from gansynth.runtime.errors import DataFault, UsageFault
from gansynth.testing import check_generator
from gansynth.training import checkpoint
from gansynth.training.loop import FitOptions, train
from gansynth_dcgan.latents import between
from gansynth_dcgan.model import DCGAN, DCGANOptions
from gansynth_dcgan.networks import Pyramid

TINY: dict[str, Any] = {"width": 4, "latent": 8}
MASK: dict[str, Any] = {**TINY, "with_mask": True}


def schema(ndim: int = 2, **changes: Any) -> Schema:
    plain: dict[str, Any] = {
        "channels": ("T1", "FLAIR"),
        "labels": {"background": 0, "organ": 1, "lesion": 4},
        "spacing": (1.0,) * ndim,
        "axes": "DHW"[-ndim:],
        "has_outside": True,
        "outside_fill": (-2.5, 0.125),
        "classes": ("healthy", "ill", "dead"),
    }
    return Schema(**{**plain, **changes})


def build(size: tuple[int, ...] = (16, 16), spec: Schema | None = None, **options: Any) -> DCGAN:
    torch.manual_seed(0)
    own = DCGANOptions.model_validate({**TINY, **options})
    return DCGAN(spec or schema(len(size)), size, own)


def case(size: tuple[int, ...] = (16, 16), seed: int = 0, **changes: Any) -> Case:
    """A disc of an organ with a lesion, outside around it."""
    rng = np.random.default_rng(seed)
    at = np.indices(size) - (np.array(size) - 1).reshape(-1, *[1] * len(size)) / 2
    far = np.sqrt((at**2).sum(0))
    labels = np.select([far > 7, far > 6, far > 3 + seed % 2], [OUTSIDE, 0, 1], 4).astype(np.int16)
    image = rng.normal(size=(2, *size)) + labels
    image[:, labels == OUTSIDE] = np.array([[-2.5], [0.125]])
    plain = Case(f"case_{seed}", f"case_{seed}", image.astype(np.float32), labels, None, seed % 2)
    return replace(plain, **changes)


def cases(n: int = 6) -> list[Case]:
    return [case(seed=i) for i in range(n)]


def batch_of(drawn: list[Case]) -> Batch:
    labels = np.stack([c.labels for c in drawn if c.labels is not None]).astype(np.int64)
    return Batch(
        torch.from_numpy(np.stack([c.image for c in drawn])),
        torch.from_numpy(labels),
        classes=torch.tensor([c.label_class or 0 for c in drawn]),
    )


def trained(generator: DCGAN, steps: int = 2, folder: Path | None = None) -> DCGAN:
    known = cases()
    generator.observe(known)
    loop = FitOptions(steps=steps, batch_size=4, precision="fp32")
    train(generator, lambda *_: batch_of(known[:4]), loop, folder=folder)
    return generator


# -- the contract ----------------------------------------------------------------------------------


def test_it_is_installed_and_usually_trained_with_batches_of_64():
    assert installed().generator("dcgan") is DCGAN
    assert DCGAN.loop["batch_size"] == 64


@pytest.mark.parametrize("ndim", [2, 3])
def test_it_keeps_the_contract_of_generators(ndim):
    options = {**TINY, "objective": "gan", "with_mask": ndim == 3, "lr_generator": 2e-3}
    report = check_generator(DCGAN, options=options, ndim=(ndim,), steps=50, fit=briefly)
    # A few steps are not enough for labels that explain the image.
    learnt = {f"{ndim}d: faithful", f"{ndim}d: contrast"}
    assert {c.name for c in report.checks if c.verdict == "failed"} <= learnt
    assert f"{ndim}d: interpolates" in {c.name for c in report.checks if c.verdict == "passed"}


def briefly(generator: Any, known: Any, steps: int) -> object:
    loop = FitOptions(steps=steps, precision="fp32")
    return train(generator, lambda *_: batch_of(known[:4]), loop)


# -- any size --------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [64, 128, 256])
def test_features_begin_at_four_voxels_and_channels_halve_as_they_double(side):
    pyramid = Pyramid.of((side, side), 64, 512)
    assert pyramid.base == (4, 4)
    assert pyramid.widths[-4:] == (512, 256, 128, 64)
    assert set(pyramid.widths[:-4]) <= {512}
    assert len(pyramid.strides) == len(pyramid.widths) == np.log2(side / 4)


@pytest.mark.parametrize("size", [(56, 48), (30, 21), (13, 17, 10), (5, 40), (3, 3)])
def test_any_size_will_do(size):
    generator = build(size, schema(len(size)), d_norm="none")
    sample = generator.sample([Condition()], [3])[0]
    assert sample.image.shape == (2, *size)
    assert sample.image.dtype == np.float32
    values = generator.nets["discriminator"](torch.from_numpy(sample.image)[None])
    assert values.shape == (1, 1)


def test_what_is_drawn_is_cut_in_its_middle():
    assert Pyramid.of((56, 48), 4, 8).margins == [0, 0, 4, 4]


def test_filters_are_four_wide_and_weights_begin_small():
    for net in build(width=32).nets.values():
        filters = [p for p in net.parameters() if p.ndim == 4]
        assert {tuple(f.shape[2:]) for f in filters} == {(4, 4)}
        assert all(float(f.detach().std()) == pytest.approx(0.02, rel=0.2) for f in filters)


def test_a_space_without_a_size_is_refused():
    with pytest.raises(UsageFault, match="expected a source that has one"):
        build((), schema(2))


# -- units -----------------------------------------------------------------------------------------


def test_samples_are_in_the_sources_units():
    """Of the same weights: raw intensities are drawn as standardised ones, in other units."""
    plain, raw = build(spec=schema(outside_fill=None)), build(spec=schema(outside_fill=None))
    plain.observe(cases())
    raw.observe(replace(c, image=c.image * 500 + 3000) for c in cases())
    one, other = (g.sample([Condition()], [5])[0].image for g in (plain, raw))
    assert np.allclose(one * 500 + 3000, other, atol=0.05)
    # Even untrained ones lie where the training images do.
    assert abs(other.mean() - 3000) < 1500


def test_networks_see_mean_0_and_deviation_1_per_channel():
    generator = build()
    generator.observe(cases())
    seen = generator.intensities.standardised(batch_of(cases()).image)
    assert torch.allclose(seen.mean((0, 2, 3)), torch.zeros(2), atol=1e-5)
    assert torch.allclose(seen.std((0, 2, 3)), torch.ones(2), atol=1e-3)


def test_a_constant_channel_keeps_its_value():
    generator = build(spec=schema(outside_fill=None))
    generator.observe(replace(c, image=np.full_like(c.image, 7.0)) for c in cases())
    assert generator.intensities.deviation.tolist() == [1.0, 1.0]


def test_a_windowed_image_stays_in_its_window():
    sample = trained(build(output="tanh", objective="gan")).sample([Condition()], [1])[0]
    assert np.abs(sample.image).max() <= 1


# -- kinds of samples ------------------------------------------------------------------------------


def test_a_class_can_be_asked_for_and_decides_the_image():
    generator = trained(build(condition="class"))
    drawn = generator.sample([Condition(label_class=k) for k in (0, 1)], [4, 4])
    assert [s.provenance["class"] for s in drawn] == ["healthy", "ill"]
    assert {s.provenance["class_from"] for s in drawn} == {"condition"}
    assert not np.array_equal(drawn[0].image, drawn[1].image)


def test_the_discriminator_is_told_the_class():
    generator = build(condition="class")
    seen = torch.ones(1, 2, 16, 16)
    one, same, other = (generator.nets["discriminator"](seen, torch.tensor([k])) for k in (0, 0, 1))
    assert one == same != other


def test_a_class_that_is_not_asked_for_is_as_frequent_as_in_training():
    generator = build(condition="class")
    generator.observe(case(seed=i, label_class=0 if i % 4 else 2) for i in range(8))
    drawn = generator.sample([Condition()] * 64, range(64))
    counted = [[s.provenance["class"] for s in drawn].count(c) for c in schema().classes]
    assert counted[1] == 0
    assert 0.5 < counted[0] / 64 < 0.95
    assert {s.provenance["class_from"] for s in drawn} == {"training frequencies"}


def test_foreground_is_asked_for_by_label_maps():
    generator = trained(build(condition="foreground"))
    maps = [np.zeros((16, 16), np.int16), case().labels]
    drawn = generator.sample([Condition(labels=m) for m in maps], [4, 4])
    assert [s.provenance["foreground"] for s in drawn] == ["without", "with"]


def test_a_class_that_is_not_there_is_refused():
    generator = build(condition="class")
    with pytest.raises(UsageFault, match=r"class 3, expected 0 to 2 \(healthy, ill, dead\)"):
        generator.sample([Condition(label_class=3)], [0])


def test_sources_without_classes_or_labels_are_refused_with_the_way_out():
    with pytest.raises(UsageFault, match=r"have no classes.*condition=foreground"):
        build(spec=schema(classes=()), condition="class")
    with pytest.raises(UsageFault, match=r"no label maps.*condition=none"):
        build(spec=schema(labels={"background": 0}), condition="foreground")


@pytest.mark.parametrize(
    ("options", "lacks", "way_out"),
    [
        ({"condition": "class"}, "label_class", "condition=none"),
        ({"condition": "foreground"}, "labels", "condition=none"),
        ({"with_mask": True}, "labels", "without --with-mask"),
    ],
)
def test_a_case_that_lacks_what_is_learnt_is_named(options, lacks, way_out):
    bad: Any = {lacks: None}
    with pytest.raises(DataFault, match=f"case 'case_1'.*{way_out}"):
        build(**options).observe([case(), case(seed=1, **bad)])


# -- label maps ------------------------------------------------------------------------------------


def test_label_maps_are_drawn_or_there_are_none():
    assert (build().labelling, build(with_mask=True).labelling) == ("none", "drawn")
    sample = trained(build()).sample([Condition(labels=case().labels)], [1])[0]
    assert sample.labels is None
    assert sample.boxes is None


def test_drawn_label_maps_are_clean_and_have_boxes():
    generator = trained(build(**MASK))
    for sample in generator.sample([Condition()] * 4, range(4)):
        assert sample.labels is not None
        assert sample.labels.dtype == np.int16
        assert generator.priors is not None
        assert np.array_equal(generator.priors.clean(sample.labels), sample.labels)
        assert sample.boxes is not None
        assert np.array_equal(sample.boxes.coords, boxes_of(sample.labels, schema()).coords)


def test_outside_holds_the_schemas_constant_exactly():
    sample = build(**MASK).sample([Condition()], [0])[0]
    found = sample.image[:, sample.labels == OUTSIDE]
    assert found.size
    assert (found == np.array([[-2.5], [0.125]], np.float32)).all()


def test_the_discriminator_sees_what_is_drawn_outside_as_samples_have_it():
    """Else it would know real images by their exact constant."""
    generator = build(**MASK, mask_output="hard")
    generator.observe(cases())
    image, probabilities = generator.drawn(torch.randn(8, 8), None)
    assert probabilities is not None
    outside = probabilities[:, 0] == 1
    assert outside.any()
    fill = generator.intensities.constant((-2.5, 0.125), image)
    assert torch.allclose(image.movedim(1, -1)[outside], fill.flatten(), atol=1e-5)


def test_hard_label_channels_are_one_hot_and_pass_gradients():
    generator = build(**MASK, mask_output="hard")
    _, probabilities = generator.drawn(torch.randn(2, 8), None)
    assert probabilities is not None
    assert torch.allclose(probabilities.amax(1), torch.ones(2, 16, 16), atol=1e-6)
    torch.autograd.backward((probabilities * torch.randn(probabilities.shape)).sum())
    gradient = next(generator.nets["generator"].parameters()).grad
    assert gradient is not None
    assert gradient.abs().max() > 0


def test_a_map_like_no_training_map_is_a_flaw():
    generator = build(**MASK)
    generator.observe(cases(20))
    sample = generator.sample([Condition()], [0])[0]
    clean = replace(sample, labels=case().labels, provenance={"cleaned": 0.01})
    assert generator.flaw(clean) == ""
    assert "expected" in generator.flaw(replace(clean, labels=np.zeros((16, 16), np.int16)))


def test_a_map_that_had_to_be_made_anew_is_a_flaw():
    """What cleaning leaves of noise may look like a training map."""
    generator = build(**MASK)
    generator.observe(cases(20))
    sample = generator.sample([Condition()], [0])[0]
    assert sample.provenance["cleaned"] > 0.05
    flaw = generator.flaw(replace(sample, labels=case().labels))
    assert "had to be cleaned" in flaw
    assert flaw == sample.provenance["label_noise"]


# -- state -----------------------------------------------------------------------------------------


def test_what_it_learnt_of_the_cases_survives_as_json():
    before, after = build(**MASK, condition="class"), build(**MASK, condition="class")
    before.observe(cases())
    after.load_state(json.loads(json.dumps(before.state())))
    assert after.state() == before.state()
    one, other = (g.sample([Condition()], [2])[0] for g in (before, after))
    assert np.array_equal(one.image, other.image)
    assert one.provenance == other.provenance


def test_averages_hold_the_batch_norms_statistics_too(tmp_path):
    """A run's weights file alone draws what the trained generator draws."""
    generator = trained(build(objective="gan"), steps=3, folder=tmp_path)
    found = checkpoint.latest(tmp_path / "checkpoints")
    assert found is not None
    digest = found.state["sha256"][checkpoint.EMA]
    averages = checkpoint.load_tensors(found.folder / checkpoint.EMA, digest)
    twin = build(objective="gan")
    twin.load_state(generator.state())
    twin.to(torch.device("cpu")).precision = generator.precision
    net = twin.nets["generator"].state_dict()
    assert not torch.equal(net["norms.0.running_var"], averages["generator/norms.0.running_var"])
    for key, value in averages.items():
        net[key.removeprefix("generator/")].copy_(value)
    one, other = (g.sample([Condition()], [2])[0].image for g in (generator, twin))
    assert np.array_equal(one, other)


def test_channels_are_taken_over_by_name():
    old = build(spec=schema(channels=("T1",)), **MASK)
    new = build(**MASK, condition="class")
    taken = take_over(new, named_axes(old), flat(old))
    last = "generator/layers.1.weight"
    assert taken.partial[last] == [
        "image:T1", "label:-1", "label:background", "label:organ", "label:lesion"
    ]  # fmt: skip
    assert taken.partial["generator/first.weight"] == [f"latent:{i}" for i in range(8)]
    assert torch.equal(flat(new)[last][:, 0], flat(old)[last][:, 0])
    assert taken.fresh == ["discriminator/told.weight"]


def flat(generator: DCGAN) -> dict[str, torch.Tensor]:
    nets = generator.nets.items()
    return {f"{n}/{k}": v.clone() for n, net in nets for k, v in net.state_dict().items()}


# -- latents ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("prior", ["normal", "uniform"])
def test_a_walk_leads_from_one_seeds_sample_to_the_others(prior):
    generator = trained(build(latent_prior=prior, condition="class"))
    walk = generator.interpolate(Condition(label_class=1), (3, 2**63 - 1), 5)
    first, last = generator.sample([Condition(label_class=1)] * 2, [3, 2**63 - 1])
    assert len(walk) == 5
    assert np.array_equal(walk[0].image, first.image)
    assert np.array_equal(walk[-1].image, last.image)
    assert [s.provenance["share"] for s in walk] == [0, 0.25, 0.5, 0.75, 1]


def test_a_walk_keeps_the_kind_that_was_drawn_first():
    generator = build(condition="class")
    generator.observe(cases())
    for seed in range(4):
        walk = generator.interpolate(Condition(), (seed, seed + 1), 3)
        alone = generator.sample([Condition()], [seed])[0]
        assert {s.provenance["class"] for s in walk} == {alone.provenance["class"]}


def test_normal_latents_are_walked_through_at_their_own_length():
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 100, generator=rng)
    lengths = [float(between(a, b, share / 8, "normal").norm()) for share in range(9)]
    assert min(lengths) >= 0.99 * min(lengths[0], lengths[-1])
    assert max(lengths) <= 1.01 * max(lengths[0], lengths[-1])
    assert torch.allclose(between(a, b, 0.25, "uniform"), 0.75 * a + 0.25 * b)
    assert torch.allclose(between(a, -a, 0.25, "normal"), 0.5 * a)


def test_uniform_latents_lie_in_their_cube():
    generator = build(latent_prior="uniform", latent=500)
    latent, _ = generator._begun(Condition(), 7)
    assert float(latent.min()) < -0.9
    assert float(latent.max()) > 0.9
    assert float(latent.abs().max()) <= 1


def test_a_walk_has_two_ends():
    with pytest.raises(UsageFault, match="1 step"):
        build().interpolate(Condition(), (0, 1), 1)
