# mypy: disallow-untyped-calls=False

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gansynth.core.generator import capabilities_of
from gansynth.core.schema import OUTSIDE, Case, Condition
from gansynth.data.batches import batch_of
from gansynth.testing.phantoms import PhantomOptions, make_liver
from gansynth.training import checkpoint
from gansynth.training.loop import FitOptions, train
from gansynth_dcgan.model import DCGAN, between
from gansynth_evaluate.memorisation import discriminator_scores
from tests.plugins import toys
from tests.plugins.toys import FILL, SCHEMA, SIZE, case, cases, learn, step, trained, weights

MASK: dict[str, Any] = {"with_mask": True}
ANY = Condition()


def build(size: tuple[int, ...] = SIZE, spec: Any = None, **options: Any) -> Any:
    return toys.build("dcgan", size, spec, **options)


def seen(*of: Case, **options: Any) -> Any:
    return toys.seen("dcgan", *of, **options)


@pytest.mark.parametrize("size", [(56, 48), (30, 21), (13, 17, 10), (5, 40), (3, 3)])
def test_any_size_will_do(size):
    generator = build(size, d_norm="none")
    sample = generator.sample([ANY], [3])[0]
    assert (sample.image.shape, sample.image.dtype) == ((2, *size), np.float32)
    values = generator.nets["discriminator"](torch.from_numpy(sample.image)[None])
    assert values.shape == (1, 1)


def test_weights_begin_small():
    for net in build(width=32).nets.values():
        filters = [p for p in net.parameters() if p.ndim == 4]
        assert all(float(f.detach().std()) == pytest.approx(0.02, rel=0.2) for f in filters)


NO_FILL = replace(SCHEMA, outside_fill=None)


def test_foreground_is_asked_for_by_label_maps():
    generator = trained(build(condition="foreground"))
    maps = [np.zeros(SIZE, np.int16), case().labels]
    drawn = generator.sample([Condition(labels=m) for m in maps], [4, 4])
    assert [s.notes["foreground"] for s in drawn] == ["without", "with"]


def test_the_discriminator_sees_what_is_drawn_outside_as_samples_have_it():
    """Else it would know real images by their exact constant."""
    generator = seen(**MASK, mask_output="hard")
    image, probabilities = generator.drawn(torch.randn(8, 8), None)
    outside = probabilities[:, 0] == 1
    assert outside.any()
    fill = generator.intensities.constant(FILL, image)
    assert torch.allclose(image.movedim(1, -1)[outside], fill.flatten(), atol=1e-5)


@pytest.mark.parametrize(
    ("objective", "output"), [("gan", "linear"), ("wgan", "soft"), ("wgan-gp", "soft")]
)
def test_label_channels_saturate_only_where_the_critic_can_pull_them_back(objective, output):
    generator = build(spec=replace(SCHEMA, labels={"background": 0, "organ": 1}, has_outside=False,
                                   outside_fill=None), objective=objective, **MASK)  # fmt: skip
    logits = torch.tensor([[[5.0]], [[-3.0]]])[None]
    found = generator.masks.shown(generator.masks.of_logits(logits)).flatten().tolist()
    assert generator.masks.outside(generator.masks.of_logits(logits)) is None
    assert found == ([5.0, -3.0] if output == "linear" else pytest.approx([1, -1], abs=1e-2))


def test_a_map_like_no_training_map_or_that_was_made_anew_is_a_flaw():
    """What cleaning leaves of noise may look like a training map."""
    generator = seen(*cases(20), **MASK)
    sample = generator.sample([ANY], [0])[0]
    assert sample.notes["cleaned"] > 0.05
    reject_reason = generator.reject_reason(replace(sample, labels=case().labels))
    assert "had to be cleaned" in reject_reason
    assert reject_reason == sample.notes["label_noise"]
    clean = replace(sample, labels=case().labels, notes={"cleaned": 0.01})
    assert generator.reject_reason(clean) == ""
    assert "expected" in generator.reject_reason(replace(clean, labels=np.zeros(SIZE, np.int16)))


def test_averages_hold_the_batch_norms_statistics_too(tmp_path):
    """A run's weights file alone draws what the trained generator draws."""
    generator = trained(build(objective="gan"), 3, folder=tmp_path)
    found: Any = checkpoint.latest(tmp_path / "checkpoints")
    digest = found.state["sha256"][checkpoint.EMA]
    averages = checkpoint.load_tensors(found.folder / checkpoint.EMA, digest)
    twin = build(objective="gan")
    twin.load_state(generator.learnt)
    twin.precision = generator.precision
    net = twin.nets["generator"].state_dict()
    assert not torch.equal(net["norms.0.running_var"], averages["generator/norms.0.running_var"])
    for key, value in averages.items():
        net[key.removeprefix("generator/")].copy_(value)
    one, other = (g.sample([ANY], [2])[0].image for g in (generator, twin))
    assert np.array_equal(one, other)


def test_normal_latents_are_walked_through_at_their_own_length():
    rng = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 100, generator=rng)
    lengths = [float(between(a, b, share / 8, "normal").norm()) for share in range(9)]
    assert min(lengths) >= 0.99 * min(lengths[0], lengths[-1])
    assert max(lengths) <= 1.01 * max(lengths[0], lengths[-1])
    assert torch.allclose(between(a, b, 0.25, "uniform"), 0.75 * a + 0.25 * b)
    assert torch.allclose(between(a, -a, 0.25, "normal"), 0.5 * a)


def test_uniform_latents_lie_in_their_cube():
    latent, _ = build(latent_prior="uniform", latent=500)._begun(ANY, 7)
    assert float(latent.min()) < -0.9
    assert 0.9 < float(latent.max()) <= float(latent.abs().max()) <= 1


@pytest.mark.parametrize(
    ("objective", "waits", "expected"),
    [
        ("gan", 1, ("Adam", 2e-4, (0.5, 0.999), "batch")),
        ("wgan", 5, ("RMSprop", 5e-5, None, "batch")),
        ("wgan-gp", 5, ("Adam", 1e-4, (0.0, 0.9), "instance")),
    ],
)
def test_turns_rates_and_norms_are_the_papers(objective, waits, expected):
    generator = build(objective=objective)
    phases = generator.phases()
    due = [[p.player for p in phases if p.due(i)] for i in range(2 * waits)]
    assert [i for i, players in enumerate(due) if "generator" in players] == [
        waits - 1,
        2 * waits - 1,
    ]
    assert all("discriminator" in players for players in due)
    made = generator.optimizer("discriminator", generator.nets["discriminator"].parameters())
    found = type(made).__name__, made.defaults["lr"], made.defaults.get("betas"), generator.d_norm
    assert found == expected
    assert build(objective=objective, d_norm="layer").d_norm == "layer"
    assert capabilities_of(DCGAN).loop["batch_size"] == 64


@pytest.mark.parametrize(("objective", "clipped"), [("wgan", True), ("wgan-gp", False)])
def test_wgans_critic_alone_is_clipped(objective, clipped):
    generator = build(objective=objective, clip=0.003) if clipped else build(objective=objective)
    learn(generator)
    largest = float(weights(generator)["discriminator"].abs().max())
    assert largest == pytest.approx(0.003) if clipped else largest > 0.5


def test_the_penalty_weighs_what_it_is_told():
    found = []
    for penalty in (1, 10):
        generator = seen(penalty=penalty)
        phase = generator.phases()[1]
        found.append(phase.loss(step(generator, cases()))["penalty"].item())
    assert found[1] == pytest.approx(10 * found[0])


class Watched(torch.nn.Module):
    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner, self.seen = inner, list[Tensor]()

    def forward(self, seen: Tensor, told: Tensor | None = None) -> Tensor:
        self.seen.append(seen.detach().clone())
        found: Tensor = self.inner(seen, told)
        return found


def shown(**options: Any) -> list[Tensor]:
    """What the discriminator sees in a step of its own: real samples, synthetic ones."""
    generator = seen(**MASK, **options)
    watched = generator.nets["discriminator"] = Watched(generator.nets["discriminator"])
    generator.objective.discriminator(step(generator, cases()))
    return list(watched.seen[0].chunk(2))


def test_label_channels_stand_behind_the_image_at_their_scale():
    real, fake = shown(mask_scale=0.5)
    assert real.shape == fake.shape == (4, 6, *SIZE)
    labels: Any = batch_of(cases()).labels
    for channel, value in enumerate((OUTSIDE, 0, 1, 4), start=2):
        assert torch.equal(real[:, channel], torch.where(labels == value, 0.5, -0.5))
    assert torch.allclose(fake[:, 2:].sum(1), torch.full((4, *SIZE), -1.0), atol=1e-6)


def test_intensity_changes_leave_label_channels_alone_and_spatial_ones_do_not():
    plain, bright, moved = (
        shown(augment=names)[0] for names in ((), ("brightness", "contrast"), ("translation_edge",))
    )
    assert not torch.equal(plain[:, 0], bright[:, 0])
    assert torch.equal(plain[:, 2:], bright[:, 2:])
    assert any(not torch.equal(a, b) for a, b in zip(plain, moved, strict=True))
    lesion = moved[:, -1] > 0
    means = [float(moved[:, 0][m].mean()) for m in (lesion, ~lesion)]
    assert means[0] - means[1] > 0.7


def slice_of(person: int) -> Case:
    """The middle slice of a simulated abdomen, 32 x 32 pixels of 8 mm."""
    volume = make_liver(person, 0, PhantomOptions(spacing_mm=8.0)).image[0]
    d, h, w = (n // 2 for n in volume.shape)
    image = volume[d, h - 16 : h + 16, w - 16 : w + 16] / np.float32(100)
    return Case(f"p{person}", f"p{person}", image[None].astype(np.float32))


@pytest.mark.slow
def test_an_overfitted_discriminator_tells_those_it_has_seen_from_others():
    """Area under the ROC curve: the share of pairs in which the member's number is the larger."""
    known, others = [slice_of(i) for i in range(8)], [slice_of(i) for i in range(8, 24)]
    own = {"width": 8, "objective": "gan", "g_norm": "instance", "d_norm": "instance"}
    spec = replace(NO_FILL, channels=("CT",), labels={"background": 0}, has_outside=False)
    rates = {"lr_generator": 2e-3, "lr_discriminator": 1e-3}
    generator = build((32, 32), spec, **own, **rates)
    generator.observe(known)
    batch = batch_of(known)

    def area() -> float:
        one: Any = discriminator_scores(generator, known)
        other: Any = discriminator_scores(generator, others)
        return float((one[:, None] > other).mean())

    before = area()
    loop = FitOptions(steps=300, batch_size=8, precision="fp32")
    train(generator, lambda step, stage, which: batch, loop)
    assert abs(before - 0.5) < 0.25
    assert area() > 0.85
